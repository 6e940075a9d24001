"""The reliability scorecard: faults injected for real, counted. `make reliability`, or `--plans 3 --every 10` for
a taste.

Every figure says its target and how the fault was made. Nothing here is a claim about what was not simulated; the
last lines name that.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRef
from autolabel.ops.images import load_frame
from autolabel.ops.isolation import POOL
from benchmarks.pictures import read_bgr
from tests.fakes import album, draw
from tests.records import picture
from tests.reliability.committed import COMMIT, content, pictures_in, survives
from tests.reliability.corpus import write_all
from tests.reliability.faults import COMMIT_CALLS, Fault, calls_of, can_inject
from tests.reliability.fuzz import fuzz
from tests.reliability.hostile import DATA_YAML, TRAVERSAL, XML, checkpoints
from tests.reliability.nursery import Nursery
from tests.reliability.plans import Bench, interrupt

NOT_SIMULATED = (
    "power loss, a network file system that loses writes, out of memory on a real GPU, a disk that lies about syncs, "
    "Windows and macOS"
)


@dataclass(frozen=True)
class Row:
    measure: str
    value: str
    target: str
    good: bool
    how: str

    def __str__(self) -> str:
        return (
            f"| {self.measure} | {self.value} | {self.target} | {'yes' if self.good else '**no**'} | {self.how} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=100, help="interruption plans for each number of workers")
    parser.add_argument("--every", type=int, default=1, help="of the system calls of a commit, every nth")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--soak", type=int, default=10_000, help="pictures of the long run, one in a hundred bad")
    parser.add_argument("--only", default="", help="measures whose function's name holds this")
    arguments = parser.parse_args()
    sys.stdout.write(heading(arguments))
    rows: list[Row] = []
    with Nursery() as nursery:
        for measure in MEASURES:
            if arguments.only not in measure.__name__:
                continue
            with tempfile.TemporaryDirectory(prefix="autolabel-score-") as folder:
                for row in measure(nursery, Path(folder), arguments):
                    rows.append(row)
                    sys.stdout.write(f"{row}\n")
                    sys.stdout.flush()
    POOL.close()
    sys.stdout.write(f"\nNot simulated: {NOT_SIMULATED}.\n")
    return 0 if all(row.good for row in rows) else 1


def heading(arguments: argparse.Namespace) -> str:
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}"
    given = " ".join(f"--{key} {value}" for key, value in vars(arguments).items() if value != "")
    return (
        f"# Reliability, {time.strftime('%Y-%m-%d')}\n\n{machine}, Python {platform.python_version()}; "
        f"`python -m benchmarks.reliability {given}`\n\n| measure | value | target | reached | how |\n|---|---|---|---|---|\n"
    )


def killed_at_system_calls(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """And EIO and ENOSPC there: `survives` raises when anything is lost, torn or done twice."""
    if not can_inject():
        return
    pictures = pictures_in(folder / "in")
    (folder / "whole").mkdir()
    made = calls_of(nursery, COMMIT_CALLS, COMMIT, str(folder / "whole"), str(pictures))
    expected = content(folder / "whole")
    writes = [m for m in made if m[0] in ("pwrite64", "fdatasync") and m[2] != str(folder / "whole")]
    for errno, calls in (("", made), ("EIO", writes), ("ENOSPC", writes)):
        faults = [Fault(call, n, errno) for call, n, _ in calls[:: arguments.every]]
        told, broken = 0, []
        for number, fault in enumerate(faults):
            try:
                told += survives(nursery, fault, folder / f"{errno}{number}", pictures, expected)
            except AssertionError as error:
                broken.append(str(error))
        how = f"strace, {errno or 'SIGKILL'} at {len(faults)} of the {len(calls)} calls {', '.join(sorted({c[0] for c in calls}))}"
        if not errno:
            yield Row(
                "kill -9 at system calls of a commit: lost, torn, twice",
                f"{len(broken)} of {len(faults)}",
                "0",
                not broken,
                how,
            )
        else:
            silent = len(faults) - told
            yield Row(
                f"{errno} at writes and syncs: lost or wrong",
                f"{len(broken)} of {len(faults)}",
                "0",
                not broken,
                how,
            )
            yield Row(
                f"{errno} at writes and syncs: not told",
                f"{silent} of {len(faults)}",
                "0",
                silent == 0,
                "exit code",
            )


def interruption_plans(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Whole runs of the program, killed at random moments and continued."""
    album(folder / "in", 24)
    (folder / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    bench = Bench(nursery, folder)
    before = {p: p.read_bytes() for p in (folder / "in").rglob("*") if p.is_file()}
    bench.label("whole")
    started = time.monotonic()
    bench.label("timed")
    seconds = time.monotonic() - started
    expected = bench.content("whole")
    for workers in (1, 2, 4):
        outcomes = [interrupt(bench, seed, workers, seconds) for seed in range(arguments.plans)]
        kills, other = sum(o.kills for o in outcomes), sum(o.content != expected for o in outcomes)
        how = f"{kills} SIGKILLs at random moments of `autolabel label`, fake models that depend on the batch"
        yield Row(
            f"resumed runs that differ, {workers} workers", f"{other} of {len(outcomes)}", "0", not other, how
        )
    same = {p: p.read_bytes() for p in before} == before
    yield Row("bytes of the inputs changed", "0" if same else "some", "0", same, "compared after all plans")


def bad_pictures(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """The corpus, one by one and as one run beside good pictures."""
    expected = write_all(folder / "in" / "bad")
    wrong = deaths = 0
    for name, allowed in expected.items():
        code = "ok"
        try:
            POOL.load_frame(
                ImageRef(name, str(folder / "in" / "bad" / name)), max_pixels=2 * 10**8, min_side=1, timeout_s=60
            )
        except ImageError as error:
            code = error.code
        wrong += code not in allowed
        deaths += code in ("decoder_crash", "decoder_hang")
    yield Row(
        "bad pictures that became something else",
        f"{wrong} of {len(expected)}",
        "0 of at least 150",
        not wrong and len(expected) >= 150,
        "tests/reliability/corpus.py",
    )
    yield Row("processes that died of them", str(deaths), "0", not deaths, "decoded by other processes")
    album(folder / "in" / "good", 24)
    bench = Bench(nursery, folder)
    bench.label("run")
    good = [row for name, row in bench.rows("run").items() if name.startswith("good/")]
    lost = 24 - sum(status in ("ok", "empty") for status, _ in good)
    yield Row("good pictures that bad ones cost", f"{lost} of 24", "0", not lost, "one run over both")


def mutations(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    found = fuzz(arguments.mutations, 0, keep=folder)
    total = sum(found.tried.values())
    how = f"{len(found.tried)} readers, AutolabelError alone is allowed"
    yield Row(
        "mutations that broke a reader",
        f"{len(found.bad)} of {total}",
        "0 of 10000",
        not found.bad and total >= 10_000,
        how,
    )


def hostile_files(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Counted here, tried by the tests: they need the model libraries."""
    count = len(checkpoints(folder)) * 3 + len(DATA_YAML) + len(XML) + len(TRAVERSAL)
    command = [sys.executable, "-m", "pytest", "-q", "tests/reliability/test_security.py"]
    code = subprocess.run(command, capture_output=True).returncode
    how = "tests/reliability/test_security.py: checkpoints, YAML, XML, names"
    yield Row(
        "hostile files that ran, reached out or asked",
        "0" if code == 0 else "see the tests",
        f"0 of {count}",
        code == 0,
        how,
    )


def soak(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """A long run: does memory grow, does every input have its row."""
    peaks = []
    for part in (arguments.soak // 5, arguments.soak):
        for number in range(part):
            path = folder / "in" / f"{number // 500}" / f"{number}.png"
            if path.exists():
                continue
            if number % 100 == 99:
                path.write_bytes(b"no picture")
            else:
                draw(path, {number % 3: (2, 2, 12 + number % 30, 20)})
        arguments_of = Bench(nursery, folder).arguments(
            f"run{part}", "unit_size=64", "batch_size=8", "decode.isolated=true"
        )
        child = nursery.start("tests.reliability.programs:with_its_peak", str(folder / "peak"), *arguments_of)
        child.wait(timeout_s=7200)
        peaks.append(int((folder / "peak").read_text()) / 1024)
    rows = Bench(nursery, folder).rows(f"run{arguments.soak}")
    bad = sum(status == "failed" for status, _ in rows.values())
    slope = peaks[1] - peaks[0]
    yield Row(
        "rows of inputs",
        f"{len(rows)} of {arguments.soak}, {bad} failed",
        "100 %",
        len(rows) == arguments.soak and bad == arguments.soak // 100,
        "one run, 1 % bad",
    )
    yield Row(
        f"memory from {arguments.soak // 5} to {arguments.soak} pictures",
        f"{slope:+.0f} MiB",
        "at most +50",
        slope <= 50,
        "highest resident memory of the process",
    )


def decoding_elsewhere(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """What isolation costs: processor time here and there, of a smooth picture such as cameras make."""
    bounds = {"max_pixels": 2 * 10**8, "min_side": 1}
    for height, width, count in ((1080, 1920, 60), (480, 640, 300)):
        small = read_bgr(picture(folder / f"{height}.png", (height // 8, width // 8)))
        smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{height}.jpg"), smooth)
        ref = ImageRef("x", str(folder / f"{height}.jpg"))
        here = cpu_ms(partial(load_frame, ref, **bounds), count)
        elsewhere = partial(POOL.load_frame, ref, **bounds, timeout_s=60)
        ours, theirs = cpu_ms(elsewhere, count), child_ms(elsewhere, count)
        value = f"{here:.1f} ms here; {ours:.1f} + {theirs:.1f} ms with a process of its own"
        yield Row(
            f"decoding a {width}x{height} JPEG",
            value,
            "at most 1.5 x, and less in this process",
            ours + theirs <= 1.5 * here and ours < here,
            "processor time, mean",
        )


def child_ms(call: Callable[[], object], count: int) -> float:
    """Processor time of the decoders alone, without that of starting them."""
    POOL.close()
    seconds = []
    for calls in (1, 1 + count):
        before = used(resource.getrusage(resource.RUSAGE_CHILDREN))
        for _ in range(calls):
            call()
        POOL.close()
        seconds.append(used(resource.getrusage(resource.RUSAGE_CHILDREN)) - before)
    return (seconds[1] - seconds[0]) / count * 1e3


def used(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def cpu_ms(call: Callable[[], object], count: int) -> float:
    call()
    before = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - before) / count * 1e3


def pytest_says(nursery: Nursery, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Faults that are a yes or no: the tests are the measure."""
    yield from (
        _by_tests("full disk: own exit code, no traceback, continues with room", "-k disk", "ext4 on a loop device, filled"),
        _by_tests("EIO and ESTALE on reads: repeated, recorded, repeated by the next run", "-k read_that", "strace on openat"),
        _by_tests("a decoder that crashes or hangs costs one picture", "-k decoder", "SIGSEGV by strace, SIGALRM"),
        _by_tests("SIGTERM: what is in hand is committed; at most 10 s; a second one leaves now", "-k 'signal or sigterm or given_up'", "signals"),
        _by_tests("one process a run; free at once after a kill", "-k one_process", "flock"),
        _by_tests("clocks a year off change nothing", "-k clock", "time.time shifted, file times in the future"),
    )  # fmt: skip


def _by_tests(measure: str, choice: str, how: str) -> Row:
    command = [sys.executable, "-m", "pytest", "-q", "tests/reliability", *shlex.split(choice)]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "nothing ran"
    return Row(measure, last, "all pass", done.returncode == 0, how)


MEASURES = (
    killed_at_system_calls, interruption_plans, bad_pictures, mutations, hostile_files, pytest_says, soak, decoding_elsewhere,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
