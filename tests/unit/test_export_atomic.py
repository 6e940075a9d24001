"""What somebody did in the folder of an export outlives the next export, whatever stops that."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from autolabel.core.errors import ExportError, told
from autolabel.export import atomic, manifest
from autolabel.export.atomic import replaced
from autolabel.export.verify import check_files


def write(folder, text):
    with replaced(folder) as draft:
        draft.write("x.json", [text])
        draft.write("sub/y.json", [b"y"])
        draft.link(Path(__file__), "sub/z.jpg", "")
    return folder


def kept(folder):
    return sorted(folder.parent.glob("*.edited-*"))


def change_one(out):
    (out / "x.json").write_bytes(b"OLD")  # of the same size, in the same moment


def add_one(out):
    (out / "sub" / "new.json").write_bytes(b"")


def replace_a_link(out):
    (out / "sub" / "z.jpg").unlink()
    (out / "sub" / "z.jpg").write_bytes(b"a better picture")


def replace_by_a_link(out):
    (out / "sub" / "y.json").unlink()
    (out / "sub" / "y.json").symlink_to("/dev/zero")  # reading it would have no end


def damage_the_manifest(out):
    (out / "manifest.json").write_bytes((out / "manifest.json").read_bytes()[:-5])


def test_a_full_disk_leaves_nothing_of_the_draft_and_says_what_did_not_fit(tmp_path, monkeypatch):
    class Full:
        """The manifest, of which the rest does not fit either."""

        def __init__(self, file):
            self._file = file

        def write(self, data):
            return len(data)

        def close(self):
            self._file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        with replaced(tmp_path / "out") as draft:
            draft.write("a.json", [b"a"])
            monkeypatch.setattr(draft, "_manifest", Full(draft._manifest))
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as raised:
        fill()
    assert told(raised.value) == (
        f"{tmp_path / 'out'}: No space left on device; make room and the same command continues"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("work", "named"),
    [
        (change_one, "x.json"),
        (add_one, "sub/new.json"),
        (replace_a_link, "sub/z.jpg"),
        (replace_by_a_link, "sub/y.json"),
        (damage_the_manifest, "manifest.json"),
    ],
)
def test_a_folder_that_somebody_worked_in_is_kept_and_named(tmp_path, caplog, work, named):
    out = write(tmp_path / "out", b"old")
    work(out)
    before = {path.relative_to(out) for path in out.rglob("*")}
    write(out, b"new")
    (old,) = kept(out)
    assert {path.relative_to(old) for path in old.rglob("*")} == before
    assert (out / "x.json").read_bytes() == b"new"
    assert check_files(out) == []
    (line,) = caplog.messages
    assert line.startswith(f"1 file was changed or added in {out} ")
    assert f"({named})" in line
    assert str(old) in line


def test_every_folder_that_was_worked_in_gets_a_number_of_its_own(tmp_path, caplog):
    out = write(tmp_path / "out", b"old")
    (tmp_path / "out.edited-2").symlink_to("nowhere")
    for text in (b"first", b"second"):
        (out / "x.json").write_bytes(text)
        (out / "sub" / text.decode()).write_bytes(b"")
        write(out, b"new")
    texts = [(tmp_path / f"out.edited-{number}" / "x.json").read_bytes() for number in (1, 3)]
    assert texts == [b"first", b"second"]
    assert all(line.startswith("2 files were") for line in caplog.messages)


def test_missing_files_and_what_readers_leave_are_no_work_of_anybodys(tmp_path, caplog):
    out = write(tmp_path / "out", b"old")
    (out / "sub" / "y.json").unlink()
    (out / "__pycache__").mkdir()
    for name in ("train.cache", ".DS_Store", "sub/Thumbs.db", "__pycache__/a.pyc"):
        (out / name).write_bytes(b"")
    write(out, b"new")
    assert (kept(out), caplog.messages) == ([], [])
    assert check_files(out) == []


def test_a_file_that_is_older_than_the_manifest_is_not_read(tmp_path, monkeypatch):
    out = write(tmp_path / "out", b"old")
    found = (out / "manifest.json").stat().st_mtime_ns + 10**10
    os.utime(out / "manifest.json", ns=(found, found))
    monkeypatch.setattr(manifest, "file_sha256", lambda path: pytest.fail(f"{path} was read"))
    write(out, b"new")
    assert kept(out) == []


@pytest.fixture
def no_root(monkeypatch):
    """Folders are protected as they are from everybody but root, who tests may be."""
    rmtree, scandir = shutil.rmtree, os.scandir

    def removing(folder):
        for path in (folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())):
            if not path.stat().st_mode & 0o200:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        rmtree(folder)

    def listing(folder):
        if not os.stat(folder).st_mode & 0o400:  # noqa: PTH116 - a path or an open folder
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(shutil, "rmtree", removing)
    monkeypatch.setattr(os, "scandir", listing)


def test_a_folder_that_is_protected_from_writing_is_replaced_and_what_it_links_to_stays(tmp_path, caplog, no_root):
    (tmp_path / "elsewhere").mkdir(mode=0o555)
    out = write(tmp_path / "out", b"old")
    (out / "__pycache__").symlink_to(tmp_path / "elsewhere")
    for folder in (out / "sub", out):
        folder.chmod(0o555)
    for text in (b"new", b"newer"):
        write(out, text)
        assert (out / "x.json").read_bytes() == text
        assert check_files(out) == []
    assert ([p.name for p in tmp_path.iterdir()], caplog.messages) == (["elsewhere", "out"], [])
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o555


def test_a_folder_that_cannot_be_looked_into_is_not_removed(tmp_path, no_root):
    out = write(tmp_path / "out", b"old")
    (out / "sub" / "mine.json").write_bytes(b"a day's work")
    (out / "sub").chmod(0)
    write(out, b"new")
    (old,) = kept(out)
    (old / "sub").chmod(0o700)
    assert (old / "sub" / "mine.json").read_bytes() == b"a day's work"


def test_what_cannot_be_removed_is_a_warning_once_the_new_folder_is_there(tmp_path, caplog, monkeypatch):
    def removing(folder):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))

    out = write(tmp_path / "out", b"old")
    monkeypatch.setattr(shutil, "rmtree", removing)
    write(out, b"new")
    assert (out / "x.json").read_bytes() == b"new"
    (line,) = caplog.messages
    assert f"chmod -R u+w {tmp_path}/.out.draft" in line
    with pytest.raises(ExportError, match=r"\.out\.draft is left of an earlier export and cannot be removed"):
        write(out, b"newer")
    assert (out / "x.json").read_bytes() == b"new"
    monkeypatch.undo()
    write(out, b"newer")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    """The process ends here, and does nothing more."""


@pytest.fixture
def killed_at(monkeypatch):
    """The process is killed at step N of those that move or remove a folder; within a removal when it is half done."""

    def arm(number, *, exchanges):
        left = [number]

        def step(real, half=None):
            def call(*arguments):
                left[0] -= 1
                if left[0] == -1 and half is not None:
                    half(*arguments)
                if left[0] < 0:
                    raise Killed
                return real(*arguments)

            return call

        exchanged = atomic._exchanged if exchanges else lambda *_: False
        monkeypatch.setattr(atomic, "_exchanged", step(exchanged))
        monkeypatch.setattr(Path, "rename", step(Path.rename))
        monkeypatch.setattr(
            shutil, "rmtree", step(shutil.rmtree, lambda folder: (folder / "manifest.json").unlink())
        )

    return arm


@pytest.mark.parametrize("edited", [True, False])
@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_at_any_step_loses_no_work_and_takes_none_for_somebodys(
    tmp_path, killed_at, monkeypatch, exchanges, edited
):
    for number in range(9):
        out = write(tmp_path / str(number) / "out", b"old")
        if edited:
            (out / "x.json").write_bytes(b"mine")
        killed_at(number, exchanges=exchanges)
        try:
            write(out, b"new")
            done = True
        except Killed:
            done = False
        monkeypatch.undo()
        write(out, b"newer")
        assert check_files(out) == []
        assert [(folder / "x.json").read_bytes() for folder in kept(out)] == [b"mine"] * edited
        assert {path.name for path in out.parent.iterdir()} == {"out", *(folder.name for folder in kept(out))}
        if done:
            break
    assert done
    assert number >= 3
