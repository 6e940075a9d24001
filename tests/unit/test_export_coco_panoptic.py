import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from autolabel.core.errors import ConfigError
from autolabel.export.coco_panoptic import CocoPanopticExporter, _as_rgb, _numbers
from autolabel.export.pictures import png_bytes
from tests.records import CATEGORIES, ListReader, disc, failed, instance, record, shapes

SETTINGS = {"ids": "new", "overlaps": "score", "holes": "keep", "parts": "keep", "min_area_px": 1, "crowd": "keep"}
BIG, SMALL = disc(120, 160, 60, 60, 30), disc(120, 160, 85, 60, 12)


def export(run, tmp_path, **changes):
    exporter = CocoPanopticExporter(**{**SETTINGS, **changes})
    report = exporter.export(run, tmp_path / "out")
    return report, json.loads((tmp_path / "out" / "panoptic.json").read_bytes()), exporter


def numbers(tmp_path, annotation):
    """As panopticapi's rgb2id."""
    with Image.open(tmp_path / "out" / "panoptic" / annotation["file_name"]) as picture:
        rgb = np.asarray(picture).astype(int)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def check(tmp_path, content):
    """What panopticapi's evaluator demands of ground truth."""
    for annotation in content["annotations"]:
        found = numbers(tmp_path, annotation)
        segments = {s["id"]: s for s in annotation["segments_info"]}
        assert set(np.unique(found)) - {0} == set(segments)
        for number, segment in segments.items():
            y, x = np.nonzero(found == number)
            assert segment["area"] == len(x)
            assert segment["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


@pytest.mark.parametrize("name", shapes())
def test_every_shape_comes_back_exactly(tmp_path, name):
    run = ListReader([record("a.jpg", [instance(shapes()[name])]), failed("bad.jpg"), record("b.jpg")])
    report, content, exporter = export(run, tmp_path)
    check(tmp_path, content)
    assert (numbers(tmp_path, content["annotations"][0]) == shapes()[name]).all()
    assert exporter.read_back(run, tmp_path / "out").deviations == ()
    assert (report.images, report.instances, report.counts["images_left_out"]) == (2, 1, 1)


def test_three_hundred_objects_do_not_wrap(tmp_path):
    masks = np.zeros((300, 20, 300), np.uint8)
    masks[np.arange(300), :, np.arange(300)] = 1
    run = ListReader([record("a.jpg", [instance(mask, i) for i, mask in enumerate(masks)])])
    _, content, exporter = export(run, tmp_path)
    check(tmp_path, content)
    assert exporter.read_back(run, tmp_path / "out").deviations == ()


@pytest.mark.parametrize(("rule", "loser"), [("score", 1), ("smallest", 0)])
def test_an_overlap_has_one_owner_and_what_was_hidden_is_counted_and_listed(tmp_path, rule, loser):
    objects = [instance(BIG, 0, detector_score=0.9), instance(SMALL, 1, detector_score=0.5)]
    run = ListReader([record("a.jpg", objects)])
    report, content, exporter = export(run, tmp_path, overlaps=rule)
    check(tmp_path, content)
    hidden = int((BIG & SMALL).sum())
    assert report.counts["overlap_px"] == hidden
    (deviation,) = exporter.read_back(run, tmp_path / "out").deviations
    assert (deviation.index, deviation.reason) == (loser, f"overlap: {hidden} px belong to another object")


def test_a_crowd_lies_below_everything(tmp_path):
    run = ListReader(
        [record("a.jpg", [instance(SMALL, 0), instance(BIG, 1, crowd=True), instance(SMALL, 2, crowd=True)])]
    )
    report, content, exporter = export(run, tmp_path)
    check(tmp_path, content)
    assert [s["iscrowd"] for s in content["annotations"][0]["segments_info"]] == [0, 1]
    assert (report.counts["crowds_cut"], report.counts["crowds_hidden"]) == (1, 1)
    assert {d.reason for d in exporter.read_back(run, tmp_path / "out").deviations} == {
        "other objects lie on the crowd"
    }


def test_categories_are_things_unless_the_source_says_otherwise_and_ids_are_the_sources(tmp_path):
    grass = replace(CATEGORIES[1], extra='{"isthing": 0, "color": [1, 2, 3]}')
    items = [replace(record("a.jpg"), source_id=31), record("a.png")]
    _, content, _ = export(ListReader(items, (CATEGORIES[0], grass)), tmp_path, ids="source")
    assert [category["isthing"] for category in content["categories"]] == [1, 0]
    assert [image["id"] for image in content["images"]] == [31, 32]
    assert len({annotation["file_name"] for annotation in content["annotations"]}) == 2


def test_overlaps_cannot_be_kept():
    with pytest.raises(ConfigError, match=r"^overlaps"):
        CocoPanopticExporter(**{**SETTINGS, "overlaps": "keep"})


def test_a_picture_of_any_size_is_read_back(tmp_path, monkeypatch):
    """Image.open refuses pictures from twice this limit on."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    run = ListReader([record("a.png", [instance(BIG, 0)])])
    _, _, exporter = export(run, tmp_path)
    assert exporter.read_back(run, tmp_path / "out").deviations == ()


def test_numbers_come_back_from_their_colours(tmp_path):
    given = np.array([[0, 1, 255], [256, 65535, 65536], [1 << 17, (1 << 24) - 1, 70000]], np.int32)
    (tmp_path / "a.png").write_bytes(png_bytes(_as_rgb(given)))
    assert (_numbers(tmp_path / "a.png") == given).all()
