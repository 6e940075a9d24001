"""VOC: 1-based boxes, the usual layouts, masks from PNGs, and XML that attacks."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from autolabel.core.errors import SourceError
from autolabel.core.types import Category
from autolabel.ops.index_png import encode_index_png, voc_palette
from autolabel.ops.masks import decode
from autolabel.source.voc import VocSource


def xml(*objects, filename="a.jpg", size=(20, 10)):
    rows = "".join(
        f"<object><name>{name}</name><difficult>1</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in objects
    )
    width, height = size
    sizes = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation><filename>{filename}</filename>{sizes}{rows}</annotation>"


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(path, images_dir=None):
    source = VocSource(path=str(path), images_dir=images_dir)
    return {ref.image_id: ref for ref in source.images()}, source


def test_a_box_over_the_whole_picture_is_the_whole_picture(tmp_path):
    write(tmp_path, {"a.xml": xml(("dog", (1, 1, 20, 10)), ("cat", ("2.5", 3, 4, 5))), "a.jpg": ""})
    refs, source = read(tmp_path)
    labels = refs["a.jpg"].labels
    assert labels.boxes_xyxy.tolist() == [[0, 0, 20, 10], [1.5, 2, 4, 5]]
    assert labels.size_hw == (10, 20)
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))
    assert labels.category_ids.tolist() == [2, 1]


def test_a_devkit_has_its_splits(tmp_path):
    write(
        tmp_path,
        {
            "Annotations/a.xml": xml(("dog", (1, 1, 5, 5))),
            "Annotations/b.xml": xml(),
            "JPEGImages/a.jpg": "",
            "JPEGImages/b.jpg": "",
            "JPEGImages/c.jpg": "",
            "ImageSets/Main/train.txt": "a\n",
            "ImageSets/Main/val.txt": "b  -1\n",
            "ImageSets/Main/dog_train.txt": "c 1\n",
        },
    )
    refs, _ = read(tmp_path)
    assert {i: r.split for i, r in refs.items()} == {
        "JPEGImages/a.jpg": "train",
        "JPEGImages/b.jpg": "val",
        "JPEGImages/c.jpg": None,
    }
    assert len(refs["JPEGImages/b.jpg"].labels) == 0
    assert refs["JPEGImages/c.jpg"].labels is None


def test_names_with_spaces_keep_their_splits_and_names_without_a_picture_are_counted(tmp_path):
    names = ("my photo", "b", "c 1", "d")
    write(
        tmp_path,
        {
            **{f"Annotations/{name}.xml": xml() for name in names},
            **{f"JPEGImages/{name}.jpg": "" for name in names},
            "ImageSets/Main/train.txt": "my photo\nc 1\ngone\n\n",
            "ImageSets/Main/val.txt": "b  -1\nd something else\ngone too -1\n",
            "ImageSets/Segmentation/train.txt": "gone\n",
        },
    )
    refs, source = read(tmp_path)
    assert {i.removeprefix("JPEGImages/"): r.split for i, r in refs.items()} == {
        "my photo.jpg": "train",
        "b.jpg": "val",
        "c 1.jpg": "train",
        "d.jpg": "val",
    }
    assert source.ignored == {"names in ImageSets without a picture": 2}


def test_a_flag_behind_a_name_with_spaces_is_no_part_of_it(tmp_path):
    write(tmp_path, {"Annotations/my photo.xml": xml(), "JPEGImages/my photo.jpg": ""})
    write(tmp_path, {"ImageSets/Main/test.txt": "my photo -1\n"})
    assert [ref.split for ref in read(tmp_path)[0].values()] == ["test"]


def test_xml_files_find_pictures_beside_them_or_where_they_are_told(tmp_path):
    write(tmp_path, {"voc/a.xml": xml(), "images/a.png": "", "elsewhere/a.jpg": ""})
    assert list(read(tmp_path / "voc")[0]) == ["images/a.png"]
    refs, _ = read(tmp_path / "voc", images_dir=str(tmp_path / "elsewhere"))
    assert refs["a.jpg"].path == str(tmp_path / "elsewhere" / "a.jpg")


def test_the_stated_file_name_helps_where_the_names_differ(tmp_path):
    write(tmp_path, {"1.xml": xml(("dog", (1, 1, 5, 5)), filename="photo.jpg"), "photo.jpg": ""})
    refs, _ = read(tmp_path)
    assert list(refs) == ["photo.jpg"]
    assert len(refs["photo.jpg"].labels) == 1


@pytest.mark.parametrize("stated", ["j.png", "C:\\photos\\j.png", "JPEGImages/j.png"])
def test_of_pictures_that_share_a_stem_the_stated_one_has_the_objects(tmp_path, stated):
    folders = {"JPEGImages/j.jpg": "", "JPEGImages/j.png": "", "JPEGImages/k.png": ""}
    dog = xml(("dog", (1, 1, 5, 5)), filename=stated)
    write(tmp_path, {"Annotations/j.xml": dog, "Annotations/k.xml": xml(filename="renamed.jpg"), **folders})
    refs, _ = read(tmp_path)
    found = {name: None if ref.labels is None else len(ref.labels) for name, ref in refs.items()}
    assert found == {"JPEGImages/j.jpg": None, "JPEGImages/j.png": 1, "JPEGImages/k.png": 0}
    assert [ref.problem for ref in refs.values()] == [None] * 3


@pytest.mark.parametrize("stated", ["", "j", "other.jpg"])
def test_where_pictures_share_a_stem_and_none_is_stated_none_has_the_objects(tmp_path, stated):
    write(tmp_path, {"j.xml": xml(("dog", (1, 1, 5, 5)), filename=stated), "j.jpg": "", "j.png": "", "a.jpg": ""})
    refs, _ = read(tmp_path)
    assert refs["a.jpg"].problem is None
    for name in ("j.jpg", "j.png"):
        assert refs[name].problem.code == "bad_label"
        detail = f"'j.xml' may be of any of 'j.jpg', 'j.png'; its <filename> is {stated!r}"
        assert refs[name].problem.detail == detail


def test_two_files_for_one_picture_leave_none_of_them_out_silently(tmp_path):
    write(tmp_path, {"1.xml": xml(filename="p.jpg"), "2.xml": xml(filename="p.jpg"), "p.jpg": ""})
    with pytest.raises(SourceError, match=r"1\.xml.*2\.xml.*p\.jpg"):
        read(tmp_path)


def test_an_xml_without_picture_is_a_missing_picture(tmp_path):
    write(tmp_path, {"gone.xml": xml(filename="../../etc/passwd")})
    refs, _ = read(tmp_path)
    assert refs["gone"].problem.code == "missing"
    assert refs["gone"].path == str(tmp_path / "gone")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation><filename>&b;</filename></annotation>'
XXE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation><filename>&f;</filename></annotation>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "entities are refused"),
        (XXE, "entities are refused"),
        ("<annotation>", "no element found"),
        ("", "no element found"),
        ("<html></html>", "not <annotation>"),
        ("<annotation><object><name>x</name></object></annotation>", "object 1 has no <bndbox>"),
        (xml(("dog", (1, "x", 5, 5))), "object 1: bad <bndbox>"),
        (xml(("", (1, 1, 5, 5))), "object 1 has no <name>"),
        ("<annotation>" + " " * (9 << 20), "larger than"),
    ],
    ids=range(9),
)
def test_a_bad_xml_fails_its_picture_and_the_others_go_on(tmp_path, text, reason):
    write(tmp_path, {"a.xml": text, "a.jpg": "", "b.xml": xml(("dog", (1, 1, 5, 5))), "b.jpg": ""})
    refs, _ = read(tmp_path)
    assert refs["a.jpg"].problem.code == "bad_label"
    assert reason in refs["a.jpg"].problem.detail
    assert "a.xml" in refs["a.jpg"].problem.detail
    assert len(refs["b.jpg"].labels) == 1


def test_deep_nesting_does_no_harm(tmp_path):
    deep = "<a>" * 200_000 + "</a>" * 200_000
    write(tmp_path, {"a.xml": f"<annotation>{deep}</annotation>", "a.jpg": ""})
    assert list(read(tmp_path)[0]) == ["a.jpg"]


@pytest.mark.parametrize("size", [(0, 0), ("x", 3), ("inf", 3), ("nan", 3)])
def test_a_size_that_is_none_is_no_size(tmp_path, size):
    write(tmp_path, {"a.xml": xml(size=size), "a.jpg": ""})
    assert read(tmp_path)[0]["a.jpg"].labels.size_hw is None


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        read(tmp_path / "absent")


def test_flags_and_tags_without_a_place_are_kept_as_json(tmp_path):
    text = (
        "<annotation><folder>x</folder><filename>a.jpg</filename><owner><name>me &amp; you</name></owner>"
        "<object><name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
        "<occluded>maybe</occluded><part id='7'><name>head</name></part><part><name>foot</name></part>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>"
        "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>"
        "</annotation>"
    )
    write(tmp_path, {"a.xml": text, "a.jpg": ""})
    ref = read(tmp_path)[0]["a.jpg"]
    assert json.loads(ref.labels.extras[0]) == {
        "pose": "Left",
        "truncated": 1,
        "difficult": 0,
        "occluded": "maybe",
        "part": [{"@id": "7", "name": "head"}, {"name": "foot"}],
    }
    assert ref.labels.extras[1] == ""
    assert json.loads(ref.extra) == {"folder": "x", "owner": {"name": "me & you"}}


def test_difficult_objects_are_objects_like_any_other_and_stay_marked(tmp_path):
    write(tmp_path, {"a.xml": xml(("dog", (1, 1, 5, 5)), ("dog", (2, 2, 6, 6))), "a.jpg": ""})
    labels = read(tmp_path)[0]["a.jpg"].labels
    assert [json.loads(extra) for extra in labels.extras] == [{"difficult": 1}] * 2
    assert labels.crowd == (False, False)


# Masks --------------------------------------------------------------------------------------------------------

OBJECTS = np.zeros((10, 20), np.uint8)
OBJECTS[0:4, 0:4], OBJECTS[5:8, 10:16], OBJECTS[4, 0:4] = 1, 2, 255
CLASSES = np.array([0, 2, 1], np.uint8)[np.where(OBJECTS == 255, 0, OBJECTS)]
CLASSES[OBJECTS == 255] = 255
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n"


def devkit(root, text=None, objects=OBJECTS, classes=CLASSES, labelmap=LABELMAP):
    write(root, {"Annotations/.keep": "", "JPEGImages/a.jpg": ""})
    if text is not None:
        write(root, {"Annotations/a.xml": text})
    if labelmap is not None:
        write(root, {"labelmap.txt": labelmap})
    for folder, ids in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        if ids is not None:
            (root / folder).mkdir()
            data = ids if isinstance(ids, bytes) else encode_index_png(ids, voc_palette())
            (root / folder / "a.png").write_bytes(data)
    refs, source = read(root)
    return refs["JPEGImages/a.jpg"], source


TWO = xml(("dog", (1, 1, 4, 4)), ("cat", (11, 6, 16, 8)))


def masks(ref):
    return [None if shape is None else decode(shape) for shape in ref.labels.shapes]


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_object_k_of_the_xml_is_number_k_of_the_png_and_void_is_nobody(tmp_path, classes):
    ref, source = devkit(tmp_path, TWO, classes=classes)
    first, second = masks(ref)
    assert (first == (OBJECTS == 1)).all()
    assert (second == (OBJECTS == 2)).all()
    assert [c.name for c in source.categories] == ["cat", "dog"]
    assert ref.labels.category_ids.tolist() == [2, 1]


def test_pngs_of_an_xml_are_not_those_of_another_picture_of_its_stem(tmp_path):
    write(tmp_path, {"JPEGImages/a.png": ""})
    text = xml(("cat", (1, 1, 4, 4)), ("dog", (11, 6, 16, 8)), filename="a.jpg")
    ref, source = devkit(tmp_path, text, classes=None, labelmap=None)
    assert all(shape is not None for shape in ref.labels.shapes)
    assert read(tmp_path)[0]["JPEGImages/a.png"].labels is None
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))


def test_an_object_without_pixels_keeps_its_box_alone(tmp_path):
    ref, _ = devkit(tmp_path, xml(("dog", (1, 1, 4, 4)), ("cat", (11, 6, 16, 8)), ("dog", (1, 1, 9, 9))))
    assert [mask is None for mask in masks(ref)] == [False, False, True]
    assert ref.labels.boxes_xyxy[2].tolist() == [0, 0, 9, 9]


def test_a_class_png_alone_gives_a_mask_to_the_only_object_of_its_class(tmp_path):
    text = xml(("dog", (1, 1, 4, 4)), ("cat", (11, 6, 12, 8)), ("cat", (13, 6, 16, 8)))
    ref, _ = devkit(tmp_path, text, objects=None)
    first, *others = masks(ref)
    assert (first == (OBJECTS == 1)).all()
    assert others == [None, None]


def test_pngs_without_xml_are_the_labels(tmp_path):
    ref, source = devkit(tmp_path)
    assert ref.labels.category_ids.tolist() == [2, 1]
    assert ref.labels.boxes_xyxy.tolist() == [[0, 0, 4, 4], [10, 5, 16, 8]]
    assert all((mask == (k == OBJECTS)).all() for k, mask in enumerate(masks(ref), 1))
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))
    ref, _ = devkit(tmp_path / "semantic", objects=None)
    assert ref.labels.category_ids.tolist() == [1, 2]


def test_pngs_without_xml_are_of_none_of_several_pictures_that_may_have_them(tmp_path):
    others = ("a.png", "b.jpg", "b.png", "sub/a.jpg")
    write(tmp_path, {f"JPEGImages/{name}": "" for name in others})
    _, source = devkit(tmp_path)
    found = {ref.image_id.removeprefix("JPEGImages/"): ref for ref in source.images()}
    assert {name for name, ref in found.items() if ref.problem} == {"a.jpg", "a.png"}
    for name in ("a.jpg", "a.png"):
        assert found[name].problem.code == "bad_label"
        assert re.search(
            r"SegmentationObject/a\.png' may be of any of 'a\.jpg', 'a\.png'; no XML", found[name].problem.detail
        )
    assert [found[name].labels for name in others[1:]] == [None] * 3


def test_pngs_without_xml_may_be_of_a_picture_that_has_an_xml_of_another_name(tmp_path):
    write(tmp_path, {"JPEGImages/a.png": "", "Annotations/1.xml": xml(("dog", (1, 1, 4, 4)))})
    ref, source = devkit(tmp_path)
    assert len(ref.labels) == 1
    assert [r.problem.code for r in source.images() if r.problem] == ["bad_label"]


def test_without_a_labelmap_numbers_are_the_twenty_classes_of_voc(tmp_path):
    ref, source = devkit(tmp_path, labelmap=None)
    names = {c.id: c.name for c in source.categories}
    assert (len(names), [names[i] for i in ref.labels.category_ids]) == (20, ["bicycle", "aeroplane"])


def test_pngs_in_the_colours_of_voc_are_read_like_numbers(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(voc_palette()[OBJECTS]).save(buffer, "PNG")
    ref, _ = devkit(tmp_path, TWO, objects=buffer.getvalue())
    assert (masks(ref)[1] == (OBJECTS == 2)).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": xml(("dog", (1, 1, 4, 4)))}, "object 2 is not in the XML, which has 1"),
        (
            {"text": xml(("cat", (1, 1, 4, 4)), ("dog", (11, 6, 16, 8)))},
            "object 1 is a 'cat' in the XML, here 'dog'",
        ),
        ({"text": xml(("dog", (1, 1, 4, 4)), ("cat", (11, 6, 16, 8)), size=(30, 10))}, "the XML says 30x10 px"),
        ({"objects": b"no png"}, r"SegmentationObject/a\.png"),
        ({"objects": np.full((10, 20), 1, np.uint8)[:, :, None].repeat(3, 2).tobytes()}, r"SegmentationObject"),
        ({"text": None, "classes": np.full((10, 20), 9, np.uint8)}, "class 9 has no name"),
        ({"text": None, "classes": None}, "objects without classes"),
        ({"text": None, "classes": CLASSES[:5]}, "its size is not that of the classes"),
    ],
    ids=range(8),
)
def test_pngs_that_contradict_the_xml_fail_their_picture(tmp_path, changes, reason):
    ref, _ = devkit(tmp_path, **{"text": TWO, **changes})
    assert ref.problem.code == "bad_label"
    assert re.search(reason, ref.problem.detail)
