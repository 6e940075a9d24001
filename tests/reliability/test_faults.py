"""Whole runs under faults: what is promised holds for the program as people start it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes import album, draw
from tests.reliability.faults import Fault, can_inject, run_with
from tests.reliability.models import fill
from tests.reliability.plans import COMMAND, Bench, interrupt

needs_strace = pytest.mark.skipif(not can_inject(), reason="strace is not here, or may not trace")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and change users")
PICTURES = 16


@pytest.fixture
def bench(nursery, tmp_path):
    album(tmp_path / "in", PICTURES)
    return Bench(nursery, tmp_path)


def one_line(text: str) -> str:
    """The program's own last line; tracebacks are never the answer."""
    assert "Traceback" not in text, text
    assert "Logging error" not in text, text
    return next(line for line in reversed(text.splitlines()) if line.startswith("autolabel: "))


# -- kill -9, and the engines ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("plans", [1, pytest.param(100, marks=pytest.mark.slow)])
def test_a_run_that_was_killed_and_continued_equals_one_that_was_not(plans, workers, bench):
    (bench.folder / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    bench.label("whole")
    started = time.monotonic()
    assert bench.label("again").code == 2
    seconds = time.monotonic() - started
    expected = bench.content("whole")
    outcomes = [interrupt(bench, seed, workers, seconds) for seed in range(plans)]
    assert {o.content for o in outcomes} == {expected}
    assert {frozenset(o.codes) for o in outcomes} == {frozenset({"broken.jpg"})}
    assert min(o.kills for o in outcomes) >= 1, "a plan without a kill proves nothing"


def test_the_rollback_journal_gives_the_same_run(bench):
    bench.label("whole")
    outcome = interrupt(bench, 5, 2, 0.5, "store.journal=rollback")
    assert outcome.content == bench.content("whole")


# -- being asked to stop -----------------------------------------------------------------------------


def test_sigterm_commits_what_is_in_hand_and_the_same_command_continues(bench):
    ended = bench.label("run", *bench.obeying("5 term"))
    assert ended.code == 130
    assert "the same command continues" in ended.text
    assert 8 <= len(bench.rows("run")) < PICTURES
    assert bench.label("run", *bench.obeying()).code == 0
    assert bench.label("whole", *bench.obeying()).code == 0
    assert bench.content("run") == bench.content("whole")


def test_a_second_signal_leaves_now(bench):
    assert bench.label("run", *bench.obeying("5 twice")).code == 130
    assert len(bench.rows("run")) == 4, "the unit in hand was not to be waited for"


@pytest.mark.slow
def test_work_that_takes_too_long_is_given_up_within_ten_seconds(bench):
    child = bench.nursery.start(COMMAND, *bench.arguments("run", *bench.obeying("5 hang")))
    await_text(child, "stopping")
    started = time.monotonic()
    assert child.wait().code == 130
    assert time.monotonic() - started < 10
    assert len(bench.rows("run")) == 4


def await_text(child, text):
    while text not in child.text():
        time.sleep(0.01)


# -- the disk ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 MB of its own; nothing of it is written that is not used."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    make = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        pytest.skip("mkfs.ext4 is not here")
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([make, "-q", "-O", "^has_journal", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True).returncode:
        pytest.skip("may not mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@needs_root
def test_a_disk_without_room_is_refused_before_anything_is_made(bench, small_disk):
    fill(small_disk, leave_bytes=100 << 20)
    ended = bench.label("disk/run")
    assert ended.code == 3
    assert "MiB free, this run needs" in one_line(ended.text)
    assert not (small_disk / "run" / "run.sqlite").exists()


@needs_root
def test_a_disk_that_fills_up_stops_the_run_and_room_continues_it(bench, small_disk):
    ended = bench.label("disk/run", *bench.obeying(f"9 fill {small_disk}"))
    assert ended.code == 3
    assert "make room and the same command continues" in one_line(ended.text)
    assert len(bench.rows("disk/run")) == 8
    again = bench.label("disk/run", *bench.obeying())
    assert (again.code, "free" in one_line(again.text)) == (3, True), "still full: refused, and nothing harmed"
    (small_disk / "filler").unlink()
    assert bench.label("disk/run", *bench.obeying()).code == 0
    assert bench.label("whole", *bench.obeying()).code == 0
    assert bench.content("disk/run") == bench.content("whole")


@needs_root
def test_a_disk_that_was_mounted_read_only_is_refused_before_anything_is_made(bench, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = bench.label("disk/run")
    assert ended.code == 1
    assert "cannot be written" in one_line(ended.text)


@needs_root
def test_a_folder_of_somebody_else_is_refused_in_one_line(bench):
    child = bench.nursery.start(COMMAND, *bench.arguments("run"), uid=65534)
    ended = child.wait()
    assert ended.code == 1
    assert "cannot be written" in one_line(ended.text)


# -- reading -----------------------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize("errno", ["ESTALE", pytest.param("EIO", marks=pytest.mark.slow)])
def test_a_read_that_fails_for_a_moment_is_repeated(errno, bench):
    picture = bench.folder / "in" / "0" / "picture 003.png"
    fault = Fault("openat", "1..2", errno)
    ended = run_with(bench.nursery, fault, COMMAND, *bench.arguments("run"), paths=[picture])
    assert ended.code == 0, ended


@needs_strace
@pytest.mark.parametrize("errno", ["EIO", pytest.param("ESTALE", marks=pytest.mark.slow)])
def test_a_read_that_keeps_failing_is_recorded_and_repeated_by_the_next_run(errno, bench):
    picture = bench.folder / "in" / "0" / "picture 003.png"
    fault = Fault("openat", "1+", errno)
    ended = run_with(bench.nursery, fault, COMMAND, *bench.arguments("run"), paths=[picture])
    assert ended.code == 2
    assert bench.codes("run") == {"0/picture 003.png": "io_error"}
    assert bench.label("run").code == 0
    assert bench.label("whole").code == 0
    assert bench.content("run") == bench.content("whole")


def test_a_picture_that_vanishes_meanwhile_is_recorded_and_taken_up_when_it_is_back(bench):
    picture, away = bench.folder / "in" / "2" / "picture 014.png", bench.folder / "away.png"
    shutil.copy2(picture, away)
    assert bench.label("run", "engine=inline", *bench.obeying(f"0 remove {picture}")).code == 2
    assert bench.codes("run") == {"2/picture 014.png": "missing"}
    shutil.copy2(away, picture)  # with its old time, as if it had never been away
    assert bench.label("run", *bench.obeying()).code == 0
    assert bench.label("whole", *bench.obeying()).code == 0
    assert bench.content("run") == bench.content("whole")


def test_a_picture_that_is_altered_meanwhile_is_labelled_again_by_the_next_run(bench):
    picture = bench.folder / "in" / "2" / "picture 014.png"
    assert bench.label("run", "engine=inline", *bench.obeying(f"0 replace {picture}")).code == 2
    assert bench.codes("run") == {"2/picture 014.png": "not_an_image"}
    draw(picture, {0: (2, 2, 9, 9)})
    assert "1 changed" in bench.label("run", *bench.obeying()).text
    assert bench.codes("run") == {}


def test_pictures_that_come_later_are_labelled_by_the_next_run(bench):
    bench.label("run")
    draw(bench.folder / "in" / "later.png", {0: (2, 2, 9, 9)})
    assert "1 new" in bench.label("run").text
    assert len(bench.rows("run")) == PICTURES + 1


def test_no_picture_that_can_be_read_is_said_before_a_model_is_loaded(bench):
    names = [p.relative_to(bench.folder / "in") for p in (bench.folder / "in").rglob("*.png")]
    listed = bench.folder / "list.txt"
    listed.write_text("\n".join(f"elsewhere/{name}" for name in names))
    arguments = [a if a != str(bench.folder / "in") else str(listed) for a in bench.arguments("run")]
    ended = bench.nursery.run(COMMAND, *arguments)
    assert ended.code == 1
    assert f"none of the {PICTURES} pictures can be read" in one_line(ended.text)


# -- decoders ----------------------------------------------------------------------------------------


@needs_strace
@pytest.mark.slow
def test_a_picture_that_crashes_its_decoder_costs_itself_alone(bench):
    poison = bench.folder / "in" / "1" / "picture 004.png"
    fault = Fault("openat", "1+", signal="SIGSEGV")
    isolated = bench.arguments("run", "decode.isolated=true", "engine.workers=2")
    ended = run_with(bench.nursery, fault, COMMAND, *isolated, paths=[poison])
    assert ended.code == 2, ended
    assert bench.codes("run") == {"1/picture 004.png": "decoder_crash"}
    assert len(bench.rows("run")) == PICTURES
    assert bench.label("run", "decode.isolated=true").code == 2, "what is quarantined stays so"


# -- others ------------------------------------------------------------------------------------------


def test_a_run_has_one_process_and_is_free_at_once_when_that_is_killed(bench):
    child = bench.nursery.start(COMMAND, *bench.arguments("run", *bench.obeying("5 hang")))
    await_text(child, "stopping")
    busy = bench.label("run", *bench.obeying())
    assert busy.code == 1
    assert f"process {child.pid}" in one_line(busy.text)
    child.signal(signal.SIGKILL)
    child.wait()
    assert bench.label("run", *bench.obeying()).code == 0


def test_no_decision_rests_on_the_clock(bench):
    bench.label("whole")
    year = 365 * 86400
    for path in (bench.folder / "in").rglob("*.png"):
        os.utime(path, (time.time() + year, time.time() + year))
    for seed, offset in enumerate((-year, year)):
        child = bench.nursery.start("tests.reliability.programs:at_another_time", offset, *bench.arguments("run"))
        time.sleep(0.1 * (seed + 1))
        child.signal(signal.SIGKILL)
        child.wait()
    assert bench.label("run").code == 0
    assert bench.content("run") == bench.content("whole")


def test_inputs_are_never_written(bench):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in Path(bench.folder / "in").rglob("*.png")}
    interrupt(bench, 1, 2, 0.3)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before
