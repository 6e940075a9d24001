import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autolabel.export.coco import CocoExporter
from autolabel.export.coco_panoptic import CocoPanopticExporter
from autolabel.export.coco_results import CocoResultsExporter
from tests.records import ListReader, failed, instance, picture, record, shapes
from tests.unit.test_export_coco import SETTINGS as COCO_SETTINGS
from tests.unit.test_export_coco_panoptic import SETTINGS as PANOPTIC_SETTINGS

SETTINGS = {
    "ids": "source",
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "drop",
}


def a_run():
    objects = [
        instance(mask, i, category_id=(3, 7)[i % 2], detector_score=0.5 + i / 100)
        for i, mask in enumerate(shapes().values())
    ]
    first = replace(record("b.jpg", objects), source_id=40)
    return ListReader(
        [first, failed("bad.jpg"), record("a.jpg", objects[:2]), replace(record("c.jpg"), source_id=7)]
    )


def export(run, tmp_path, **changes):
    exporter = CocoResultsExporter(**{**SETTINGS, **changes})
    report = exporter.export(run, tmp_path / "results")
    return report, tmp_path / "results" / "results.json", exporter


def test_pycocotools_scores_the_results_of_a_run_against_its_own_annotations_at_ap_one(tmp_path):
    CocoExporter(**{**COCO_SETTINGS, "ids": "source"}).export(a_run(), tmp_path / "coco")
    _, path, _ = export(a_run(), tmp_path)
    truth = COCO(tmp_path / "coco" / "instances.json")
    for kind in ("segm", "bbox"):
        evaluation = COCOeval(truth, truth.loadRes(str(path)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("source_ids", "expected"),
    [
        ((None, None, None, None), [2, 3, 4]),
        ((70, 9, None, None), [9, 71, 72]),
        ((70, None, None, 3), [71, 72, 3]),
    ],
)
@pytest.mark.parametrize("split_files", [False, True])
def test_an_image_has_one_id_in_all_formats_whatever_is_left_out(tmp_path, source_ids, expected, split_files):
    """The first has no object and the second no picture any more."""
    gone = record("b.jpg", [instance(shapes()["disc"])], path=picture(tmp_path / "b.jpg"))
    Path(gone.path).unlink()
    there = [
        record(f"{name}.jpg", [instance(shapes()["ring"])], path=picture(tmp_path / f"{name}.jpg"))
        for name in "cd"
    ]
    items = [record("a.jpg"), gone, *there]
    run = ListReader([replace(one, source_id=id_) for one, id_ in zip(items, source_ids, strict=True)])
    changes = {"empty_images": "drop", "images": "copy", "split_files": split_files}
    CocoExporter(**{**COCO_SETTINGS, "ids": "source", **changes}).export(run, tmp_path / "coco")
    files = [json.loads(path.read_bytes()) for path in (tmp_path / "coco").glob("instances*.json")]
    listed = {image["file_name"]: image["id"] for file in files for image in file["images"]}
    rows = json.loads(export(run, tmp_path)[1].read_bytes())
    assert [row["image_id"] for row in rows] == expected
    assert listed == {"c.jpg": expected[1], "d.jpg": expected[2]}
    assert {a["image_id"] for file in files for a in file["annotations"]} == set(expected[1:])
    panoptic = CocoPanopticExporter(**{**PANOPTIC_SETTINGS, "ids": "source"})
    panoptic.export(run, tmp_path / "panoptic")
    images = json.loads((tmp_path / "panoptic" / "panoptic.json").read_bytes())["images"]
    assert [image["id"] for image in images][1:] == expected


def test_every_detection_carries_its_images_id_its_score_and_comes_back_exactly(tmp_path):
    report, path, exporter = export(a_run(), tmp_path)
    rows = json.loads(path.read_bytes())
    assert [row["image_id"] for row in rows] == [40] * len(shapes()) + [41] * 2
    assert rows[3]["score"] == 0.53
    assert (report.images, report.instances) == (3, len(shapes()) + 2)
    assert exporter.read_back(a_run(), tmp_path / "results").deviations == ()


def test_a_run_without_detections_is_an_empty_list_and_the_report_says_what_loadres_does(tmp_path):
    report, path, exporter = export(ListReader([record("a.jpg")]), tmp_path)
    assert json.loads(path.read_bytes()) == []
    assert "loadRes" in report.notes[0]
    assert exporter.read_back(ListReader([record("a.jpg")]), tmp_path / "results").objects == 0


def test_a_score_that_is_no_number_is_zero_and_a_crowd_is_left_out(tmp_path):
    objects = [instance(shapes()["disc"], 0, detector_score=math.nan), instance(shapes()["ring"], 1, crowd=True)]
    report, path, _ = export(ListReader([record("a.jpg", objects)]), tmp_path)
    assert [row["score"] for row in json.loads(path.read_bytes())] == [0.0]
    assert (report.counts["not_finite"], report.counts["crowds_left_out"]) == (1, 1)
