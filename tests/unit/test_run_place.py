"""What a run directory lies on: network file systems are told from disks, and refused or used with the slow journal."""

import os

import pytest

from autolabel.app.run_directory import write_text
from autolabel.core.errors import StoreError
from autolabel.store import run
from autolabel.store.place import NETWORK, file_system_of, free_bytes, network_file_system
from autolabel.store.run import open_reader, open_store

MOUNTS = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /mnt/share rw - nfs4 server:/export rw,vers=4.2
31 22 0:26 / /mnt/with\040space rw - cifs //server/share rw
32 30 8:1 / /mnt/share/local rw - xfs /dev/sda1 rw
33 22 0:27 / /home rw master:2 - fuse.sshfs me@there: rw
34 22 0:28 / /again rw - nfs server:/a rw
35 22 8:2 / /again rw - ext4 /dev/sdb rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/", "ext4"), (b"/tmp/run", "ext4"), (b"/mnt/share", "nfs4"), (b"/mnt/share/a/b", "nfs4"),
        (b"/mnt/shared", "ext4"), (b"/mnt/share/local/run", "xfs"), (b"/mnt/with space/run", "cifs"),
        (b"/home/me", "fuse.sshfs"), (b"/again/run", "ext4"), (b"relative", ""),
    ],
)  # fmt: skip
def test_the_file_system_is_that_of_the_nearest_mount_above(path, kind):
    assert file_system_of(path, MOUNTS) == kind


def test_disks_of_this_machine_are_none_of_the_networks():
    assert {"nfs", "nfs4", "cifs", "fuse.sshfs", "lustre"} <= NETWORK
    assert not {"ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", ""} & NETWORK


def test_this_machine_has_room_and_a_disk(tmp_path):
    assert free_bytes(tmp_path) > 0
    assert network_file_system(tmp_path / "not there yet") is None


@pytest.fixture
def on_a_network(monkeypatch):
    monkeypatch.setattr(run, "network_file_system", lambda directory: "nfs4")


def test_a_network_file_system_is_refused_with_the_way_out(on_a_network, tmp_path):
    with pytest.raises(StoreError, match=r"nfs4.*store\.journal=rollback"), open_store(tmp_path, rollback=False):
        pass
    assert not (tmp_path / "run.sqlite").exists()


@pytest.mark.parametrize("rollback", [True, None])
def test_with_the_rollback_journal_it_is_used(rollback, on_a_network, tmp_path):
    with open_store(tmp_path, rollback=rollback) as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
        store.set_meta(a="b")
    with open_reader(tmp_path) as reader:
        assert reader.meta("a") == "b"


def test_a_run_may_change_its_journal(tmp_path):
    for number, rollback in enumerate((False, True, False)):
        with open_store(tmp_path, rollback=rollback) as store:
            store.set_meta(**{str(number): "x"})
    with open_reader(tmp_path) as reader:
        assert [reader.meta(str(n)) for n in range(3)] == ["x"] * 3


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_beside_the_records_are_read_by_whom_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        for text in ("one", "two"):
            write_text(tmp_path / "config.yaml", text)
    finally:
        os.umask(before)
    assert [(path.name, path.stat().st_mode & 0o777, path.read_text()) for path in tmp_path.iterdir()] == [
        ("config.yaml", mode, "two")
    ]


def test_a_file_that_cannot_be_made_is_named_as_people_know_it(tmp_path):
    with pytest.raises(OSError, match="No such file") as caught:
        write_text(tmp_path / "gone" / "config.yaml", "")
    assert caught.value.filename == str(tmp_path / "gone" / "config.yaml")
