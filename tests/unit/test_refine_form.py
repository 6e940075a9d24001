"""Border, bleed, smooth: refiners that look at one mask's form."""

import cv2
import numpy as np
import pytest

from autolabel.core.types import ImageInfo
from autolabel.ops.masks import decode, encode, iou
from autolabel.ops.smooth import open_close, smoothed
from autolabel.refine.bleed import BleedRefiner
from autolabel.refine.border import BorderRefiner
from autolabel.refine.smooth import SmoothRefiner
from tests.records import disc, instance, part_areas_px, shapes

IMAGE = ImageInfo(160, 120)


def border(instances, max_contact=None, max_cut=None):
    return BorderRefiner(max_contact=max_contact, max_cut=max_cut).refine(instances, IMAGE)


def bleed(instances, margin=0.0, max_fraction=None, clip=False):
    return BleedRefiner(margin=margin, max_fraction=max_fraction, clip=clip).refine(instances, IMAGE)


def smooth(instances, how="median", radius_px=3, radius_fraction=0.0, min_iou=0.5):
    rule = SmoothRefiner(how=how, radius_px=radius_px, radius_fraction=radius_fraction, min_iou=min_iou)
    return rule.refine(instances, IMAGE)[0]


def block(x0, y0, x1, y1, **changes):
    mask = np.zeros((120, 160), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return instance(mask, **changes)


def test_a_mask_with_much_of_its_outline_on_the_border_is_dropped():
    corner, edge, inside = block(0, 0, 20, 20), block(50, 0, 70, 20), block(50, 50, 70, 70)
    assert border([corner], max_contact=0.4)[1][0].reason == (
        "border: 0.500 > 0.4 of the outline is on the picture's border"
    )
    assert border([edge], max_contact=0.4) == ([edge], [])
    assert [d.instance for d in border([corner, edge, inside], max_contact=0.0)[1]] == [corner, edge]


def test_a_box_that_is_largely_outside_the_picture_is_dropped():
    cut = block(0, 0, 20, 20, box_xyxy=(-60.0, 0.0, 20.0, 20.0))
    assert border([cut], max_cut=0.5)[1][0].reason == "border_cut: 0.750 > 0.5 of the box is outside the picture"
    assert border([cut], max_cut=0.8) == ([cut], [])


def test_a_mask_that_runs_out_of_its_box_is_dropped_or_clipped():
    loose = block(0, 0, 40, 20, box_xyxy=(0.0, 0.0, 20.0, 20.0))
    assert bleed([loose], max_fraction=0.4)[1][0].reason == "bleed: 0.500 > 0.4 of the mask is outside its box"
    assert bleed([loose], max_fraction=0.5) == ([loose], [])
    assert bleed([loose], clip=True)[0][0].mask == block(0, 0, 20, 20).mask
    assert bleed([loose], clip=True, margin=0.5)[0][0].mask == block(0, 0, 30, 20).mask
    assert bleed([loose], clip=True, margin=1.0)[0][0] is loose


def test_a_mask_wholly_outside_its_box_is_dropped_when_it_would_be_clipped():
    lost = block(100, 100, 120, 120, box_xyxy=(0.0, 0.0, 20.0, 20.0))
    assert bleed([lost], clip=True)[1][0].reason == "bleed: all of the mask is outside its box"


def test_pixels_belong_to_the_box_by_their_centres():
    given = block(0, 0, 40, 20, box_xyxy=(0.5, 0.0, 20.51, 20.0))
    assert bleed([given], clip=True)[0][0].mask == block(0, 0, 21, 20).mask
    assert bleed([block(0, 0, 40, 20, box_xyxy=(0.51, 0.0, 20.5, 20.0))], clip=True)[0][0].mask == (
        block(1, 0, 20, 20).mask
    )


@pytest.mark.parametrize("how", ["median", "open_close"])
@pytest.mark.parametrize("name", shapes())
@pytest.mark.parametrize("min_iou", [0.5, 0.9, 0.99, 1.0])
def test_smoothing_never_changes_more_than_its_bound(how, name, min_iou):
    given = instance(shapes()[name])
    (kept,) = smooth([given], how, min_iou=min_iou)
    assert iou(kept.mask, given.mask) >= min_iou


@pytest.mark.parametrize("how", ["median", "open_close"])
def test_spikes_and_notches_go_and_the_body_stays(how):
    mask = disc(120, 160, 80, 60, 40)
    rough = mask.copy()
    rough[60, 120:140] = 1  # a hair
    rough[60:62, 39:60] = 0  # a crack
    (kept,) = smooth([instance(rough)], how, min_iou=0.9)
    assert decode(kept.mask)[60, 130] == 0
    assert decode(kept.mask)[60, 50] == 1
    assert iou(kept.mask, encode(mask)) > iou(encode(rough), encode(mask))


@pytest.mark.parametrize("how", ["median", "open_close"])
def test_what_the_picture_cuts_stays_cut_straight(how):
    full, corner = instance(shapes()["full"]), block(0, 0, 40, 30)
    assert smooth([full], how)[0] is full
    assert decode(smooth([corner], how)[0].mask)[:26, :36].all()


def test_the_largest_radius_within_the_bound_is_taken():
    comb = np.zeros((120, 160), np.uint8)
    comb[20:100, 20:140] = 1
    comb[10:20, 20:140:2] = 1  # teeth of one pixel
    teeth = instance(comb)
    results = [smooth([teeth], "open_close", radius_px=r, min_iou=0.9)[0].mask for r in (1, 3, 30)]
    assert iou(results[0], teeth.mask) < 1
    assert len(part_areas_px(results[1])) == 1
    assert iou(results[2], teeth.mask) >= 0.9


def test_a_radius_may_be_a_fraction_of_the_objects_size():
    block_of_50 = np.zeros((120, 160), np.uint8)
    block_of_50[30:80, 40:90] = 1
    block_of_50[25:30, 60:65] = 1  # a tooth of 5 px
    given = [instance(block_of_50)]
    by_fraction = [smooth(given, radius_px=0, radius_fraction=part)[0].mask for part in (0.02, 0.12)]
    assert by_fraction == [smooth(given, radius_px=px)[0].mask for px in (1, 6)]
    assert by_fraction[0] != by_fraction[1]
    assert smooth(given, radius_px=6, radius_fraction=0.02)[0].mask == by_fraction[1]


def test_a_radius_by_size_ends_at_a_hundred_pixels(monkeypatch):
    asked = []
    monkeypatch.setattr("autolabel.refine.smooth.smoothed", lambda mask, how, radius, least: asked.append(radius))
    smooth([instance(np.ones((120, 160), np.uint8))], radius_px=0, radius_fraction=1.0)
    assert asked == [100]


def by_all_pixels_of_the_disc(mask, radius):
    """What `open_close` is: cv2's own, far from any border."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = np.pad(mask, 4 * radius + 2, mode="edge")
    closed = cv2.morphologyEx(cv2.morphologyEx(wide, cv2.MORPH_OPEN, disc), cv2.MORPH_CLOSE, disc)
    return closed[4 * radius + 2 : -4 * radius - 2, 4 * radius + 2 : -4 * radius - 2]


@pytest.mark.parametrize("seed", range(20))
def test_opening_and_closing_is_that_of_cv2_to_the_pixel(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 80, 2)
    noise = cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), float(rng.uniform(0.5, 8)))
    mask = (noise > np.quantile(noise, rng.uniform(0.1, 0.9))).astype(np.uint8)
    mask[: rng.integers(0, 8)] = 0  # some masks touch the border of the picture there, some do not
    before = encode(mask)
    for radius in (1, 2, 3, 7, 16):
        tried = [encode(by_all_pixels_of_the_disc(mask, r)) for r in range(radius, 0, -1)]
        for least in (0.05, 0.9):
            expected = next((one for one in tried if iou(one, before) >= least), before)
            assert smoothed(before, open_close, radius, least) == expected


def test_off_means_the_very_same_masks_and_so_it_is_for_the_persons_own():
    given = [instance(mask, i) for i, mask in enumerate(shapes().values())]
    own = [
        instance(mask, i, origin="label", box_xyxy=(0.0, 0.0, 1.0, 1.0))
        for i, mask in enumerate(shapes().values())
    ]
    assert all(a is b for a, b in zip(smooth(given, radius_px=0), given, strict=True))
    assert bleed(given) == border(given) == (given, [])
    assert all(a is b for a, b in zip(smooth(own), own, strict=True))
    assert bleed(own, max_fraction=0.0, clip=True) == border(own, 0.0, 0.0) == (own, [])
