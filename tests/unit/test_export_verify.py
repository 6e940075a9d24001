import json

import pytest

from autolabel.core.errors import ExportError
from autolabel.export.atomic import replaced
from autolabel.export.verify import check_files
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
    with pytest.raises(ExportError, match="no export of autolabel"):
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
