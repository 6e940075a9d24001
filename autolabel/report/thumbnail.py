"""Small pictures as data addresses: the photograph, and its masks as a second, transparent picture on top, so that a
page can switch them off. A picture that is gone or changed is a reason in words, never an error.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRecord, Instance, UInt8
from autolabel.report.markup import Html, element

MAX_SIDE = 480
"""Longest side of a thumbnail in pixels: twice what a page shows, for screens with small pixels."""
_MOST = 8
"""Small crops are shown larger, up to this many times."""
_SPACE = 0.35
"""Around a box in its window, as a share of the longer side of the box."""
_LEAST_HEIGHT = 48
"""Pixels of the picture that a window shows at least, as far as the picture has them."""
_QUALITY = 72
_LOSSLESS = 101
_FILL = 105

Window = tuple[int, int, int, int]
"""Part of a picture, half-open xyxy in whole pixels, inside it."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """`picture` and `overlay` are data addresses of `width` x `height` px. With a `problem` both are "" and the
    size is that of the space to keep free."""

    picture: str
    overlay: str
    width: int
    height: int
    problem: str = ""

    def html(self, alt: str) -> Html:
        """The two layers, or the reason why there are none."""
        if self.problem:
            return element("div", element("span", self.problem), class_="shot missing", role="img", aria_label=alt)
        size: dict[str, str | int] = {"width": self.width, "height": self.height, "decoding": "async"}
        layers = [element("img", src=self.picture, alt=alt, **size)]
        if self.overlay:
            layers.append(element("img", src=self.overlay, alt="", class_="overlay", **size))
        return element("div", *layers, class_="shot")


def thumbnail(
    record: ImageRecord,
    instances: Sequence[Instance] | None = None,
    *,
    window: Window | None = None,
    max_side: int = MAX_SIDE,
    boxes: bool = False,
) -> Thumbnail:
    """The record's picture with `instances` on it (None: all that were kept), or the part in `window`.

    `boxes` draws the prompt boxes too. Reads and checks the file; see `draw` for a picture that is at hand.
    """
    try:
        image_rgb = picture_of(record)
    except ImageError as error:
        return missing(record, f"{error.code}: {error.detail}", window)
    return draw(
        image_rgb,
        record.instances if instances is None else instances,
        window=window,
        max_side=max_side,
        boxes=boxes,
    )


def picture_of(record: ImageRecord) -> UInt8:
    """Upright RGB (H, W, 3) as it was labelled. Raises ImageError, `changed` when it is another picture now."""
    from autolabel.ops.images import upright_rgb

    if record.info is None:
        raise ImageError(record.code or "failed", record.detail or "it was never decoded")
    return upright_rgb(record)


def draw(
    image_rgb: UInt8,
    instances: Sequence[Instance],
    *,
    window: Window | None = None,
    max_side: int = MAX_SIDE,
    boxes: bool = False,
) -> Thumbnail:
    """Photograph and masks of a picture, or of the `window` of it."""
    import cv2

    height, width = image_rgb.shape[:2]
    x0, y0, x1, y1 = window or (0, 0, width, height)
    part = image_rgb[y0:y1, x0:x1]
    scale = _scale(part.shape[:2], max_side)
    size_hw = max(1, round((y1 - y0) * scale)), max(1, round((x1 - x0) * scale))
    layer = _layer(instances, scale, size_hw, (x0, y0), boxes)
    overlay = "" if layer is None else _webp(layer, _LOSSLESS)
    # A browser enlarges a small photograph as well as we could, in fewer bytes; outlines must be drawn large.
    small = cv2.resize(part, size_hw[::-1], interpolation=cv2.INTER_AREA) if scale < 1 else part
    return Thumbnail(_webp(small, _QUALITY), overlay, size_hw[1], size_hw[0])


def missing(record: ImageRecord, problem: str, window: Window | None = None) -> Thumbnail:
    """A placeholder with the reason, of the shape that the picture would have."""
    height, width = (3, 4) if record.info is None else record.info.size_hw
    if window is not None:
        width, height = window[2] - window[0], window[3] - window[1]
    scale = MAX_SIDE / max(width, height)
    return Thumbnail("", "", max(1, round(width * scale)), max(1, round(height * scale)), problem)


def window_around(box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> Window:
    """The box with some space around it: 4:3 as far as the picture reaches. A box may be anything, also not finite or
    outside the picture."""
    height, width = size_hw
    # Nearer than the picture is wide or high: from farther away the window is the same.
    x0, y0, x1, y1 = np.clip(np.nan_to_num(box_xyxy), (-width, -height) * 2, (2 * width, 2 * height) * 2).tolist()
    space = _SPACE * max(x1 - x0, y1 - y0, 1.0)
    half_w, half_h = (x1 - x0) / 2 + space, max((y1 - y0) / 2 + space, _LEAST_HEIGHT / 2)
    half_w, half_h = max(half_w, half_h * 4 / 3), max(half_h, half_w * 3 / 4)
    left, right = _within((x0 + x1) / 2, half_w, width)
    top, bottom = _within((y0 + y1) / 2, half_h, height)
    return left, top, right, bottom


def _within(centre: float, half: float, limit: int) -> tuple[int, int]:
    """An interval of 2 x `half` inside [0, limit], moved inwards where it would reach out."""
    length = max(1, min(limit, math.ceil(2 * half)))
    low = min(max(0, math.floor(centre - half)), limit - length)
    return low, low + length


def _scale(size_hw: Sequence[int], max_side: int) -> float:
    longest = max(size_hw)
    return max_side / longest if longest > max_side else float(max(1, min(_MOST, max_side // longest)))


def _layer(
    instances: Sequence[Instance],
    scale: float,
    canvas_hw: tuple[int, int],
    origin_xy: tuple[int, int],
    boxes: bool,
) -> UInt8 | None:
    """Masks as RGBA (h, w, 4) on nothing; None when there is nothing to draw."""
    from autolabel.ops.masks import area_px

    shown = [i for i in instances if i.mask is not None or boxes]
    # Small ones last, so that they lie on top.
    shown.sort(key=lambda one: -area_px(one.mask) if one.mask is not None else 0)
    canvas = np.zeros((*canvas_hw, 4), np.uint8)
    for instance in shown:
        _draw_mask(canvas, instance, scale, origin_xy)
        if boxes:
            _draw_box(canvas, instance, scale, origin_xy)
    return canvas if canvas.any() else None


def _draw_mask(canvas: UInt8, instance: Instance, scale: float, origin_xy: tuple[int, int]) -> None:
    import cv2

    from autolabel.ops.drawing import colour_of, rim_of, scaled_crop

    if instance.mask is None:
        return
    inside, left, top = scaled_crop(instance.mask, scale, canvas.shape[:2], origin_xy)
    if not inside.size:
        return
    colour = colour_of(instance.index)
    window = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
    np.copyto(window, np.array([*colour, _FILL], np.uint8), where=inside[..., None])
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for shade, thickness in ((rim_of(colour), 4), (colour, 2)):
        cv2.drawContours(canvas, outlines, -1, (*shade, 255), thickness, cv2.LINE_8, offset=(left, top))


def _draw_box(canvas: UInt8, instance: Instance, scale: float, origin_xy: tuple[int, int]) -> None:
    import cv2

    far = 4.0 * max(canvas.shape[:2])  # drawing takes time for every pixel of a line, seen or not
    box = (np.array(instance.box_xyxy) - origin_xy * 2) * scale - (0, 0, 1, 1)
    left, top, right, bottom = np.rint(np.clip(np.nan_to_num(box), -far, far)).astype(int).tolist()
    for shade, thickness in (((0, 0, 0), 5), ((255, 255, 255), 3)):
        cv2.rectangle(canvas, (left, top), (right, bottom), (*shade, 255), thickness)


def _webp(image: UInt8, quality: int) -> str:
    """RGB or RGBA as a data address; a quality above 100 is lossless."""
    import cv2

    order = [2, 1, 0, 3][: image.shape[2]]
    data = cv2.imencode(".webp", np.ascontiguousarray(image[..., order]), [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode("ascii")
