"""Zoom: small boxes are asked of a crop, others of the picture, and every mask comes back to its place."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.errors import ConfigError
from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts, Sieve
from autolabel.engine.asking import ask
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.masks import area_px, decode
from autolabel.segment.box import BoxSegmenter
from autolabel.segment.zoom import ZoomSegmenter

WIDTH, HEIGHT = 400, 300


def frame(width: int = WIDTH, height: int = HEIGHT) -> Frame:
    return Frame(ImageRef("a", "a"), np.zeros((height, width, 3), np.uint8), ImageInfo(width, height))


class Watched(BoxSegmenter):
    """The filled box; remembers what it was shown and asked."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[tuple[int, int], Prompts]]] = []

    def segment(self, frames, prompts):
        shown = [f.image_rgb.shape[:2] for f in frames]
        assert shown == [f.info.size_hw for f in frames]
        self.calls.append(list(zip(shown, prompts, strict=True)))
        return super().segment(frames, prompts)


def zoom(inner=None, **changed) -> ZoomSegmenter:
    return ZoomSegmenter(
        inner=inner or BoxSegmenter(),
        **{"smaller_than": 0.1, "fill": 0.25, "share": 0.5, "min_crop": 16, **changed},
    )


def boxes(*rows) -> Prompts:
    return Prompts(boxes_xyxy=np.array(rows, np.float32).reshape(-1, 4))


@st.composite
def any_boxes(draw):
    found = []
    for _ in range(draw(st.integers(0, 10))):
        w, h = draw(st.integers(1, 400)) / 4, draw(st.integers(1, 400)) / 4
        x, y = draw(st.integers(-40, 4 * WIDTH)) / 4, draw(st.integers(-40, 4 * HEIGHT)) / 4
        found.append((x, y, x + w, y + h))
    return boxes(*found)


@given(any_boxes())
@settings(max_examples=80)
def test_every_mask_comes_back_to_its_place_and_its_prompt(prompts):
    (plain,) = BoxSegmenter().segment([frame()], [prompts])
    (zoomed,) = zoom().segment([frame()], [prompts])
    assert zoomed == plain


@given(any_boxes())
@settings(max_examples=80)
def test_small_boxes_and_only_they_are_shown_enlarged(prompts):
    inner = Watched()
    inside = clip_xyxy(prompts.boxes_xyxy, (HEIGHT, WIDTH))
    zoom(inner, min_crop=1).segment([frame()], [boxes(*inside[(inside[:, 2:] > inside[:, :2]).all(axis=1)])])
    (views,) = inner.calls or [[]]
    for (height, width), asked in views:
        sides = asked.boxes_xyxy[:, 2:] - asked.boxes_xyxy[:, :2]
        if (height, width) == (HEIGHT, WIDTH):
            assert ((sides / [width, height]).max(axis=1) >= 0.1).all()
        else:
            # Half of `fill`, less what a crop of whole pixels takes away.
            assert (sides.max(axis=1) + 0.25 >= 0.125 * max(width, height)).all()


class Late(Watched):
    """Answers later than it is asked."""

    settled = False

    def begin(self, frames, prompts):
        answers = self.segment(frames, prompts)

        def settle():
            self.settled = True
            return answers

        return settle


def test_masks_come_as_late_as_the_inner_segmenter_s_and_no_pixel_is_held_meanwhile():
    inner, prompts = Late(), boxes((100, 100, 120, 110), (5, 5, 300, 200), (300, 200, 310, 210))
    frames = [frame(), frame(300, 200)]
    pixels = [weakref.ref(one.image_rgb) for one in frames]
    some = [prompts, boxes()]
    now = zoom().segment(frames, some)
    later = ask(zoom(inner), frames, some)
    del frames
    gc.collect()
    assert not inner.settled
    assert [one() for one in pixels] == [None, None]
    assert [[*one.by_object.values()] for one in later()] == now
    assert inner.settled


def test_a_box_takes_its_part_of_the_crop():
    inner = Watched()
    zoom(inner).segment([frame()], [boxes((100, 100, 120, 110))])
    (((shape, asked),),) = inner.calls
    assert shape == (80, 80)
    assert asked.boxes_xyxy.tolist() == [[30, 35, 50, 45]]


def test_crops_that_overlap_are_encoded_once_and_far_ones_apart():
    inner = Watched()
    near = [(100, 100, 120, 120), (110, 105, 130, 125), (105, 110, 125, 130)]
    zoom(inner).segment([frame()], [boxes(*near, (300, 200, 320, 220), (0, 0, 200, 200))])
    assert [(shape, len(asked)) for shape, asked in inner.calls[0]] == [
        ((300, 400), 1),
        ((90, 90), 3),
        ((80, 80), 1),
    ]


def test_a_crop_is_never_so_wide_that_its_boxes_are_small_again():
    inner = Watched()
    zoom(inner).segment([frame()], [boxes(*[(x, 100, x + 20, 120) for x in range(20, 360, 15)])])
    assert len(inner.calls[0]) > 1
    assert all(max(shape) <= 160 for shape, _ in inner.calls[0])


def test_pictures_are_asked_in_one_call_and_keep_their_order():
    inner = Watched()
    pictures = [frame(), frame(64, 48), frame()]
    prompts = [boxes((1, 1, 9, 9)), boxes(), boxes((0, 0, 300, 300), (50, 50, 60, 60))]
    found = zoom(inner).segment(pictures, prompts)
    assert len(inner.calls) == 1
    assert [[area_px(m.mask) for m in masks] for masks in found] == [[64], [], [90000, 100]]
    assert [m.mask.size_hw for masks in found for m in masks] == [(300, 400)] * 3


def test_no_crop_is_smaller_than_asked_and_none_larger_than_the_picture():
    inner = Watched()
    zoom(inner, min_crop=64).segment([frame()], [boxes((10, 10, 12, 12))])
    zoom(inner, min_crop=1000).segment([frame()], [boxes((10, 10, 12, 12))])
    assert [shape for call in inner.calls for shape, _ in call] == [(64, 64), (300, 400)]


def test_clicks_and_masks_move_with_the_box():
    inner = Watched()
    filled = BoxSegmenter().segment([frame()], [boxes((100, 100, 120, 110))])[0][0].mask
    prompts = Prompts(
        boxes_xyxy=np.array([[100, 100, 120, 110]], np.float32),
        points_xy=np.array([[[110, 105], [125, 100], [390, 290]]], np.float32),
        point_signs=np.array([[1, 0, 0]]),
        masks=(filled,),
    )
    zoom(inner).segment([frame()], [prompts])
    (((_, asked),),) = inner.calls
    assert asked.points_xy[0, :2].tolist() == [[40, 40], [55, 35]]
    assert asked.point_signs.tolist() == [[1, 0, -1]]
    assert decode(asked.masks[0])[35:45, 30:50].all()
    assert area_px(asked.masks[0]) == 200


def test_what_cannot_be_zoomed_is_asked_as_it_is():
    grid = Sieve(False, 0.0, 0.0, 0, 1.0, 0.7, 0.7, None)
    small = np.array([[100, 100, 120, 110]], np.float32)
    far = Prompts(boxes_xyxy=small, points_xy=np.array([[[300, 200]]], np.float32), point_signs=np.array([[1]]))
    clicks = Prompts(points_xy=np.array([[[300, 200]]], np.float32), point_signs=np.array([[1]]))
    nothing = Prompts(boxes_xyxy=np.full((1, 4), np.nan, np.float32))
    for prompts in (far, clicks, nothing, Prompts(boxes_xyxy=small, sieve=grid)):
        inner = Watched()
        zoom(inner).segment([frame()], [prompts])
        assert [shape for shape, _ in inner.calls[0]] == [(HEIGHT, WIDTH)]


def test_a_mask_that_lies_elsewhere_is_never_cut_to_nothing():
    """An empty mask is answered with a plausible one."""
    away = BoxSegmenter().segment([frame()], [boxes((300, 200, 320, 210))])[0][0].mask
    small = np.array([[100, 100, 120, 110], [100, 100, 120, 110]], np.float32)
    inner = Watched()
    zoom(inner).segment([frame()], [Prompts(boxes_xyxy=small, masks=(away, None))])
    asked = {shape: asked.masks for shape, asked in inner.calls[0]}
    assert asked[(HEIGHT, WIDTH)] == (away,)
    assert list(asked.values())[1] == (None,)


def test_an_answer_that_is_missing_shifts_no_other():
    class Silent(BoxSegmenter):
        def segment(self, frames, prompts):
            return [[m for m in masks if m.prompt] for masks in super().segment(frames, prompts)]

    rows = [(100, 100, 120, 120), (105, 105, 125, 125), (0, 0, 200, 200), (10, 10, 250, 250)]
    (found,) = zoom(Silent()).segment([frame()], [boxes(*rows)])
    (plain,) = BoxSegmenter().segment([frame()], [boxes(*rows)])
    assert [m.prompt for m in found] == [1, 3]
    assert [m.mask for m in found] == [plain[1].mask, plain[3].mask]


def test_settings_that_would_not_enlarge_are_refused():
    with pytest.raises(ConfigError, match=r"fill x share = .* or boxes would not be enlarged"):
        zoom(fill=0.15)
