"""An existing data set goes through `autolabel label detect=labels` and comes out unharmed: ids, fields, folders,
splits and human masks as they were, masks only where there was just a box. The stages are real; the filled box
is the segmenter."""

import json
import os

import numpy as np
import pytest
import yaml
from defusedxml.ElementTree import fromstring
from pycocotools import mask as coco_mask

from autolabel.app.main import main
from autolabel.core.types import Rle
from autolabel.ops.masks import decode, encode
from tests.e2e.test_runs import tree
from tests.fakes import draw

HW = (40, 60)


def rle(*boxes):
    mask = np.zeros(HW, np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def compressed(mask):
    return {"size": list(HW), "counts": encode(mask).counts.decode()}


def run_lengths(mask):
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(HW), "counts": [0, *runs] if flat[0] else runs}


RING = rle((20, 10, 40, 30)) & ~rle((25, 15, 30, 20)) & 1
CROWD = rle((0, 0, 10, 10), (50, 30, 60, 40))


def annotation(id_, image, category=5, **fields):
    return {
        "id": id_,
        "image_id": image,
        "category_id": category,
        "bbox": [4, 6, 20, 10.5],
        "iscrowd": 0,
        **fields,
    }


DATA = {
    "info": {"description": "ours", "version": "1.0", "year": 2017},
    "licenses": [{"id": 3, "name": "CC BY", "url": "https://example.org/by"}],
    "categories": [
        {"supercategory": "animal", "id": 90, "name": "cat"},
        {"supercategory": "animal", "id": 5, "name": "dog, \"big\"", "colour": [1, 2, 3]},
    ],
    "images": [
        {"license": 3, "file_name": "train/a.png", "height": 40, "width": 60, "id": 1001, "split": "train"},
        {"id": 42, "file_name": "val/b c.png", "height": 40, "width": 60, "date_captured": "2013-11-14", "split": "val"},
        {"id": 7, "file_name": "val/deep/ü.png", "height": 40, "width": 60, "split": "val"},
        {"id": 300, "file_name": "none.png", "height": 40, "width": 60, "flickr_url": "http://x"},
    ],
    "annotations": [
        annotation(9_000_000_001, 1001, segmentation=[[4, 6, 24.5, 6, 24.5, 16.25, 4, 16]], area=209.7, note="mine"),
        annotation(13, 1001, 90, segmentation=[[1, 1, 9, 1, 9, 9], [20.5, 20, 30, 20, 30, 30.125]], area=1.5),
        annotation(5, 42, segmentation=compressed(RING), area=375, attributes={"occluded": True, "a": None}),
        annotation(4, 42, 90, segmentation=run_lengths(CROWD), iscrowd=1, area=200, bbox=[0, 0, 60, 40]),
        annotation(77, 42, 90, area=210.0, keypoints=[1, 2, 2, 0, 0, 0], num_keypoints=1),
        annotation(78, 7, segmentation=[], id_of_theirs="x-1"),
    ],
}  # fmt: skip
BOXES_ONLY = {77, 78}


@pytest.fixture
def data_set(tmp_path):
    """Pictures and `instances.json` under `in/`; a function that writes the file again gives its path."""
    for image in DATA["images"]:
        draw(tmp_path / "in" / "images" / image["file_name"], {0: (4, 6, 24, 16)})
    path = tmp_path / "in" / "instances.json"

    def write(content=None):
        text = content if isinstance(content, str) else json.dumps(content or DATA, ensure_ascii=False)
        path.write_text(text, encoding="utf-8")
        return path

    write()
    return write


@pytest.fixture
def label(tmp_path):
    def call(source, *settings):
        return main(
            ["label", str(source), "detect=labels", "segment=box", "engine=inline", f'run="{tmp_path / "run"}"',
             *settings]
        )  # fmt: skip

    return call


def upgraded(tmp_path, label, source, *settings, code=0):
    assert label(source, "export=[coco,review_list]", "export.coco.ids=source", *settings) == code
    coco = json.loads((tmp_path / "run/export/coco/instances.json").read_bytes())
    review = json.loads((tmp_path / "run/export/review_list/review.json").read_bytes())["objects"]
    return coco, review


def by_id(rows):
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def pixels(segmentation):
    """As pycocotools reads it; its own `decode` warns on every call."""
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        parts = coco_mask.frPyObjects(segmentation, *HW)
        counts = (coco_mask.merge(parts) if isinstance(parts, list) else parts)["counts"]
    else:
        counts = segmentation["counts"].encode()
    return decode(Rle(HW, counts))


def without(row, *keys):
    return {key: value for key, value in row.items() if key not in keys}


def test_ids_fields_polygons_and_masks_come_out_as_they_went_in(tmp_path, label, data_set):
    before = tree(tmp_path / "in")
    coco, _ = upgraded(tmp_path, label, data_set())
    assert tree(tmp_path / "in") == before
    assert without(coco, "images", "annotations", "categories") == without(
        DATA, "images", "annotations", "categories"
    )
    assert by_id(coco["categories"]) == by_id(DATA["categories"])
    assert by_id(coco["images"]) == by_id(DATA["images"])
    found, expected = by_id(coco["annotations"]), by_id(DATA["annotations"])
    assert found.keys() == expected.keys()
    for id_, row in expected.items():
        ours = ("area", "bbox", "segmentation")
        kept = without(row, *ours)
        assert {key: found[id_].get(key) for key in kept} == kept
        if id_ in BOXES_ONLY:
            assert (pixels(found[id_]["segmentation"]) == rle((4, 6, 24, 16))).all()
        elif isinstance(row["segmentation"], list):
            assert json.dumps(found[id_]["segmentation"]) == json.dumps(row["segmentation"])
        else:
            assert (pixels(found[id_]["segmentation"]) == pixels(row["segmentation"])).all()


def test_upgrading_what_was_upgraded_changes_nothing(tmp_path, label, data_set):
    once, _ = upgraded(tmp_path, label, data_set())
    assert label(data_set(once), "export=[coco]", "export.coco.ids=source", f"run={tmp_path / 'again'}") == 0
    before, after = tree(tmp_path / "run/export/coco"), tree(tmp_path / "again/export/coco")
    # The manifest tells the records apart: what was segmented then came along as a label now.
    assert before.pop("manifest.json") != after.pop("manifest.json")
    assert before == after


def test_what_does_not_agree_is_listed_for_review(tmp_path, label, data_set):
    _, review = upgraded(tmp_path, label, data_set())
    assert [(r["image"], r["source_id"], r["reason"]) for r in review] == [
        ("val/b c.png", 5, "box"), ("train/a.png", 13, "box"),
    ]  # fmt: skip


def test_all_can_be_segmented_anew_and_the_difference_is_listed(tmp_path, label, data_set):
    coco, review = upgraded(tmp_path, label, data_set(), "detect.keep_masks=false")
    found = by_id(coco["annotations"])
    for id_ in found.keys() - {4}:
        assert (pixels(found[id_]["segmentation"]) == rle((4, 6, 24, 16))).all()
    assert (pixels(found[4]["segmentation"]) == CROWD).all(), "a crowd is never sent to the segmenter"
    assert [(r["source_id"], r["reason"]) for r in review] == [(13, "replaced"), (5, "replaced")]
    assert review[0]["replaced_iou"] < review[1]["replaced_iou"] < 0.8


def test_a_crowd_of_a_box_alone_is_left_out_with_its_reason(tmp_path, label, data_set):
    content = {**DATA, "annotations": [*DATA["annotations"], annotation(99, 7, 90, iscrowd=1)]}
    coco, review = upgraded(tmp_path, label, data_set(content))
    assert by_id(coco["annotations"]).keys() == by_id(DATA["annotations"]).keys()
    assert json.loads((tmp_path / "run/summary.json").read_text())["dropped"] == {"crowd_box": 1}
    assert [(r["source_id"], r["reason"]) for r in review if r["reason"] == "no_mask"] == [(99, "no_mask")]


def changed(**changes):
    return {**DATA, **changes}


def with_annotation(**fields):
    return changed(annotations=[*DATA["annotations"], {**annotation(555, 7), **fields}])


def with_image(**fields):
    return changed(images=[*DATA["images"], {"id": 555, "file_name": "val/b c.png", **fields}])


REFUSED = {
    "image id twice": (with_image(id=42, file_name="x.png"), "ids occur twice in `images`: 42"),
    "annotation id twice": (with_annotation(id=13), "ids occur twice in `annotations`: 13"),
    "picture twice": (with_image(), "several images have the same file_name: 'val/b c.png'"),
    "annotation without an image": (with_annotation(image_id=8), "annotations[6] (id 555): image_id 8 is not"),
    "annotation of no class": (with_annotation(category_id=6), "annotations[6] (id 555): category_id 6 is not"),
    "an id that is a name": (with_annotation(id="x-1"), "annotations[6].id must be an integer, got 'x-1'"),
    "an image id that is a name": (with_image(id="uuid"), "images[4].id must be an integer, got 'uuid'"),
    "an id that is a fraction": (with_annotation(id=1.5), "annotations[6].id must be an integer"),
    "NaN": (json.dumps(with_annotation(bbox=[0, 0, float("nan"), 1])), "line 1: NaN is not a JSON number"),
    "Infinity": (json.dumps(with_annotation(score=float("inf"))), "line 1: Infinity is not a JSON number"),
    "up": (with_image(file_name="../outside.png"), "image 555: '../outside.png' leads out"),
    "up from below": (with_image(file_name="a/../../outside.png"), "image 555"),
    "absolute": (with_image(file_name="/etc/passwd"), "image 555: absolute path '/etc/passwd'"),
    "device": (with_image(file_name="/dev/zero"), "image 555: absolute path '/dev/zero'"),
    "a drive": (with_image(file_name="C:\\x.png"), "image 555: absolute path"),
    "a share": (with_image(file_name="\\\\host\\x.png"), "image 555: absolute path"),
    "NUL": (with_image(file_name="a\0.png"), "image 555: 'a\\x00.png' is not a possible file name"),
    "no name": (with_image(file_name=None), "image 555: a file name is missing"),
    "a number of 5000 digits": ('{"images": [], "x": ' + "9" * 5000 + "}", "is not JSON"),
    "nesting": ("[" * 100_000, "is not JSON"),
    "cut off": (json.dumps(DATA)[:-40], "line 1 column"),
    "no images": ({"annotations": []}, "is not a COCO annotation file"),
}
"""A file that is ambiguous or dangerous as a whole: exit code 1, naming the file and the place."""


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_trusted_is_refused_and_leaves_nothing(case, tmp_path, label, data_set, capsys):
    content, message = REFUSED[case]
    before = tree(tmp_path / "in")
    path = data_set(content)
    draw(tmp_path / "outside.png", {})
    assert label(path, "export=[coco]") == 1
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert {**tree(tmp_path / "in"), "instances.json": before["instances.json"]} == before
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "run", "outside.png"}
    assert not (tmp_path / "run" / "export").exists()


BIG = [100_000, 100_000]
FAILED = {
    "RLE bomb": (with_annotation(segmentation={"size": BIG, "counts": "PPYo0"}), "bad_label", "[100000, 100000]"),
    "run lengths bomb": (
        with_annotation(segmentation={"size": BIG, "counts": [10_000_000_000]}), "bad_label", "annotation 555: RLE size"
    ),
    "RLE of no size": (with_annotation(segmentation={"counts": "PPYo0"}), "bad_label", "annotation 555: RLE size"),
    "damaged RLE": (with_annotation(segmentation={"size": [40, 60], "counts": "PPYo0"}), "bad_label", "RLE is damaged"),
    "RLE that is no text": (with_annotation(segmentation={"size": [40, 60], "counts": "ü"}), "bad_label", "RLE counts"),
    "runs too short": (with_annotation(segmentation={"size": [40, 60], "counts": [5]}), "bad_label", "do not sum up"),
    "runs below 0": (with_annotation(segmentation={"size": [40, 60], "counts": [2410, -10]}), "bad_label", "do not sum"),
    "infinite number": (json.dumps(with_annotation(bbox=[0, 0, 777, 1])).replace("777", "1e999"), "bad_label", "range"),
    "box of text": (with_annotation(bbox=["0", "0", "1", "1"]), "bad_label", "annotation 555: bbox must be a list"),
    "polygon of 4": (with_annotation(segmentation=[[1, 2, 3, 4]]), "bad_label", "annotation 555: a polygon needs"),
    "nothing at all": (with_annotation(bbox=None), "bad_label", "annotation 555 has neither bbox nor segmentation"),
}  # fmt: skip
"""What is wrong with one annotation: its picture fails, exit code 2, and the others are labelled."""


@pytest.mark.parametrize("case", FAILED)
def test_a_bad_annotation_fails_its_picture_alone(case, tmp_path, label, data_set, capsys):
    content, code, message = FAILED[case]
    assert label(data_set(content), "export=[coco]") == 2
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    (failure,) = summary["failures"]
    assert (failure["image_id"], failure["code"]) == ("val/deep/ü.png", code)
    assert message in failure["detail"]
    assert summary["status"] == {"empty": 1, "failed": 1, "ok": 2}
    assert {p.name for p in tmp_path.iterdir()} == {"in", "run"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"width": 600, "height": 400}, "size_mismatch"),
        ({"width": 40, "height": 60}, "size_mismatch"),
        ({"file_name": "fifo.png"}, "not_a_file"),
        ({"file_name": "zero.png"}, "not_a_file"),
        ({"file_name": "https://example.com/a.png"}, "missing"),
        ({"file_name": "folder.png"}, "is_a_directory"),
        ({"file_name": "text.png"}, "not_an_image"),
        ({"file_name": "CON"}, "missing"),
    ],
)
def test_a_picture_that_is_none_fails_alone(fields, code, tmp_path, label, data_set):
    images = tmp_path / "in" / "images"
    os.mkfifo(images / "fifo.png")
    (images / "zero.png").symlink_to("/dev/zero")
    (images / "folder.png").mkdir()
    (images / "text.png").write_text("<html>")
    broken = [{**image, **fields} if image["id"] == 7 else image for image in DATA["images"]]
    assert label(data_set(changed(images=broken)), "export=[coco]") == 2
    (failure,) = json.loads((tmp_path / "run/summary.json").read_text())["failures"]
    assert failure["code"] == code
    assert {p.name for p in tmp_path.iterdir()} == {"in", "run"}


def test_a_label_file_that_never_ends_is_refused(label, capsys):
    assert label("/dev/zero", "source=coco") == 1
    assert "no such file: '/dev/zero'" in capsys.readouterr().err


YOLO_ROWS = {
    "train/a": "1 0.1 0.15 0.4 0.15 0.408333 0.40625 0.0666667 0.4\n0 0.5 0.5 0.25 0.5\n",
    "val/deep/b c": "0 0.25 0.25 0.5 0.25 0.375 0.75\n1 0.5 0.5 1 1\n",
    "val/empty": "",
}
"""Polygons and boxes in one file, class 1 before class 0."""


def yolo_rows(folder, stem):
    """By the name of the file: the tree in front of it is the exporter's."""
    (path,) = (folder / "labels" / stem.partition("/")[0]).rglob(f"{stem.rpartition('/')[2]}.txt")
    return [(int(line.split()[0]), [float(v) for v in line.split()[1:]]) for line in path.read_text().splitlines()]


def test_a_yolo_set_of_boxes_and_polygons_keeps_its_polygons_splits_and_classes(tmp_path, label):
    source = tmp_path / "in"
    for stem, rows in YOLO_ROWS.items():
        draw(source / "images" / f"{stem}.png", {0: (4, 6, 24, 16)})
        (source / "labels" / stem).parent.mkdir(parents=True, exist_ok=True)
        (source / "labels" / f"{stem}.txt").write_text(rows)
    draw(source / "images" / "train" / "unlabelled.png", {})
    (source / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: 'a: b', 1: dog}\n")
    before = tree(source)
    assert label(source, "export=[yolo,review_list]") == 0
    assert tree(source) == before
    out = tmp_path / "run/export/yolo"
    written = yaml.safe_load((out / "data.yaml").read_text())
    assert written["names"] == {0: "a: b", 1: "dog"}
    for stem, text in YOLO_ROWS.items():
        rows = yolo_rows(out, stem)
        expected = [line.split() for line in text.splitlines()]
        assert [index for index, _ in rows] == [int(e[0]) for e in expected]
        for (_, values), (_, *wanted) in zip(rows, expected, strict=True):
            if len(wanted) > 4:
                assert values == [float(v) for v in wanted]
            else:
                assert len(values) >= 8, "a box became a polygon"
    assert yolo_rows(out, "train/unlabelled") == yolo_rows(out, "val/empty") == []


VOC = """<annotation><folder>x</folder><filename>{name}.jpg</filename><source><database>ours</database></source>
<size><width>60</width><height>40</height><depth>3</depth></size><segmented>0</segmented>
<object><name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>24</xmax><ymax>16</ymax></bndbox></object>
<object><name>cat</name><difficult>0</difficult><mood>calm</mood>
<bndbox><xmin>31</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def test_a_voc_set_keeps_its_boxes_flags_fields_and_splits(tmp_path, label):
    source = tmp_path / "in"
    for name in ("a", "b"):
        draw(source / "JPEGImages" / f"{name}.jpg.png", {0: (4, 6, 24, 16)}).rename(
            source / "JPEGImages" / f"{name}.jpg"
        )
        (source / "Annotations").mkdir(exist_ok=True)
        (source / "Annotations" / f"{name}.xml").write_text(VOC.format(name=name))
    for name in ("none", "bare"):
        draw(source / "JPEGImages" / f"{name}.png", {})
    nothing = VOC.format(name="none").partition("<object>")[0] + "</annotation>"
    (source / "Annotations" / "none.xml").write_text(nothing.replace("none.jpg", "none.png"))
    (source / "ImageSets" / "Main").mkdir(parents=True)
    (source / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (source / "ImageSets" / "Main" / "val.txt").write_text("b\nnone\nbare\n")
    before = tree(source)
    assert label(source, "export=[voc]") == 0
    assert tree(source) == before
    out = tmp_path / "run/export/voc"
    for name in ("a", "b"):
        top = fromstring((out / "Annotations" / f"{name}.xml").read_bytes())
        assert top.findtext("source/database") == "ours"
        dog, cat = top.findall("object")
        fields = [(e.tag, e.text) for e in dog if e.tag != "bndbox"]
        assert {("name", "dog"), ("pose", "Left"), ("truncated", "1"), ("difficult", "1")} <= set(fields)
        assert (cat.findtext("name"), cat.findtext("difficult"), cat.findtext("mood")) == ("cat", "0", "calm")
        assert [[int(v.text) for v in o.find("bndbox")] for o in (dog, cat)] == [[5, 7, 24, 16], [31, 1, 60, 40]]
    lists = {side: (out / "ImageSets" / "Main" / f"{side}.txt").read_text().split() for side in ("train", "val")}
    assert lists == {"train": ["a"], "val": ["b", "none"]}, "nobody labelled bare"
