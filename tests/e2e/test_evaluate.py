"""`autolabel evaluate` as a person uses it: a run and a path, whatever kind of labels that is."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app import refine
from autolabel.app.main import main
from tests.fakes import album

ROOT = Path(__file__).resolve().parents[2]


FORMATS = ("coco", "yolo", "voc", "labelme", "cvat", "instance_png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A labelled run `run` with its exports, and a run `boxes` on the boxes of one of them."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "configs" / "detect"
    folder.mkdir(parents=True)
    OmegaConf.save({"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}, folder / "colour.yaml")
    album(home / "in", 8)
    label(home, "run", str(home / "in"), "detect=colour", f"export=[{','.join(FORMATS)}]")
    truth = home / "run" / "export" / "coco" / "instances.json"
    label(home, "boxes", str(truth), f"source.images_dir={home / 'in'}", "detect=labels",
          "detect.keep_masks=false", "export=[]")  # fmt: skip
    return home


def label(home, name, *settings):
    where = ["--config-dir", str(home / "configs"), f"run={home / name}"]
    assert main(["label", *settings, *where, "segment=box", "refine.quality=null"]) == 0


def document(run):
    return json.loads((run / "evaluate" / "evaluation.json").read_text())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_is_perfect_against_its_own_export_in_any_format(kind, home, capsys):
    run = home / "run"
    assert main(["evaluate", str(run), f"truth={run / 'export' / kind}"]) == 0
    found = document(run)
    assert found["objects"]["truth"] == found["objects"]["matched"] == found["objects"]["found"] > 5
    assert found["matched"]["mean_iou"] == pytest.approx(1)
    assert found["segm"]["AP"] == pytest.approx(1)
    assert "source: " in capsys.readouterr().err


def test_to_a_yolo_truth_a_picture_without_a_label_file_is_background(tmp_path, home):
    run = home / "run"
    truth = shutil.copytree(run / "export" / "yolo", tmp_path / "yolo")
    rows = sorted(truth.rglob("labels/train/**/*.txt"), key=lambda path: path.stat().st_size)
    assert not rows[0].stat().st_size
    rows[0].unlink()  # nothing is there, and nothing was found
    rows[-1].unlink()  # what was found there is wrong
    assert main(["evaluate", str(run), f"truth={truth}"]) == 0
    found = document(run)
    assert found["images"] == 8
    assert found["objects"]["found"] > found["objects"]["matched"] == found["objects"]["truth"] > 0


def hint(home, capsys, *settings):
    """What a command that cannot run says of the way out: one line."""
    assert main(["evaluate", str(home / "run"), *settings]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("source: ")]
    return line


def test_a_source_names_its_settings_as_those_of_the_truth(tmp_path, home, capsys):
    shutil.copy(home / "run" / "export" / "coco" / "instances.json", tmp_path / "source.kind")
    truth = f"truth={tmp_path / 'source.kind'}"
    said = hint(home, capsys, truth)
    assert "source.kind' is neither" in said, "a path stays as it is"
    assert "source@truth=coco, source@truth=label_studio" in said
    assert main(["evaluate", str(home / "run"), "source@truth=coco", truth]) == 0
    tasks = [{"id": 1, "annotations": [], "data": {"image": "/gone/a.jpg"}}]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks), "utf-8")
    assert "set truth.images_dir" in hint(home, capsys, f"truth={tmp_path / 'tasks.json'}")
    assert "truth.kind must be" in hint(home, capsys, "source@truth=png_masks", truth, "truth.kind=x")


def test_the_way_out_for_pictures_inside_parquet_files_is_one(tmp_path, home, capsys):
    pytest.importorskip("pyarrow")
    run = home / "run"
    assert main(["export", str(run), "export=[parquet]"]) == 0
    truth, place = f"truth={run / 'export' / 'parquet'}", tmp_path / "pictures"
    assert "say source@truth=parquet truth.extract_to=<folder>" in hint(home, capsys, truth)
    assert main(["evaluate", str(run), truth, "source@truth=parquet", f"truth.extract_to={place}"]) == 0
    assert document(run)["matched"]["mean_iou"] == pytest.approx(1)


def test_labels_that_the_truth_leaves_alone_are_named_with_a_setting_that_evaluate_takes(tmp_path, home, capsys):
    folder = shutil.copytree(home / "in", tmp_path / "in")
    (folder / "0" / "picture 000.txt").write_text("0 0.5 0.5 0.1 0.1\n", "utf-8")
    assert main(["evaluate", str(home / "run"), f"truth={folder}"]) == 1
    assert "if it holds YOLO labels, say source@truth=yolo" in capsys.readouterr().err


def test_both_files_are_there_and_agree_and_evaluating_again_gives_the_same_bytes(home):
    run = home / "run"
    folder = run / "evaluate"

    def evaluated():
        assert main(["evaluate", str(run), f"truth={run / 'export' / 'coco' / 'instances.json'}"]) == 0
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = evaluated()
    assert set(first) == {"evaluation.json", "objects.jsonl"}
    kinds = [json.loads(line)["kind"] for line in first["objects.jsonl"].splitlines()]
    assert kinds == ["matched"] * document(run)["objects"]["matched"]
    assert evaluated() == first


def test_a_run_on_true_boxes_is_recognised_and_put_beside_one_with_a_detector(home, capsys):
    run, oracle, truth = home / "few", home / "boxes", home / "run" / "export" / "coco"
    label(home, "few", str(home / "in"), "detect=colour", "export=[]", "refine.area.min_px=60")
    assert main(["evaluate", str(oracle), f"truth={truth / 'instances.json'}"]) == 0
    assert document(oracle)["matching"]["pairing"] == "annotation"
    assert document(oracle)["matched"]["mean_iou"] == pytest.approx(1)
    capsys.readouterr()
    assert main(["evaluate", str(run), f"truth={truth}", f"oracle={oracle}"]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.split()[:2] == ["mask", "AP"]]
    detector, with_truth = (float(v) for v in line.split()[-2:])
    assert detector < with_truth == 1
    for other, said in ((run, "detect=labels"), (home / "nope", "there is no run directory")):
        assert main(["evaluate", str(run), f"truth={truth}", f"oracle={other}"]) == 1
        shown = capsys.readouterr()
        assert said in shown.err
        assert not shown.out, "before anything is computed"


def test_settings_compose_and_are_shown(capsys):
    assert main(["evaluate", "--cfg", "truth=x.json", "iou=0.7", "classes={a: b, c: null}"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.truth.path, shown.iou, dict(shown.classes)) == ("x.json", 0.7, {"a": "b", "c": None})


def test_the_kind_of_truth_can_be_said(capsys):
    assert main(["evaluate", "--cfg", "source@truth=png_masks", "truth=x", "truth.kind=instance"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.truth.path, shown.truth.kind) == ("x", "instance")


def test_no_model_library_is_loaded(home):
    run = home / "run"
    program = (
        "import sys; from autolabel.app.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'ultralytics', 'sam2'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "evaluate", str(run), f"truth={run / 'export' / 'coco'}"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["nowhere", "truth=run/export/coco"], ["run"], ["run", "truth=missing.json"], ["run", "truth=in"],
     ["run", "truth=run/export/coco", "iou=2"], ["run", "truth=run/export/coco", "classes={red: x}"],
     ["run", "truth=run/export/coco", "score=quality"], ["-m", "run", "truth=run/export/coco"]],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_half_file(arguments, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(["evaluate", *arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("source: ")]
    assert len(lines) == 1
    assert not list((home / "run").glob("evaluate/.*"))


def test_calibrating_fits_a_quality_score_that_refine_takes(tmp_path, home):
    album(tmp_path / "in", 40)
    label(home, "many", str(tmp_path / "in"), "detect=colour", "export=[coco]")
    run = home / "many"
    truth = f"truth={run / 'export' / 'coco' / 'instances.json'}"
    assert main(["evaluate", str(run), truth, "--calibrate"]) == 0
    calibration = run / "evaluate" / "quality.json"
    again = calibration.read_bytes()
    assert main(["evaluate", str(run), truth, "--calibrate"]) == 0
    assert calibration.read_bytes() == again
    assert main(["refine", str(run), f"refine.quality.calibration={calibration}"]) == 0
    assert main(["evaluate", str(run), truth, "score=quality"]) == 0
    assert document(run)["ranking"]["quality"]["count"] == document(run)["objects"]["found"] >= 50


def test_too_few_objects_are_no_ground_for_a_calibration(home, capsys):
    run = home / "run"
    assert main(["evaluate", str(run), f"truth={run / 'export' / 'coco'}", "--calibrate"]) == 1
    printed = capsys.readouterr()
    assert "at least 50 found objects" in printed.err
    assert "written " in printed.out, "what was measured is shown all the same"


def test_labels_beside_a_file_that_only_names_them_are_part_of_what_the_truth_is(tmp_path, home):
    run = home / "run"
    truth = shutil.copytree(run / "export" / "yolo", tmp_path / "yolo")
    digests = []
    for _ in range(2):
        assert main(["evaluate", str(run), f"truth={truth / 'data.yaml'}", "pairing=iou"]) == 0
        digests.append(document(run)["truth_sha256"])
        labels = max(truth.rglob("labels/**/*.txt"), key=lambda path: path.stat().st_size)
        labels.write_text("".join(labels.read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")
    assert digests[0] != digests[1]


def test_a_flag_of_another_command_is_refused_with_its_name(capsys):
    assert main(["refine", "runs/a", "--calibrate"]) == 1
    assert "--calibrate belongs to evaluate" in capsys.readouterr().err


def test_an_evaluation_of_records_that_changed_is_set_aside(tmp_path, home, capsys):
    album(tmp_path / "in", 4)
    label(home, "changed", str(tmp_path / "in"), "detect=colour", "export=[coco]")
    run = home / "changed"
    assert main(["evaluate", str(run), f"truth={run / 'export' / 'coco'}"]) == 0
    assert main(["refine", str(run), "refine.quality=null"]) == 0
    assert (run / "evaluate" / "evaluation.json").exists(), "nothing changed"
    assert main(["refine", str(run), "refine.area.min_px=1000000"]) == 0
    assert "evaluate again" in capsys.readouterr().out
    assert sorted(p.name for p in (run / "evaluate").iterdir()) == [
        "evaluation.json.outdated", "objects.jsonl.outdated"
    ]  # fmt: skip


def test_an_evaluation_of_records_that_are_no_more_is_told_from_one_of_todays(tmp_path, home, capsys, monkeypatch):
    album(tmp_path / "in", 4)
    label(home, "stopped", str(tmp_path / "in"), "detect=colour", "export=[coco]")
    run = home / "stopped"
    assert main(["evaluate", str(run), f"truth={run / 'export' / 'coco'}"]) == 0
    shutil.copytree(run, home / "as_it_was")

    def stop(directory):
        raise KeyboardInterrupt

    monkeypatch.setattr(refine, "set_aside_evaluation", stop)
    with suppress(KeyboardInterrupt):
        main(["refine", str(run), "refine.area.min_px=1000000"])
    assert (run / "evaluate" / "evaluation.json").exists()
    capsys.readouterr()
    assert main(["compare", str(run), str(home / "as_it_was"), f"out={tmp_path / 'compared'}"]) == 0
    said = capsys.readouterr().out
    assert "stopped was evaluated before its records changed; evaluate it again." in said
    assert "Not evaluated against ground truth: stopped." in said
    assert main(["report", str(run)]) == 0
    assert "of records that changed since: evaluate again" in (run / "report" / "index.html").read_text("utf-8")


def test_an_evaluation_of_pictures_that_went_is_set_aside(tmp_path, home):
    folder = album(tmp_path / "in", 4)
    again = (home, "went", str(folder), "detect=colour", "export=[coco]")
    label(*again)
    run = home / "went"
    truth = shutil.copy(run / "export" / "coco" / "instances.json", tmp_path / "truth.json")
    assert main(["evaluate", str(run), f"truth={truth}", "truth.images_dir=" + str(folder)]) == 0
    label(*again)
    assert (run / "evaluate" / "evaluation.json").exists(), "nothing changed"
    next(folder.rglob("*.png")).unlink()
    label(*again)
    assert "evaluation.json.outdated" in [p.name for p in (run / "evaluate").iterdir()]


def truth_of(run, change):
    """The run's own export in COCO, changed."""
    path = run / "export" / "coco" / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    changed = path.with_name("changed.json")
    changed.write_text(json.dumps(content))
    return changed


def halved(content):
    for image in content["images"]:
        image["width"], image["height"] = image["width"] // 2, image["height"] // 2


def of_boxes_alone(content):
    for annotation in content["annotations"]:
        del annotation["segmentation"]


@pytest.mark.parametrize(
    ("change", "flags", "why"),
    [(halved, [], "no picture could be evaluated: the ground truth of 8 pictures cannot be used, the first: "),
     (of_boxes_alone, ["--calibrate"], "the ground truth has boxes and no masks, so quality cannot be fitted")],
    ids=["no picture fits", "no mask to fit to"],
)  # fmt: skip
def test_a_truth_that_says_nothing_is_refused_and_the_evaluation_stays(change, flags, why, tmp_path, home, capsys):
    run = shutil.copytree(home / "run", tmp_path / "run")
    shutil.rmtree(run / "evaluate", ignore_errors=True)
    changed = f"truth={truth_of(run, change)}"
    assert main(["evaluate", str(run), changed, *flags]) == 1
    assert not (run / "evaluate").exists()
    assert main(["evaluate", str(run), f"truth={run / 'export' / 'coco' / 'instances.json'}"]) == 0
    before = {path.name: path.read_bytes() for path in (run / "evaluate").iterdir()}
    capsys.readouterr()
    assert main(["evaluate", str(run), changed, *flags]) == 1
    error = capsys.readouterr().err
    assert why in error
    assert len([line for line in error.splitlines() if not line.startswith("source: ")]) == 1
    assert {path.name: path.read_bytes() for path in (run / "evaluate").iterdir()} == before


def test_a_run_that_is_not_labelled_yet_is_not_judged(tmp_path, home, capsys):
    run = shutil.copytree(home / "run", tmp_path / "run")
    truth = f"truth={run / 'export' / 'coco' / 'instances.json'}"
    database = sqlite3.connect(run / "run.sqlite")
    with database:
        database.execute("DELETE FROM record WHERE ordinal < 3")
    assert main(["evaluate", str(run), truth]) == 0
    notes = document(run)["notes"]
    assert "3 pictures of the run are not labelled yet and are not counted" in notes
    assert not any("not in the" in note for note in notes)
    with database:
        database.execute("DELETE FROM record")
    database.close()
    before = document(run)
    assert main(["evaluate", str(run), truth]) == 1
    assert "no picture could be evaluated: 8 pictures of the run are not labelled yet" in capsys.readouterr().err
    assert document(run) == before


def test_a_run_on_some_classes_of_the_true_boxes_is_recognised(home, tmp_path):
    truth = home / "run" / "export" / "coco" / "instances.json"
    names = [c["name"] for c in json.loads(truth.read_text())["categories"]]
    label(home, "some", str(truth), f"source.images_dir={home / 'in'}", "detect=labels", "detect.keep_masks=false",
          "export=[]", f"labels.keep=[{names[0]}]", f"labels.merge={{thing: [{names[0]}]}}")  # fmt: skip
    assert (
        main(
            ["evaluate", str(home / "some"), f"truth={truth}", f"classes={{{names[0]}: thing}}", "unknown=ignore"]
        )
        == 0
    )
    assert document(home / "some")["matching"]["pairing"] == "annotation"
