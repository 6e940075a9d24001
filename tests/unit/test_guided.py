"""Guided masks: outlines go where the picture has edges; nothing thin is lost; the mirror image has one vote of two."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.types import Frame, ImageInfo, ImageRef, PromptedMask, Prompts, Sieve
from autolabel.ops.guided import guided_filter
from autolabel.ops.masks import area_px, decode, encode, iou
from autolabel.ops.views import mask_mirrored, prompts_mirrored
from autolabel.segment.box import BoxSegmenter
from autolabel.segment.guided import GuidedSegmenter

WIDTH, HEIGHT = 120, 90


def frame(image_rgb) -> Frame:
    height, width = image_rgb.shape[:2]
    return Frame(ImageRef("a", "a"), image_rgb, ImageInfo(width, height))


def grey() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def boxes(*rows) -> Prompts:
    return Prompts(boxes_xyxy=np.array(rows, np.float32).reshape(-1, 4))


def rectangle(x0, y0, x1, y1) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


class Drawn:
    """Answers every prompt with masks given for the picture and for any other that it is shown."""

    @property
    def identity(self) -> dict[str, str]:
        return {"weights": "drawn"}

    def __init__(self, here, elsewhere=None, picture=None) -> None:
        self.here, self.elsewhere, self.picture = here, elsewhere, picture
        self.asked: list[tuple[Frame, Prompts]] = []

    def segment(self, frames, prompts):
        self.asked += list(zip(frames, prompts, strict=True))
        answers = []
        for one, asked in zip(frames, prompts, strict=True):
            mask = self.here if one is self.picture or self.elsewhere is None else self.elsewhere
            answers.append([PromptedMask(i, encode(mask), 0.9) for i in range(len(asked))])
        return answers


def guided(inner, **changed) -> GuidedSegmenter:
    return GuidedSegmenter(
        inner=inner, **{"radius": 0.05, "eps": 1e-4, "min_iou": 0.8, "mirror": False, **changed}
    )


def test_a_loose_outline_goes_to_the_edge_of_the_picture():
    image, truth = grey(), rectangle(30, 20, 90, 70)
    image[truth] = (200, 40, 40)
    loose = rectangle(28, 22, 91, 69)
    ((answer,),) = guided(Drawn(loose), radius=0.15).segment([frame(image)], [boxes((30, 20, 90, 70))])
    assert iou(encode(loose), encode(truth)) < 0.93
    assert iou(answer.mask, encode(truth)) > 0.99


def test_a_picture_without_edges_leaves_straight_outlines_where_they_are():
    mask = rectangle(30, 20, 90, 70)
    ((answer,),) = guided(Drawn(mask)).segment([frame(grey())], [boxes((30, 20, 90, 70))])
    changed = decode(answer.mask).astype(bool) != mask
    assert changed.sum() <= 4 * 3**2  # corners are rounded


def test_a_line_that_the_filter_would_lose_stays():
    line = rectangle(10, 40, 110, 41)
    ((answer,),) = guided(Drawn(line)).segment([frame(grey())], [boxes((10, 40, 110, 41))])
    assert decode(answer.mask).astype(bool).tolist() == line.tolist()


@st.composite
def noisy(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    mask = rectangle(x, y, draw(st.integers(x, WIDTH)), draw(st.integers(y, HEIGHT)))
    return image, mask & (rng.random(mask.shape) < draw(st.sampled_from([0.3, 0.9, 1.0])))


@given(noisy(), st.booleans(), st.sampled_from([0.0, 0.5, 0.8, 1.0]))
@settings(max_examples=80)
def test_no_mask_changes_by_more_than_the_bound_and_none_is_emptied(scene, mirror, min_iou):
    image, mask = scene
    segmenter = guided(Drawn(mask), mirror=mirror, min_iou=min_iou)
    ((answer,),) = segmenter.segment([frame(image)], [boxes((0, 0, WIDTH, HEIGHT))])
    assert bool(area_px(answer.mask)) == bool(mask.any())
    if mask.any():
        assert iou(answer.mask, encode(mask)) >= min_iou


def test_the_picture_decides_where_the_mirror_image_has_another_answer():
    image, truth = grey(), rectangle(30, 20, 90, 70)
    image[truth] = (200, 40, 40)
    picture = frame(image)
    short = rectangle(30, 20, 82, 70)
    inner = Drawn(short, elsewhere=truth[:, ::-1], picture=picture)
    ((answer,),) = guided(inner, mirror=True, radius=0.2, min_iou=0.5).segment(
        [picture], [boxes((30, 20, 90, 70))]
    )
    assert iou(answer.mask, encode(truth)) > 0.98
    assert answer.agreement == pytest.approx(52 / 60)


def test_the_mirror_image_is_asked_the_mirrored_question_in_the_same_call():
    image = grey()
    image[:, :10] = 255
    inner = Drawn(rectangle(1, 1, 9, 9))
    prompts = Prompts(
        boxes_xyxy=np.array([[10, 20, 30, 50]], np.float32),
        points_xy=np.array([[[12, 22], [100, 80]]], np.float32),
        point_signs=np.array([[1, 0]]),
        masks=(encode(rectangle(10, 20, 30, 50)),),
    )
    guided(inner, mirror=True).segment([frame(image)], [prompts])
    (_, (shown, asked)) = inner.asked
    assert (shown.image_rgb[:, -10:] == 255).all()
    assert (shown.image_rgb[:, :-10] == 90).all()
    assert asked.boxes_xyxy.tolist() == [[90, 20, 110, 50]]
    assert asked.points_xy.tolist() == [[[108, 22], [20, 80]]]
    assert asked.point_signs.tolist() == [[1, 0]]
    assert asked.masks == (encode(rectangle(90, 20, 110, 50)),)


@given(noisy())
@settings(max_examples=30)
def test_mirroring_twice_changes_nothing(scene):
    rle = encode(scene[1])
    assert mask_mirrored(mask_mirrored(rle)) == rle
    assert decode(mask_mirrored(rle)).tolist() == decode(rle)[:, ::-1].tolist()
    asked = boxes((1, 2, 30, 40), (np.nan,) * 4)
    back = prompts_mirrored(prompts_mirrored(asked, (HEIGHT, WIDTH)), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(back.boxes_xyxy, asked.boxes_xyxy)


def test_a_grid_is_not_mirrored_and_unanswered_prompts_stay_so():
    inner = Drawn(rectangle(30, 20, 90, 70))
    sieve = Sieve(False, 0.0, 0.0, 0, 1.0, 0.7, 0.7, None)
    guided(inner, mirror=True).segment(
        [frame(grey())], [Prompts(boxes_xyxy=np.zeros((1, 4), np.float32), sieve=sieve)]
    )
    assert len(inner.asked) == 1
    nothing = boxes((np.nan,) * 4, (10, 10, 50, 50))
    (answers,) = guided(BoxSegmenter(), mirror=True).segment([frame(grey())], [nothing])
    assert [answer.prompt for answer in answers] == [1]


def naive(guide_rgb, values, radius, eps):
    """The filter by its definition, a linear regression around each pixel (He, Sun, Tang 2013, equations 7 to 9)."""
    guide = np.pad(guide_rgb / 255.0, ((radius,) * 2, (radius,) * 2, (0, 0)), mode="symmetric")
    wide = np.pad(values.astype(float), radius, mode="symmetric")
    height, width = values.shape
    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            colours = guide[y : y + 2 * radius + 1, x : x + 2 * radius + 1].reshape(-1, 3)
            inside = wide[y : y + 2 * radius + 1, x : x + 2 * radius + 1].reshape(-1)
            covariance = np.cov(colours.T, bias=True) + eps * np.eye(3)
            slopes[y, x] = np.linalg.solve(
                covariance, (colours * inside[:, None]).mean(0) - colours.mean(0) * inside.mean()
            )
            offsets[y, x] = inside.mean() - slopes[y, x] @ colours.mean(0)

    def mean(plane):
        padded = np.pad(plane, radius, mode="symmetric")
        return np.array(
            [
                [padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1].mean() for x in range(width)]
                for y in range(height)
            ]
        )

    return sum(mean(slopes[..., c]) * guide_rgb[..., c] / 255.0 for c in range(3)) + mean(offsets)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_the_filter_is_the_papers(radius):
    rng = np.random.default_rng(3)
    guide = rng.integers(0, 256, (14, 17, 3), np.uint8)
    values = (rng.random((14, 17)) < 0.5).astype(np.float32)
    np.testing.assert_allclose(
        guided_filter(guide, values, radius, 1e-2), naive(guide, values, radius, 1e-2), atol=2e-5
    )


def test_a_coarser_grid_draws_nearly_the_same_outline():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:400, :500]
    inside = (x - 250) ** 2 / 180**2 + (y - 200) ** 2 / 130**2 < 1
    image = np.clip(
        np.where(inside[..., None], (180, 90, 60), (70, 100, 120)) + rng.normal(0, 12, (400, 500, 3)), 0, 255
    )
    rough = np.roll(inside, 7, axis=1).astype(np.float32)
    found = guided_filter(image.astype(np.uint8), rough, 24, 1e-3) > 0.5
    assert iou(encode(rough > 0), encode(inside)) < 0.97
    assert iou(encode(found), encode(inside)) > 0.99


@pytest.mark.parametrize(("shape", "radius"), [((4, 5), 2), ((5, 4), 0)])
def test_the_filter_refuses_what_does_not_fit(shape, radius):
    with pytest.raises(ValueError, match="guide"):
        guided_filter(np.zeros((5, 4, 3), np.uint8), np.zeros(shape, np.float32), radius, 1e-3)
