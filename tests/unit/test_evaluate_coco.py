"""The twelve lines of COCO are those that pycocotools gives for the exported files."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autolabel.core.types import Category
from autolabel.evaluate.coco import KEYS
from autolabel.export.coco_results import CocoResultsExporter
from autolabel.ops.masks import area_px
from tests.scenes import CAT, CATEGORIES, DOG, album, at, judge, one_picture, ref, run, run_record, truth

EXPORT = {"ids": "source", "holes": "keep", "parts": "keep", "overlaps": "keep", "min_area_px": 1, "crowd": "drop"}


def truth_file(refs, path):
    """As somebody else would write it."""
    annotations = [
        {
            "id": one.labels.source_ids[i],
            "image_id": one.source_id,
            "category_id": int(one.labels.category_ids[i]),
            "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))],
            "area": area_px(shape),
            "iscrowd": int(one.labels.crowd[i]),
            "segmentation": {"size": list(shape.size_hw), "counts": shape.counts.decode()},
        }
        for one in refs
        for i, (box, shape) in enumerate(zip(one.labels.boxes_xyxy, one.labels.shapes, strict=True))
    ]
    images = [{"id": r.source_id, "file_name": r.image_id, "height": 120, "width": 160} for r in refs]
    categories = [{"id": c.id, "name": c.name} for c in CATEGORIES]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def by_pycocotools(truth_path, results_path, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(truth_path)
        rows = json.loads(results_path.read_text())
        # A row with a box would get its size from the box: detectron2 takes it out for masks.
        rows = [{k: v for k, v in row.items() if kind == "bbox" or k != "bbox"} for row in rows]
        evaluation = COCOeval(known, known.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    per_class = [float(np.mean(precision[:, :, k])) for k in range(precision.shape[2])]
    return evaluation.stats, per_class


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_pycocotools_on_the_exported_files(seed, tmp_path):
    refs, records = album(seed)
    CocoResultsExporter(**EXPORT).export(run(records), tmp_path / "results")
    path = truth_file(refs, tmp_path / "truth.json")
    found = judge(run(records), truth(refs))
    for kind, ours in (("segm", found.segm), ("bbox", found.bbox)):
        stats, per_class = by_pycocotools(path, tmp_path / "results" / "results.json", kind)
        assert [-1 if ours[key] is None else ours[key] for key in KEYS] == pytest.approx(list(stats), abs=1e-6)
        if kind == "segm":
            assert [-1 if c.AP is None else c.AP for c in found.per_class] == pytest.approx(per_class, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_recall_of_each_class_at_the_matching_iou_is_that_of_pycocotools(seed, tmp_path):
    refs, records = album(seed)
    CocoResultsExporter(**EXPORT).export(run(records), tmp_path / "results")
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(truth_file(refs, tmp_path / "truth.json"))
        rows = json.loads((tmp_path / "results" / "results.json").read_text())
        evaluation = COCOeval(known, known.loadRes([{**r, "bbox": []} for r in rows]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][0, :, 0, 2]
    found = judge(run(records), truth(refs))
    assert [-1 if c.recall is None else c.recall for c in found.per_class] == pytest.approx(list(recall))


def test_a_detector_of_equal_scores_is_said_to_rank_nothing():
    found = one_picture([(CAT, at(40, 40)), (DOG, at(100, 60))], [(CAT, at(40, 40)), (DOG, at(100, 60))])
    assert any("same detector score" in note for note in found.notes)


def test_box_ap_compares_the_masks_box_or_the_prompts_as_asked():
    refs = [ref("a.jpg", [(CAT, at(60, 60))])]
    records = [run_record("a.jpg", [(CAT, at(60, 60))], box_xyxy=(0.0, 0.0, 5.0, 5.0))]
    assert judge(run(records), truth(refs), box="mask").bbox["AP"] == pytest.approx(1)
    assert judge(run(records), truth(refs), box="prompt").bbox["AP"] == 0


def test_cost_follows_the_objects_and_not_the_classes_times_the_pictures(monkeypatch):
    """Pictures of LVIS have some 10 of 1203 classes each; every pair costs pycocotools time and memory."""
    categories = tuple(Category(k, f"class {k}") for k in range(1, 1204))
    refs = [ref(f"{n}.jpg", [(10 * n + k, at(40 * k, 60)) for k in (1, 2)]) for n in range(5)]
    records = [
        run_record(one.image_id, [(10 * n + 1, at(40, 60)), (1100 + n, at(80, 60))]) for n, one in enumerate(refs)
    ]
    judged = []
    of_one = COCOeval.evaluateImg

    def counting(self, image, category, area, most):
        judged.append((image, category))
        return of_one(self, image, category, area, most)

    monkeypatch.setattr(COCOeval, "evaluateImg", counting)
    found = judge(run(records, categories), truth(refs, categories))
    assert len(set(judged)) <= 15, "of 5 pictures with 3 classes each"
    assert found.segm["AP"] == pytest.approx(0.5)
    assert len(found.document()["confusion"]) <= 15
