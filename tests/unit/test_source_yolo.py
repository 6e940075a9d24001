"""YOLO: strict rows with their line numbers, every layout, and nothing outside the data set's folder."""

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, SourceError
from autolabel.core.types import Category
from autolabel.source.yolo import YoloSource
from autolabel.source.yolo_rows import BadRow, parse_rows
from tests.records import ListReader, instance, picture, record, shapes

BOX = "0 0.5 0.5 0.2 0.4\n"


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(path, images_dir=None, root=None, rows="auto"):
    source = YoloSource(path=str(path), images_dir=images_dir, root=root, rows=rows)
    return {ref.image_id: ref for ref in source.images()}, source


def test_a_box_row_and_a_polygon_row_may_stand_in_one_file():
    labels = parse_rows("\ufeff1 0.5 0.5 0.2 0.4\n\n0 0.1 0.2 0.9 0.2 0.5 0.8\n".removeprefix("\ufeff"), 2)
    np.testing.assert_allclose(labels.boxes_xyxy, [[0.4, 0.3, 0.6, 0.7], [0.1, 0.2, 0.9, 0.8]], rtol=1e-6)
    assert labels.category_ids.tolist() == [2, 1]
    assert labels.shapes == (None, ((0.1, 0.2, 0.9, 0.2, 0.5, 0.8),))
    assert labels.normalized
    assert labels.convention == "yolo"


TRIANGLE = "0 0.5 0.5 0.2 0.4 0.9 0.1\n"  # or a box with a confidence and a track
POLYGON = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"


def test_a_file_of_rows_that_may_be_longer_boxes_is_refused_until_the_person_says():
    with pytest.raises(BadRow, match=r"line 1: 7 numbers are a triangle, or .* source\.rows=segment"):
        parse_rows(TRIANGLE * 3, 1)
    assert parse_rows(TRIANGLE * 3, 1, "segment").shapes == (((0.5, 0.5, 0.2, 0.4, 0.9, 0.1),),) * 3
    with pytest.raises(BadRow, match="line 1: a box row has 5 numbers, this one has 7"):
        parse_rows(TRIANGLE, 1, "detect")


@pytest.mark.parametrize("other", [POLYGON, BOX, "0 0.1 0.2 0.9 0.2 0.5 0.8\n", "0 0.5 0.5 0.5 0.5 0.5 0.5\n"])
def test_a_triangle_is_read_where_another_row_shows_that_it_is_no_box(other):
    """A tool that adds numbers to its boxes adds them to all; and no box is wider than the picture, or a point."""
    labels = parse_rows(TRIANGLE + other, 1)
    assert labels.shapes[0] == ((0.5, 0.5, 0.2, 0.4, 0.9, 0.1),)


def test_nine_numbers_are_a_polygon_unless_they_are_said_to_be_an_oriented_box():
    labels = parse_rows(POLYGON, 1)
    assert labels.shapes == (((0.1, 0.1, 0.5, 0.1, 0.5, 0.5, 0.1, 0.5),),)
    turned = "1 0.3 -0.1 0.6 0.2 0.3 0.5 0.0 0.2\n"  # cut off by the edge of the picture
    with pytest.raises(BadRow, match=r"-0\.1 is not a fraction"):
        parse_rows(turned, 2)
    labels = parse_rows(turned, 2, "obb")
    np.testing.assert_allclose(labels.boxes_xyxy, [[0.0, -0.1, 0.6, 0.5]], rtol=1e-6)
    assert labels.shapes == (None,)
    assert labels.extras == ('{"obb": [0.3, -0.1, 0.6, 0.2, 0.3, 0.5, 0.0, 0.2]}',)


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("obb", BOX, "9 numbers, this one has 5"),
        ("obb", TRIANGLE, "9 numbers, this one has 7"),
        ("obb", "0 0.25 0.1 1.5 0.1 1.5 0.5 0.25 0.5", "1.25 is not a fraction"),
        ("obb", "0 0.1 0.1 nan 0.1 0.5 0.5 0.1 0.5", "nan is not a fraction"),
        ("segment", BOX, "7, 9, 11, … numbers, this one has 5"),
        ("segment", POLYGON.strip() + " 0.9", "numbers, this one has 10"),
        ("detect", POLYGON, "5 numbers, this one has 9"),
    ],
)
def test_a_declared_kind_refuses_every_other_row(kind, row, reason):
    with pytest.raises(BadRow, match=f"line 1: .*{reason}"):
        parse_rows(row, 1, kind)


def test_the_kind_of_rows_is_a_setting(tmp_path):
    write(tmp_path, {"classes.txt": "cat", "a.jpg": "", "a.txt": POLYGON, "b.jpg": "", "b.txt": BOX})
    refs, _ = read(tmp_path, rows="obb")
    assert refs["a.jpg"].labels.shapes == (None,)
    assert "b.txt:1: an oriented box row" in refs["b.jpg"].problem.detail
    with pytest.raises(ConfigError, match=r"rows must be one of auto, segment, detect, obb, got 'xywh'"):
        read(tmp_path, rows="xywh")


@pytest.mark.parametrize("kind", ["data.yaml", "folders", "labels"])
def test_no_label_file_is_background_where_others_have_one_and_else_no_labels(tmp_path, kind):
    files = {
        "images/train/x.jpg": "", "labels/train/x.txt": BOX, "images/train/background.jpg": "",
        "images/test/x.jpg": "", "images/test/y.jpg": "", "classes.txt": "a",
    }  # fmt: skip
    if kind == "data.yaml":
        files["data.yaml"] = "train: images/train\ntest: images/test\nnames: [a]\n"
    write(tmp_path, files)
    refs, _ = read(tmp_path / {"data.yaml": "data.yaml", "folders": "", "labels": "labels"}[kind])
    found = {name: None if ref.labels is None else len(ref.labels) for name, ref in refs.items()}
    assert found == {
        "images/train/x.jpg": 1, "images/train/background.jpg": 0, "images/test/x.jpg": None, "images/test/y.jpg": None,
    }  # fmt: skip


def test_no_label_file_an_empty_one_and_one_without_picture_are_three_things(tmp_path):
    files = {
        "data.yaml": "train: images/train\nval: images/val\nnames: [a]\n",
        "images/train/unlabelled.jpg": "",
        "images/train/background.jpg": "",
        "labels/train/background.txt": "",
        "labels/train/orphan.txt": BOX,
        "images/val/x.jpg": "",
        "labels/val/x.txt": BOX,
    }
    write(tmp_path, files)
    refs, _ = read(tmp_path / "data.yaml")
    assert len(refs["images/train/unlabelled.jpg"].labels) == 0
    assert len(refs["images/train/background.jpg"].labels) == 0
    assert refs["images/train/orphan"].problem.code == "missing"
    assert "labels/train/orphan.txt' has no picture" in refs["images/train/orphan"].problem.detail
    assert refs["images/train/orphan"].split == "train"
    assert len(refs["images/val/x.jpg"].labels) == 1


@pytest.mark.parametrize("name", ["yolo", "yolo_detect", "yolo_obb"])
def test_our_own_exports_are_read_without_a_problem(tmp_path, name):
    masks = list(shapes().values())
    path = picture(tmp_path / "photos" / "a.png")
    items = [record(f"{n}.png", [instance(mask)], path) for n, mask in enumerate(masks)]
    exporter = instantiate(OmegaConf.load(configs_dir() / "export" / f"{name}.yaml")[name])
    exporter.export(ListReader(items), tmp_path / "out")
    refs, _ = read(tmp_path / "out" / "data.yaml", rows="obb" if name == "yolo_obb" else "auto")
    assert [(ref.problem, len(ref.labels)) for ref in refs.values()] == [(None, 1)] * len(masks)


def test_an_empty_file_has_no_objects():
    assert parse_rows("", 1).boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 0.2", "5 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.9", "5 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.9", "5 numbers"),
        ("0", "5 numbers"),
        ("0 0.5 0.5 nan 0.4", "nan is not a fraction"),
        ("0 0.5 0.5 inf 0.4", "inf is not a fraction"),
        ("0 0.5 0.5 -0.2 0.4", "-0.2 is not a fraction"),
        ("0 320 240 64 32", "320.0 is not a fraction"),
        ("2 0.5 0.5 0.2 0.4", "class 2, but there are 2 classes"),
        ("-1 0.5 0.5 0.2 0.4", "whole number, got '-1'"),
        ("1.0 0.5 0.5 0.2 0.4", "whole number, got '1.0'"),
        ("0,0.5,0.5,0.2,0.4", "whole number"),
        ("0 0.5 0.5 0,2 0.4", "not a number"),
    ],
)
def test_a_bad_row_is_named_with_its_line(row, reason):
    with pytest.raises(BadRow, match=f"line 2: .*{reason}"):
        parse_rows(BOX + row, 2)


@pytest.mark.parametrize("row", ["0 0.5 0.5 0 0", "0 0.999 0.5 0.1 0.1", "0 1.005 0.5 0.1 0.1"])
def test_empty_and_overhanging_boxes_are_passed_on(row):
    assert len(parse_rows(row, 1)) == 1


def test_images_beside_labels(tmp_path):
    write(
        tmp_path,
        {
            "classes.txt": "cat\nbig dog\n",
            "images/a.jpg": "",
            "images/sub/b.png": "",
            "images/background.jpg": "",
            "labels/a.txt": BOX + "1 0.5 0.5 0.1 0.1\n",
            "labels/sub/b.txt": BOX + "7 0.5 0.5 0.1 0.1\n",
            "labels/orphan.txt": BOX,
            "images/notes.md": "",
        },
    )
    refs, source = read(tmp_path)
    assert source.categories == (Category(1, "cat"), Category(2, "big dog"))
    assert list(refs) == ["images/a.jpg", "images/background.jpg", "images/orphan", "images/sub/b.png"]
    assert refs["images/a.jpg"].labels.category_ids.tolist() == [1, 2]
    assert len(refs["images/background.jpg"].labels) == 0
    assert refs["images/orphan"].problem.code == "missing"
    assert refs["images/sub/b.png"].problem.code == "bad_label"
    assert "labels/sub/b.txt:2: class 7" in refs["images/sub/b.png"].problem.detail
    assert source.ignored == {".md": 1}


@pytest.mark.parametrize("place", ["train", "train/", ".", "./"])
def test_a_split_may_name_the_folder_above_images_and_labels(tmp_path, place):
    write(
        tmp_path,
        {
            "data.yaml": f"train: {place}\nnames: [a]\n",
            "train/images/a.jpg": "",
            "train/labels/a.txt": BOX,
            "train/images/sub/background.jpg": "",
            "train/labels/orphan.txt": BOX,
            "train/flat/b.jpg": "",
            "train/flat/b.txt": BOX,
            "train/images/beside.jpg": "",
            "train/images/beside.txt": BOX,
        },
    )
    refs, source = read(tmp_path / "data.yaml")
    assert {name: ref.problem.code if ref.problem else len(ref.labels) for name, ref in refs.items()} == {
        "train/flat/b.jpg": 1,
        "train/images/a.jpg": 1,
        "train/images/beside.jpg": 1,
        "train/images/orphan": "missing",
        "train/images/sub/background.jpg": 0,
    }
    assert source.ignored == ({} if "train" in place else {".yaml": 1})


def test_folders_called_images_inside_another_have_their_own_labels(tmp_path):
    files = {
        "images/one/images/a.jpg": "",
        "images/one/labels/a.txt": BOX,
        "images/b.jpg": "",
        "labels/b.txt": BOX,
    }
    write(tmp_path, {"data.yaml": "train: images\nnames: [a]\n", **files})
    refs, source = read(tmp_path / "data.yaml")
    assert {name: len(ref.labels) for name, ref in refs.items()} == dict.fromkeys(list(files)[::2][::-1], 1)
    assert source.ignored == {}


@pytest.mark.parametrize(("images", "labels"), [("Images", "Labels"), ("images", "Labels"), ("IMAGES", "labels")])
@pytest.mark.parametrize("kind", ["data.yaml", "above", "list", "folders", "labels"])
def test_images_and_labels_may_be_spelled_in_any_case(tmp_path, kind, images, labels):
    place = {"data.yaml": images, "above": ".", "list": "train.txt"}.get(kind)
    files = {f"{images}/a.jpg": "", f"{images}/sub/b.jpg": "", f"{labels}/a.txt": BOX, f"{labels}/sub/b.txt": BOX}
    lists = {"train.txt": f"{images}/a.jpg\n./{images}/sub/b.jpg\n{images}/c.jpg", "classes.txt": "a"}
    write(tmp_path, {**files, f"{images}/c.jpg": "", **lists})
    write(tmp_path, {} if place is None else {"data.yaml": f"train: {place}\nnames: [a]\n"})
    write(tmp_path, {} if kind == "list" else {f"{labels}/orphan.txt": BOX})
    refs, _ = read(tmp_path / ("data.yaml" if place else labels if kind == "labels" else ""))
    orphan = {} if kind == "list" else {f"{images}/orphan": "missing"}
    assert {name: ref.problem.code if ref.problem else len(ref.labels) for name, ref in refs.items()} == {
        f"{images}/a.jpg": 1, f"{images}/sub/b.jpg": 1, f"{images}/c.jpg": 0, **orphan,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["data.yaml", "above", "list", "folders"])
@pytest.mark.parametrize("folders", [("Images", "Labels", "LABELS"), ("Images", "IMAGES", "Labels")])
def test_where_nobody_can_tell_which_labels_are_whose_the_data_set_is_refused(tmp_path, kind, folders):
    place = {"data.yaml": "Images", "above": ".", "list": "train.txt"}.get(kind)
    write(tmp_path, {f"{name}/a.{'txt' if name[0] == 'L' else 'jpg'}": "" for name in folders})
    write(tmp_path, {"train.txt": "Images/a.jpg", "classes.txt": "a"})
    write(tmp_path, {} if place is None else {"data.yaml": f"train: {place}\nnames: [a]\n"})
    with pytest.raises(SourceError, match=r"differ in case alone: .*, .*; nobody can tell which labels are whose"):
        read(tmp_path / ("data.yaml" if place else ""))


@pytest.mark.parametrize("place", [".", "[images, Images]", "train.txt"])
def test_folders_spelled_in_two_cases_have_each_their_own_labels(tmp_path, place):
    files = {"images/a.jpg": "", "Images/a.jpg": "", "labels/a.txt": "", "Labels/a.txt": BOX}
    lists = {"train.txt": "images/a.jpg\nImages/a.jpg", "data.yaml": f"train: {place}\nnames: [a]\n"}
    write(tmp_path, files | lists)
    refs, _ = read(tmp_path / "data.yaml")
    assert {name: len(ref.labels) for name, ref in refs.items()} == {"images/a.jpg": 0, "Images/a.jpg": 1}


@pytest.mark.parametrize("folder", ["Images", "Labels", "flat"])
def test_label_files_among_their_pictures_stay_theirs_whatever_lies_around(tmp_path, folder):
    files = {f"{folder}/a.jpg": "", f"{folder}/a.txt": BOX, f"{folder}/classes.txt": "a"}
    write(tmp_path, {**files, f"{folder}/YOLO/notes.md": "", f"{folder}/IMAGES/b.jpg": "", "IMAGES2/c.jpg": ""})
    write(tmp_path, {"Images/other.jpg": ""} if folder == "flat" else {})
    refs, _ = read(tmp_path / folder)
    assert {name: len(ref.labels) for name, ref in refs.items() if ref.labels} == {"a.jpg": 1}


def test_labels_beside_their_pictures_come_before_those_of_a_folder_in_another_case(tmp_path):
    files = {
        "data.yaml": "train: Images\nnames: [a]\n",
        "Images/a.jpg": "",
        "Images/a.txt": BOX,
        "Labels/a.txt": "",
    }
    write(tmp_path, files)
    refs, _ = read(tmp_path / "data.yaml")
    assert len(refs["Images/a.jpg"].labels) == 1
    assert refs["Images/a"].problem.code == "missing"


@pytest.mark.parametrize("kind", ["data.yaml", "folders"])
def test_label_files_that_are_nobodys_make_no_picture_background(tmp_path, kind):
    write(tmp_path, {"images/a.jpg": "", "labels/img_a.txt": BOX, "classes.txt": "a"})
    write(tmp_path, {"data.yaml": "train: images\nnames: [a]\n"} if kind == "data.yaml" else {})
    refs, _ = read(tmp_path / ("data.yaml" if kind == "data.yaml" else ""))
    assert (refs["images/a.jpg"].labels, refs["images/img_a"].problem.code) == (None, "missing")


COMPOSED, APART = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("image", "label"), [(COMPOSED, APART), (APART, COMPOSED)])
@pytest.mark.parametrize("kind", ["data.yaml", "folders"])
def test_a_label_may_be_spelled_in_another_unicode_form_than_its_picture(tmp_path, kind, image, label):
    write(tmp_path, {f"images/{image}.jpg": "", f"labels/{label}.txt": BOX, "classes.txt": "a"})
    write(tmp_path, {"data.yaml": "train: images\nnames: [a]\n"} if kind == "data.yaml" else {})
    refs, _ = read(tmp_path / ("data.yaml" if kind == "data.yaml" else ""))
    assert {name: len(ref.labels) for name, ref in refs.items()} == {f"images/{image}.jpg": 1}


def test_a_label_that_is_spelled_like_a_picture_is_that_one_s_alone(tmp_path):
    write(tmp_path, {f"{COMPOSED}.jpg": "", f"{APART}.jpg": "", f"{APART}.txt": BOX, "classes.txt": "a"})
    refs, _ = read(tmp_path)
    assert {name: len(ref.labels) for name, ref in refs.items()} == {f"{COMPOSED}.jpg": 0, f"{APART}.jpg": 1}


NAMES = ("a", "train", "val", "Test", "labels", "readme", "classes")


@pytest.mark.parametrize("kind", ["data.yaml", "folders", "flat data.yaml", "flat"])
def test_a_picture_may_be_called_like_a_list_of_classes_or_of_pictures(tmp_path, kind):
    images, labels = ("", "") if "flat" in kind else ("images/sub/", "labels/sub/")
    files = {f"{images}{name}.jpg": "" for name in NAMES} | {f"{labels}{name}.txt": BOX for name in NAMES}
    files |= {f"{labels}other/{name}.txt": "notes" for name in ("classes", "README")}
    place = "." if "flat" in kind else "images"
    write(tmp_path, files | ({"data.yaml": f"train: {place}\nnames: [cat]\n"} if "yaml" in kind else {}))
    refs, source = read(tmp_path / ("data.yaml" if "yaml" in kind else ""))
    assert {name: ref.problem or len(ref.labels) for name, ref in refs.items()} == dict.fromkeys(
        (f"{images}{name}.jpg" for name in sorted(NAMES)), 1
    )
    assert [c.name for c in source.categories] == (["cat"] if "yaml" in kind else ["class_0"])


def test_a_list_of_classes_is_still_none_where_a_picture_of_another_place_has_its_name(tmp_path):
    write(
        tmp_path, {"classes.txt": "cat\n", "train.txt": "a.jpg\n", "a.jpg": "", "a.txt": BOX, "b/classes.jpg": ""}
    )
    refs, source = read(tmp_path)
    assert [c.name for c in source.categories] == ["cat"]
    assert list(refs) == ["a.jpg", "b/classes.jpg"]
    assert source.ignored == {".txt": 2}


def test_a_bare_label_folder_finds_its_pictures(tmp_path):
    write(
        tmp_path,
        {"yolo/a.txt": BOX, "images/a.jpg": "", "elsewhere/a.jpg": "", "mixed/b.txt": BOX, "mixed/b.jpg": ""},
    )
    assert list(read(tmp_path / "yolo")[0]) == ["images/a.jpg"]
    refs, _ = read(tmp_path / "yolo", images_dir=str(tmp_path / "elsewhere"))
    assert [(i, r.path) for i, r in refs.items()] == [("a.jpg", str(tmp_path / "elsewhere" / "a.jpg"))]
    (tmp_path / "images" / "a.jpg").unlink()
    (tmp_path / "images").rmdir()
    assert list(read(tmp_path / "mixed")[0]) == ["b.jpg"]


def test_classes_without_names_are_numbered(tmp_path, caplog):
    write(tmp_path, {"a.jpg": "", "a.txt": "2 0.5 0.5 0.1 0.1\n"})
    refs, source = read(tmp_path)
    assert [c.name for c in source.categories] == ["class_0", "class_1", "class_2"]
    assert refs["a.jpg"].labels.category_ids.tolist() == [3]
    assert "no classes.txt" in caplog.text


@pytest.mark.parametrize(
    ("path", "images_dir", "split"), [("", None, "train"), ("labels", None, None), ("", "images", None)]
)
def test_a_data_yaml_in_the_folder_names_the_classes_and_splits_the_pictures(
    tmp_path, path, images_dir, split, caplog
):
    write(tmp_path, {"data.yaml": "train: images\nnames: [cat, dog]\n", "images/a.jpg": "", "labels/a.txt": BOX})
    refs, source = read(tmp_path / path, images_dir=images_dir and str(tmp_path / images_dir))
    assert [c.name for c in source.categories] == ["cat", "dog"]
    assert [(ref.split, ref.problem, len(ref.labels)) for ref in refs.values()] == [(split, None, 1)]
    assert ("not its splits" in caplog.text) == (split is None)


@pytest.mark.parametrize(("path", "images_dir"), [("labels", None), ("", "images")])
def test_beside_folders_a_data_yaml_needs_no_splits_and_describes_no_keypoints(tmp_path, path, images_dir, caplog):
    write(tmp_path, {"data.yaml": "names: [cat]\n", "images/a.jpg": "", "labels/a.txt": BOX})
    given = {"images_dir": images_dir and str(tmp_path / images_dir)}
    assert [c.name for c in read(tmp_path / path, **given)[1].categories] == ["cat"]
    (tmp_path / "dataset.yaml").write_text("names: [dog]\n")
    assert [c.name for c in read(tmp_path / path, **given)[1].categories] == ["class_0"]
    assert "only one could be read" in caplog.text
    (tmp_path / "dataset.yaml").unlink()
    (tmp_path / "data.yaml").write_text("names: [cat]\nkpt_shape: [2, 2]\n")
    with pytest.raises(SourceError, match="keypoints"):
        read(tmp_path / path, **given)


def test_of_two_data_yamls_the_person_says_which(tmp_path):
    write(tmp_path, {"data.yaml": "train: .\nnames: [a]\n", "dataset.yml": "train: .\nnames: [b]\n", "a.jpg": ""})
    with pytest.raises(SourceError, match=r"has data\.yaml and dataset\.yml; give the one"):
        read(tmp_path)


def test_a_data_yaml_with_folders_lists_and_lists_of_both(tmp_path):
    write(
        tmp_path,
        {
            "data.yaml": "train: [images/train, more.txt]\nval: val.txt\ntest: images/test/\nnames: {0: cat, 1: dog}\n",
            "images/train/a.jpg": "",
            "labels/train/a.txt": BOX,
            "images/test/t.jpg": "",
            "extra/images/m.jpg": "",
            "extra/labels/m.txt": "1 0.5 0.5 0.1 0.1\n",
            "more.txt": "./extra/images/m.jpg\n\nimages/train/a.jpg\n",
            "val.txt": f"{tmp_path}/images/train/a.jpg\nimages/val/absent.jpg\n",
        },
    )
    refs, source = read(tmp_path / "data.yaml")
    assert {i: r.split for i, r in refs.items()} == {
        "images/train/a.jpg": "train",
        "extra/images/m.jpg": "train",
        "images/val/absent.jpg": "val",
        "images/test/t.jpg": "test",
    }
    assert refs["extra/images/m.jpg"].labels.category_ids.tolist() == [2]
    assert refs["images/test/t.jpg"].labels is None
    assert source.ignored == {"also in split train": 1, "also in split val": 1}
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))


def test_a_download_entry_is_never_run(tmp_path, caplog):
    marker = tmp_path / "was_run"
    script = f"open({str(marker)!r}, 'w')"
    write(tmp_path, {"data.yaml": f"train: .\nnames: [a]\ndownload: |\n  {script}\n", "a.jpg": "", "a.txt": BOX})
    refs, _ = read(tmp_path / "data.yaml")
    assert len(refs["a.jpg"].labels) == 1
    assert not marker.exists()
    assert "passed over" in caplog.text


def test_roboflow_paths_are_understood(tmp_path):
    files = {
        "data.yaml": "train: ../train/images\nnames: [a]\n",
        "train/images/a.jpg": "",
        "train/labels/a.txt": BOX,
    }
    write(tmp_path, files)
    refs, _ = read(tmp_path / "data.yaml")
    assert len(refs["train/images/a.jpg"].labels) == 1


def test_a_root_of_ones_own_replaces_the_path_of_the_yaml(tmp_path):
    write(tmp_path, {"y/data.yaml": "path: /elsewhere\ntrain: images\nnames: [a]\n", "set/images/a.jpg": ""})
    with pytest.raises(SourceError, match=r"source\.root="):
        read(tmp_path / "y" / "data.yaml")
    assert list(read(tmp_path / "y" / "data.yaml", root=str(tmp_path / "set"))[0]) == ["images/a.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: /etc\ntrain: .\nnames: [a]\n", "leads out of the folder"),
        ("path: ..\ntrain: .\nnames: [a]\n", "leads out of the folder"),
        ("train: /etc\nnames: [a]\n", "absolute path"),
        ("train: ../../etc\nnames: [a]\n", "leads out of"),
        ("train: list.txt\nnames: [a]\n", "list.txt' line 1: .*leads out of"),
        ("train: absent\nnames: [a]\n", "no such folder"),
        ("train: {a: 1}\nnames: [a]\n", "train must be a path"),
        ("names: [a]\n", "none of train, val and test"),
        ("train: .\n", "`names` must list the classes"),
        ("train: .\nnames: {x: a}\n", "class indices from 0"),
        ("train: .\nkpt_shape: [17, 3]\nnames: [a]\n", "keypoints"),
        ("train: [\n", "is not YAML"),
        ("!!python/object/apply:os.system ['touch x']\n", "is not YAML"),
        ("just text", "not a YOLO data.yaml"),
    ],
)
def test_a_data_yaml_that_cannot_be_trusted_is_refused(tmp_path, text, message):
    write(tmp_path, {"set/data.yaml": text, "set/list.txt": "../../x.jpg\n"})
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "set" / "data.yaml")


def test_utf_16_labels_fail_their_picture(tmp_path):
    write(tmp_path, {"classes.txt": "a", "a.jpg": ""})
    (tmp_path / "a.txt").write_text(BOX, encoding="utf-16")
    refs, _ = read(tmp_path)
    assert refs["a.jpg"].problem.code == "bad_label"
    assert "not UTF-8" in refs["a.jpg"].problem.detail


def test_a_gap_in_the_names_is_a_class_without_a_name(tmp_path):
    write(tmp_path, {"data.yaml": "train: images\nnames: {0: a, 2: c}\n", "images/1.jpg": "",
                     "labels/1.txt": "1 0.5 0.5 0.2 0.4\n"})  # fmt: skip
    refs, source = read(tmp_path / "data.yaml")
    assert [c.name for c in source.categories] == ["a", "class_1", "c"]
    assert refs["images/1.jpg"].labels.category_ids.tolist() == [2]


def test_class_numbers_without_end_are_refused(tmp_path):
    write(tmp_path, {"images/1.jpg": "", "labels/1.txt": "999999998 0.5 0.5 0.2 0.4\n"})
    with pytest.raises(SourceError, match="class 999999998"):
        read(tmp_path)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{k}: &{k} [*{j}, *{j}, *{j}, *{j}, *{j}, *{j}, *{j}, *{j}]\n"
    for j, k in zip("abcdefghij", "bcdefghijk", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{k}: &{k} {{<<: [*{j}, *{j}, *{j}, *{j}, *{j}, *{j}, *{j}, *{j}]}}\n"
    for j, k in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (LAUGHS + "train: .\nnames: [*k, cat]", "the name of class 0 must be text of at most 500 characters"),
        (LAUGHS + "train: .\nnames: {3: *k}", "the name of class 3 must be text"),
        (LAUGHS + "train: *k\nnames: [a]", "train must be a path or a list of paths, got a list"),
        (LAUGHS + "train: .\nnames: [a]\npath: *k", "path: must be text, got a list"),
        (MERGES + "train: .\nnames: [a]", "merge keys"),
        ("train: .\nnames: [[a, b]]", "the name of class 0 must be text .* got a list"),
        ("train: .\nnames: [" + "x" * 501 + "]", "the name of class 0 must be .* got 501 characters"),
        ("train: .\nnames: 5", "`names` must list the classes, got a int"),
        ("train: .\nnames: [!!int x]", "is not YAML"),
        ("train: .\nnames: [!!bool x]", "is not YAML"),
        ("train: .\nnames: [2026-13-01]", "is not YAML"),
    ],
)
def test_a_yaml_of_a_stranger_is_refused_in_one_short_line(tmp_path, yaml, message):
    write(tmp_path, {"data.yaml": yaml})
    with pytest.raises(SourceError, match=message) as caught:
        read(tmp_path / "data.yaml")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_a_list_of_classes_with_a_name_without_end_is_refused(tmp_path):
    write(tmp_path, {"classes.txt": "a\n" + "x" * 501, "images/a.jpg": "", "labels/a.txt": BOX})
    with pytest.raises(SourceError, match="the name of class 1 must be"):
        read(tmp_path)
