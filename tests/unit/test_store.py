"""The run store: nothing lost, nothing twice, nothing foreign."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autolabel.core.errors import StoreBusy, StoreCorrupt, StoreError, StoreMismatch
from autolabel.core.protocols import Unit
from autolabel.core.types import (
    Category,
    Columns,
    ImageInfo,
    ImageRecord,
    ImageRef,
    Instance,
    Problem,
    Rle,
    Verdict,
)
from autolabel.ops.masks import encode
from autolabel.store import looks
from autolabel.store.codec import decode_columns, decode_record, encode_record
from autolabel.store.lock import exclusive, shared
from autolabel.store.manifest import entries
from autolabel.store.run import categories_to, open_reader, open_store
from tests.records import instance, shapes

MASK = Rle((4, 5), b"04")


def sha256_of(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else "ab"


def record_of(ref, **changes):
    found = Instance(0, 1, (0.0, 0.0, 4.0, 4.0), 0.5, MASK, 0.75, 0.5, 1.0)
    values = {
        "image_id": ref.image_id,
        "path": ref.path,
        "status": "ok",
        "info": ImageInfo(5, 4, 6, sha256_of(ref.path), ("note",)),
        "candidates": (found, dataclasses.replace(found, index=1, mask=None)),
        "verdicts": (Verdict(mask=Rle((4, 5), b"13"), quality=0.75), Verdict("bad_box: zero area")),
    }
    return ImageRecord(**{**values, **changes})


def refs_in(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_bytes(name.encode())
    return {name: ImageRef(name, str(folder / name)) for name in names}


def label_all(directory, refs, *, unit_size=2, root="/data", units=None, fingerprint=None, **changes):
    with open_store(directory) as store:
        if fingerprint is not None:
            store.claim(fingerprint)
        synced = store.sync(entries(refs.values()), root=root, unit_size=unit_size)
        done = []
        for unit in store.pending(refs):
            if units is not None and len(done) == units:
                break
            store.commit(unit, [record_of(ref, **changes) for ref in unit.refs])
            done.append(unit)
    return synced, done


def test_records_come_back_as_they_were(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b", "c"])
    label_all(tmp_path, refs)
    with open_reader(tmp_path) as reader:
        assert list(reader.records()) == [record_of(ref) for ref in refs.values()]
        assert list(reader.records()) == list(reader.records())
        assert reader.counts() == {"ok": 3}


def test_equal_records_are_equal_bytes():
    ref = ImageRef("a", "/x/a")
    assert encode_record(record_of(ref)) == encode_record(record_of(ImageRef("b", "/y/b")))


scores = st.none() | st.floats(0, 1)
texts = st.text(max_size=5)
rles = st.builds(Rle, st.sampled_from([(4, 5), (7, 3)]), st.binary(max_size=6))
found = st.builds(
    Instance,
    index=st.just(0),
    category_id=st.integers(0, 2**62),
    box_xyxy=st.tuples(*[st.floats(-9, 9, width=32)] * 4),
    detector_score=st.floats(allow_nan=False),
    mask=st.none() | rles,
    predicted_iou=scores,
    object_score=scores,
    stability=scores,
    agreement=scores,
    origin=st.sampled_from(["model", "label"]),
    polygons=st.none() | st.lists(st.lists(st.floats(0, 9), max_size=6).map(tuple), max_size=2).map(tuple),
    source_id=st.none() | st.integers(),
    crowd=st.booleans(),
    extra=texts,
    replaced_iou=scores,
    quality=scores,
)
verdicts = st.builds(Verdict, st.none() | texts, st.none() | rles, scores)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(found, verdicts), max_size=2), st.booleans(), texts)
def test_whatever_a_record_holds_comes_back(objects, sized, text):
    candidates = tuple(dataclasses.replace(one, index=i) for i, (one, _) in enumerate(objects))
    info = ImageInfo(5, 4, 6, "ab", (text,)) if sized else None
    record = ImageRecord(
        "a", "/a", "ok", info, text, text, text, candidates, tuple(v for _, v in objects), 2**70, text
    )
    assert decode_record(encode_record(record), "a", "/a") == record


EMPTY = encode(np.zeros((120, 160), np.uint8))


def check_columns(record):
    """They say what the record's kept objects say, and nothing of it is lost."""
    found, columns = decode_columns(encode_record(record), "a", "/a")
    if columns is None:
        assert found == record
    else:
        assert columns == Columns.of(record.instances)
        assert found == dataclasses.replace(record, candidates=(), verdicts=())
    return columns


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(found, verdicts), max_size=2))
def test_columns_hold_the_kept_objects_or_the_record_is_whole(objects):
    candidates = tuple(dataclasses.replace(one, index=i) for i, (one, _) in enumerate(objects))
    info = ImageInfo(5, 4)
    check_columns(ImageRecord("a", "/a", "ok", info, "", "", None, candidates, tuple(v for _, v in objects)))


def test_what_a_model_found_comes_in_columns_also_where_refining_dropped_and_changed_it():
    sizes = ImageInfo(160, 120)
    masks = [encode(mask) for mask in shapes().values()]
    objects = tuple(instance(mask, i, predicted_iou=(None, 0.5)[i % 2]) for i, mask in enumerate(masks))
    ways = [Verdict(), Verdict("small"), Verdict(None, masks[0], 0.7), Verdict("gone", masks[1])]
    given_verdicts = tuple(ways[i % 4] for i in range(len(objects)))
    record = ImageRecord("a", "/a", "ok", sizes, candidates=objects, verdicts=given_verdicts, source_id=4)
    assert len(check_columns(record)) == len(record.instances)


@pytest.mark.parametrize(
    "changes",
    [{"crowd": True}, {"source_id": 1}, {"extra": "{}"}, {"detector_score": 1.5}, {"mask": None}, {"mask": EMPTY}],
)
def test_what_columns_cannot_say_leaves_the_record_whole(changes):
    one = dataclasses.replace(instance(shapes()["disc"]), **changes)
    assert (
        check_columns(ImageRecord("a", "/a", "ok", ImageInfo(160, 120), "", "", None, (one,), (Verdict(),)))
        is None
    )


@given(st.data())
def test_a_record_that_was_edited_is_another_record_or_refused(data):
    text = zstandard.decompress(encode_record(record_of(ImageRef("a", "/a"))))
    at = data.draw(st.integers(0, len(text) - 1))
    edited = text[:at] + data.draw(st.binary(max_size=3)) + text[at + data.draw(st.integers(0, 9)) :]
    with contextlib.suppress(StoreCorrupt):
        assert isinstance(decode_record(zstandard.compress(edited), "a", "/a"), ImageRecord)
    with contextlib.suppress(StoreCorrupt):
        assert isinstance(decode_columns(zstandard.compress(edited), "a", "/a")[0], ImageRecord)


def test_a_record_that_says_it_is_huge_is_refused_before_memory_is_taken_for_it():
    bomb = b"\x28\xb5\x2f\xfd\xe0" + (1 << 50).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(StoreCorrupt, match="1125899906842624 bytes"):
        decode_record(bomb, "a", "/a")


@pytest.mark.parametrize("line", [b"[2]", b'{"v":2}'])
def test_a_record_of_another_version_says_so(line):
    with pytest.raises(StoreCorrupt, match="has version 2, this program reads"):
        decode_record(zstandard.compress(line), "a", "/a")


@given(st.binary(max_size=200))
def test_damaged_bytes_are_refused_and_never_a_record(blob):
    with pytest.raises(StoreCorrupt):
        decode_record(blob, "a", "/a")


def test_only_uncommitted_units_are_pending_and_they_are_whole(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b", "c", "d", "e"])
    label_all(tmp_path, refs, units=1)
    _, done = label_all(tmp_path, refs)
    assert [[r.image_id for r in u.refs] for u in done] == [["c", "d"], ["e"]]
    assert label_all(tmp_path, refs)[1] == []


def test_units_are_listed_in_one_thread_while_another_commits(tmp_path):
    refs = refs_in(tmp_path / "in", [f"{i:03}.png" for i in range(120)])
    with open_store(tmp_path) as store, ThreadPoolExecutor(1) as behind:
        store.sync(entries(refs.values()), root="/data", unit_size=1)
        commits = [
            behind.submit(store.commit, unit, [record_of(ref) for ref in unit.refs])
            for unit in store.pending(refs)
        ]
        for commit in commits:
            commit.result()
    with open_reader(tmp_path) as reader:
        assert [record.image_id for record in reader.records()] == list(refs)


def test_a_unit_that_comes_twice_is_stored_once(tmp_path):
    refs = refs_in(tmp_path / "in", ["a"])
    with open_store(tmp_path) as store:
        store.sync(entries(refs.values()), root="/data", unit_size=2)
        (unit,) = store.pending(refs)
        store.commit(unit, [record_of(refs["a"])])
        store.commit(unit, [record_of(refs["a"], status="empty", candidates=(), verdicts=())])
    with open_reader(tmp_path) as reader:
        assert [r.status for r in reader.records()] == ["ok"]


def test_a_commit_that_breaks_leaves_nothing_of_its_unit(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b"])
    with open_store(tmp_path) as store:
        store.sync(entries(refs.values()), root="/data", unit_size=2)
        (unit,) = store.pending(refs)
        with pytest.raises(AssertionError):
            store.commit(unit, [record_of(refs["a"])])
        assert store.pending_images() == 2


def test_new_pictures_are_appended_as_new_units(tmp_path):
    refs = refs_in(tmp_path / "in", ["b", "c", "d"])
    label_all(tmp_path, refs)
    synced, done = label_all(tmp_path, refs_in(tmp_path / "in", ["a", "b", "c", "d"]))
    assert (synced.added, synced.changed, synced.vanished) == (1, 0, 0)
    assert [[r.image_id for r in u.refs] for u in done] == [["a"]]


def test_a_changed_picture_redoes_its_unit(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b", "c"])
    label_all(tmp_path, refs)
    (tmp_path / "in" / "a").write_bytes(b"longer than before")
    synced, done = label_all(tmp_path, refs)
    assert synced.changed == 1
    assert [[r.image_id for r in u.refs] for u in done] == [["a", "b"]]


def test_a_mended_label_file_redoes_its_unit(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b"])
    broken = {**refs, "b": dataclasses.replace(refs["b"], problem=Problem("bad_label", "line 3"))}
    label_all(tmp_path, broken, unit_size=1)
    synced, done = label_all(tmp_path, refs, unit_size=1)
    assert synced.changed == 1
    assert [u.refs[0].image_id for u in done] == ["b"]


@pytest.mark.parametrize(
    ("code", "again"), [("io_error", 1), ("out_of_memory", 1), ("worker_crash", 1), ("corrupt", 0)]
)
def test_a_failure_that_may_have_passed_is_tried_again_by_the_next_run(code, again, tmp_path):
    refs = refs_in(tmp_path / "in", ["a"])
    label_all(tmp_path, refs, status="failed", code=code, candidates=(), verdicts=())
    assert len(label_all(tmp_path, refs)[1]) == again


def test_settings_may_change_while_nothing_is_committed(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b"])
    label_all(tmp_path, refs, units=0, fingerprint={"unit_size": "9"}, unit_size=9)
    _, done = label_all(tmp_path, refs, fingerprint={"unit_size": "1"}, unit_size=1)
    assert len(done) == 2


def seen_by(reader):
    return [record.image_id for record in reader.records()]


def test_a_vanished_picture_is_left_out_and_keeps_its_record_for_when_it_is_back(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b", "c"])
    label_all(tmp_path, refs)
    for others in (True, False):  # noted once
        synced, done = label_all(tmp_path, {"a": refs["a"], "c": refs["c"]})
        assert (synced.vanished, synced.others, done) == (1, others, [])
    with open_reader(tmp_path) as reader:
        assert seen_by(reader) == [record.image_id for record in reader.records_by_id()] == ["a", "c"]
        assert [record.image_id for record, _ in reader.columns()] == ["a", "c"]
        assert (reader.counts(), list(reader.gone())) == ({"ok": 2}, [1])
        assert len(list(reader.rows())) == 3
    synced, done = label_all(tmp_path, refs)
    assert (synced.vanished, synced.others, done) == (0, True, [])
    with open_reader(tmp_path) as reader:
        assert (seen_by(reader), reader.counts(), list(reader.gone())) == (["a", "b", "c"], {"ok": 3}, [])


def test_a_run_of_before_vanished_pictures_were_noted_is_read(tmp_path):
    label_all(tmp_path, refs_in(tmp_path / "in", ["a", "b"]))
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("DROP TABLE gone")
    db.close()
    with open_reader(tmp_path) as reader:
        assert (seen_by(reader), reader.counts(), list(reader.gone())) == (["a", "b"], {"ok": 2}, [])


def test_a_vanished_picture_keeps_its_record_when_its_unit_is_done_again(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b"])
    label_all(tmp_path, refs)
    (tmp_path / "in" / "a").write_bytes(b"longer than before")
    _, done = label_all(tmp_path, {"a": refs["a"]})
    assert [r.problem and r.problem.code for r in done[0].refs] == [None, "vanished"]
    assert label_all(tmp_path, refs)[1] == []
    with open_reader(tmp_path) as reader:
        assert list(reader.records()) == [record_of(ref) for ref in refs.values()]


@pytest.mark.parametrize("vanishes", [True, False])
def test_records_that_are_kept_while_all_units_are_done_again_hold_the_run_and_stay_with_their_pictures(
    vanishes, tmp_path
):
    refs = refs_in(tmp_path / "in", ["a", "b", "c"])
    label_all(tmp_path, refs, unit_size=9, fingerprint={"threshold": "1"}, code="first")
    others = {"b": refs["b"], "c": refs["c"]}
    (tmp_path / "in" / "c").write_bytes(b"longer than before")
    if not vanishes:
        (tmp_path / "in" / "a").unlink()
    now = others if vanishes else refs
    label_all(tmp_path, now, unit_size=9, units=0, fingerprint={"threshold": "1"})  # stopped before its commit
    with pytest.raises(StoreMismatch, match="threshold: 1 -> 2"):
        label_all(tmp_path, now, unit_size=9, fingerprint={"threshold": "2"})
    label_all(tmp_path, now, unit_size=9, fingerprint={"threshold": "1"}, code="again")
    with open_reader(tmp_path) as reader:
        kept = [] if vanishes else [("a", "first")]
        assert [(r.image_id, r.code) for r in reader.records()] == [*kept, ("b", "again"), ("c", "again")]
    _, done = label_all(tmp_path, refs_in(tmp_path / "in", ["a", "b", "c"]), unit_size=9)
    assert [u.number for u in done] == ([] if vanishes else [0])


@pytest.mark.parametrize("neighbour_changes", [False, True])
def test_a_labelled_picture_that_cannot_be_read_now_keeps_its_record(tmp_path, neighbour_changes):
    refs = refs_in(tmp_path / "in", ["a", "b"])
    label_all(tmp_path, refs)
    before = record_of(refs["b"])
    away = (tmp_path / "in" / "b").rename(tmp_path / "away")
    if neighbour_changes:
        (tmp_path / "in" / "a").write_bytes(b"longer than before")
    failed = {"status": "failed", "code": "missing", "candidates": (), "verdicts": ()}
    synced, done = label_all(tmp_path, refs, **failed)
    assert (synced.away, synced.changed, len(done)) == (1, int(neighbour_changes), int(neighbour_changes))
    with open_reader(tmp_path) as reader:
        first, second = reader.records()
    assert first == record_of(refs["a"], **failed if neighbour_changes else {})
    assert second == before
    away.rename(tmp_path / "in" / "b")
    with open_store(tmp_path) as store:
        synced = store.sync(entries(refs.values()), root="/data", unit_size=2)
    assert (synced.away, synced.changed) == (0, 0)


def same_look(folder, contents):
    """Pictures of one size and one time."""
    refs = refs_in(folder, contents)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1e9, 1e9))
    return refs


def swap(a, b):
    a.rename(a.with_name("t"))
    b.rename(a)
    a.with_name("t").rename(b)


def swap_folders(folder):
    """No file changes then, in its inode or its times."""
    folder.rename(folder.with_name("t"))
    same_look(folder, {"a": b"2", "b": b"1", "c": b"3"})


def copy_of(folder, content=None):
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)
    if content:
        same_look(folder, content)


def of_an_earlier_version(run):
    with sqlite3.connect(run / "run.sqlite") as db:
        db.execute("DROP TABLE look")
    db.close()


@pytest.mark.parametrize(
    ("happens", "compared", "redone"),
    [
        (lambda run, folder: None, "", ""),
        (lambda run, folder: swap(folder / "a", folder / "b"), "ab", "ab"),
        (lambda run, folder: swap_folders(folder), "abc", "ab"),
        (lambda run, folder: same_look(folder, {"c": b"9"}), "c", "c"),
        (lambda run, folder: (folder / "b").chmod(0o400), "b", ""),
        (lambda run, folder: copy_of(folder), "abc", ""),
        (lambda run, folder: copy_of(folder, {"b": b"9"}), "abc", "b"),
        (lambda run, folder: of_an_earlier_version(run), "abc", ""),
        (lambda run, folder: (of_an_earlier_version(run), swap(folder / "a", folder / "b")), "abc", "ab"),
    ],
    ids=[
        "nothing",
        "swapped",
        "folders",
        "overwritten",
        "chmod",
        "copied",
        "copied and changed",
        "earlier",
        "before",
    ],
)
def test_pictures_of_equal_size_and_time_are_told_apart_by_their_bytes_which_are_compared_once(
    happens, compared, redone, tmp_path, monkeypatch
):
    run, folder = tmp_path / "run", tmp_path / "in"
    run.mkdir()
    refs = same_look(folder, {"a": b"1", "b": b"2", "c": b"3"})
    label_all(run, refs, unit_size=1)
    happens(run, folder)
    seen = []
    monkeypatch.setattr(looks, "_sha256", lambda path: (seen.append(path[-1]), sha256_of(path))[1])
    synced, done = label_all(run, refs, unit_size=1)
    assert ("".join(sorted(seen)), synced.changed) == (compared, len(redone))
    assert "".join(ref.image_id for unit in done for ref in unit.refs) == redone
    seen.clear()
    assert (label_all(run, refs, unit_size=1)[1], seen) == ([], [])
    with open_reader(run) as reader:
        assert list(reader.records()) == [record_of(ref) for ref in refs.values()]


def test_what_was_compared_before_a_stop_is_not_compared_again(tmp_path, monkeypatch):
    refs = same_look(tmp_path / "in", {"a": b"1", "b": b"2", "c": b"3"})
    label_all(tmp_path, refs)
    copy_of(tmp_path / "in")

    def stopped(path):
        if path.endswith("b"):
            raise KeyboardInterrupt
        return sha256_of(path)

    monkeypatch.setattr(looks, "PAGE", 1)
    monkeypatch.setattr(looks, "_sha256", stopped)
    with pytest.raises(KeyboardInterrupt):
        label_all(tmp_path, refs)
    seen = []
    monkeypatch.setattr(looks, "_sha256", lambda path: (seen.append(path[-1]), sha256_of(path))[1])
    assert (label_all(tmp_path, refs)[1], seen) == ([], ["b", "c"])


def test_a_picture_that_cannot_be_read_to_be_compared_keeps_its_record_until_it_can(tmp_path, monkeypatch):
    refs = same_look(tmp_path / "in", {"a": b"1", "b": b"2"})
    label_all(tmp_path, refs)
    swap(tmp_path / "in" / "a", tmp_path / "in" / "b")
    with monkeypatch.context() as now:
        now.setattr(looks, "_sha256", lambda path: None)
        assert label_all(tmp_path, refs)[1] == []
    assert label_all(tmp_path, refs)[0].changed == 2


@pytest.mark.parametrize(("problem", "redone"), [(None, 1), (Problem("bad_label", "line 1"), 0)])
def test_a_picture_that_failed_is_tried_again_when_it_is_another_file_of_the_same_size_and_time(
    problem, redone, tmp_path
):
    refs = same_look(tmp_path / "in", {"a": b"1"})
    refs["a"] = dataclasses.replace(refs["a"], problem=problem)
    failed = {"status": "failed", "code": "corrupt", "candidates": (), "verdicts": (), "info": None}
    label_all(tmp_path, refs, **failed)
    same_look(tmp_path / "in", {"a": b"2"})
    assert len(label_all(tmp_path, refs, **failed)[1]) == redone
    assert label_all(tmp_path, refs, **failed)[1] == []


def test_a_picture_that_failed_and_is_gone_now_is_missing(tmp_path):
    refs = refs_in(tmp_path / "in", ["a"])
    label_all(tmp_path, refs, status="failed", code="corrupt", candidates=(), verdicts=())
    (tmp_path / "in" / "a").unlink()
    synced, done = label_all(tmp_path, refs, status="failed", code="missing", candidates=(), verdicts=())
    assert (synced.away, len(done)) == (0, 1)


def test_a_picture_that_vanished_before_it_was_labelled_says_so_until_it_comes_back(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b"])
    label_all(tmp_path, refs, units=0)
    with open_store(tmp_path) as store:
        store.sync(entries([refs["a"]]), root="/data", unit_size=2)
        (unit,) = store.pending({"a": refs["a"]})
        gone = record_of(unit.refs[1], status="failed", code="vanished", candidates=(), verdicts=())
        store.commit(unit, [record_of(refs["a"]), gone])
    _, done = label_all(tmp_path, refs)
    assert [[r.image_id for r in u.refs] for u in done] == [["a", "b"]]


def test_a_reader_elsewhere_does_not_fail_a_run_that_is_done(tmp_path):
    refs = refs_in(tmp_path / "in", ["a"])
    with contextlib.ExitStack() as elsewhere:
        with open_store(tmp_path) as store:
            store._db.execute("PRAGMA busy_timeout=10")
            store.sync(entries(refs.values()), root="/data", unit_size=2)
            (unit,) = store.pending(refs)
            store.commit(unit, [record_of(refs["a"])])
            reader = elsewhere.enter_context(open_reader(tmp_path))
            assert reader.counts() == {"ok": 1}
        assert reader.counts() == {"ok": 1}
    assert label_all(tmp_path, refs)[1] == []


def test_the_same_names_elsewhere_are_another_data_set(tmp_path):
    label_all(tmp_path, refs_in(tmp_path / "in", ["a", "b"]), root="/old")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"another picture")
    with pytest.raises(StoreMismatch, match="/other"):
        label_all(tmp_path, refs_in(tmp_path / "other", ["a", "b"]), root="/other")
    with open_reader(tmp_path) as reader:
        assert reader.counts() == {"ok": 2}


def test_a_run_without_records_is_held_to_no_source(tmp_path):
    label_all(tmp_path, refs_in(tmp_path / "in", ["a", "b"]), root="/old", units=0, fingerprint={"a": "1"})
    others = refs_in(tmp_path / "other", ["a", "x"])
    assert len(label_all(tmp_path, others, root="/other", fingerprint={"a": "1"})[1]) == 1
    with open_reader(tmp_path) as reader:
        assert [r.path for r in reader.records()] == [r.path for r in others.values()]


def test_a_moved_data_set_is_welcome_and_another_one_is_not(tmp_path):
    label_all(tmp_path, refs_in(tmp_path / "in", ["a", "b"]), root="/old")
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = {n: ImageRef(n, str(tmp_path / "moved" / n)) for n in ("a", "b")}
    assert label_all(tmp_path, moved, root="/new")[1] == []
    with open_reader(tmp_path) as reader:
        assert [r.path for r in reader.records()] == [r.path for r in moved.values()]
    with pytest.raises(StoreMismatch, match="/new"):
        label_all(tmp_path, refs_in(tmp_path / "in", ["a", "x"]), root="/other")


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    label_all(tmp_path, refs_in(tmp_path / "in", ["a"]), fingerprint={"detect.conf": "0.25", "same": "1"})
    with open_store(tmp_path) as store:
        store.claim({"detect.conf": "0.25", "same": "1"})
        with pytest.raises(StoreMismatch, match=r"detect\.conf: 0\.25 -> 0\.5") as caught:
            store.claim({"detect.conf": "0.5", "same": "1"})
    assert "same" not in str(caught.value).replace("the same", "")


def test_other_classes_alone_are_said_to_be_those_of_the_source(tmp_path):
    before, now = {"classes": "1 cat", "detect.conf": "0.25"}, {"classes": "1 cat, 2 dog", "detect.conf": "0.25"}
    label_all(tmp_path, refs_in(tmp_path / "in", ["a"]), fingerprint=before)
    with open_store(tmp_path) as store:
        with pytest.raises(StoreMismatch) as caught:
            store.claim(now)
        said = str(caught.value)
        assert (
            "no setting has changed: those of the source have (then -> now):\n  classes: 1 cat -> 1 cat, 2 dog"
            in said
        )
        assert "label the source as it is now in another directory with run=..." in said
        assert "old settings" not in said
        with pytest.raises(StoreMismatch, match="use the old settings"):
            store.claim({**now, "detect.conf": "0.5"})


@pytest.mark.parametrize("name", ["a b", "ü", "new\nline", os.fsdecode(b"\xff\xfe"), "'; DROP TABLE record; --"])
def test_any_file_name_survives(name, tmp_path):
    refs = {name: ImageRef(name, str(tmp_path / name))}
    label_all(tmp_path, refs)
    with open_reader(tmp_path) as reader:
        assert [r.image_id for r in reader.records()] == [name]


def test_a_closed_run_is_one_file_that_opens_read_only(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    label_all(run, refs_in(tmp_path / "in", ["a"]))
    assert [p.name for p in run.iterdir()] == ["run.sqlite"]
    run.chmod(0o555)
    try:
        with open_reader(run) as reader:
            assert reader.counts() == {"ok": 1}
    finally:
        run.chmod(0o755)


def test_a_killed_run_that_cannot_be_written_says_that_a_copy_can_be_read(tmp_path):
    run, killed, copy = (tmp_path / name for name in ("run", "killed", "copy"))
    run.mkdir()
    label_all(run, refs_in(tmp_path / "in", ["a"]))
    killed.mkdir()
    with open_store(run) as store:
        store.set_meta(late="in the log alone")
        for name in ("run.sqlite", "run.sqlite-wal"):
            shutil.copy(run / name, killed)
    shutil.copytree(killed, copy)
    (killed / "run.sqlite-shm").symlink_to("no/where")  # for root, too, this file cannot be made
    with (
        pytest.raises(StoreError, match=r"its process was killed.*work on a copy: cp -r RUN COPY") as caught,
        open_reader(killed),
    ):
        raise AssertionError("what the log holds would be missing")
    assert "\n" not in str(caught.value)
    with open_reader(copy) as reader:
        assert (reader.counts(), reader.meta("late")) == ({"ok": 1}, "in the log alone")


def test_a_run_killed_as_it_wrote_says_who_puts_it_right(tmp_path):
    run, killed = tmp_path / "run", tmp_path / "killed"
    run.mkdir()
    refs = refs_in(tmp_path / "in", ["a"])
    label_all(run, refs)
    with contextlib.closing(sqlite3.connect(run / "run.sqlite", isolation_level=None)) as writer:
        for statement in ("PRAGMA journal_mode=truncate", "PRAGMA cache_size=1", "BEGIN"):
            writer.execute(statement)
        for number in range(200):  # more than it holds back
            writer.execute("INSERT INTO meta VALUES (?, ?)", (str(number), "x" * 500))
        shutil.copytree(run, killed)
        writer.execute("ROLLBACK")
    with (
        pytest.raises(StoreError, match=r"killed as it wrote.*the command that made it") as caught,
        open_reader(killed),
    ):
        raise AssertionError("what was not committed would be read")
    assert "\n" not in str(caught.value)
    with open_store(killed, rollback=True):
        pass
    with open_reader(killed) as reader:
        assert (reader.counts(), reader.meta("0")) == ({"ok": 1}, None)


def test_a_second_process_is_refused_with_the_first_ones_number(tmp_path):
    with (
        exclusive(tmp_path),
        pytest.raises(StoreBusy, match=f"process {os.getpid()}"),
        exclusive(tmp_path),
    ):
        raise AssertionError("both hold the lock")
    with exclusive(tmp_path):
        pass


def test_readers_share_a_run_and_no_writer_comes_between(tmp_path):
    with exclusive(tmp_path), pytest.raises(StoreBusy, match=f"process {os.getpid()}"), shared(tmp_path):
        raise AssertionError("it is being written")
    with (
        shared(tmp_path),
        shared(tmp_path),
        pytest.raises(StoreBusy, match="another process"),
        exclusive(tmp_path),
    ):
        raise AssertionError("it is being read")


def test_reading_leaves_no_lock_behind_and_says_when_a_writer_came(tmp_path):
    with shared(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreBusy, match="meanwhile"), shared(tmp_path), exclusive(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_run_that_cannot_be_written_is_said_to_be_one(number, tmp_path, monkeypatch):
    def refusing(path, flags, *mode):  # root may write anything
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StoreError, match=r"cannot be written.*work on a copy"), exclusive(tmp_path):
        raise AssertionError("it cannot be held")


def test_a_foreign_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine(x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt), open_store(tmp_path):
        pass
    with pytest.raises(StoreCorrupt), open_reader(tmp_path):
        pass
    assert path.read_bytes() == before


def test_a_damaged_database_says_that_it_is_damaged_and_not_that_all_is_safe(tmp_path):
    label_all(tmp_path, refs_in(tmp_path / "in", [f"{i:03}" for i in range(200)]))
    whole = (tmp_path / "run.sqlite").read_bytes()
    (tmp_path / "run.sqlite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        StoreCorrupt, match=r"run\.sqlite is damaged \(.*\); use a copy of the run, or label again"
    ):
        label_all(tmp_path, refs_in(tmp_path / "in", ["a"]))


@pytest.mark.parametrize("content", [b"", b"not a database at all, " * 50])
def test_what_is_no_database_is_a_clear_error(content, tmp_path):
    (tmp_path / "run.sqlite").write_bytes(content)
    with pytest.raises(StoreError), open_reader(tmp_path) as reader:
        reader.counts()


def test_a_damaged_schema_is_refused_in_one_line_also_where_the_damage_is_no_text(tmp_path):
    path = tmp_path / "run.sqlite"
    label_all(tmp_path, refs_in(tmp_path / "photos", ["a.jpg"]))
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE record", b"CR\xffATE TABLE record"))
    for opened in (open_reader, open_store):
        with pytest.raises(StoreCorrupt, match="damaged schema"), opened(tmp_path):
            pass


def test_categories_survive(tmp_path):
    with open_store(tmp_path) as store:
        store.set_meta(categories=categories_to([Category(3, "ü"), Category(7, "b")]))
    with open_reader(tmp_path) as reader:
        assert reader.categories == (Category(3, "ü"), Category(7, "b"))


def test_a_unit_keeps_its_place_in_the_manifest(tmp_path):
    refs = refs_in(tmp_path / "in", ["a", "b", "c"])
    _, done = label_all(tmp_path, refs)
    assert [(u.number, u.start) for u in done] == [(0, 0), (1, 2)]
    assert all(isinstance(u, Unit) for u in done)
