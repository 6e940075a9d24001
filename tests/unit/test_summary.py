"""The last lines of a run: what they say of its records."""

from dataclasses import replace

import pytest

from autolabel.app.progress import CountedSink, Progress
from autolabel.app.summary import Cost, Invocation, kinds, read_cost, summarise
from autolabel.core.protocols import Unit
from autolabel.core.types import ImageRecord
from autolabel.engine.stage_times import StageTimes
from autolabel.store.manifest import entries
from autolabel.store.memory import MemoryStore
from autolabel.store.run import open_reader, open_store
from tests.unit.test_store import refs_in


def summary_of(tmp_path, ends, **invocation):
    """Of a run whose pictures ended so: their statuses and codes."""
    refs = refs_in(tmp_path / "photos", [f"{number}.jpg" for number in range(len(ends))])
    (tmp_path / "run").mkdir()
    with open_store(tmp_path / "run") as store:
        store.sync(entries(refs.values()), root="/data", unit_size=len(refs))
        for unit in store.pending(refs):
            found = zip(unit.refs, ends, strict=True)
            store.commit(unit, [ImageRecord(r.image_id, r.path, end, code=code) for r, (end, code) in found])
    with open_reader(tmp_path / "run") as reader:
        return summarise(reader, Invocation(**invocation))


def lines_of(tmp_path, codes):
    """Of a run whose pictures were skipped with these codes."""
    summary = summary_of(tmp_path, [("skipped", code) for code in codes])
    return [line for line in summary.text().splitlines() if line.startswith("skipped")], summary


@pytest.mark.parametrize(
    ("ends", "labelled", "line"),
    [
        (["ok", "empty", "skipped", "failed"], 2, "1.00 pictures a second (2 in 2.0 s, including model loading)"),
        (["skipped", "failed"], 0, "none: 2 pictures failed or were skipped"),
        (["failed"], 0, "none: 1 picture failed or was skipped"),
        ([], 0, "nothing to do: every picture was labelled before"),
    ],
)
def test_the_speed_is_that_of_pictures_that_were_labelled(tmp_path, ends, labelled, line):
    found = summary_of(
        tmp_path,
        [(end, "code" if end in ("skipped", "failed") else "") for end in ends or ["ok"]],
        labelled=labelled,
        committed=len(ends),
        seconds=2.0,
    )
    assert f"speed      {line}" in found.text().splitlines()
    found.write(tmp_path)
    assert read_cost(tmp_path) == Cost(labelled, 2.0 if labelled else 0.0, {})


@pytest.mark.parametrize(
    ("ends", "next_"),
    [
        ([("ok", ""), ("failed", "corrupt")], "autolabel export "),
        (
            [("failed", "corrupt"), ("skipped", "unlabelled")],
            "no picture is labelled: correct what is said above",
        ),
    ],
)
def test_where_no_picture_is_labelled_no_masks_are_to_be_looked_at(tmp_path, ends, next_):
    assert summary_of(tmp_path, ends).text().splitlines()[-1].startswith(f"next       {next_}")


def test_without_a_sitting_nothing_is_said_of_speed_and_of_what_is_next(tmp_path):
    summary = summary_of(
        tmp_path, [("ok", ""), ("failed", "corrupt")], labelled=1, ignored={"x": 2}, stages={"a": 1.0}
    )
    invocation = ("ignored", "speed", "stages", "next")
    assert [line.split()[0] for line in summary.lines() if line.startswith(invocation)] == [*invocation]
    held = [line for line in summary.lines() if not line.startswith(invocation)]
    assert replace(summary, invocation=None).lines() == held


def test_records_are_counted_by_status_as_they_are_committed():
    sink = CountedSink(MemoryStore(), Progress(0), StageTimes())
    for statuses in (("ok", "skipped"), ("empty", "failed", "skipped")):
        sink.commit(Unit(0, 0, ()), [ImageRecord("a", "a", status) for status in statuses])
    assert sink.done == {"ok": 1, "empty": 1, "failed": 1, "skipped": 2}


def test_what_was_skipped_is_said_by_its_reason(tmp_path):
    lines, summary = lines_of(tmp_path, ["unlabelled", "too\nlarge", "unlabelled"])
    assert lines == [
        "skipped    2 pictures have no labels in the source, not even that they are empty: exports leave them out",
        "skipped    1 picture was skipped (too\\nlarge): exports leave it out",
    ]
    assert summary.holds.skipped == {"unlabelled": 2, "too\nlarge": 1}


def test_what_was_ignored_reads_right_for_any_number():
    assert (
        kinds({"run directory of autolabel": 2, "polygon shapes": 1})
        == "run directory of autolabel: 2, polygon shapes: 1"
    )
    assert kinds(dict.fromkeys(map(str, range(14)), 1)).endswith("11: 1 and 2 more")
