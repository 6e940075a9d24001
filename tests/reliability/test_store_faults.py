"""The run database under faults at the system calls of a commit: nothing acknowledged is lost, nothing is torn."""

from collections import Counter

import pytest

from tests.reliability.committed import COMMIT, content, pictures_in, survives
from tests.reliability.faults import COMMIT_CALLS, Fault, calls_of, can_inject

pytestmark = pytest.mark.skipif(not can_inject(), reason="strace is not here, or may not trace")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return pictures_in(tmp_path_factory.mktemp("in"))


@pytest.fixture(scope="module")
def whole(nursery, pictures, tmp_path_factory):
    """What a run that nothing disturbed holds, the calls that it makes, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    made = calls_of(nursery, COMMIT_CALLS, COMMIT, str(folder), str(pictures))
    return content(folder), made, str(folder)


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_a_system_call_of_a_commit_loses_and_tears_nothing(every, nursery, pictures, whole, tmp_path):
    expected, made, _ = whole
    often = Counter(call for call, _, _ in made)
    assert min(often[call] for call in ("pwrite64", "fdatasync", "ftruncate", "unlink")) > 3
    for call, n, _ in made[::every]:
        fault = Fault(call, n)
        assert survives(nursery, fault, tmp_path / f"{call}{n}", pictures, expected), f"{fault} never came"


@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.slow)])
def test_a_failing_write_is_told_and_never_acknowledged(every, errno, nursery, pictures, whole, tmp_path):
    expected, made, folder = whole
    # SQLite itself does not look whether syncing a folder worked; and a failed trim of a log harms nobody.
    made = [m for m in made if m[0] in ("pwrite64", "fdatasync") and m[2] != folder]
    for call, n, _ in made[::every]:
        fault = Fault(call, n, errno)
        assert survives(nursery, fault, tmp_path / f"{call}{n}", pictures, expected), f"{fault} passed in silence"


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_disk_that_stays_broken_leaves_what_was_committed(call, nursery, pictures, whole, tmp_path):
    expected, made, _ = whole
    half = sum(name == call for name, _, _ in made) // 2
    assert survives(nursery, Fault(call, f"{half}+", "EIO"), tmp_path / "run", pictures, expected)
