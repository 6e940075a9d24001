"""LabelMe's files: shapes, groups, sizes, and files that are broken or point elsewhere."""

import base64
import json
import re

import cv2
import numpy as np
import pytest

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, Frame, ImageInfo
from autolabel.detect.labels import LabelsDetector
from autolabel.ops.masks import decode, from_polygons
from autolabel.source.labelme import LabelMeSource
from tests.records import disc

TRIANGLE = [[1, 1], [9, 1], [1, 7]]


def shape(points, kind="polygon", label="dog", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def top(*shapes, path="a.png", size=(20, 10), **more):
    sizes = {"imageWidth": size[0], "imageHeight": size[1]} if size else {}
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": path,
        "imageData": None,
        **sizes,
        **more,
    }


def png(mask):
    return base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def read(path, images_dir=None, join_groups=True):
    source = LabelMeSource(path=str(path), images_dir=images_dir, join_groups=join_groups)
    return {ref.image_id: ref for ref in source.images()}, source


def test_each_kind_of_shape_is_what_it_is(tmp_path):
    crop = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
    write(
        tmp_path,
        {
            "a.png": "",
            "a.json": top(
                shape(TRIANGLE),
                shape([[8, 9], [2, 3]], "rectangle", "cat"),
                shape([[10, 5], [13, 9]], "circle"),
                shape([[3, 4], [5, 5]], "mask", mask=png(crop)),
                shape([[2, 2]], "point"),
                shape([[2, 2], [3, 3]], "linestrip"),
            ),
        },
    )
    refs, source = read(tmp_path)
    labels = refs["a.png"].labels
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))
    assert labels.category_ids.tolist() == [2, 1, 2, 2]
    assert labels.shapes[0] == ((1, 1, 9, 1, 1, 7),)
    assert (labels.shapes[1], labels.boxes_xyxy[1].tolist()) == (None, [2, 3, 8, 9])
    assert labels.boxes_xyxy[2].tolist() == pytest.approx([5, 0, 15, 10], abs=0.2)
    full = decode(labels.shapes[3])
    assert (full[4:6, 3:6] == crop).all()
    assert full.sum() == 3
    assert (labels.size_hw, labels.convention) == ((10, 20), "coco")
    assert source.ignored == {"point shapes": 1, "linestrip shapes": 1}


def test_a_circle_is_round_to_a_twentieth_of_a_pixel(tmp_path):
    write(tmp_path, {"a.png": "", "a.json": top(shape([[60, 60], [90, 60]], "circle"), size=(120, 120))})
    found = decode(from_polygons(read(tmp_path)[0]["a.png"].labels.shapes[0], (120, 120)))
    inside = disc(120, 120, 59.5, 59.5, 30)
    assert abs(int(found.sum()) - int(inside.sum())) < 30
    extra = json.loads(read(tmp_path)[0]["a.png"].labels.extras[0])
    assert extra == {"shape_type": "circle", "points": [[60, 60], [90, 60]]}


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation"])
def test_a_turned_box_asks_with_the_box_around_its_corners(tmp_path, kind):
    corners = [[1, 4], [6, 1], [8, 5], [3, 8]]
    turned = shape(corners, kind, direction=0.5)
    write(tmp_path, {"a.png": "", "a.json": top(turned, shape(TRIANGLE))})
    labels = read(tmp_path)[0]["a.png"].labels
    assert (labels.shapes[0], labels.boxes_xyxy[0].tolist()) == (None, [1, 1, 8, 8])
    assert json.loads(labels.extras[0]) == {"direction": 0.5, "shape_type": kind, "points": corners}
    assert len(labels) == 2


def test_parts_of_one_group_are_one_object(tmp_path):
    crop = np.ones((2, 2), np.uint8)
    group = [
        shape(TRIANGLE, group_id=1),
        shape([[11, 1], [19, 1], [11, 7]], group_id=1),
        shape(TRIANGLE, group_id=1, label="cat"),
        shape(TRIANGLE),
        shape(TRIANGLE, group_id=2),
        shape([[15, 8], [16, 9]], "mask", group_id=2, mask=png(crop)),
        shape([[1, 1], [3, 3]], "rectangle", group_id=1),
    ]
    write(tmp_path, {"a.png": "", "a.json": top(*group)})
    labels = read(tmp_path)[0]["a.png"].labels
    assert [s if s is None else len(s) if isinstance(s, tuple) else "mask" for s in labels.shapes] == [
        2, 1, 1, "mask", None,
    ]  # fmt: skip
    assert labels.boxes_xyxy[0].tolist() == [1, 1, 19, 7]
    both = decode(labels.shapes[3])
    assert both[8:10, 15:17].all()
    assert both.sum() == 4 + decode(from_polygons(((1, 1, 9, 1, 1, 7),), (10, 20))).sum()
    assert len(read(tmp_path, join_groups=False)[0]["a.png"].labels) == 7


def test_flags_descriptions_and_unknown_fields_are_kept(tmp_path):
    own = shape(TRIANGLE, flags={"hard": True, "iscrowd": True}, description="left", score=0.5, group_id=3)
    write(tmp_path, {"a.png": "", "a.json": top(own, weather="rain", flags={"night": True})})
    ref = read(tmp_path)[0]["a.png"]
    assert json.loads(ref.extra) == {"weather": "rain", "flags": {"night": True}}
    expected = {"flags": {"hard": True}, "description": "left", "score": 0.5, "group_id": 3}
    assert json.loads(ref.labels.extras[0]) == expected
    assert ref.labels.crowd == (True,)


def test_a_file_that_may_be_of_several_pictures_fails_those_that_no_other_file_names(tmp_path):
    files = {"a.jpg": "", "a.png": "", "a.json": top(shape(TRIANGLE), path="a.bmp")}
    write(tmp_path, files)
    refs, _ = read(tmp_path)
    for name in ("a.jpg", "a.png"):
        assert refs[name].problem.code == "bad_label"
        assert "a.json' may be of any of 'a.jpg', 'a.png'; its imagePath is 'a.bmp'" in refs[name].problem.detail
    write(tmp_path, {"b.json": top(shape(TRIANGLE), path="a.png")})
    refs, _ = read(tmp_path)
    assert (refs["a.jpg"].problem.code, len(refs["a.png"].labels)) == ("bad_label", 1)
    write(tmp_path, {"c.json": top(shape(TRIANGLE), path="a.jpg")})
    refs, _ = read(tmp_path)
    assert [len(refs[name].labels) for name in ("a.jpg", "a.png")] == [1, 1]
    assert refs["a"].problem.code == "missing"


def test_a_picture_is_found_by_its_name_and_else_by_the_file_s(tmp_path):
    write(
        tmp_path,
        {
            "data/labels/1.json": top(shape(TRIANGLE), path="..\\images\\photo.jpg"),
            "data/labels/2.json": top(path="/home/somebody/2.jpg"),
            "data/labels/3.json": top(path="../../../../etc/passwd"),
            "data/images/photo.jpg": "",
            "data/labels/2.jpg": "",
            "data/labels/3.png": "",
            "data/images/bare.jpg": "",
        },
    )
    refs, _ = read(tmp_path / "data")
    assert sorted(refs) == ["images/bare.jpg", "images/photo.jpg", "labels/2.jpg", "labels/3.png"]
    assert len(refs["images/photo.jpg"].labels) == 1
    assert refs["images/bare.jpg"].labels is None
    assert all(refs[name].problem is None for name in refs)


def test_files_beside_a_folder_of_pictures_find_them(tmp_path):
    write(tmp_path, {"labels/a.json": top(path="../images/a.png"), "images/a.png": "", "other/a.png": ""})
    assert list(read(tmp_path / "labels")[0]) == ["images/a.png"]
    refs, _ = read(tmp_path / "labels", images_dir=str(tmp_path / "other"))
    assert refs["a.png"].path == str(tmp_path / "other" / "a.png")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_coordinates_are_upright_and_stored_ones_are_told_by_their_size(tmp_path, orientation):
    write(tmp_path, {"a.png": "", "a.json": top(shape([[0, 0], [4, 0], [4, 2], [0, 2]]), size=(20, 10))})
    ref = read(tmp_path)[0]["a.png"]
    h, w = (20, 10) if orientation == 6 else (10, 20)
    frame = Frame(ref, np.zeros((h, w, 3), np.uint8), ImageInfo(w, h, orientation))
    (found,) = LabelsDetector(keep_masks=True).detect([frame])
    expected = [8, 0, 10, 4] if orientation == 6 else [0, 0, 4, 2]  # only a size that fits no other way turns
    assert found.boxes_xyxy[0].tolist() == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ('{"shapes": [' + "[" * 100_000, "not JSON"),
        (top(shape([[1, 1], [2, 2]])), r"shapes\[0\]: an outline needs three"),
        (top(shape(TRIANGLE), shape([])), r"shapes\[1\]: `points`"),
        (top(shape([[1, 2, 3]])), "list of"),
        (top(shape([[1, "x"], [1, 2], [3, 4]])), "finite number"),
        (json.dumps(top(shape(TRIANGLE))).replace("[9, 1]", "[NaN, 1]"), "finite number"),
        (json.dumps(top(shape(TRIANGLE))).replace("[9, 1]", "[1e999, 1]"), "finite number"),
        (top(shape(TRIANGLE, label="")), "needs a label"),
        (top(shape(TRIANGLE, kind="blob")), "'blob' is not known"),
        (top(shape([[1, 1], [1, 1]], "circle")), "radii"),
        (top(shape([[0, 0], [9e8, 0], [0, 9e8]])), "longer than"),
        (top(shape([[3, 4], [5, 5]], "mask", mask="no base64!")), "not a readable PNG"),
        (top(shape([[3, 4], [5, 5]], "mask", mask=png(np.ones((9, 9), np.uint8)))), "in a box of"),
        (top(shape([[18, 8], [20, 9]], "mask", mask=png(np.ones((2, 3), np.uint8)))), "not inside"),
        (top(shape([[3, 4], [5, 5]], "mask", mask=png(np.zeros((2, 3), np.uint8)))), "no pixel"),
        (top(shape([[3, 4], [5, 5]], "mask", mask=png(np.ones((99, 99), np.uint8)))), "too_large"),
        (top(shape([[3, 4], [5, 5]], "mask", mask=png(np.ones((2, 3), np.uint8))), size=None), "imageHeight"),
        (top(size=(1 << 19, 1 << 19)), "not possible"),
        (top(size=(-1, 5)), "not possible"),
        (top(shape(TRIANGLE, x=json.loads("[" * 60 + "]" * 60))), "nested deeper"),
    ],
    ids=range(21),
)
def test_a_bad_file_fails_its_picture_and_the_others_go_on(tmp_path, content, reason):
    write(tmp_path, {"a.json": content, "a.png": "", "b.json": top(shape(TRIANGLE), path="b.png"), "b.png": ""})
    refs, _ = read(tmp_path)
    assert refs["a.png"].problem.code == "bad_label"
    assert str(tmp_path / "a.json") in refs["a.png"].problem.detail
    assert re.search(reason, refs["a.png"].problem.detail)
    assert len(refs["b.png"].labels) == 1


def test_a_file_without_its_picture_is_a_missing_picture(tmp_path):
    write(tmp_path, {"gone.json": top(shape(TRIANGLE), path="gone.jpg"), "a.png": ""})
    refs, _ = read(tmp_path)
    assert refs["gone"].problem.code == "missing"
    assert "gone.jpg" in refs["gone"].problem.detail


def test_two_files_for_one_picture_leave_none_of_them_out_silently(tmp_path):
    write(tmp_path, {"1.json": top(path="a.png"), "2.json": top(path="a.png"), "a.png": ""})
    with pytest.raises(SourceError, match=r"1\.json.*2\.json.*a\.png"):
        read(tmp_path)


def test_json_of_others_is_counted_and_left_alone(tmp_path):
    write(tmp_path, {"a.png": "", "settings.json": {"x": 1}, "broken.json": "{", "notes.txt": ""})
    refs, source = read(tmp_path)
    assert list(refs) == ["a.png"]
    assert source.ignored == {".json that is not LabelMe's": 2, ".txt": 1}


def test_missing_folders_are_errors(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("kind", [[["polygon"]], {"a": 1}, 7])
def test_a_type_that_is_no_text_makes_its_picture_bad(tmp_path, kind):
    write(
        tmp_path,
        {
            "a.png": "",
            "a.json": top(shape(TRIANGLE, kind)),
            "b.png": "",
            "b.json": top(shape(TRIANGLE), path="b.png"),
        },
    )
    refs, _ = read(tmp_path)
    assert refs["a.png"].problem.code == "bad_label"
    assert refs["b.png"].problem is None
