"""Refining a run again: equal to having labelled it so from the start, and no model is touched."""

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app.main import main
from autolabel.export.manifest import SEAL
from autolabel.ops.export_mark import RECORDS
from autolabel.refine.quality import default_path
from autolabel.store.run import RunStore, open_reader, open_store
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


def kept(run):
    return [[instance.index for instance in record.instances] for record in records(run)]


def test_refining_equals_labelling_with_these_settings_and_continues_as_such(label, tmp_path):
    label("strict", *STRICTER)
    label("plain")
    assert records(tmp_path / "plain") != records(tmp_path / "strict")
    assert main(["refine", str(tmp_path / "plain"), *STRICTER]) == 0
    assert records(tmp_path / "plain") == records(tmp_path / "strict")
    assert label("plain", *STRICTER) == 0
    assert label("plain") == 1


def test_the_first_command_after_refining_is_refused_with_those_that_help(label, tmp_path, capsys):
    label("my run")
    usual = records(tmp_path / "my run")
    refined = ["refine.area.min_px=60", "refine.border.max_contact=0.5"]
    assert main(["refine", str(tmp_path / "my run"), *refined]) == 0
    capsys.readouterr()
    assert label("my run") == 1
    _, first, *changes, last = capsys.readouterr().err.splitlines()
    assert first.endswith("my run keeps and drops with other refine settings (then -> now):")
    assert len(changes) == 2
    go_on, back = (shlex.split(part) for part in last.split("; "))
    assert label("my run", *go_on[-2:]) == 0
    assert main(back[back.index("autolabel") + 1 :]) == 0
    assert label("my run") == 0
    assert records(tmp_path / "my run") == usual


def test_a_refiner_that_came_or_went_is_told_without_a_command_that_cannot_be(label, tmp_path, capsys):
    label("run")
    assert main(["refine", str(tmp_path / "run"), "refine=none"]) == 0
    capsys.readouterr()
    assert label("run") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"autolabel refine {tmp_path / 'run'} with the refine settings of this command")
    assert label("run", "prompt.pad=0.2") == 1
    assert "was labelled with other settings" in capsys.readouterr().err


def test_the_next_command_can_be_pasted_whatever_the_run_is_called(label, tmp_path, capsys):
    label("my run, größe=groß", "part=1/1")
    run = tmp_path / "my run, größe=groß"
    assert main(["refine", str(run), "refine.area.min_px=60"]) == 0
    assert f"next       autolabel export '{run}' export=" in capsys.readouterr().out
    assert main(["export", str(run), "export=[coco]"]) == 0
    assert main(["refine", str(run), "refine=none"]) == 0
    capsys.readouterr()
    assert main(["export", str(run), "export=[coco]", "--verify"]) == 2
    assert f"export again: autolabel export '{run}' export=[coco]" in capsys.readouterr().out
    assert main(["merge", str(run), f"run={tmp_path / 'all of it'}"]) == 0
    assert f"next       autolabel export '{tmp_path / 'all of it'}' export=" in capsys.readouterr().out


FORMATS = sorted(path.stem for path in (ROOT / "configs" / "export").glob("*.yaml"))


def verified(run, formats, capsys):
    """Exit code and lines of a verification."""
    capsys.readouterr()
    code = main(["export", str(run), f"export=[{','.join(formats)}]", "--verify"])
    return code, capsys.readouterr().out.splitlines()


def test_an_export_of_other_records_is_outdated_and_is_not_compared(label, tmp_path, capsys):
    run = tmp_path / "run"
    label("run", f"export=[{','.join(FORMATS)}]")
    assert verified(run, FORMATS, capsys)[0] == 0
    main(["refine", str(run), *STRICTER])
    code, lines = verified(run, FORMATS, capsys)
    assert code == 2
    assert lines == [
        f"outdated   {run}/export/{name}: the records changed since it was written; "
        f"export again: autolabel export {run} export=[{name}]"
        for name in FORMATS
    ]
    assert main(["export", str(run), f"export=[{','.join(FORMATS)}]"]) == 0
    assert verified(run, FORMATS, capsys)[0] == 0


def test_refined_to_and_fro_an_export_is_as_good_as_before(label, tmp_path, capsys):
    label("run", "export=[coco]")
    main(["refine", str(tmp_path / "run"), *STRICTER])
    assert verified(tmp_path / "run", ["coco"], capsys)[0] == 2
    main(["refine", str(tmp_path / "run"), "refine=default"])
    assert verified(tmp_path / "run", ["coco"], capsys)[0] == 0


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("yolo", "val_fraction=0.9"),
        ("voc", 'overlaps="smallest"'),
        ("label_studio", 'image_root="http://x y/"'),
        ("label_studio", 'data_key="img"'),
        ("fiftyone", 'label_field="gt"'),
        ("cutouts", 'index="json"'),
        ("yolo", "simplify_iou=0.9"),
    ],
)
def test_an_export_is_verified_with_the_settings_that_it_was_written_with(label, tmp_path, capsys, name, setting):
    run, given = tmp_path / "run", f"export.{name}.{setting}"
    assert label("run", f"export=[{name}]", given) == 0
    code, (line,) = verified(run, [name], capsys)
    assert code == 2
    assert line.startswith(f"settings   {run}/export/{name}: it was written with {given}; ")
    command = shlex.split(line.partition(", name that: ")[2])
    assert command[0] == "autolabel"
    assert main(command[1:]) == 0
    assert "verified" in capsys.readouterr().out


def test_an_object_that_no_setting_lost_is_a_fault(label, tmp_path, capsys):
    run = tmp_path / "run"
    label("run", "export=[yolo,voc]")
    lost = next(record.path for record in records(run) if record.instances)
    Path(lost).write_bytes(b"another picture")
    assert main(["export", str(run), "export=[yolo]"]) == 2
    code, lines = verified(run, ["voc", "yolo"], capsys)
    assert code == 2
    assert [line.split()[0] for line in lines[:3]] == ["verified", "verified", "lost"]
    assert lines[3].endswith("the image is not in the export")
    assert verified(run, ["voc"], capsys)[0] == 0


def test_an_export_whose_manifest_tells_no_records_is_not_compared_by_place_with_fewer(label, tmp_path, capsys):
    by_place = ["coco", "coco_results", "cvat", "label_studio", "labelme"]
    label("run", f"export=[{','.join(by_place)}]")
    for name in by_place:
        forget_the_records(tmp_path / "run" / "export" / name / "manifest.json")
    assert verified(tmp_path / "run", by_place, capsys)[0] == 0
    main(["refine", str(tmp_path / "run"), *STRICTER])
    code, lines = verified(tmp_path / "run", by_place, capsys)
    assert code == 2
    assert [line.split(":")[0].split("/")[-1] for line in lines] == by_place
    assert all("was written from other records or with other settings" in line for line in lines)


def forget_the_records(manifest):
    """As versions before wrote it."""
    *lines, records, _ = manifest.read_bytes().splitlines(keepends=True)
    assert RECORDS.encode() in records
    body = b"".join(lines)
    manifest.write_bytes(body + f'"{SEAL}":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode())


@pytest.mark.parametrize("setting", ["label_studio.data_key=img", "fiftyone.label_field=gt", "cutouts.index=json"])
def test_an_export_that_tells_no_settings_and_cannot_be_read_with_these_says_so(label, tmp_path, capsys, setting):
    run, name = tmp_path / "run", setting.partition(".")[0]
    label("run", f"export=[{name}]", f"export.{setting}")
    forget_the_records(run / "export" / name / "manifest.json")
    code, (line,) = verified(run, [name], capsys)
    assert code == 2
    assert line.startswith(
        f"outdated   {run}/export/{name}: was written from other records or with other settings ("
    )


def test_the_same_with_a_floor_for_the_quality(label, tmp_path):
    label("plain")
    qualities = sorted(i.quality for r in records(tmp_path / "plain") for i in r.instances)
    floor = f"refine.quality.min_quality={qualities[len(qualities) // 2]}"
    label("strict", floor)
    assert main(["refine", str(tmp_path / "plain"), floor]) == 0
    assert records(tmp_path / "plain") == records(tmp_path / "strict")
    assert sum(len(r.instances) for r in records(tmp_path / "plain")) < len(qualities)
    assert label("plain", floor) == 0


def test_every_refiner_together_gives_the_same_as_labelling_with_it(label, tmp_path):
    rules = ["refine=strict", "refine.smooth.radius_px=2", "refine.bleed.clip=true", "refine.border.max_contact=0.3",
             "refine.duplicates.across_classes=true", "refine.duplicates.min_containment=0.9",
             "refine.ownership.by=depth", "refine.ownership.part_of={cat: dog}"]  # fmt: skip
    label("strict", *rules)
    label("plain")
    assert main(["refine", str(tmp_path / "plain"), *rules]) == 0
    assert records(tmp_path / "plain") == records(tmp_path / "strict")
    assert label("plain", *rules) == 0


def test_another_calibration_is_another_run_wherever_its_file_lies(label, tmp_path, capsys):
    mine, moved = tmp_path / "mine.json", tmp_path / "moved.json"
    mine.write_bytes(default_path().read_bytes())
    label("run", f"refine.quality.calibration={mine}")
    assert label("run") == 0
    moved.write_text(mine.read_text().replace('"bias": ', '"bias": 1'))
    assert label("run", f"refine.quality.calibration={moved}") == 1
    assert "refine (calibration)" in capsys.readouterr().err
    before = records(tmp_path / "run")
    assert main(["refine", str(tmp_path / "run"), f"refine.quality.calibration={moved}"]) == 0
    assert records(tmp_path / "run") != before
    assert label("run", f"refine.quality.calibration={moved}") == 0


def test_a_run_keeps_its_calibration_whatever_becomes_of_the_file_and_of_the_run(label, tmp_path, capsys):
    mine, run = tmp_path / "mine.json", tmp_path / "run"
    mine.write_text(default_path().read_text().replace('"bias": ', '"bias": 1'))
    label("run")
    settings = [f"refine.quality.calibration={mine}", "refine.quality.min_quality=0.6"]
    assert main(["refine", str(run), *settings]) == 0
    before = records(run)
    mine.write_bytes(default_path().read_bytes())
    assert main(["refine", str(run)]) == 0
    assert records(run) == before
    kept = OmegaConf.load(run / "config.yaml").refine.quality.calibration
    assert (
        label("run", f"refine.quality.calibration={kept}", settings[1]) == 0
    )  # as those who are refused are told
    mine.unlink()
    moved = run.rename(tmp_path / "elsewhere")
    assert main(["refine", str(moved)]) == 0
    assert records(moved) == before
    assert label("never", f"refine.quality.calibration={moved / Path(kept).name}", "refine.smooth.radius=-1") == 1
    assert not (tmp_path / "never").exists()


def test_refining_an_earlier_versions_run_takes_no_other_calibration_unless_it_is_named(label, tmp_path, capsys):
    mine, run = tmp_path / "mine.json", tmp_path / "run"
    mine.write_bytes(default_path().read_bytes())
    label("run", f"refine.quality.calibration={mine}")
    before = records(run)
    (kept,) = run.glob("quality-*.json")
    kept.unlink()
    store_refine(run, quality={**OmegaConf.load(run / "config.yaml").refine.quality, "calibration": str(mine)})
    assert main(["refine", str(run)]) == 0
    kept.unlink()
    store_refine(run, quality={**OmegaConf.load(run / "config.yaml").refine.quality, "calibration": str(mine)})
    mine.write_text(mine.read_text().replace('"bias": ', '"bias": 1'))
    capsys.readouterr()
    assert main(["refine", str(run)]) == 1
    error = capsys.readouterr().err
    assert "calibration that its quality was read from has changed" in error
    assert error.count("\n") == 1
    assert records(run) == before
    assert main(["refine", str(run), f"refine.quality.calibration={mine}"]) == 0
    assert records(run) != before


def test_a_part_of_a_class_that_the_run_does_not_have_is_a_mistake(label, tmp_path, capsys):
    label("run")
    assert main(["refine", str(tmp_path / "run"), "refine.ownership.part_of={wheel: dog}"]) == 1
    assert "there is no class 'wheel'; there are cat, dog, owl" in capsys.readouterr().err


def test_refining_back_gives_the_run_as_it_was(label, tmp_path, capsys):
    label("run")
    before = records(tmp_path / "run")
    main(["refine", str(tmp_path / "run"), "refine.islands.largest_only=true", "refine.area.min_px=60"])
    assert records(tmp_path / "run") != before
    main(["refine", str(tmp_path / "run"), "refine=default"])
    assert records(tmp_path / "run") == before
    capsys.readouterr()
    main(["refine", str(tmp_path / "run")])
    assert "refined    0 pictures changed" in capsys.readouterr().out


def test_settings_that_are_not_named_stay_as_the_run_has_them(label, tmp_path, capsys):
    first, second = STRICTER
    label("both", *STRICTER)
    label("run", first)
    capsys.readouterr()
    assert main(["refine", str(tmp_path / "run"), "--cfg", second]) == 0
    shown = OmegaConf.create(capsys.readouterr().out).refine
    assert (shown.area.min_px, shown.score.min_detector_score) == (60, 0.6)
    assert main(["refine", str(tmp_path / "run"), second]) == 0
    assert records(tmp_path / "run") == records(tmp_path / "both")
    assert label("run", *STRICTER) == 0
    assert main(["refine", str(tmp_path / "run"), "refine.score.min_detector_scor=0.5"]) == 1
    assert "did you mean min_detector_score" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["refine.smooth.radius_fraction=0.1", "+refine.smooth.radius_fraction=0.1"])
def test_a_setting_that_the_version_of_the_run_had_not_is_there_to_be_set(label, tmp_path, override, capsys):
    label("smooth", override.lstrip("+"))
    label("run")
    assert records(tmp_path / "run") != records(tmp_path / "smooth")
    with open_store(tmp_path / "run") as store:
        config = OmegaConf.create(store.meta("config"))
        del config.refine.smooth.radius_fraction
        store.set_meta(config=OmegaConf.to_yaml(config))
    assert main(["refine", str(tmp_path / "run"), "refine.smooth.radius_frac=0.1"]) == 1
    assert "there is no such setting" in capsys.readouterr().err
    assert main(["refine", str(tmp_path / "run"), override]) == 0
    assert records(tmp_path / "run") == records(tmp_path / "smooth")
    assert label("run", override.lstrip("+")) == 0


def test_a_refiner_that_the_run_is_without_comes_back_with_a_setting(label, tmp_path):
    floor = "refine.score.min_detector_score=0.6"
    label("strict", floor)
    for run, without in (("none", "refine=none"), ("null", "refine.score=null")):
        label(run, without)
        before = kept(tmp_path / run)
        assert main(["refine", str(tmp_path / run), floor]) == 0
        assert kept(tmp_path / run) == kept(tmp_path / "strict") != before


def test_the_summary_counts_what_the_run_holds_now(label, tmp_path):
    def summary():
        return json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))

    label("run")
    before = summary()
    main(["refine", str(tmp_path / "run"), *STRICTER])
    after = summary()
    kept = [i for r in records(tmp_path / "run") for i in r.instances]
    assert sum(after["instances"].values()) == len(kept) < sum(before["instances"].values())
    assert sum(after["dropped"].values()) > sum(before["dropped"].values())
    changing = {"instances", "dropped", "status", "failures", "pending"}
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }


def test_the_summary_of_a_killed_run_is_no_success_and_refining_leaves_it_so(label, tmp_path, monkeypatch):
    label("run")
    album(tmp_path / "in" / "more", 28)
    with monkeypatch.context() as now:
        now.setattr(RunStore, "commit", killed)
        with pytest.raises(RuntimeError):
            label("run")

    def told():
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        return summary["pending"], summary["exit_code"], summary["stopped"], summary["cost"]["pictures"]

    assert told() == (28, 130, True, 12)
    assert main(["refine", str(tmp_path / "run"), *STRICTER]) == 0
    assert told() == (28, 130, True, 12)
    assert label("run", *STRICTER) == 0
    assert told() == (0, 0, False, 40)
    next((tmp_path / "in").rglob("*.png")).write_bytes(b"no picture")
    assert label("run", *STRICTER) == 2
    assert main(["refine", str(tmp_path / "run"), "refine.area.min_px=1"]) == 2
    assert told()[1] == 2


def killed(*arguments):
    raise RuntimeError


def test_an_entry_of_a_map_counts_whatever_its_class_is_called(label, tmp_path, capsys):
    rename = "labels.rename={owl: weights}"
    parts = ["refine.ownership.by=depth", "refine.ownership.part_of={weights: dog}"]
    label("run", rename)
    assert main(["refine", str(tmp_path / "run"), *parts]) == 0
    assert label("run", rename, *parts) == 0
    capsys.readouterr()
    assert label("run", rename, parts[0], "refine.ownership.part_of={weights: cat}") == 1
    assert "refine.ownership.part_of.weights: 'dog' -> 'cat'" in capsys.readouterr().err


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


# -- a run directory is data --------------------------------------------------------------------------------------


def store_refine(run, **entries):
    """Into the run's stored configuration, beside the refiners that it has."""
    with open_store(run) as store:
        config = OmegaConf.create(store.meta("config"))
        for name, entry in entries.items():
            config.refine[name] = entry
        store.set_meta(config=OmegaConf.to_yaml(config))


NESTED = {"_target_": "autolabel.refine.area.AreaRefiner", "min_px": [{"_target_": "builtins.open", "file": "made", "mode": "w"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"_target_": "builtins.open", "file": "made", "mode": "w"}, "give its --config-dir, or, if you know it, its class with refine.x._target_=...; or leave it out with refine.x=null"),
        ({"_target_": "numpy.load", "file": "in", "allow_pickle": True}, "'numpy.load'"),
        ({"_target_": ["builtins.open"], "_args_": ["made", "w"]}, "give its --config-dir"),
        (NESTED, "'builtins.open'"),
        ({"a": {"_target_": "builtins.open", "_args_": ["made", "w"], "_partial_": False}}, "'builtins.open'"),
        ({"_target_": "autolabel.refine.area.AreaRefiner", "min_px": "${oc.env:HOME}"}, "a reference"),
        ("${oc.env:HOME}", "not a section"),
        (["/detect/nano"], "not a section"),
    ],
)  # fmt: skip
def test_nothing_of_a_run_is_built_or_looked_up(entry, said, label, tmp_path, monkeypatch, capsys):
    label("run")
    monkeypatch.chdir(tmp_path)
    store_refine(tmp_path / "run", x=entry)
    before = records(tmp_path / "run")
    capsys.readouterr()
    for arguments in ([], ["refine.area.min_px=5"], ["--cfg"]):
        assert main(["refine", "run", *arguments]) == 1
        error = capsys.readouterr().err
        assert "the run used refine.x, " in error
        assert said in error
        assert error.count("\n") == 1
    assert main(["refine", "run", "refine.x={y: 1}"]) == 1
    assert "refine.x" in capsys.readouterr().err
    assert not Path("made").exists()
    assert records(tmp_path / "run") == before
    assert main(["refine", "run", "refine.x=null"]) == 0
    assert main(["refine", "run", "refine=strict"]) == 0
    assert not Path("made").exists()


def test_a_run_has_no_defaults_list(label, tmp_path, capsys):
    label("run")
    for entry in ({"_target_": "autolabel.refine.area.AreaRefiner", "min_px": 1}, ["/detect/nano"], None):
        store_refine(tmp_path / "run", defaults=entry)
        capsys.readouterr()
        assert main(["refine", str(tmp_path / "run")]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "the run used refine.defaults, a name that Hydra reserves" in error
    assert main(["refine", str(tmp_path / "run"), "refine=default"]) == 0


def test_a_stored_configuration_that_is_none_is_one_line(label, tmp_path, capsys):
    label("run")
    before = records(tmp_path / "run")
    texts = ["a: &a [x, x]\nb: [*a, *a]\n", "[1, 2]", "a: [", "hallo", " ", "", "a: 1", "a: !!bool x", "refine: null", "refine: [a]", "!!set {a}"]  # fmt: skip
    for text in texts:
        with open_store(tmp_path / "run") as store:
            store.set_meta(config=text)
        capsys.readouterr()
        for arguments in ([], ["--cfg"]):
            assert main(["refine", str(tmp_path / "run"), *arguments]) == 1, text
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert f"{tmp_path / 'run'}: its stored configuration" in error
    assert records(tmp_path / "run") == before


@pytest.mark.parametrize("key", ["fingerprint", "part"])
def test_what_a_run_says_of_itself_is_read_before_anything_is_changed(key, label, tmp_path, capsys):
    label("run")
    before = records(tmp_path / "run")
    damaged = ["[]", "x", "5", "[" * 100_000] + (["{}", '{"number": Infinity}'] if key == "part" else [])
    for text in damaged:
        with open_store(tmp_path / "run") as store:
            store.set_meta(**{key: text})
        capsys.readouterr()
        assert main(["refine", str(tmp_path / "run"), "refine.area.min_px=60"]) == 1, text
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{tmp_path / 'run'}" in error
        assert key in error
        if len(text) < 10:
            assert label("run") == 1
            assert f"{tmp_path / 'run'}" in (error := capsys.readouterr().err.splitlines()[-1])
            assert key in error
    assert records(tmp_path / "run") == before


def test_what_a_run_says_of_itself_is_escaped(label, tmp_path, capsys):
    label("run")
    with open_store(tmp_path / "run") as store:
        fingerprint = {**json.loads(store.meta("fingerprint")), "unit_size": "1\x1b[31m"}
        store.set_meta(precision="A\x1b[31mB", fingerprint=json.dumps(fingerprint))
    capsys.readouterr()
    assert main(["refine", str(tmp_path / "run")]) == 0
    assert r"precision  A\x1b[31mB" in capsys.readouterr().out
    assert label("run") == 1
    assert r"unit_size: 1\x1b[31m ->" in capsys.readouterr().err


def test_a_value_that_is_set_anew_is_not_asked_for(label, tmp_path):
    label("run")
    store_refine(tmp_path / "run", area={"_target_": "autolabel.refine.area.AreaRefiner", "min_px": "${oc.env:HOME}",
                                         "max_px": None, "min_fraction": None, "max_fraction": None})  # fmt: skip
    assert main(["refine", str(tmp_path / "run")]) == 1
    assert main(["refine", str(tmp_path / "run"), "refine.area.min_px=60"]) == 0
    label("fresh", "refine.area.min_px=60")
    assert records(tmp_path / "run") == records(tmp_path / "fresh")


def test_a_class_of_ones_own_is_built_where_its_folder_is_given_again(label, tmp_path, capsys):
    folder = tmp_path / "configs" / "refine"
    folder.mkdir()
    OmegaConf.save({"mine": {"_target_": "tests.fakes.EverySecondRefiner", "first": 0}}, folder / "mine.yaml")
    label("run", "refine=mine")
    label("other", "refine=mine", "refine.mine.first=1")
    given = ["--config-dir", str(tmp_path / "configs")]
    capsys.readouterr()
    assert main(["refine", str(tmp_path / "run"), "refine.mine.first=1"]) == 1
    assert "'tests.fakes.EverySecondRefiner'" in capsys.readouterr().err
    assert main(["refine", str(tmp_path / "run"), "refine.mine.first=1", *given]) == 0
    assert records(tmp_path / "run") == records(tmp_path / "other")
    assert main(["refine", str(tmp_path / "run"), "refine.mine._target_=tests.fakes.EverySecondRefiner"]) == 0


def test_a_class_that_is_named_again_is_built(label, tmp_path):
    label("run", "+refine.mine={_target_: tests.fakes.EverySecondRefiner, first: 0}")
    label("other", "+refine.mine={_target_: tests.fakes.EverySecondRefiner, first: 1}")
    assert main(["refine", str(tmp_path / "run"), "refine.mine={first: 1}"]) == 1
    for sign in ("", "+"):
        again = f"{sign}refine.mine={{_target_: tests.fakes.EverySecondRefiner, first: 1}}"
        assert main(["refine", str(tmp_path / "run"), again]) == 0
        assert records(tmp_path / "run") == records(tmp_path / "other")
    assert main(["refine", str(tmp_path / "run"), "+refine.mine._target_=tests.fakes.EverySecondRefiner"]) == 0
    inner = "+refine.mine={_target_: tests.fakes.EverySecondRefiner, first: {_target_: numpy.load}}"
    store_refine(tmp_path / "run", mine={"_target_": "numpy.load", "more": {"_target_": "numpy.load"}})
    assert main(["refine", str(tmp_path / "run"), inner]) == 1


def test_a_setting_that_was_a_reference_is_kept_as_what_it_said(label, tmp_path):
    reference = "refine.area.min_px=${images.min_side}"
    label("run", reference, "images.min_side=3")
    assert "min_px: 3\n" in (tmp_path / "run" / "config.yaml").read_text("utf-8")
    assert main(["refine", str(tmp_path / "run")]) == 0
    assert label("run", reference, "images.min_side=3") == 0


# -- what is said on the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["refine.area=5"], "refine.area must be a section"),
        (["refine.area._target_=fractions.Fraction", "refine.area={}"], "refine.area"),
        (
            ["+refine.mine._target_=fractions.Fraction"],
            "refine.mine._target_ must name a class with a method refine()",
        ),
        (["~refine.nosuch"], "refine.nosuch"),
    ],
)
def test_what_is_no_refiner_is_one_line(arguments, said, label, tmp_path, capsys):
    label("run")
    capsys.readouterr()
    assert main(["refine", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("nothing", ["refine=[]", "~refine", "refine=none"])
def test_no_refiner_at_all_is_as_labelled_so(nothing, label, tmp_path):
    label("run")
    label("bare", nothing)
    assert main(["refine", str(tmp_path / "run"), nothing]) == 0
    assert records(tmp_path / "run") == records(tmp_path / "bare")
    assert label("run", "refine=none") == 0


def test_a_refiner_is_taken_out_with_a_tilde(label, tmp_path):
    label("run", "refine.area.min_px=60")
    label("without", "~refine.area")
    assert main(["refine", str(tmp_path / "run"), "~refine.area"]) == 0
    assert records(tmp_path / "run") == records(tmp_path / "without")
    assert label("run", "~refine.area") == 0


def test_a_value_is_taken_out_where_it_is_that_one(label, tmp_path, capsys):
    parts = ["refine.ownership.by=depth", "refine.ownership.part_of={cat: dog, owl: dog}"]
    label("run", *parts)
    capsys.readouterr()
    assert main(["refine", str(tmp_path / "run"), "~refine.ownership.part_of.owl=cat"]) == 1
    assert "is dog and not cat" in capsys.readouterr().err
    assert main(["refine", str(tmp_path / "run"), "~refine.ownership.part_of.owl=dog"]) == 0
    assert label("run", parts[0], "refine.ownership.part_of={cat: dog}") == 0


def test_a_run_is_named_however_hydra_lets_a_key_be_set(label, tmp_path, capsys):
    label("a")
    label("b")
    for sign in ("", "+", "++"):
        assert main(["refine", f"{sign}run={tmp_path / 'a'}"]) == 0
        capsys.readouterr()
        assert main(["refine", str(tmp_path / "a"), f"{sign}run={tmp_path / 'b'}"]) == 1
        assert "refine works on one run" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["refine", "refine.area.min_px=60"], ["export", "export=[coco]"], ["report"]])
def test_two_runs_at_once_are_refused(command, label, tmp_path, monkeypatch, capsys):
    label("a")
    label("b")
    monkeypatch.chdir(tmp_path)
    name, *settings = command
    before = {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}
    assert main([name, "a", "run=b", *settings]) == 1
    assert "copy it first" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()} == before
    assert main([name, "a", f"run={tmp_path / 'a'}", *settings]) == 0


def test_refining_what_is_not_all_labelled_is_complete_and_says_how_to_go_on(label, tmp_path, capsys):
    OmegaConf.save({"_target_": "tests.fakes.InterruptedDetector"}, tmp_path / "configs" / "detect" / "cut.yaml")
    label("run", "unit_size=3", "batch_size=3", "engine=inline", "detect=cut")
    capsys.readouterr()
    assert main(["refine", str(tmp_path / "run"), *STRICTER]) == 0
    text = capsys.readouterr().out
    assert "not labelled yet: autolabel label with the refine settings as they are now" in text
    assert "autolabel export" not in text
