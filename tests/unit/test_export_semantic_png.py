"""Class-id PNGs as the ultralytics loader reads them."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from PIL import Image

from autolabel.core.errors import ExportError
from autolabel.core.types import Category, ImageInfo
from autolabel.export.loader_tree import TOO_SMALL
from autolabel.export.semantic_png import SemanticPngExporter
from autolabel.ops.index_png import decode_index_png, encode_index_png
from tests.rasters import is_red, noise, photo, turned
from tests.records import ListReader, disc, failed, instance, record, shapes

SETTINGS = {
    "images": "copy", "background": "class", "ignore_border_px": 0, "holes": "keep", "parts": "keep",
    "overlaps": "score", "min_area_px": 1, "crowd": "ignore", "val_fraction": 0.0, "test_fraction": 0.0, "seed": 0,
    "stratify": False, "group_by": None,
}  # fmt: skip
SHAPES = shapes()
BACKGROUND = 2


def export(items, tmp_path, categories=None, **changes):
    run = ListReader(items, *(() if categories is None else (categories,)))
    exporter = SemanticPngExporter(**{**SETTINGS, **changes})
    report = exporter.export(run, tmp_path / "set")
    return report, tmp_path / "set", exporter.read_back(run, tmp_path / "set")


def images(root):
    return sorted(p for p in (root / "images").rglob("*") if p.is_file())


def loaded(image, num_classes=3):
    """The mask of a picture, found, checked and read by the loader."""
    from ultralytics.data.utils import img2label_paths, read_mask, verify_image_mask

    (mask,) = img2label_paths([str(image)], label_dir="masks", suffix=".png")
    ids = np.arange(256)
    invalid = ((ids > max(num_classes - 1, 1)) & (ids != 255)).astype(np.uint8)
    *_, missing, found, corrupt, message = verify_image_mask((str(image), mask, "", invalid))
    assert (missing, found, corrupt, message) == (0, 1, 0, "")
    with Image.open(mask) as opened:
        assert opened.mode == "L"
    return read_mask(mask, "L")


def test_the_loader_reads_every_shape_exactly(tmp_path):
    items = [photo(tmp_path, f"{name}.png", [mask]) for name, mask in SHAPES.items()]
    report, root, back = export(items, tmp_path)
    assert (back.objects, back.deviations) == (len(SHAPES), ())
    for image in images(root):
        assert (loaded(image) == np.where(SHAPES[image.stem] > 0, 0, BACKGROUND)).all()
    assert (report.images, report.instances) == (len(SHAPES), len(SHAPES))


@settings(max_examples=15)
@given(noise())
def test_noise_is_exact_by_class_but_for_the_pixels_that_classes_share(masks):
    with tempfile.TemporaryDirectory() as folder:
        tmp_path = Path(folder)
        _, root, back = export([photo(tmp_path, "a.png", masks)], tmp_path)
        found = loaded(images(root)[0])
    expected = np.full(masks[0].shape, BACKGROUND)
    for i, mask in reversed(list(enumerate(masks))):
        expected[mask > 0] = i % 2
    assert (found == expected).all()
    for deviation in back.deviations:
        mask = masks[deviation.index] > 0
        seen = mask & (found == deviation.index % 2)
        assert deviation.iou == pytest.approx(seen.sum() / mask.sum())


def test_data_yaml_names_masks_and_the_background_and_can_be_moved(tmp_path):
    from ultralytics.data.utils import check_det_dataset

    _, root, _ = export([photo(tmp_path, "a.png", [SHAPES["disc"]], split="val")], tmp_path)
    content = yaml.safe_load((root / "data.yaml").read_text())
    names = {0: "cat", 1: 'dog: "big"', 2: "background"}
    assert content == {"train": "images/val", "val": "images/val", "masks_dir": "masks", "names": names}
    moved = root.rename(tmp_path / "moved")
    assert check_det_dataset(str(moved / "data.yaml"), autodownload=False)["val"] == str(moved / "images" / "val")


@pytest.mark.parametrize(
    ("categories", "background", "names", "object_number", "nothing"),
    [
        ((Category(3, "cat"),), "class", ["cat"], 1, 0),
        ((Category(3, "cat"),), "ignore", ["cat"], 1, 255),
        ((Category(3, "cat"), Category(7, "dog")), "ignore", ["cat", "dog"], 0, 255),
        ((Category(1, "Background"), Category(3, "cat")), "class", ["Background", "cat"], 1, 0),
    ],
)
def test_what_no_object_covers_is_what_the_trainer_expects(
    tmp_path, categories, background, names, object_number, nothing
):
    item = photo(tmp_path, "a.png", [SHAPES["ring"]])
    _, root, back = export([item], tmp_path, categories, background=background)
    found = loaded(images(root)[0], len(names))
    assert (found == np.where(SHAPES["ring"] > 0, object_number, nothing)).all()
    assert list(yaml.safe_load((root / "data.yaml").read_text())["names"].values()) == names
    assert back.deviations == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["copy", "upright"])
def test_masks_lie_on_the_picture_as_the_loader_turns_it(tmp_path, orientation, mode):
    from ultralytics.utils.patches import imread

    items = [turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png", ".webp")]
    _, root, back = export(items, tmp_path, images=mode)
    assert back.deviations == ()
    for image in images(root):
        seen = is_red(imread(str(image))[..., ::-1])
        assert (np.where(loaded(image) == 0, 1, 0) == seen).mean() > (0.99 if image.suffix == ".jpg" else 0.999)


def test_300_objects_of_an_image_are_no_trouble_and_are_said_to_melt(tmp_path):
    masks = []
    for i in range(300):
        mask = np.zeros((40, 60), np.uint8)
        mask[2 * (i // 30), 2 * (i % 30)] = 1
        masks.append(mask)
    report, root, back = export([photo(tmp_path, "a.png", masks)], tmp_path)
    assert (loaded(images(root)[0]) != BACKGROUND).sum() == 300
    assert (report.counts["melted_objects"], back.deviations) == (300, ())


def test_more_classes_than_numbers_are_refused(tmp_path):
    many = tuple(Category(i, f"c{i}") for i in range(1, 256))
    with pytest.raises(ExportError, match="hold 255 classes, this would be 256"):
        export([photo(tmp_path, "a.png")], tmp_path, many)
    export([photo(tmp_path, "a.png")], tmp_path, many[:254])


def test_a_crowd_is_not_labelled_or_what_is_asked_for(tmp_path):
    crowd, one = instance(SHAPES["full"], 0, crowd=True), instance(SHAPES["disc"], 1)
    item = replace(photo(tmp_path, "a.png", [SHAPES["full"], SHAPES["disc"]]), candidates=(crowd, one))
    for choice, around in (("ignore", 255), ("keep", 0), ("drop", BACKGROUND)):
        _, root, _ = export(
            [replace(item, candidates=(crowd, replace(one, category_id=7)))], tmp_path, crowd=choice
        )
        assert (loaded(images(root)[0]) == np.where(SHAPES["disc"] > 0, 1, around)).all()


def test_the_border_between_regions_is_not_labelled(tmp_path):
    square = np.zeros((120, 160), np.uint8)
    square[20:60, 30:80] = 1
    report, root, back = export([photo(tmp_path, "a.png", [square])], tmp_path, ignore_border_px=1)
    found = loaded(images(root)[0])
    assert (found == 255).sum() == 42 * 52 - 38 * 48 == report.counts["void_px"]
    assert [d.reason for d in back.deviations] == ["border that is not labelled"]


def test_hostile_names_reach_the_loader(tmp_path):
    ids = ["new\nline.png", ".hidden/.x.png", "images/y.png", "a b [c]/é.png", "stray\udce9.png", "a.png", "a.jpg"]
    items = []
    for n, image_id in enumerate(ids):
        one = photo(tmp_path, f"{n}{Path(image_id).suffix}")
        items.append(record(image_id, [instance(disc(120, 160, 60, 60, 9 + n))], one.path))
    _, root, back = export(items, tmp_path, (Category(3, "lone \ud800"), Category(7, "日本: 'x'")))
    assert back.deviations == ()
    areas = sorted(int((loaded(image) == 0).sum()) for image in images(root))
    assert areas == sorted(int(disc(120, 160, 60, 60, 9 + n).sum()) for n in range(len(ids)))
    assert yaml.safe_load((root / "data.yaml").read_text())["names"] == {
        0: "lone ?",
        1: "日本: 'x'",
        2: "background",
    }


def test_what_the_loader_refuses_is_left_out_and_counted(tmp_path):
    items = [photo(tmp_path, "small.png", [np.ones((9, 30), np.uint8)]), failed("b.png"), photo(tmp_path, "c.png")]
    items.append(
        replace(items[0], image_id="huge.png", info=ImageInfo(17_896, 10_000), verdicts=(), candidates=())
    )
    report, root, back = export(items, tmp_path)
    assert [image.name for image in images(root)] == ["c.png"]
    assert (report.images, report.counts["images_too_small"], report.counts["images_left_out"]) == (1, 1, 1)
    assert report.counts["images_too_large"] == 1
    (small,) = back.deviations
    assert (small.iou, small.reason, small.expected) == (0.0, TOO_SMALL, True)


@pytest.mark.parametrize("lost", [False, True])
def test_an_object_behind_another_class_and_its_own_is_as_written(tmp_path, lost):
    blank = np.zeros((60, 60), np.uint8)
    masks = [blank.copy() for _ in range(3)]
    for mask, (y0, y1, x0, x1) in zip(masks, [(5, 30, 5, 20), (2, 30, 30, 40), (10, 20, 15, 35)], strict=True):
        mask[y0:y1, x0:x1] = 1
    objects = [
        instance(mask, n, category_id=category, detector_score=0.9 - n / 10)
        for n, (mask, category) in enumerate(zip(masks, (3, 7, 3), strict=True))
    ]
    item = record("a.png", objects, photo(tmp_path, "a.png", masks).path)
    run = ListReader([item])
    exporter = SemanticPngExporter(**SETTINGS)
    exporter.export(run, tmp_path / "set")
    if lost:
        (file,) = (tmp_path / "set" / "masks").rglob("*.png")
        ids = decode_index_png(file.read_bytes()).copy()
        ids[15, 25] = BACKGROUND
        file.write_bytes(encode_index_png(ids))
    (found,) = exporter.read_back(run, tmp_path / "set").deviations
    assert (found.index, found.expected, found.iou) == (2, not lost, pytest.approx((150 - lost) / 200))
    assert ("another object of its class lies there" in found.reason) == (not lost)


def test_data_yaml_can_be_read_whatever_a_class_is_called(tmp_path):
    _, root, _ = export(
        [photo(tmp_path, "a.png")], tmp_path, (Category(3, "a\x7f\x85\u2028\\"), Category(7, "\ud800"))
    )
    names = yaml.safe_load((root / "data.yaml").read_bytes())["names"]
    assert names == {0: "a\x7f\x85\u2028\\", 1: "?", 2: "background"}


def test_a_data_set_of_this_loader_keeps_its_folders(tmp_path):
    ids = {f"images/{split}/{name}": split for split in ("train", "val") for name in ("a.png", "cam/a.png")}
    items = [photo(tmp_path, id_, [SHAPES["disc"]], split=split) for id_, split in ids.items()]
    _, root, back = export(items, tmp_path)
    assert [str(path.relative_to(root)) for path in images(root)] == sorted(ids)
    assert (back.objects, back.deviations) == (4, ())
