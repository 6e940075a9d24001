import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category, ImageInfo
from autolabel.ops.masks import decode, encode
from autolabel.refine.duplicates import DuplicatesRefiner
from autolabel.refine.ownership import OwnershipRefiner
from tests.records import disc, instance

IMAGE = ImageInfo(80, 60)
CAR, WHEEL = 3, 7


def block(x0, y0, x1, y1, index, **changes):
    mask = np.zeros((60, 80), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return instance(mask, index, **changes)


def duplicates(instances, min_iou=None, min_containment=None, across_classes=False):
    settings = {"min_iou": min_iou, "min_containment": min_containment, "across_classes": across_classes}
    return DuplicatesRefiner(**settings).refine(instances, IMAGE)


def owned(instances, by="score", part_of=None, min_visible=0.0):
    return OwnershipRefiner(by=by, part_of=part_of, min_visible=min_visible).refine(instances, IMAGE)


def pixels(instances):
    return {one.index: int(decode(one.mask).sum()) for one in instances}


def test_of_two_masks_of_one_object_the_better_one_stays():
    worse, better = block(0, 0, 20, 20, 0, detector_score=0.5), block(0, 0, 20, 19, 1, detector_score=0.9)
    kept, dropped = duplicates([worse, better], min_iou=0.9)
    assert kept == [better]
    assert [d.reason for d in dropped] == ["duplicate: IoU 0.950 >= 0.9 with object 1"]


def test_quality_says_which_is_better_where_both_have_one():
    a = block(0, 0, 20, 20, 0, detector_score=0.9, quality=0.4)
    b = block(0, 0, 20, 20, 1, detector_score=0.5, quality=0.8)
    assert duplicates([a, b], min_iou=0.9)[0] == [b]
    assert duplicates([a, replace(b, quality=None)], min_iou=0.9)[0] == [a]


def test_a_score_that_is_no_number_never_wins_and_equals_go_to_the_first():
    nan, known = block(0, 0, 9, 9, 0, detector_score=math.nan), block(0, 0, 9, 9, 1, detector_score=0.0)
    assert duplicates([nan, known], min_iou=0.9)[0] == [known]
    assert duplicates([replace(known, index=2), known], min_iou=0.9)[0] == [known]


def test_a_part_of_an_object_is_a_duplicate_by_containment_alone():
    whole, part = block(0, 0, 40, 40, 0), block(0, 0, 10, 10, 1, detector_score=0.5)
    assert duplicates([whole, part], min_iou=0.5)[1] == []
    _, dropped = duplicates([whole, part], min_containment=0.9)
    assert [d.reason for d in dropped] == ["duplicate: 1.000 >= 0.9 of the smaller one shared with object 0"]


def test_another_class_is_another_object_unless_asked():
    car, wheel = block(0, 0, 20, 20, 0, category_id=CAR), block(0, 0, 20, 20, 1, category_id=WHEEL)
    assert duplicates([car, wheel], min_iou=0.9)[1] == []
    assert [d.instance for d in duplicates([car, wheel], min_iou=0.9, across_classes=True)[1]] == [wheel]


def test_what_is_dropped_takes_nobody_along():
    a, b, c = (block(4 * k, 0, 20 + 4 * k, 20, k, detector_score=0.9 - k / 10) for k in range(3))
    assert duplicates([a, b, c], min_iou=0.6)[0] == [a, c]


def test_the_persons_own_masks_stay_and_outlast_a_duplicate_of_any_score():
    own = block(0, 0, 20, 20, 1, origin="label", detector_score=0.0)
    twin = replace(own, index=2)
    found = block(0, 0, 20, 20, 0, detector_score=1.0, quality=0.99)
    kept, dropped = duplicates([found, own, twin], min_iou=0.9, min_containment=0.5)
    assert kept == [own, twin]
    assert [d.instance for d in dropped] == [found]


def test_a_crowd_is_no_duplicate_and_has_none():
    crowd = block(0, 0, 40, 40, 0, origin="label", crowd=True)
    found = block(0, 0, 40, 40, 1)
    for refined in (duplicates([crowd, found], 0.5, 0.5), owned([crowd, found])):
        assert refined == ([crowd, found], [])


def test_shared_pixels_go_to_the_better_mask():
    low, high = block(0, 0, 20, 20, 0, detector_score=0.2), block(10, 0, 30, 20, 1, detector_score=0.8)
    kept, dropped = owned([low, high])
    assert pixels(kept) == {0: 200, 1: 400}
    assert (kept[1], dropped) == (high, [])


def test_by_depth_the_smaller_one_is_in_front():
    large, small = block(0, 0, 40, 40, 0, detector_score=0.9), block(10, 10, 20, 20, 1, detector_score=0.1)
    assert pixels(owned([large, small], by="depth")[0]) == {0: 1500, 1: 100}
    kept, dropped = owned([large, small], by="score")
    assert kept == [large]
    assert [d.reason for d in dropped] == ["hidden: 0.000 of it is left, the rest belongs to object 0"]


def test_what_is_dropped_for_too_little_left_gives_its_pixels_back():
    front = block(0, 0, 20, 20, 0, detector_score=0.9)
    middle = block(1, 0, 24, 20, 1, detector_score=0.8)
    back = block(20, 0, 40, 20, 2, detector_score=0.7)
    kept, dropped = owned([front, middle, back], min_visible=0.5)
    assert kept == [front, back]
    assert dropped[0].reason.startswith("hidden: 0.174 of it is left")


def test_a_part_and_its_whole_share_their_pixels():
    car = block(0, 0, 40, 40, 0, category_id=CAR)
    wheel = block(30, 30, 50, 50, 1, category_id=WHEEL, detector_score=0.5)
    other = block(35, 0, 50, 40, 2, category_id=CAR, detector_score=0.4)
    kept, _ = owned([car, wheel, other], part_of={WHEEL: CAR})
    assert kept[:2] == [car, wheel]
    assert pixels(kept)[2] == 15 * 40 - 5 * 40  # cut by the car, not by the wheel


def test_names_of_classes_become_those_of_the_run():
    rules = OwnershipRefiner(by="depth", part_of={"wheel": "car"}, min_visible=0.0)
    car, wheel = block(0, 0, 40, 40, 0, category_id=CAR), block(30, 30, 50, 50, 1, category_id=WHEEL)
    assert rules.for_classes([Category(CAR, "car"), Category(WHEEL, "wheel")]).refine([car, wheel], IMAGE) == (
        [car, wheel],
        [],
    )
    with pytest.raises(ConfigError, match="part_of: there is no class 'car'; there are dog"):
        rules.for_classes([Category(1, "dog"), Category(2, "wheel")])


def test_the_persons_own_masks_own_their_pixels_whatever_the_rule():
    own = block(0, 0, 40, 40, 0, origin="label", detector_score=0.0)
    twin = replace(own, index=1)
    found = block(30, 30, 50, 50, 2, detector_score=1.0)
    for by in ("score", "depth"):
        kept, _ = owned([own, twin, found], by=by)
        assert kept[:2] == [own, twin]
        assert pixels(kept)[2] == 300


masks = arrays.arrays(np.uint8, (4, 7, 9), elements=st.integers(0, 1))


@given(masks, st.sampled_from(["score", "depth"]))
def test_afterwards_every_pixel_that_was_owned_has_exactly_one_owner(stack, by):
    given = [instance(mask, i, detector_score=i / 10) for i, mask in enumerate(stack) if mask.any()]
    kept, _ = OwnershipRefiner(by=by, part_of=None, min_visible=0.0).refine(given, ImageInfo(9, 7))
    owners = sum((decode(one.mask).astype(int) for one in kept), np.zeros((7, 9), int))
    assert np.array_equal(owners, stack.any(axis=0).astype(int))


def test_by_default_nothing_changes():
    given = [block(0, 0, 20, 20, 0), block(0, 0, 20, 20, 1)]
    assert owned(given, by="all") == (given, [])
    assert duplicates(given) == (given, [])


def test_objects_that_do_not_touch_keep_the_very_same_mask():
    given = [instance(encode(disc(60, 80, 20, 30, 10)), 0), instance(encode(disc(60, 80, 60, 30, 10)), 1)]
    assert all(a is b for a, b in zip(owned(given)[0], given, strict=True))


def test_a_whole_is_a_class():
    with pytest.raises(ConfigError, match="part_of must be null or map a class to that of its whole"):
        owned([], part_of={"a": None})
