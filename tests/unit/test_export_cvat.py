"""CVAT: every mask comes back from the XML, decoded here from the format's description."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageOps

from autolabel.core.types import Category
from autolabel.export.cvat import CvatExporter
from autolabel.source.cvat import CvatSource
from tests.rasters import is_red, noise, photo, turned
from tests.records import CATEGORIES, ListReader, failed, instance, record, shapes

SETTINGS = {
    "images": "none",
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
}
SHAPES = shapes()


def exported(items, folder, categories=CATEGORIES, **changes):
    exporter, run = CvatExporter(**{**SETTINGS, **changes}), ListReader(items, categories)
    report = exporter.export(run, folder)
    return report, exporter.read_back(run, folder)


def xml(folder):
    return ElementTree.parse(folder / "annotations.xml").getroot()


def placed(mask, size_hw):
    """Runs over the box's rows, background first."""
    left, top, width, height = (int(mask.get(k)) for k in ("left", "top", "width", "height"))
    values = []
    for n, run in enumerate(mask.get("rle").split(",")):
        values += [n % 2] * int(run)
    image = np.zeros(size_hw, np.uint8)
    image[top : top + height, left : left + width] = np.array(values).reshape(height, width)
    return image


def test_every_mask_comes_back_from_its_runs(tmp_path):
    objects = [instance(mask, i, category_id=(3, 7)[i % 2]) for i, mask in enumerate(SHAPES.values())]
    items = [record("cam 1/0.jpg", objects), failed("bad.jpg"), record("b.jpg", split="val")]
    report, back = exported(items, tmp_path / "out")
    assert (back.objects, back.deviations) == (len(SHAPES), ())
    top = xml(tmp_path / "out")
    images = top.findall("image")
    assert [(i.get("id"), i.get("name"), i.get("width"), i.get("height"), i.get("subset")) for i in images] == [
        ("0", "cam 1/0.jpg", "160", "120", None),
        ("1", "b.jpg", "160", "120", "val"),
    ]
    masks = images[0].findall("mask")
    for found, mask in zip(masks, SHAPES.values(), strict=True):
        assert (placed(found, mask.shape) == mask).all()
    assert [m.get("label") for m in masks[:2]] == [c.name for c in CATEGORIES]
    assert top.findtext("meta/task/size") == "2"
    assert [label.findtext("name") for label in top.findall("meta/task/labels/label")] == [
        c.name for c in CATEGORIES
    ]
    assert (report.images, report.instances, report.counts["images_left_out"]) == (2, len(SHAPES), 1)


@settings(max_examples=15)
@given(noise())
def test_noise_comes_back(tmp_path_factory, masks):
    objects = [instance(mask, i) for i, mask in enumerate(masks)]
    assert exported([record("a.png", objects)], tmp_path_factory.mktemp("noise") / "out")[1].deviations == ()


def test_smaller_objects_lie_over_larger_ones(tmp_path):
    objects = [instance(SHAPES[name], i) for i, name in enumerate(("pixel", "full", "disc"))]
    exported([record("a.png", objects)], tmp_path / "out")
    assert [m.get("z_order") for m in xml(tmp_path / "out").iter("mask")] == ["2", "0", "1"]


def test_a_policy_s_effect_is_counted_and_named(tmp_path):
    items = [record("a.png", [instance(SHAPES["full"]), instance(SHAPES["disc"], 1)])]
    report, back = exported(items, tmp_path / "out", overlaps="smallest")
    assert report.counts["overlaps_cut"] == 1
    (deviation,) = back.deviations
    assert (deviation.index, deviation.iou < 1) == (0, True)
    both = sum(placed(m, (120, 160)).astype(int) for m in xml(tmp_path / "out").iter("mask"))
    assert (both == 1).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["none", "copy", "upright"])
def test_masks_lie_on_the_picture_as_cvat_turns_it(tmp_path, orientation, mode):
    items = [turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png")]
    _, back = exported(items, tmp_path / "out", images=mode)
    assert back.deviations == ()
    root = tmp_path / ("photos" if mode == "none" else "out/images")
    for image in xml(tmp_path / "out").iter("image"):
        seen = np.array(ImageOps.exif_transpose(Image.open(root / image.get("name"))).convert("RGB"))
        assert seen.shape[:2] == (int(image.get("height")), int(image.get("width")))
        assert (placed(image.find("mask"), seen.shape[:2]) == is_red(seen)).mean() > 0.99


@pytest.mark.parametrize("mode", ["none", "copy"])
def test_a_project_s_pictures_come_back_by_the_same_ids(tmp_path, mode):
    """Equal names in two subsets, one of which is CVAT's "default", of which the file says nothing."""
    ids = {"Train/a.png": "Train", "default/a.png": None}
    items = [photo(tmp_path, id_, [SHAPES["disc"]], split=split) for id_, split in ids.items()]
    _, back = exported(items, tmp_path / "out", images=mode)
    assert (back.objects, back.deviations) == (2, ())
    below = tmp_path / ("photos" if mode == "none" else "out/images")
    images_dir = str(below) if mode == "none" else None
    source = CvatSource(path=str(tmp_path / "out"), images_dir=images_dir, join_groups=True)
    assert {ref.image_id: ref.split for ref in source.images()} == ids
    assert [ref.path for ref in source.images()] == [str(below / id_) for id_ in ids]


def test_attributes_scores_and_crowds_survive_the_way_back_in(tmp_path):
    extra = {
        "attributes": {"colour": 'r"<e>d'},
        "occluded": "1",
        "source": "semi-auto",
        "difficult": 1,
        "unknown": [1],
    }
    objects = [
        instance(SHAPES["disc"], origin="label", extra=json.dumps(extra), crowd=True),
        instance(SHAPES["ring"], 1),
    ]
    report, _ = exported([record("a.png", objects)], tmp_path / "out")
    source = CvatSource(path=str(tmp_path / "out"), images_dir=None, join_groups=True)
    (ref,) = source.images()
    first, second = map(json.loads, ref.labels.extras)
    assert first == {
        "attributes": {"difficult": "1", "colour": 'r"<e>d'},
        "occluded": "1",
        "source": "semi-auto",
        "z_order": "1",
    }
    assert second == {"attributes": {"score": "0.9", "predicted_iou": "0.8"}, "source": "auto"}
    assert ref.labels.crowd == (True, False)
    assert ref.labels.shapes == tuple(o.mask for o in objects)
    assert report.counts["fields_left_out"] == 1
    constructor = json.loads((tmp_path / "out" / "labels.json").read_bytes())
    assert [a["name"] for a in constructor[0]["attributes"]][:2] == ["colour", "difficult"]


def test_a_label_s_own_colour_and_attributes_are_kept(tmp_path):
    stated = {
        "color": "#ff0000",
        "type": "rectangle",
        "attributes": {
            "attribute": {"name": "colour", "mutable": "True", "input_type": "select", "values": "red\nblue"}
        },
        "supercategory": "animal",
    }
    exported([], tmp_path / "out", (Category(1, "cat", json.dumps(stated)),))
    (label,) = xml(tmp_path / "out").iter("label")
    assert (label.findtext("color"), label.findtext("type")) == ("#ff0000", "any")
    assert [a.findtext("name") for a in label.iter("attribute")] == ["colour", "score", "predicted_iou", "iscrowd"]
    (row,) = json.loads((tmp_path / "out" / "labels.json").read_bytes())
    assert row["attributes"][0]["values"] == ["red", "blue"]
    assert row["attributes"][0]["mutable"] is True


def test_names_that_xml_cannot_hold_are_written_safely(tmp_path):
    names = ["a\nb.jpg", 'q"<&>.jpg', "caf\udce9.jpg", "bell\x07.jpg", "日本.jpg"]
    items = [record(name, [instance(SHAPES["disc"])]) for name in names]
    report, back = exported(items, tmp_path / "out", (Category(3, "c\x00at"),))
    found = [image.get("name") for image in xml(tmp_path / "out").iter("image")]
    assert found == ["a\nb.jpg", 'q"<&>.jpg', "caf%E9.jpg", "bell%07.jpg", "日本.jpg"]
    assert (report.counts["renamed_images"], report.counts["names_changed"], back.deviations) == (2, 1, ())


def test_a_picture_that_is_gone_is_left_out_and_the_size_says_so(tmp_path):
    items = [photo(tmp_path, name, [SHAPES["disc"]]) for name in ("a.png", "b.png")]
    (tmp_path / "photos" / "a.png").unlink()
    report, back = exported(items, tmp_path / "out", images="copy")
    assert (report.images, xml(tmp_path / "out").findtext("meta/task/size")) == (1, "1")
    assert [(d.image_id, d.reason) for d in back.deviations] == [("a.png", "the image is not in the export")]
    assert (tmp_path / "out" / "images" / "b.png").is_file()
