"""The command line as people use it: labelled, killed, continued, refused. No model: the stages are fakes."""

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import autolabel
from autolabel.app.compose import compose, plain
from autolabel.app.main import main
from autolabel.core.errors import ConfigError, ExportError, SourceError, StoreBusy
from autolabel.core.types import Category
from autolabel.export import atomic, pictures
from autolabel.store import looks
from autolabel.store.lock import exclusive
from autolabel.store.run import open_reader
from tests.fakes import album, draw

COUNT = 160
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def configs(tmp_path):
    """A person's own configuration folder: `detect=colour` is a detector of theirs."""
    folder = tmp_path / "my configs"
    (folder / "detect").mkdir(parents=True)
    for name, delay in (("colour", 0.0), ("slow", 0.01)):
        node = {"_target_": "tests.fakes.ColourDetector", "delay_s": delay}
        OmegaConf.save(OmegaConf.create(node), folder / "detect" / f"{name}.yaml")
    return str(folder)


@pytest.fixture
def label(configs, tmp_path):
    def call(source, *settings, run="run", detect="colour"):
        return main(
            ["label", str(source), "--config-dir", configs, f"detect={detect}", "segment=box",
             f'run="{tmp_path / run}"', "unit_size=4", "batch_size=2", *settings]
        )  # fmt: skip

    return call


def tree(folder: Path) -> dict[str, str]:
    """Every file below `folder` and the hash of its bytes; links by where they point."""
    return {
        os.fsdecode(os.path.relpath(p, folder)): (
            str(p.readlink()) if p.is_symlink() else hashlib.sha256(p.read_bytes()).hexdigest()
        )
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


def test_one_command_labels_exports_and_accounts_for_everything(label, tmp_path, capsys):
    album(tmp_path / "in", 11)
    assert label(tmp_path / "in") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == {"empty": 3, "ok": 8}
    assert sum(summary["instances"].values()) == 15
    coco = json.loads((tmp_path / "run/export/coco/instances.json").read_text())
    assert len(coco["images"]) == 11
    assert len(coco["annotations"]) == 15
    assert (tmp_path / "run/export/yolo/data.yaml").is_file()
    out = capsys.readouterr().out
    assert "pictures   11: 3 empty, 8 ok" in out
    assert "next" in out


def png_that_claims(width: int, height: int) -> bytes:
    """Whole chunks and hardly a pixel: decoding it would ask for width x height x 3 bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 99)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_inputs_are_untouched(label, tmp_path):
    album(tmp_path / "in", 5)
    before = tree(tmp_path / "in")
    label(tmp_path / "in")
    assert tree(tmp_path / "in") == before


def test_a_second_run_computes_nothing_and_changes_no_export(label, tmp_path, capsys):
    album(tmp_path / "in", 5)
    label(tmp_path / "in")
    before = tree(tmp_path / "run" / "export")
    assert label(tmp_path / "in") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert tree(tmp_path / "run" / "export") == before


def test_a_picture_that_is_taken_out_leaves_the_exports_until_it_is_back(label, tmp_path, capsys):
    album(tmp_path / "in", 6)
    label(tmp_path / "in")
    before = tree(tmp_path / "run" / "export")
    out = (tmp_path / "in" / "1" / "picture 001.png").rename(tmp_path / "out.png")
    capsys.readouterr()
    assert label(tmp_path / "in") == 0
    shown = capsys.readouterr().out
    assert "pictures   5: " in shown
    assert "1 picture is no longer in the source" in shown
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["vanished"] == 1
    coco = json.loads((tmp_path / "run/export/coco/instances.json").read_text())
    assert not [image for image in coco["images"] if "001" in image["file_name"]]
    assert not [name for name in tree(tmp_path / "run" / "export" / "yolo") if "001" in name]
    out.rename(tmp_path / "in" / "1" / "picture 001.png")
    assert label(tmp_path / "in") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert tree(tmp_path / "run" / "export") == before


def test_bad_files_get_one_failed_record_each_and_exit_code_2(label, tmp_path, capsys):
    folder = album(tmp_path / "in", 6)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.png").write_text("<html>")
    (folder / "new\nline ü.png").write_bytes((folder / "1" / "picture 001.png").read_bytes())
    (folder / "huge.png").write_bytes(png_that_claims(100_000, 100_000))
    assert label(folder) == 2
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert sum(summary["status"].values()) == 10
    assert sorted(f["image_id"] for f in summary["failures"]) == ["empty.jpg", "huge.png", "page.png"]
    out = capsys.readouterr().out
    assert out.count("failed     ") == 3
    assert "huge.png: too_large" in out


def test_the_same_name_in_two_folders_never_collides(label, tmp_path):
    for folder, channel in (("a", 0), ("b", 1)):
        draw(tmp_path / "in" / folder / "0.png", {channel: (2, 2, 20, 20)})
    label(tmp_path / "in")
    coco = json.loads((tmp_path / "run/export/coco/instances.json").read_text())
    names = {i["id"]: i["file_name"] for i in coco["images"]}
    assert {names[a["image_id"]]: a["category_id"] for a in coco["annotations"]} == {"a/0.png": 1, "b/0.png": 2}
    assert len([p for p in (tmp_path / "run/export/yolo/labels").rglob("*.txt") if p.read_text()]) == 2


def test_other_settings_are_refused_with_the_difference(label, tmp_path, capsys):
    album(tmp_path / "in", 3)
    label(tmp_path / "in")
    assert label(tmp_path / "in", "prompt.pad=0.1") == 1
    error = capsys.readouterr().err
    assert "prompt.pad: 0.0 -> 0.1" in error
    assert "run=" in error


def test_another_engine_continues_the_run(label, tmp_path):
    album(tmp_path / "in", 3)
    assert label(tmp_path / "in", "engine=inline") == 0
    assert label(tmp_path / "in", "engine=threaded") == 0


def test_engines_write_equal_files(label, tmp_path):
    album(tmp_path / "in", 9)
    label(tmp_path / "in", "engine=inline", run="a")
    label(tmp_path / "in", "engine=threaded", run="b")
    assert tree(tmp_path / "a" / "export") == tree(tmp_path / "b" / "export")


def test_export_says_by_its_exit_code_that_pictures_are_missing(label, tmp_path):
    album(tmp_path / "in", 2)
    label(tmp_path / "in")
    command = ["export", str(tmp_path / "run"), "export=[yolo]"]
    assert main(command) == 0
    next((tmp_path / "in").rglob("*.*")).write_bytes(b"another picture")
    assert main(command) == 2
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    assert label(tmp_path / "in") == 2
    assert main(["export", str(tmp_path / "run"), "export=[coco]"]) == 2


def test_pictures_that_changed_places_with_equal_size_and_time_are_labelled_again_and_none_is_lost_in_silence(
    label, tmp_path, monkeypatch, capsys
):
    names = ["0.bmp", "1.bmp", "2.bmp"]
    for i, name in enumerate(names):
        drawn = draw(tmp_path / "drawn" / f"{i}.png", {0: (10 * i + 4, 4, 10 * i + 12, 20)})
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.open(drawn).save(tmp_path / "in" / name)
        os.utime(tmp_path / "in" / name, (1.6e9, 1.6e9))
    assert label(tmp_path / "in") == 0
    first, last = tmp_path / "in" / "0.bmp", tmp_path / "in" / "2.bmp"
    first.rename(tmp_path / "t")
    last.rename(first)
    (tmp_path / "t").rename(last)
    with monkeypatch.context() as now:
        now.setattr(looks, "_sha256", lambda path: None)  # cannot be read as it begins
        assert label(tmp_path / "in") == 2
        assert "2 pictures changed since they were labelled and are left out" in capsys.readouterr().out
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["exit_code"] == 2
    assert label(tmp_path / "in") == 0
    assert label(tmp_path / "in", run="fresh") == 0
    assert tree(tmp_path / "run" / "export") == tree(tmp_path / "fresh" / "export")


def test_formats_that_are_not_named_this_time_are_said_to_be_outdated(label, tmp_path, capsys):
    album(tmp_path / "in", 6)
    assert label(tmp_path / "in", "export=[coco,yolo]") == 0
    assert label(tmp_path / "in", "export=[coco]") == 0
    assert "outdated" not in capsys.readouterr().out
    next((tmp_path / "in").rglob("*.png")).unlink()
    assert label(tmp_path / "in", "export=[coco]") == 0
    command = f"autolabel export {tmp_path / 'run'} export=yolo"
    assert f"outdated   {tmp_path / 'run'}/export/yolo: written from other records; again: {command}\n" in (
        capsys.readouterr().out
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["outdated"] == ["yolo"]
    assert main(command.split()[1:]) == 0
    assert label(tmp_path / "in", "export=[coco]") == 0
    assert "outdated" not in capsys.readouterr().out


def test_a_format_that_cannot_be_written_stops_no_other_and_not_the_summary(label, tmp_path, capsys):
    album(tmp_path / "in", 3)
    run = tmp_path / "run"
    (run / "export" / "voc").mkdir(parents=True)
    (run / "export" / "voc" / "mine.txt").write_text("somebody's own")
    assert label(tmp_path / "in", "export=[voc,coco]") == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed ")]
    assert line.startswith(f"failed     export=voc: {run}/export/voc holds files that autolabel did not export;")
    assert line.endswith(f"(all labels are safe in {run})")
    summary = json.loads((run / "summary.json").read_text())
    assert (list(summary["exports"]), list(summary["unwritten"]), summary["exit_code"]) == (["coco"], ["voc"], 2)
    assert (run / "export" / "coco" / "instances.json").is_file()
    assert line in (run / "autolabel.log").read_text()
    assert main(["export", str(run), "export=[voc]"]) == 1
    assert main(["export", str(run), "export=[voc,yolo]"]) == 2
    assert capsys.readouterr().err.count("export=voc: ") == 1
    assert (run / "export" / "yolo" / "data.yaml").is_file()
    (run / "export" / "voc" / "mine.txt").unlink()
    assert label(tmp_path / "in", "export=[voc,coco]") == 0


class BadExporter:
    """Raises what it is told, or gives no report."""

    def __init__(self, *, error: str) -> None:
        self._error = error

    def export(self, run, directory):
        if self._error:
            raise {"value": ValueError, "assert": AssertionError, "memory": MemoryError}[self._error]("midway")

    def read_back(self, run, directory):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("value", "ValueError: midway (export=mine alone with --debug shows where)"),
        ("assert", "AssertionError: midway (export=mine alone with --debug shows where)"),
        ("memory", "MemoryError: midway (export=mine alone with --debug shows where)"),
        ("", "its export() must return an ExportReport, got a NoneType"),
    ],
)
def test_an_exporter_of_ones_own_that_raises_anything_stops_no_other_and_not_the_summary(
    error, words, label, configs, tmp_path, capsys
):
    album(tmp_path / "in", 1)
    run = tmp_path / "run"
    mine = Path(configs) / "export" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text(json.dumps({"mine": {"_target_": f"{__name__}.BadExporter", "error": error}}))
    assert label(tmp_path / "in", "export=[mine,coco]") == 2
    assert (
        f"failed     export=mine: {words} (all labels are safe in {run})" in capsys.readouterr().out.splitlines()
    )
    assert list(json.loads((run / "summary.json").read_text())["exports"]) == ["coco"]
    assert "Traceback" in (run / "autolabel.log").read_text()
    own = ["--config-dir", configs]
    assert main(["export", str(run), "export=[mine,yolo]", *own]) == 2
    assert capsys.readouterr().err == f"autolabel: export=mine: {words}\n"
    assert (run / "export" / "yolo" / "data.yaml").is_file()
    assert main(["export", str(run), "export=mine", *own]) == 1
    assert capsys.readouterr().err == f"autolabel: {words}\n"
    with pytest.raises(ExportError):
        main(["export", str(run), "export=mine", "--debug", *own])


@pytest.mark.parametrize(("name", "most"), [("voc", 254), ("semantic_png", 254)])
def test_a_format_that_cannot_hold_the_classes_is_said_before_anything_is_labelled(
    label, tmp_path, capsys, name, most
):
    album(tmp_path / "in", 1)
    for count, code in ((most, 0), (most + 1, 1)):
        classes = [{"id": number + 1, "name": f"class {number}"} for number in range(count)]
        images = [{"id": 1, "file_name": "0/picture 000.png", "width": 64, "height": 48}]
        labels = tmp_path / f"{count}.json"
        labels.write_text(json.dumps({"images": images, "annotations": [], "categories": classes}))
        settings = [f"source.images_dir={tmp_path / 'in'}", f"export=[coco,{name}]"]
        assert label(labels, *settings, run=f"run {count}", detect="labels") == code
    assert f"{name} numbers hold".lower() in capsys.readouterr().err.splitlines()[-1].lower()
    assert not (tmp_path / f"run {most + 1}").exists()


def test_a_disk_that_is_full_while_exporting_has_its_own_exit_code(label, tmp_path, monkeypatch, capsys):
    album(tmp_path / "in", 3)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "_sync_tree", full)
    assert label(tmp_path / "in") == 3
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(pictures.Draft, "copy", full)  # which the exporters put into words of their own
    assert main(["export", str(tmp_path / "run"), "export=[yolo,coco]"]) == 3


def test_pictures_that_are_not_labelled_yet_are_missing_too(label, tmp_path, capsys):
    album(tmp_path / "in", 3)
    label(tmp_path / "in")
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as database:  # as a run that was killed leaves it
        database.execute("DELETE FROM record WHERE ordinal = 1")
    database.close()
    assert main(["export", str(tmp_path / "run"), "export=[coco,yolo]"]) == 2
    assert "1 picture of" in capsys.readouterr().err


def test_verifying_needs_no_right_to_write_and_leaves_nothing_behind(label, tmp_path, monkeypatch, capsys):
    album(tmp_path / "in", 3)
    label(tmp_path / "in")
    (tmp_path / "run" / ".lock").unlink()
    before, opened = tree(tmp_path), os.open

    def reading(path, flags, *mode, **more):  # root may write anything
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and Path(os.fsdecode(path)).is_relative_to(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", reading)
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), "export=[coco]", "--verify"]) == 0
    assert "verified" in capsys.readouterr().out
    for command in (["export", str(tmp_path / "run"), "export=[coco]"], ["report", str(tmp_path / "run")]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "run cannot be written" in error
    assert tree(tmp_path) == before


def test_export_needs_no_model_and_equals_the_first(label, tmp_path):
    album(tmp_path / "in", 5)
    label(tmp_path / "in")
    before = tree(tmp_path / "run" / "export" / "coco")
    shutil.rmtree(tmp_path / "run" / "export")
    program = (
        "import sys; from autolabel.app.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'ultralytics', 'sam2'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "export", str(tmp_path / "run"), "export=[coco]"], cwd=ROOT
    )
    assert done.returncode == 0
    assert tree(tmp_path / "run" / "export" / "coco") == before


@pytest.mark.parametrize("source", ["in", "in/**/*.png"])
def test_a_run_that_noted_relative_paths_goes_on_and_is_exported_from_anywhere(
    source, label, tmp_path, monkeypatch, capsys
):
    album(tmp_path / "in", 5)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as old:  # as early versions noted them
        old.setattr("autolabel.source.folder.absolute", lambda place: place)
        old.setattr("autolabel.source.glob.absolute", lambda place: place)
        assert label(source) == 0
    with open_reader(tmp_path / "run") as reader:
        before = list(reader.records())
        assert {os.path.isabs(record.path) for record in before} == {False}  # noqa: PTH117
    draw(tmp_path / "in" / "new.png", {0: (2, 2, 20, 20)})
    capsys.readouterr()
    assert label(source) == 0
    assert "(1 in " in capsys.readouterr().out
    with open_reader(tmp_path / "run") as reader:
        after = list(reader.records())
    assert [r.image_id for r in after] == [r.image_id for r in before] + ["new.png"]
    assert [r.candidates for r in after[:5]] == [r.candidates for r in before]
    monkeypatch.chdir("/")
    assert main(["export", str(tmp_path / "run"), "export=[yolo]"]) == 0
    assert len(list((tmp_path / "run/export/yolo/images").rglob("*.png"))) == 6


def test_a_sweep_makes_one_run_for_each_value(configs, tmp_path):
    album(tmp_path / "in", 3)
    code = main(
        ["label", "-m", str(tmp_path / "in"), "--config-dir", configs, "detect=colour", "segment=box",
         "prompt.pad=0.0,0.2", f"run={tmp_path / 'sweep'}"]
    )  # fmt: skip
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == ["prompt.pad=0.0", "prompt.pad=0.2"]


def command(configs, tmp_path, run):
    return [
        sys.executable, "-m", "autolabel.app.main", "label", str(tmp_path / "in"), "--config-dir", configs,
        "detect=slow", "segment=box", f'run="{tmp_path / run}"', "unit_size=4", "batch_size=2",
    ]  # fmt: skip


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("kills", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_continued_gives_the_same_exports(kills, configs, tmp_path):
    album(tmp_path / "in", COUNT)
    assert (
        subprocess.run(command(configs, tmp_path, "whole"), env=environment(), capture_output=True).returncode == 0
    )
    dice = random.Random(0)
    for number in range(kills):
        process = subprocess.Popen(
            command(configs, tmp_path, "killed"),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if number % 2:  # while units are committed, else at any moment of the start
            await_progress(tmp_path / "killed", process)
        time.sleep(dice.uniform(0, 0.1 if number % 2 else 1.5))
        assert process.poll() is None, "it ended before it was killed: the test proves nothing"
        process.kill()
        process.wait()
    assert 0 < committed(tmp_path / "killed") < COUNT
    assert (
        subprocess.run(command(configs, tmp_path, "killed"), env=environment(), capture_output=True).returncode
        == 0
    )
    assert tree(tmp_path / "killed" / "export") == tree(tmp_path / "whole" / "export")
    with open_reader(tmp_path / "killed") as reader:
        assert sum(reader.counts().values()) == COUNT
        assert len({r.image_id for r in reader.records()}) == COUNT


def test_sigterm_commits_what_is_in_hand_and_says_how_to_go_on(configs, tmp_path):
    album(tmp_path / "in", 400)
    process = subprocess.Popen(
        command(configs, tmp_path, "run"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    await_progress(tmp_path / "run", process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "the same command continues" in out
    assert 0 < committed(tmp_path / "run") < 400


def await_progress(run: Path, process: subprocess.Popen) -> None:
    """Until the process has committed a unit."""
    before = committed(run)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and committed(run) == before:
        time.sleep(0.02)


def committed(run: Path) -> int:
    try:
        with open_reader(run) as reader:
            counts = reader.counts()
    except Exception:  # noqa: BLE001 - not created yet
        return 0
    return sum(n for status, n in counts.items() if status != "pending")


def test_a_second_process_on_the_same_run_is_refused(configs, tmp_path, label, capsys):
    album(tmp_path / "in", 200)
    process = subprocess.Popen(
        command(configs, tmp_path, "run"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await_progress(tmp_path / "run", process)
    assert label(tmp_path / "in", detect="slow") == 1
    assert f"process {process.pid}" in capsys.readouterr().err
    process.kill()
    process.communicate()


def test_no_picture_is_a_clear_error(label, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing here")
    assert label(tmp_path / "in") == 1
    error = capsys.readouterr().err
    assert "nothing to label" in error or "no picture" in error
    assert "txt" in error


@pytest.mark.parametrize("source", ["/does/not/exist", "https://example.com/photos"])
def test_a_source_that_is_not_there_is_one_clear_line(source, label, capsys):
    assert label(source) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert source in error


def test_a_run_that_cannot_be_written_is_refused_before_any_model(tmp_path, configs, capsys):
    album(tmp_path / "in", 1)
    (tmp_path / "file").write_text("in the way")
    code = main(
        ["label", str(tmp_path / "in"), "--config-dir", configs, "detect=colour", f"run={tmp_path / 'file/run'}"]
    )
    assert code == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_python_interface_gives_masks_boxes_and_classes(configs, tmp_path):
    from autolabel import AutoLabeler

    draw(tmp_path / "in" / "a.png", {0: (2, 3, 12, 9), 1: (30, 3, 40, 9)})
    draw(tmp_path / "in" / "b.png", {})
    labeler = AutoLabeler.from_config(["detect=colour", "segment=box"], config_dir=configs)
    two, none = labeler.label(tmp_path / "in")
    assert two.masks.shape == (2, 40, 60)
    assert two.masks.sum(axis=(1, 2)).tolist() == [60, 60]
    assert two.classes == ("cat", "dog")
    np.testing.assert_array_equal(two.boxes[0], [2, 3, 12, 9])
    assert none.masks.shape == (0, 40, 60)
    assert none.boxes.shape == none.detection_boxes.shape == (0, 4)
    two.save(tmp_path / "out", ["coco"])
    assert json.loads((tmp_path / "out/coco/instances.json").read_text())["annotations"]
    (single,) = labeler.label([tmp_path / "in" / "a.png"])
    assert single.record.image_id == "a.png"


@pytest.fixture
def results(configs, tmp_path):
    """Of two pictures, and of another one that has the name of the first."""
    from autolabel import AutoLabeler

    labeler = AutoLabeler.from_config(["detect=colour", "segment=box"], config_dir=configs)
    for name in ("in/a.png", "in/b.png", "other/a.png"):
        draw(tmp_path / name, {0: (2, 3, 12, 9)})
    return [*labeler.label(tmp_path / "in"), *labeler.label(tmp_path / "other")]


def saved_names(folder):
    return [image["file_name"] for image in json.loads((folder / "coco" / "instances.json").read_text())["images"]]


def test_saving_a_picture_never_replaces_labels_of_another(results, tmp_path):
    first, second, namesake = results
    for _ in range(2):
        first.save(tmp_path / "out", ["coco"])
    for other in (second, namesake):
        with pytest.raises(ExportError, match=r"holds the labels of a.png.*autolabel.save\(results, directory\)"):
            other.save(tmp_path / "out", ["yolo", "coco"])
    assert saved_names(tmp_path / "out") == ["a.png"]
    assert not (tmp_path / "out" / "yolo").exists(), "all or nothing"


def test_several_pictures_are_saved_as_one_data_set_and_none_is_lost_later(results, tmp_path):
    first, second, _ = results
    first.save(tmp_path / "out", ["coco"])
    reports = autolabel.save([first, second], tmp_path / "out", ["coco"])
    assert reports["coco"].images == 2
    with pytest.raises(ExportError, match=r"holds the labels of b.png, and they would be lost"):
        first.save(tmp_path / "out", ["coco"])
    assert saved_names(tmp_path / "out") == ["a.png", "b.png"]


def test_formats_are_saved_with_settings_and_with_exporters_of_ones_own(results, configs, tmp_path):
    (Path(configs) / "export").mkdir()
    mine = {"_target_": "autolabel.export.coco_results.CocoResultsExporter"}
    mine |= plain(compose("export", ["export=coco_results"]))["export"]["coco_results"]
    (Path(configs) / "export" / "mine.yaml").write_text(json.dumps({"mine": mine}))
    first, second, _ = results
    settings = ["export.yolo.val_fraction=0", "export.yolo.test_fraction=1"]
    reports = autolabel.save([first, second], tmp_path, ["mine", "yolo"], overrides=settings, config_dir=configs)
    assert list(reports) == ["mine", "yolo"]
    assert sorted(p.name for p in (tmp_path / "yolo" / "images" / "test").iterdir()) == ["a.png", "b.png"]
    first.save(tmp_path / "one", ["mine"], config_dir=configs)
    first.save(os.fsencode(tmp_path / "two"), ["yolo"], overrides=settings)
    assert (tmp_path / "one" / "mine").is_dir()
    assert (tmp_path / "two" / "yolo" / "images" / "test" / "a.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"formats": []}, "formats names none"),
        ({"formats": ["mine"]}, "export has no choice 'mine'"),
        ({"overrides": "export.yolo.seed=1"}, "overrides must be a list of texts"),
        (
            {"overrides": ["run=x"]},
            "'run=x': save takes settings of formats alone, such as export.yolo.val_fraction=0",
        ),
        ({"overrides": ["export=[voc]"]}, "save takes settings of formats alone"),
        ({"overrides": ["export.yolo.sead=1"]}, "export.yolo has no 'sead'|did you mean"),
        ({"directory": 3}, "directory must be a path, got a int"),
        ({"results": None}, "save takes what label gives, got a NoneType"),
    ],
)
def test_arguments_of_save_that_cannot_be_are_one_clear_line(arguments, said, results, tmp_path):
    with pytest.raises(ConfigError, match=said):
        autolabel.save(**{"results": results[:1], "directory": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [("experiment=offline", r"^overrides must be a list of texts such as \["), (None, "overrides must be a list"),
     ({"experiment": "offline"}, "overrides must be a list"), ([1], r"overrides must be a list .*, got \[1\]"),
     (["experiment=offline", "in/"], "'in/' is not a setting; settings are KEY=VALUE")],
)  # fmt: skip
def test_settings_that_are_none_are_one_clear_line_from_python(overrides, said):
    with pytest.raises(ConfigError, match=said):
        autolabel.AutoLabeler.from_config(overrides)
    with pytest.raises(ConfigError, match="an AutoLabeler is made with"):
        autolabel.AutoLabeler(1, (), OmegaConf.create())


def test_pictures_that_are_no_paths_are_one_clear_line_from_python(configs, tmp_path):
    labeler = autolabel.AutoLabeler.from_config(["detect=colour", "segment=box"], config_dir=configs)
    array = np.zeros((9, 9, 3), np.uint8)
    for given, kind in (
        (array, "ndarray"),
        ([array], "ndarray"),
        (Image.fromarray(array), "Image"),
        (3, "int"),
        (np.array("a.jpg"), "ndarray"),
    ):
        with pytest.raises(
            ConfigError, match=f"label takes a path or a list of paths, got a {kind}; write pictures"
        ):
            labeler.label(given)
    with pytest.raises(SourceError, match="no pictures were given"):
        list(labeler.label([]))
    with pytest.raises(ConfigError, match=r"/x/b\.png was given twice"):
        list(labeler.label(["/x/a.png", "/x/b.png", "/x/b.png"]))
    with pytest.raises(ConfigError, match="an address is given alone"):
        list(labeler.label(["s3://bucket/a.png"]))


def test_a_file_system_without_locks_holds_exports(results, tmp_path, monkeypatch):
    def flock(descriptor, kind):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    results[0].save(tmp_path / "out", ["coco"])
    assert saved_names(tmp_path / "out") == ["a.png"]


def test_what_cannot_be_saved_is_one_clear_line(results, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"formats must be a list of texts such as .*, got 'coco'"):
        autolabel.save(results[:1], out, "coco")
    with pytest.raises(ConfigError, match=r"\[result\] for one"):
        autolabel.save(results[0], out)
    with pytest.raises(ConfigError, match="what label gives, got a str"):
        autolabel.save(["a.png"], out)
    with pytest.raises(ConfigError, match="no result to save"):
        autolabel.save([], out)
    assert not out.exists()
    out.mkdir()
    with exclusive(out), pytest.raises(StoreBusy, match=f"{out} is in use by process {os.getpid()}"):
        autolabel.save(results[:1], out)
    assert [path.name for path in out.iterdir()] == [".lock"]
    shutil.rmtree(out)
    out.write_text("")
    for place in (out, out / "below"):
        with pytest.raises(ConfigError, match="there is a file of this name"):
            autolabel.save(results[:1], place)


def test_pictures_of_one_name_are_not_one_data_set(results, tmp_path):
    first, second, namesake = results
    paths = rf"called 'a.png': {first.record.path} and {namesake.record.path};"
    with pytest.raises(ExportError, match=paths) as caught:
        autolabel.save([first, second, namesake], tmp_path / "out", ["coco"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pictures_of_different_classes_are_not_one_data_set(results, tmp_path):
    first, second, _ = results
    other = replace(second, categories=(Category(1, "boat"),))
    with pytest.raises(
        ExportError, match=r"a.png has 1 cat, 2 dog, 3 owl; b.png has 1 boat; save them apart"
    ) as caught:
        autolabel.save([first, other], tmp_path / "out", ["coco"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pictures_of_several_folders_are_one_data_set_when_they_are_labelled_together(configs, tmp_path):
    labeler = autolabel.AutoLabeler.from_config(["detect=colour", "segment=box"], config_dir=configs)
    pictures = [draw(tmp_path / name, {0: (2, 3, 12, 9)}) for name in ("in/a.png", "other/a.png")]
    autolabel.save(labeler.label(pictures), tmp_path / "out", ["coco"])
    assert saved_names(tmp_path / "out") == ["in/a.png", "other/a.png"]


def test_an_export_whose_pictures_are_not_known_is_not_replaced(results, tmp_path):
    first, second, _ = results
    first.save(tmp_path / "out", ["coco"])
    second.save(tmp_path / "elsewhere", ["coco"])
    (tmp_path / "out" / "coco").rename(tmp_path / "aside")
    (tmp_path / "elsewhere" / "coco").rename(tmp_path / "out" / "coco")
    with pytest.raises(
        ExportError, match=r"out/coco holds an export that does not say whose labels .*; delete it if nobody"
    ):
        first.save(tmp_path / "out", ["coco"])
    assert saved_names(tmp_path / "out") == ["b.png"]
    shutil.rmtree(tmp_path / "out" / "coco")
    first.save(tmp_path / "out", ["coco"])
    assert saved_names(tmp_path / "out") == ["a.png"]


def label_me(picture: Path) -> None:
    box = {
        "label": "block",
        "points": [[4, 4], [20, 20]],
        "shape_type": "rectangle",
        "flags": {},
        "group_id": None,
    }
    said = {"shapes": [box], "imagePath": picture.name, "imageData": None, "imageHeight": 30, "imageWidth": 40}
    picture.with_suffix(".json").write_text(json.dumps(said))


def test_what_nobody_labelled_is_no_picture_without_objects(label, tmp_path, capsys):
    source, export = tmp_path / "half", tmp_path / "run" / "export"
    source.mkdir()
    for name in ("a", "b", "c"):
        draw(source / f"{name}.png", {}, (30, 40))
    label_me(source / "a.png")
    assert label(source, "export=[coco,yolo]", detect="labels") == 0
    assert "skipped    2 pictures have no labels in the source" in capsys.readouterr().out
    with open_reader(tmp_path / "run") as reader:
        found = [(record.status, record.code) for record in reader.records()]
    assert found == [("ok", ""), ("skipped", "unlabelled"), ("skipped", "unlabelled")]
    assert len(json.loads((export / "coco" / "instances.json").read_text())["images"]) == 1
    assert [path.stem for path in (export / "yolo" / "labels").rglob("*.txt")] == ["a"]

    assert main(["refine", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run"), f'truth="{source}"']) == 0
    assert "2 pictures of the run had no labels to be taken and are not counted" in capsys.readouterr().out

    label_me(source / "c.png")
    assert label(source, "export=[coco,yolo]", detect="labels") == 0
    assert "2 ok, 1 skipped" in capsys.readouterr().out
    assert len(json.loads((export / "coco" / "instances.json").read_text())["images"]) == 2


@pytest.mark.parametrize(("size", "noted"), [((30, 30), True), ((40, 30), False)])
def test_a_turned_picture_whose_labels_may_be_of_either_frame_is_noted(size, noted, label, tmp_path):
    width, height = size
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", size).save(tmp_path / "in" / "a.png", exif=exif)
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "block"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 5]}],
    }
    (tmp_path / "in" / "instances.json").write_text(json.dumps(document))
    assert label(tmp_path / "in", detect="labels") == 0
    with open_reader(tmp_path / "run") as reader:
        (record,) = reader.records()
    assert record.info.notes == (("frame_assumed",) if noted else ())
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert ("taken as of the upright one" in page) == noted
