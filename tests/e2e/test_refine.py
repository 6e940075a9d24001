"""Refining a run again: equal to having labelled it so from the start, and no model is touched."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app.main import main
from autolabel.store.run import open_reader, open_store
from tests.fakes import album

ROOT = Path(__file__).resolve().parents[2]
STRICTER = ["refine.area.min_px=60", "refine.score.min_detector_score=0.6"]


@pytest.fixture
def label(tmp_path):
    folder = tmp_path / "configs" / "detect"
    folder.mkdir(parents=True)
    OmegaConf.save({"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}, folder / "colour.yaml")
    album(tmp_path / "in", 12)

    def call(run, *settings):
        where = ["--config-dir", str(tmp_path / "configs"), f"run={tmp_path / run}"]
        return main(["label", str(tmp_path / "in"), *where, "detect=colour", "segment=box", *settings])

    return call


def records(run):
    with open_reader(run) as reader:
        return list(reader.records())


def test_refining_equals_labelling_with_these_settings_and_continues_as_such(label, tmp_path):
    label("strict", *STRICTER)
    label("plain")
    assert records(tmp_path / "plain") != records(tmp_path / "strict")
    assert main(["refine", str(tmp_path / "plain"), *STRICTER]) == 0
    assert records(tmp_path / "plain") == records(tmp_path / "strict")
    assert label("plain", *STRICTER) == 0
    assert label("plain") == 1


def test_refining_back_gives_the_run_as_it_was(label, tmp_path, capsys):
    label("run")
    before = records(tmp_path / "run")
    main(["refine", str(tmp_path / "run"), "refine.islands.largest_only=true", "refine.area.min_px=60"])
    assert records(tmp_path / "run") != before
    main(["refine", str(tmp_path / "run")])
    assert records(tmp_path / "run") == before
    main(["refine", str(tmp_path / "run")])
    assert "refined    0 pictures changed" in capsys.readouterr().out


def test_what_never_became_a_mask_stays_dropped(label, tmp_path):
    label("run", "prompt.pad=0.0")
    with open_store(tmp_path / "run") as store:
        (record,) = list(records(tmp_path / "run"))[1:2]
        bad = record.candidates[0]
        verdict = type(record.verdicts[0])(reason="no_mask: the segmenter gave no mask")
        changed = record.__class__(**{**fields(record), "candidates": (bad,), "verdicts": (verdict,)})
        store.revise(lambda r: changed if r.image_id == record.image_id else r)
    main(["refine", str(tmp_path / "run"), "refine=none"])
    (again,) = [r for r in records(tmp_path / "run") if r.image_id == record.image_id]
    assert again.verdicts == (verdict,)
    assert again.status == "empty"


def fields(record):
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def test_a_change_that_breaks_leaves_the_run_as_it_was(label, tmp_path):
    label("run")
    before = records(tmp_path / "run")

    def broken(record):
        if "007" in record.image_id:
            raise KeyboardInterrupt
        return record.__class__(**{**fields(record), "candidates": (), "verdicts": ()})

    with pytest.raises(KeyboardInterrupt), open_store(tmp_path / "run") as store:
        store.revise(broken, fingerprint="{}")
    assert records(tmp_path / "run") == before
    assert label("run") == 0


def test_no_model_library_is_loaded(label, tmp_path):
    label("run")
    program = (
        "import sys; from autolabel.app.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'ultralytics', 'sam2'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "refine", str(tmp_path / "run"), *STRICTER]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


@pytest.mark.parametrize("arguments", [["nowhere"], [], ["in", "refine.area.min_px=-1"], ["-m", "in"]])
def test_a_mistake_is_one_line(arguments, label, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["refine", *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1
