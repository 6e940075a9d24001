"""One warm interpreter for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.reliability.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as warm:
        yield warm
