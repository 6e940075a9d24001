"""CVAT's XML: shapes, groups, attributes, and XML that attacks."""

import json
import re

import pytest

from autolabel.core.errors import SourceError
from autolabel.core.types import Category
from autolabel.ops.masks import decode
from autolabel.source.cvat import CvatSource

POLYGON = '<polygon label="dog" points="1.00,1.00;9.00,1.00;1.00,7.00" {}></polygon>'
META = "<meta><task><name>t</name><labels>{}</labels></task></meta>"


def label(name, more=""):
    return f"<label><name>{name}</name>{more}</label>"


LABELS = (label("dog"), label("cat"))


def image(*shapes, name="a.png", more='width="20" height="10"', id_="0"):
    return f'<image id="{id_}" name="{name}" {more}>{"".join(shapes)}</image>'


def xml(*images, labels=LABELS):
    meta = META.format("".join(labels))
    return f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{"".join(images)}</annotations>'


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(path, images_dir=None, join_groups=True):
    source = CvatSource(path=str(path), images_dir=images_dir, join_groups=join_groups)
    return {ref.image_id: ref for ref in source.images()}, source


def test_each_kind_of_shape_is_what_it_is(tmp_path):
    shapes = (
        POLYGON.format(""),
        '<box label="cat" xtl="2" ytl="3" xbr="8" ybr="9"/>',
        '<mask label="dog" rle="0,3,1" left="1" top="1" width="2" height="2"/>',
        '<ellipse label="dog" cx="10" cy="5" rx="4" ry="2"/>',
        '<points label="dog" points="1,1"/>',
        '<polyline label="dog" points="1,1;2,2"/>',
    )
    write(tmp_path, {"annotations.xml": xml(image(*shapes, id_="7")), "images/a.png": ""})
    refs, source = read(tmp_path)
    ref = refs["a.png"]
    assert (ref.path, ref.source_id) == (str(tmp_path / "images" / "a.png"), 7)
    assert source.categories == (Category(1, "dog"), Category(2, "cat"))
    assert ref.labels.category_ids.tolist() == [1, 2, 1, 1]
    assert ref.labels.shapes[0] == ((1, 1, 9, 1, 1, 7),)
    assert (ref.labels.shapes[1], ref.labels.boxes_xyxy[1].tolist()) == (None, [2, 3, 8, 9])
    assert decode(ref.labels.shapes[2])[1:3, 1:3].tolist() == [[1, 1], [1, 0]]
    assert ref.labels.boxes_xyxy[3].tolist() == pytest.approx([6, 3, 14, 7], abs=0.1)
    assert ref.labels.size_hw == (10, 20)
    assert source.ignored == {"points shapes": 1, "polyline shapes": 1}


def test_a_full_frame_mask_is_read_too(tmp_path):
    runs = "21,2,18,1,158"
    write(
        tmp_path,
        {"a.xml": xml(image(f'<mask label="dog" rle="{runs}" left="0" top="0" width="20" height="10"/>'))},
    )
    found = decode(read(tmp_path / "a.xml")[0]["a.png"].labels.shapes[0])
    assert found[1:3, 1:3].tolist() == [[1, 1], [1, 0]]
    assert found.sum() == 3


def test_a_turned_box_is_the_box_around_it(tmp_path):
    box = '<box label="dog" xtl="6" ytl="4" xbr="14" ybr="6" rotation="90.0"/>'
    write(tmp_path, {"annotations.xml": xml(image(box))})
    labels = read(tmp_path)[0]["a.png"].labels
    assert labels.boxes_xyxy[0].tolist() == pytest.approx([9, 1, 11, 9])
    assert json.loads(labels.extras[0]) == {"rotation": "90.0", "box": [6, 4, 14, 6]}


def test_parts_of_one_group_are_one_object(tmp_path):
    shapes = (
        POLYGON.format('group_id="1"'),
        '<polygon label="dog" points="11,1;19,1;11,7" group_id="1"/>',
        POLYGON.format(""),
        '<box label="dog" xtl="2" ytl="3" xbr="8" ybr="9" group_id="1"/>',
    )
    write(tmp_path, {"annotations.xml": xml(image(*shapes))})
    labels = read(tmp_path)[0]["a.png"].labels
    assert [None if s is None else len(s) for s in labels.shapes] == [2, 1, None]
    assert labels.boxes_xyxy[0].tolist() == [1, 1, 19, 7]
    assert len(read(tmp_path, join_groups=False)[0]["a.png"].labels) == 4


def test_group_0_is_no_group(tmp_path):
    far = '<polygon label="dog" points="11,1;19,1;11,7" group_id="0"/>'
    write(tmp_path, {"annotations.xml": xml(image(POLYGON.format('group_id="0"'), far))})
    labels = read(tmp_path)[0]["a.png"].labels
    assert [len(shape) for shape in labels.shapes] == [1, 1]
    assert labels.extras == ("", "")


def test_attributes_flags_labels_and_tags_are_kept(tmp_path):
    own = (
        '<polygon label="dog" points="1,1;9,1;1,7" occluded="1" z_order="3" source="manual">'
        '<attribute name="colour">red</attribute><attribute name="iscrowd">true</attribute></polygon>'
    )
    spec = "<color>#fa3253</color><attributes><attribute><name>colour</name></attribute></attributes>"
    tag = '<tag label="night"></tag>'
    text = xml(
        image(own, tag, more='width="20" height="10" subset="train" task_id="4"'), labels=[label("dog", spec)]
    )
    write(tmp_path, {"annotations.xml": text})
    refs, source = read(tmp_path)
    ref = refs["a.png"]
    expected = {"occluded": "1", "z_order": "3", "source": "manual", "attributes": {"colour": "red"}}
    assert json.loads(ref.labels.extras[0]) == expected
    assert (ref.labels.crowd, ref.split) == ((True,), "train")
    assert json.loads(ref.extra) == {"task_id": "4", "tag": {"@label": "night"}}
    assert json.loads(source.categories[0].extra)["color"] == "#fa3253"


def test_an_image_without_shapes_has_labels_and_no_object(tmp_path):
    write(tmp_path, {"annotations.xml": xml(image(more='width="20" height="10" subset="default"'))})
    ref = read(tmp_path)[0]["a.png"]
    assert (len(ref.labels), ref.split) == (0, None)


def test_a_class_that_only_a_shape_names_comes_after_the_task_s(tmp_path):
    write(tmp_path, {"annotations.xml": xml(image('<box label="axe" xtl="2" ytl="3" xbr="8" ybr="9"/>'))})
    assert read(tmp_path)[1].categories == (Category(1, "dog"), Category(2, "cat"), Category(3, "axe"))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polygon label="dog" points="1,1;2,2"/>', r"shape 1 \(<polygon>\): an outline needs three"),
        ('<polygon label="dog" points="1,1;x,2;3,3"/>', "finite number"),
        ('<polygon label="dog" points="1,1;nan,2;3,3"/>', "finite number"),
        ('<polygon label="" points="1,1;2,2;3,1"/>', "needs a label"),
        ('<box label="dog" xtl="2" ytl="3" xbr="8"/>', "ybr"),
        ('<mask label="dog" rle="0,3" left="1" top="1" width="2" height="2"/>', "do not fill"),
        ('<mask label="dog" rle="0,-3,7" left="1" top="1" width="2" height="2"/>', "whole numbers"),
        ('<mask label="dog" rle="" left="1" top="1" width="2" height="2"/>', "whole numbers"),
        ('<mask label="dog" rle="4" left="19" top="1" width="2" height="2"/>', "not inside"),
        ('<mask label="dog" rle="9" left="0" top="0" width="900000000" height="900000000"/>', "not inside"),
        ('<mask label="dog" rle="4" left="1" top="1" width="2" height="2"/>', "no pixel"),
        ('<ellipse label="dog" cx="1" cy="1" rx="0" ry="3"/>', "radii"),
    ],
    ids=range(12),
)
def test_a_bad_shape_fails_its_image_and_the_others_go_on(tmp_path, shape, reason):
    text = xml(image(shape), image(POLYGON.format(""), name="b.png", id_="1"))
    write(tmp_path, {"annotations.xml": text})
    refs, _ = read(tmp_path)
    assert refs["a.png"].problem.code == "bad_label"
    assert f"{tmp_path / 'annotations.xml'}: image 1 (a.png): " in refs["a.png"].problem.detail
    assert re.search(reason, refs["a.png"].problem.detail)
    assert len(refs["b.png"].labels) == 1


@pytest.mark.parametrize(
    "more", ['width="x" height="3"', 'width="1000000" height="1000000"', 'width="0" height="3"']
)
def test_an_impossible_size_fails_its_image(tmp_path, more):
    write(tmp_path, {"annotations.xml": xml(image(more=more))})
    assert read(tmp_path)[0]["a.png"].problem.code == "bad_label"


TWICE = (("a.png", "Train"), ("a.png", "Validation"))
ONCE = (("a.png", "Train"), ("b.png", "Validation"))
ALIKE = (("a.png", "Train"), ("b.png", "Train"))
IN_SUBSETS = ["images/Train/a.png", "images/Validation/a.png", "images/Validation/b.png"]


def project(*named):
    """As CVAT writes the tasks of a project into one file."""
    more = 'subset="{}" task_id="3" width="20" height="10"'
    return xml(*(image(name=name, more=more.format(subset), id_=n) for n, (name, subset) in enumerate(named)))


@pytest.mark.parametrize(
    ("named", "there", "images_dir", "found"),
    [
        (TWICE, IN_SUBSETS, None, {"Train/a.png": "images/Train/a.png", "Validation/a.png": "images/Validation/a.png"}),
        (TWICE, IN_SUBSETS, "images", {"Train/a.png": "images/Train/a.png", "Validation/a.png": "images/Validation/a.png"}),
        (TWICE, [], None, {"Train/a.png": "Train/a.png", "Validation/a.png": "Validation/a.png"}),
        (TWICE, ["images/a.png"], None, {"Train/a.png": "Train/a.png", "Validation/a.png": "Validation/a.png"}),
        (ONCE, IN_SUBSETS, None, {"Train/a.png": "images/Train/a.png", "Validation/b.png": "images/Validation/b.png"}),
        (ONCE, IN_SUBSETS[2:], None, {"Train/a.png": "images/Train/a.png", "Validation/b.png": "images/Validation/b.png"}),
        (ONCE, ["images/a.png", "images/b.png"], None, {"a.png": "images/a.png", "b.png": "images/b.png"}),
        (ONCE, [*IN_SUBSETS, "p/a.png"], "p", {"a.png": "p/a.png", "b.png": "p/b.png"}),
        (ONCE, [], None, {"a.png": "a.png", "b.png": "b.png"}),
        (ALIKE, ["images/Train/a.png"], "images/Train", {"a.png": "images/Train/a.png", "b.png": "images/Train/b.png"}),
        ((("a.png", "default"),), ["images/default/a.png"], None, {"default/a.png": "images/default/a.png"}),
        ((("a.png", "Train"), ("b.png", "")), IN_SUBSETS, None, {"a.png": "a.png", "b.png": "b.png"}),
        ((("a.png", "../.."), ("b.png", "x")), ["a.png"], None, {"a.png": "a.png", "b.png": "b.png"}),
        ((("Train/a.png", "Train"),), IN_SUBSETS, None, {"Train/a.png": "images/Train/a.png"}),
    ],
    ids=range(14),
)  # fmt: skip
def test_pictures_of_a_project_may_lie_in_a_folder_per_subset(tmp_path, named, there, images_dir, found):
    write(tmp_path, {"annotations.xml": project(*named), **dict.fromkeys(there, "")})
    place = None if images_dir is None else str(tmp_path / images_dir)
    for _ in range(2):
        refs, _ = read(tmp_path, place)
        assert {id_: ref.path for id_, ref in refs.items()} == {k: str(tmp_path / v) for k, v in found.items()}


@pytest.mark.parametrize("stray", ["a.png", "images/a.png", "../a.png"])
def test_pictures_that_lie_in_folders_of_subsets_and_without_are_refused(tmp_path, stray):
    files = {"annotations.xml": project(*ONCE), **dict.fromkeys((stray, *IN_SUBSETS), "")}
    write(tmp_path / "x", files)
    with pytest.raises(SourceError, match=r"a\.png' or those with .*images/Train/a\.png'; set source\.images_dir"):
        read(tmp_path / "x")
    if stray != "images/a.png":
        assert list(read(tmp_path / "x", str(tmp_path / "x" / "images"))[0]) == ["Train/a.png", "Validation/b.png"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa">]><annotations><image name="&a;"/></annotations>'
XXE = (
    '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotations><image name="a">&f;</image></annotations>'
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "entities are refused"),
        (XXE, "entities are refused"),
        ("<annotations><image", "not XML: .*line 1"),
        ("", "not XML"),
        ('<?xml version="1.0" encoding="no-such"?><annotations/>', "not XML|encoding"),
        ("<annotation></annotation>", "not <annotations>"),
        ("<annotations></annotations>", "not a CVAT export"),
        ('<annotations><track id="0" label="x"></track></annotations>', "CVAT for video"),
        (xml(image(), image(id_="1")), r"image 2: the name 'a.png' was there before"),
        (project(*TWICE, *TWICE[:1]), r"image 3: the name 'Train/a.png' was there before"),
        (xml(image(name="../../etc/passwd")), "leads out"),
        (xml(image(name="/etc/passwd")), "absolute path"),
        (xml(image(name="C:\\x.png")), "absolute path"),
        (xml(image(name="")), "file name is missing"),
    ],
    ids=range(14),
)
def test_a_file_that_cannot_be_trusted_is_an_error_with_its_place(tmp_path, text, reason):
    write(tmp_path, {"annotations.xml": text})
    with pytest.raises(SourceError, match=reason) as caught:
        read(tmp_path)
    assert "annotations.xml" in str(caught.value)


def test_deep_nesting_does_no_harm(tmp_path):
    deep = "<a>" * 50_000 + "</a>" * 50_000
    write(tmp_path, {"annotations.xml": xml(image(deep), image(name="b.png", id_="1"))})
    refs, _ = read(tmp_path)
    assert refs["a.png"].problem.code == "bad_label"
    assert len(refs["b.png"].labels) == 0


def test_missing_files_are_errors(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        read(tmp_path)
