"""YOLO oriented boxes: the smallest rectangle around every mask, as ultralytics reads and writes it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.export.yolo_obb import YoloObbExporter
from autolabel.ops.masks import encode
from autolabel.ops.turned_boxes import hull_xy, rectangle_area, rectangles_around
from tests.rasters import is_red, turned
from tests.records import ListReader, disc, instance, picture, record, shapes, tree_bytes

SETTINGS = {
    "images": "copy",
    "empty_images": "keep",
    "parts": "keep",
    "min_area_px": 1,
    "crowd": "drop",
    "val_fraction": 0.25,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}
SHAPES = shapes()


def exported(items, folder, **changes):
    exporter, run = YoloObbExporter(**{**SETTINGS, **changes}), ListReader(items)
    return exporter.export(run, folder), exporter.read_back(run, folder)


def one(folder, mask, name="a.png", **changes):
    """An export of one picture with one object: the report, what reading back gives, and the loader's boxes."""
    path = picture(folder / "photos" / name, mask.shape)
    report, back = exported([record(name, [instance(mask)], path)], folder / "out", **changes)
    return (
        report,
        back,
        read_by_the_loader(next(p for p in (folder / "out" / "images").rglob("a.*") if p.is_file())),
    )


def read_by_the_loader(image):
    """Corners (N, 4, 2) in pixels, by the way of ultralytics: centre, size and angle, and back."""
    from ultralytics.data.utils import img2label_paths, verify_image_label
    from ultralytics.utils.ops import xywhr2xyxyxyxy, xyxyxyxy2xywhr

    found = verify_image_label((str(image), img2label_paths([str(image)])[0], "", False, 2, 0, 0, False))
    _, _, size_hw, segments, _, missing, _, _, corrupt, message = found
    assert (missing, corrupt, message) == (0, 0, "")
    assert all(segment.shape == (4, 2) for segment in segments)
    pixels = np.array(segments, np.float32).reshape(-1, 4, 2) * np.array(size_hw[::-1], np.float32)
    return pixels, xywhr2xyxyxyxy(xyxyxyxy2xywhr(pixels)).reshape(-1, 4, 2)


def corners_of_pixels(mask):
    y, x = np.nonzero(mask)
    return np.stack([np.concatenate([x, x, x + 1, x + 1]), np.concatenate([y, y + 1, y, y + 1])], axis=1)


def bar(angle, w=60, h=20, size_hw=(120, 160)):
    points = cv2.boxPoints(((80, 60), (w, h), angle))
    return cv2.fillPoly(np.zeros(size_hw, np.uint8), [np.round(points).astype(np.int32)], color=(1,))


@pytest.mark.parametrize("name", SHAPES)
def test_the_box_holds_every_pixel_and_no_smaller_one_does(tmp_path, name):
    report, back, (pixels, _) = one(tmp_path, SHAPES[name])
    points = corners_of_pixels(SHAPES[name]).astype(np.float32)
    smallest = np.prod(cv2.minAreaRect(points)[1])
    is_smallest = "boxes_enlarged" not in report.counts
    assert cv2.contourArea(pixels[0]) == pytest.approx(smallest, rel=1e-3 if is_smallest else 0.03)
    assert min(cv2.pointPolygonTest(pixels[0], point.tolist(), True) for point in points) > -1e-3
    assert (report.instances, back.objects, len(back.deviations)) == (1, 1, 0 if is_smallest else 1)
    assert is_smallest or name == "swiss"  # a disc that fills the picture; its smallest box stands out of it


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0.002, 0.9))
def test_no_rectangle_around_noise_is_smaller(seed, height, width, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    mask[0, 0] |= not mask.any()
    found = rectangles_around(hull_xy(encode(mask)))
    assert rectangle_area(found[0]) == pytest.approx(
        np.prod(cv2.minAreaRect(corners_of_pixels(mask).astype(np.float32))[1]), rel=1e-4
    )
    areas = [rectangle_area(box) for box in found]
    assert np.all(np.diff(areas) > -1e-6 * areas[0])


@pytest.mark.parametrize("angle", [0, 1, 17, 44, 45, 60, 89, 90, 120, 134, 136, 179])
def test_the_corners_stand_in_the_order_of_ultralytics(tmp_path, angle):
    _, back, (pixels, canonical) = one(tmp_path, bar(angle))
    np.testing.assert_allclose(pixels, canonical, atol=2e-3)
    assert back.deviations == ()


def test_the_report_says_how_much_of_their_boxes_the_masks_fill(tmp_path):
    mask = bar(30, 80, 10)
    report, _, (pixels, _) = one(tmp_path, mask)
    filled = mask.sum() / cv2.contourArea(pixels[0])
    assert f"IoU of boxes and masks: {filled:.3f} on average, {filled:.3f} in 'a.png'" in report.notes
    assert filled > 2 * mask.sum() / np.prod(np.ptp(corners_of_pixels(mask), axis=0))


def test_a_corner_may_leave_the_picture(tmp_path):
    _, back, (pixels, _) = one(tmp_path, np.ascontiguousarray(bar(40)[:, 75:]))
    assert pixels.min() < -1
    assert back.deviations == ()


def test_where_the_smallest_box_is_out_of_reach_the_next_larger_one_is_taken(tmp_path):
    found = None
    for seed in range(400):  # a wide triangle: the rectangle along its long side stands far out of the picture
        mask = np.zeros((60, 60), np.uint8)
        points = np.random.default_rng(seed).integers(0, 60, (3, 2)).astype(np.int32)
        cv2.fillPoly(mask, [points], color=(1,))
        box = rectangles_around(hull_xy(encode(mask)))[0]
        if np.ptp(box, axis=0).max() > 62:
            found = mask
            break
    report, back, (pixels, _) = one(tmp_path, found)
    assert report.counts["boxes_enlarged"] == 1
    assert np.ptp(pixels[0], axis=0).max() <= 60 * 1.01
    (deviation,) = back.deviations
    assert deviation.reason == "not the smallest box"
    assert 0.5 < deviation.iou < 1


def test_a_pixel_and_a_line_have_a_box_with_an_area(tmp_path):
    for name in ("pixel", "line"):
        _, _, (pixels, _) = one(tmp_path / name, SHAPES[name])
        assert cv2.contourArea(pixels[0]) == pytest.approx(SHAPES[name].sum(), rel=1e-3)


@pytest.mark.parametrize(("parts", "rows"), [("keep", 1), ("largest", 1), ("split", 12)])
def test_parts_have_one_box_or_each_its_own(tmp_path, parts, rows):
    report, back, (pixels, _) = one(tmp_path, SHAPES["twelve parts"], parts=parts)
    assert report.instances == len(pixels) == rows
    assert back.deviations == ()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_on_the_picture_as_the_loader_turns_it(tmp_path, suffix, orientation):
    from ultralytics.utils.patches import imread

    _, back = exported([turned(tmp_path, orientation, suffix)], tmp_path / "out")
    (image,) = [p for p in (tmp_path / "out" / "images").rglob("turned*") if p.is_file()]
    seen = corners_of_pixels(is_red(imread(str(image))[..., ::-1])).astype(np.float32)
    box = read_by_the_loader(image)[0][0]
    assert min(cv2.pointPolygonTest(box, point.tolist(), True) for point in seen) > -1e-3
    assert cv2.contourArea(box) == pytest.approx(np.prod(cv2.minAreaRect(seen)[1]), rel=1e-3)
    assert back.deviations == ()


def test_crowds_empty_images_and_hostile_names(tmp_path):
    names = ["new\nline.png", "images/y.png", ".x.png", "é.png", "y.png"]
    items = []
    for n, name in enumerate(names):
        objects = [instance(disc(120, 160, 40, 40, 9)), instance(SHAPES["ring"], 1, crowd=True)]
        items.append(record(name, objects if n else [], picture(tmp_path / "photos" / f"{n}.png")))
    items = [replace(item, path=str(tmp_path / "photos" / f"{n}.png")) for n, item in enumerate(items)]
    report, back = exported(items, tmp_path / "out")
    assert (report.images, report.instances, report.counts["crowds_left_out"]) == (5, 4, 4)
    assert {d.reason for d in back.deviations} == {"not written: crowd"}
    exported(items, tmp_path / "again")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "again")
