"""Label Studio: every brush comes back, decoded here bit by bit, and the tasks are ready for import."""

import json
import math
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageOps

from autolabel.core.types import Category
from autolabel.export.label_studio import LabelStudioExporter
from autolabel.ops import studio_file
from autolabel.ops.brush import decode_brush
from autolabel.ops.masks import decode, from_polygons
from autolabel.source.label_studio import LabelStudioSource
from tests.rasters import is_red, noise, photo, turned
from tests.records import CATEGORIES, ListReader, drawn_for_yolo, failed, instance, record, shapes

SETTINGS = {
    "images": "none",
    "image_root": "/data/local-files/?d=",
    "shape": "brush",
    "simplify_iou": None,
    "warn_iou": 0.98,
    "from_name": "label",
    "to_name": "image",
    "data_key": "image",
    "model_version": "m1",
    "images_per_file": None,
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
}
SHAPES = shapes()
SMALL = {name: mask for name, mask in SHAPES.items() if name != "noise"}


def exported(items, folder, categories=CATEGORIES, **changes):
    exporter, run = LabelStudioExporter(**{**SETTINGS, **changes}), ListReader(items, categories)
    report = exporter.export(run, folder)
    return report, exporter.read_back(run, folder)


def tasks(folder):
    return [task for file in sorted(folder.glob("tasks*.json")) for task in json.loads(file.read_bytes())]


def alpha(region):
    """The fourth channel, read bit by bit as the tool's own JavaScript does."""
    bits = "".join(f"{byte:08b}" for byte in region["value"]["rle"])
    at, values = 53, []
    assert int(bits[32:37], 2) == 7
    while len(values) < int(bits[:32], 2):
        width = (3, 4, 8, 16)[int(bits[at + 1 : at + 3], 2)]
        length = int(bits[at + 3 : at + 3 + width], 2) + 1
        assert bits[at] == "1"
        values += [int(bits[at + 3 + width : at + 11 + width], 2)] * length
        at += 11 + width
    return np.array(values).reshape(region["original_height"], region["original_width"], 4)[..., 3]


def test_every_mask_comes_back_as_a_brush(tmp_path):
    objects = [instance(mask, i, category_id=(3, 7)[i % 2]) for i, mask in enumerate(SMALL.values())]
    report, back = exported([record("cam 1/ä.jpg", objects), failed("bad.jpg")], tmp_path / "out")
    assert (back.objects, back.deviations) == (len(SMALL), ())
    (task,) = tasks(tmp_path / "out")
    address = urlsplit(task["data"]["image"])
    assert (address.path, parse_qs(address.query)) == ("/data/local-files/", {"d": ["cam 1/ä.jpg"]})
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("m1", 0.9)
    for region, mask in zip(prediction["result"], SMALL.values(), strict=True):
        assert (alpha(region) == mask * 255).all()
        assert (region["type"], region["image_rotation"], region["value"]["format"]) == ("brushlabels", 0, "rle")
    assert [r["value"]["brushlabels"] for r in prediction["result"][:2]] == [[c.name] for c in CATEGORIES]
    assert len({region["id"] for region in prediction["result"]}) == len(SMALL)
    assert (report.images, report.instances, report.counts["images_left_out"]) == (1, len(SMALL), 1)


def test_reading_back_decodes_each_brush_once(tmp_path, monkeypatch):
    decoded = []

    def counted(data, size_hw):
        decoded.append(size_hw)
        return decode_brush(data, size_hw)

    monkeypatch.setattr(studio_file, "decode_brush", counted)
    items = [record(f"{n}.jpg", [instance(SMALL["disc"])]) for n in range(3)]
    assert exported(items, tmp_path / "out")[1].deviations == ()
    assert len(decoded) == 3


def test_without_an_address_pictures_are_named_for_local_files_which_serves_no_file_right_in_its_root(tmp_path):
    """ "Local files" of Label Studio 1.23.2: a storage must be a folder below the document root."""
    items = [photo(tmp_path, name, [SHAPES["disc"]]) for name in ("a.png", "cam 1/ä.png")]
    report, back = exported(items, tmp_path / "out", image_root=None)
    served = [parse_qs(urlsplit(task["data"]["image"]).query)["d"] for task in tasks(tmp_path / "out")]
    assert served == [["photos/a.png"], ["photos/cam 1/ä.png"]]
    assert back.deviations == ()
    assert f"LOCAL_FILES_DOCUMENT_ROOT={tmp_path}," in report.notes[-1]
    assert str(tmp_path / "photos") in report.notes[-1]


def test_copies_are_named_for_local_files_around_the_export(tmp_path):
    items = [photo(tmp_path, "images/a.png", [SHAPES["disc"]])]
    report, back = exported(items, tmp_path / "out", image_root=None, images="copy")
    ((place,),) = [parse_qs(urlsplit(t["data"]["image"]).query)["d"] for t in tasks(tmp_path / "out")]
    assert (tmp_path / "out" / place).is_file()
    assert place == "images/a.png"
    assert back.deviations == ()
    assert f"LOCAL_FILES_DOCUMENT_ROOT={tmp_path / 'out'}," in report.notes[-1]


def test_a_picture_whose_path_does_not_end_in_its_id_is_named_with_its_own_folder(tmp_path):
    item = replace(photo(tmp_path, "a.png", [SHAPES["disc"]]), image_id="other/b.png")
    exported([item], tmp_path / "out", image_root=None)
    assert tasks(tmp_path / "out")[0]["data"]["image"] == "/data/local-files/?d=photos/a.png"


def test_pictures_from_all_over_the_disk_are_named_from_its_root(tmp_path):
    item = photo(tmp_path, "a.png", [SHAPES["disc"]])
    path = Path(item.path).resolve()
    report, back = exported([replace(item, image_id=str(path)[1:])], tmp_path / "out", image_root=None)
    assert tasks(tmp_path / "out")[0]["data"]["image"] == f"/data/local-files/?d={str(path)[1:]}"
    assert back.deviations == ()
    assert "LOCAL_FILES_DOCUMENT_ROOT=/," in report.notes[-1]
    assert f"'/{path.parts[1]}'" in report.notes[-1]


def test_pictures_at_an_address_keep_it(tmp_path):
    item = replace(photo(tmp_path, "a.png", [SHAPES["disc"]]), path="s3://bucket/cam/a.png")
    report, _ = exported([item], tmp_path / "out", image_root=None)
    assert tasks(tmp_path / "out")[0]["data"]["image"] == "s3://bucket/cam/a.png"
    assert report.notes == ()


@settings(max_examples=15)
@given(noise())
def test_noise_comes_back_from_brushes_and_from_polygons(tmp_path_factory, masks):
    items = [record("a.png", [instance(mask, i) for i, mask in enumerate(masks)])]
    root = tmp_path_factory.mktemp("noise")
    for shape in ("brush", "polygon"):
        assert exported(items, root / shape, shape=shape)[1].deviations == ()


def test_polygons_are_in_percent_one_region_a_part(tmp_path):
    items = [record("a.png", [instance(mask, i) for i, mask in enumerate(SHAPES.values())])]
    _, back = exported(items, tmp_path / "out", shape="polygon")
    assert back.deviations == ()
    regions = tasks(tmp_path / "out")[0]["predictions"][0]["result"]
    at = list(SHAPES).index("twelve parts")
    twelve = [r for r in regions if r.get("meta", {}).get("object") == at]
    assert len(twelve) == 12
    rings = tuple(
        tuple(v * s / 100 for p in r["value"]["points"] for v, s in zip(p, (160, 120), strict=True))
        for r in twelve
    )
    assert (decode(from_polygons(rings, (120, 160))) == SHAPES["twelve parts"]).all()


def test_the_configuration_fits_the_tasks(tmp_path):
    for shape, tag in (("brush", "BrushLabels"), ("polygon", "PolygonLabels")):
        items = [record("a.png", [instance(SHAPES["disc"])])]
        exported(items, tmp_path / shape, shape=shape, from_name="tag", to_name="img", data_key="url")
        view = ElementTree.parse(tmp_path / shape / "label_config.xml").getroot()
        image, labels = view.find("Image"), view.find(tag)
        (task,) = tasks(tmp_path / shape)
        (region,) = task["predictions"][0]["result"]
        assert (image.get("name"), image.get("value")) == (region["to_name"], "$url")
        assert (labels.get("name"), labels.get("toName")) == (region["from_name"], region["to_name"])
        assert "url" in task["data"]
        assert [label.get("value") for label in labels] == [c.name for c in CATEGORIES]


@pytest.mark.parametrize(("number", "files"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_the_tasks_are_cut_into_files(tmp_path, number, files):
    items = [record(f"{i}.png", [instance(SHAPES["disc"])]) for i in range(number)]
    report, back = exported(items, tmp_path / "out", images_per_file=2)
    found = sorted(p.name for p in (tmp_path / "out").glob("tasks*"))
    assert found == [f"tasks_{i + 1:06d}.json" for i in range(files)]
    assert [t["data"]["image"][-5:] for t in tasks(tmp_path / "out")] == [f"{i}.png" for i in range(number)]
    assert (report.images, back.objects, back.deviations) == (number, number, ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["copy", "upright"])
def test_brushes_lie_on_the_picture_as_a_browser_turns_it(tmp_path, orientation, mode):
    items = [turned(tmp_path, orientation, suffix) for suffix in (".jpg", ".png")]
    _, back = exported(items, tmp_path / "out", images=mode, image_root="")
    assert back.deviations == ()
    for task in tasks(tmp_path / "out"):
        seen = np.array(
            ImageOps.exif_transpose(Image.open(tmp_path / "out" / task["data"]["image"])).convert("RGB")
        )
        (region,) = task["predictions"][0]["result"]
        assert seen.shape[:2] == (region["original_height"], region["original_width"])
        assert ((alpha(region) > 0) == is_red(seen)).mean() > 0.99


def test_fields_scores_and_crowds_survive_the_way_back_in(tmp_path):
    extra = json.dumps({"meta": {"text": ["hard"]}, "attributes": {"colour": "red"}})
    item = photo(tmp_path, "a.png")
    objects = [instance(SHAPES["disc"], origin="label", extra=extra, crowd=True), instance(SHAPES["two parts"], 1)]
    item = record("a.png", objects, item.path, split="val", extra=json.dumps({"data": {"camera": 7}}))
    for shape in ("brush", "polygon"):
        exported([item], tmp_path / shape, shape=shape, images="copy")
        source = LabelStudioSource(path=str(tmp_path / shape), images_dir=None, data_key=None, results="either")
        (ref,) = source.images()
        assert json.loads(ref.extra)["data"]["camera"] == 7
        first, second = map(json.loads, ref.labels.extras)
        assert first["meta"]["text"] == ["hard"]
        assert first["attributes"] == {"colour": "red"}
        assert second["score"] == 0.9
        assert ref.labels.crowd == (True, False)
        assert len(ref.labels) == 2


@pytest.mark.parametrize(("parts", "many"), [("keep", 3), ("split", 5)])
def test_objects_that_had_a_number_in_the_source_are_not_joined_with_others(tmp_path, parts, many):
    masks = [SHAPES["two parts"], SHAPES["disc"], SHAPES["two parts"]]
    stated = [1, 2, "mine"]
    objects = [
        instance(mask, i, extra=json.dumps({"meta": {"object": number}}))
        for i, (mask, number) in enumerate(zip(masks, stated, strict=True))
    ]
    item = record("a.png", objects, photo(tmp_path, "a.png").path)
    exported([item], tmp_path / "out", shape="polygon", images="copy", parts=parts)
    (ref,) = LabelStudioSource(
        path=str(tmp_path / "out"), images_dir=None, data_key=None, results="either"
    ).images()
    assert len(ref.labels) == many
    (task,) = tasks(tmp_path / "out")
    assert [r["meta"]["object"] for r in task["predictions"][0]["result"] if "meta" in r][-1] == (
        2 if parts == "keep" else "mine"
    )


def test_fewer_points_keep_the_iou_that_was_asked_for(tmp_path):
    items = [record("a.png", [instance(SHAPES["disc"])])]
    report, back = exported(items, tmp_path / "out", shape="polygon", simplify_iou=0.95)
    (deviation,) = back.deviations
    assert 0.95 <= deviation.iou < 1
    assert (deviation.reason, report.counts["simplified"]) == ("simplified", 1)


def test_polygons_that_another_reader_draws_are_outlined_anew_where_they_come_back_as_another_mask(tmp_path):
    objects = drawn_for_yolo()
    report, back = exported([record("a.png", objects)], tmp_path / "out", shape="polygon")
    assert all(one.iou >= 0.98 and one.reason == "the source's own polygons" for one in back.deviations)
    counts = report.counts
    assert (counts["source_polygons"], counts["polygons_redrawn"]) == (2, len(objects) - 2)
    assert f"{len(objects) - 2} objects are outlined again" in " ".join(report.notes)


def test_numbers_that_are_not_finite_are_never_written(tmp_path):
    exported([record("a.png", [instance(SHAPES["disc"], detector_score=math.nan)])], tmp_path / "out")
    (task,) = tasks(tmp_path / "out")
    assert "score" not in task["predictions"][0]
    assert "score" not in task["predictions"][0]["result"][0]


def test_a_picture_without_objects_has_a_prediction_of_none(tmp_path):
    exported([record("b.png")], tmp_path / "out")
    assert tasks(tmp_path / "out")[0]["predictions"][0]["result"] == []


def test_the_sdk_s_converter_decodes_the_brushes(tmp_path):
    sdk = pytest.importorskip("label_studio_sdk.converter.brush", reason="reads with label-studio-sdk")
    exported([record("a.png", [instance(m, i) for i, m in enumerate(SMALL.values())])], tmp_path / "out")
    for region, mask in zip(tasks(tmp_path / "out")[0]["predictions"][0]["result"], SMALL.values(), strict=True):
        assert (sdk.decode_rle(region["value"]["rle"]).reshape(*mask.shape, 4)[..., 3] == mask * 255).all()


def test_a_class_name_of_several_lines_is_one_line(tmp_path):
    report, _ = exported([], tmp_path / "out", (Category(1, "a\nb"),))
    label = ElementTree.parse(tmp_path / "out" / "label_config.xml").getroot().find("BrushLabels/Label")
    assert (label.get("value"), report.counts["names_changed"]) == ("a b", 1)
