"""Training scenes that no camera took: cells, facades, and random shapes filled with pieces of photographs.

Photographs of everyday things teach a model what things look like. Where it knows nothing it must still follow
an edge; these scenes hold only edges. Colours, textures and shapes are random on purpose: none of them is worth
learning by heart.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Rng = np.random.Generator
# A piece of a photograph, of the height and width asked for.
Texture = Callable[[Rng, tuple[int, int]], Pixels]
Drawn = tuple[Pixels, Pixels]  # image (S, S, 3) and masks (n, S, S), coverage 0..255

MAX_MASKS = 12
SUBPIXEL_BITS = 4
POINTS_A_BLOB = 48


def draw(rng: Rng, size: int, texture: Texture) -> Drawn:
    kind = rng.random()
    if kind < 0.38:
        return cells(rng, size, texture)
    if kind < 0.68:
        return facade(rng, size, texture)
    return shapes(rng, size, texture)


def cells(rng: Rng, size: int, texture: Texture) -> Drawn:
    """Blobs of one kind on a plain ground, bright on dark or dark on bright, often touching."""
    ground = _colour(rng)
    body = _colour_unlike(rng, ground)
    if rng.random() < 0.35:  # fluorescence: one channel on black
        ground, body = rng.uniform(0, 35, 3), rng.uniform(0.1, 1, 3) * rng.uniform(70, 255)
    image = ground + _cloud(rng, size, size, rng.uniform(3, 14)) * rng.uniform(0, 25)
    if rng.random() < 0.2:
        share = rng.uniform(0.2, 0.6)
        image = (1 - share) * image + share * texture(rng, (size, size))
    radius = size * np.exp(rng.uniform(np.log(0.018), np.log(0.16)))
    rough, oval = rng.uniform(0, 0.12), np.exp(rng.uniform(0, 0.6))
    rim = rng.uniform(-70, 50) if rng.random() < 0.5 else 0.0
    grain, spread = rng.uniform(0, 22), rng.uniform(0, 30)
    soft = rng.uniform(0, 0.12) * radius
    crowding = rng.uniform(0.05, 0.6)
    masks: list[Pixels] = []
    taken = np.zeros((size, size), np.uint8)
    for _ in range(int(min(90, 1 + crowding * size**2 / (np.pi * radius**2)))):
        own = radius * np.exp(rng.normal(0, 0.18))
        centre = rng.uniform(-0.3 * own, size + 0.3 * own, 2)
        mask = _filled(size, _blob(rng, centre, own, rough, oval))
        area = np.count_nonzero(mask)
        if area < 12 or np.count_nonzero(taken[mask > 127]) > 0.12 * area:
            continue
        np.maximum(taken, mask, out=taken)
        masks = [_without(earlier, mask) for earlier in masks]
        masks.append(mask)
        x, y, w, h = cv2.boundingRect(mask)
        window = slice(y, y + h), slice(x, x + w)
        alpha = mask[window].astype(np.float32)[..., None] / 255
        tone = body + rng.normal(0, spread) + _cloud(rng, h, w, rng.uniform(2, 5)) * grain
        if rim:
            depth = cv2.distanceTransform((mask[window] > 127).astype(np.uint8), cv2.DIST_L2, 3)
            tone = tone + rim * np.exp(-depth / max(1.0, 0.12 * own))[..., None]
        if rng.random() < 0.3:  # a nucleus
            inner = _blob(rng, centre + rng.normal(0, 0.2 * own, 2), own * rng.uniform(0.15, 0.5), 0.1, 1.2)
            tone = tone + _filled(size, inner)[window][..., None] * rng.uniform(-0.25, 0.25)
        image[window] = image[window] * (1 - alpha) + tone * alpha
    if soft > 0.4:
        image = cv2.GaussianBlur(image, (0, 0), soft)
    for _ in range(int(rng.integers(0, 12))):  # crumbs that are not cells
        crumb = tuple(rng.integers(0, size, 2).tolist())
        cv2.circle(image, crumb, int(rng.integers(1, 3)), _colour(rng).tolist(), -1, cv2.LINE_AA)
    return _finish(rng, image, masks)


def facade(rng: Rng, size: int, texture: Texture) -> Drawn:
    """A wall with rows of windows and a door or two, seen at a slight angle."""
    wall = _colour(rng)
    image = wall + _cloud(rng, size, size, rng.uniform(2, 8)) * rng.uniform(0, 25)
    image += rng.normal(0, rng.uniform(0, 10), (size, size, 1))
    if rng.random() < 0.4:
        share = rng.uniform(0.3, 0.8)
        image = (1 - share) * image + share * texture(rng, (size, size))
    if rng.random() < 0.4:  # courses of bricks or boards
        course = size / rng.integers(20, 60)
        for y in np.arange(rng.uniform(0, course), size, course):
            image[int(y) : int(y) + 1] += rng.uniform(-30, 10)
    image = np.clip(image, 0, 255).astype(np.float32)
    rows, columns = int(rng.integers(1, 7)), int(rng.integers(2, 8))
    cell_h, cell_w = size / rows, size / columns
    share_h, share_w = rng.uniform(0.35, 0.8), rng.uniform(0.3, 0.75)
    style = _WindowStyle(rng, texture)
    masks: list[Pixels] = []
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.08:
                continue
            h, w = cell_h * share_h, cell_w * share_w
            x0 = (column + 0.5) * cell_w - w / 2 + rng.normal(0, 0.01) * size
            y0 = (row + 0.5) * cell_h - h / 2
            door = row == rows - 1 and rng.random() < 0.25
            if door:
                h = min(size - y0, h * rng.uniform(1.1, 1.4))
            window, *ledges = style.put(rng, image, np.array([x0, y0, x0 + w, y0 + h]), plain=door)
            hidden = np.maximum.reduce([window, *ledges])
            masks = [_without(earlier, hidden) for earlier in masks]
            masks += [window, *(ledge for ledge in ledges if rng.random() < 0.5)]
    tilt = rng.uniform(0, 0.12) if rng.random() < 0.6 else 0.0
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    moved = corners + rng.uniform(-tilt, tilt, (4, 2)).astype(np.float32) * size
    warp = cv2.getPerspectiveTransform(corners, moved)
    image = cv2.warpPerspective(image, warp, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return _finish(rng, image, [cv2.warpPerspective(mask, warp, (size, size)) for mask in _some(rng, masks)])


class _WindowStyle:
    """What all windows of one house share."""

    def __init__(self, rng: Rng, texture: Texture) -> None:
        self._texture = texture
        self._frame = _colour(rng)
        self._frame_share = rng.uniform(0.02, 0.14)
        self._glass = _colour(rng) * rng.uniform(0.2, 0.8)
        self._mirror = rng.uniform(0, 0.6)
        self._bars = rng.integers(0, 4, 2)
        self._arched = rng.random() < 0.25
        self._sill = _colour(rng) if rng.random() < 0.5 else None
        self._rail = _colour(rng) if rng.random() < 0.3 else None
        self._shadow = rng.uniform(0.5, 1.0)

    def put(self, rng: Rng, image: NDArray[np.float32], box: NDArray[np.float64], *, plain: bool) -> list[Pixels]:
        """Draw one; masks of the window and of the ledges that stand out from it."""
        size = len(image)
        x0, y0, x1, y1 = box
        w, h = x1 - x0, y1 - y0
        outline = self._outline(box)
        mask = _filled(size, outline)
        if self._shadow < 0.9:
            _lay(image, _filled(size, outline + np.array([0.03, 0.04]) * w), image * self._shadow)
        _lay(image, mask, self._frame)
        inner = self._outline(box + np.array([1, 1, -1, -1]) * self._frame_share * min(w, h))
        pane = np.broadcast_to(self._glass * rng.uniform(0.7, 1.3), image.shape)
        if self._mirror > 0.1:
            pane = (1 - self._mirror) * pane + self._mirror * self._texture(rng, (size, size))
        pane = pane * np.linspace(rng.uniform(0.6, 1.2), 1, size)[:, None, None]
        _lay(image, _filled(size, inner), pane)
        if not plain:
            thick = max(1, round(self._frame_share * min(w, h) * 0.7))
            for i in range(1, self._bars[0] + 1):
                x = round(x0 + w * i / (self._bars[0] + 1))
                cv2.line(image, (x, round(y0)), (x, round(y1) - 1), self._frame.tolist(), thick)
            for i in range(1, self._bars[1] + 1):
                y = round(y0 + h * i / (self._bars[1] + 1))
                cv2.line(image, (round(x0), y), (round(x1) - 1, y), self._frame.tolist(), thick)
        ledges: list[Pixels] = []
        if self._sill is not None and not plain:
            ledge = _filled(size, _rectangle(x0 - 0.08 * w, y1, x1 + 0.08 * w, y1 + max(2.0, 0.07 * h)))
            _lay(image, ledge, self._sill)
            mask = _without(mask, ledge)
            ledges.append(ledge)
        if self._rail is not None and not plain:
            rail = _filled(size, _rectangle(x0 - 0.15 * w, y1 - 0.3 * h, x1 + 0.15 * w, y1 + 0.03 * h))
            _lay(image, rail, self._rail * rng.uniform(0.9, 1.1))
            mask = _without(mask, rail)
            ledges = [_without(ledge, rail) for ledge in ledges] + [rail]
        return [mask, *ledges]

    def _outline(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        x0, y0, x1, y1 = box
        if not self._arched:
            return _rectangle(x0, y0, x1, y1)
        angle = np.linspace(np.pi, 2 * np.pi, 16)
        rise = min((x1 - x0) / 2, 0.6 * (y1 - y0))
        top = np.stack([(x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angle), y0 + rise + rise * np.sin(angle)], axis=1)
        return np.concatenate([top, [[x1, y1], [x0, y1]]])


def shapes(rng: Rng, size: int, texture: Texture) -> Drawn:
    """Pieces of photographs with random outlines on a photograph: nothing to recognise, every edge counts."""
    image = texture(rng, (size, size)).astype(np.float32)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 8))
    masks: list[Pixels] = []
    for _ in range(int(rng.integers(2, 11))):
        radius = size * np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
        centre = rng.uniform(0, size, 2)
        if rng.random() < 0.3:
            corners = int(rng.integers(3, 9))
            angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
            reach = radius * rng.uniform(0.5, 1.2, corners)
            outline = centre + np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
        else:
            outline = _blob(rng, centre, radius, rng.uniform(0, 0.45), np.exp(rng.uniform(0, 1.1)))
        mask = _filled(size, outline)
        if np.count_nonzero(mask) < 12:
            continue
        filling = texture(rng, (size, size)) if rng.random() < 0.75 else np.broadcast_to(_colour(rng), image.shape)
        _lay(image, mask, filling * rng.uniform(0.6, 1.4))
        masks = [_without(earlier, mask) for earlier in masks] + [mask]
    return _finish(rng, image, masks)


# --- pieces ----------------------------------------------------------------------------------------------


def _finish(rng: Rng, image: NDArray[np.floating], masks: list[Pixels]) -> Drawn:
    size = len(image)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.3, size / 200))
    kept = _some(rng, masks)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return pixels, np.stack(kept) if kept else np.zeros((0, size, size), np.uint8)


def _some(rng: Rng, masks: list[Pixels]) -> list[Pixels]:
    return [masks[i] for i in rng.permutation(len(masks))[:MAX_MASKS]]


def _blob(rng: Rng, centre: NDArray[np.float64], radius: float, rough: float, oval: float) -> NDArray[np.float64]:
    """A closed curve: an ellipse whose radius has a few random harmonics."""
    angle = np.linspace(0, 2 * np.pi, POINTS_A_BLOB, endpoint=False)
    reach = np.ones(POINTS_A_BLOB)
    for k in range(2, 7):
        reach += rough * rng.normal() / np.sqrt(k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    reach = np.clip(reach, 0.25, 2) * radius
    points = np.stack([np.cos(angle) * reach * oval, np.sin(angle) * reach / oval], axis=1)
    turn = rng.uniform(0, 2 * np.pi)
    return centre + points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _filled(size: int, outline_xy: NDArray[np.float64]) -> Pixels:
    mask = np.zeros((size, size), np.uint8)
    # OpenCV's whole numbers are centres of pixels; ours are their upper left corners.
    fixed = np.round((outline_xy - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def _without(mask: Pixels, hidden_by: Pixels) -> Pixels:
    return np.minimum(mask, 255 - hidden_by)


def _lay(image: NDArray[np.float32], mask: Pixels, paint: NDArray[np.floating]) -> None:
    x, y, w, h = cv2.boundingRect(mask)
    window = slice(y, y + h), slice(x, x + w)
    alpha = mask[window][..., None].astype(np.float32) / 255
    under = paint[window] if paint.ndim == 3 else paint
    image[window] = image[window] * (1 - alpha) + under * alpha


def _cloud(rng: Rng, h: int, w: int, cells_across: float) -> NDArray[np.float32]:
    """(h, w, 1) smooth noise of about unit spread."""
    n = max(2, round(cells_across))
    return cv2.resize(rng.standard_normal((n, n), np.float32), (w, h), interpolation=cv2.INTER_CUBIC)[..., None]


def _colour(rng: Rng) -> NDArray[np.float64]:
    grey = rng.uniform(10, 245)
    return np.clip(grey + rng.normal(0, 35, 3) * (rng.random() < 0.7), 0, 255)


def _colour_unlike(rng: Rng, other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Far enough to be seen, at times only just."""
    wanted = rng.uniform(18, 140)
    direction = rng.normal(0, 0.4, 3) + rng.choice([-1, 1])
    colour = other + direction / np.abs(direction).mean() * wanted
    return np.clip(colour, 0, 255) if np.abs(np.clip(colour, 0, 255) - other).mean() > 12 else 255 - other
