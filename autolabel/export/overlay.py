"""Pictures with the masks drawn on them, to see at a glance what was labelled. For eyes, not for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autolabel.core.errors import ImageError
from autolabel.core.protocols import ExportReport, RecordReader, RoundTrip
from autolabel.core.types import ImageRecord, ImageRef, Instance, UInt8
from autolabel.export.classes import check_classes
from autolabel.export.listing import LISTING_NOTES, labelled
from autolabel.export.names import safe_path
from autolabel.export.pictures import PICTURE_NOTES, pictured
from autolabel.export.policy import POLICY_NOTES, Policy, prepared
from autolabel.export.reporting import noted, reported
from autolabel.ops.drawing import Colour, colour_of, rim_of, scaled_crop
from autolabel.ops.export_mark import MANIFEST
from autolabel.ops.masks import area_px, bounds_xyxy
from autolabel.ops.settings import count, flag, fraction, optional

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

Box = tuple[float, float, float, float]

_SMALL_SIDE = 640
"""Pictures smaller than this are shown larger, pixels as squares, up to `_MOST` times."""
_MOST = 4
_LONGEST_NAME = 60


class OverlayExporter:
    """One JPEG an image: blended masks with a crisp outline, the mask's box, class and score.

    `max_images` (null: all) are spread evenly over the labelled images. Pictures that cannot be read any
    more, or that changed since, are counted and left out.
    """

    def __init__(
        self, *, max_images: int | None, max_side: int, alpha: float, labels: bool, jpeg_quality: int
    ) -> None:
        self._max_images = optional(count, "max_images", max_images, 1)
        self._max_side = count("max_side", max_side, 64)
        self._alpha = fraction("alpha", alpha)
        self._labels = flag("labels", labels)
        self._quality = count("jpeg_quality", jpeg_quality, 1, 100)

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write one picture an image into `directory`, in the folders of the image ids."""
        names = {category.id: category.name for category in run.categories}
        counts: Counter[str] = Counter()
        total = sum(1 for _ in labelled(run, counts))
        taken: set[str] = set()
        with pictured(directory, run, counts) as draft:
            for record in self._chosen(run, total):
                picture = self._picture(record, names, counts)
                if picture is not None:
                    draft.write(_unused(record.image_id, taken), [picture])
        return reported(draft.files, counts, _notes(counts, total))

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """Pictures for eyes cannot be read back, so there is nothing to compare."""
        return RoundTrip(0, ())

    def _chosen(self, run: RecordReader, total: int) -> Iterator[ImageRecord]:
        if self._max_images is None or total <= self._max_images:
            yield from labelled(run)
            return
        wanted = {i * total // self._max_images for i in range(self._max_images)}
        yield from (record for i, record in enumerate(labelled(run)) if i in wanted)

    def _picture(self, record: ImageRecord, names: dict[int, str], counts: Counter[str]) -> bytes | None:
        import cv2

        from autolabel.ops.images import load_frame

        assert record.info is not None, "checked in labelled"
        height, width = record.info.size_hw
        try:
            ref = ImageRef(record.image_id, record.path)
            frame = load_frame(ref, max_pixels=height * width, min_side=1)
        except ImageError:
            counts["images_missing"] += 1
            return None
        if frame.info.sha256 != record.info.sha256 and record.info.sha256:
            counts["images_changed"] += 1
            return None
        objects = prepared(record, Policy(), counts)
        check_classes(names, (one.category_id for one in objects), record)
        counts["images"] += 1
        counts["instances"] += len(objects)
        drawn = draw_instances(
            frame.image_rgb,
            objects,
            names,
            max_side=self._max_side,
            alpha=self._alpha,
            labels=self._labels,
        )
        flags = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        return bytes(cv2.imencode(".jpg", np.ascontiguousarray(drawn[..., ::-1]), flags)[1].tobytes())


def draw_instances(
    image_rgb: UInt8,
    instances: Sequence[Instance],
    names: dict[int, str],
    *,
    max_side: int,
    alpha: float,
    labels: bool,
) -> UInt8:
    """The picture with its instances, (h, w, 3): at most `max_side` px, small pictures enlarged."""
    scale = _scale(image_rgb.shape[:2], max_side)
    canvas = _resized(image_rgb, scale)
    unit = max(canvas.shape[:2]) / 800  # lines and letters grow with the picture
    shown = [instance for instance in instances if instance.mask is not None and area_px(instance.mask)]
    # Small ones last, so that they lie on top.
    shown.sort(key=lambda instance: -area_px(instance.mask) if instance.mask else 0)
    for instance in shown:
        _draw_mask(canvas, instance, scale, alpha, max(1, round(unit * 1.6)))
    return _with_labels(canvas, shown, names, scale, unit) if labels and shown else canvas


def _notes(counts: Counter[str], total: int) -> Iterator[str]:
    seen = counts["images"] + counts["images_missing"] + counts["images_changed"]
    if seen < total:
        yield f"{seen} of {total} images are drawn, spread evenly (export.overlay.max_images)"
    yield from noted(counts, LISTING_NOTES, PICTURE_NOTES, POLICY_NOTES)


def _unused(image_id: str, taken: set[str]) -> str:
    """A path of its own: the suffix stays in it, or a.jpg and a.png would meet; no folder is called like a file."""
    *folders, name = safe_path(image_id).split("/")
    path = "/".join([*(f"{one}_" if one.endswith(".jpg") or one == MANIFEST else one for one in folders), name])
    while path in taken:  # only ids with escaped characters, and those of such folders, can meet
        path += "~"
    taken.add(path)
    return f"{path}.jpg"


def _scale(size_hw: Sequence[int], max_side: int) -> float:
    longest = max(size_hw)
    if longest > max_side:
        return max_side / longest
    return float(max(1, min(_MOST, _SMALL_SIDE // longest, max_side // longest)))


def _resized(image_rgb: UInt8, scale: float) -> UInt8:
    import cv2

    if scale == 1.0:
        return image_rgb.copy()
    height, width = (max(1, round(side * scale)) for side in image_rgb.shape[:2])
    how = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image_rgb, (width, height), interpolation=how), np.uint8)


def _draw_mask(canvas: UInt8, instance: Instance, scale: float, alpha: float, line: int) -> None:
    import cv2

    assert instance.mask is not None, "only instances with a mask are drawn"
    colour = colour_of(instance.index)
    inside, left, top = scaled_crop(instance.mask, scale, canvas.shape[:2])
    window = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
    blended = window.astype(np.float32) * (1 - alpha) + np.array(colour, np.float32) * alpha
    np.copyto(window, np.rint(blended).astype(np.uint8), where=inside[..., None])
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, rim_of(colour), line + 2, cv2.LINE_AA, offset=(left, top))
    cv2.drawContours(canvas, outlines, -1, colour, line, cv2.LINE_AA, offset=(left, top))
    bottom_right = (left + inside.shape[1] - 1, top + inside.shape[0] - 1)
    cv2.rectangle(canvas, (left, top), bottom_right, colour, max(1, line // 2), cv2.LINE_AA)


def _with_labels(
    canvas: UInt8, shown: Sequence[Instance], names: dict[int, str], scale: float, unit: float
) -> UInt8:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(10, round(unit * 15)))
    placed: list[Box] = []
    for instance in shown:
        assert instance.mask is not None, "only instances with a mask are drawn"
        bounds = bounds_xyxy(instance.mask)
        assert bounds is not None, "empty masks are not drawn"
        name = _short(names.get(instance.category_id, str(instance.category_id)))
        text = f"{name} {instance.detector_score:.2f}" if instance.origin == "model" else name
        corner = (bounds[0] * scale, bounds[1] * scale)
        _draw_label(pen, text, corner, colour_of(instance.index), font, placed, picture.size)
    return np.asarray(picture, np.uint8)


def _short(name: str) -> str:
    """What a label can show; drawing fails for texts without end."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _draw_label(
    pen: ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: Colour,
    font: FreeTypeFont | ImageFont,
    placed: list[Box],
    size: tuple[int, int],
) -> None:
    text = "".join(char if char.isprintable() else "?" for char in text)
    box = pen.textbbox((0, 0), text, font=font)
    pad = max(2.0, (box[3] - box[1]) * 0.25)
    width, height = box[2] - box[0] + 2 * pad, box[3] - box[1] + 2 * pad
    spot = _free_spot(corner, (width, height), placed, size)
    placed.append(spot)
    pen.rectangle(spot, fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    pen.text((spot[0] + pad - box[0], spot[1] + pad - box[1]), text, fill=ink, font=font)


def _free_spot(
    corner: tuple[float, float], size_wh: tuple[float, float], placed: Sequence[Box], size: tuple[int, int]
) -> Box:
    """Above the object's corner, or the nearest row below where no label lies yet; inside the picture."""
    width, height = size_wh
    x = max(0.0, min(corner[0], size[0] - width))
    top = max(0.0, corner[1] - height)
    rows = [min(top + row * height, max(0.0, size[1] - height)) for row in range(4)]
    spots = [(x, y, x + width, y + height) for y in rows]
    free = (spot for spot in spots if not any(_overlap(spot, other) for other in placed))
    return next(free, spots[0])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
