"""An export at an address is the old one or the new one, whatever stops the publishing."""

import json
import shutil
import threading

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from autolabel.core.errors import ConfigError, ExportError
from autolabel.export.atomic import replaced
from autolabel.export.manifest import listed_files
from autolabel.export.publish import check_address, publish
from autolabel.export.verify import check_files
from autolabel.ops.export_mark import MANIFEST

URL = "memory://out/coco"


def export(directory, **files):
    with replaced(directory) as draft:
        for name, data in files.items():
            draft.write(name.replace("__", "/"), [data])
    return directory


def read_current(to):
    """The export that a reader of the storage finds, as a folder of this machine."""
    memory = MemoryFileSystem()
    pointer = json.loads(memory.cat_file("/out/coco/current.json"))
    shutil.rmtree(to, ignore_errors=True)
    for path in memory.find(f"/out/coco/{pointer['version']}"):
        local = to / path.split(f"{pointer['version']}/")[1]
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(memory.cat_file(path))
    return to


@pytest.fixture
def stopped_at(monkeypatch):
    """The storage fails at upload number N, as a process that is killed there."""

    def arm(number):
        left, lock = [number], threading.Lock()

        def failing(write):
            def call(self, *args, **kwargs):
                with lock:
                    left[0] -= 1
                    if left[0] < 0:
                        raise KeyboardInterrupt
                return write(self, *args, **kwargs)

            return call

        for name in ("put_file", "pipe_file"):
            monkeypatch.setattr(MemoryFileSystem, name, failing(getattr(MemoryFileSystem, name)))

    return arm


def test_what_a_reader_finds_is_what_was_exported(tmp_path, bucket):
    export(tmp_path / "e", a__b=b"1", c=b"", d=b"x" * 100)
    found = publish(tmp_path / "e", URL)
    assert (found.files, found.uploaded) == (4, 4)
    assert check_files(read_current(tmp_path / "r")) == []
    assert publish(tmp_path / "e", URL).uploaded == 0


def test_killed_at_any_upload_leaves_the_old_export_or_the_new_one(tmp_path, bucket, stopped_at, monkeypatch):
    export(tmp_path / "e", a=b"old", b=b"same")
    publish(tmp_path / "e", URL)
    export(tmp_path / "e", a=b"new", b=b"same", c=b"more")
    for number in range(6):
        stopped_at(number)
        try:
            publish(tmp_path / "e", URL)
            done = True
        except KeyboardInterrupt:
            done = False
        monkeypatch.undo()
        found = read_current(tmp_path / "r")
        assert check_files(found) == []
        assert (found / "a").read_bytes() == (b"new" if done else b"old")
        if done:
            break
    assert number == 3, "five files, and each attempt goes on where the last one stopped"


def test_a_file_that_was_torn_at_the_storage_is_uploaded_again(tmp_path, bucket):
    export(tmp_path / "e", a=b"123", b=b"456")
    version = publish(tmp_path / "e", URL).url.removeprefix("memory://")
    bucket(f"/{version}/a", b"1x3")
    bucket(f"/{version}/b", b"45")
    assert publish(tmp_path / "e", URL).uploaded == 2
    assert check_files(read_current(tmp_path / "r")) == []


def test_an_export_that_was_edited_is_not_published(tmp_path, bucket):
    export(tmp_path / "e", a=b"123")
    (tmp_path / "e" / "a").write_bytes(b"124")
    with pytest.raises(ExportError, match="was it edited"):
        publish(tmp_path / "e", URL)
    assert not MemoryFileSystem().exists("/out/coco/current.json")


def test_a_link_is_published_as_the_picture_it_leads_to(tmp_path, bucket):
    (tmp_path / "p.jpg").write_bytes(b"picture")
    with replaced(tmp_path / "e") as draft:
        draft.link(tmp_path / "p.jpg", "images/p.jpg", "")
    publish(tmp_path / "e", URL)
    assert (read_current(tmp_path / "r") / "images" / "p.jpg").read_bytes() == b"picture"


def test_a_name_that_no_storage_can_carry_is_refused_before_it_is_current(tmp_path, bucket):
    export(tmp_path / "e", **{"a\udcff": b"1"})
    with pytest.raises(ExportError, match="is not UTF-8"):
        publish(tmp_path / "e", URL)
    assert not MemoryFileSystem().exists("/out/coco/current.json")


def test_the_files_of_a_manifest_are_given_out_one_by_one_and_damage_is_seen(tmp_path):
    export(tmp_path / "e", a=b"1", **{"x\ny": b"2"})
    assert [path for path, _ in listed_files(tmp_path / "e")] == ["a", "x\ny"]
    assert list(listed_files(export(tmp_path / "none"))) == []
    manifest = (tmp_path / "e" / MANIFEST).read_bytes()
    for torn in (manifest[:-10], manifest[:60], manifest.replace(b'"a"', b'"b"'), manifest.replace(b"},", b"")):
        (tmp_path / "e" / MANIFEST).write_bytes(torn)
        with pytest.raises(ExportError):
            list(listed_files(tmp_path / "e"))


@pytest.mark.parametrize("value", ["/labels", 3, "s3://k:secretsecret@b/x", "https://example.com/x"])
def test_an_address_that_cannot_be_is_refused_before_any_work(value):
    with pytest.raises(ConfigError, match="export_to") as caught:
        check_address(value)
    assert "secretsecret" not in str(caught.value)
