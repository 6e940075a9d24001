"""VOC: 1-based boxes, the usual layouts, and XML that attacks."""

import pytest

from autolabel.core.errors import SourceError
from autolabel.core.types import Category
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
