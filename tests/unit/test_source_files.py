"""Folder, glob and list: every picture once, in a fixed order, and everything else counted."""

import os
from pathlib import Path

import pytest

from autolabel.app.api import _refs
from autolabel.core.errors import ConfigError, SourceError
from autolabel.export.atomic import replaced
from autolabel.source.folder import FolderSource
from autolabel.source.glob import GlobSource
from autolabel.source.list import ListSource
from tests.remote import copy_tree


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ids(source):
    return [ref.image_id for ref in source.images()]


def test_a_folder_gives_every_picture_below_it_in_the_order_of_bytes(tmp_path):
    touch(tmp_path, "b.JPG", "a/z.png", "a.jpeg", "a/b/c.TIFF", "Z.webp", "ä.gif")
    assert ids(FolderSource(path=str(tmp_path))) == ["Z.webp", "a.jpeg", "a/b/c.TIFF", "a/z.png", "b.JPG", "ä.gif"]


def test_what_is_left_out_is_counted(tmp_path):
    touch(tmp_path, "a.jpg", ".hidden.jpg", ".git/b.jpg", "notes.txt", "x/more.TXT", "README", "trailing.jpg ")
    os.mkfifo(tmp_path / "pipe.jpg")
    source = FolderSource(path=str(tmp_path))
    assert ids(source) == ["a.jpg"]
    assert source.ignored == {
        "hidden": 2,
        ".txt": 2,
        "no extension": 1,
        ".jpg ": 1,
        "not a regular file": 1,
    }


def test_any_file_name_is_kept_byte_for_byte(tmp_path):
    names = [b"new\nline.jpg", b"tab\t.jpg", b"quote'\".jpg", b"\xff\xfe.jpg", b"a b.jpg", b"x" * 251 + b".jpg"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"data")
    refs = list(FolderSource(path=str(tmp_path)).images())
    assert [os.fsencode(ref.image_id) for ref in refs] == sorted(names)
    for ref in refs:
        assert Path(ref.path).read_bytes() == b"data"


def test_a_loop_of_links_ends_and_the_real_place_gives_the_name(tmp_path):
    touch(tmp_path, "z/real/a.jpg")
    (tmp_path / "a_link").symlink_to(tmp_path / "z" / "real")
    (tmp_path / "z" / "real" / "up").symlink_to(tmp_path)
    source = FolderSource(path=str(tmp_path))
    assert ids(source) == ["z/real/a.jpg"]
    assert source.ignored == {"folder seen before": 2}


def test_a_link_to_nothing_still_names_its_picture(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert ids(FolderSource(path=str(tmp_path))) == ["gone.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_a_failed_record(tmp_path):
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        refs = list(FolderSource(path=str(tmp_path)).images())
    finally:
        (tmp_path / "locked").chmod(0o755)
    assert [(ref.image_id, ref.problem and ref.problem.code) for ref in refs] == [
        ("a.jpg", None),
        ("locked/", "permission"),
    ]


def test_one_picture_is_a_source_too(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    assert ids(FolderSource(path=str(tmp_path / "a.jpg"))) == ["a.jpg"]


@pytest.mark.parametrize(
    ("source", "ids_there"),
    [
        (FolderSource(path="photos"), ["a.jpg", "b/c.jpg"]),
        (FolderSource(path="./photos/b/c.jpg"), ["c.jpg"]),
        (GlobSource(path="photos/*/*.jpg"), ["b/c.jpg"]),
        (GlobSource(path="**/c.jpg"), ["photos/b/c.jpg"]),
    ],
)
def test_paths_hold_wherever_the_program_goes_and_ids_do_not_change(tmp_path, monkeypatch, source, ids_there):
    touch(tmp_path, "photos/a.jpg", "photos/b/c.jpg")
    monkeypatch.chdir(tmp_path)
    refs = list(source.images())
    assert [ref.image_id for ref in refs] == ids_there
    monkeypatch.chdir("/")
    assert all(Path(ref.path).is_file() for ref in refs)


def test_an_empty_folder_has_no_pictures_and_a_missing_one_is_an_error(tmp_path):
    assert ids(FolderSource(path=str(tmp_path))) == []
    with pytest.raises(SourceError, match="no such folder"):
        ids(FolderSource(path=str(tmp_path / "absent")))
    with pytest.raises(ConfigError, match=r"^path"):
        FolderSource(path="")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b 1.jpg"]),
        ("**/*.jpg", ["a.jpg", "b 1.jpg", "cam1/x.jpg", "cam2/deep/y.jpg"]),
        ("cam?/*", ["cam1/x.jpg"]),
        ("cam[!1]/**", ["cam2/deep/y.jpg"]),
        ("cam[12]/x.jpg", ["cam1/x.jpg"]),
        ("*/deep/*.jpg", ["cam2/deep/y.jpg"]),
        ("nothing*", []),
    ],
)
def test_a_pattern_gives_what_it_says(tmp_path, pattern, expected):
    touch(tmp_path, "a.jpg", "b 1.jpg", "cam1/x.jpg", "cam1/x.txt", "cam2/deep/y.jpg", ".jpg")
    assert ids(GlobSource(path=f"{tmp_path}/{pattern}")) == expected


def test_a_pattern_counts_the_matches_that_are_no_pictures(tmp_path):
    touch(tmp_path, "a.jpg", "a.txt", "b.txt")
    source = GlobSource(path=f"{tmp_path}/a.*")
    assert ids(source) == ["a.jpg"]
    assert source.ignored == {".txt": 1}


def test_ids_of_a_pattern_start_at_its_first_wildcard(tmp_path):
    touch(tmp_path, "x/cam1/a.jpg")
    assert ids(GlobSource(path=f"{tmp_path}/x/cam*/*.jpg")) == ["cam1/a.jpg"]
    with pytest.raises(SourceError, match="no such folder"):
        ids(GlobSource(path=f"{tmp_path}/absent/*.jpg"))


def test_a_list_gives_its_lines_in_its_order(tmp_path):
    touch(tmp_path, "lists/b.jpg", "other/c.jpg")
    text = b"\xef\xbb\xbf# pictures\nb.jpg\r\n\n./sub/../b.jpg\n../other/c.jpg\nabsent \xff.jpg\n"
    (tmp_path / "lists" / "all.txt").write_bytes(text)
    source = ListSource(path=str(tmp_path / "lists" / "all.txt"), root=None)
    refs = list(source.images())
    assert [os.fsencode(ref.image_id) for ref in refs] == [
        b"b.jpg",
        os.fsencode(tmp_path / "other" / "c.jpg").lstrip(b"/"),
        b"absent \xff.jpg",
    ]
    assert [Path(ref.path).exists() for ref in refs] == [True, True, False]
    assert source.ignored == {"named twice": 1}


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\0\1\2")
    with pytest.raises(SourceError, match="not a text file"):
        ids(ListSource(path=str(tmp_path / "a.txt"), root=None))
    with pytest.raises(SourceError, match="no such file"):
        ids(ListSource(path=str(tmp_path / "absent.txt"), root=None))


def test_two_pictures_that_a_list_would_call_alike_are_refused(tmp_path):
    outside, folder = tmp_path / "outside" / "b.png", tmp_path / "list"
    inside = folder / str(outside).lstrip("/")
    touch(tmp_path, outside, inside)
    (folder / "list.txt").write_text(f"{inside}\n{inside}\n{outside}\n")
    with pytest.raises(SourceError, match="would both be called"):
        ids(ListSource(path=str(folder / "list.txt"), root=None))


def test_a_run_directory_below_the_pictures_is_left_out(tmp_path):
    touch(tmp_path, "a.jpg", "runs/x/run.sqlite", "runs/x/export/yolo/images/train/a.jpg", "runs/b.jpg")
    source = FolderSource(path=str(tmp_path))
    assert ids(source) == ["a.jpg", "runs/b.jpg"]
    assert source.ignored == {"run directory of autolabel": 1}


@pytest.mark.parametrize("remote", [False, True])
def test_an_export_below_the_pictures_is_left_out_and_one_that_is_the_source_is_not(remote, tmp_path):
    touch(tmp_path, "a.jpg", "other/b.jpg")
    (tmp_path / "other" / "manifest.json").write_text('{"files": {}}')
    with replaced(tmp_path / "out" / "yolo") as draft:
        draft.write("images/a.jpg", [b""])
    root = "memory://exported" if remote else str(tmp_path)
    if remote:
        copy_tree(tmp_path, root)
    source = FolderSource(path=root)
    assert ids(source) == ["a.jpg", "other/b.jpg"]
    assert source.ignored["export of autolabel"] == 1
    assert ids(FolderSource(path=f"{root}/out/yolo")) == ["images/a.jpg"]


@pytest.mark.parametrize(
    "path", ["link/../x.jpg", "link/../ph", "link/../ph/*.jpg", "list.txt", ["link/../x.jpg"]]
)
def test_a_path_through_a_link_names_the_picture_that_every_other_program_finds(path, tmp_path, monkeypatch):
    touch(tmp_path, "far/x.jpg", "far/ph/x.jpg", "far/d/y.jpg", "here/x.jpg", "here/ph/x.jpg")
    (tmp_path / "here" / "link").symlink_to("../far/d")
    (tmp_path / "here" / "list.txt").write_text("link/../x.jpg\n")
    monkeypatch.chdir(tmp_path / "here")
    (found,) = _refs(path)[0].values()
    assert Path(found.path).relative_to(tmp_path / "far").name == "x.jpg"
