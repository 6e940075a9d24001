import hashlib
import json
import os

import pytest

from autolabel.core.errors import ExportError
from autolabel.export.atomic import replaced
from autolabel.export.manifest import SEAL, edited_files, listed_files, origin_of
from autolabel.export.verify import check_files
from autolabel.ops.export_mark import RECORDS
from autolabel.store.memory import MemoryStore
from tests.records import picture


@pytest.fixture
def exported(tmp_path):
    source = picture(tmp_path / "in" / "a.png")
    with replaced(tmp_path / "out") as draft:
        draft.write("labels/a.txt", [b"one ", b"two\n"])
        draft.write("caf\udce9.txt", [b"x"])
        draft.copy(source, "images/a.png")
        draft.link(source, "images/b.png", draft.sha256("images/a.png"))
    return tmp_path / "out"


def test_an_export_as_it_was_written_has_no_fault(exported):
    assert check_files(exported) == []
    (exported / "labels" / "train.cache").write_bytes(b"a loader's own")
    assert check_files(exported) == []


def test_what_is_missing_extra_torn_or_edited_is_named(exported):
    (exported / "labels" / "a.txt").write_bytes(b"one tw")
    (exported / "images" / "a.png").unlink()
    (exported / "labels" / "new.txt").write_bytes(b"")
    assert check_files(exported) == [
        "labels/a.txt: changed: 6 bytes instead of 8",
        "images/a.png: missing",
        "labels/new.txt: is not in manifest.json",
    ]
    (exported / "labels" / "a.txt").write_bytes(b"one TWO\n")
    assert check_files(exported)[0] == "labels/a.txt: changed"


def test_a_linked_picture_that_changed_or_is_gone_is_named(exported, tmp_path):
    picture(tmp_path / "in" / "a.png", seed=5)
    assert check_files(exported) == ["images/b.png: changed"]
    (tmp_path / "in" / "a.png").unlink()
    assert check_files(exported) == ["images/b.png: the picture it links to is gone"]


class Told(MemoryStore):
    def digest(self):
        return "ab" * 32


class ToldAll(Told):
    settings = {"min_area_px": 1, "name": 'a"}\n\udce9', "files": {"sha256": "no file"}, "none": None}  # noqa: RUF012


@pytest.mark.parametrize(
    ("run", "origin"),
    [
        (MemoryStore(), {}),
        (Told(), {RECORDS: "ab" * 32}),
        (ToldAll(), {RECORDS: "ab" * 32, "settings": ToldAll.settings}),
    ],
)
def test_the_manifest_tells_the_records_and_the_settings_where_the_run_can(tmp_path, run, origin):
    with replaced(tmp_path / "out", run) as draft:
        draft.write(RECORDS, [b"a file of that name"])
        draft.write("settings", [b"and of that one"])
    assert check_files(tmp_path / "out") == []
    assert edited_files(tmp_path / "out") == []
    assert [path for path, _ in listed_files(tmp_path / "out")] == [RECORDS, "settings"]
    assert origin_of(tmp_path / "out") == origin


def test_a_torn_or_edited_manifest_is_named(exported):
    manifest = exported / "manifest.json"
    whole = manifest.read_bytes()
    for damaged in (whole[:-5], whole[: len(whole) // 2], whole.replace(b'"bytes": 8', b'"bytes": 9')):
        manifest.write_bytes(damaged)
        (fault,) = check_files(exported)
        assert fault.startswith("manifest.json: torn or edited")


def test_the_manifest_is_json_and_names_every_file_but_itself(exported):
    assert set(json.loads((exported / "manifest.json").read_bytes())["files"]) == {
        "labels/a.txt", "caf\udce9.txt", "images/a.png", "images/b.png"
    }  # fmt: skip


def test_a_folder_that_is_no_export_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="not an export of autolabel"):
        check_files(tmp_path)


def test_only_the_last_file_can_be_taken_back_and_leaves_no_trace(tmp_path):
    with replaced(tmp_path / "out") as draft:
        draft.write("a/x.txt", [b"1"])
        draft.write("a/y.txt", [b"2"])
        draft.remove("a/y.txt")
        with pytest.raises(AssertionError):
            draft.remove("a/x.txt")
        assert draft.files == ("a/",)
    assert check_files(tmp_path / "out") == []


def forged(folder, entries):
    """An export with a manifest that somebody else wrote and sealed."""
    folder.mkdir()
    files = ",\n".join(f"{json.dumps(path)}: {json.dumps(entry)}" for path, entry in entries.items())
    text = f'{{"autolabel_export": 1, "files": {{\n{files}\n}},\n'.encode()
    seal = json.dumps(hashlib.sha256(text).hexdigest())
    (folder / "manifest.json").write_bytes(text + f'"{SEAL}":{seal}}}\n'.encode())
    return folder


def test_a_name_that_leads_out_of_the_folder_is_a_fault_and_is_never_opened(tmp_path):
    (tmp_path / "secret").mkdir()
    os.mkfifo(tmp_path / "secret" / "pipe")  # opening it would wait for ever
    names = ["../secret/pipe", str(tmp_path / "secret" / "pipe"), "a/../../secret/pipe", "linked/pipe", "a\0b", ""]
    folder = forged(tmp_path / "out", {name: {"sha256": "0", "bytes": 1} for name in [*names, "\ud800"]})
    (folder / "linked").symlink_to(tmp_path / "secret")
    faults = check_files(folder)
    assert len(faults) == len(names) + 1
    assert all("leads out of the folder, or nowhere" in fault for fault in faults)


def test_what_is_no_regular_file_is_a_fault_and_is_never_opened(tmp_path):
    names = {"pipe": {"sha256": "0"}, "zero": {"sha256": "0", "link": True}, "folder": {"sha256": "0"}}
    folder = forged(tmp_path / "out", names)
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    assert check_files(folder) == [f"{name}: a folder, pipe or device, not a file" for name in names]


def test_a_manifest_that_is_a_pipe_is_no_export(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(ExportError, match="not an export of autolabel"):
        check_files(tmp_path)


@pytest.mark.parametrize("entry", [5, {}, {"sha256": 7}])
def test_a_manifest_with_something_else_than_files_is_a_fault(tmp_path, entry):
    assert check_files(forged(tmp_path / "out", {"a": entry})) == [
        "manifest.json: torn or edited (it does not list files)"
    ]
