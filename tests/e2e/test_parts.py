"""Parts of a run, and the run that they are merged into."""

import os
import resource
import shutil
import sqlite3
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app import label as label_module
from autolabel.app.main import main
from autolabel.refine.quality import default_path
from autolabel.store import merge as merge_module
from autolabel.store.lock import exclusive, shared
from tests.fakes import album, draw
from tests.records import tree_bytes
from tests.reliability.programs import remembered

PICTURES = 22


@pytest.fixture
def label(tmp_path, monkeypatch):
    monkeypatch.setattr(label_module, "compose", composed)
    folder = tmp_path / "configs" / "detect"
    folder.mkdir(parents=True)
    OmegaConf.save({"_target_": "tests.reliability.models.MatesDetector", "delay_s": 0.0}, folder / "mates.yaml")
    album(tmp_path / "in", PICTURES)

    def call(run, *settings):
        return main(
            ["label", str(tmp_path / "in"), "--config-dir", str(tmp_path / "configs"), "detect=mates", "segment=box",
             "unit_size=4", "batch_size=2", "engine=inline", "decode.isolated=false", "export=[]",
             f"run={tmp_path / run}", *settings]
        )  # fmt: skip

    return call


def composed(name, overrides, config_dir=None):
    """As `compose`, half a second; runs and parts that differ in their place and number alone are composed once."""
    own = dict(o.split("=", 1) for o in overrides if o.startswith("part="))
    config = remembered(name, [o for o in overrides if not o.startswith("part=")], config_dir)
    config.part = None if own.get("part") == "null" else own.get("part")
    return config


def merged(tmp_path, runs, out="all"):
    return main(["merge", *[str(tmp_path / run) for run in runs], f"run={tmp_path / out}"])


@pytest.mark.parametrize("out", ["", "5", "[a,b]", "s3://bucket/run"])
def test_a_merged_run_is_a_path_on_this_machine(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "run.sqlite").touch()
    assert main(["merge", "part", f"run={out}"]) == 1
    assert capsys.readouterr().err.startswith("autolabel: run")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_a_merged_run_keeps_the_calibration_of_its_parts(label, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(default_path().read_text().replace('"bias": ', '"bias": 1'))
    for number in (1, 2):
        label(f"{number}", f"part={number}/2", f"refine.quality.calibration={mine}")
    assert merged(tmp_path, ["1", "2"]) == 0
    for gone in ("1", "2"):
        shutil.rmtree(tmp_path / gone)
    mine.unlink()
    before = tables(tmp_path / "all")
    assert main(["refine", str(tmp_path / "all")]) == 0
    assert tables(tmp_path / "all") == before


def tables(run):
    """Everything that a run holds but how it was asked for."""
    with sqlite3.connect(run / "run.sqlite") as db:
        return [
            db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("manifest", "unit", "record")
        ]


def exports(run):
    assert main(["export", str(run), "export=[coco,yolo]"]) == 0
    files = sorted(p for p in (run / "export").rglob("*") if p.is_file())
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("of", [1, 5])
def test_the_parts_merged_are_the_whole_run(of, label, tmp_path):
    assert label("whole") == 0
    runs = [f"part {k}" for k in range(1, of + 1)]
    for k, run in enumerate(runs, start=1):
        assert label(run, f"part={k}/{of}") == 0
    assert merged(tmp_path, reversed(runs)) == 0
    assert tables(tmp_path / "all") == tables(tmp_path / "whole")
    assert exports(tmp_path / "all") == exports(tmp_path / "whole")
    assert label("all") == 0, "the same settings continue it"


def test_more_parts_than_files_may_be_open_are_merged(label, tmp_path):
    for number in range(1, 6):
        label(f"{number}", f"part={number}/5")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 9, hard))
        assert merged(tmp_path, map(str, range(1, 6))) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", 0.5])
def test_a_part_that_is_none_is_refused(part, label, capsys):
    assert label("run", f"part={part}") == 1
    assert "part must be K/N with 1 <= K <= N" in capsys.readouterr().err


def test_more_parts_than_units_are_refused(label, capsys):
    assert label("run", "part=1/7") == 1
    assert "the source has 6 units of 4 pictures; at most 6 parts" in capsys.readouterr().err


def test_a_part_is_resumed_as_itself_alone(label, capsys):
    label("run", "part=1/2")
    assert label("run", "part=1/2") == 0
    for other, said in (("part=2/2", "is part 1/2, not part 2/2"), ("part=null", "continue it with part=1/2")):
        assert label("run", other) == 1
        assert said in capsys.readouterr().err
    label("whole")
    assert label("whole", "part=1/2") == 1
    assert "holds all pictures of its source" in capsys.readouterr().err


def test_a_part_of_a_list_that_changed_is_refused(label, tmp_path, capsys):
    label("run", "part=1/2")
    draw(tmp_path / "in" / "later.png", {0: (2, 2, 9, 9)})
    assert label("run", "part=1/2") == 1
    assert f"a list of {PICTURES} pictures, which has changed (now {PICTURES + 1})" in capsys.readouterr().err


def test_what_does_not_fit_together_is_refused_with_the_reason(label, tmp_path, capsys):
    for k in (1, 2, 3):
        label(f"part {k}", f"part={k}/3")
    label("other", "part=2/3", "prompt.pad=0.1")
    label("again", "part=2/3")
    label("whole")
    refusals = {
        ("part 1", "part 3"): "1 of 3 parts is missing: 2/3",
        ("part 1", "part 2", "part 3", "again"): "are both part 2/3",
        ("part 1", "other", "part 3"): "prompt.pad: 0.0 | 0.1",
        ("part 1", "whole"): "is not a part of a larger run",
    }
    for runs, said in refusals.items():
        assert merged(tmp_path, runs) == 1, runs
        assert said in capsys.readouterr().err
    assert not (tmp_path / "all" / "run.sqlite").exists()


def test_a_merge_that_is_refused_leaves_no_directory(label, tmp_path):
    label("one", "part=1/2")
    assert merged(tmp_path, ["one"]) == 1
    assert not (tmp_path / "all").exists()


def test_another_run_is_never_overwritten_and_the_same_merge_is_done_once(label, tmp_path, capsys):
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert "as they were before" in capsys.readouterr().out
    label("taken")
    assert merged(tmp_path, ["part 1", "part 2"], "taken") == 1
    assert "holds another run already" in capsys.readouterr().err


def test_parts_are_only_read_by_a_merge_and_so_may_others_read_them(label, tmp_path):
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    (tmp_path / "part 1" / ".lock").unlink()  # as in a copy
    before = [tree_bytes(tmp_path / f"part {k}") for k in (1, 2)]
    written = (tmp_path / "part 2" / ".lock").stat().st_mtime_ns
    with shared(tmp_path / "part 2"):
        assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert [tree_bytes(tmp_path / f"part {k}") for k in (1, 2)] == before
    assert (tmp_path / "part 2" / ".lock").stat().st_mtime_ns == written


def test_a_part_that_is_being_written_is_not_merged(label, tmp_path, capsys):
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    with exclusive(tmp_path / "part 2"):
        assert merged(tmp_path, ["part 1", "part 2"]) == 1
    assert "part 2 is in use by process" in capsys.readouterr().err
    assert not (tmp_path / "all" / "run.sqlite").exists()


@pytest.fixture
def changing(label, tmp_path):
    """Two parts that are merged, the second with a picture that failed; how the picture is put right in both."""
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    picture = max(path for path in (tmp_path / "in").rglob("*") if path.is_file())
    whole = picture.read_bytes()
    picture.write_bytes(b"")
    assert label("part 2", "part=2/2") == 2
    assert merged(tmp_path, ["part 1", "part 2"]) == 2

    def repair():
        picture.write_bytes(whole)
        assert label("part 2", "part=2/2") == 0

    return repair


def test_the_same_merge_takes_over_what_changed_in_a_part(changing, label, tmp_path, capsys):
    (tmp_path / "all" / "evaluate").mkdir()
    (tmp_path / "all" / "evaluate" / "evaluation.json").write_text("{}")
    changing()
    capsys.readouterr()
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert "with what changed in them" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "all" / "evaluate").iterdir()] == ["evaluation.json.outdated"]
    label("whole")
    assert tables(tmp_path / "all") == tables(tmp_path / "whole")
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert "as they were before" in capsys.readouterr().out


def test_a_merge_that_is_cut_off_leaves_the_old_one(changing, tmp_path, monkeypatch):
    changing()
    before = tables(tmp_path / "all")

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", cut)
        assert merged(tmp_path, ["part 1", "part 2"]) == 130
    assert tables(tmp_path / "all") == before
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert tables(tmp_path / "all") != before


def grow(label, run):
    draw(run.parent / "in" / "later.png", {0: (2, 2, 9, 9)})
    assert label("all") == 2


def shrink(label, run):
    picture = min(path for path in (run.parent / "in").rglob("*") if path.is_file())
    aside = picture.rename(run.parent / "aside")
    assert label("all") == 2
    aside.rename(picture)


def refine(label, run):
    assert main(["refine", str(run), "refine=strict"]) == 2


def forget(label, run):
    """What it took from its parts, as a merge of an earlier version does."""
    with sqlite3.connect(run / "run.sqlite") as db:
        db.execute("DELETE FROM meta WHERE key = ?", (merge_module.DIGEST,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (grow, "was changed after"),
        (shrink, "was changed after"),
        (refine, "has other settings"),
        (forget, "was not noted"),
    ],
)
def test_what_was_done_in_the_merged_run_is_not_replaced(change, said, changing, label, tmp_path, capsys):
    change(label, tmp_path / "all")
    (tmp_path / "in" / "later.png").unlink(missing_ok=True)
    changing()
    before = tables(tmp_path / "all")
    capsys.readouterr()
    assert merged(tmp_path, ["part 1", "part 2"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "choose another directory with run=..., or delete" in error
    assert tables(tmp_path / "all") == before


def test_a_merged_run_that_was_put_right_as_its_parts_were_stays(changing, label, tmp_path, capsys):
    changing()
    assert label("all") == 0
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    assert "as they were before" in capsys.readouterr().out


def test_a_log_of_another_database_is_not_taken_for_the_new_one_s(label, tmp_path, capsys):
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "run.sqlite-wal").write_bytes(b"of a run that was deleted")
    assert merged(tmp_path, ["part 1", "part 2"]) == 1
    assert "run.sqlite-wal belongs to a run" in capsys.readouterr().err


def test_a_merge_that_was_cut_off_leaves_nothing_and_begins_again(label, tmp_path, monkeypatch):
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    monkeypatch.setattr(merge_module, "CHUNK", 5)

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", cut)
        assert merged(tmp_path, ["part 1", "part 2"]) == 130
    staging = tmp_path / "all" / merge_module.STAGING
    assert not (tmp_path / "all" / "run.sqlite").exists()
    assert not staging.exists()
    staging.mkdir(parents=True)  # as a kill leaves it
    (staging / "run.sqlite").write_bytes(b"half a run")
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    label("whole")
    assert tables(tmp_path / "all") == tables(tmp_path / "whole")
    assert not staging.exists()


def test_a_part_that_is_not_finished_is_refused(label, tmp_path, capsys):
    for k in (1, 2):
        label(f"part {k}", f"part={k}/2")
    with sqlite3.connect(tmp_path / "part 2" / "run.sqlite") as db:
        db.execute("DELETE FROM unit WHERE number = 0")
        db.execute("DELETE FROM record WHERE ordinal < 4")
    assert merged(tmp_path, ["part 1", "part 2"]) == 1
    assert "has 4 pictures to do" in capsys.readouterr().err


def objects(tmp_path, run):
    """What an evaluation says of each object."""
    return (tmp_path / run / "evaluate" / "objects.jsonl").read_text()


def test_a_part_is_refined_and_evaluated_as_what_it_holds_and_says_so(label, tmp_path, capsys):
    label("whole")
    assert main(["export", str(tmp_path / "whole"), "export=[coco]"]) == 0
    truth = f"truth={tmp_path / 'whole' / 'export' / 'coco' / 'instances.json'}"
    for k in (1, 2):
        assert label(f"part {k}", f"part={k}/2") == 0
    assert merged(tmp_path, ["part 1", "part 2"]) == 0
    said = {}
    for run in ("whole", "all", "part 1"):
        capsys.readouterr()
        assert main(["refine", str(tmp_path / run), "refine=strict"]) == 0
        assert main(["evaluate", str(tmp_path / run), truth]) == 0
        said[run] = capsys.readouterr().out
    assert "part       " not in said["whole"] + said["all"]
    assert said["part 1"].count("part       1/2 of its source") == 2
    assert "10 pictures of the ground truth are not in the run and not counted" in said["part 1"]
    assert tables(tmp_path / "all") == tables(tmp_path / "whole")
    assert objects(tmp_path, "all") == objects(tmp_path, "whole")
    assert label("again", "part=2/2", "refine=strict") == 0
    assert merged(tmp_path, ["part 1", "again"], "refined parts") == 0, (
        "a refined part is a part of the refined run"
    )
    assert tables(tmp_path / "refined parts") == tables(tmp_path / "whole")
