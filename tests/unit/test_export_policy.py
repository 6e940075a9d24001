from collections import Counter

import numpy as np
import pytest

from autolabel.core.errors import ExportError
from autolabel.export.policy import POLICY_NOTES, Policy, explained, policy_of, prepared
from autolabel.export.reading import compare
from autolabel.ops.masks import area_px, decode, encode
from tests.records import ListReader, disc, hole_areas_px, instance, part_areas_px, record, shapes

SHAPES = shapes()
BIG, SMALL = disc(120, 160, 60, 60, 30), disc(120, 160, 85, 60, 12)


def apply(objects, **settings):
    counts = Counter()
    return prepared(record("a.jpg", objects), policy_of(**settings), counts), counts


def test_the_defaults_change_nothing_and_count_nothing():
    objects = [instance(mask, i) for i, mask in enumerate(SHAPES.values())]
    assert apply(objects) == (objects, Counter())


def test_filled_holes_keep_the_outline_and_lose_every_hole():
    (ring,), counts = apply([instance(SHAPES["ring"])], holes="fill")
    assert (decode(ring.mask) == disc(120, 160, 70, 60, 40)).all()
    assert (len(hole_areas_px(ring.mask)), counts["holes_filled"]) == (0, 1)


def test_of_several_parts_the_largest_stays_or_each_becomes_an_object():
    (one,), counts = apply([instance(SHAPES["speck"], 7)], parts="largest")
    assert len(part_areas_px(one.mask)) == counts["smaller_parts_left_out"] == 1
    pieces, counts = apply([instance(SHAPES["twelve parts"], 7)], parts="split")
    assert [piece.index for piece in pieces] == [7] * 12
    assert counts["objects_split"] == 1
    assert (sum(decode(piece.mask) for piece in pieces) == SHAPES["twelve parts"]).all()


@pytest.mark.parametrize(("rule", "owner"), [("score", 0), ("smallest", 1)])
def test_a_shared_pixel_has_one_owner_and_what_is_hidden_is_counted(rule, owner):
    objects = [instance(BIG, 0, detector_score=0.9), instance(SMALL, 1, detector_score=0.5)]
    kept, counts = apply(objects, overlaps=rule)
    shared = int((BIG & SMALL).sum())
    assert kept[owner].mask == objects[owner].mask
    assert area_px(kept[1 - owner].mask) == area_px(objects[1 - owner].mask) - shared
    assert (sum(decode(one.mask) for one in kept) == (BIG | SMALL)).all()
    assert (counts["overlaps_cut"], counts["overlap_px"]) == (1, shared)


def test_among_equals_the_first_owns_and_a_covered_object_is_left_out_and_counted():
    kept, counts = apply([instance(BIG, 0), instance(BIG, 1)], overlaps="score")
    assert [one.index for one in kept] == [0]
    assert counts["hidden_objects"] == 1


def test_crowds_neither_take_nor_lose_pixels():
    objects = [instance(BIG, 0, crowd=True), instance(SMALL, 1)]
    assert apply(objects, overlaps="score")[0] == objects
    kept, counts = apply(objects, crowd="drop")
    assert (kept, counts["crowds_left_out"]) == (objects[1:], 1)


def test_small_and_empty_objects_are_left_out_and_counted():
    empty = instance(np.zeros((120, 160), np.uint8), 2)
    kept, counts = apply([instance(SHAPES["pixel"]), instance(BIG, 1), empty], min_area_px=2)
    assert [one.index for one in kept] == [1]
    assert (counts["below_min_area"], counts["empty_masks"]) == (1, 1)


def test_a_changed_mask_no_longer_carries_the_sources_polygons():
    own = instance(SHAPES["ring"], origin="label", polygons=((1.0, 1.0, 5.0, 1.0, 5.0, 5.0),))
    assert apply([own])[0][0].polygons is not None
    assert apply([own], holes="fill")[0][0].polygons is None


def test_a_mask_of_another_size_than_its_image_is_an_error():
    wrong = record("a.jpg", [instance(BIG), instance(np.ones((5, 5), np.uint8), 1)])
    with pytest.raises(ExportError, match="a mask of"):
        prepared(wrong, Policy(), Counter())


def test_every_effect_is_told_by_object_and_has_a_line_for_the_report():
    objects = [instance(SHAPES["ring"], 0), instance(SHAPES["speck"], 1), instance(SHAPES["pixel"], 2)]
    policy = policy_of(holes="fill", parts="largest", min_area_px=5)
    _, reasons = explained(record("a.jpg", objects), policy)
    assert reasons == {0: ["hole filled"], 1: ["part left out"], 2: ["not written: 1 px, under min_area_px"]}
    counts = Counter()
    prepared(record("a.jpg", objects), policy, counts)
    assert set(counts) <= set(POLICY_NOTES)


def test_reading_back_compares_with_the_runs_own_mask_and_gives_the_reason():
    objects = [instance(SHAPES["ring"], 0), instance(SHAPES["disc"], 1), instance(SHAPES["pixel"], 2, crowd=True)]
    policy = policy_of(holes="fill", crowd="drop")
    run = ListReader([record("a.jpg", objects), record("b.jpg")])

    def read(one):
        return [(i.index, i.mask) for i in prepared(one, policy, Counter())]

    found = compare(run, read, policy)
    assert found.objects == 3
    assert [(d.index, d.reason) for d in found.deviations] == [(0, "hole filled"), (2, "not written: crowd")]
    assert 0.8 < found.deviations[0].iou < 1.0
    worse = compare(run, lambda one: [(1, encode(BIG * 0 + 1))], policy, lambda _, __: "simplified")
    assert worse.deviations[1].reason == "simplified"
    absent = compare(run, lambda _: None, policy).deviations
    assert [(d.reason, d.expected) for d in absent] == [
        *[("the image is not in the export", False)] * 2, ("not written: crowd", True),
    ]  # fmt: skip


def test_a_deviation_is_expected_where_policy_format_or_its_limits_account_for_it():
    run, policy = ListReader([record("a.jpg", [instance(SHAPES["ring"])])]), policy_of(holes="fill")
    written = prepared(run.items[0], policy, Counter())[0].mask
    nowhere, smaller = encode(BIG * 0), encode(SHAPES["disc"])

    def told(read, **ways):
        (found,) = compare(run, lambda _: read, policy, **ways).deviations
        return found.expected, found.reason

    assert told([(0, written)]) == (True, "hole filled")
    assert told([(0, smaller)]) == (False, "hole filled; not as written")
    assert told([(0, smaller)], why=lambda *_: "simplified") == (True, "hole filled; simplified")
    assert told([(0, nowhere)], why=lambda *_: "simplified") == (False, "hole filled; simplified; not as written")
    assert told([], why=lambda *_: "not written: small") == (True, "hole filled; not written: small")
    assert told(None, why=lambda *_: "simplified") == (False, "the image is not in the export")
    assert told(None, limit=lambda _: "not written: too many") == (True, "not written: too many")
