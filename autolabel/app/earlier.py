"""The masks of an earlier run, for prompts that sharpen them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autolabel.core.errors import ConfigError
from autolabel.core.types import Float32, Rle
from autolabel.store.run import open_reader


class EarlierRun:
    """What the run in the directory `run` kept, read once and held; nothing when that is null. Knows the run by the
    hash of its boxes and masks, so that a run that was refined since is another one."""

    def __init__(self, *, run: str | None) -> None:
        if run is not None and (not isinstance(run, str) or not run):
            raise ConfigError(f"prompt.run must be a run directory or null, got {run!r}")
        self._objects: dict[str, tuple[Float32, Sequence[Rle]]] = {}
        self._identity: Mapping[str, str] = {}
        if run is not None:
            self._read(Path(run).expanduser())

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    def of(self, image_id: str) -> tuple[Float32, Sequence[Rle]]:
        """Boxes (N, 4) and masks of an image's objects; none for an image that the run does not have."""
        return self._objects.get(image_id, (np.zeros((0, 4), np.float32), ()))

    def _read(self, directory: Path) -> None:
        digest = hashlib.sha256()
        with open_reader(directory) as reader:
            for record in reader.records_by_id():
                kept = [(i.box_xyxy, i.mask) for i in record.instances if i.mask is not None]
                boxes = np.array([box for box, _ in kept], np.float32).reshape(-1, 4)
                masks = tuple(mask for _, mask in kept)
                digest.update(repr((record.image_id, boxes.tolist(), masks)).encode("utf-8", "surrogateescape"))
                self._objects[record.image_id] = boxes, masks
        self._identity = {"run": digest.hexdigest()}
