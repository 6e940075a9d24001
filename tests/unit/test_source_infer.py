"""A bare path is enough: the kind is told in one line, or what was looked for."""

import base64
import json
import re

import numpy as np
import pytest

from autolabel.core.errors import SourceError
from autolabel.core.protocols import Source
from autolabel.ops.index_png import encode_index_png
from autolabel.source.infer import AutoSource, infer_kind

COCO = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []})
ROW = "0 0.5 0.5 0.1 0.1\n"
SHAPES = json.dumps({"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg"})
CVAT = '<?xml version="1.0"?><annotations><image id="0" name="a.jpg" width="2" height="2"/></annotations>'
TASKS = json.dumps([{"id": 1, "annotations": [], "data": {"image": "/x/a.jpg"}}])
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
OBJECTS = json.dumps({"objects": [{"id": 1, "category_id": 0}]})
XML = "<annotation><filename>a.jpg</filename></annotation>"


@pytest.mark.parametrize(
    ("kind", "path", "files"),
    [
        ("folder", "", {"a.jpg": ""}),
        ("folder", "", {"deep/er/a.jpg": "", "notes.txt": "hello"}),
        ("folder", "a.JPG", {"a.JPG": ""}),
        ("glob", "*.jpg", {"a.jpg": ""}),
        ("list", "x.txt", {"x.txt": "a.jpg\n", "a.jpg": ""}),
        ("coco", "x.json", {"x.json": COCO, "a.jpg": ""}),
        ("coco", "x.json", {"x.json": f'{{"info": {{"shapes": "boxes only"}}, {COCO[1:]}', "a.jpg": ""}),
        ("coco", "x.json", {"x.json": f'{{"info": {{"shapes": ["box"]}}, {COCO[1:]}', "a.jpg": ""}),
        ("coco", "", {"instances.json": COCO, "a.jpg": ""}),
        ("coco", "", {"_annotations.coco.json": COCO, "a.jpg": ""}),
        ("yolo", "my.yaml", {"my.yaml": "train: .\nnames: [a]\n", "a.jpg": ""}),
        ("yolo", "", {"data.yaml": "train: .\nnames: [a]\n", "a.jpg": ""}),
        ("yolo", "", {"classes.txt": "a", "images/a.jpg": "", "labels/a.txt": ROW}),
        ("yolo", "", {"classes.txt": "a", "a.jpg": "", "a.txt": ROW}),
        ("yolo", "yolo", {"yolo/classes.txt": "a", "images/a.jpg": "", "yolo/a.txt": ROW}),
        ("yolo", "", {"classes.txt": "a", "Images/a.jpg": "", "Labels/a.txt": ROW}),
        ("yolo", "LABELS", {"LABELS/classes.txt": "a", "Images/a.jpg": "", "LABELS/a.txt": ROW}),
        ("yolo", "", {"a.jpg": "", "a.txt": ""}),
        ("folder", "", {"a.jpg": "", "a.txt": "a red bicycle, 3 people in 2026"}),
        ("folder", "", {"a.jpg": "", "a.txt": "a red bicycle", "readme.txt": ROW}),
        ("voc", "", {"JPEGImages/a.jpg": "", "Annotations/a.xml": XML}),
        ("voc", "", {"images/a.jpg": "", "annotations/a.xml": XML}),
        ("voc", "", {"a.jpg": "", "a.xml": XML}),
        ("voc", "voc", {"images/a.jpg": "", "voc/a.xml": XML}),
        ("coco", "", {"annotations/instances_default.json": COCO, "images/a.jpg": ""}),
        ("labelme", "", {"a.jpg": "", "a.json": SHAPES}),
        ("labelme", "", {"deep/a.jpg": "", "deep/a.json": SHAPES, "manifest.json": "{}"}),
        ("cvat", "", {"annotations.xml": CVAT, "images/a.jpg": ""}),
        ("cvat", "task.xml", {"task.xml": CVAT, "a.jpg": ""}),
        ("label_studio", "x.json", {"x.json": TASKS, "a.jpg": ""}),
        ("label_studio", "", {"x.json": TASKS, "a.jpg": ""}),
        ("png_masks", "", {"classes.txt": "a", "images/a.jpg": "", "masks/a.png": PNG}),
        ("png_masks", "", {"classes.txt": "a", "images/a.jpg": "", "masks/a.png": PNG, "masks/a.json": OBJECTS}),
    ],
)
def test_the_kind_is_inferred_and_one_picture_found(tmp_path, kind, path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    source: Source = AutoSource(path=f"{tmp_path}/{path}".rstrip("/"), images_dir=None)
    assert source.kind == kind
    assert "\n" not in source.reason
    (ref,) = source.images()
    assert ref.image_id.split("/")[-1].lower() == "a.jpg"
    assert ref.problem is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent", "no such file or folder"),
        ("film.mp4", "is a video"),
        ("one.xml", "give the folder"),
        ("shapes.json", "one LabelMe file; .*source=coco"),
        ("thing.bin", "neither a picture, a list"),
        ("empty", "looked for pictures"),
    ],
)
def test_what_fits_nothing_says_what_was_looked_for(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("film.mp4", "one.xml", "thing.bin", "empty/readme.txt"):
        (tmp_path / name).touch()
    (tmp_path / "shapes.json").write_text(SHAPES)
    with pytest.raises(SourceError, match=message):
        infer_kind(path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ("annotations/instances_train.json", "annotations/instances_val.json"),
            "instances_train.json, annotations/in",
        ),
        (("instances_a.json", "instances_b.json"), "2 files of COCO labels are not used"),
        (("images/a.png", "masks/a.png"), "source=png_masks"),
        (("images/a.txt", "images/b.txt"), "1 .txt file beside pictures is not used (images/a.txt)"),
        (
            ("train/images/a.jpg", "train/labels/a.txt", "valid/images/b.jpg", "valid/labels/b.txt"),
            "2 files of YOLO labels are not used (in labels/ of train, valid)",
        ),
        (("t/Images/a.jpg", "t/Labels/a.txt"), "1 file of YOLO labels is not used (in labels/ of t)"),
    ],
)
def test_labels_that_are_not_used_are_named_with_the_way_to_them(tmp_path, files, said):
    for name in (*files, "images/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(COCO)
    kind, reason = infer_kind(str(tmp_path))
    assert kind == "folder"
    assert said in reason


def test_one_file_of_rows_among_the_first_makes_a_folder_of_labels_and_wrong_rows_fail_by_name(tmp_path):
    for name, text in {"a": "", "b": "no row", "c": "0 0.5 0.5 0.1 0.1 0.9\n"}.items():
        (tmp_path / f"{name}.jpg").touch()
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "classes.txt").write_text("cat\n")
    source = AutoSource(path=str(tmp_path), images_dir=None)
    assert source.kind == "yolo"
    found = {ref.image_id: ref.problem for ref in source.images()}
    assert found["a.jpg"] is None
    assert "c.txt:1: a row has 5 numbers" in found["c.jpg"].detail


def test_the_folder_that_is_named_for_unused_labels_is_one_that_uses_them(tmp_path):
    for name in ("deep/train/images/a.jpg", "deep/train/labels/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROW)
    _, reason = infer_kind(str(tmp_path))
    (folder,) = re.findall(r"in labels/ of (.*?)\)", reason)
    assert infer_kind(str(tmp_path / folder))[0] == "yolo"


def test_pngs_of_16_bits_without_a_json_are_refused_with_the_settings_that_say_what_they_are(tmp_path):
    for name in ("images/a.jpg", "masks/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encode_index_png(np.ones((2, 3), np.uint16)))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(SourceError, match=r"masks/a\.png' has 16 bits.*source=png_masks source\.kind=instance"):
        infer_kind(str(tmp_path))


def test_nothing_is_looked_at_before_it_is_asked_for():
    AutoSource(path="/no/such/place", images_dir=None)


def test_a_devkit_of_pngs_alone_is_a_voc_data_set(tmp_path):
    for name in (
        "JPEGImages/a.jpg",
        "JPEGImages/b.jpg",
        "SegmentationClass/a.png",
        "ImageSets/Segmentation/val.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG if name.endswith(".png") else b"a\n")
    source = AutoSource(path=str(tmp_path), images_dir=None)
    assert (source.kind, source.reason) == ("voc", "a VOC data set (JPEGImages and SegmentationClass)")
    a, b = source.images()
    assert (a.image_id, a.split, len(a.labels), b.labels) == ("JPEGImages/a.jpg", "val", 0, None)


@pytest.mark.parametrize(
    ("path", "files", "said"),
    [
        ("", {"a.jpg": b""}, "is a folder of pictures"),
        ("*.jpg", {"a.jpg": b""}, "is a pattern"),
        ("x.txt", {"x.txt": b"a.jpg\n", "a.jpg": b""}, "is a text file that names pictures"),
        ("", {"classes.txt": b"a", "images/a.jpg": b"", "masks/a.png": PNG}, "is pictures and class-id PNGs"),
    ],
)
def test_a_folder_of_pictures_is_not_passed_over_where_it_is_not_used(tmp_path, path, files, said):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    source = AutoSource(path=f"{tmp_path}/{path}".rstrip("/"), images_dir=str(tmp_path / "elsewhere"))
    with pytest.raises(SourceError, match=rf"^source\.images_dir=.*elsewhere.* {said}.*: leave it out, or"):
        list(source.images())


@pytest.mark.parametrize("path", ["", "data/train-00000.parquet"])
def test_parquet_files_are_read(tmp_path, path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    features = {"objects": [{"category": {"names": ["cat"], "_type": "ClassLabel"}}]}
    table = pa.Table.from_pylist([{"image": {"bytes": None, "path": "a.png"}}]).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    parquet.write_table(table, tmp_path / "data" / "train-00000.parquet")
    source = AutoSource(path=f"{tmp_path}/{path}".rstrip("/"), images_dir=None)
    assert source.kind == "parquet"
    assert [ref.image_id for ref in source.images()] == ["a.png"]
    assert [category.name for category in source.categories] == ["cat"]


def test_parquet_files_among_pictures_are_named_and_left_alone(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "x.parquet").touch()
    kind, reason = infer_kind(str(tmp_path))
    assert kind == "folder"
    assert "source=parquet" in reason
