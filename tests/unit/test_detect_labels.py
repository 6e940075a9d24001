"""Existing labels as detections: upright pixels, and masks as the tools that wrote them would draw them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from autolabel.core.errors import ImageError
from autolabel.core.protocols import Detector
from autolabel.core.types import Frame, ImageInfo, ImageRef, Labels, Rle
from autolabel.detect.labels import LabelsDetector
from autolabel.ops.images import decode_rgb
from autolabel.ops.masks import area_px, encode, run_lengths
from autolabel.ops.orientation import stored_size, upright_image
from autolabel.ops.polygons import coco_polygons

HW = (30, 50)
SQUARE = (10.0, 5.0, 20.0, 5.0, 20.0, 25.0, 10.0, 25.0)
STORED = np.zeros(HW, np.uint8)
STORED[5:25, 10:20] = 1


def labels(boxes, shapes=None, **changes):
    n = len(boxes)
    base = {
        "boxes_xyxy": np.array(boxes, np.float32).reshape(-1, 4),
        "category_ids": np.arange(3, 3 + n),
        "shapes": shapes or (None,) * n,
        "source_ids": tuple(range(7, 7 + n)),
        "crowd": (False,) * n,
    }
    return Labels(**{**base, **changes})


def frame(found, size_hw=HW, orientation=1):
    h, w = size_hw
    image = np.zeros((h, w, 3), np.uint8)
    return Frame(ImageRef("a.jpg", "a.jpg", found), image, ImageInfo(w, h, orientation))


def detect(found, size_hw=HW, orientation=1, keep_masks=True):
    (result,) = LabelsDetector(keep_masks=keep_masks).detect([frame(found, size_hw, orientation)])
    return result


def pixels(rle):
    runs, (h, w) = run_lengths(rle), rle.size_hw
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(w, h).T


def test_boxes_come_out_with_full_scores_and_their_ids():
    found = detect(labels([[1, 2, 3, 4], [5, 6, 7, 8]], crowd=(False, True), size_hw=HW))
    assert found.boxes_xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.scores.tolist() == [1, 1]
    assert found.category_ids.tolist() == [3, 4]
    assert found.source_ids == (7, 8)
    assert found.crowd == (False, True)


def test_no_labels_and_empty_labels_are_no_detections():
    detector: Detector = LabelsDetector(keep_masks=True)
    assert [len(d) for d in detector.detect([frame(None), frame(labels([])), frame(labels([[0, 0, 1, 1]]))])] == [
        0,
        0,
        1,
    ]
    assert [d.unlabelled for d in detector.detect([frame(None), frame(labels([]))])] == [True, False]
    assert detector.categories is None
    assert detector.identity == {}


def test_fractions_become_pixels_of_the_upright_picture():
    found = detect(labels([[0.5, 0.5, 1, 1]], normalized=True, convention="yolo"), (50, 30), orientation=6)
    assert found.boxes_xyxy.tolist() == [[15, 25, 30, 50]]


@pytest.mark.parametrize("box", [[9, 9, 2, 2], [3, 3, 3, 8], [-5, 0, 900, 2], [np.nan, 0, 1, 1]])
def test_bad_boxes_are_passed_on_for_the_labeler_to_drop(box):
    assert np.array_equal(detect(labels([box])).boxes_xyxy[0], np.array(box, np.float32), equal_nan=True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_of_the_stored_picture_turn_with_it(orientation):
    """Only where the sides swap can the declared size tell; else the labels count as upright."""
    upright = upright_image(STORED, orientation)
    turned = orientation > 4
    rle, shape = encode(STORED), (SQUARE,)
    found = detect(labels([[10, 5, 20, 25], [0, 0, 0, 0]], (shape, rle), size_hw=HW), upright.shape, orientation)
    expected = upright if turned else STORED
    assert stored_size(upright.shape, orientation) == HW
    for mask, box in zip(found.masks, found.boxes_xyxy, strict=True):
        assert (pixels(mask) == expected).all()
        ys, xs = np.nonzero(expected)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    ring = np.array(found.polygons[0][0]).reshape(-1, 2)
    assert [*ring.min(0), *ring.max(0)] == found.boxes_xyxy[0].tolist()
    assert found.polygons[1] is None


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_box_drawn_on_the_stored_picture_lies_on_the_same_pixels_upright(orientation):
    stored = np.zeros((*HW, 3), np.uint8)
    stored[5:25, 10:20] = 255
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    image, info = decode_rgb(buffer.getvalue(), max_pixels=10**6)
    ref = ImageRef("a.png", "a.png", labels([[10, 5, 20, 25]], size_hw=HW))
    (found,) = LabelsDetector(keep_masks=False).detect([Frame(ref, image, info)])
    x0, y0, x1, y1 = found.boxes_xyxy[0].astype(int)
    assert image[y0:y1, x0:x1].all()
    assert image.any(-1).sum() == (y1 - y0) * (x1 - x0)


def test_of_two_frames_a_pixel_apart_the_one_of_the_stated_size_is_meant():
    upright, stored = (640, 641), (641, 640)
    box = labels([[10, 5, 20, 25]], size_hw=stored)
    assert detect(box, upright, orientation=6).boxes_xyxy.tolist() == [[616, 10, 636, 20]]
    box = labels([[10, 5, 20, 25]], size_hw=upright)
    assert detect(box, upright, orientation=6).boxes_xyxy.tolist() == [[10, 5, 20, 25]]


@pytest.mark.parametrize(
    ("upright", "orientation", "stated", "assumed"),
    [
        ((50, 50), 6, (50, 50), True),
        ((50, 30), 3, (50, 30), True),
        ((50, 30), 6, None, True),
        ((31, 30), 6, (32, 31), False),
        ((31, 30), 6, (30, 30), True),
        ((50, 30), 6, (50, 30), False),
        ((50, 30), 6, (30, 50), False),
        ((50, 50), 1, (50, 50), False),
        ((50, 50), 1, None, False),
    ],
)
def test_where_no_size_tells_the_frame_of_the_labels_it_is_said_that_it_was_assumed(
    upright, orientation, stated, assumed
):
    found = detect(labels([[1, 2, 3, 4]], size_hw=stated), upright, orientation)
    assert found.notes == found.select([]).notes == ("frame_assumed",) * assumed
    yolo = labels([[0.1, 0.2, 0.3, 0.4]], normalized=True, convention="yolo")
    assert detect(yolo, upright, orientation).notes == ()


def test_labels_for_another_size_are_refused_and_rounding_is_not():
    with pytest.raises(ImageError, match="size_mismatch: the labels are for 100x60 px, the picture is 50x30"):
        detect(labels([[0, 0, 1, 1]], size_hw=(60, 100)))
    assert len(detect(labels([[0, 0, 1, 1]], size_hw=(31, 49)))) == 1


def test_yolo_polygons_are_truncated_and_their_outline_painted():
    """The rule of the ultralytics loader: a ring through pixel corners paints one row and column more."""
    ring = tuple((v + 0.9) / (HW[1], HW[0])[at % 2] for at, v in enumerate(SQUARE))
    (mask,) = detect(labels([[0, 0, 1, 1]], ((ring,),), normalized=True, convention="yolo")).masks
    expected = np.zeros(HW, np.uint8)
    expected[5:26, 10:21] = 1
    assert (pixels(mask) == expected).all()


def test_coco_polygons_of_two_parts_are_one_mask():
    parts = (SQUARE, (30.0, 5.0, 40.0, 5.0, 40.0, 25.0, 30.0, 25.0))
    (mask,) = detect(labels([[10, 5, 40, 25]], (parts,))).masks
    expected = STORED.copy()
    expected[5:25, 30:40] = 1
    assert (pixels(mask) == expected).all()


@pytest.mark.parametrize(
    "rle",
    [
        Rle((100_000, 100_000), b"0"),
        Rle((50, 30), encode(STORED.T).counts),
        Rle(HW, b"0"),
        Rle(HW, b""),
        Rle(HW, b"ooo"),
        Rle(HW, encode(STORED).counts + b"1"),
        Rle(HW, encode(STORED).counts[:-1]),
    ],
)
def test_an_rle_that_does_not_fit_is_a_bad_label(rle):
    with pytest.raises(ImageError, match="bad_label"):
        detect(labels([[0, 0, 1, 1]], (rle,)))


@pytest.mark.parametrize(
    "ring",
    [
        (-1e8, -1e8, 1e8, -1e8, 1e8, 1e8),
        (9e8, 9e8, 9e8 + 1, 9e8, 9e8, 9e8 + 1),
        (0, 0, 50, 30) * 2000,
        (np.nan, 0, 9, 0, 9, 9),
    ],
)
def test_a_polygon_that_would_take_gigabytes_to_draw_is_a_bad_label(ring):
    with pytest.raises(ImageError, match="bad_label: a polygon's outline is"):
        detect(labels([[0, 0, 1, 1]], ((SQUARE, ring),)))


def test_a_polygon_that_leaves_the_picture_is_cut_at_its_edge():
    (mask,) = detect(
        labels([[0, 0, 50, 30]], (((-900.0, -900.0, 900.0, -900.0, 900.0, 900.0, -900.0, 900.0),),))
    ).masks
    assert pixels(mask).all()


def test_the_outline_of_noise_is_no_damage():
    noise = encode(np.random.default_rng(0).random(HW) < 0.5)
    (mask,) = detect(labels([[0, 0, 50, 30]], (tuple(coco_polygons(noise)),))).masks
    assert mask == noise


def test_masks_to_be_made_anew_go_along_to_say_what_changed():
    found = detect(
        labels([[1, 1, 2, 2], [0, 0, 0, 0], [3, 3, 4, 4]], ((SQUARE,), (SQUARE,), None)), keep_masks=False
    )
    assert found.boxes_xyxy.tolist() == [[1, 1, 2, 2], [10, 5, 20, 25], [3, 3, 4, 4]]
    assert found.masks == (None, None, None)
    assert found.polygons == (None, None, None)
    assert found.replaced == (encode(STORED), encode(STORED), None)


def test_masks_that_are_kept_replace_nothing():
    found = detect(labels([[1, 1, 2, 2]], ((SQUARE,),)))
    assert (found.masks, found.replaced) == ((encode(STORED),), (None,))


@pytest.mark.parametrize("box", [[9, 9, 2, 2], [3, 3, 3, 8], [90, 0, 99, 2], [np.nan, 0, 1, 1]])
def test_a_mask_to_be_made_anew_whose_box_is_bad_is_asked_for_by_its_own_box(box):
    assert detect(labels([box], ((SQUARE,),)), keep_masks=False).boxes_xyxy.tolist() == [[10, 5, 20, 25]]
    kept = detect(labels([box], ((SQUARE,),))).boxes_xyxy[0]
    assert np.array_equal(kept, np.array(box, np.float32), equal_nan=True)


@pytest.mark.parametrize("keep_masks", [True, False])
def test_a_crowd_keeps_its_mask_whatever_the_settings(keep_masks):
    found = detect(
        labels([[1, 1, 9, 9]] * 3, ((SQUARE,), encode(STORED), None), crowd=(True,) * 3), keep_masks=keep_masks
    )
    assert found.masks == (encode(STORED), encode(STORED), None)
    assert found.polygons == ((SQUARE,), None, None)
    assert found.replaced == (None, None, None)
    assert found.crowd == (True,) * 3


@pytest.mark.parametrize("keep_masks", [True, False])
def test_other_fields_go_with_their_objects(keep_masks):
    extras = ('{"a":1}', "", '{"b":[]}')
    found = detect(labels([[1, 1, 2, 2]] * 3, extras=extras), keep_masks=keep_masks)
    assert found.extras == extras
    assert found.select([2, 0]).extras == ('{"b":[]}', '{"a":1}')


@pytest.mark.parametrize("orientation", range(1, 9))
def test_keypoints_lie_on_the_same_pixels_of_the_turned_picture_as_their_box(orientation):
    box, extra = [10, 5, 11, 6], '{"a":[1,2],"keypoints":[10.5,5.5,2,0,0,0],"num_keypoints":1}'
    found = detect(labels([box], extras=(extra,), size_hw=HW), stored_size(HW, orientation), orientation)
    fields = json.loads(found.extras[0])
    assert fields["keypoints"][:2] == ((found.boxes_xyxy[0, :2] + found.boxes_xyxy[0, 2:]) / 2).tolist()
    assert fields["keypoints"][2:] == [2, 0, 0, 0]
    assert (fields["a"], fields["num_keypoints"]) == ([1, 2], 1)
    assert (found.extras[0] == extra) == (orientation <= 4)  # 2 to 4: no size tells, taken as upright


@pytest.mark.parametrize(
    ("stated", "turned"),
    [
        ("[10,5,2]", "[25,10,2]"),
        ("[10,5.1,2,0,0,0]", "[24.9,10.0,2,0.0,0.0,0]"),
        ('"no"', '"no"'),
        ("[1,2]", "[1,2]"),
        ('[1,"2",3]', '[1,"2",3]'),
        (f"[1{'0' * 400},2,2]", f"[1{'0' * 400},2,2]"),
    ],
)
def test_keypoints_keep_their_kind_of_number_and_what_is_none_stays(stated, turned):
    found = detect(labels([[1, 1, 2, 2]], extras=(f'{{"keypoints":{stated}}}',), size_hw=HW), HW[::-1], 6)
    assert found.extras == (f'{{"keypoints":{turned}}}',)


def test_a_shape_without_a_pixel_stays_with_its_object():
    sliver = (1.0, 1.0, 1.2, 1.0, 1.2, 1.2)
    found = detect(labels([[1, 1, 2, 2]], ((sliver,),)))
    assert found.polygons == ((sliver,),)
    assert area_px(found.masks[0]) == 0
