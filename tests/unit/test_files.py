"""What has been written stays written."""

import os
from pathlib import Path

import pytest

from autolabel.app.run_directory import write_text
from autolabel.ops.files import file_sha256, replace_durably


def replace(path):
    written = path.with_name("written")
    written.write_text("new")
    replace_durably(written, path)


@pytest.mark.parametrize("write", [replace, lambda path: write_text(path, "new")])
def test_a_power_cut_takes_back_neither_the_content_nor_the_name(tmp_path, monkeypatch, write):
    path, synced = tmp_path / "config.yaml", []
    path.write_text("old")

    def fsync(descriptor):
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().parent, path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    write(path)
    # The file while the old one is still there, and then the folder with the new name.
    assert synced == [(tmp_path, "old"), (tmp_path.parent, "new")]
    assert list(tmp_path.iterdir()) == [path]


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff abc")
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
