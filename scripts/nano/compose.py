"""Training pictures for the nano detector: real pictures, cropped, with cut-outs of other pictures pasted on.

A canvas carries, beside its pixels, a map of object ids and a map that says how far "no label here" may be
read as "no object here". Everything is drawn from one random generator: same seed, same pictures.

Shapes: h and w are of one canvas, N counts its objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.nano.dataset import ObjectMask, Picture

Rgb = NDArray[np.uint8]
Ids = NDArray[np.int16]
Weights = NDArray[np.float32]

IGNORED = -1  # pixels that are neither an example of an object nor of background
MIN_UNCOVERED = 0.6
CLOSE_UP_RATE = 0.35  # of the cropped base pictures with a large object: that object fills the picture or more
VEHICLES = frozenset({"bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"})

# How much an unlabelled place counts as background. COCO is labelled completely, a blurred backdrop holds
# nothing, the other two are not: DUTS labels what is salient, CCP one person.
BACKGROUND_WEIGHT = {"coco_train": 1.0, "ccp_fashion": 0.15, "duts_tr": 0.35}
# Inside and close around a label we know more. Touching objects of DUTS share one mask, hence not 1.
NEAR_LABEL_WEIGHT = {"coco_train": 1.0, "ccp_fashion": 1.0, "duts_tr": 0.5}

POOL_SHARES: dict[str, float] = {
    "fashion_person": 0.36,
    "coco_person": 0.20,
    "coco_vehicle": 0.14,
    "coco_other": 0.10,
    "salient": 0.20,
}
BASE_SHARES = {"coco_train": 0.36, "duts_tr": 0.34, "ccp_fashion": 0.16, "backdrop": 0.14}


@dataclass(slots=True)
class Canvas:
    """Being drawn, so not frozen. Object i + 1 would cover `full_area_px[i]` unclipped and unhidden, and covered
    `drawn_px[i]` of this canvas before others were drawn over it."""

    image_rgb: Rgb  # (h, w, 3)
    ids: Ids  # (h, w): 0 background, 1..N objects, IGNORED
    weights: Weights  # (h, w), 0..1: how much a false detection here counts
    full_area_px: list[float]
    drawn_px: list[float]


@dataclass(frozen=True, slots=True)
class Example:
    image_rgb: Rgb  # (side, side, 3)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) of the visible parts, in pixels
    weights: Weights  # (side, side)


@dataclass(frozen=True, slots=True)
class CutOut:
    image_rgb: Rgb  # (h, w, 3), a view; mirrored and tinted only once it has its small final size
    mask: NDArray[np.uint8]  # (h, w), 0 or 255
    mirrored: bool
    tint: tuple[float, float, float]


class Composer:
    """Draws training examples of one side length after another."""

    def __init__(
        self, *, pictures: list[Picture], seed: int, min_box_px: int = 7, min_visible: float = 0.2
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.finishing = False  # set it near the end of training: more pictures as they were taken
        self._min_box_px = min_box_px
        self._min_visible = min_visible
        self._by_dataset = {
            name: [p for p in pictures if p.dataset == name] for name in ("coco_train", "duts_tr", "ccp_fashion")
        }
        self._pools = {name: things for name, things in _cut_out_pools(pictures).items() if things}
        self._base_shares = _shares(BASE_SHARES, present=[*filter(self._by_dataset.get, BASE_SHARES), "backdrop"])
        self._pool_shares = _shares(POOL_SHARES, present=[*filter(self._pools.get, POOL_SHARES)])

    def example(self, side: int) -> Example:
        """One augmented square picture. Every fifth is a mosaic, until `finishing`."""
        rng = self.rng
        mosaic_share = 0.05 if self.finishing else 0.2
        canvas = self._mosaic(side) if rng.random() < mosaic_share else self._framed(side)
        boxes, weights = self._labels(canvas)
        return Example(_photometric(canvas.image_rgb, rng), boxes, weights)

    # Scenes

    def _mosaic(self, side: int) -> Canvas:
        """Two or four scenes side by side."""
        rng = self.rng
        cut_x, cut_y = (int(side * share) for share in rng.uniform(0.35, 0.65, 2))
        columns = [(0, cut_x), (cut_x, side)]
        rows = [(0, cut_y), (cut_y, side)]
        layout = rng.random()
        if layout < 0.3:
            rows = [(0, side)]
        elif layout < 0.5:
            columns = [(0, side)]
        whole = _empty_canvas(side, side)
        for y0, y1 in rows:
            for x0, x1 in columns:
                part = self._scene(y1 - y0, x1 - x0, crowd=False)
                whole.image_rgb[y0:y1, x0:x1] = part.image_rgb
                whole.weights[y0:y1, x0:x1] = part.weights
                whole.ids[y0:y1, x0:x1] = np.where(part.ids > 0, part.ids + len(whole.full_area_px), part.ids)
                whole.full_area_px += part.full_area_px
                whole.drawn_px += part.drawn_px
        return whole

    def _framed(self, side: int) -> Canvas:
        """A scene, at times with grey on two sides as at inference, so that what a picture's edge cuts ends there."""
        rng = self.rng
        if rng.random() < 0.6:
            return self._scene(side, side)
        band = 2 * int(rng.integers(2, max(3, side // 5)))
        h, w = (side - band, side) if rng.random() < 0.6 else (side, side - band)
        whole, part = _empty_canvas(side, side), self._scene(h, w)
        area = slice((side - h) // 2, (side + h) // 2), slice((side - w) // 2, (side + w) // 2)
        whole.image_rgb[area], whole.ids[area], whole.weights[area] = part.image_rgb, part.ids, part.weights
        whole.full_area_px, whole.drawn_px = part.full_area_px, part.drawn_px
        return whole

    def _scene(self, h: int, w: int, crowd: bool = True) -> Canvas:
        """A base picture, and on most of them pasted objects."""
        rng = self.rng
        base = _draw(rng, self._base_shares)
        canvas = self._backdrop(h, w) if base == "backdrop" else self._base(self._pick(base), h, w)
        plain = {"coco_train": 0.5, "duts_tr": 0.35, "ccp_fashion": 0.3, "backdrop": 0.0}[base]
        if rng.random() < (1.5 * plain if self.finishing else plain):
            return canvas
        style = rng.random()
        if style < 0.4 and crowd:
            self._paste_row_of_people(canvas, behind=rng.random() < 0.6)
        elif 0.4 <= style < 0.66:
            self._paste_half_bodies(canvas)
        else:
            for _ in range(int(rng.integers(1, 8 if crowd else 4))):
                self._paste_anywhere(canvas)
        return canvas

    def _pick(self, dataset: str) -> Picture:
        pictures = self._by_dataset[dataset]
        return pictures[int(self.rng.integers(len(pictures)))]

    def _base(self, picture: Picture, h: int, w: int) -> Canvas:
        """The picture or a part of it, stretched a little, at times small with grey around it."""
        rng = self.rng
        ids, areas = _rasterise(picture)
        full_h, full_w = picture.size_hw
        if rng.random() < 0.35:  # all of it, as at inference
            scale = min(h / full_h, w / full_w) * (1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.0))
            y0 = x0 = 0
            crop_h, crop_w = full_h, full_w
            out_h, out_w = max(8, round(full_h * scale)), max(8, round(full_w * scale))
        else:
            share = rng.uniform(0.45, 1.0)
            aspect = (w / h) * np.exp(rng.uniform(-0.25, 0.25))
            crop_w = int(min(full_w, full_h * aspect) * share)
            crop_h = int(min(full_h, full_w / aspect) * share)
            y0, x0 = int(rng.integers(full_h - crop_h + 1)), int(rng.integers(full_w - crop_w + 1))
            out_h, out_w = h, w
            large = [o for o in picture.objects if is_object(o, picture) and o.long_side_px > 0.35 * max(h, w)]
            if large and rng.random() < CLOSE_UP_RATE:
                y0, x0, crop_h, crop_w = _close_up(
                    rng, large[int(rng.integers(len(large)))], picture.size_hw, w / h
                )
        crop = slice(y0, y0 + crop_h), slice(x0, x0 + crop_w)
        image = _resize(picture.image_rgb[crop], out_h, out_w)
        # INTER_NEAREST takes the upper left pixel: boxes were half a pixel too low.
        ids = cv2.resize(ids[crop], (out_w, out_h), interpolation=cv2.INTER_NEAREST_EXACT)
        if rng.random() < 0.5:
            image, ids = cv2.flip(image, 1), cv2.flip(ids, 1)

        canvas = _empty_canvas(h, w)
        top, left = int(rng.integers(h - out_h + 1)), int(rng.integers(w - out_w + 1))
        area = slice(top, top + out_h), slice(left, left + out_w)
        canvas.image_rgb[area] = image
        canvas.ids[area] = ids
        canvas.weights[area] = _background_weights(ids, picture.dataset)
        zoom = (out_h / crop_h) * (out_w / crop_w)
        canvas.full_area_px = [area_px * zoom for area_px in areas]
        canvas.drawn_px = np.bincount(ids.ravel().clip(0), minlength=len(areas) + 1)[1:].astype(float).tolist()
        return canvas

    def _backdrop(self, h: int, w: int) -> Canvas:
        """A picture blurred until it holds no object, at times one flat colour."""
        rng = self.rng
        canvas = _empty_canvas(h, w)
        if rng.random() < 0.15:
            canvas.image_rgb[:] = rng.integers(0, 256, 3)
            return canvas
        image = self._pick(
            _draw(rng, {name: share for name, share in self._base_shares.items() if name != "backdrop"})
        ).image_rgb
        detail = int(rng.integers(4, 14))
        tiny = cv2.resize(image, (detail, detail), interpolation=cv2.INTER_AREA)
        canvas.image_rgb[:] = cv2.resize(tiny, (w, h), interpolation=cv2.INTER_CUBIC)
        return canvas

    # Pasting

    def _paste_anywhere(self, canvas: Canvas) -> None:
        rng = self.rng
        h, w = canvas.ids.shape
        cut_out = self._cut_out(_draw(rng, self._pool_shares))
        longest_px = min(h, w) * np.exp(rng.uniform(np.log(0.15), np.log(1.2)))
        longest_px = min(
            longest_px, 3.0 * max(cut_out.mask.shape)
        )  # beyond that it is a blur with stairs for an edge
        height = max(8.0, longest_px * min(1.0, cut_out.mask.shape[0] / cut_out.mask.shape[1]))
        width = height * cut_out.mask.shape[1] / cut_out.mask.shape[0]
        x0 = _between(rng, -0.2 * width, w - 0.8 * width)
        y0 = _between(rng, -0.2 * height, h - 0.7 * height)
        self._paste(canvas, cut_out, height, x0, y0)

    def _paste_row_of_people(self, canvas: Canvas, behind: bool) -> None:
        """People on one ground line, in front of one large thing: they overlap it and each other."""
        rng = self.rng
        h, w = canvas.ids.shape
        ground_y = h * rng.uniform(0.75, 1.1)
        if behind:
            large = self._cut_out("large_vehicle" if rng.random() < 0.65 else "salient")
            aspect = large.mask.shape[1] / large.mask.shape[0]
            height = min(h * rng.uniform(0.4, 0.95), w * 1.15 / aspect)
            x0 = rng.uniform(-0.1, 1.1) * (w - height * aspect)
            self._paste(canvas, large, height, x0, ground_y - height * rng.uniform(0.95, 1.25))
        height = h * rng.uniform(0.25, 0.8)
        for _ in range(int(rng.integers(2, 6))):
            person = self._cut_out("fashion_person" if rng.random() < 0.7 else "coco_person")
            tall = height * rng.uniform(0.85, 1.2)
            width = tall * person.mask.shape[1] / person.mask.shape[0]
            x0 = _between(rng, -0.5 * width, w - 0.5 * width)
            self._paste(canvas, person, tall, x0, ground_y - tall * rng.uniform(0.95, 1.08))
        for walks_in_from_the_left in (True, False):
            if rng.random() < 0.6:
                self._paste_cut_by_side(canvas, height * rng.uniform(0.85, 1.3), ground_y, walks_in_from_the_left)

    def _paste_cut_by_side(self, canvas: Canvas, tall: float, ground_y: float, left: bool) -> None:
        """Somebody of whom the picture's left or right edge leaves a strip: half cut is the rule in streets."""
        rng = self.rng
        person = self._cut_out("fashion_person" if rng.random() < 0.7 else "coco_person")
        width = tall * person.mask.shape[1] / person.mask.shape[0]
        shown = width * rng.uniform(0.3, 0.75)
        x0 = shown - width if left else canvas.ids.shape[1] - shown
        self._paste(canvas, person, tall, x0, ground_y - tall * rng.uniform(0.95, 1.08))

    def _paste_half_bodies(self, canvas: Canvas) -> None:
        """One to three people cut by the lower edge of the picture, upright or leaning."""
        rng = self.rng
        h, w = canvas.ids.shape
        for _ in range(int(rng.choice([1, 1, 2, 2, 3]))):
            person = self._cut_out("fashion_person" if rng.random() < 0.65 else "coco_person")
            visible_height = h * rng.uniform(0.4, 0.97)
            height = visible_height / rng.uniform(0.2, 0.65)
            if rng.random() < 0.6:
                person = _turned(person, rng.uniform(-50, 50))
            broad = np.exp(rng.uniform(-0.05, 0.35))
            width = height * broad * person.mask.shape[1] / person.mask.shape[0]
            x0 = _between(rng, -0.35 * width, w - 0.65 * width)
            self._paste(canvas, person, height, x0, h - visible_height, broad)

    def _cut_out(self, pool: str) -> CutOut:
        rng = self.rng
        pool = pool if pool in self._pools else _draw(rng, self._pool_shares)
        picture, thing = self._pools[pool][int(rng.integers(len(self._pools[pool])))]
        x0, y0, x1, y1 = (int(value) for value in thing.bbox_xyxy)
        area = slice(y0, y1), slice(x0, x1)
        mask = thing.decode()[area]
        if picture.dataset == "ccp_fashion":  # what a person carries goes with the person
            for other in picture.objects:
                if not other.is_part and other is not thing:
                    mask = np.maximum(mask, other.decode()[area])
        gain = rng.uniform(0.45, 1.3) if rng.random() < 0.6 else 1.0
        tint = gain * (rng.uniform(0.88, 1.12, 3) if rng.random() < 0.5 else np.ones(3))
        return CutOut(picture.image_rgb[area], mask * np.uint8(255), rng.random() < 0.5, tuple(tint.tolist()))

    def _paste(
        self, canvas: Canvas, cut_out: CutOut, height: float, x0: float, y0: float, broad: float = 1.0
    ) -> None:
        """Draw it so that it is `height` px tall, upper left corner at (x0, y0), clipped by the canvas."""
        h, w = canvas.ids.shape
        scale_y = height / cut_out.mask.shape[0]
        scale_x = scale_y * broad * np.exp(self.rng.uniform(-0.12, 0.12))
        left, top = max(0, int(x0)), max(0, int(y0))
        right = min(w, int(x0 + cut_out.mask.shape[1] * scale_x))
        bottom = min(h, int(y0 + cut_out.mask.shape[0] * scale_y))
        if right - left < 4 or bottom - top < 4:
            return
        # Only what falls on the canvas is resized: a half body can be three canvases tall.
        sx0, sy0 = max(0, int((left - x0) / scale_x)), max(0, int((top - y0) / scale_y))
        sx1, sy1 = max(sx0 + 1, round((right - x0) / scale_x)), max(sy0 + 1, round((bottom - y0) / scale_y))
        if cut_out.mirrored:
            sx0, sx1 = cut_out.mask.shape[1] - sx1, cut_out.mask.shape[1] - sx0
        image = _resize(cut_out.image_rgb[sy0:sy1, max(0, sx0) : sx1], bottom - top, right - left)
        mask = _resize(cut_out.mask[sy0:sy1, max(0, sx0) : sx1], bottom - top, right - left)
        if cut_out.mirrored:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        image = cv2.multiply(image, (*cut_out.tint, 0.0))
        alpha = mask * np.float32(1 / 255)
        if min(alpha.shape) > 24:
            alpha = cv2.blur(alpha, (3, 3))
            alpha = np.clip(alpha * 1.5 - 0.5, 0, 1)  # a pixel inwards: the rim often shows the old background

        area = slice(top, bottom), slice(left, right)
        under = np.ascontiguousarray(canvas.image_rgb[area])
        canvas.image_rgb[area] = cv2.blendLinear(image, under, alpha, 1 - alpha)
        covered = alpha > 0.5
        canvas.full_area_px.append(np.count_nonzero(cut_out.mask) * scale_x * scale_y)
        canvas.drawn_px.append(float(np.count_nonzero(covered)))
        canvas.ids[area][covered] = len(canvas.full_area_px)
        known = cv2.dilate(covered.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        canvas.weights[area][known] = 1.0

    # Labels

    def _labels(self, canvas: Canvas) -> tuple[NDArray[np.float32], Weights]:
        """Boxes of the visible parts. What is too small or too hidden becomes a place that does not count."""
        boxes: list[tuple[int, int, int, int]] = []
        weights = np.where(canvas.ids == IGNORED, np.float32(0), canvas.weights)
        visible_px = np.bincount(canvas.ids.ravel().clip(0), minlength=len(canvas.full_area_px) + 1)[1:]
        for index in np.flatnonzero(visible_px):
            x, y, w, h = cv2.boundingRect((canvas.ids == index + 1).view(np.uint8))
            hidden = visible_px[index] < self._min_visible * canvas.full_area_px[index]
            clipped_large = visible_px[index] > 0.08 * canvas.ids.size  # a close-up is still an object
            # What is left of somebody behind a pasted object would teach that halves are objects.
            pasted_over = visible_px[index] < MIN_UNCOVERED * canvas.drawn_px[index]
            small = min(w, h) < self._min_box_px or w * h < 2 * self._min_box_px**2
            if small or pasted_over or (hidden and not clipped_large):
                weights[y : y + h, x : x + w] = 0
            else:
                boxes.append((x, y, x + w, y + h))
        return np.array(boxes, np.float32).reshape(-1, 4), weights


def _close_up(
    rng: np.random.Generator, thing: ObjectMask, size_hw: tuple[int, int], aspect: float
) -> tuple[int, int, int, int]:
    """y, x, height and width of a part of the picture whose long side is 40 to 110 % of the object's."""
    (full_h, full_w), (x0, y0, x1, y1) = size_hw, thing.bbox_xyxy
    side, aspect = thing.long_side_px * rng.uniform(0.4, 1.1), aspect * np.exp(rng.uniform(-0.25, 0.25))
    crop_w, crop_h = int(min(full_w, side * min(1.0, aspect))), int(min(full_h, side / max(1.0, aspect)))
    crop_w, crop_h = max(crop_w, 16), max(crop_h, 16)
    left, top = (
        _between(rng, low - margin, high + margin - length)
        for low, high, length, margin in ((x0, x1, crop_w, 0.3 * crop_w), (y0, y1, crop_h, 0.15 * crop_h))
    )
    return int(np.clip(top, 0, full_h - crop_h)), int(np.clip(left, 0, full_w - crop_w)), crop_h, crop_w


def _turned(cut_out: CutOut, degrees: float) -> CutOut:
    """Rotated about its centre, in a frame that holds all of it."""
    h, w = cut_out.mask.shape
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
    cos, sin = np.abs(turn[0, :2])
    new_w, new_h = int(w * cos + h * sin), int(h * cos + w * sin)
    turn[:, 2] += (new_w - w) / 2, (new_h - h) / 2
    image = cv2.warpAffine(cut_out.image_rgb, turn, (new_w, new_h), borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(cut_out.mask, turn, (new_w, new_h))
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
    return CutOut(image[tight], mask[tight], cut_out.mirrored, cut_out.tint)


def _empty_canvas(h: int, w: int) -> Canvas:
    return Canvas(
        np.full((h, w, 3), 114, np.uint8), np.zeros((h, w), np.int16), np.ones((h, w), np.float32), [], []
    )


def _shares(shares: dict[str, float], present: list[str]) -> dict[str, float]:
    """Of what there is: a smoke run may bring one data set only."""
    return {name: shares[name] for name in present}


def _draw(rng: np.random.Generator, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Like rng.uniform, but the bounds may come in either order (an object wider than the canvas)."""
    return low + (high - low) * rng.random()


def _resize(image: NDArray[np.uint8], h: int, w: int) -> NDArray[np.uint8]:
    smaller = h < image.shape[0] and w < image.shape[1]
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def is_object(thing: ObjectMask, picture: Picture) -> bool:
    """What the detector must find. Of a fashion picture that is the person, not what the person wears."""
    if picture.dataset == "ccp_fashion":
        return thing.category == "person"
    return not thing.is_part and not thing.is_crowd


def _rasterise(picture: Picture) -> tuple[Ids, list[float]]:
    """Ids of all objects, small ones on top; crowds and crumbs of DUTS are IGNORED."""
    ids = np.zeros(picture.size_hw, np.int16)
    areas: list[float] = []
    for thing in sorted(picture.objects, key=lambda o: -o.area_px):
        crumb = picture.dataset == "duts_tr" and thing.area_px < 0.008 * ids.size
        if thing.is_crowd or crumb:
            mask = thing.decode().astype(bool)
            ids[mask & (ids == 0)] = IGNORED
        elif is_object(thing, picture):
            areas.append(float(thing.area_px))
            ids[thing.decode().astype(bool)] = len(areas)
    return ids, areas


def _background_weights(ids: Ids, dataset: str) -> Weights:
    far, near = BACKGROUND_WEIGHT[dataset], NEAR_LABEL_WEIGHT[dataset]
    weights = np.full(ids.shape, far, np.float32)
    if near != far:
        band = max(3, min(ids.shape) // 16) | 1
        weights[cv2.dilate((ids > 0).astype(np.uint8), np.ones((band, band), np.uint8)) > 0] = near
    return weights


def _cut_out_pools(pictures: list[Picture]) -> dict[str, list[tuple[Picture, ObjectMask]]]:
    """What can be pasted: whole enough and large enough to be recognised."""
    pools: dict[str, list[tuple[Picture, ObjectMask]]] = {name: [] for name in (*POOL_SHARES, "large_vehicle")}
    for picture in pictures:
        for thing in picture.objects:
            x0, y0, x1, y1 = thing.bbox_xyxy
            fill = thing.area_px / ((x1 - x0) * (y1 - y0))
            if not is_object(thing, picture) or min(x1 - x0, y1 - y0) < 20 or fill < 0.2:
                continue
            if picture.dataset == "ccp_fashion":
                pools["fashion_person"].append((picture, thing))
            elif picture.dataset == "duts_tr":
                if 0.02 < thing.area_px / (picture.size_hw[0] * picture.size_hw[1]) < 0.7:
                    pools["salient"].append((picture, thing))
            elif thing.category == "person":
                pools["coco_person"].append((picture, thing))
            elif thing.category in VEHICLES:
                pools["coco_vehicle"].append((picture, thing))
                if max(x1 - x0, y1 - y0) > 90 and thing.area_px > 2500:
                    pools["large_vehicle"].append((picture, thing))
            elif thing.area_px > 1000 and thing.category != "dining table":
                pools["coco_other"].append((picture, thing))
    return pools


def _photometric(image_rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Light, colour, blur, noise and JPEG blocks, each on some of the pictures."""
    image = image_rgb
    if rng.random() < 0.8:
        gamma, gain = np.exp(rng.uniform(-0.35, 0.35)), rng.uniform(0.8, 1.2)
        ramp = (np.arange(256, dtype=np.float32) / 255) ** gamma * 255
        tints = rng.uniform(0.92, 1.08, 3)
        table = np.stack([np.clip((ramp - 128) * gain * tint + 128, 0, 255) for tint in tints], 1)
        image = cv2.LUT(image, table.astype(np.uint8)[None])
    if rng.random() < 0.3:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        keep = 0.0 if rng.random() < 0.3 else rng.uniform(0.2, 1.5)
        image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.1:
        noise = rng.integers(-12, 13, image.shape, dtype=np.int16)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None  # encoded one line above
        image = decoded
    return image
