"""What a source lists, in a scratch file; and the manifest brought up to date from it."""

import dataclasses
import os
import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autolabel.core.errors import SourceError
from autolabel.core.protocols import Unit
from autolabel.core.types import ImageRecord, ImageRef, Labels, Problem, Rle
from autolabel.store.listing import FILE_NAME, Listing
from autolabel.store.manifest import Entry, entries
from autolabel.store.run import open_reader, open_store

LABELS = Labels(
    np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.float32),
    np.array([1, 2]),
    (((0.0, 1, 2.5, 3, 4, 5),), Rle((4, 5), b"04")),
    (7, None),
    (False, True),
    size_hw=(4, 5),
    extras=('{"a":1}', ""),
)
REFS = (
    ImageRef("b", "/in/b"),
    ImageRef("a", "/in/a", labels=LABELS, split="val", source_id=2**70, extra='{"x":"ü"}'),
    ImageRef("broken", "/in/broken", problem=Problem("bad_label", "line 3")),
    ImageRef(os.fsdecode(b"\xff\n"), os.fsdecode(b"/in/\xff\n")),
    ImageRef("remote", "s3://bucket/remote", stamp=(5, 2**63 - 1)),
)


def fields(ref):
    found = dataclasses.asdict(ref)
    labels = found.pop("labels")
    return found, labels and {key: getattr(value, "tolist", lambda v=value: v)() for key, value in labels.items()}


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_listing_gives_back_what_was_listed_in_its_order(tmp_path, on_disk):
    with Listing(entries(REFS), tmp_path if on_disk else None) as listing:
        assert list(listing) == [ref.image_id for ref in REFS]
        assert [fields(ref) for ref in listing.values()] == [fields(ref) for ref in REFS]
        assert [fields(listing[ref.image_id]) for ref in REFS] == [fields(ref) for ref in REFS]
        assert len(listing) == len(REFS)
        assert "absent" not in listing
        assert listing.get("absent") is None
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_listed_twice_is_refused_with_both_paths(tmp_path):
    twice = [ImageRef("a", "/x/a"), ImageRef("b", "/x/b"), ImageRef("a", "/y/a")]
    with pytest.raises(SourceError, match="'a' is listed twice: /x/a and /y/a"):
        Listing(entries(twice), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_listing_left_is_replaced(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"half a file")
    with Listing(entries(REFS), tmp_path) as listing:
        assert len(listing) == len(REFS)
    with Listing((), tmp_path) as listing:
        assert not listing


def test_an_error_of_the_source_is_its_own_and_leaves_no_file(tmp_path):
    def images():
        yield REFS[0]
        raise SourceError("line 2")

    with pytest.raises(SourceError, match="line 2"):
        Listing(entries(images()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_storage_is_looked_at_by_nobody(tmp_path):
    known, unknown = entries([REFS[-1], ImageRef("x", "s3://bucket/x")])
    assert (known.size, known.mtime_ns) == REFS[-1].stamp
    assert (unknown.size, unknown.mtime_ns) == (0, 0)


class Model:
    """The manifest as it should be, in plain Python: one dictionary, one picture after the other."""

    def __init__(self, unit_size):
        self.unit_size = unit_size
        self.rows = {}  # name: [unit, version]
        self.done = set()
        self.records = {}  # name: code

    def sync(self, listed):
        old = dict(self.rows)
        changed = {name for name, version in listed.items() if name in old and old[name][1] != version}
        passed = {name for name in listed if name in old and self.records.get(name) == "io_error"}
        redo = {old[name][0] for name in changed | passed}
        self.done -= redo
        for name in [name for name, (unit, _) in old.items() if unit in redo and name in listed]:
            self.records.pop(name, None)
        first = max((unit for unit, _ in old.values()), default=-1) + 1
        for at, name in enumerate(name for name in listed if name not in old):
            self.rows[name] = [first + at // self.unit_size, None]
        for name, version in listed.items():
            self.rows[name][1] = version
        return (len(self.rows) - len(old) if old else 0), len(changed), len(set(old) - set(listed))

    def pending(self, listed):
        units = {}
        for name, (unit, _) in self.rows.items():
            if unit not in self.done:
                units.setdefault(unit, []).append((name, name in listed))
        return [units[unit] for unit in sorted(units)]


names = st.text("abc/é", min_size=1, max_size=3)
listings = st.dictionaries(names, st.integers(0, 2), max_size=7)
steps = st.lists(
    st.tuples(listings, st.integers(0, 3), st.sampled_from(["", "io_error", "corrupt"])), min_size=1, max_size=5
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.integers(1, 3), st.booleans())
def test_the_manifest_is_what_plain_python_makes_of_the_same_listings(tmp_path_factory, steps, unit_size, early):
    directory, model = tmp_path_factory.mktemp("run"), Model(unit_size)
    if early:
        as_an_early_version_made_it(directory)
    for listed, commits, code in steps:
        refs = {name: ImageRef(name, f"/in/{name}") for name in listed}
        with open_store(directory) as store:
            found = store.sync(
                [Entry(refs[name], 1, version, b"") for name, version in listed.items()],
                root="/in",
                unit_size=unit_size,
            )
            assert (found.added, found.changed, found.vanished) == model.sync(listed)
            units = list(store.pending(refs))
            assert [[(r.image_id, r.problem is None) for r in u.refs] for u in units] == model.pending(listed)
            for unit in units[:commits]:
                commit(store, unit, model, code)
    with open_reader(directory) as reader:
        there = {name: code for name, code in model.records.items() if name in steps[-1][0]}
        assert {record.image_id: record.code for record in reader.records()} == there


def commit(store, unit: Unit, model, code):
    """The first picture of the unit fails with `code`."""
    codes = [code, *[""] * (len(unit.refs) - 1)]
    store.commit(
        unit,
        [
            ImageRecord(r.image_id, r.path, "failed" if c else "empty", code=c)
            for r, c in zip(unit.refs, codes, strict=True)
        ],
    )
    model.done.add(unit.number)
    for ref, found in zip(unit.refs, codes, strict=True):
        model.records.setdefault(ref.image_id, found)


def as_an_early_version_made_it(directory):
    """There the table itself kept names apart, and nothing counted by status."""
    with open_store(directory):
        pass
    with sqlite3.connect(directory / "run.sqlite") as db:
        db.executescript(
            "DROP TABLE manifest; DROP INDEX record_status;"
            "CREATE TABLE manifest(ordinal INTEGER PRIMARY KEY, unit INTEGER NOT NULL, image_id BLOB NOT NULL UNIQUE,"
            " path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, labels BLOB NOT NULL);"
            "CREATE INDEX manifest_unit ON manifest(unit);"
        )
    db.close()


def test_counting_reads_no_record(tmp_path):
    with open_store(tmp_path) as store:
        plan = store._db.execute(
            "EXPLAIN QUERY PLAN SELECT status, code, count(*) FROM record GROUP BY status, code ORDER BY status, code"
        ).fetchall()
    assert "COVERING INDEX" in plan[0][3]


def test_a_manifest_of_names_in_no_order_is_found_again_and_names_stay_apart(tmp_path):
    refs = {str(hash(i)): ImageRef(str(hash(i)), f"/in/{i}") for i in range(50, 0, -7)}
    for added in (0, 0):
        with open_store(tmp_path) as store:
            assert store.sync(entries(refs.values()), root="/in", unit_size=3).added == added
            with pytest.raises(sqlite3.IntegrityError):
                store._db.execute(
                    "INSERT INTO manifest SELECT 99, 99, image_id, path, 0, 0, '' FROM manifest LIMIT 1"
                )
