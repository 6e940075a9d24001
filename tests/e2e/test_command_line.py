"""The command line against odd input: every mistake is one line and exit code 1, and harms no run."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app.main import main
from autolabel.app.run_directory import default_run
from autolabel.core.errors import ConfigError, StoreError
from tests.fakes import album, draw


@pytest.fixture
def label(tmp_path, monkeypatch):
    """`autolabel label` in a folder of its own, with detectors that need no model."""
    folder = tmp_path / "configs" / "detect"
    folder.mkdir(parents=True)
    for name, target in (("colour", "ColourDetector"), ("interrupted", "InterruptedDetector")):
        OmegaConf.save({"_target_": f"tests.fakes.{target}", "delay_s": 0.0}, folder / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)

    def call(*arguments, detect="colour"):
        own = ["--config-dir", str(tmp_path / "configs"), f"detect={detect}", "segment=box"]
        return main(["label", *map(str, arguments), *own])

    return call


def boxes(folder: Path) -> Path:
    """A COCO file of two pictures with one box each, and no mask."""
    images, annotations = [], []
    for number in (1, 2):
        draw(folder / f"{number}.png", {})
        images.append({"id": number, "file_name": f"{number}.png", "height": 40, "width": 60})
        box = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": number, **box})
    names = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return file


@pytest.mark.parametrize(
    "setting",
    ["unit_size=abc", "unit_size=true", "batch_size=0", "engine.workers=abc", "images=null", "images.min_side=no",
     "offline=no", "prompt=null", "refine=null", "export=null", "run=", "run=5", "run=[a,b]", "run=in"],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_and_does_not_spoil_the_run(setting, label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    assert label("in", *([] if setting.startswith("run=") else ["run=r"]), setting) == 1
    own = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("source: ")]
    assert len(own) == 1
    assert not (tmp_path / "run.sqlite").exists()
    assert label("in", "run=r") == 0


@pytest.mark.parametrize(
    "arguments",
    [["nowhere"], ["in", "detect.conf=1"], ["in", "refine.area.min_px=high"],
     ["in", "prompt=points", "prompt.file=nowhere.csv"]],
)  # fmt: skip
def test_a_command_that_fails_leaves_no_run_directory(arguments, label, tmp_path):
    album(tmp_path / "in", 1)
    assert label(*arguments, "run=runs/new") == 1
    assert not (tmp_path / "runs" / "new").exists()


def test_a_directory_that_was_there_or_holds_records_is_not_removed(label, tmp_path, monkeypatch):
    album(tmp_path / "in", 1)
    (tmp_path / "there").mkdir()
    assert label("nowhere", "run=there") == 1
    assert (tmp_path / "there").is_dir()

    def fails(*_, **__):
        raise StoreError("too late")

    monkeypatch.setattr("autolabel.app.label.summarise", fails)
    assert label("in", "run=new") == 1
    assert (tmp_path / "new" / "run.sqlite").is_file()


@pytest.mark.parametrize("run", ["läuft/ä", "out(1)", "a b", '"quoted"', "a=b", "back\\slash"])
def test_a_run_directory_may_be_called_almost_anything(run, label, tmp_path):
    album(tmp_path / "in", 1)
    assert label("in", f"run={run}") == 0
    assert (tmp_path / run.strip('"') / "run.sqlite").is_file()


def test_pictures_without_a_path_are_asked_for(label, capsys):
    assert label() == 1
    assert "which pictures?" in capsys.readouterr().err


def test_pictures_without_a_command_are_told_of_label(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    assert main(["my photos"]) == 1
    assert "did you mean autolabel label 'my photos'? (autolabel --help" in capsys.readouterr().err
    assert main(["lable"]) == 1
    assert "did you mean 'label'?" in capsys.readouterr().err


def test_what_a_run_exported_is_labelled_with_a_word(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label("in", "run=r", "export=[yolo]") == 0
    assert "run directory of autolabel" not in capsys.readouterr().err
    assert label("r/export/yolo", "run=again") == 0
    assert "/r of autolabel: labelling its exported pictures" in capsys.readouterr().err
    assert label("r", "run=other") == 1
    assert "export of autolabel: 1" in capsys.readouterr().err


def test_another_choice_is_refused_by_its_name(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label("in", "run=r") == 0
    capsys.readouterr()
    assert label("in", "run=r", "prompt=jitter", "labels.drop=[dog]") == 1
    told = [line for line in capsys.readouterr().err.splitlines() if " -> " in line]
    classes = "  classes: 1 cat, 2 dog, 3 owl -> 1 cat, 3 owl"
    assert told[1:] == ["  prompt: box -> jitter", classes, "  labels.drop: [] -> ['dog']"]


@pytest.mark.parametrize(
    ("command", "words"), [("label", "; what was committed is kept, the same command continues"), ("compare", "")]
)
def test_an_interrupted_command_says_what_is_kept(command, words, monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"autolabel.app.{command}.main", interrupted)
    assert main([command, "in"]) == 130
    assert capsys.readouterr().err == f"autolabel: stopped{words}\n"


@pytest.mark.parametrize(
    ("later", "code", "said"),
    [
        (AttributeError("'NoneType' object has no attribute 'x'"), 130, "stopped"),
        (ConfigError("settings cannot be read"), 130, "stopped"),
        (StoreError("the disk failed"), 1, "the disk failed"),
    ],
)
def test_an_error_of_the_cleaning_up_after_a_stop_is_a_stop_but_for_a_disk_that_fails(
    later, code, said, monkeypatch, capsys
):
    def interrupted(arguments):
        try:
            raise KeyboardInterrupt
        finally:
            raise later

    monkeypatch.setattr("autolabel.app.compare.main", interrupted)
    assert main(["compare", "in"]) == code
    assert capsys.readouterr().err == f"autolabel: {said}\n"


def test_a_run_among_the_pictures_is_not_labelled_itself(label, tmp_path, monkeypatch, capsys):
    album(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path / "in")
    assert label(".", "export=[coco,yolo,overlay]") == 0
    assert label(".", "export=[coco,yolo,overlay]") == 0
    out = capsys.readouterr().out
    assert "nothing to do" in out
    # The first time, too: the files that the run itself just began are none that a person could look for.
    assert [line for line in out.splitlines() if line.startswith("ignored")] == [
        "ignored    run directory of autolabel: 1"
    ] * 2


def test_another_folder_with_the_same_names_never_replaces_a_run(label, tmp_path, capsys):
    draw(tmp_path / "a/photos/1.png", {0: (2, 2, 20, 20)})
    draw(tmp_path / "b/photos/1.png", {1: (2, 2, 20, 20)})
    assert label("a/photos") == 0
    before = (tmp_path / "runs/photos/export/coco/instances.json").read_bytes()
    assert label("b/photos") == 1
    assert "a/photos" in capsys.readouterr().err
    assert (tmp_path / "runs/photos/export/coco/instances.json").read_bytes() == before


def test_folders_that_differ_after_a_dot_have_runs_of_their_own(tmp_path):
    for name in ("s.v1", "s.v2"):
        (tmp_path / name).mkdir()
    assert default_run(str(tmp_path / "s.v1")) != default_run(str(tmp_path / "s.v2"))
    assert default_run(str(tmp_path / "bccd" / "instances.json")) == Path("runs/bccd")


def test_a_folder_whose_name_is_not_utf8_is_labelled(label, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    draw(tmp_path / "in" / "1.png", {})
    (tmp_path / "in").rename(tmp_path / name)
    assert label(name) == 0
    assert label(name) == 0


def test_a_sweep_goes_on_after_a_value_that_cannot_be(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label("-m", "in", "prompt.pad=3,0.1", 'run="my sweep"') == 1
    assert "prompt.pad must be in [0, 1]" in capsys.readouterr().err
    assert (tmp_path / "my sweep" / "prompt.pad=0.1" / "summary.json").is_file()


@pytest.mark.parametrize("sign", ["", "++"])
def test_a_sweep_lies_where_it_is_told_however_that_is_written(sign, label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label("-m", "in", "prompt.pad=0.1", f"{sign}run=a,b") == 1
    assert "one directory holds all runs of a sweep" in capsys.readouterr().err
    assert label("-m", "in", "prompt.pad=0.1,0.2", "export=[]", f"{sign}run=sweep") == 0
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == ["prompt.pad=0.1", "prompt.pad=0.2"]


@pytest.mark.parametrize("sign", ["", "++"])
def test_the_report_of_the_demo_is_of_the_run_that_was_labelled(sign, label, tmp_path):
    own = ["--config-dir", str(tmp_path / "configs"), "detect=colour", "segment=box", "export=[]"]
    assert main(["demo", *own, "run=before", f'{sign}run="my demo"']) == 0
    assert [p.name for p in tmp_path.iterdir() if p.name != "configs"] == ["my demo"]
    assert (tmp_path / "my demo" / "report" / "index.html").is_file()


def test_a_stopped_sweep_starts_no_other_run(label, tmp_path):
    album(tmp_path / "in", 2)
    assert label("-m", "in", "prompt.pad=0.0,0.1", "run=sweep", detect="interrupted") == 130
    assert [p.name for p in (tmp_path / "sweep").iterdir()] == ["prompt.pad=0.0"]


def test_a_sweep_on_a_full_disk_starts_no_other_run(label, tmp_path, monkeypatch, capsys):
    album(tmp_path / "in", 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("autolabel.app.label.one_run", full)
    assert label("-m", "in", "prompt.pad=0.0,0.1", "run=sweep") == 3
    said = capsys.readouterr()
    assert said.err.count("No space left") == 1
    assert "the same command continues" in said.out


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
def test_a_summary_that_cannot_be_read_is_written_anew(content, label, tmp_path):
    album(tmp_path / "in", 2)
    assert label("in", "run=r", "export=[]") == 0
    summary = tmp_path / "r" / "summary.json"
    summary.write_text(content)
    assert label("in", "run=r", "export=[]") == 0
    assert json.loads(summary.read_text())["status"]


def test_a_run_stopped_at_its_last_picture_says_so_and_exports_later(label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    assert label("in", "run=r", "engine=inline", detect="interrupted") == 130
    assert "the same command continues" in capsys.readouterr().out
    assert not (tmp_path / "r" / "export").exists()
    assert label("in", "run=r", "engine=inline", detect="interrupted") == 0
    assert (tmp_path / "r" / "export" / "coco").is_dir()


def test_export_prints_its_configuration_and_writes_nothing(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label("in", "run=r", "export=[]") == 0
    assert main(["export", "r", "--cfg"]) == 0
    assert "segmentation: polygon" in capsys.readouterr().out
    assert not (tmp_path / "r" / "export").exists()
    assert main(["export", "r", "export=[]"]) == 1
    assert main(["export", "r", "-m"]) == 1


def test_export_leaves_a_folder_that_is_no_run_as_it_is(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    before = sorted(tmp_path.rglob("*"))
    assert main(["export", "in"]) == 1
    assert "not a run directory" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_offline_is_for_its_own_run_alone(label, tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOLABEL_OFFLINE", raising=False)
    album(tmp_path / "in", 1)
    assert label("in", "offline=true") == 0
    assert "AUTOLABEL_OFFLINE" not in os.environ


def test_the_log_says_what_a_run_did(label, tmp_path):
    album(tmp_path / "in", 2)
    label("in", "run=r")
    text = (tmp_path / "r" / "autolabel.log").read_text()
    assert "2 of 2 pictures to label" in text
    assert "pictures   2" in text


def test_the_python_interface_converts_boxes_that_exist(tmp_path):
    from autolabel import AutoLabeler
    from autolabel.core.errors import ConfigError

    file = boxes(tmp_path / "in")
    labeler = AutoLabeler.from_config(["detect=labels", "segment=box"])
    assert [result.classes for result in labeler.label(file)] == [("a",), ("b",)]
    with pytest.raises(ConfigError, match="needs a source with annotations"):
        list(labeler.label([tmp_path / "in" / "1.png"]))


ROOT = str(Path(__file__).resolve().parents[2])
LABEL = ["label", "in", "detect=labels", "segment=box", "export=[]", "run=r"]


@pytest.mark.parametrize("arguments", [["--help"], ["weights", "list"], LABEL])
def test_a_reader_that_leaves_is_no_error_of_ours(arguments, tmp_path):
    boxes(tmp_path / "in")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "autolabel.app.main", *arguments], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": ROOT}, stdout=writing, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0
    assert "BrokenPipe" not in done.stderr
    assert "label" not in arguments or (tmp_path / "r" / "summary.json").exists()


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_a_run_that_is_started_without_streams_is_a_run_like_any_other(closed, tmp_path):
    """What a library prints on descriptor 2 must not land in the database, which would else have that number."""
    boxes(tmp_path / "in")
    start = f"import os, sys; [os.close(n) for n in map(int, {closed.split()})]; os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "autolabel.app.main", *LABEL]
    done = subprocess.run(
        [sys.executable, "-c", start, *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert done.returncode == 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == {"ok": 2}


@pytest.mark.parametrize(("gentle", "code"), [(True, 0), (False, 130)])
def test_whoever_reads_stderr_may_be_stopped_by_the_same_ctrl_c(gentle, code):
    """Gently, it goes on to its end; else a main thread that is in C code is ended all the same."""
    program = f"""
import hashlib, os, signal, threading
from autolabel.app.stopping import stop_on_signals
with stop_on_signals() as stop:
    stop.gentle = {gentle}
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    if not stop.gentle:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
    while not stop.asked:
        signal.sigtimedwait([], 0.05)
"""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program], env=environment, stderr=writing, timeout=60)
    os.close(writing)
    assert done.returncode == code


def test_a_disk_error_is_one_line(label, tmp_path):
    album(tmp_path / "in", 1)
    assert label("in", "run=r") == 0
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from autolabel.app.main import main; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "sys.exit(main(['export', 'r', 'export=coco']))"
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_pictures_that_are_not_beside_their_labels_are_asked_for_by_the_setting(label, tmp_path, capsys):
    moved = tmp_path / "elsewhere" / boxes(tmp_path / "in").name
    moved.parent.mkdir()
    (tmp_path / "in" / "instances.json").rename(moved)
    assert label(moved, detect="labels") == 1
    assert "where are they? source.images_dir=FOLDER says so" in capsys.readouterr().err
    assert label(moved, "source.images_dir=in", detect="labels") == 0


def test_label_files_that_are_all_broken_are_named_as_the_reason(label, tmp_path, capsys):
    draw(tmp_path / "in" / "images" / "a.png", {})
    (tmp_path / "in" / "labels").mkdir()
    (tmp_path / "in" / "labels" / "a.txt").write_text("0 0.5 0.5\n")
    assert label("in", detect="labels") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 label file cannot be read" in error
    assert "a.txt" in error
