"""Detection on tiles: every object once, with its exact box, wherever the tiles end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, Detections, Frame, ImageInfo, ImageRef
from autolabel.detect.labels import LabelsDetector
from autolabel.detect.tiles import TiledDetector, tile_windows
from autolabel.ops.boxes import iou_xyxy, meet_xyxy

SIZE, OVERLAP = 64, 0.25


def frame(width: int, height: int) -> Frame:
    """A picture whose pixels say where they are: x and y in 12 bits each."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x >> 4, (x & 15) << 4 | y >> 8, y & 255], axis=-1).astype(np.uint8)
    return Frame(ImageRef("a", "a"), image, ImageInfo(width, height))


class SeesItsView:
    """Finds the part of each object (x0, y0, x1, y1, class) that is inside of what it is shown, and no more.
    Scores are those of `scores`, lowered by `doubt` times the part that is out of view."""

    categories = (Category(1, "cat"), Category(2, "dog"))
    identity: Mapping[str, str] = {"weights": "none"}

    def __init__(self, objects, doubt=0.0):
        self.objects = np.array(objects, np.float32).reshape(-1, 5)
        self.doubt = doubt

    def detect(self, frames):
        return [self._one(f.image_rgb) for f in frames]

    def _one(self, image):
        r, g, b = (int(v) for v in image[0, 0])
        corner, (h, w) = np.array([r << 4 | g >> 4, (g & 15) << 8 | b] * 2, np.float32), image.shape[:2]
        boxes = np.clip(self.objects[:, :4] - corner, 0, [w, h, w, h]).astype(np.float32)
        seen = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
        area, whole = (np.prod(x[:, 2:4] - x[:, :2], axis=1) for x in (boxes, self.objects))
        scores = 0.9 - 0.001 * np.arange(len(boxes)) - self.doubt * (1 - area / whole)
        order = np.flatnonzero(seen)[::-1]
        return Detections(boxes[order], scores[order].astype(np.float32), self.objects[order, 4].astype(np.int64))


def tiled(inner, **changed) -> TiledDetector:
    return TiledDetector(
        inner=inner, **{"size": SIZE, "overlap": OVERLAP, "whole_picture": True, "match_iou": 0.5, **changed}
    )


def found_by(objects, size=(200, 150), **settings_):
    (found,) = tiled(SeesItsView(objects, settings_.pop("doubt", 0.0)), **settings_).detect([frame(*size)])
    return sorted(
        [*map(float, box), int(number)] for box, number in zip(found.boxes_xyxy, found.category_ids, strict=True)
    )


def expected(objects):
    return sorted([*map(float, row[:4]), int(row[4])] for row in objects)


@st.composite
def scenes(draw, largest: int):
    """A picture size and objects anywhere in it, in quarters of a pixel, of two classes; no two of them meet."""
    width, height = draw(st.integers(20, 260)), draw(st.integers(20, 260))
    objects = []
    for _ in range(draw(st.integers(0, 12))):
        w, h = (draw(st.integers(8, 4 * min(largest, side))) / 4 for side in (width, height))
        x, y = draw(st.integers(0, int(4 * (width - w)))) / 4, draw(st.integers(0, int(4 * (height - h)))) / 4
        box = np.array([[x, y, x + w, y + h]], np.float32)
        others = np.array([o[:4] for o in objects], np.float32).reshape(-1, 4)
        if not meet_xyxy(box, others).any():
            objects.append((*map(float, box[0]), draw(st.sampled_from([1, 2]))))
    return (width, height), objects


@given(scenes(largest=260))
@settings(max_examples=80)
def test_every_object_anywhere_is_found_once_with_its_exact_box(scene):
    size, objects = scene
    assert found_by(objects, size) == expected(objects)


@given(scenes(largest=int(SIZE * OVERLAP)))
@settings(max_examples=80)
def test_objects_up_to_the_overlap_need_no_view_of_the_whole_picture(scene):
    size, objects = scene
    assert found_by(objects, size, whole_picture=False) == expected(objects)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(40, 140), st.integers(40, 90))
@settings(max_examples=60)
def test_an_object_that_every_tile_cuts_is_put_together_again(x, y, w, h):
    objects = [(x, y, x + w, y + h, 1)]
    assert found_by(objects, whole_picture=False) == expected(objects)


@given(st.integers(2, 120), st.integers(2, 120), st.integers(5, 30))
@settings(max_examples=40)
def test_a_small_object_before_a_large_one_stays_an_object(x, y, side):
    objects = [(0, 0, 180, 150, 1), (x, y, x + side, y + side, 1)]
    assume(iou_xyxy(*(np.array([o[:4]], np.float32) for o in objects))[0, 0] < 0.3)
    assert found_by(objects) == expected(objects)


def test_the_score_is_the_best_view_s():
    inner = SeesItsView([(50, 50, 70, 70, 1)], doubt=0.5)
    (found,) = tiled(inner).detect([frame(200, 150)])
    assert found.scores.tolist() == [pytest.approx(0.9)]


def test_a_part_that_looks_like_nothing_its_neighbour_saw_is_dropped_in_favour_of_the_whole():
    class AlsoAHead(SeesItsView):
        """In the first tile it takes another part of the object for an object, too."""

        def _one(self, image):
            found = super()._one(image)
            if image[0, 0].any() or image.shape[0] > SIZE:
                return found
            return found.plus(Detections(np.array([[40, 20, 64, 30]], np.float32), np.ones(1, np.float32), np.ones(1, np.int64)))  # fmt: skip

    (found,) = tiled(AlsoAHead([(10, 5, 150, 120, 1)])).detect([frame(200, 150)])
    assert found.boxes_xyxy.tolist() == [[10, 5, 150, 120]]


def test_what_is_noted_of_one_tile_is_noted_of_the_picture_once():
    class Noted(SeesItsView):
        def _one(self, image):
            return replace(super()._one(image), notes=("max_det", "dark") if image.any() else ("max_det",))

    (found,) = tiled(Noted([(10, 5, 30, 40, 1)])).detect([frame(200, 150)])
    assert sorted(found.notes) == ["dark", "max_det"]


def test_classes_are_never_joined():
    objects = [(40, 40, 90, 90, 1), (40, 40, 90, 90, 2)]
    assert found_by(objects) == expected(objects)


def test_no_object_takes_two_boxes_of_one_view():
    objects = [(10, 10, 30, 30, 1), (10, 10, 30, 31, 1), (10, 10, 30.5, 30, 1)]
    assert found_by(objects) == expected(objects)


def test_a_picture_of_one_tile_is_what_the_detector_says():
    inner = SeesItsView([(3, 3, 9, 9, 1), (4, 4, 60, 50, 2)])
    (alone,), (found,) = inner.detect([frame(64, 50)]), tiled(inner).detect([frame(64, 50)])
    assert np.array_equal(found.boxes_xyxy, alone.boxes_xyxy)
    assert np.array_equal(found.scores, alone.scores)


def test_pictures_of_any_size_and_number_keep_their_order():
    pictures = [frame(200, 150), frame(30, 30), frame(400, 70)]
    detector = tiled(SeesItsView([(5, 5, 25, 25, 1), (300, 10, 340, 50, 2)]))
    together, alone = detector.detect(pictures), [detector.detect([p])[0] for p in pictures]
    assert [d.boxes_xyxy.tolist() for d in together] == [d.boxes_xyxy.tolist() for d in alone]
    assert [len(d) for d in together] == [1, 1, 2]
    assert detector.detect([]) == []


@given(st.integers(1, 900), st.integers(1, 900), st.integers(32, 300), st.floats(0, 0.9))
@settings(max_examples=80)
def test_tiles_cover_the_picture_share_what_was_asked_and_have_one_size(width, height, size, overlap):
    tiles = np.array(tile_windows((height, width), size, overlap))
    for axis, length in ((0, width), (1, height)):
        starts, stops = sorted(set(tiles[:, axis])), sorted(set(tiles[:, axis + 2]))
        assert (starts[0], stops[-1]) == (0, length)
        assert {b - a for a, b in zip(starts, stops, strict=True)} == {min(size, length)}
        assert all(a - b >= int(overlap * size) for a, b in zip(stops, starts[1:], strict=False))


def test_existing_boxes_need_no_tiles():
    with pytest.raises(ConfigError, match=r"^inner must find boxes"):
        tiled(LabelsDetector(keep_masks=True))
