"""Label Studio's tasks: regions, whose answer counts, how a picture is found, and files that are broken."""

import itertools
import json
import re

import numpy as np
import pytest

from autolabel.core.errors import SourceError
from autolabel.core.types import Category
from autolabel.ops.brush import encode_brush
from autolabel.ops.masks import decode, encode
from autolabel.source.label_studio import LabelStudioSource
from autolabel.source.places import path_of

SIZE = {"original_width": 20, "original_height": 10, "image_rotation": 0}
MASK = np.eye(10, 20, dtype=np.uint8)


def region(kind, value, label="dog", **more):
    names = {} if label is None else {f"{kind}labels": [label]}
    return {
        "id": "r1",
        "type": f"{kind}labels",
        "from_name": "l",
        "to_name": "i",
        **SIZE,
        "value": {**value, **names},
        **more,
    }


def triangle(**more):
    return region("polygon", {"points": [[0, 0], [50, 0], [0, 100]]}, **more)


def task(*regions, image="/data/upload/1/0123abcd-a.png", key="annotations", **more):
    return {"id": 5, "data": {"image": image}, key: [{"result": list(regions)}], **more}


def write(root, tasks, pictures=("a.png",), name="x.json"):
    for picture in pictures:
        (root / picture).parent.mkdir(parents=True, exist_ok=True)
        (root / picture).write_text("")
    (root / name).write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    return root / name


def read(path, images_dir=None, results="either", data_key=None):
    source = LabelStudioSource(path=str(path), images_dir=images_dir, data_key=data_key, results=results)
    return {ref.image_id: ref for ref in source.images()}, source


def test_each_kind_of_region_is_what_it_is(tmp_path):
    brush = {"format": "rle", "rle": list(encode_brush(encode(MASK)))}
    regions = (
        triangle(),
        region("rectangle", {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0}, "cat"),
        region("brush", brush),
        region("ellipse", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20, "rotation": 0}),
        region("keypoint", {"x": 1, "y": 1}),
        {"type": "choices", "value": {"choices": ["x"]}},
        region("rectangle", {"x": 0, "y": 0, "width": 5, "height": 5}, None),
    )
    path = write(tmp_path, [task(*regions)], ["a.png", "unlisted.png"])
    refs, source = read(path)
    ref = refs["a.png"]
    assert (source.categories, ref.source_id) == ((Category(1, "cat"), Category(2, "dog")), 5)
    assert ref.labels.category_ids.tolist() == [2, 1, 2, 2]
    assert ref.labels.shapes[0] == ((0, 0, 10, 0, 0, 10),)
    assert (ref.labels.shapes[1], ref.labels.boxes_xyxy[1].tolist()) == (None, [2, 2, 12, 6])
    assert (decode(ref.labels.shapes[2]) == MASK).all()
    assert ref.labels.boxes_xyxy[3].tolist() == pytest.approx([6, 3, 14, 7], abs=0.1)
    assert ref.labels.size_hw == (10, 20)
    assert source.ignored == {
        "keypointlabels results": 1,
        "choices results": 1,
        "regions without a label": 1,
        "pictures without a task": 1,
    }


def test_a_turned_rectangle_turns_around_its_first_corner(tmp_path):
    turned = region("rectangle", {"x": 50, "y": 0, "width": 20, "height": 20, "rotation": 90})
    labels = read(write(tmp_path, [task(turned)]))[0]["a.png"].labels
    assert labels.boxes_xyxy[0].tolist() == pytest.approx([8, 0, 10, 4], abs=1e-5)


def test_a_bare_shape_has_its_label_from_its_second_half(tmp_path):
    shape = {"id": "q", "type": "rectangle", **SIZE, "value": {"x": 0, "y": 0, "width": 50, "height": 50}}
    labels = {"id": "q", "type": "labels", **SIZE, "value": {"labels": ["axe"]}}
    refs, source = read(write(tmp_path, [task(shape, labels)]))
    assert source.categories == (Category(1, "axe"),)
    assert len(refs["a.png"].labels) == 1


def test_an_object_has_the_first_label_of_its_region_and_the_others_are_counted(tmp_path):
    several = triangle()
    several["value"]["polygonlabels"] = ["car", "damaged", "red"]
    refs, source = read(write(tmp_path, [task(several, triangle())]))
    names = {category.id: category.name for category in source.categories}
    assert [names[id_] for id_ in refs["a.png"].labels.category_ids] == ["car", "dog"]
    assert source.ignored == {"further labels of a region": 2}
    assert json.loads(refs["a.png"].labels.extras[0])["labels"] == ["car", "damaged", "red"]


def test_people_go_before_models_and_the_truth_before_others(tmp_path):
    boxes = [region("rectangle", {"x": 10 * i, "y": 0, "width": 10, "height": 10}) for i in range(5)]
    answers = [
        {"result": [boxes[0]]},
        {"result": [boxes[1]], "ground_truth": True},
        {"result": [boxes[2]]},
        {"result": [boxes[3]], "was_cancelled": True},
    ]
    row = {"data": {"image": "a.png"}, "annotations": answers, "predictions": [{"result": [boxes[4]]}]}
    path = write(tmp_path, [row])
    for results, x0 in (("either", 2), ("annotations", 2), ("predictions", 8)):
        refs, _ = read(path, results=results)
        assert refs["a.png"].labels.boxes_xyxy[:, 0].tolist() == [x0]
    assert read(path)[1].ignored == {"cancelled annotations": 1, "other annotations of a task": 2}
    bare = write(tmp_path, [{"data": {"image": "a.png"}, "annotations": []}])
    assert read(bare)[0]["a.png"].labels is None


@pytest.mark.parametrize(
    ("results", "annotated", "labels", "ignored"),
    [
        ("either", True, 1, {}),
        ("annotations", True, 1, {}),
        ("predictions", True, None, {"predictions by id alone": 2}),
        ("either", False, None, {"predictions by id alone": 2}),
        ("annotations", False, None, {}),
    ],
)
def test_predictions_that_the_tool_names_by_id_hide_no_answer(tmp_path, results, annotated, labels, ignored):
    """As its JSON export writes a project into which predictions were imported."""
    row = {
        "id": 100,
        "data": {"image": "/data/upload/2/1f0c9a7b-a.png"},
        "predictions": [5, 6],
        "drafts": [],
        "total_annotations": int(annotated),
        "annotations": [
            {
                "id": 1,
                "was_cancelled": False,
                "ground_truth": False,
                "parent_prediction": 5,
                "result": [triangle()],
            }
        ][:annotated],
    }
    refs, source = read(write(tmp_path, [row]), results=results)
    assert refs["a.png"].problem is None
    assert (None if refs["a.png"].labels is None else len(refs["a.png"].labels)) == labels
    assert source.ignored == ignored


def test_scores_meta_ids_and_data_are_kept(tmp_path):
    row = task(triangle(score=0.5, meta={"text": ["x"]}), key="predictions")
    row["data"]["camera"] = 7
    ref = read(write(tmp_path, [row]))[0]["a.png"]
    assert json.loads(ref.labels.extras[0]) == {"id": "r1", "score": 0.5, "meta": {"text": ["x"]}}
    assert json.loads(ref.extra) == {"data": {"camera": 7}}


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("/data/local-files/?d=set/cam1/0.jpg", "cam1/0.jpg"),
        ("/data/local-files/?d=cam2%2F0.jpg", "cam2/0.jpg"),
        ("s3://bucket/cam2/0.jpg", "cam2/0.jpg"),
        ("https://example.com/x/cam1/0.jpg?sig=1", "cam1/0.jpg"),
        ("/data/upload/3/1f0c9a7b-b%20c.png", "b c.png"),
        ("C:\\photos\\cam1\\0.jpg", "cam1/0.jpg"),
        ("0.jpg", None),
        ("../../etc/passwd", None),
        ("http://[bad/x.png", None),
    ],
)
def test_a_picture_is_the_one_whose_path_ends_like_the_address(tmp_path, address, found):
    path = write(tmp_path, [task(triangle(), image=address)], ["cam1/0.jpg", "cam2/0.jpg", "b c.png"])
    ((image_id, ref),) = read(path)[0].items()
    if found is None:
        assert ref.problem.code == "missing"
        assert ref.path.startswith(str(tmp_path))
        assert ".." not in ref.path
    else:
        assert (image_id, ref.problem, len(ref.labels)) == (found, None, 1)


@pytest.mark.parametrize(
    ("root", "there", "addresses", "found"),
    [
        ("imgs", ["cam1/1.jpg", "cam2/3.jpg"], ["imgs/cam1/1.jpg", "imgs/cam1/3.jpg"], ["cam1/1.jpg", None]),
        ("other", ["cam1/1.jpg", "cam2/3.jpg"], ["imgs/cam1/3.jpg", "imgs/cam2/3.jpg"], [None, "cam2/3.jpg"]),
        ("ls", ["a.jpg", "deep/a.jpg"], ["ls/a.jpg", "ls/deep/a.jpg"], ["a.jpg", "deep/a.jpg"]),
        ("ls", ["a.jpg", "deep/b.jpg"], ["ls/deep/a.jpg"], [None]),
        ("moved", ["a.jpg", "deep/a.jpg"], ["ls/a.jpg", "a.jpg"], [None, None]),
        ("moved", ["a.jpg", "deep/a.jpg"], ["a.jpg", "deep/a.jpg"], ["a.jpg", "deep/a.jpg"]),
        ("moved", ["deep/a.jpg"], ["a.jpg", "deep/a.jpg"], [None, "deep/a.jpg"]),
        ("cam2", ["1.jpg", "2.jpg"], ["cam1/1.jpg", "cam2/1.jpg", "cam2/2.jpg"], [None, "1.jpg", "2.jpg"]),
        ("flat", ["1.jpg", "2.jpg"], ["cam1/1.jpg", "cam2/1.jpg", "cam2/2.jpg"], [None, None, "2.jpg"]),
        ("above", ["set/cam1/1.jpg", "set/1.jpg"], ["cam1/1.jpg", "1.jpg"], ["set/cam1/1.jpg", None]),
        ("y/deep", ["a.jpg", "deep/a.jpg"], ["x/deep/a.jpg"], [None]),
        ("set", ["images/images/1.jpg"], ["set/images/images/1.jpg"], ["images/images/1.jpg"]),
        ("up", ["c/1.jpg"], ["/data/upload/3/0123abcd-1.jpg"], ["c/1.jpg"]),
        ("up", ["1.jpg", "c/1.jpg"], ["/data/upload/3/0123abcd-1.jpg"], [None]),
        ("up", ["1.jpg"], ["/data/upload/3/0123abcd-1.jpg", "/data/upload/4/4567abcd-1.jpg"], [None, None]),
        ("media", ["upload/3/0123abcd-1.jpg", "1.jpg"], ["/data/upload/3/0123abcd-1.jpg"], ["upload/3/0123abcd-1.jpg"]),
        ("plain", ["1.jpg"], ["plain/0123abcd-1.jpg"], [None]),
        ("up", ["c/IMG 1.JPG", "a (1).jpg"], ["upload/2/0123abcd-IMG_1.JPG", "upload/2/4567abcd-a_1.jpg"], ["c/IMG 1.JPG", "a (1).jpg"]),
        ("up", ["é+ü.jpg"], ["/data/upload/2/0123abcd-%C3%A9%C3%BC.jpg"], ["é+ü.jpg"]),
        ("up", ["a 1.jpg", "a_1.jpg"], ["upload/2/0123abcd-a_1.jpg"], [None]),
        ("up", ["a 1.jpg", "c/a_(1).jpg"], ["upload/2/0123abcd-a_1.jpg"], [None]),
        ("up", ["a 1.jpg", "a_1.jpg"], ["upload/2/0123abcd-a%201.jpg"], ["a 1.jpg"]),
        ("up", ["a 1.jpg"], ["upload/2/0123abcd-a_1.jpg", "upload/2/4567abcd-a_1.jpg"], [None, None]),
        ("up", ["a 1.jpg"], ["up/a_1.jpg", "a_1.jpg"], [None, None]),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_picture_is_taken_only_where_the_address_can_mean_no_other(tmp_path, root, there, addresses, found):
    tasks = [task(image=address, id=n) for n, address in enumerate(addresses)]
    write(tmp_path / root, [], there)
    refs, _ = read(write(tmp_path, tasks, []), images_dir=str(tmp_path / root))
    seen = [(None if ref.problem else ref.image_id) for ref in refs.values()]
    assert seen == found
    for ref in refs.values():
        assert ref.problem is None or (
            ref.problem.code == "missing" and "set source.images_dir" in ref.problem.detail
        )


def test_an_address_never_leads_anywhere():
    for address in (
        "../../x",
        "/etc/passwd",
        "..\\..\\x",
        "file:///etc/passwd",
        "?d=../x",
        "",
        "/data/local-files/?d=/../y",
    ):
        path = path_of(address)
        assert path
        assert not path.startswith("/")
        assert ".." not in path.split("/")


def test_the_data_s_key_can_be_given(tmp_path):
    row = {"data": {"left": "a.png", "right": "b.png"}, "annotations": []}
    path = write(tmp_path, [row], ["a.png", "b.png"])
    assert list(read(path, data_key="right")[0]) == ["b.png"]
    with pytest.raises(SourceError, match=r"x\.json: task 1: `data` must name one picture"):
        read(path)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (region("polygon", {"points": [[0, 0], [1, 1]]}), r"result\[0\]: an outline needs three"),
        (region("polygon", {"points": [[0, 0], [1, None], [3, 3]]}), "finite number"),
        (region("rectangle", {"x": 0, "y": 0, "width": 1}), "height must be"),
        (region("brush", {"rle": [1, 2, 3]}), "not of a 20x10"),
        (region("brush", {"rle": [1, 2, 300]}), "bytes|range"),
        (region("brush", {"rle": ["x"]}), "list of bytes"),
        (region("brush", {"imageDataURL": "data:"}), "needs its `rle`"),
        (triangle(image_rotation=90), "image_rotation"),
        (triangle(original_width=1 << 20, original_height=1 << 20), "not possible"),
        (triangle(original_width=None), "original_width"),
        ({**triangle(), "value": 3}, "object `value`"),
    ],
    ids=range(11),
)
def test_a_bad_region_fails_its_picture_and_the_others_go_on(tmp_path, bad, reason):
    path = write(tmp_path, [task(bad), task(triangle(), image="b.png", id=6)], ["a.png", "b.png"])
    refs, _ = read(path)
    assert refs["a.png"].problem.code == "bad_label"
    assert f"{path}: task 1: " in refs["a.png"].problem.detail
    assert re.search(reason, refs["a.png"].problem.detail)
    assert len(refs["b.png"].labels) == 1


@pytest.mark.parametrize("rows", [["x"], [True], {"result": []}, 3])
def test_predictions_that_are_neither_objects_nor_ids_fail_their_picture(tmp_path, rows):
    refs, _ = read(write(tmp_path, [task(triangle(), predictions=rows)]))
    assert "`predictions` must be a list of objects" in refs["a.png"].problem.detail


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"images": []}', "needs a list of tasks"),
        ('[{"image": "a.png", "label": []}]', "JSON-MIN"),
        ('[{"data": {}}]', "must name one picture"),
        (
            '[{"data": {"image": "a.png"}}, {"data": {"image": "/a.png"}}]',
            "task 2 and .*task 1 have one picture",
        ),
    ],
    ids=range(6),
)
def test_a_file_that_cannot_be_trusted_is_an_error_with_its_place(tmp_path, text, reason):
    with pytest.raises(SourceError, match=reason):
        read(write(tmp_path, text))


def test_a_folder_of_several_files_is_one_data_set(tmp_path):
    write(tmp_path, [task(triangle())], name="tasks_1.json")
    write(tmp_path, [task(triangle(), image="b.png", id=6)], ["b.png"], name="tasks_2.json")
    write(tmp_path, {"not": "tasks"}, [], name="manifest.json")
    assert sorted(read(tmp_path)[0]) == ["a.png", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"holds no \.json"):
        read(tmp_path / "empty")
