"""What a small box says about its mask: the formula, its limits, its file, and where the segmenter goes by it."""

import json

import numpy as np
import pytest

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.core.errors import ConfigError
from autolabel.core.types import Prompts
from autolabel.ops import box_prior
from autolabel.ops.box_prior import REACH, BoxPrior, BySide, read_box_prior
from autolabel.ops.masks import bounds_xyxy, decode, encode
from autolabel.ops.rle import interpolate, interpolate_window
from autolabel.segment.inputs import by_shape
from autolabel.segment.sam2 import SHIPPED_BOX_PRIOR
from autolabel.weights import resolve
from scripts.fit_box_prior import Known, asked, enlarged, fit
from scripts.nano import drawn
from scripts.nano.segmenter import WEIGHTS, build_segmenter, load_weights
from tests.records import disc
from tests.unit.test_segment_sam2 import BOXES, frame, segmenter

PRIOR = BoxPrior(
    BySide((8.0, 16.0, 32.0, 64.0), (8.0, 3.0, 1.0, 0.0), (-4.0, -1.0, 0.5, 0.0), (-80.0, -30.0, -15.0, 0.0)),
    BySide((6.0, 12.0, 24.0), (5.0, 2.0, 0.0), (-3.0, -1.0, 0.0), (-60.0, -20.0, 0.0)),
    {"weights": "0"},
)
SIZE_HW = (150, 200)
SMALL = np.array([[40, 50, 52, 60], [0, 0, 9, 12], [190, 130, 200, 150], [100.3, 70.6, 117.9, 80.2]], np.float32)


def logits(seed, side=32):
    return np.random.default_rng(seed).normal(0, 4, (side, side)).astype(np.float32)


def by_hand(logits_hw, box, prior, size_hw):
    """The formula, pixel by pixel in float64, and how far each pixel is from the threshold."""
    h, w = size_hw
    x0, y0, x1, y1 = np.clip(np.float64(box), 0, [w, h, w, h])
    in_picture = np.sqrt((x1 - x0) * (y1 - y0))
    in_model = in_picture * np.sqrt(logits_hw.size * 16 / (h * w))
    side, numbers = (in_model, prior.model_px) if in_model < 64 else (in_picture, prior.picture_px)
    columns = (numbers.constant, numbers.bulge, numbers.edge)
    constant, bulge, edge = (np.interp(np.log2(side), np.log2(numbers.sides_px), column) for column in columns)
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    ux, uy = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)
    rise = np.maximum(abs(ux) - 0.9, 0) + np.maximum(abs(uy) - 0.9, 0)
    values = interpolate(logits_hw, size_hw, fused=False) + constant + bulge * (ux**2 + uy**2) + edge * rise
    reached = (abs(ux) <= 1 + 2 * REACH) & (abs(uy) <= 1 + 2 * REACH)
    return (values > 0) & reached, abs(values)


@pytest.mark.parametrize("box", SMALL)
@pytest.mark.parametrize("seed", range(5))
def test_a_small_boxs_mask_is_the_formulas(box, seed):
    found = PRIOR.rle(logits(seed), box, SIZE_HW, fused=False)
    expected, certain = by_hand(logits(seed), box, PRIOR, SIZE_HW)
    assert expected.any()
    assert (decode(found).astype(bool) == expected)[certain > 1e-4].all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("box", [(4, 3, 17.3, 15.2), (3, 2, 8.6, 9.3)])
def test_a_box_that_is_large_for_the_model_and_small_in_the_picture_has_a_prior_too(box, seed):
    shown, size_hw = logits(seed, side=64), (20, 24)
    found = PRIOR.rle(shown, np.array(box, np.float32), size_hw, fused=False)
    expected, certain = by_hand(shown, box, PRIOR, size_hw)
    assert expected.any()
    assert (decode(found).astype(bool) == expected)[certain > 1e-4].all()


def test_strong_logits_win_and_nothing_is_beyond_the_reach():
    box = np.array([40, 50, 60, 70], np.float32)
    full = PRIOR.rle(np.full((32, 32), 60, np.float32), box, SIZE_HW, fused=False)
    assert bounds_xyxy(full) == (35, 45, 65, 75)
    assert bounds_xyxy(PRIOR.rle(np.full((32, 32), -60, np.float32), box, SIZE_HW, fused=False)) is None


def test_an_overhanging_box_counts_as_far_as_it_is_in_the_picture():
    inside = np.array([0, 0, 12, 9], np.float32)
    assert PRIOR.rle(logits(1), inside - [4, 5, 0, 0], SIZE_HW, fused=False) == PRIOR.rle(
        logits(1), inside, SIZE_HW, fused=False
    )


@pytest.mark.parametrize(
    "box", [(0, 0, 200, 150), (40, 50, 140, 125), (-30, 10, -5, 40), (20, 20, 20, 40), (300, 10, 310, 20)]
)
def test_large_boxes_and_those_without_area_have_no_prior(box):
    assert PRIOR.rle(logits(0), np.array(box, np.float32), SIZE_HW, fused=False) is None


@pytest.mark.parametrize(
    "box",
    [(9.1, 9.1, 9.3, 9.3), (9.6, 5, 10.4, 40), (0, 0, 0.2, 30), (199.9, 20, 200, 50), (70, 149.8, 90, 149.9)],
)
def test_a_box_of_less_than_a_pixel_has_a_pixel(box):
    found = PRIOR.rle(np.full((32, 32), 5, np.float32), np.array(box, np.float32), SIZE_HW, fused=False)
    x0, y0, x1, y1 = bounds_xyxy(found)
    assert x0 <= (box[0] + box[2]) / 2 <= x1
    assert y0 <= (box[1] + box[3]) / 2 <= y1


@pytest.mark.parametrize("fused", [False, True])
def test_a_window_has_the_values_of_the_whole(fused):
    whole = interpolate(logits(3), SIZE_HW, fused=fused)
    for x0, y0, x1, y1 in [(0, 0, 200, 150), (3, 7, 9, 8), (190, 140, 200, 150)]:
        part = interpolate_window(logits(3), SIZE_HW, (x0, y0, x1, y1), fused=fused)
        assert np.array_equal(part, whole[y0:y1, x0:x1])


# -- which prompts ------------------------------------------------------------------------------------------------


def test_a_mask_or_a_click_out_of_the_box_knows_better():
    boxes = BOXES[[0, 1, 2, 2, 2]]
    clicks = np.array(
        [
            [[50, 60], [0, 0]],
            [[100, 100], [0, 0]],
            [[100, 90], [20, 80]],
            [[100, 90], [20, 80]],
            [[100, 90], [5, 5]],
        ]
    ).astype(np.float32)
    signs = np.array([[1, -1], [1, -1], [1, 1], [1, 0], [1, 0]], np.int64)
    asked = Prompts(boxes_xyxy=boxes, points_xy=clicks, point_signs=signs)
    known = {row: box for one in by_shape(asked) for row, box in zip(one.rows, one.boxes_for_prior(), strict=True)}
    assert np.array_equal(known[0], BOXES[0])
    assert np.isnan(known[1]).all()
    assert np.array_equal(known[2], BOXES[2])
    assert np.isnan(known[3]).all()
    assert np.isnan(known[4]).all()
    (masked,) = by_shape(Prompts(boxes_xyxy=BOXES[:1], masks=(encode(disc(120, 160, 60, 60, 30)),)))
    (clicked,) = by_shape(Prompts(points_xy=clicks[:, :1], point_signs=signs[:, :1]))
    assert np.isnan(masked.boxes_for_prior()).all()
    assert np.isnan(clicked.boxes_for_prior()).all()


TINY_BOXES = np.array([[20, 30, 26, 35], [80, 60, 92, 69], *BOXES[:1]], np.float32)


@pytest.fixture(scope="module")
def plain():
    return segmenter("nano", "nano_segmenter")


@pytest.fixture(scope="module")
def shipped():
    return segmenter("nano", "nano_segmenter", box_prior="nano")


@pytest.mark.usefixtures("one_thread")
def test_small_boxes_alone_have_other_masks_in_buckets_too(plain, shipped):
    asked = [Prompts(boxes_xyxy=TINY_BOXES)] * 2
    frames = [frame(0), frame(1)]
    before, after = plain.segment(frames, asked), shipped.segment(frames, asked)
    together = segmenter("nano", "nano_segmenter", box_prior="nano", batching="bucket").segment(frames, asked)
    for one, other, bucket in zip(before, after, together, strict=True):
        assert [a.mask == b.mask for a, b in zip(one, other, strict=True)] == [False, False, True]
        assert [a.predicted_iou for a in one] == [a.predicted_iou for a in other]
        assert [a.mask for a in bucket] == [a.mask for a in other]
        for answer, box in zip(other[:2], TINY_BOXES[:2], strict=True):
            x0, y0, x1, y1 = bounds_xyxy(answer.mask)
            margin = REACH * (box[2:] - box[:2]).max() + 1
            assert x0 >= box[0] - margin
            assert y0 >= box[1] - margin
            assert x1 <= box[2] + margin
            assert y1 <= box[3] + margin


@pytest.mark.usefixtures("one_thread")
def test_earlier_masks_are_answered_as_before(plain, shipped):
    asked = Prompts(boxes_xyxy=TINY_BOXES[:1], masks=(encode(disc(120, 160, 32, 23, 3)),))
    assert plain.segment([frame(0)], [asked]) == shipped.segment([frame(0)], [asked])


@pytest.mark.usefixtures("one_thread")
def test_it_is_part_of_the_identity(plain, shipped):
    assert plain.identity["box_prior"] == ""
    assert len(shipped.identity["box_prior"]) == 64


@pytest.mark.usefixtures("one_thread")
def test_the_nano_choice_has_it_and_null_switches_it_off(plain, shipped):
    def chosen(*settings):
        return build(compose("label", ["segment=nano", "segment.device=cpu", "source.path=x", *settings]).segment)

    asked = [frame(0)], [Prompts(boxes_xyxy=TINY_BOXES)]
    assert chosen().segment(*asked) == shipped.segment(*asked)
    assert chosen("segment.box_prior=null").segment(*asked) == plain.segment(*asked)


def test_other_weights_are_asked_without_the_shipped_one_but_with_one_of_their_own():
    other = segmenter("nano", "random:1", box_prior="nano")
    assert other.identity["box_prior"] == ""
    asked = [frame(0)], [Prompts(boxes_xyxy=TINY_BOXES)]
    assert other.segment(*asked) == segmenter("nano", "random:1").segment(*asked)
    assert len(segmenter("nano", "random:1", box_prior=str(SHIPPED_BOX_PRIOR)).identity["box_prior"]) == 64


# -- the file -----------------------------------------------------------------------------------------------------


def test_the_shipped_prior_was_fitted_to_the_shipped_weights():
    prior, _ = read_box_prior(SHIPPED_BOX_PRIOR)
    assert prior.about["weights"] == resolve("nano_segmenter").sha256


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "prior.json"
    path.write_text(box_prior.to_json(PRIOR))
    assert read_box_prior(path)[0] == PRIOR


@pytest.mark.parametrize(
    "change",
    [{"sides_px": [8, 8, 9, 10]}, {"sides_px": [8]}, {"edge": [1]}, {"bulge": [1, 2, 3, None]}, {"bulge": 3}, {"edge": None},
     {"constant": [1, 2, 3, float("nan")]}, {"edge": [1, 2, 3, 10**400]}, {"constant": [1, 2, 3, True]}, {"sides_px": [0, 1, 2, 3]}],
)  # fmt: skip
@pytest.mark.parametrize("table", ["model_px", "picture_px"])
def test_a_table_that_is_none_is_one_line(change, table, tmp_path):
    document = json.loads(box_prior.to_json(PRIOR))
    document[table] |= change
    refused(document, tmp_path)


@pytest.mark.parametrize("change", [{"version": 1}, {"about": 3}, {"model_px": []}, {"picture_px": None}])
def test_a_file_that_is_none_is_one_line(change, tmp_path):
    refused(json.loads(box_prior.to_json(PRIOR)) | change, tmp_path)


def refused(document, tmp_path):
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"^box_prior: .*prior\.json") as error:
        segmenter(box_prior=str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["", 3, True])
def test_a_word_that_is_none_is_one_line(value):
    with pytest.raises(ConfigError, match=r"^box_prior must be null or nano or a path"):
        segmenter(box_prior=value)


@pytest.mark.parametrize("name", ["no.json", "a\0b", "."])
def test_a_file_that_is_not_there_is_one_line(name, tmp_path):
    with pytest.raises(ConfigError, match=r"^box_prior: .* cannot be read"):
        segmenter(box_prior=str(tmp_path / name))


# -- fitting ------------------------------------------------------------------------------------------------------


def test_a_fit_finds_what_the_truth_was_drawn_from():
    rng = np.random.default_rng(0)
    weight, constant, bulge, edge = 0.5, 2.0, -1.5, -12.0
    objects = []
    for _ in range(400):
        terms = np.stack(
            [rng.normal(0, 3, 400), np.ones(400), rng.uniform(0, 2, 400), rng.uniform(0, 1, 400)], axis=1
        )
        odds = terms @ [weight, constant, bulge, edge]
        objects.append(Known(20.0, terms.astype(np.float32), rng.random(400) < 1 / (1 + np.exp(-odds))))
    side, (found, *others) = fit(objects)
    assert side == pytest.approx(20)
    assert others == pytest.approx([bulge / weight, edge / weight], rel=0.1)
    # At least even odds of being inside; more pixels than that are taken, as IoU asks for.
    assert constant / weight <= found <= (constant + 1.5) / weight + 0.2


def test_a_fit_to_logits_that_say_the_opposite_is_refused():
    rng = np.random.default_rng(0)
    terms = np.stack([rng.normal(0, 3, 400), np.ones(400), rng.uniform(0, 2, 400), rng.uniform(0, 1, 400)], axis=1)
    with pytest.raises(ValueError, match="the logits of 3 objects have the weight -"):
        fit([Known(20.0, terms.astype(np.float32), terms[:, 0] < 0)] * 3)


@pytest.mark.usefixtures("one_thread")
def test_known_objects_are_those_with_small_boxes_twice():
    model = build_segmenter().eval()
    load_weights(model, WEIGHTS)
    rng = np.random.default_rng(3)
    image, coverage = drawn.cells(rng, 512, lambda rng, hw: np.zeros((*hw, 3), np.uint8))
    small = [mask > 127 for mask in coverage if 40 < np.count_nonzero(mask > 127) < 40**2]
    large = np.zeros((512, 512), bool)
    large[50:400, 60:420] = True
    found = list(asked(model, image, [*small[:3], large], rng))
    assert len(found) == 2 * min(len(small), 3) > 0
    for one in found:
        assert one.side_px < 64
        assert one.terms.shape == (400, 4)
        assert 0 < one.inside.mean() < 1
    true_boxes = found[0::2]
    # A true box has nothing of its object beyond it.
    assert all(not one.inside[one.terms[:, 3] > 0.2].any() for one in true_boxes)


@pytest.mark.usefixtures("one_thread")
def test_known_objects_of_crops_are_those_that_are_small_in_the_picture():
    model = build_segmenter().eval()
    load_weights(model, WEIGHTS)
    truths = [np.zeros((400, 500), bool) for _ in range(3)]
    truths[0][50:70, 60:85] = True
    truths[1][0:15, 485:500] = True
    truths[2][100:180, 100:180] = True
    image = np.full((400, 500, 3), 90, np.uint8)
    image[truths[0] | truths[1] | truths[2]] = 200
    found = list(enlarged(model, image, truths, np.random.default_rng(0)))
    assert [one.side_px for one in found[0::2]] == pytest.approx([np.sqrt(20 * 25), 15])
    assert len(found) == 4
    for one in found:
        # The network sees these, so where its logits are strong they are right.
        strong = abs(one.terms[:, 0]) > 8
        assert strong.any()
        assert ((one.terms[:, 0] > 0) == one.inside)[strong].mean() > 0.9
