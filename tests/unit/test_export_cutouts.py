"""Crops of objects: what is opaque, where it lies, what it is called."""

import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from autolabel.core.types import Category
from autolabel.export.csv_rows import csv_text
from autolabel.export.cutouts import CutoutsExporter, class_folders
from autolabel.ops.images import decode_rgb
from tests.rasters import is_red, noise, photo, turned
from tests.records import ListReader, disc, failed, instance, record, shapes

SETTINGS = {
    "padding_px": 0, "min_side_px": 1, "outside": "clear", "index": "csv", "holes": "keep", "parts": "keep",
    "overlaps": "keep", "min_area_px": 1, "crowd": "drop",
}  # fmt: skip
SHAPES = shapes()


def export(items, tmp_path, categories=None, **changes):
    run = ListReader(items, *(() if categories is None else (categories,)))
    exporter = CutoutsExporter(**{**SETTINGS, **changes})
    report = exporter.export(run, tmp_path / "cut")
    return report, tmp_path / "cut", exporter.read_back(run, tmp_path / "cut")


def rows(root):
    if (root / "index.json").exists():
        return json.loads((root / "index.json").read_text())
    with (root / "index.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def crop(root, row):
    with Image.open(root / row["file"]) as image:
        assert image.mode == "RGBA"
        return np.array(image)


def whole(root, row, size_hw=(120, 160)):
    """The mask that a crop and its place make."""
    mask, rgba = np.zeros(size_hw, np.uint8), crop(root, row)
    x0, y0 = int(row["x0"]), int(row["y0"])
    mask[y0 : y0 + rgba.shape[0], x0 : x0 + rgba.shape[1]] = rgba[..., 3] // 255
    return mask


@pytest.mark.parametrize("index", ["csv", "json"])
@pytest.mark.parametrize("padding", [0, 7])
def test_every_shape_comes_back_exactly_from_its_alpha(tmp_path, index, padding):
    report, root, back = export(
        [photo(tmp_path, "a.png", list(SHAPES.values()))], tmp_path, index=index, padding_px=padding
    )
    assert (back.objects, back.deviations) == (len(SHAPES), ())
    assert all((whole(root, row) == mask).all() for row, mask in zip(rows(root), SHAPES.values(), strict=True))
    assert (report.images, report.instances) == (1, len(SHAPES))


@settings(max_examples=15)
@given(noise())
def test_noise_is_exact_also_where_objects_share_pixels(masks):
    with tempfile.TemporaryDirectory() as folder:
        _, _, back = export([photo(Path(folder), "a.png", masks)], Path(folder))
    assert (back.objects, back.deviations) == (len(masks), ())


def test_pixels_are_the_picture_s_and_nothing_is_left_outside(tmp_path):
    item = photo(tmp_path, "a.png", [SHAPES["ring"]])
    picture, _ = decode_rgb(Path(item.path).read_bytes(), max_pixels=10**6)
    _, root, _ = export([item], tmp_path)
    (row,) = rows(root)
    rgba, x0, y0 = crop(root, row), int(row["x0"]), int(row["y0"])
    part = picture[y0 : y0 + rgba.shape[0], x0 : x0 + rgba.shape[1]]
    inside = rgba[..., 3] > 0
    assert (rgba[inside, :3] == part[inside]).all()
    assert not rgba[~inside].any()
    _, root, _ = export([item], tmp_path, outside="keep")
    assert (crop(root, rows(root)[0])[..., :3] == part).all()


def test_padding_ends_at_the_edge_of_the_picture(tmp_path):
    _, root, _ = export([photo(tmp_path, "a.png", [SHAPES["pixel"], SHAPES["disc"]])], tmp_path, padding_px=5)
    places = [tuple(int(row[key]) for key in ("x0", "y0", "width", "height")) for row in rows(root)]
    assert places == [(154, 114, 6, 6), (25, 25, 71, 71)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_upright_whatever_the_picture_s_orientation(tmp_path, orientation):
    _, root, back = export([turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png")], tmp_path)
    assert back.deviations == ()
    for row in rows(root):
        rgba = crop(root, row)
        assert (is_red(rgba[..., :3]) == rgba[..., 3] // 255).all()


def test_objects_are_in_a_folder_of_their_class_and_300_have_300_files(tmp_path):
    masks = [disc(40, 60, 2 + i % 55, 2 + i // 55, 1) for i in range(300)]
    report, root, _ = export([photo(tmp_path, "cam1/a.png", masks)], tmp_path)
    assert len(list((root / "cat/cam1").iterdir())) == len(list((root / 'dog: "big"/cam1').iterdir())) == 150
    assert rows(root)[7]["file"] == 'dog: "big"/cam1/a_7.png'
    assert report.instances == 300


def test_parts_can_have_a_crop_each(tmp_path):
    report, root, back = export([photo(tmp_path, "a.png", [SHAPES["two parts"]])], tmp_path, parts="split")
    assert [row["file"] for row in rows(root)] == ["cat/a_0.png", "cat/a_0_2.png"]
    assert (report.instances, back.deviations) == (2, ())


def test_small_objects_are_left_out_by_choice_and_counted(tmp_path):
    report, root, back = export(
        [photo(tmp_path, "a.png", [SHAPES["line"], SHAPES["disc"]])], tmp_path, min_side_px=2
    )
    assert [int(row["index"]) for row in rows(root)] == [1]
    assert report.counts["too_small"] == 1
    assert [(d.index, d.iou, d.reason) for d in back.deviations] == [(0, 0.0, "not written: under min_side_px")]


def test_a_picture_that_is_gone_or_another_one_is_counted_with_its_objects(tmp_path):
    gone, other = photo(tmp_path, "gone.png", [SHAPES["disc"]]), photo(tmp_path, "other.png", [SHAPES["disc"]] * 2)
    Path(gone.path).unlink()
    Path(other.path).write_bytes(Path(photo(tmp_path, "fine.png").path).read_bytes())
    report, _, back = export([gone, other, failed("b.png"), photo(tmp_path, "c.png", [SHAPES["disc"]])], tmp_path)
    expected = {"images_missing": 1, "images_changed": 1, "objects_without_picture": 3, "images_left_out": 1}
    assert {key: report.counts[key] for key in expected} == expected
    assert [(d.image_id, d.reason) for d in back.deviations] == [
        ("gone.png", "the image is not in the export"), *[("other.png", "the image is not in the export")] * 2,
    ]  # fmt: skip


def test_hostile_class_names_make_folders_that_stay_inside_and_apart(tmp_path):
    names = [
        "..",
        "a/b",
        "a\\b",
        "",
        "Index.csv",
        "x",
        "X",
        ".hidden",
        "nul\0l",
        "\ud800",
        "y" * 300,
        'a,b\r\n"c"',
    ]
    categories = tuple(Category(i, name) for i, name in enumerate(names, 1))
    folders = class_folders(categories)
    assert len({name.lower() for name in folders.values()}) == len(names)
    assert not any("/" in name or name.startswith(".") or name == "index.csv" for name in folders.values())
    objects = [instance(disc(120, 160, 12 + 11 * i, 20, 5), i, category_id=i + 1) for i in range(len(names))]
    item = record("../../new\r\nline \udce9.png", objects, photo(tmp_path, "0.png").path)
    for index in ("csv", "json"):
        report, root, back = export([item], tmp_path, categories, index=index)
        assert (report.instances, back.deviations) == (len(names), ())
        assert [row["image"] for row in rows(root)] == [item.image_id] * len(names)
        assert rows(root)[11]["category"] == names[11]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "photos"]


def test_a_carriage_return_in_a_name_ends_no_row(tmp_path):
    categories = (Category(3, "car\r"), Category(7, "\rbus"))
    path = photo(tmp_path, "0.png", [SHAPES["disc"]] * 2)
    items = [replace(path, image_id=name) for name in ("a\rb.png", "c.png", "\r.png")]
    _, root, back = export(items, tmp_path, categories)
    assert back.deviations == ()
    assert [(csv_text(row["image"]), csv_text(row["category"])) for row in rows(root)] == [
        (item.image_id, category.name) for item in items for category in categories
    ]
    assert (root / "index.csv").read_bytes().count(b"\n") == 7


def test_no_cell_starts_like_a_formula_and_every_name_comes_back(tmp_path):
    categories = (Category(3, '=HYPERLINK("http://x")'), Category(7, "'=1"))
    path = photo(tmp_path, "0.png", [SHAPES["disc"]] * 2)
    names = ["=cmd.jpg", "@SUM(1).png", "'plain.png", "''-x.png", "-1.png"]
    _, root, back = export([replace(path, image_id=name) for name in names], tmp_path, categories)
    assert (back.objects, back.deviations) == (10, ())
    cells = [cell for row in rows(root) for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    stated = [(csv_text(row["image"]), csv_text(row["category"])) for row in rows(root)]
    assert stated == [(name, category.name) for name in names for category in categories]
    assert "'plain.png" in cells


def test_an_empty_run_has_an_empty_index(tmp_path):
    for index in ("csv", "json"):
        report, root, _ = export([photo(tmp_path, "a.png")], tmp_path, index=index)
        assert (rows(root), report.images, report.instances) == ([], 1, 0)
