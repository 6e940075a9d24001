import math
from dataclasses import replace

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError
from autolabel.core.types import ImageInfo
from autolabel.ops.masks import area_px, encode
from autolabel.refine.area import AreaRefiner
from autolabel.refine.box_fit import BoxFitRefiner
from autolabel.refine.each import SizeLimit
from autolabel.refine.holes import HolesRefiner
from autolabel.refine.islands import IslandsRefiner
from autolabel.refine.score import ScoreRefiner
from tests.records import disc, instance, shapes

IMAGE = ImageInfo(160, 120)
EMPTY = np.zeros((120, 160), np.uint8)
SCORE = {"min_detector_score": None, "min_predicted_iou": None, "min_object_score": None, "min_stability": None}
AREA = {"min_px": None, "max_px": None, "min_fraction": None, "max_fraction": None}


def preset(name):
    components = OmegaConf.load(configs_dir() / "refine" / f"{name}.yaml")
    return [instantiate(component) for component in components.values()]


def refine(refiners, instances):
    kept, dropped = list(instances), []
    for refiner in refiners:
        kept, gone = refiner.refine(kept, IMAGE)
        dropped += gone
    return kept, dropped


def a_bit_of_everything():
    masks = [*shapes().values(), EMPTY]
    made = [instance(mask, i, detector_score=i / len(masks)) for i, mask in enumerate(masks)]
    return [*made, replace(made[0], index=99, detector_score=math.nan)]


@pytest.mark.parametrize("name", ["default", "strict", "none"])
def test_every_instance_comes_back_once(name):
    given = a_bit_of_everything()
    kept, dropped = refine(preset(name), given)
    found = [i.index for i in kept] + [d.instance.index for d in dropped]
    assert sorted(found) == [i.index for i in given]
    assert [i.index for i in kept] == sorted(i.index for i in kept)
    assert all(": " in d.reason for d in dropped)


@pytest.mark.parametrize("name", ["default", "strict", "none"])
def test_the_persons_own_instances_are_left_untouched(name):
    own = [replace(i, origin="label") for i in a_bit_of_everything()]
    kept, dropped = refine(preset(name), own)
    assert all(a is b for a, b in zip(kept, own, strict=True))
    assert dropped == []


def test_default_drops_empty_masks_alone_and_scores_the_others():
    given = a_bit_of_everything()
    kept, dropped = refine(preset("default"), given)
    assert [d.reason for d in dropped] == ["min_area: 0 < 1 px"]
    assert [replace(one, quality=None) for one in kept[:-1]] == [i for i in given[:-1] if area_px(i.mask)]
    assert all(0 < one.quality < 1 for one in kept)


@pytest.mark.parametrize(
    ("key", "fields", "reason"),
    [
        ("min_detector_score", {"detector_score": 0.25}, "min_detector_score: 0.250 < 0.5"),
        ("min_detector_score", {"detector_score": math.nan}, "min_detector_score: nan < 0.5"),
        ("min_predicted_iou", {"predicted_iou": 0.4}, "min_predicted_iou: 0.400 < 0.5"),
        ("min_object_score", {"object_score": 0.3}, "min_object_score: 0.300 < 0.5"),
        ("min_stability", {"stability": 0.1}, "min_stability: 0.100 < 0.5"),
    ],
)
def test_a_score_below_its_floor_is_dropped_with_both_numbers(key, fields, reason):
    refiner = ScoreRefiner(**{**SCORE, key: 0.5})
    _, dropped = refiner.refine([instance(shapes()["disc"], **fields)], IMAGE)
    assert [d.reason for d in dropped] == [reason]


def test_a_score_that_is_not_given_is_not_held_against_an_instance():
    refiner = ScoreRefiner(**{**SCORE, "min_object_score": 0.5, "min_stability": 0.5})
    given = [instance(shapes()["disc"])]
    assert refiner.refine(given, IMAGE) == (given, [])


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [("min_px", 10, "min_area"), ("max_px", 8, "max_area"), ("min_fraction", 0.5, "min_area_fraction"),
     ("max_fraction", 0.0001, "max_area_fraction")],
)  # fmt: skip
def test_areas_outside_the_limits_are_dropped(key, value, word):
    mask = EMPTY.copy()
    mask[:3, :3] = 1
    _, dropped = AreaRefiner(**{**AREA, key: value}).refine([instance(mask)], IMAGE)
    assert dropped[0].reason.split(":")[0] == word
    assert AreaRefiner(**{**AREA, "min_px": 9, "max_px": 9}).refine([instance(mask)], IMAGE)[1] == []


def test_a_mask_that_does_not_fill_its_box_is_dropped():
    loose = instance(disc(120, 160, 60, 60, 10), box_xyxy=(0.0, 0.0, 160.0, 120.0))
    tight = instance(disc(120, 160, 60, 60, 10), 1)
    kept, dropped = BoxFitRefiner(min_iou=0.5).refine([loose, tight], IMAGE)
    assert kept == [tight]
    assert dropped[0].reason == "box_fit: 0.023 < 0.5"
    assert BoxFitRefiner(min_iou=None).refine([loose], IMAGE) == ([loose], [])


def test_a_box_over_the_border_is_compared_inside_the_picture():
    left_half = disc(120, 160, 0, 60, 40)
    overhanging = instance(left_half, box_xyxy=(-120.0, 20.0, 41.0, 101.0))
    assert BoxFitRefiner(min_iou=0.9).refine([overhanging], IMAGE) == ([overhanging], [])


def test_changed_masks_keep_their_index_and_lose_the_polygons_that_no_longer_fit():
    speck = instance(shapes()["speck"], 4, polygons=((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),))
    kept, dropped = IslandsRefiner(max_px=1, max_fraction=None, largest_only=False).refine([speck], IMAGE)
    assert dropped == []
    assert (kept[0].index, kept[0].polygons) == (4, None)
    assert kept[0].mask == encode(disc(120, 160, 61, 60, 30))


def test_small_may_also_mean_small_beside_the_object():
    swiss = shapes()["swiss"]  # 5 holes of 16 px in a disc of 7825 px
    swiss[0:3, 0:5] = 1  # and a part of 15 px beside it
    (kept,), _ = HolesRefiner(max_px=0, max_fraction=0.003).refine([instance(swiss)], IMAGE)
    (kept,), _ = IslandsRefiner(max_px=0, max_fraction=0.003, largest_only=False).refine([kept], IMAGE)
    assert kept.mask == encode(disc(120, 160, 80, 60, 50))
    untouched = [instance(swiss)]
    assert HolesRefiner(max_px=0, max_fraction=0.001).refine(untouched, IMAGE)[0] == untouched
    assert (
        IslandsRefiner(max_px=0, max_fraction=0.001, largest_only=False).refine(untouched, IMAGE)[0] == untouched
    )


def test_small_holes_are_filled():
    kept, _ = HolesRefiner(max_px=16, max_fraction=None).refine([instance(shapes()["swiss"])], IMAGE)
    assert kept[0].mask == encode(disc(120, 160, 80, 60, 50))


def test_a_fraction_that_binary_cannot_hold_is_not_a_pixel_less():
    of_100_px = encode(np.ones((10, 10), np.uint8))
    assert [SizeLimit(None, share).of(of_100_px) for share in (0.29, 0.57, 0.579)] == [29, 57, 57]


def test_the_largest_area_is_not_below_the_smallest():
    with pytest.raises(ConfigError, match="max_px must be at least min_px = 9, got 3"):
        AreaRefiner(**{**AREA, "min_px": 9, "max_px": 3})
    with pytest.raises(ConfigError, match=r"max_fraction must be at least min_fraction = 0\.5, got 0\.25"):
        AreaRefiner(**{**AREA, "min_fraction": 0.5, "max_fraction": 0.25})
