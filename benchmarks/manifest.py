"""The manifest at scale: how long it takes, and how much memory, to build, resume and summarise a run of many pictures.

`python -m benchmarks.manifest --entries 10000000 --scratch DIR`. The pictures are generated names that come with their
size and time, as those of a storage listing do; no file is looked at and none is read. Each step is a process of its
own: seconds of the CPU are user and system, memory is the highest resident memory less what the process had before the
step began. `--random-names` lists them in no order (hashed names), the worst case for an index.

build      the source into the scratch listing, and the manifest from it
continue   the same listing compared with the manifest, nothing changed, nothing labelled yet
label      every unit handed out with its pictures, and one record each committed (every second one has an object)
fill       instead of `label`, to come to a large finished run soon: the same records by one statement of SQL
resume     as `continue`, with all records there
summarise  what the end of a run does: all records read and counted
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autolabel.app.summary import Invocation, summarise
from autolabel.core.types import Category, ImageInfo, ImageRecord, ImageRef, Instance, Rle, Verdict
from autolabel.store.codec import encode_record
from autolabel.store.listing import Listing
from autolabel.store.manifest import entries
from autolabel.store.run import FILE_NAME, categories_to, open_reader, open_store

UNIT = 64
FAILED_EVERY = 1000
INFO = ImageInfo(640, 480, sha256="0" * 64)
OBJECT = Instance(0, 1, (4.0, 4.0, 90.0, 60.0), 0.9, Rle((480, 640), b"PPY31O1N2N2" * 8), predicted_iou=0.8)
Step = Callable[[Path, int, bool], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=None, help="where the run goes meanwhile")
    parser.add_argument("--random-names", action="store_true")
    parser.add_argument("--steps", nargs="*", default=[step for step in STEPS if step != "fill"])
    given = parser.parse_args()
    names = "hashed names" if given.random_names else "names in order"
    sys.stdout.write(f"{given.entries} entries, {names}\n\n{HEAD}")
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        for name in given.steps:
            seconds, cpu, grown_mb = measured(STEPS[name], Path(scratch), given.entries, given.random_names)
            size_mb = (Path(scratch) / FILE_NAME).stat().st_size / 1e6
            sys.stdout.write(
                f"| {name} | {given.entries / seconds:.0f} | {seconds:.1f} | {cpu:.1f} | {grown_mb:.0f} | "
                f"{size_mb:.0f} |\n"
            )
            sys.stdout.flush()


HEAD = """\
| step | entries/s | wall s | CPU s | memory growth, MB | run.sqlite, MB |
|---|---|---|---|---|---|
"""


def measured(step: Step, directory: Path, count: int, random_names: bool) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and growth of the resident memory in MB, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, step, directory, count, random_names))
    process.start()
    theirs.close()
    result: tuple[float, float, float] = ours.recv()
    process.join()
    return result


def _measure(answer, step, directory, count, random_names):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    before, wall, cpu = highest_mb(), time.perf_counter(), time.process_time()
    step(directory, count, random_names)
    answer.send((time.perf_counter() - wall, time.process_time() - cpu, highest_mb() - before))


def highest_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def pictures(count: int, random_names: bool) -> Iterator[ImageRef]:
    for i in range(count):
        name = f"camera{i * 100 // count:02}/{i:09}.jpg"
        if random_names:
            name = hashlib.sha256(name.encode()).hexdigest()[:32] + ".jpg"
        yield ImageRef(name, f"s3://bucket/photos/{name}", stamp=(200_000 + i, i))


def listing(directory: Path, count: int, random_names: bool) -> Listing:
    return Listing(entries(pictures(count, random_names)), directory)


def build(directory: Path, count: int, random_names: bool) -> None:
    with listing(directory, count, random_names) as listed, open_store(directory) as store:
        store.claim({"setting": "1"})
        store.set_meta(categories=categories_to((Category(1, "one"),)))
        store.sync(listed, root="s3://bucket/photos", unit_size=UNIT)


def resume(directory: Path, count: int, random_names: bool) -> None:
    with listing(directory, count, random_names) as listed, open_store(directory) as store:
        found = store.sync(listed, root="s3://bucket/photos", unit_size=UNIT)
        assert (found.added, found.changed, found.vanished) == (0, 0, 0), found
        store.pending_images()


def label(directory: Path, count: int, random_names: bool) -> None:
    with listing(directory, count, random_names) as listed, open_store(directory) as store:
        for unit in store.pending(listed):
            store.commit(unit, [record(ref, unit.start + i) for i, ref in enumerate(unit.refs)])


def record(ref: ImageRef, number: int) -> ImageRecord:
    if number % FAILED_EVERY == 0:
        return ImageRecord(ref.image_id, ref.path, "failed", code="corrupt", detail="the data cannot be decoded")
    if number % 2:
        return ImageRecord(ref.image_id, ref.path, "empty", INFO)
    return ImageRecord(ref.image_id, ref.path, "ok", INFO, candidates=(OBJECT,), verdicts=(Verdict(),))


def fill(directory: Path, count: int, random_names: bool) -> None:
    ref = ImageRef("", "")
    kinds = [(kind, record(ref, kind)) for kind in range(3)]  # failed, empty, with an object
    with open_store(directory):
        db = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
    db.execute("BEGIN")
    for kind, found in (*kinds[:1], *reversed(kinds[1:])):
        chosen = {0: f"ordinal % {FAILED_EVERY} = 0", 1: "ordinal % 2 = 1", 2: "ordinal % 2 = 0"}[kind]
        db.execute(
            "INSERT OR IGNORE INTO record SELECT ordinal, ?, ?, ?, 0, ? FROM manifest "
            f"WHERE {chosen} ORDER BY ordinal",
            (found.status, found.code, len(found.instances), encode_record(found)),
        )
    db.execute("INSERT INTO unit SELECT DISTINCT unit FROM manifest")
    db.execute("COMMIT")
    db.close()


def summary(directory: Path, count: int, random_names: bool) -> None:
    with open_reader(directory) as reader:
        found = summarise(reader, Invocation(labelled=count, seconds=1.0))
        assert sum(found.holds.status.values()) == count, found.holds.status
        found.write(directory)


STEPS: dict[str, Step] = {
    "build": build,
    "continue": resume,
    "label": label,
    "fill": fill,
    "resume": resume,
    "summarise": summary,
}


if __name__ == "__main__":
    main()
