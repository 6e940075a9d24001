"""Clicks as prompts: from a file of clicks, or the keypoints that came with COCO labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.protocols import About
from autolabel.core.types import Detections, Frame, Labels, Prompts
from autolabel.ops.annotations import keypoints_in
from autolabel.ops.points import padded
from autolabel.ops.settings import flag
from autolabel.prompt.clicks import Clicks, read_clicks

_MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """Clicks and the object they are about: a detection's number, or a number behind them."""

    number: int
    clicks: Clicks


class PointsPrompter:
    """With `file`, the clicks of one object are one prompt. An object that is named by the id of an annotation of
    the source is that detection; every other one is an object that nobody else knows of (`detect=none`). Without
    `file`, each detection is asked with its COCO keypoints as clicks inside: the visible ones, with
    `hidden_keypoints` also those that are covered. With `box` a detection's box is asked with its clicks.
    """

    box_alone = False

    def __init__(self, *, file: str | None, hidden_keypoints: bool, box: bool) -> None:
        self._least = 1 if flag("hidden_keypoints", hidden_keypoints) else 2
        self.box = flag("box", box)
        self.file = file
        self._identity: Mapping[str, str] = {}
        self._of_image: dict[str, list[Clicks]] = {}
        if file is not None:
            path, data = _read(file)
            self._identity = {"file sha256": hashlib.sha256(data).hexdigest()}
            self._of_image = read_clicks(path, data.decode("utf-8-sig", "surrogateescape"))

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    @property
    def about(self) -> About:
        return "keypoints" if self.file is None else "names"

    @property
    def image_ids(self) -> frozenset[str]:
        """The pictures that the file says something about."""
        return frozenset(self._of_image)

    def knows(self, labels: Labels, row: int) -> bool:
        """Whether an annotation has keypoints to ask with."""
        return bool(len(self._visible(labels.extras[row]).signs))

    def names_in(self, image_id: str) -> list[str]:
        """The objects of an image, as the file calls them."""
        return [clicks.name for clicks in self._of_image.get(image_id, ())]

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        return [self._one(*one) for one in zip(frames, detections, asked, strict=True)]

    def _one(self, frame: Frame, found: Detections, rows: Sequence[int]) -> Prompts:
        if self.file is None:
            known, added = self._keypoints(found, rows), 0
        else:
            known, added = self._clicked(frame.ref.image_id, found, rows)
        missing = set(rows) - {one.number for one in known}
        why = "it has no visible keypoint" if self.file is None else "the file has no click for it"
        points, signs = padded([one.clicks.points_xy for one in known], [one.clicks.signs for one in known])
        prompts = Prompts(
            points_xy=points,
            point_signs=signs,
            objects=np.array([one.number for one in known], np.int64),
            added=added,
            refused=dict.fromkeys(sorted(missing), f"no_prompt: {why}"),
        )
        return self._with_boxes(prompts, found) if self.box else prompts

    def _clicked(self, image_id: str, found: Detections, rows: Sequence[int]) -> tuple[list[_Asked], int]:
        """The file's objects of an image, and how many of them are new."""
        by_id = {str(id_): row for row, id_ in enumerate(found.source_ids) if id_ is not None}
        known, new = [], 0
        for clicks in self._of_image.get(image_id, ()):
            if clicks.name not in by_id:
                known.append(_Asked(len(found) + new, clicks))
                new += 1
            elif by_id[clicks.name] in rows:
                known.append(_Asked(by_id[clicks.name], clicks))
        return known, new

    def _keypoints(self, found: Detections, rows: Sequence[int]) -> list[_Asked]:
        known = (_Asked(row, self._visible(found.extras[row])) for row in rows)
        return [one for one in known if len(one.clicks.signs)]

    def _visible(self, extra: str) -> Clicks:
        keypoints = keypoints_in(extra)
        rows = np.zeros((0, 3)) if keypoints is None else keypoints[keypoints[:, 2] >= self._least]
        return Clicks("", rows[:, :2].astype(np.float32), np.ones(len(rows), np.int64))

    def _with_boxes(self, prompts: Prompts, found: Detections) -> Prompts:
        numbers = prompts.object_numbers
        boxes = np.full((len(prompts), 4), np.nan, np.float32)
        of_detection = numbers < len(found)
        boxes[of_detection] = found.boxes_xyxy[numbers[of_detection]]
        return replace(prompts, boxes_xyxy=boxes)


def _read(file: object) -> tuple[Path, bytes]:
    if not isinstance(file, str) or not file:
        raise SettingError(f"file must be a path, got {file!r}")
    path = Path(file).expanduser()
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SettingError(f"file {file!r} is larger than {_MAX_BYTES >> 20} MiB")
        return path, path.read_bytes()
    except OSError as error:
        raise SettingError(f"file {file!r} cannot be read: {error.strerror}") from error
