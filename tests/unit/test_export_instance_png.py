"""Object numbers of 16 bits, read by OpenCV and by our own source."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from autolabel.export.instance_png import InstancePngExporter
from autolabel.export.painting import regions
from autolabel.ops.masks import area_px, bounds_xyxy, decode, encode
from autolabel.source.infer import AutoSource
from autolabel.source.png_masks import PngMaskSource
from tests.rasters import is_red, noise, owners, photo, turned
from tests.records import ListReader, disc, failed, instance, record, shapes

SETTINGS = {
    "images": "upright", "holes": "keep", "parts": "keep", "overlaps": "score", "min_area_px": 1, "crowd": "keep",
}  # fmt: skip
SHAPES = shapes()


def export(items, tmp_path, **changes):
    run = ListReader(items)
    exporter = InstancePngExporter(**{**SETTINGS, **changes})
    report = exporter.export(run, tmp_path / "set")
    return report, tmp_path / "set", exporter.read_back(run, tmp_path / "set")


def ids(root, stem):
    found = cv2.imread(str(root / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    return found


def source(root):
    found = PngMaskSource(
        path=str(root), images_dir="images", masks_dir="masks", image_suffix="", mask_suffix="", kind="instance",
        objects="class", classes=None, background=None, ignore=None, divisor=None,
    )  # fmt: skip
    return {ref.image_id: ref for ref in found.images()}, found


@settings(max_examples=50)
@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 4)))
def test_regions_are_the_pixels_of_each_number(numbers):
    assert regions(numbers) == {n: encode(numbers == n) for n in np.unique(numbers).tolist() if n}


def test_every_shape_comes_back_exactly(tmp_path):
    items = [photo(tmp_path, f"{name}.png", [mask]) for name, mask in SHAPES.items()]
    report, root, back = export(items, tmp_path)
    assert (back.objects, back.deviations) == (len(SHAPES), ())
    assert all((ids(root, name) == mask).all() for name, mask in SHAPES.items())
    assert (report.images, report.instances) == (len(SHAPES), len(SHAPES))


@settings(max_examples=15)
@given(noise())
def test_noise_is_exact_but_for_the_pixels_that_objects_share(masks):
    with tempfile.TemporaryDirectory() as folder:
        _, root, back = export([photo(Path(folder), "a.png", masks)], Path(folder))
        found = ids(root, "a")
        rows = json.loads((root / "masks" / "a.json").read_text())["objects"]
    left = owners(masks)
    assert [row["index"] for row in rows] == [i for i, mine in enumerate(left) if mine.any()]
    assert all(((found == row["id"]) == left[row["index"]]).all() for row in rows)
    assert len(back.deviations) == sum(m.sum() != mine.sum() for m, mine in zip(masks, left, strict=True))


def test_our_own_source_reads_equal_masks_classes_and_fields(tmp_path):
    objects = [
        instance(SHAPES["ring"], 0, detector_score=0.75, extra=json.dumps({"colour": "red"})),
        instance(SHAPES["pixel"], 1, category_id=7, detector_score=float("nan"), source_id=12),
    ]
    base = photo(tmp_path, "cam1/a.png", [SHAPES["ring"]] * 2)
    _, root, _ = export([replace(base, candidates=tuple(objects))], tmp_path)
    refs, found = source(root)
    labels = refs["images/cam1/a.png"].labels
    assert [(c.id, c.name) for c in found.categories] == [(3, "cat"), (7, 'dog: "big"')]
    assert labels.category_ids.tolist() == [3, 7]
    assert all((decode(a) == decode(b.mask)).all() for a, b in zip(labels.shapes, objects, strict=True))
    assert labels.boxes_xyxy.tolist() == [list(map(float, bounds_xyxy(one.mask))) for one in objects]
    first, second = map(json.loads, labels.extras)
    assert (first["colour"], first["score"], first["instance_id"]) == ("red", 0.75, 1)
    assert "score" not in second
    assert second["source_id"] == 12


def test_the_folder_alone_says_that_its_numbers_are_objects_and_which_is_a_crowd(tmp_path):
    masks = [disc(120, 160, 20 + 40 * n, 40, 9) for n in range(4)]
    objects = [instance(m, n, category_id=(7, 3)[n % 2], crowd=n == 3) for n, m in enumerate(masks)]
    item = replace(photo(tmp_path, "cam1/a.png", masks), candidates=tuple(objects))
    _, root, _ = export([item, photo(tmp_path, "b.png")], tmp_path)
    found = AutoSource(path=str(root), images_dir=None)
    assert (found.kind, found.reason) == (
        "png_masks", "pictures and object-id PNGs with a JSON beside each (images and masks)"
    )  # fmt: skip
    names = {category.id: category.name for category in found.categories}
    refs = {ref.image_id: ref for ref in found.images()}
    labels = refs["images/cam1/a.png"].labels
    assert [names[number] for number in labels.category_ids] == ['dog: "big"', "cat", 'dog: "big"', "cat"]
    assert list(labels.shapes) == [one.mask for one in objects]
    assert labels.crowd == (False, False, False, True)
    assert len(refs["images/b.png"].labels) == 0


def test_300_objects_of_an_image_have_300_numbers(tmp_path):
    masks = []
    for i in range(300):
        mask = np.zeros((40, 60), np.uint8)
        mask[2 * (i // 30), 2 * (i % 30)] = 1
        masks.append(mask)
    _, root, back = export([photo(tmp_path, "a.png", masks)], tmp_path)
    assert sorted(np.unique(ids(root, "a"))) == list(range(301))
    assert back.deviations == ()
    refs, _ = source(root)
    assert len(refs["images/a.png"].labels) == 300


def test_more_objects_than_numbers_leave_the_image_out(tmp_path, monkeypatch):
    monkeypatch.setattr("autolabel.export.instance_png._MOST", 2)
    dots = [disc(120, 160, 20 + 30 * i, 40, 5) for i in range(3)]
    report, root, back = export([photo(tmp_path, "a.png", dots), photo(tmp_path, "b.png", dots[:2])], tmp_path)
    assert sorted(p.name for p in (root / "masks").iterdir()) == ["b.json", "b.png"]
    assert (report.images, report.counts["too_many_objects"]) == (1, 1)
    assert {(d.image_id, d.iou) for d in back.deviations} == {("a.png", 0.0)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_numbers_lie_on_the_picture_for_readers_that_do_not_rotate(tmp_path, orientation):
    _, root, back = export([turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png")], tmp_path)
    assert back.deviations == ()
    for picture in sorted((root / "images").iterdir()):
        with Image.open(picture) as image:
            assert (ids(root, picture.stem) == is_red(np.array(image.convert("RGB")))).all()


def test_parts_can_be_objects_and_share_their_index(tmp_path):
    report, root, back = export([photo(tmp_path, "a.png", [SHAPES["twelve parts"]])], tmp_path, parts="split")
    rows = json.loads((root / "masks" / "a.json").read_text())["objects"]
    assert [(row["id"], row["index"]) for row in rows] == [(k, 0) for k in range(1, 13)]
    assert (report.instances, back.deviations) == (12, ())
    assert sum(row["area_px"] for row in rows) == area_px(instance(SHAPES["twelve parts"]).mask)


def test_without_pictures_the_json_names_the_original(tmp_path):
    item = photo(tmp_path, "cam/a.png", [SHAPES["disc"]], split="val")
    _, root, _ = export([item], tmp_path, images="none")
    top = json.loads((root / "masks" / "cam" / "a.json").read_text())
    assert (top["image"], top["width"], top["height"], top["split"]) == ("cam/a.png", 160, 120, "val")
    assert not (root / "images").exists()


def test_objects_lie_over_a_crowd(tmp_path):
    crowd, one = instance(SHAPES["full"], 0, crowd=True), instance(SHAPES["disc"], 1)
    item = replace(photo(tmp_path, "a.png", [SHAPES["full"], SHAPES["disc"]]), candidates=(crowd, one))
    _, root, back = export([item], tmp_path)
    assert (ids(root, "a") == np.where(SHAPES["disc"] > 0, 2, 1)).all()
    assert [(d.index, d.reason) for d in back.deviations] == [(0, "objects lie over the crowd")]
    report, root, _ = export([item], tmp_path, crowd="drop")
    assert (ids(root, "a") == SHAPES["disc"]).all()
    assert report.counts["crowds_left_out"] == 1


def test_hostile_names_stay_inside_and_apart(tmp_path):
    names = ["../up.png", "new\nline.png", "stray\udce9.png", "a.jpg", "a.png", "x" * 240 + ".png"]
    items = []
    for n, image_id in enumerate(names):
        one = photo(tmp_path, f"{n}{Path(image_id).suffix}")
        items.append(record(image_id, [instance(disc(120, 160, 60, 60, 9 + n))], one.path))
    report, root, back = export([*items, failed("b.png")], tmp_path)
    assert (report.images, report.counts["images_left_out"], back.deviations) == (len(names), 1, ())
    assert len(list((root / "masks").rglob("*.png"))) == len(names)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "set"]
