"""FiftyOne: every mask comes back from its own serialisation, and nothing in the files is more than it imports."""

import base64
import io
import json
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from autolabel.core.errors import ConfigError, ExportError
from autolabel.core.types import Category
from autolabel.export import fiftyone as module
from autolabel.export.fiftyone import FiftyOneExporter
from tests.rasters import is_red, noise, photo, turned
from tests.records import CATEGORIES, ListReader, disc, failed, instance, picture, record, shapes

SETTINGS = {
    "images": "upright",
    "label_field": "segmentations",
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
}
SHAPES = shapes()


def exported(items, folder, categories=CATEGORIES, **changes):
    exporter, run = FiftyOneExporter(**{**SETTINGS, **changes}), ListReader(items, categories)
    return exporter.export(run, folder), exporter.read_back(run, folder)


def samples(folder):
    return json.loads((folder / "samples.json").read_bytes())["samples"]


def drawn(detection, size_hw):
    """The mask where FiftyOne draws it: an array in its box, whose corners `BoundingBox.coords_in` cuts to whole pixels
    after `to_detected_object` has added the sides."""
    data = base64.b64decode(detection["mask"]["$binary"]["base64"])
    mask = np.load(io.BytesIO(zlib.decompress(data)))
    x, y, w, h = detection["bounding_box"]
    x0, y0 = int(size_hw[1] * x), int(size_hw[0] * y)
    assert mask.shape == (int(size_hw[0] * (y + h)) - y0, int(size_hw[1] * (x + w)) - x0)
    image = np.zeros(size_hw, np.uint8)
    image[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]] = mask
    return image


@pytest.fixture
def make(tmp_path):
    return partial(photo, tmp_path)


def test_every_mask_comes_back(tmp_path, make):
    report, back = exported([make("a.png", [*SHAPES.values()])], tmp_path / "out")
    (sample,) = samples(tmp_path / "out")
    for detection, mask in zip(sample["segmentations"]["detections"], SHAPES.values(), strict=True):
        np.testing.assert_array_equal(drawn(detection, (120, 160)), mask)
    assert (back.objects, back.deviations, report.instances) == (len(SHAPES), (), len(SHAPES))


@settings(max_examples=25)
@given(noise())
def test_noise_is_exact(tmp_path_factory, masks):
    folder = tmp_path_factory.mktemp("noise")
    items = [record("a.png", [instance(mask, i) for i, mask in enumerate(masks)])]
    _, back = exported(items, folder / "out", images="none")
    assert (back.objects, back.deviations) == (len(masks), ())


@given(st.integers(1, 100_000).flatmap(lambda size: st.tuples(st.just(size), *[st.integers(0, size)] * 2)))
@example((49, 3, 4))  # 3 / 49 * 49 is below 3
def test_no_corner_is_cut_to_the_pixel_before(drawn_in):
    size, *ends = drawn_in
    first, last = sorted(ends)
    begin, length = module._span(first, last, size)
    assert (int(size * begin), int(size * (begin + length))) == (first, last)
    assert begin + length <= 1 + 1e-15


def test_a_corner_a_hair_too_far_left_is_noticed(tmp_path, make):
    item = make("a.png", [SHAPES["disc"]])
    exported([item], tmp_path / "out")
    file = tmp_path / "out" / "samples.json"
    top = json.loads(file.read_bytes())
    top["samples"][0]["segmentations"]["detections"][0]["bounding_box"][0] -= 1e-9
    file.write_text(json.dumps(top))
    back = FiftyOneExporter(**SETTINGS).read_back(ListReader([item]), tmp_path / "out")
    assert [d.index for d in back.deviations] == [0]


def test_a_sample_says_all_that_is_known(tmp_path, make):
    labelled = make("b/a.png", [SHAPES["disc"]], source_id=77, extra='{"licence":1}', split="val")
    one = replace(
        labelled.candidates[0], source_id=5, crowd=True, extra='{"seen":true}', detector_score=float("nan")
    )
    report, _ = exported([replace(labelled, candidates=(one,))], tmp_path / "out")
    (sample,) = samples(tmp_path / "out")
    (detection,) = sample.pop("segmentations")["detections"]
    assert sample == {
        "filepath": "data/b/a.png",
        "tags": ["val"],
        "metadata": {"_cls": "ImageMetadata", "width": 160, "height": 120},
        "image_id": "b/a.png",
        "source_id": 77,
        "source_fields": '{"licence":1}',
    }
    known = {"label": "cat", "index": 0, "category_id": 3, "iscrowd": True, "source_id": 5, "predicted_iou": 0.8}
    assert known.items() <= detection.items()
    assert "confidence" not in detection
    assert report.counts["not_finite"] == 1


def test_the_metadata_has_no_version_so_that_every_release_reads_it(tmp_path):
    exported([], tmp_path / "out", (Category(7, "dog"), Category(3, "cat", '{"a":1}')))
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_bytes())
    assert set(metadata) == {"media_type", "info"}
    assert metadata["info"]["classes"] == ["cat", "dog"]
    assert metadata["info"]["categories"][0] == {"id": 3, "name": "cat", "source_fields": '{"a":1}'}
    assert samples(tmp_path / "out") == []


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_as_stored(tmp_path, suffix, orientation):
    exported([turned(tmp_path, orientation, suffix)], tmp_path / "out")
    (sample,) = samples(tmp_path / "out")
    seen = is_red(np.array(Image.open(tmp_path / "out" / sample["filepath"]).convert("RGB")))
    np.testing.assert_array_equal(drawn(sample["segmentations"]["detections"][0], seen.shape), seen)


def test_pictures_that_are_gone_or_changed_are_not_listed(tmp_path, make):
    items = [make(name, [SHAPES["disc"]]) for name in ("a.png", "b.png", "c.png", "d.png")]
    items[3] = replace(items[3], candidates=(replace(items[3].candidates[0], crowd=True),))
    Path(items[0].path).unlink()
    picture(Path(items[2].path), seed=99)
    report, back = exported([*items, failed("e.png")], tmp_path / "out", crowd="drop")
    assert [sample["image_id"] for sample in samples(tmp_path / "out")] == ["b.png", "d.png"]
    assert {"images_missing": 1, "images_changed": 1, "images_left_out": 1}.items() <= report.counts.items()
    assert [(d.image_id, d.reason) for d in back.deviations] == [
        ("a.png", "the image is not in the export"),
        ("c.png", "the image is not in the export"),
        ("d.png", "not written: crowd"),
    ]


def test_pictures_can_be_named_where_they_are(tmp_path, make):
    item = make("a.png", [SHAPES["disc"]])
    exported([item], tmp_path / "out", images="none")
    assert samples(tmp_path / "out")[0]["filepath"] == item.path
    assert not (tmp_path / "out" / "data").exists()
    there = record("b.png", [instance(SHAPES["disc"])], "")
    exported([replace(there, path="s3://bucket/photos/b.png")], tmp_path / "out", images="none")
    assert samples(tmp_path / "out")[0]["filepath"] == "s3://bucket/photos/b.png"


def test_hostile_names_and_images_without_objects(tmp_path, make):
    ids = ["new\nline.png", "../up.png", "é 日本.png", "stray\udce9.png", ".h/x.png", "a.png", "a.jpg"]
    items = [replace(make(f"{n}.png"), image_id=name) for n, name in enumerate(ids)]
    report, _ = exported(items, tmp_path / "out")
    found = samples(tmp_path / "out")
    assert [sample["image_id"] for sample in found] == [*ids[:3], "stray%E9.png", *ids[4:]]
    assert all(
        (tmp_path / "out" / sample["filepath"]).resolve().is_relative_to(tmp_path / "out") for sample in found
    )
    assert len({sample["filepath"] for sample in found}) == len(ids)
    assert all(sample["segmentations"]["detections"] == [] for sample in found)
    assert report.counts["not_utf8"] == 1


def test_names_that_differ_in_stray_bytes_alone_have_a_sample_each(tmp_path, make):
    ids = ["a/\udcff\udcfe.png", "a/%FF%FE.png", "a/%FF\udcfe.png", "caf\udce9.png"]
    items = [
        replace(make(f"{n}.png", [disc(120, 160, 60, 60, 9 + n)]), image_id=name) for n, name in enumerate(ids)
    ]
    report, back = exported(items, tmp_path / "out")
    found = [sample["image_id"] for sample in samples(tmp_path / "out")]
    assert (len(set(found)), found[1], found[3]) == (4, "a/%FF%FE.png", "caf%E9.png")
    assert (back.objects, back.deviations, report.counts["not_utf8"]) == (4, (), 3)
    Path(items[0].path).unlink()
    _, back = exported(items, tmp_path / "again")
    assert [(d.image_id, d.reason) for d in back.deviations] == [(ids[0], "the image is not in the export")]


def test_reading_back_streams_and_a_torn_file_is_an_error(tmp_path, make, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 37)
    items = [make(f"{n}.png", [SHAPES["ring"], SHAPES["noise"]]) for n in range(3)]
    exporter, run = FiftyOneExporter(**SETTINGS), ListReader(items)
    exporter.export(run, tmp_path / "out")
    assert exporter.read_back(run, tmp_path / "out").deviations == ()
    file = tmp_path / "out" / "samples.json"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"samples\.json ends within a sample"):
        exporter.read_back(run, tmp_path / "out")


def test_policies_change_masks_and_say_so(tmp_path, make):
    items = [make("a.png", [SHAPES["ring"], SHAPES["two parts"]])]
    report, back = exported(items, tmp_path / "out", holes="fill", parts="split")
    assert report.instances == 3
    assert [(d.index, d.reason) for d in back.deviations] == [(0, "hole filled")]


@pytest.mark.parametrize("name", ["a b", "tags", "_x"])
def test_a_label_field_that_cannot_be_one_or_is_taken_is_refused(name):
    with pytest.raises(ConfigError, match="label_field must be a name of letters"):
        FiftyOneExporter(**{**SETTINGS, "label_field": name})
