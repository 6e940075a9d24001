"""LabelMe: every mask comes back, decoded here as LabelMe does, and the files are what it loads."""

import base64
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageOps

from autolabel.core.errors import ExportError
from autolabel.core.types import Category
from autolabel.export.labelme import LabelMeExporter
from autolabel.ops.masks import decode, from_polygons
from autolabel.source.labelme import LabelMeSource
from tests.rasters import is_red, noise, photo, turned
from tests.records import (
    CATEGORIES,
    ListReader,
    drawn_for_yolo,
    failed,
    instance,
    picture,
    record,
    shapes,
)

SETTINGS = {
    "images": "copy",
    "shape": "mask",
    "simplify_iou": None,
    "warn_iou": 0.98,
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
}
SHAPES = shapes()


def exported(items, folder, categories=CATEGORIES, **changes):
    exporter, run = LabelMeExporter(**{**SETTINGS, **changes}), ListReader(items, categories)
    report = exporter.export(run, folder)
    return report, exporter.read_back(run, folder)


def load(path):
    return json.loads(path.read_bytes(), parse_constant=lambda word: pytest.fail(f"{word} in the file"))


def placed(shape, size_hw):
    """As labelme's `shapes_to_label` puts a mask into its picture."""
    (x0, y0), (x1, y1) = np.asarray(shape["points"]).astype(int)
    crop = np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(bool)
    mask = np.zeros(size_hw, bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = crop
    return mask


def test_every_mask_comes_back_as_labelme_places_it(tmp_path):
    item = photo(tmp_path, "cam1/0.png", list(SHAPES.values()))
    report, back = exported([item, failed("bad.png")], tmp_path / "out")
    assert (back.objects, back.deviations) == (len(SHAPES), ())
    top = load(tmp_path / "out" / "cam1" / "0.json")
    for shape, mask in zip(top["shapes"], SHAPES.values(), strict=True):
        assert (placed(shape, mask.shape) == mask).all()
    assert [top[key] for key in ("imagePath", "imageData", "imageHeight", "imageWidth")] == [
        "0.png",
        None,
        120,
        160,
    ]
    assert (report.images, report.instances, report.counts["images_left_out"]) == (1, len(SHAPES), 1)


@settings(max_examples=15)
@given(noise())
def test_noise_comes_back_from_masks_and_from_polygons(tmp_path_factory, masks):
    root = tmp_path_factory.mktemp("noise")
    items = [photo(root, "a.png", masks)]
    for shape in ("mask", "polygon"):
        assert exported(items, root / shape, shape=shape)[1].deviations == ()


def test_polygons_give_every_shape_back_and_parts_share_a_group(tmp_path):
    item = photo(tmp_path, "a.png", list(SHAPES.values()))
    _, back = exported([item], tmp_path / "out", shape="polygon")
    assert back.deviations == ()
    found = load(tmp_path / "out" / "a.json")["shapes"]
    groups = {}
    for shape in found:
        groups.setdefault(shape["group_id"], []).append(shape)
    assert sorted(len(g) for key, g in groups.items() if key is not None)[:2] == [2, 2]
    assert 12 in [len(g) for g in groups.values()]
    twelve = next(g for key, g in groups.items() if key is not None and len(g) == 12)
    rings = tuple(tuple(v for point in shape["points"] for v in point) for shape in twelve)
    assert (decode(from_polygons(rings, (120, 160))) == SHAPES["twelve parts"]).all()


def test_fewer_points_keep_the_iou_that_was_asked_for(tmp_path):
    items = [photo(tmp_path, "a.png", [SHAPES["disc"], SHAPES["ring"]])]
    exported(items, tmp_path / "exact", shape="polygon")
    report, back = exported(items, tmp_path / "out", shape="polygon", simplify_iou=0.95)
    assert len(json.dumps(load(tmp_path / "out/a.json"))) < len(json.dumps(load(tmp_path / "exact/a.json"))) / 3
    assert all(0.95 <= d.iou < 1 and d.reason == "simplified" for d in back.deviations)
    assert report.counts["simplified"] == 2
    assert "lowest IoU" in report.notes[-1]


def test_what_a_policy_changes_is_counted_and_named(tmp_path):
    items = [photo(tmp_path, "a.png", [SHAPES["ring"], SHAPES["two parts"]])]
    report, back = exported(items, tmp_path / "out", holes="fill", parts="largest")
    assert (report.counts["holes_filled"], report.counts["smaller_parts_left_out"]) == (1, 1)
    assert [d.index for d in back.deviations] == [0, 1]
    assert all(0 < d.iou < 1 for d in back.deviations)
    report, back = exported(items, tmp_path / "out", parts="split")
    assert (report.instances, back.deviations) == (3, ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["copy", "upright", "link"])
def test_masks_lie_on_the_picture_as_labelme_turns_it(tmp_path, orientation, mode):
    items = [turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png", ".webp")]
    _, back = exported(items, tmp_path / "out", images=mode)
    assert back.deviations == ()
    for path in sorted((tmp_path / "out").glob("turned*.json")):
        top = load(path)
        seen = np.array(ImageOps.exif_transpose(Image.open(path.parent / top["imagePath"])).convert("RGB"))
        assert seen.shape[:2] == (top["imageHeight"], top["imageWidth"])
        assert (placed(top["shapes"][0], seen.shape[:2]) == is_red(seen)).mean() > 0.99


def test_scores_fields_and_crowds_survive_the_way_back_in(tmp_path):
    extra = json.dumps({"flags": {"hard": True}, "attributes": {"colour": "red"}, "group_id": 4})
    own = instance(SHAPES["disc"], origin="label", extra=extra, crowd=True)
    item = photo(tmp_path, "a.png")
    objects = [own, instance(SHAPES["ring"], 1)]
    item = record("a.png", objects, item.path, extra=json.dumps({"flags": {"night": True}, "weather": "rain"}))
    exported([item], tmp_path / "out")
    source = LabelMeSource(path=str(tmp_path / "out"), images_dir=None, join_groups=True)
    (ref,) = source.images()
    assert json.loads(ref.extra) == {"flags": {"night": True}, "weather": "rain"}
    first, second = map(json.loads, ref.labels.extras)
    assert first == {"flags": {"hard": True}, "attributes": {"colour": "red"}}
    assert second["score"] == 0.9
    assert second["description"] == "score 0.900"
    assert ref.labels.crowd == (True, False)
    assert list(ref.labels.shapes) == [o.mask for o in objects]


def test_polygons_of_the_source_come_out_unchanged(tmp_path):
    triangle = (10.25, 10.5, 60.75, 12.0, 30.0, 70.125)
    own = instance(from_polygons((triangle,), (120, 160)), origin="label", polygons=(triangle,))
    item = record("a.png", [own], picture(tmp_path / "a.png"))
    report, back = exported([item], tmp_path / "out", shape="polygon")
    (shape,) = load(tmp_path / "out" / "a.json")["shapes"]
    assert [v for point in shape["points"] for v in point] == list(triangle)
    assert (report.counts["source_polygons"], back.deviations) == (1, ())


def test_polygons_that_another_reader_draws_are_outlined_anew_where_they_come_back_as_another_mask(tmp_path):
    objects = drawn_for_yolo()
    item = record("a.png", objects, picture(tmp_path / "a.png"))
    report, back = exported([item], tmp_path / "out", shape="polygon")
    assert all(one.iou >= 0.98 and one.reason == "the source's own polygons" for one in back.deviations)
    counts = report.counts
    assert (counts["source_polygons"], counts["polygons_redrawn"]) == (2, len(objects) - 2)
    assert f"{len(objects) - 2} objects are outlined again" in " ".join(report.notes)
    ref, *_ = LabelMeSource(path=str(tmp_path / "out"), images_dir=None, join_groups=True).images()
    assert len(ref.labels) == len(objects)
    report, back = exported([item], tmp_path / "out", shape="polygon", warn_iou=0)
    assert all(one.iou > 0 for one in back.deviations)
    assert len(back.deviations) == report.counts["source_polygons"]


def test_pictures_that_stay_where_they_are_are_named_from_the_json(tmp_path):
    item = photo(tmp_path, "deep/er/a.png", [SHAPES["disc"]])
    exported([item], tmp_path / "out", images="none")
    named = load(tmp_path / "out" / "deep" / "er" / "a.json")["imagePath"]
    assert not Path(named).is_absolute()
    assert (tmp_path / "out" / "deep" / "er" / named).samefile(item.path)


@pytest.mark.parametrize("linked", ["out", "photos", "a.png"])
def test_pictures_that_stay_where_they_are_are_found_through_links(tmp_path, linked):
    """A folder of runs that is a link to a large disk; a picture that is a link keeps the name that it has."""
    item, disk = photo(tmp_path, "a.png", [SHAPES["disc"]]), tmp_path / "disks" / "one" / "two"
    disk.mkdir(parents=True)
    there = {"out": disk, "photos": Path(item.path).parent, "a.png": Path(item.path)}[linked]
    link = tmp_path / "in" / linked
    link.parent.mkdir()
    link.symlink_to(there)
    path = {"out": item.path, "photos": link / "a.png", "a.png": link}[linked]
    out = tmp_path / "in" / "out" / "labelme"
    exported([replace(item, path=str(path))], out, images="none")
    named = load(out / "a.json")["imagePath"]
    assert (out / named).samefile(item.path)
    assert named.endswith("/a.png")


def test_two_pictures_of_one_stem_have_two_files(tmp_path):
    items = [photo(tmp_path, name, [SHAPES["disc"]]) for name in ("a.png", "a.jpg")]
    report, back = exported(items, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {"a.png.json", "a.jpg.json", "manifest.json"}
    assert (report.counts["renamed_for_a_shared_stem"], back.deviations) == (2, ())


def test_a_picture_that_is_gone_is_left_out_and_said(tmp_path):
    item = photo(tmp_path, "a.png", [SHAPES["disc"]])
    Path(item.path).unlink()
    report, back = exported([item], tmp_path / "out")
    assert (report.images, report.counts["images_missing"]) == (0, 1)
    assert [d.reason for d in back.deviations] == ["the image is not in the export"]


def test_a_picture_without_objects_has_no_shapes(tmp_path):
    exported([photo(tmp_path, "b.png")], tmp_path / "out")
    assert load(tmp_path / "out" / "b.json")["shapes"] == []


def test_numbers_that_are_not_finite_are_never_written(tmp_path):
    strange = instance(SHAPES["disc"], detector_score=math.nan, predicted_iou=math.inf)
    exported([record("a.png", [strange], picture(tmp_path / "a.png"))], tmp_path / "out")
    assert "score" not in load(tmp_path / "out" / "a.json")["shapes"][0]


def test_classes_of_one_name_are_told_apart(tmp_path):
    item = photo(tmp_path, "a.png", [SHAPES["disc"], SHAPES["ring"]])
    report, _ = exported([item], tmp_path / "out", (Category(3, "cat"), Category(7, "cat")))
    assert [s["label"] for s in load(tmp_path / "out" / "a.json")["shapes"]] == ["cat (3)", "cat (7)"]
    assert report.counts["names_changed"] == 2
    with pytest.raises(ExportError, match="class 7"):
        exported([item], tmp_path / "out", (Category(3, "cat"),))


def test_labelme_itself_loads_the_files(tmp_path):
    tool = pytest.importorskip("labelme._label_file", reason="reads with labelme")
    exported([photo(tmp_path, "a.png", list(SHAPES.values()))], tmp_path / "out")
    found = tool.read_label_file(str(tmp_path / "out" / "a.json"))
    assert len(found.shapes) == len(SHAPES)


def test_a_backslash_is_no_folder_where_labelme_would_read_one(tmp_path):
    """LabelMe 6.3.1 reads `imagePath` by PureWindowsPath."""
    items = [photo(tmp_path, "a\\b.png", [SHAPES["disc"]])]
    report, back = exported(items, tmp_path / "copied")
    assert load(tmp_path / "copied" / "a%5Cb.json")["imagePath"] == "a%5Cb.png"
    assert back.deviations == ()
    assert "backslashes" not in report.counts
    report, _ = exported(items, tmp_path / "in place", images="none")
    assert report.counts["backslashes"] == 1
