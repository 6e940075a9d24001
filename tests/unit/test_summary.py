"""The last lines of a run: what they say of its records."""

from autolabel.app.summary import kinds, summarise
from autolabel.core.types import ImageRecord
from autolabel.store.manifest import entries
from autolabel.store.run import open_reader, open_store
from tests.unit.test_store import refs_in


def lines_of(tmp_path, codes):
    """Of a run whose pictures were skipped with these codes."""
    refs = refs_in(tmp_path / "photos", [f"{number}.jpg" for number in range(len(codes))])
    (tmp_path / "run").mkdir()
    with open_store(tmp_path / "run") as store:
        store.sync(entries(refs.values()), root="/data", unit_size=len(refs))
        for unit in store.pending(refs):
            found = zip(unit.refs, codes, strict=True)
            store.commit(unit, [ImageRecord(r.image_id, r.path, "skipped", code=code) for r, code in found])
    with open_reader(tmp_path / "run") as reader:
        summary = summarise(reader, {}, labelled=0, seconds=0.0, ignored={}, stopped=False)
    return [line for line in summary.text().splitlines() if line.startswith("skipped")], summary


def test_what_was_skipped_is_said_by_its_reason(tmp_path):
    lines, summary = lines_of(tmp_path, ["unlabelled", "too\nlarge", "unlabelled"])
    assert lines == [
        "skipped    2 pictures have no labels in the source, not even that nothing is in them: exports leave them out",
        "skipped    1 picture was skipped (too\\nlarge): exports leave it out",
    ]
    assert summary.skipped == {"unlabelled": 2, "too\nlarge": 1}


def test_what_was_ignored_reads_right_for_any_number():
    assert (
        kinds({"run directory of autolabel": 2, "polygon shapes": 1})
        == "run directory of autolabel: 2, polygon shapes: 1"
    )
    assert kinds(dict.fromkeys(map(str, range(14)), 1)).endswith("11: 1 and 2 more")
