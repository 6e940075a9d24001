"""What a run directory lies on: how much room there is, and whether the disk is another machine's."""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK = (
    frozenset(
        ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs")
    )
    | frozenset(("orangefs", "pvfs2", "ocfs2", "gfs2", "ncpfs", "coda", "davfs", "vboxsf", "prl_fs"))
    | frozenset(f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "s3fs", "gcsfuse", "rclone", "goofys"))
    | frozenset(f"fuse.{name}" for name in ("juicefs", "JuiceFS", "mount-s3", "davfs", "davfs2", "blobfuse2"))
)
"""File systems of other machines, or of several machines at once, as the kernel calls them."""


def free_bytes(directory: Path) -> int:
    """Bytes that an ordinary user may still write there."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def network_file_system(directory: Path) -> str | None:
    """The kind of network file system that the directory is on; None for a disk of this machine."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None  # not Linux, or a sandbox that hides it
    kind = file_system_of(os.fsencode(directory.resolve()), mounts)
    return kind if kind in NETWORK else None


def file_system_of(path: bytes, mountinfo: bytes) -> str:
    """The type of the file system at an absolute path, by the longest mount point above it; "" when none is.

    The format is that of proc_pid_mountinfo(5); of two mounts at one place the later one hides the earlier.
    """
    best, kind = b"", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) < 5 or not after:
            continue
        place = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8) & 255]), fields[4])
        inside = path == place or path.startswith(place.rstrip(b"/") + b"/")
        if inside and len(place) >= len(best):
            best, kind = place, after.split(b" ")[0].decode(errors="replace")
    return kind
