"""The values that travel between the stages. Frozen; arrays inside are read-only by agreement.

Geometry, everywhere: images are upright RGB uint8 (H, W, 3). Boxes are `xyxy`, float32 pixels of the
upright image, half-open, `0 <= x0 < x1 <= W`, but for those of `Detections` and `Instance.box_xyxy`: what labels state
is kept, and may reach out of the picture. Masks at rest are compressed COCO RLE, column-major.
Letters in shapes: N prompts or objects of one image, P points of one prompt, H and W image height and width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import Malformed

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

Status = Literal["ok", "empty", "failed", "skipped"]
Polygon = tuple[float, ...]
"""One ring as `(x0, y0, x1, y1, ...)`."""

# `extra`, wherever it stands, is the text of a JSON object with the source's fields that have no place of their
# own here, or "" when there are none: attributes and unknown fields survive the trip without being understood.


@dataclass(frozen=True, slots=True)
class Category:
    """A class of objects. `id` is what files carry (>= 0; our own start at 1)."""

    id: int
    name: str
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Rle:
    """One binary mask: `counts` is the compressed COCO run-length string, `size_hw` its image size."""

    size_hw: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an image has no labels: a short stable `code`, and a `detail` for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Existing annotations of one image, as its label file states them.

    `boxes_xyxy` (N, 4) is in pixels of an image of `size_hw`, or in fractions of the image when
    `normalized`. `size_hw` is the size the file declares, None when it declares none: a size that matches
    the stored picture but not the upright one says that the coordinates are those of the stored picture.
    `shapes[i]` is the existing mask of object i: polygons (same coordinates as the boxes), an RLE, or None.
    `convention` says how the polygons are to be rasterised: like pycocotools or like the ultralytics loader.
    `extras[i]` are object i's other fields.
    """

    boxes_xyxy: Float32
    category_ids: Int64
    shapes: tuple[tuple[Polygon, ...] | Rle | None, ...]
    source_ids: tuple[int | None, ...]
    crowd: tuple[bool, ...]
    normalized: bool = False
    size_hw: tuple[int, int] | None = None
    convention: Literal["coco", "yolo"] = "coco"
    extras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.extras == ():
            object.__setattr__(self, "extras", ("",) * len(self.boxes_xyxy))

    def __len__(self) -> int:
        return len(self.boxes_xyxy)


@dataclass(frozen=True, slots=True, eq=False)
class ImageRef:
    """A picture that exists somewhere; nothing is read yet.

    `image_id` is the path relative to the source root, with `/`; the identity of the picture. Bytes that are
    not UTF-8 are surrogate escapes (`os.fsdecode`). `problem` says that it can never be labelled (a broken
    label file, an unreadable folder); it still gets its record. `source_id` is its id in the source, `extra` its
    other fields there. `path` may be an address (`s3://bucket/a.jpg`); `stamp` then is what its listing said: the
    size in bytes, and a number that is another one when the content is (from the ETag, or the time).
    """

    image_id: str
    path: str
    labels: Labels | None = None
    split: str | None = None
    problem: Problem | None = None
    source_id: int | None = None
    extra: str = ""
    stamp: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if type(self.path) is not str:
            object.__setattr__(self, "path", os.fsdecode(self.path))


UNLABELLED = "unlabelled"
"""The code of a picture that was skipped since its source has no labels for it."""
MAX_DET = "max_det"
"""The note of what was found where it is as many as a model may give (`max_det`): there may be more in the picture."""
FRAME_ASSUMED = "frame_assumed"
"""The note of labels that do not say whether they are of the picture as it is stored or upright: taken as upright."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known of a decoded picture: upright size in pixels, the EXIF orientation (1..8) that was applied,
    sha256 of the file's bytes, and notes such as `alpha_dropped`, `multi_frame` or MAX_DET."""

    width: int
    height: int
    orientation: int = 1
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture: upright RGB uint8 (H, W, 3)."""

    ref: ImageRef
    image_rgb: UInt8
    info: ImageInfo


def _set_array(owner: object, name: str, kind: type[np.generic], row: tuple[int | None, ...]) -> None:
    """Makes an array (N, *row) of `kind` of what stands there: a list, a tensor, whole numbers as floats. None is any
    number. Raises Malformed."""
    value = getattr(owner, name)
    if type(value) is not np.ndarray or value.dtype != kind:
        value = _converted(name, value, kind)
        object.__setattr__(owner, name, value)
    fits = value.ndim == 1 + len(row) and all(n in (None, m) for n, m in zip(row, value.shape[1:], strict=True))
    if fits:
        return
    if value.shape != (0,):
        shape = ", ".join(["N", *("P" if n is None else str(n) for n in row)])
        raise Malformed(f"{name} must have shape ({shape}), got {value.shape}")
    object.__setattr__(owner, name, value.reshape(0, *(n or 0 for n in row)))


def _converted(name: str, value: object, kind: type[np.generic]) -> NDArray[Any]:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list; a tensor on a GPU, or with a gradient
        raise Malformed(f"{name} must be an array: {str(error).strip().splitlines()[0]}") from error
    if found.size and found.dtype.kind not in "biuf":
        raise Malformed(f"{name} must be an array of numbers, got {value!r:.60}")
    if kind is np.int64 and found.dtype.kind == "f" and not (np.isfinite(found) & (found == np.rint(found))).all():
        raise Malformed(f"{name} must hold whole numbers, got {found.ravel()[:4].tolist()}")
    return found.astype(kind)


def _set_tuple(owner: object, name: str) -> tuple[Any, ...]:
    """Makes a tuple of what stands there. Raises Malformed."""
    value = getattr(owner, name)
    if type(value) is not tuple:
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            raise Malformed(f"{name} must be a tuple, got {value!r:.60}")
        value = tuple(value.tolist() if isinstance(value, np.ndarray) else value)
        object.__setattr__(owner, name, value)
    return value


DETECTION_COLUMNS: dict[str, Any] = {
    "masks": None,
    "polygons": None,
    "source_ids": None,
    "crowd": False,
    "extras": "",
    "replaced": None,
}
"""The columns of Detections that may be left out, and what a row then holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one image, from a model or from existing labels; parallel arrays of length N.

    A box may be degenerate or outside the image here: who finds it reports it as it is, the labeler drops it
    with a reason. `masks[i]` is an existing mask that must be kept as it is, `polygons[i]` its polygons in
    upright pixels if the source had polygons, `source_ids[i]` the annotation id in the source, `extras[i]` its
    other fields. `replaced[i]` is an existing mask that is to be made anew, kept here to say what changed.
    `unlabelled`: the source has no labels for the picture, not even that it is empty. `notes` are short stable
    words such as MAX_DET, which the picture's record gets too.
    """

    boxes_xyxy: Float32
    scores: Float32
    category_ids: Int64
    masks: tuple[Rle | None, ...] = ()
    polygons: tuple[tuple[Polygon, ...] | None, ...] = ()
    source_ids: tuple[int | None, ...] = ()
    crowd: tuple[bool, ...] = ()
    extras: tuple[str, ...] = ()
    replaced: tuple[Rle | None, ...] = ()
    unlabelled: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _set_array(self, "boxes_xyxy", np.float32, (4,))
        _set_array(self, "scores", np.float32, ())
        _set_array(self, "category_ids", np.int64, ())
        n = len(self.boxes_xyxy)
        if len(self.scores) != n or len(self.category_ids) != n:
            raise Malformed(
                f"{n} boxes, but scores {self.scores.shape} and category_ids {self.category_ids.shape}"
            )
        # Model detectors give no extras: one empty entry a box, so that zip stays strict everywhere.
        for name, empty in DETECTION_COLUMNS.items():
            value = _set_tuple(self, name)
            if not value:
                object.__setattr__(self, name, (empty,) * n)
            elif len(value) != n:
                raise Malformed(f"{n} boxes, but {len(value)} {name}")
        _set_tuple(self, "notes")

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @classmethod
    def none(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def plus(self, other: Detections) -> Detections:
        """The rows of both, in this order."""
        columns = {name: getattr(self, name) + getattr(other, name) for name in DETECTION_COLUMNS}
        return Detections(
            np.concatenate([self.boxes_xyxy, other.boxes_xyxy]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.category_ids, other.category_ids]),
            **columns,
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
        )

    def select(self, index: Sequence[int] | Int64) -> Detections:
        """The rows named by `index`, all columns together."""
        rows = [int(i) for i in index]
        columns = {name: tuple(getattr(self, name)[i] for i in rows) for name in DETECTION_COLUMNS}
        return Detections(
            self.boxes_xyxy[rows].reshape(-1, 4),
            self.scores[rows],
            self.category_ids[rows],
            **columns,
            unlabelled=self.unlabelled,
            notes=self.notes,
        )


NO_OBJECT = -1
"""In `Prompts.objects`: the prompt asks for whatever is there."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """What an answer must be to become an object where nobody knows what is there: the filters of
    `SAM2AutomaticMaskGenerator`, with its meaning.

    `three_masks`: a prompt has up to three answers, not one. Kept are answers whose predicted IoU is above
    `min_predicted_iou`, and whose stability is at least `min_stability`: at the picture's size, the IoU of the mask
    with itself under thresholds of +1 and -1. Of answers whose tight boxes have an IoU above `box_iou` within one
    window, or above `window_iou` between windows, one is kept; of those whose masks have one above `mask_iou` too,
    unless that is None.
    """

    three_masks: bool
    min_predicted_iou: float
    min_stability: float
    min_area_px: int
    max_area_fraction: float
    box_iou: float
    window_iou: float
    mask_iou: float | None


_PROMPT_COLUMNS: tuple[tuple[str, type[np.generic], tuple[int | None, ...]], ...] = (
    ("boxes_xyxy", np.float32, (4,)),
    ("points_xy", np.float32, (None, 2)),
    ("point_signs", np.int64, (None,)),
    ("objects", np.int64, ()),
    ("windows_xyxy", np.int64, (4,)),
)
"""The arrays of Prompts, and the shape of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """What is asked about one image: a table of N prompts, each a box, signed points, a mask that is roughly right,
    or a combination.

    `boxes_xyxy` (N, 4) and `points_xy` (N, P, 2) are in pixels of the upright image. A row of NaN stands for no box.
    `point_signs` (N, P) is 1 for inside, 0 for outside, -1 for padding. `masks[i]` is at the image's size.

    `objects` (N,) says which object each prompt asks for: the detection of that number, one of the `added` objects
    that no detector found (numbered after the detections), or NO_OBJECT. Several prompts may ask for one object:
    `keep` says whether the first one's answer stays, or the one that agrees best with the others. `refused` are
    objects that are not asked for, and why. `windows_xyxy` (N, 4), in whole pixels, is the part of the image that a
    prompt is about, encoded as if it were the image; None: all of it. A prompt is refused (`bad_window`) whose window
    is empty, reaches out of the image or does not meet its box. A segmenter never sees windows, and only needs
    `sieve` where it gives several answers to a prompt.
    """

    boxes_xyxy: Float32 | None = None
    points_xy: Float32 | None = None
    point_signs: Int64 | None = None
    masks: tuple[Rle | None, ...] | None = None
    objects: Int64 | None = None
    windows_xyxy: Int64 | None = None
    added: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)
    keep: Literal["first", "medoid"] = "first"
    sieve: Sieve | None = None

    def __post_init__(self) -> None:
        for name, kind, row in _PROMPT_COLUMNS:
            if getattr(self, name) is not None:
                _set_array(self, name, kind, row)
        if self.masks is not None:
            _set_tuple(self, "masks")
        lengths = {len(a) for a in (self.boxes_xyxy, self.points_xy, self.masks) if a is not None}
        if len(lengths) != 1:
            raise Malformed(f"prompts need one kind of one length at least, got lengths {sorted(lengths)}")
        points, signs = self.points_xy, self.point_signs
        if (points is None) != (signs is None):
            raise Malformed("points need signs, and signs need points")
        if points is not None and signs is not None and points.shape[:2] != signs.shape:
            raise Malformed(f"points {points.shape} need one sign each, got {signs.shape}")
        if self.objects is None:
            object.__setattr__(self, "objects", np.arange(len(self), dtype=np.int64))
        rows = {len(a) for a in (self.point_signs, self.objects, self.windows_xyxy) if a is not None}
        if rows != lengths:
            raise Malformed(f"{lengths} prompts, but columns of {sorted(rows)} rows")

    def __len__(self) -> int:
        for column in (self.boxes_xyxy, self.points_xy, self.masks):
            if column is not None:
                return len(column)
        raise AssertionError("checked in __post_init__")

    @property
    def object_numbers(self) -> Int64:
        assert self.objects is not None
        return self.objects

    def select(self, rows: Sequence[int]) -> Prompts:
        """The prompts named by `rows`, all columns together."""
        index = list(rows)
        if index == list(range(len(self))):
            return self

        def of(column: Any) -> Any:
            return None if column is None else column[index]

        return replace(
            self,
            boxes_xyxy=of(self.boxes_xyxy),
            points_xy=of(self.points_xy),
            point_signs=of(self.point_signs),
            masks=None if self.masks is None else tuple(self.masks[row] for row in index),
            objects=of(self.objects),
            windows_xyxy=of(self.windows_xyxy),
        )


@dataclass(frozen=True, slots=True)
class PromptedMask:
    """The segmenter's answer to prompt number `prompt` of an image; a prompt may go unanswered.

    All scores are in [0, 1]: the model's own guess of its mask's IoU, the probability that there is an object,
    the IoU of the mask with itself under a shifted threshold, and the mean IoU with the answers to the other
    prompts about the same object where those were asked.
    """

    prompt: int
    mask: Rle
    predicted_iou: float
    object_score: float | None = None
    stability: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of an image. `index` is its detection's position, its identity within the image.

    `box_xyxy` is the detection's box, or where nothing but a prompt said that there is an object the tight box of
    its mask; elsewhere the box of the mask is computed from the mask where it is needed. `origin`
    is `model`, or `label` when the mask came with the source and is kept as it is; then `polygons` are the
    source's own. `mask` is None only for a detection that never became a mask; those are always dropped.
    `replaced_iou` is the IoU with the source's mask where that was made anew. `quality` is what refining
    expects the mask's true IoU to be, from the scores and the shape; None where no refiner says.
    """

    index: int
    category_id: int
    box_xyxy: tuple[float, float, float, float]
    detector_score: float
    mask: Rle | None
    predicted_iou: float | None = None
    object_score: float | None = None
    stability: float | None = None
    agreement: float | None = None
    origin: Literal["model", "label"] = "model"
    polygons: tuple[Polygon, ...] | None = None
    source_id: int | None = None
    crowd: bool = False
    extra: str = ""
    replaced_iou: float | None = None
    quality: float | None = None

    def with_mask(self, mask: Rle) -> Instance:
        """The same object with another mask; source polygons no longer describe it."""
        return replace(self, mask=mask, polygons=None)


@dataclass(frozen=True, slots=True)
class Instances:
    """The objects of an image that one model found in one step; `notes` as those of Detections."""

    found: tuple[Instance, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _set_tuple(self, "notes")


@dataclass(frozen=True, slots=True)
class Columns:
    """Kept objects of an image in columns of length N, where these say all there is to write of each: it has a mask of
    the image's size, is not a crowd, and nothing came with the source. Scores are in [0, 1]; the model's own guess may
    be unknown. `counts` are the masks' run-length strings. Reading them costs a fraction of what `Instance`s cost."""

    category_ids: Sequence[int]
    detector_scores: Sequence[float]
    predicted_ious: Sequence[float | None]
    counts: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.category_ids)

    @property
    def is_sound(self) -> bool:
        """Whether all scores are in [0, 1]."""
        scores = [*self.detector_scores, *(iou for iou in self.predicted_ious if iou is not None)]
        # Where one is NaN, so is the sum, whatever is found to be the smallest and the largest.
        return not scores or (min(scores) >= 0.0 and max(scores) <= 1.0 and not math.isnan(sum(scores)))

    @classmethod
    def of(cls, instances: Sequence[Instance]) -> Columns | None:
        """None where they do not say all of these."""
        counts = [
            one.mask.counts
            for one in instances
            if one.mask and one.source_id is None and not (one.extra or one.crowd or one.polygons)
        ]
        found = cls(
            [one.category_id for one in instances],
            [one.detector_score for one in instances],
            [one.predicted_iou for one in instances],
            counts,
        )
        return found if len(counts) == len(instances) and found.is_sound else None


BEFORE_REFINING = (
    "bad_box", "bad_point", "bad_mask", "bad_window", "bad_prompt", "no_prompt", "crowd_box", "no_mask", "empty_mask"
)  # fmt: skip
"""How the reasons begin of objects that never became a mask; refiners use other words."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An instance that was not kept; `reason` starts with a short stable word: `min_area: 9 < 16 px`."""

    instance: Instance
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What refining decided about one candidate: `reason` when dropped, `mask` when the mask was changed,
    and the `quality` it expects."""

    reason: str | None = None
    mask: Rle | None = None
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Everything known about one image.

    `candidates` is all that was found, as it was found; `verdicts` (same length) is what refining decided,
    so that it can be decided again without a model. `code` and `detail` explain `failed` and `skipped`.
    """

    image_id: str
    path: str
    status: Status
    info: ImageInfo | None = None
    code: str = ""
    detail: str = ""
    split: str | None = None
    candidates: tuple[Instance, ...] = ()
    verdicts: tuple[Verdict, ...] = field(default=())
    source_id: int | None = None
    extra: str = ""

    def __post_init__(self) -> None:
        if len(self.candidates) != len(self.verdicts):
            raise ValueError(f"{len(self.candidates)} candidates, but {len(self.verdicts)} verdicts")

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The kept instances, each with its final mask and quality."""
        return tuple(
            [
                candidate if verdict.mask is None and verdict.quality is None else _judged(candidate, verdict)
                for candidate, verdict in zip(self.candidates, self.verdicts, strict=True)
                if verdict.reason is None
            ]
        )

    @property
    def num_kept(self) -> int:
        """How many `instances` there are; none is made for it."""
        return sum(verdict.reason is None for verdict in self.verdicts)

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        return tuple(
            Dropped(_judged(candidate, verdict), verdict.reason)
            for candidate, verdict in zip(self.candidates, self.verdicts, strict=True)
            if verdict.reason is not None
        )

    def judged(self, index: int) -> Instance:
        """Candidate `index`, kept or dropped, with its final mask and quality."""
        return _judged(self.candidates[index], self.verdicts[index])


def _judged(candidate: Instance, verdict: Verdict) -> Instance:
    instance = candidate if verdict.mask is None else candidate.with_mask(verdict.mask)
    return instance if verdict.quality is None else replace(instance, quality=verdict.quality)
