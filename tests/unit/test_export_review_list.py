"""The review list: what is doubtful is on it, worst first, and the rest is not."""

import csv
import json

import numpy as np
import pytest

from autolabel.core.types import BEFORE_REFINING, Category, ImageRecord, Verdict
from autolabel.export.review_list import COLUMNS, ReviewListExporter
from tests.records import CATEGORIES, ListReader, failed, instance, record

SQUARE = np.zeros((120, 160), np.uint8)
SQUARE[20:60, 30:80] = 1
FITS = (30.0, 20.0, 80.0, 60.0)


def listed(tmp_path, records, categories=CATEGORIES, **changes):
    settings = {"min_box_iou": 0.7, "min_replaced_iou": 0.8, "max_objects": None, **changes}
    report = ReviewListExporter(**settings).export(ListReader(records, categories), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "review.json").read_bytes())["objects"]
    with (tmp_path / "out" / "review.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["object"] for row in table] == [str(row["object"]) for row in rows]
    return rows, table, report


def test_a_mask_that_fits_its_box_is_not_listed(tmp_path):
    fine = [instance(SQUARE, 0, box_xyxy=FITS), instance(SQUARE, 1, box_xyxy=(29.1, 20.9, 79.2, 60.8))]
    rows, table, report = listed(tmp_path, [record("a.jpg", fine)])
    assert rows == table == []
    assert (report.images, report.instances, report.notes) == (1, 0, ())


def test_a_carriage_return_in_a_name_ends_no_row(tmp_path):
    doubtful = instance(SQUARE, 0, box_xyxy=(30, 20, 80, 100))
    _, table, _ = listed(tmp_path, [record("a\rb.jpg", [doubtful])], (Category(3, "car\r"),))
    assert [(row["image"], row["class"]) for row in table] == [("a\rb.jpg", "car\r")]


def test_the_worst_comes_first_with_its_numbers(tmp_path):
    doubtful = [
        instance(SQUARE, 0, box_xyxy=(30, 20, 80, 100), source_id=70),
        instance(SQUARE, 1, box_xyxy=FITS, replaced_iou=0.3, source_id=71),
        instance(SQUARE, 2, box_xyxy=(130, 80, 150, 110), replaced_iou=0.5),
    ]
    rows, _, report = listed(tmp_path, [record("a.jpg", doubtful), record("b.jpg", doubtful[:1])])
    assert [(r["image"], r["object"], r["source_id"], r["reason"]) for r in rows] == [
        ("a.jpg", 2, None, "box replaced"),
        ("a.jpg", 1, 71, "replaced"),
        ("a.jpg", 0, 70, "box"),
        ("b.jpg", 0, 70, "box"),
    ]
    assert [(r["box_iou"], r["replaced_iou"]) for r in rows] == [(0, 0.5), (1, 0.3), (0.5, None), (0.5, None)]
    assert {r["class"] for r in rows} == {"cat"}
    assert report.counts == {"box": 3, "images": 2, "instances": 4, "replaced": 2}


def test_a_box_beyond_the_picture_is_clipped_first(tmp_path):
    edge = np.zeros((120, 160), np.uint8)
    edge[:40, :40] = 1
    rows, _, _ = listed(tmp_path, [record("a.jpg", [instance(edge, box_xyxy=(-60, -60, 40, 40))])])
    assert rows == []


@pytest.mark.parametrize("box", [(np.nan, 0, 9, 9), (50, 50, 20, 20), (0, 0, 0, 0), (500, 0, 600, 9)])
def test_a_kept_mask_with_a_box_that_is_none_is_listed(tmp_path, box):
    rows, _, _ = listed(tmp_path, [record("a.jpg", [instance(SQUARE, box_xyxy=box, origin="label")])])
    assert [(r["box_iou"], r["origin"]) for r in rows] == [(0, "label")]


def test_a_mask_without_a_pixel_is_listed(tmp_path):
    rows, _, _ = listed(tmp_path, [record("a.jpg", [instance(SQUARE * 0, box_xyxy=FITS, origin="label")])])
    assert [(r["reason"], r["mask_px"]) for r in rows] == [("box", 0)]


def test_boxes_without_a_mask_are_listed_and_what_a_refiner_dropped_is_not(tmp_path):
    unanswered = [f"{word}: x" for word in BEFORE_REFINING]
    reasons = [*unanswered, "min_area: 3 < 9 px", None]
    many = [instance(SQUARE, i, box_xyxy=FITS) for i in range(len(reasons))]
    verdicts = tuple(Verdict(reason=reason) for reason in reasons)
    one = ImageRecord("a.jpg", "", "ok", record("a", many).info, candidates=tuple(many), verdicts=verdicts)
    rows, _, report = listed(tmp_path, [one])
    assert [(r["object"], r["reason"], r["detail"]) for r in rows] == [
        (i, "no_mask", reason) for i, reason in enumerate(unanswered)
    ]
    assert report.notes == (f"{len(unanswered)} boxes of labelled images have no mask",)


def test_the_list_can_be_limited_to_the_worst(tmp_path):
    many = [instance(SQUARE, i, box_xyxy=FITS, replaced_iou=0.7 - i / 100) for i in range(20)]
    rows, _, report = listed(tmp_path, [record("a.jpg", many)], max_objects=3)
    assert [r["object"] for r in rows] == [19, 18, 17]
    assert "17 more are not listed: max_objects" in report.notes


def test_failed_images_and_empty_runs_are_fine(tmp_path):
    assert listed(tmp_path, [])[:2] == ([], [])
    assert listed(tmp_path, [failed("a.jpg")])[:2] == ([], [])


@pytest.mark.parametrize("name", ["=cmd|'/C calc'!A0.jpg", "@a.jpg", "-1.jpg", "+1.jpg", "\ta.jpg"])
def test_a_name_that_a_spreadsheet_would_run_is_disarmed(tmp_path, name):
    one = record(name, [instance(SQUARE, replaced_iou=0.1)])
    rows, table, _ = listed(tmp_path, [one], (Category(3, name),))
    assert (rows[0]["image"], table[0]["image"]) == (name, f"'{name}")
    assert (rows[0]["class"], table[0]["class"]) == (name, f"'{name}")


def test_names_with_stray_bytes_and_line_breaks_stay_one_row(tmp_path):
    names = ['a\nb,"c".jpg', "x\udcff.jpg", "ü.jpg"]
    rows, table, _ = listed(tmp_path, [record(n, [instance(SQUARE, replaced_iou=0.1)]) for n in names])
    assert [r["image"] for r in rows] == names
    assert [r["image"] for r in table] == [names[0], "x\\udcff.jpg", "ü.jpg"]
    assert tuple(table[0]) == COLUMNS
