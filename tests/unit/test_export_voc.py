"""VOC as its readers see it: Pillow, torchvision's layout, and our own source."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from autolabel.core.errors import ExportError
from autolabel.core.types import Category
from autolabel.export.voc import VocExporter
from autolabel.ops.masks import bounds_xyxy, decode
from autolabel.source.voc import VocSource
from tests.rasters import is_red, noise, owners, photo, turned
from tests.records import ListReader, disc, failed, instance, record, shapes, tree_bytes

SETTINGS = {
    "images": "upright", "box": "mask", "void_border_px": 0, "holes": "keep", "parts": "keep", "overlaps": "score",
    "min_area_px": 1, "crowd": "void", "val_fraction": 0.25, "test_fraction": 0.0, "seed": 0, "stratify": False,
    "group_by": None,
}  # fmt: skip
SHAPES = shapes()


def export(items, tmp_path, categories=None, **changes):
    run = ListReader(items, *(() if categories is None else (categories,)))
    exporter = VocExporter(**{**SETTINGS, **changes})
    report = exporter.export(run, tmp_path / "voc")
    return report, tmp_path / "voc", exporter.read_back(run, tmp_path / "voc")


def numbers(path):
    """The pixels as the devkit's Python readers have them."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def source(root):
    found = VocSource(path=str(root), images_dir=None)
    return {ref.image_id: ref for ref in found.images()}, found


def test_every_shape_comes_back_exactly(tmp_path):
    items = [photo(tmp_path, f"{name}.png", [mask]) for name, mask in SHAPES.items()]
    report, root, back = export(items, tmp_path)
    assert (back.objects, back.deviations) == (len(SHAPES), ())
    for name, mask in SHAPES.items():
        stem = name.replace(" ", "%20")
        assert (numbers(root / "SegmentationObject" / f"{stem}.png") == mask).all()
        assert (numbers(root / "SegmentationClass" / f"{stem}.png") == mask).all()
    assert (report.images, report.instances) == (len(SHAPES), len(SHAPES))


@settings(max_examples=15)
@given(noise())
def test_noise_is_exact_but_for_the_pixels_that_objects_share(masks):
    with tempfile.TemporaryDirectory() as folder:
        tmp_path = Path(folder)
        report, root, back = export([photo(tmp_path, "a.png", masks)], tmp_path)
        found = numbers(root / "SegmentationObject" / "a.png")
    left = owners(masks)
    for k, mine in enumerate(left, 1):
        assert ((found == k) == mine).all()
    hidden = sum(int(mask.sum() - mine.sum()) for mask, mine in zip(masks, left, strict=True))
    assert report.counts.get("overlap_px", 0) == hidden
    assert len(back.deviations) == sum(mask.sum() != mine.sum() for mask, mine in zip(masks, left, strict=True))
    assert all("overlap" in d.reason or "covered" in d.reason for d in back.deviations)


def test_our_own_source_reads_equal_boxes_masks_and_classes(tmp_path):
    masks = [SHAPES["ring"], SHAPES["line"], SHAPES["pixel"], SHAPES["full"]]
    _, root, _ = export([photo(tmp_path, "cam1/a b.jpg", masks), photo(tmp_path, "none.jpg")], tmp_path)
    refs, found = source(root)
    labels = refs["JPEGImages/cam1/a%20b.jpg"].labels
    names = {category.id: category.name for category in found.categories}
    assert [names[i] for i in labels.category_ids] == ["cat", 'dog: "big"', "cat", 'dog: "big"']
    expected = [bounds_xyxy(instance(mask).mask) for mask in masks]
    assert labels.boxes_xyxy.tolist() == [list(map(float, box)) for box in expected]
    assert labels.size_hw == (120, 160)
    read = [decode(shape) > 0 for shape in labels.shapes]
    assert all((mine == mask).all() for mine, mask in zip(read, owners(masks), strict=True))
    assert len(refs["JPEGImages/none.jpg"].labels) == 0
    assert {ref.split for ref in refs.values()} == {"train", "val"}


def test_colours_are_those_of_voc(tmp_path):
    _, root, _ = export([photo(tmp_path, "a.png", [SHAPES["disc"]] * 3)], tmp_path)
    with Image.open(root / "SegmentationObject" / "a.png") as image:
        palette = image.getpalette()
    assert [tuple(palette[3 * i : 3 * i + 3]) for i in (0, 1, 2, 15, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128), (224, 224, 192),
    ]  # fmt: skip


def test_254_objects_have_a_number_and_255_never_wrap(tmp_path):
    def dots(n):
        masks = []
        for i in range(n):
            mask = np.zeros((32, 40), np.uint8)
            mask[2 * (i // 20), 2 * (i % 20)] = 1
            masks.append(mask)
        return masks

    items = [photo(tmp_path, "fits.png", dots(254)), photo(tmp_path, "more.png", dots(255))]
    report, root, back = export(items, tmp_path)
    assert numbers(root / "SegmentationObject" / "fits.png").max() == 254
    assert not (root / "SegmentationObject" / "more.png").exists()
    assert len(ElementTree.parse(root / "Annotations" / "more.xml").findall("object")) == 255
    listed = (root / "ImageSets/Segmentation/trainval.txt").read_text().split()
    assert (listed, report.counts["too_many_objects"]) == (["fits"], 1)
    assert any("more than 254 objects" in note for note in report.notes)
    assert {(d.image_id, d.iou, d.reason) for d in back.deviations} == {
        ("more.png", 0.0, "more than 254 objects: not in SegmentationObject")
    }
    assert len(back.deviations) == 255
    refs, _ = source(root)
    assert len(refs["JPEGImages/more.png"].labels) == 255


def test_more_classes_than_numbers_are_refused(tmp_path):
    many = tuple(Category(i, f"c{i}") for i in range(1, 256))
    with pytest.raises(ExportError, match="hold 254 classes, the run has 255"):
        export([photo(tmp_path, "a.png")], tmp_path, many)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_lie_on_the_picture_for_readers_that_do_not_rotate(tmp_path, orientation):
    _, root, back = export([turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png")], tmp_path)
    assert back.deviations == ()
    for picture in sorted((root / "JPEGImages").iterdir()):
        with Image.open(picture) as image:
            seen = is_red(np.array(image.convert("RGB")))
        stem = picture.with_suffix("").name
        assert (numbers(root / "SegmentationObject" / f"{stem}.png") == seen).all()
        xml = ElementTree.parse(root / "Annotations" / f"{stem}.xml")
        ys, xs = np.nonzero(seen)
        box = [int(xml.findtext(f"object/bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax")]
        assert box == [xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1]
        assert (xml.findtext("size/width"), xml.findtext("size/height")) == (
            str(seen.shape[1]), str(seen.shape[0]),
        )  # fmt: skip


def test_hostile_class_names_and_file_names_come_back(tmp_path):
    names = ["<b>&amp;</b>", 'say "cheese"', "a:b", "#not a comment", "50%25 off", "日本", "tab\there", "\x00nul"]
    names += ["]]>", "twice", "twice"]
    categories = tuple(Category(i, name) for i, name in enumerate(names, 1))
    objects = [instance(disc(120, 160, 12 + 12 * i, 20, 5), i, category_id=i + 1) for i in range(len(names))]
    ids = ["../up.png", "a&b<c>.png", "new\nline.png", "stray\udce9.png", "x y/z w.png"]
    items = []
    for n, image_id in enumerate(ids):
        one = photo(tmp_path, f"{n}.png")
        items.append(replace(record(image_id, objects, one.path)))
    report, root, back = export(items, tmp_path, categories)
    assert back.deviations == ()
    refs, found = source(root)
    changed = ["tab here", "%00nul", "]]>", "twice (10)", "twice (11)"]
    assert [c.name for c in found.categories] == [*names[:6], *changed]
    assert len(refs) == len(ids)
    assert all(ref.labels.category_ids.tolist() == list(range(1, 12)) for ref in refs.values())
    assert all((root / "JPEGImages").resolve() in Path(ref.path).resolve().parents for ref in refs.values())
    assert (report.counts["names_changed"], report.counts["labelmap_names_changed"]) == (4, 4)
    assert not any(" " in line for line in (root / "ImageSets/Main/trainval.txt").read_text().splitlines())


def test_flags_and_unknown_tags_of_the_source_are_kept(tmp_path):
    own = {
        "difficult": 1,
        "truncated": 1,
        "pose": "Left",
        "occluded": 0,
        "part": [{"name": "head"}, {"name": "foot"}],
    }
    own["bad tag!"] = "x"
    one = instance(SHAPES["disc"], extra=json.dumps(own))
    base = photo(tmp_path, "a.png", [SHAPES["disc"]])
    item = replace(base, candidates=(one,), extra=json.dumps({"source": {"database": "ours & theirs"}}))
    report, root, _ = export([item], tmp_path)
    refs, _ = source(root)
    (ref,) = refs.values()
    del own["bad tag!"]
    assert json.loads(ref.labels.extras[0]) == own
    assert json.loads(ref.extra) == {"source": {"database": "ours & theirs"}, "folder": "JPEGImages"}
    assert report.counts["fields_left_out"] == 1


def test_a_field_of_the_source_is_never_taken_for_an_object(tmp_path):
    """Neither by our source, nor by the many scripts that look for objects at any depth."""
    fields = {"object": {"id": 7}, "nested": {"list": [{"object": "boo"}]}, "kept": {"subject": 1}}
    one = instance(SHAPES["disc"], extra=json.dumps(fields))
    item = replace(photo(tmp_path, "a.png", [SHAPES["disc"]]), candidates=(one,), extra=json.dumps(fields))
    report, root, back = export([item], tmp_path)
    assert len(list(ElementTree.parse(root / "Annotations" / "a.xml").iter("object"))) == 1
    (ref,) = source(root)[0].values()
    assert json.loads(ref.labels.extras[0])["kept"] == json.loads(ref.extra)["kept"] == {"subject": "1"}
    assert (len(ref.labels), back.deviations) == (1, ())
    assert report.counts["fields_left_out"] == 4


def test_a_crowd_is_void_and_difficult_or_what_is_asked_for(tmp_path):
    crowd, one = instance(SHAPES["full"], 0, crowd=True), instance(SHAPES["disc"], 1)
    item = replace(photo(tmp_path, "a.png", [SHAPES["full"], SHAPES["disc"]]), candidates=(crowd, one))
    _, root, back = export([item], tmp_path)
    expected = np.where(SHAPES["disc"] > 0, 2, 255)
    assert (numbers(root / "SegmentationObject" / "a.png") == expected).all()
    xml = ElementTree.parse(root / "Annotations" / "a.xml")
    assert [o.findtext("difficult") for o in xml.findall("object")] == ["1", "0"]
    assert [(d.index, d.reason) for d in back.deviations] == [(0, "a crowd: written as void")]
    _, root, _ = export([item], tmp_path, crowd="drop")
    assert (numbers(root / "SegmentationObject" / "a.png") == SHAPES["disc"]).all()
    _, root, back = export([item], tmp_path, crowd="keep")
    assert (numbers(root / "SegmentationObject" / "a.png") == np.where(SHAPES["disc"] > 0, 2, 1)).all()
    assert [d.reason for d in back.deviations] == ["objects lie over the crowd"]


def test_a_void_border_lies_on_both_sides_of_every_outline(tmp_path):
    square = np.zeros((120, 160), np.uint8)
    square[20:60, 30:80] = 1
    report, root, back = export([photo(tmp_path, "a.png", [square])], tmp_path, void_border_px=2)
    found = numbers(root / "SegmentationObject" / "a.png")
    assert (found[22:58, 32:78] == 1).all()
    assert (found[18:62, 28:82] != 0).all()
    assert (found == 255).sum() == 44 * 54 - 36 * 46 == report.counts["void_px"]
    assert (numbers(root / "SegmentationClass" / "a.png") == found).all()
    assert [d.reason for d in back.deviations] == ["void border"]


def test_a_covered_object_keeps_its_box_and_its_number(tmp_path):
    small = disc(120, 160, 60, 60, 5)
    masks = [SHAPES["full"], small, SHAPES["line"]]
    report, root, back = export([photo(tmp_path, "a.png", masks)], tmp_path)
    assert len(ElementTree.parse(root / "Annotations" / "a.xml").findall("object")) == 3
    assert set(np.unique(numbers(root / "SegmentationObject" / "a.png"))) == {1}
    assert report.counts["hidden_objects"] == 2
    assert [(d.index, d.iou) for d in back.deviations] == [(1, 0.0), (2, 0.0)]
    _, root, back = export([photo(tmp_path, "a.png", masks)], tmp_path, overlaps="smallest")
    assert set(np.unique(numbers(root / "SegmentationObject" / "a.png"))) == {1, 2, 3}
    assert [d.index for d in back.deviations] == [0]


def test_the_box_that_was_given_can_be_written_as_it_is(tmp_path):
    one = instance(SHAPES["disc"], box_xyxy=(1.5, -3.0, 170.0, 60.25))
    item = replace(photo(tmp_path, "a.png", [SHAPES["disc"]]), candidates=(one,))
    _, root, _ = export([item], tmp_path, box="prompt")
    refs, _ = source(root)
    assert refs["JPEGImages/a.png"].labels.boxes_xyxy.tolist() == [[1.5, 0, 160, 60.25]]


def test_images_without_objects_are_listed_and_failed_ones_counted(tmp_path):
    items = [photo(tmp_path, "a.png"), failed("b.png"), photo(tmp_path, "c.jpg", split="test")]
    report, root, _ = export(items, tmp_path)
    assert (root / "ImageSets/Segmentation/test.txt").read_text() == "c\n"
    assert not numbers(root / "SegmentationClass" / "a.png").any()
    assert (report.images, report.counts["images_left_out"], report.counts["not_jpg"]) == (2, 1, 1)


def test_exporting_what_was_read_makes_no_second_folder(tmp_path):
    _, root, _ = export([photo(tmp_path, "a.png", [SHAPES["disc"]])], tmp_path)
    item = replace(photo(tmp_path, "a.png", [SHAPES["disc"]]), image_id="JPEGImages/a.png")
    _, again, _ = export([item], tmp_path / "again")
    assert tree_bytes(again).keys() == tree_bytes(root).keys()
