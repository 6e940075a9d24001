"""A storage that speaks S3, on this machine: labelled from, published to, and its errors told in one line."""

import json
import socket
from urllib.request import Request, urlopen

import pytest
from omegaconf import OmegaConf

from autolabel.app.main import main
from autolabel.store.run import open_reader
from tests.fakes import album, draw

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")
pytestmark = pytest.mark.slow

SECRET = "wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """A driver for the server, with the bucket `photos`; whoever asks the environment finds the same server."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AUTOLABEL_OFFLINE": "0",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    driver = s3fs.S3FileSystem(use_listings_cache=False)
    driver.mkdir("photos")
    yield driver
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture
def label(tmp_path):
    (tmp_path / "configs" / "detect").mkdir(parents=True)
    node = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    OmegaConf.save(OmegaConf.create(node), tmp_path / "configs" / "detect" / "colour.yaml")

    def call(source, *settings, run="run"):
        return main(
            ["label", str(source), "--config-dir", str(tmp_path / "configs"), "detect=colour", "segment=box",
             f"run={tmp_path / run}", "export=[coco,yolo]", *settings]
        )  # fmt: skip

    return call


def no_secret_below(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"run.sqlite", "autolabel.log", "summary.json", "config.yaml"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_run_from_s3_to_s3_equals_the_run_from_a_folder(label, s3, tmp_path, capsys):
    album(tmp_path / "in", 9)
    s3.put(str(tmp_path / "in") + "/", "photos/set=1/", recursive=True)
    assert label(tmp_path / "in", run="here") == 0
    assert label("s3://photos/set=1/", "export_to=s3://photos/labels") == 0
    here = (tmp_path / "here/export/coco/instances.json").read_bytes()
    pointer = json.loads(s3.cat_file("photos/labels/coco/current.json"))
    assert s3.cat_file(f"photos/labels/coco/{pointer['version']}/instances.json") == here
    with open_reader(tmp_path / "run") as reader:
        assert {r.path.partition("set=1")[0] for r in reader.records()} == {"s3://photos/"}
    main(["report", str(tmp_path / "run")])
    no_secret_below(tmp_path)
    capsys.readouterr()
    assert label("s3://photos/set=1", "export_to=s3://photos/labels") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_another_etag_is_a_changed_picture_and_an_empty_object_a_failed_one(label, s3, tmp_path, capsys):
    album(tmp_path / "in", 3)
    s3.put(str(tmp_path / "in") + "/", "photos/set/", recursive=True)
    label("s3://photos/set")
    s3.pipe_file(sorted(s3.find("photos/set"))[0], draw(tmp_path / "x.png", {1: (2, 2, 20, 20)}).read_bytes())
    s3.pipe_file("photos/set/empty.png", b"")
    assert label("s3://photos/set") == 2
    error = capsys.readouterr().err
    assert "1 changed picture since" in error
    assert "1 new picture since" in error
    with open_reader(tmp_path / "run") as reader:
        assert reader.counts()["failed:empty"] == 1


def test_a_table_at_s3_names_pictures_at_s3(label, s3, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    draw(tmp_path / "a.png", {0: (2, 2, 20, 20)})
    s3.put_file(str(tmp_path / "a.png"), "photos/x/a.png")
    pq.write_table(pa.table({"path": ["s3://photos/x/a.png"], "site": ["north"]}), tmp_path / "list.parquet")
    s3.put_file(str(tmp_path / "list.parquet"), "photos/lists/list.parquet")
    assert label("s3://photos/lists/list.parquet", "source=parquet_list") == 0
    (image,) = json.loads((tmp_path / "run/export/coco/instances.json").read_text())["images"]
    assert (image["file_name"], image["site"]) == ("x/a.png", "north")


def test_what_cannot_be_reached_is_one_line_without_secrets(label, s3, tmp_path, monkeypatch, capsys):
    assert label("s3://nobody/set") == 1
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert label("s3://photos/set", run="other") == 1
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    assert label("s3://photos/set", run="third") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("autolabel:")]
    assert len(lines) == 3
    assert all("s3://" in line and SECRET not in line for line in lines)
