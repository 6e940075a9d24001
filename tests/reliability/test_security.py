"""What hostile files must not do: run code, reach outside their folder, ask the network, take over a terminal."""

import contextlib
import json
import os
import re
import socket
import sqlite3
from pathlib import Path

import pytest
import zstandard

from autolabel.app.doctor import POISONED, within
from autolabel.core.errors import AutolabelError, StoreError
from autolabel.core.types import ImageRef
from autolabel.source.coco import CocoSource
from autolabel.source.infer import AutoSource
from autolabel.source.voc import VocSource
from autolabel.source.yolo import YoloSource
from autolabel.store.run import open_reader
from tests.fakes import album, draw
from tests.reliability.faults import calls_of, can_inject
from tests.reliability.hostile import DATA_YAML, TRAVERSAL, XML, checkpoints
from tests.reliability.plans import COMMAND, Bench

ROOT = Path(__file__).resolve().parents[2]
KNOWN_BAD = {
    "torch": "<2.10",  # CVE-2025-32434, CVE-2026-24747: code and memory corruption through weights_only
    "pillow": "<11.3",  # CVE-2025-48379: heap overflow when a DDS is written
    "hydra-core": ">=1.4",  # sam2 cannot be imported
    "label-studio-ml": ">=0",  # CVE-2025-5173
    "torchtriton": ">=0",  # 2022: the name was taken over
}
"""Versions that must not be installed; `pip-audit -r requirements/development.lock` asks the advisory database."""


@pytest.fixture
def listener():
    """An address of this machine that nobody may ask: whether somebody did."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        yield server


def was_asked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry",
    [
        ("detect=yolo26n", "segment=box", "detect.weights="),
        ("detect=colour", "segment=sam2_custom", "segment.architecture=nano", "segment.weights="),
        ("detect=colour", "segment=sam2_tiny", "segment.weights="),
    ],
    ids=["detector", "nano architecture", "sam2"],
)
def test_no_checkpoint_runs_code_through_any_entry_point(entry, tmp_path, monkeypatch, capsys):
    from omegaconf import OmegaConf

    from autolabel.app.main import main

    calls = []
    # Libraries that are imported for the first time look for others with ldconfig and a compiler, whatever is loaded.
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr(
        "subprocess.Popen.__init__", lambda *a, **k: calls.append(a[1]) or (_ for _ in ()).throw(OSError())
    )
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "in" / "a.png", {0: (2, 2, 20, 20)})
    (tmp_path / "configs" / "detect").mkdir(parents=True)
    node = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    OmegaConf.save(OmegaConf.create(node), tmp_path / "configs" / "detect" / "colour.yaml")
    where = ("--config-dir", str(tmp_path / "configs"), "decode.isolated=false", "offline=true")
    for name, path in checkpoints(tmp_path).items():
        code = main(["label", "in", *where, *entry[:-1], f"{entry[-1]}{path}", f'run="runs/{name}"'])
        error = capsys.readouterr().err
        assert code == 1, f"{name} was loaded"
        assert "Traceback" not in error, name
    assert not list(tmp_path.rglob("proof*"))
    assert not Path("/tmp/proof").exists()
    assert calls == [], "something was to be started"


@pytest.mark.parametrize("name", DATA_YAML)
def test_a_data_yaml_runs_nothing_and_leads_nowhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "set" / "images" / "a.png", {})
    (tmp_path / "set" / "data.yaml").write_text(DATA_YAML[name])
    refs: list[ImageRef] = []
    with contextlib.suppress(AutolabelError):
        source = YoloSource(path=str(tmp_path / "set" / "data.yaml"), images_dir=None, root=None, rows="auto")
        refs = list(source.images())
    assert {Path(ref.path).resolve() for ref in refs} <= {tmp_path / "set" / "images" / "a.png"}
    assert not list(tmp_path.rglob("proof"))


@pytest.mark.parametrize("name", XML)
def test_no_entity_of_an_xml_file_is_expanded(name, tmp_path):
    draw(tmp_path / "JPEGImages" / "a.png", {})
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(XML[name])
    source = VocSource(path=str(tmp_path), images_dir=None)
    (ref,) = source.images()
    # A document type elsewhere is neither fetched nor needed; everything else is refused.
    assert (ref.problem is None) == (name == "an address")
    assert ref.problem is None or ref.problem.code == "bad_label"
    assert "root:" not in repr(ref)


@pytest.mark.parametrize("name", TRAVERSAL)
def test_no_name_in_a_label_file_leads_out_of_its_folder(name, tmp_path):
    folder = tmp_path / "set"
    draw(folder / "images" / "a.png", {})
    draw(tmp_path / "secret.png", {})
    (folder / "images" / "link").symlink_to(tmp_path)
    images = [
        {"id": 1, "file_name": name, "width": 60, "height": 40},
        {"id": 2, "file_name": "a.png", "width": 60, "height": 40},
    ]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (folder / "instances.json").write_text(json.dumps(document))
    refs: list[ImageRef] = []
    with contextlib.suppress(AutolabelError):
        refs = list(CocoSource(path=str(folder / "instances.json"), images_dir=None).images())
    # Wherever a picture is found it is inside, and whatever is not found is a name there.
    usable = [os.path.join(folder, "images", ref.path) for ref in refs if ref.problem is None]  # noqa: PTH118 - any string
    assert [path for path in usable if not os.path.normpath(path).startswith(f"{folder}/")] == []
    assert [path for path in usable if os.path.isfile(path) and not inside(path, folder)] == []  # noqa: PTH113 - some are too long for a Path


def inside(path, folder):
    """Also behind links; those that lie in the folder of the pictures are the person's own."""
    return Path(path).resolve().is_relative_to(folder.resolve()) or "link" in path


@pytest.mark.parametrize("kind", ["http", "https", "s3", "ftp", "file", "gs", "HTTP"])
def test_an_address_is_no_path_and_nobody_is_asked(kind, listener):
    port = listener.getsockname()[1]
    with pytest.raises(AutolabelError, match="address"):
        list(AutoSource(path=f"{kind}://127.0.0.1:{port}/photos", images_dir=None).images())
    assert not was_asked(listener)


def test_addresses_in_label_files_are_names_and_nobody_is_asked(listener, tmp_path):
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
    draw(tmp_path / "images" / "a.png", {})
    image = {"id": 1, "file_name": "a.png", "coco_url": address, "flickr_url": address, "width": 60, "height": 40}
    document = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    (ref,) = AutoSource(path=str(tmp_path / "instances.json"), images_dir=None).images()
    assert ref.path.endswith("/images/a.png")
    assert not was_asked(listener)


@pytest.mark.skipif(not can_inject(), reason="strace is not here, or may not trace")
def test_a_whole_run_connects_to_nobody(nursery, tmp_path):
    album(tmp_path / "in", 4)
    bench = Bench(nursery, tmp_path)
    assert calls_of(nursery, ("connect", "sendto", "bind"), COMMAND, *bench.arguments("run")) == []


def test_names_cannot_take_over_a_terminal(nursery, tmp_path):
    for number, evil in enumerate(
        ("\x1b[2J\x1b]0;owned\x07", "new\nline", "\r back", "\u202egnp", "<script>alert(1)</script>")
    ):
        name = evil.replace("/", "_")
        draw(tmp_path / "in" / f"{number}{name}.png", {0: (2, 2, 9, 9)})
        (tmp_path / "in" / f"bad {number}{name}.png").write_bytes(b"no picture")
    ended = nursery.run(COMMAND, *Bench(nursery, tmp_path).arguments("run"))
    assert ended.code == 2
    assert ended.text.count("not_an_image") == 5
    assert [c for c in ended.text if not c.isprintable() and c != "\n"] == []


def test_a_run_of_a_stranger_is_data(nursery, tmp_path):
    album(tmp_path / "in", 4)
    bench = Bench(nursery, tmp_path)
    assert bench.label("run").code == 0
    database = tmp_path / "run" / "run.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("CREATE TABLE stolen(x)")
        db.execute(
            "CREATE TRIGGER t AFTER INSERT ON meta BEGIN INSERT INTO stolen VALUES (load_extension('/tmp/x')); END"
        )
        db.commit()
    assert bench.label("run").code in (0, 1)
    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT count(*) FROM stolen").fetchone() == (0,)


@pytest.mark.parametrize("size", [1 << 24, pytest.param(1 << 31, marks=pytest.mark.slow)])
def test_a_record_that_unpacks_to_a_bomb_is_refused(size, nursery, tmp_path):
    album(tmp_path / "in", 4)
    assert Bench(nursery, tmp_path).label("run").code == 0
    bomb = zstandard.ZstdCompressor().compress(b" " * size)
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
        db.execute("UPDATE record SET data = ? WHERE ordinal = 1", (bomb,))
        db.commit()
    with open_reader(tmp_path / "run") as reader, pytest.raises(StoreError):
        list(reader.records())


def test_no_locked_version_is_known_to_be_bad():
    text = (ROOT / "requirements" / "development.lock").read_text()
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))
    assert len(locked) > 50
    assert locked["ultralytics"] not in POISONED
    assert [name for name, bad in KNOWN_BAD.items() if name in locked and within(locked[name], bad)] == []
    # Every file is pinned by its hash: a package that is replaced in the registry is not installed.
    assert text.count("==") <= text.count("--hash=sha256:")
