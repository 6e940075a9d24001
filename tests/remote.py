"""Storages that need no network: one in memory, and one whose driver fails as asked."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from autolabel.ops import storage


@pytest.fixture
def bucket():
    """`put(path, bytes)` into a storage that is empty before and after: `memory://<path>`."""
    empty()
    yield MemoryFileSystem().pipe_file
    empty()


def empty() -> None:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def copy_tree(folder: Path, to: str) -> None:
    """Every file of a folder, into the storage in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            MemoryFileSystem().pipe_file(f"{to}/{path.relative_to(folder).as_posix()}", path.read_bytes())


class Leaking(MemoryFileSystem):
    """A driver whose errors are of its own kind, and say too much."""

    protocol = "leaking"
    store: ClassVar[dict] = {}
    failures: ClassVar[list[Exception]] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("leaking://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        if self.failures:
            raise self.failures.pop()
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def leaking(monkeypatch):
    fsspec.register_implementation("leaking", Leaking, clobber=True)
    monkeypatch.setattr(storage, "PAUSES_S", (0, 0))
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "0")
    Leaking.store.clear()
    Leaking().pipe_file("/b/a.png", b"data")
    yield Leaking.failures
    Leaking.failures.clear()
