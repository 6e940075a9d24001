"""`offline=true` forbids the network to the process, for as long as anybody asks for it."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest

from autolabel.app.labelers import offline_if
from autolabel.core.errors import ConfigError


def is_offline():
    return os.environ.get("AUTOLABEL_OFFLINE")


@pytest.fixture(params=[None, "0", "1"])
def before(request, monkeypatch):
    monkeypatch.delenv("AUTOLABEL_OFFLINE")
    if request.param is not None:
        monkeypatch.setenv("AUTOLABEL_OFFLINE", request.param)
    return request.param


@pytest.mark.parametrize("first_out", [0, 1])
def test_it_holds_until_the_last_one_has_left_and_then_it_is_as_it_was(first_out, before):
    both = [offline_if(True), offline_if(True)]
    for one in both:
        one.__enter__()
    assert is_offline() == "1"
    both.pop(first_out).__exit__(None, None, None)
    with offline_if(False):
        assert is_offline() == "1"
    assert is_offline() == "1"
    both.pop().__exit__(None, None, None)
    assert is_offline() == before


def test_many_threads_are_offline_all_the_time(before):
    start = Barrier(4)

    def work(seed):
        start.wait()
        seen = []
        for _ in range(200):
            with suppress(KeyError), offline_if(True):
                seen.append(is_offline())
                if random.Random(seed).random() < 0.5:
                    raise KeyError("labelling failed")
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert {one for seen in pool.map(work, range(4)) for one in seen} == {"1"}
    assert is_offline() == before


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_what_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(ConfigError, match="offline must be true or false"):
        offline_if(value)
