"""Training scenes for the segmenter: views, mosaics and pasted objects, with their masks.

A scene is square and has the size of the model's input. Objects appear at every size, because a data set
of single large objects teaches a model nothing about small ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.nano import drawn
from scripts.nano.dataset import ObjectMask, Picture

Pixels = NDArray[np.uint8]
Rng = np.random.Generator

# How often a picture comes from each data set: far above their share for the two with several objects.
DATASET_WEIGHTS = {"duts_tr": 0.46, "coco_train": 0.29, "ccp_fashion": 0.25}
DRAWN_RATE = 0.16  # of the scenes: no photograph, see `drawn`
CLOSE_UP_RATE = 0.3  # of the views around an object, where it is large enough: its own box is larger than they are
LARGEST_ENLARGEMENT = 3  # there is nothing to see in a blown-up picture
OVER_THE_EDGE_RATE = 0.3  # of the pasted objects: they may lie in part outside
MAX_OBJECTS_A_VIEW = 12
MIN_AREA_PX = 12


@dataclass(frozen=True, slots=True)
class Scene:
    image_rgb: Pixels  # (S, S, 3)
    masks: Pixels  # (n, S, S), coverage 0..255; n may be 0
    complete_labels: bool  # True: what no mask covers is no object


class SceneMaker:
    def __init__(self, *, pictures: Sequence[Picture]) -> None:
        self._by_dataset = {
            name: [p for p in pictures if p.dataset == name and p.objects] for name in DATASET_WEIGHTS
        }
        present = {name: weight for name, weight in DATASET_WEIGHTS.items() if self._by_dataset[name]}
        self._names = list(present)
        self._weights = np.array(list(present.values())) / sum(present.values())

    def make(self, rng: Rng, size: int, mosaic_rate: float) -> Scene:
        if rng.random() < DRAWN_RATE:
            scene = Scene(*drawn.draw(rng, size, self.texture), complete_labels=False)
            if rng.random() < 0.15:
                scene = self._paste(rng, scene, count=1)
        elif rng.random() < mosaic_rate:
            scene = self._mosaic(rng, size)
        else:
            picture = self._pick(rng)
            scene = view(rng, picture, (size, size))
            if rng.random() < (0.6 if picture.dataset == "duts_tr" else 0.2):
                scene = self._paste(rng, scene, count=int(rng.integers(1, 4)))
        if rng.random() < 0.5:
            scene = Scene(
                np.ascontiguousarray(scene.image_rgb[:, ::-1]),
                np.ascontiguousarray(scene.masks[:, :, ::-1]),
                scene.complete_labels,
            )
        visible = (scene.masks >= 128).sum(axis=(1, 2)) >= MIN_AREA_PX
        return Scene(recolour(rng, scene.image_rgb), scene.masks[visible], scene.complete_labels)

    def _pick(self, rng: Rng) -> Picture:
        pool = self._by_dataset[self._names[rng.choice(len(self._names), p=self._weights)]]
        return pool[rng.integers(len(pool))]

    def texture(self, rng: Rng, out_hw: tuple[int, int]) -> Pixels:
        """A piece of some photograph, at half to three times its size."""
        picture = self._pick(rng)
        (h, w), scale = picture.size_hw, np.exp(rng.uniform(np.log(0.5), np.log(3)))
        crop_h, crop_w = min(h, max(8, int(out_hw[0] / scale))), min(w, max(8, int(out_hw[1] / scale)))
        y, x = int(rng.integers(h - crop_h + 1)), int(rng.integers(w - crop_w + 1))
        piece = picture.image_rgb[y : y + crop_h, x : x + crop_w]
        return cv2.resize(piece, out_hw[::-1], interpolation=cv2.INTER_LINEAR)

    def _mosaic(self, rng: Rng, size: int) -> Scene:
        """Four pictures, or two side by side or above one another."""
        column, row = (int(size * rng.uniform(0.35, 0.65)) for _ in range(2))
        layout = rng.random()
        columns = [0, size] if layout < 0.15 else [0, column, size]
        rows = [0, size] if 0.15 <= layout < 0.4 else [0, row, size]
        image = np.empty((size, size, 3), np.uint8)
        masks, complete = [], True
        for y0, y1 in itertools.pairwise(rows):
            for x0, x1 in itertools.pairwise(columns):
                cell = view(rng, self._pick(rng), (y1 - y0, x1 - x0))
                image[y0:y1, x0:x1] = cell.image_rgb
                padding = ((0, 0), (y0, size - y1), (x0, size - x1))
                masks.append(np.pad(cell.masks, padding))
                complete &= cell.complete_labels
        return Scene(image, np.concatenate(masks), complete)

    def _paste(self, rng: Rng, scene: Scene, count: int) -> Scene:
        """Cut objects out of other pictures and lay them over the scene, often small."""
        size = scene.image_rgb.shape[0]
        image, masks = scene.image_rgb.copy(), scene.masks
        for _ in range(count):
            picture = self._pick(rng)
            large = [o for o in picture.objects if not o.is_crowd and o.area_px > 1500]
            if not large:
                continue
            cut_rgb, cut_alpha = _cut_out(rng, picture, large[rng.integers(len(large))], size)
            window, kept = _landing(rng, cut_alpha.shape, size)
            cut_rgb, cut_alpha = cut_rgb[kept], cut_alpha[kept]
            alpha = cut_alpha[..., None].astype(np.float32) / 255
            image[window] = (image[window] * (1 - alpha) + cut_rgb * alpha + 0.5).astype(np.uint8)

            area_before = (masks >= 128).sum(axis=(1, 2))
            masks = masks.copy()
            remaining = masks[:, *window].astype(np.uint16) * (255 - cut_alpha.astype(np.uint16))
            masks[:, *window] = (remaining // 255).astype(np.uint8)
            mostly_there = (masks >= 128).sum(axis=(1, 2)) >= 0.4 * area_before
            pasted = np.zeros((1, size, size), np.uint8)
            pasted[0][window] = cut_alpha
            masks = np.concatenate([masks[mostly_there], pasted])
        return Scene(image, masks, complete_labels=False)


def _landing(rng: Rng, cut_hw: tuple[int, ...], size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where an object of `cut_hw` is laid, and which of its pixels those are: up to half of a side may be outside."""
    outside = 0.5 if rng.random() < OVER_THE_EDGE_RATE else 0.0
    there, kept = [], []
    for length in cut_hw:
        over = int(outside * length)
        start = int(rng.integers(-over, size - length + over + 1))
        low, high = max(start, 0), min(start + length, size)
        there.append(slice(low, high))
        kept.append(slice(low - start, high - start))
    return (there[0], there[1]), (kept[0], kept[1])


def view(rng: Rng, picture: Picture, out_hw: tuple[int, int]) -> Scene:
    """A whole picture, or a rectangle of it around one object, stretched to `out_hw`."""
    h, w = picture.size_hw
    objects = [o for o in picture.objects if not o.is_crowd]
    if not objects or rng.random() < (0.5 if picture.dataset == "duts_tr" else 0.3):
        return _resample(rng, picture, (0, 0, w, h), out_hw)
    large = [o for o in objects if o.long_side_px * LARGEST_ENLARGEMENT > max(out_hw)]
    close_up = bool(large) and rng.random() < CLOSE_UP_RATE
    candidates, rectangle = (large, _rectangle_inside) if close_up else (objects, _rectangle_around)
    target = candidates[rng.integers(len(candidates))]
    return _resample(rng, picture, rectangle(rng, target, (h, w), out_hw), out_hw)


def _rectangle_inside(
    rng: Rng, target: ObjectMask, size_hw: tuple[int, int], out_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """xyxy; a close-up: its sides are 35 to 100 % of the object's long side, and it begins or ends at the object.

    Half bodies, heads, the front of a bus: a data set of whole objects has none that fill a picture.
    """
    h, w = size_hw
    x0, y0, x1, y1 = target.bbox_xyxy
    side = max(target.long_side_px * rng.uniform(0.35, 1.0), max(out_hw) / LARGEST_ENLARGEMENT)
    stretch = np.exp(rng.uniform(-0.35, 0.35))
    crop_w, crop_h = min(w, round(side * stretch)), min(h, round(side / stretch))
    left = _place(rng, x0, x1, crop_w, w, rng.uniform(-0.1, 0.3))
    top = _place(rng, y0, y1, crop_h, h, rng.uniform(-0.1, 0.3))
    return left, top, left + crop_w, top + crop_h


def _rectangle_around(
    rng: Rng, target: ObjectMask, size_hw: tuple[int, int], out_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """xyxy; the object's long side becomes 6 (14 px, if less) to 95 % of the output, every size as likely (in log)."""
    h, w = size_hw
    x0, y0, x1, y1 = target.bbox_xyxy
    share = np.exp(rng.uniform(np.log(min(0.06, 14 / max(out_hw))), np.log(0.95)))
    side = max(target.long_side_px / share, max(out_hw) / LARGEST_ENLARGEMENT)
    stretch = np.exp(rng.uniform(-0.25, 0.25))
    crop_w, crop_h = min(w, round(side * stretch)), min(h, round(side / stretch))
    # One rectangle in four may cut the object: pictures do.
    slack = rng.uniform(0.1, 0.6) if rng.random() < 0.25 else 0.0
    left = _place(rng, x0, x1, crop_w, w, slack)
    top = _place(rng, y0, y1, crop_h, h, slack)
    return left, top, left + crop_w, top + crop_h


def _place(rng: Rng, low: float, high: float, length: int, limit: int, slack: float) -> int:
    """Where an interval of `length` starts so that it covers [low, high), but for `slack` of it."""
    cut = slack * (high - low)
    first, last = sorted((high - cut - length, low + cut))
    return int(np.clip(round(rng.uniform(first, last)), 0, limit - length))


def _resample(rng: Rng, picture: Picture, rectangle: tuple[int, int, int, int], out_hw: tuple[int, int]) -> Scene:
    x0, y0, x1, y1 = rectangle
    out_h, out_w = out_hw
    shrinks = (x1 - x0) > out_w or (y1 - y0) > out_h
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = cv2.resize(picture.image_rgb[y0:y1, x0:x1], (out_w, out_h), interpolation=interpolation)
    inside = [
        o
        for o in picture.objects
        if not o.is_crowd
        and o.bbox_xyxy[0] < x1
        and o.bbox_xyxy[2] > x0
        and o.bbox_xyxy[1] < y1
        and o.bbox_xyxy[3] > y0
    ]
    if len(inside) > MAX_OBJECTS_A_VIEW:
        inside = [inside[i] for i in rng.permutation(len(inside))[:MAX_OBJECTS_A_VIEW]]
    masks = np.zeros((len(inside), out_h, out_w), np.uint8)
    for mask, o in zip(masks, inside, strict=True):
        covered = np.ascontiguousarray(o.decode()[y0:y1, x0:x1]) * np.uint8(255)
        cv2.resize(covered, (out_w, out_h), dst=mask, interpolation=interpolation)
    return Scene(image, masks, picture.complete_labels)


def _cut_out(rng: Rng, picture: Picture, source: ObjectMask, size: int) -> tuple[Pixels, Pixels]:
    """An object's pixels and its alpha; its long side 5 to 60 % of the scene, every size as likely."""
    x0, y0, x1, y1 = (int(value) for value in source.bbox_xyxy)
    wanted = size * np.exp(rng.uniform(np.log(0.05), np.log(0.6)))
    scale = min(wanted / max(x1 - x0, y1 - y0), 1.5)
    new_w = int(np.clip(round((x1 - x0) * scale), 3, size))
    new_h = int(np.clip(round((y1 - y0) * scale), 3, size))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    alpha = np.ascontiguousarray(source.decode()[y0:y1, x0:x1]) * np.uint8(255)
    cut_alpha = cv2.resize(alpha, (new_w, new_h), interpolation=interpolation)
    cut_rgb = cv2.resize(picture.image_rgb[y0:y1, x0:x1], (new_w, new_h), interpolation=interpolation)
    if rng.random() < 0.5:
        cut_rgb, cut_alpha = cut_rgb[:, ::-1], cut_alpha[:, ::-1]
    return recolour(rng, np.ascontiguousarray(cut_rgb), degrade=False), cut_alpha


def recolour(rng: Rng, image_rgb: Pixels, *, degrade: bool = True) -> Pixels:
    """Light and colour always; blur, noise and JPEG now and then."""
    gain = rng.uniform(0.75, 1.3) * rng.uniform(0.92, 1.08, size=3)
    gamma = np.exp(rng.uniform(-0.3, 0.3))
    ramp = np.linspace(0, 1, 256)[:, None] ** gamma * gain + rng.uniform(-0.08, 0.08)
    image = cv2.LUT(image_rgb, (np.clip(ramp, 0, 1) * 255).astype(np.uint8)[:, None, :])
    saturation = 0.0 if rng.random() < 0.08 else rng.uniform(0.5, 1.4)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
    if not degrade:
        return image
    if rng.random() < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.12:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 14))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.12:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image
