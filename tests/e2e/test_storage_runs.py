"""Runs from and to a storage, as people start them. The storage is memory; the stages are fakes."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from omegaconf import OmegaConf

from autolabel.app.api import AutoLabeler
from autolabel.app.main import main
from autolabel.core.errors import ConfigError
from autolabel.store.run import open_reader
from tests.fakes import album, draw
from tests.remote import copy_tree

SECRET = "wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def label(tmp_path):
    (tmp_path / "configs" / "detect").mkdir(parents=True)
    node = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    OmegaConf.save(OmegaConf.create(node), tmp_path / "configs" / "detect" / "colour.yaml")

    def call(source, *settings, run="run"):
        return main(
            ["label", str(source), "--config-dir", str(tmp_path / "configs"), "detect=colour", "segment=box",
             f"run={tmp_path / run}", "unit_size=4", "batch_size=2", *settings]
        )  # fmt: skip

    return call


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("isolated", ["true", "false"])
def test_a_run_from_a_storage_equals_the_run_from_a_folder(label, tmp_path, bucket, isolated):
    album(tmp_path / "in", 9)
    copy_tree(tmp_path / "in", "/photos/set=1")
    settings = "export=[coco,yolo,voc]", f"decode.isolated={isolated}"
    assert label(tmp_path / "in", *settings, run="here") == 0
    assert label("memory://photos/set=1/", *settings, run="there") == 0
    assert tree(tmp_path / "there" / "export") == tree(tmp_path / "here" / "export")


def test_a_run_from_a_storage_is_continued_and_notices_what_changed(label, tmp_path, bucket, capsys):
    album(tmp_path / "in", 5)
    copy_tree(tmp_path / "in", "/photos")
    label("memory://photos")
    assert label("memory://photos") == 0
    assert "nothing to do" in capsys.readouterr().out
    draw(tmp_path / "in" / "new.png", {0: (2, 2, 20, 20)})
    first = sorted(MemoryFileSystem().find("/photos"))[0]
    bucket(first, (tmp_path / "in" / "new.png").read_bytes())
    bucket("/photos/new.png", (tmp_path / "in" / "new.png").read_bytes())
    assert label("memory://photos") == 0
    error = capsys.readouterr().err
    assert "1 new picture since" in error
    assert "1 changed picture since" in error


def test_a_picture_that_left_the_storage_fails_by_name_and_is_tried_again(label, tmp_path, bucket):
    album(tmp_path / "in", 3)
    copy_tree(tmp_path / "in", "/photos")
    names = [path.removeprefix("/photos/") for path in sorted(MemoryFileSystem().find("/photos"))]
    bucket("/photos/list.txt", "\n".join([*names, "gone.png"]).encode())
    assert label("memory://photos/list.txt") == 2
    with open_reader(tmp_path / "run") as reader:
        assert reader.counts()["failed:missing"] == 1
    bucket("/photos/gone.png", MemoryFileSystem().cat_file(f"/photos/{names[0]}"))
    assert label("memory://photos/list.txt") == 0


def test_exports_go_to_a_storage_and_the_summary_says_where(label, tmp_path, bucket, capsys):
    album(tmp_path / "in", 3)
    assert label(tmp_path / "in", "export=[coco]", "export_to=memory://out/labels/") == 0
    pointer = json.loads(MemoryFileSystem().cat_file("/out/labels/coco/current.json"))
    there = MemoryFileSystem().cat_file(f"/out/labels/coco/{pointer['version']}/instances.json")
    assert there == (tmp_path / "run/export/coco/instances.json").read_bytes()
    assert f"published at memory://out/labels/coco/{pointer['version']}" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "run"), "export=[yolo]", "export_to=memory://out/labels"]) == 0
    assert MemoryFileSystem().exists("/out/labels/yolo/current.json")


def test_columns_of_a_table_reach_the_labels(label, tmp_path, bucket):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    draw(tmp_path / "a.png", {0: (2, 2, 20, 20)})
    bucket("/photos/a.png", (tmp_path / "a.png").read_bytes())
    rows = {
        "url": ["memory://photos/a.png"],
        "site": ["north"],
        "width": [5],
        "taken": [float("nan")],
        "split": ["val"],
    }
    pq.write_table(pa.table(rows), tmp_path / "list.parquet")
    code = label(
        tmp_path / "list.parquet", "source=parquet_list", "source.column=url", "source.root=memory://photos",
        "export=[coco]",
    )  # fmt: skip
    assert code == 0
    (image,) = json.loads((tmp_path / "run/export/coco/instances.json").read_text())["images"]
    # The picture's own width is the one that counts.
    assert (image["site"], image["taken"], image["split"], image["width"]) == ("north", None, "val", 60)


def test_no_secret_comes_into_a_run(label, tmp_path, leaking, monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    leaking += [
        RuntimeError(f"signature of {SECRET} at https://h/a.png?X-Amz-Credential={SECRET[:15]}/x is wrong")
    ] * 3
    assert label("leaking://b/", "export=[coco,yolo]", "decode.isolated=false") == 2
    main(["report", str(tmp_path / "run")])
    shown = capsys.readouterr()
    assert "is wrong" in shown.out, "the error was not told: the test proves nothing"
    assert label(f"leaking://user:{SECRET}@b/", run="other") == 1
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.sqlite", "autolabel.log", "summary.json"} <= {path.name for path in written}
    assert any(path.suffix == ".html" for path in written)
    told = shown.out + shown.err + "".join(capsys.readouterr())
    with open_reader(tmp_path / "run") as reader:
        told += repr(list(reader.records()))
    for secret in (SECRET, SECRET[:15]):
        assert secret not in told
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("source", ["s3://key:secretsecret@bucket/x", "memory://photos?token=secretsecret"])
def test_an_address_with_a_secret_leaves_nothing_behind(source, label, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["label", source, "detect=nano"]) == 1
    assert label(source) == 1
    assert "secretsecret" not in "".join(capsys.readouterr())
    assert not (tmp_path / "run").exists()
    assert not Path("runs").exists()
    assert "secretsecret" not in "".join(path.name for path in tmp_path.iterdir())


def test_a_run_directory_at_an_address_is_refused_with_the_way_out(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label(tmp_path / "in", "run=s3://bucket/run") == 1
    assert "export_to=" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [["s3://bucket/photos"], ["here", "export_to=s3://bucket/labels"],
     ["here/instances.json", "source=coco", "source.images_dir=s3://bucket/photos"]],
)  # fmt: skip
def test_offline_asks_no_storage(label, tmp_path, monkeypatch, capsys, settings):
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "0")
    monkeypatch.setattr("fsspec.filesystem", lambda *_, **__: pytest.fail("a driver was opened"))
    monkeypatch.chdir(tmp_path)
    album(tmp_path / "here", 1)
    (tmp_path / "here" / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert label(*settings, "offline=true") == 1
    assert "is on the network, which offline=true" in capsys.readouterr().err
    assert os.environ["AUTOLABEL_OFFLINE"] == "0"


def test_offline_asks_no_storage_from_python(monkeypatch):
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "0")
    labeler = AutoLabeler.from_config(["detect=nano", "segment=box", "offline=true"])
    with pytest.raises(ConfigError, match="is on the network"):
        next(labeler.label("s3://bucket/photos"))
    assert os.environ["AUTOLABEL_OFFLINE"] == "0"
