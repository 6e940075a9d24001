"""COCO: what the file says arrives unchanged, and what cannot be trusted is refused with its place."""

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.core.errors import SourceError
from autolabel.core.types import Category
from autolabel.ops.masks import encode
from autolabel.source.coco import CocoSource
from autolabel.source.locate import contained

MASK = np.zeros((6, 8), np.uint8)
MASK[1:4, 2:5] = 1
RLE = encode(MASK)
TRIANGLE = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0]


def annotation(number=1, **changes):
    base = {"id": number, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    return {**base, **changes}


def data(*annotations, **changes):
    image = {"id": 1, "file_name": "a b.jpg", "width": 8, "height": 6, "split": "val"}
    base = {"images": [image], "annotations": list(annotations), "categories": [{"id": 3, "name": "cat"}]}
    return {**base, **changes}


def refs(tmp_path, content, images_dir=None):
    path = tmp_path / "labels.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    source = CocoSource(path=str(path), images_dir=images_dir)
    return list(source.images()), source


def problem(tmp_path, *annotations):
    (ref,), _ = refs(tmp_path, data(*annotations))
    assert ref.labels is None
    assert ref.problem.code == "bad_label"
    assert "labels.json" in ref.problem.detail
    return ref.problem.detail


def test_boxes_shapes_and_ids_arrive_as_they_are_written(tmp_path):
    (ref,), source = refs(
        tmp_path,
        data(
            annotation(7),
            annotation(9, segmentation=[TRIANGLE, TRIANGLE]),
            annotation(11, segmentation={"size": [6, 8], "counts": RLE.counts.decode()}, iscrowd=1),
            annotation(12, bbox=None, segmentation={"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}),
        ),
    )
    labels = ref.labels
    assert (ref.image_id, ref.split) == ("a b.jpg", "val")
    assert source.categories == (Category(3, "cat"),)
    assert labels.boxes_xyxy.tolist() == [[1, 2, 4, 6]] * 3 + [[0, 0, 0, 0]]
    assert labels.category_ids.tolist() == [3] * 4
    assert labels.source_ids == (7, 9, 11, 12)
    assert labels.crowd == (False, False, True, False)
    assert labels.shapes == (None, (tuple(TRIANGLE), tuple(TRIANGLE)), RLE, RLE)
    assert labels.size_hw == (6, 8)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("instances.json",), None),
        (("annotations/_annotations.coco.json",), None),
        (("mine.json",), r"has no instances\*\.json.*give the COCO file itself"),
        (("instances_a.json", "instances_b.json"), r"has 'instances_a\.json', 'instances_b\.json'; give the"),
    ],
)
def test_the_folder_of_the_file_may_be_given(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(data()))
    source = CocoSource(path=str(tmp_path), images_dir=None)
    if message is None:
        assert [ref.image_id for ref in source.images()] == ["a b.jpg"]
    else:
        with pytest.raises(SourceError, match=message):
            list(source.images())


def test_a_picture_without_annotations_has_empty_labels(tmp_path):
    (ref,), _ = refs(tmp_path, data())
    assert len(ref.labels) == 0
    assert ref.problem is None


def test_ids_written_as_digits_are_integers(tmp_path):
    image = {"id": "1", "file_name": "a.jpg"}
    categories = [{"id": "3", "name": "cat"}]
    content = data(annotation("5", image_id="1", category_id="3"), images=[image], categories=categories)
    (ref,), source = refs(tmp_path, content)
    assert ref.labels.source_ids == (5,)
    assert ref.labels.size_hw is None
    assert source.categories == (Category(3, "cat"),)


@pytest.mark.parametrize("no", [0, 0.0, False, None, "0"])
@pytest.mark.parametrize("yes", [1, 1.0, True, "1"])
def test_a_crowd_is_said_by_a_number_a_truth_value_or_the_text_of_a_number(tmp_path, no, yes):
    (ref,), _ = refs(tmp_path, data(annotation(1, iscrowd=no), annotation(2, iscrowd=yes)))
    assert ref.labels.crowd == (False, True)


def test_a_degenerate_box_is_passed_on(tmp_path):
    (ref,), _ = refs(tmp_path, data(annotation(bbox=[5, 5, -2, 0])))
    assert ref.labels.boxes_xyxy.tolist() == [[5, 5, 3, 5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 1, "file_name": "a.jpg"}] * 2}, "ids occur twice in `images`: 1"),
        ({"annotations": [annotation(4), annotation(4)]}, "ids occur twice in `annotations`: 4"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": "3", "name": "b"}]}, "ids occur twice in `categories`: 3"),
        ({"images": [{"id": i, "file_name": "a.jpg"} for i in (1, 2)]}, "several images have the same file_name"),
        ({"annotations": [annotation(image_id=2)]}, r"annotations\[0\] \(id 1\): image_id 2 is not in the file"),
        ({"annotations": [annotation(category_id=1)]}, "category_id 1 is not in the file"),
        ({"annotations": [annotation("x1")]}, r"annotations\[0\].id must be an integer, got 'x1'"),
        ({"annotations": [annotation(1.5)]}, r"annotations\[0\].id must be an integer"),
        ({"annotations": [annotation(True)]}, r"annotations\[0\].id must be an integer"),
        ({"annotations": [{"image_id": 1, "segments_info": []}]}, r"annotations\[0\]: this is COCO panoptic"),
        ({"annotations": ["x"]}, r"annotations\[0\] must be an object"),
        ({"annotations": {}}, "`annotations` must be a list"),
        ({"categories": [{"id": 3}]}, "category 3 needs an id >= 0 and a name"),
        ({"categories": [{"id": 3, "name": "\ud800"}]}, r"category 3: '\\ud800' is half a character"),
        ({"images": [{"id": 1}]}, "image 1: a file name is missing"),
        ({"images": "x"}, "not a COCO annotation file"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path, changes, message):
    with pytest.raises(SourceError, match=message) as caught:
        refs(tmp_path, data(**changes))
    assert "labels.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: .*line 1 column 2"),
        ("[]", "COCO results have no images"),
        ('{"shapes": []}', "a LabelMe file"),
        (
            '{"images": [], "annotations": [{"id": 1}], "categories": [], "annotations": []}',
            "labels.json': the file has 'annotations' several times",
        ),
        ('{"images": [],\n"x": [1,\nNaN]}', "line 3: NaN is not a JSON number"),
        ('{"x": -Infinity}', "line 1: -Infinity"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_not_a_coco_file_is_refused(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        refs(tmp_path, text)


def test_utf_16_is_refused_and_a_byte_order_mark_is_not(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data()), encoding="utf-16")
    with pytest.raises(SourceError, match="not UTF-8"):
        list(CocoSource(path=str(path), images_dir=None).images())
    path.write_text(json.dumps(data()), encoding="utf-8-sig")
    assert len(list(CocoSource(path=str(path), images_dir=None).images())) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1, 2, 3]}, "annotation 1: bbox must have 4 numbers, got 3"),
        ({"bbox": ["1", 2, 3, 4]}, "bbox must be a list of numbers"),
        ({"bbox": None}, "neither bbox nor segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "6 or more values, got 4"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "6 or more values, got 7"),
        ({"segmentation": TRIANGLE}, "polygon must be a list of numbers"),
        ({"segmentation": "x"}, "polygons or an RLE"),
        (
            {"segmentation": {"size": [8, 6], "counts": "0"}},
            r"RLE size \[8, 6\] differs from the image's \[6, 8\]",
        ),
        ({"segmentation": {"size": [100_000, 100_000], "counts": "0"}}, "differs from the image's"),
        ({"segmentation": {"size": [6, 8], "counts": [1, 2]}}, "do not sum up to 6 x 8"),
        ({"segmentation": {"size": [6, 8], "counts": [50, -2]}}, "do not sum up to 6 x 8"),
        ({"segmentation": {"size": [6], "counts": "0"}}, "RLE size must have 2 numbers"),
        ({"iscrowd": "false"}, "annotation 1: iscrowd must be 0 or 1, got 'false'"),
        ({"iscrowd": 2}, "annotation 1: iscrowd must be 0 or 1, got 2"),
        ({"iscrowd": [0]}, "annotation 1: iscrowd must be 0 or 1, got list"),
    ],
)
def test_a_bad_annotation_fails_its_picture_and_is_named(tmp_path, changes, message):
    detail = problem(tmp_path, annotation(**changes))
    assert re.search(message, detail), detail


def test_an_infinite_number_fails_its_picture(tmp_path):
    (ref,), _ = refs(tmp_path, json.dumps(data(annotation(bbox=[1, 2, 3, 777]))).replace("777", "1e999"))
    assert "out of range" in ref.problem.detail


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../x.jpg",
        "C:\\x.jpg",
        "..\\x.jpg",
        "",
        " ",
        ".",
        "nul\0.jpg",
        "\ud800",
    ],
)
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match="image 1"):
        refs(tmp_path, data(images=[{"id": 1, "file_name": name}]))


@given(st.text(alphabet="ab./\\\0:~ ", max_size=12))
def test_a_contained_name_stays_below_the_root(name):
    try:
        clean = contained(name, "here")
    except SourceError:
        return
    assert not clean.startswith(("/", "../"))
    assert ".." not in clean.split("/")
    assert "\0" not in clean


@pytest.mark.parametrize(
    ("labels", "picture", "images_dir"),
    [
        ("", "a b.jpg", None),
        ("", "images/a b.jpg", None),
        ("annotations", "a b.jpg", None),
        ("annotations", "images/a b.jpg", None),
        ("labels", "elsewhere/a b.jpg", "elsewhere"),
    ],
)
def test_the_pictures_are_found_where_they_usually_are(tmp_path, labels, picture, images_dir):
    (tmp_path / labels).mkdir(exist_ok=True)
    (tmp_path / picture).parent.mkdir(exist_ok=True)
    (tmp_path / picture).touch()
    folder = str(tmp_path / images_dir) if images_dir else None
    (ref,), _ = refs(tmp_path / labels, data(), images_dir=folder)
    assert ref.path == str(tmp_path / picture)


@pytest.mark.parametrize("name", ["1.jpg", "night/1.jpg"])
def test_nothing_outside_the_stated_folder_is_taken(tmp_path, name):
    (tmp_path / "night").mkdir()
    (tmp_path / "1.jpg").touch()
    content = {**data(), "images": [{**data()["images"][0], "file_name": name}]}
    (ref,), _ = refs(tmp_path, content, images_dir=str(tmp_path / "night"))
    assert not Path(ref.path).exists()
    (tmp_path / "night" / "1.jpg").touch()
    (ref,), _ = refs(tmp_path, content, images_dir=f"{tmp_path}/night/")
    assert ref.path == str(tmp_path / "night" / "1.jpg")


def test_a_picture_that_is_not_there_keeps_its_place(tmp_path):
    (ref,), _ = refs(tmp_path, data(annotation()))
    assert ref.path == str(tmp_path / "a b.jpg")
    assert ref.problem is None


def test_every_field_without_a_place_of_its_own_arrives_in_the_order_of_the_file(tmp_path):
    image = {"license": 4, "id": 90, "file_name": "a.jpg", "width": 8, "split": "val", "coco_url": "http://x/ü"}
    content = {
        "info": {"year": 2017},
        "licenses": [{"id": 4}],
        "images": [image],
        "annotations": [annotation(7, image_id=90, zeta=1, area=12.5, attributes={"b": 1.50, "a": None})],
        "categories": [{"supercategory": "animal", "id": 3, "name": "cat", "keypoints": ["nose"]}],
        "made by": "hand",
    }
    (ref,), source = refs(tmp_path, content)
    assert source.document == '{"info":{"year":2017},"licenses":[{"id":4}],"made by":"hand"}'
    assert source.categories == (Category(3, "cat", '{"supercategory":"animal","keypoints":["nose"]}'),)
    assert (ref.source_id, ref.extra) == (90, '{"license":4,"coco_url":"http://x/\\u00fc"}')
    assert ref.labels.extras == ('{"zeta":1,"attributes":{"b":1.5,"a":null}}',)


def test_without_other_fields_the_extras_are_empty(tmp_path):
    (ref,), source = refs(tmp_path, data(annotation()))
    assert (source.document, source.categories[0].extra, ref.extra, ref.labels.extras) == ("", "", "", ("",))


@pytest.mark.parametrize("split", [3, "", "\udcff", ["train"]])
def test_a_split_that_is_no_name_is_kept_as_an_unknown_field(tmp_path, split):
    (ref,), _ = refs(tmp_path, data(images=[{"id": 1, "file_name": "a.jpg", "split": split}]))
    assert (ref.split, json.loads(ref.extra)) == (None, {"split": split})


def test_whole_numbers_of_a_polygon_stay_whole(tmp_path):
    polygon = [1, 1, 5.0, 1, 5, 4.25]
    (ref,), _ = refs(tmp_path, data(annotation(segmentation=[polygon])))
    assert json.dumps(ref.labels.shapes[0][0]) == json.dumps(polygon)


def test_the_pictures_and_classes_are_the_same_in_whatever_order_they_are_asked_for(tmp_path):
    _, source = refs(tmp_path, data(annotation()))
    again = CocoSource(path=source._path, images_dir=None)
    assert again.categories == source.categories
    first, second = list(again.images()), list(again.images())
    assert [r.labels.source_ids for r in first] == [r.labels.source_ids for r in second] == [(1,)]


def test_what_was_given_out_is_forgotten(tmp_path):
    """A file of gigabytes must not be held once as JSON and once as labels."""
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(2000)]
    annotations = [annotation(i, image_id=i, note="x" * 2000) for i in range(2000)]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data(*annotations, images=images)))
    source = CocoSource(path=str(path), images_dir=None)
    given = source.images()
    next(given)
    tracemalloc.start()
    rest = sum(1 for _ in given)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rest == 1999
    assert grown < 200_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"info": {"x": 777}}, "the file: an unknown field has a number that is out of range"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "x": 777}]}, "image 1: an unknown field has a number"),
        ({"categories": [{"id": 3, "name": "a", "x": 777}]}, "category 3: an unknown field has a number"),
        ({"info": json.loads("[" * 60 + "]" * 60)}, "the file: an unknown field is nested deeper than 50"),
    ],
)
def test_an_unknown_field_that_no_file_could_hold_again_is_refused(tmp_path, changes, message):
    with pytest.raises(SourceError, match=message):
        refs(tmp_path, json.dumps(data(**changes)).replace("777", "1e999"))


def test_an_annotation_with_such_a_field_fails_its_picture(tmp_path):
    (ref,), _ = refs(tmp_path, json.dumps(data(annotation(x=777))).replace("777", "1e999"))
    assert "annotation 1: an unknown field has a number that is out of range" in ref.problem.detail


@pytest.mark.parametrize("key", ["id", "file_name", "name", "split", "bbox", "segmentation", "note"])
def test_nesting_that_json_just_reads_breaks_nothing(tmp_path, key):
    rows = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 3, "name": "a"}]}
    place = "images" if key in ("id", "file_name", "split") else "categories" if key == "name" else "annotations"
    content = {**rows, "annotations": [annotation()]}
    content[place][0][key] = "deep"
    deep = "[" * 850 + "]" * 850
    try:
        (ref,), _ = refs(tmp_path, json.dumps(content).replace('"deep"', deep))
    except SourceError:
        return
    assert ref.problem is not None


def test_a_key_of_the_file_may_be_there_again_in_its_objects(tmp_path):
    content = {"info": {"images": 1, "categories": 2}, **data(annotation(annotations=[], images="x"))}
    (ref,), _ = refs(tmp_path, content)
    assert json.loads(ref.labels.extras[0]) == {"annotations": [], "images": "x"}


def test_an_integer_of_thousands_of_digits_is_refused(tmp_path):
    with pytest.raises(SourceError, match="is not JSON: Exceeds the limit"):
        refs(tmp_path, '{"x": ' + "9" * 5000 + "}")
