import json
import math
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autolabel.core.errors import ConfigError, ExportError
from autolabel.core.types import ImageInfo, Rle
from autolabel.export.coco import CocoExporter
from autolabel.ops.masks import area_px, bounds_xyxy, from_polygons
from tests.records import CATEGORIES, ListReader, disc, failed, instance, record, shapes, tree_bytes

EMPTY = np.zeros((120, 160), np.uint8)
TRIANGLE = (10.25, 10.5, 60.75, 12.0, 30.0, 70.125)


def a_run():
    objects = [instance(mask, i, category_id=(3, 7)[i % 2]) for i, mask in enumerate(shapes().values())]
    return ListReader(
        [record("cam1/0.jpg", objects), failed("bad.jpg"), record("cam2/0.jpg"), record("cam2/1.jpg", objects[:2])]
    )


def export(run, tmp_path, segmentation="polygon"):
    report = CocoExporter(segmentation=segmentation).export(run, tmp_path / "coco")
    return report, tmp_path / "coco" / "instances.json"


def load(path):
    return json.loads(path.read_bytes(), parse_constant=lambda word: pytest.fail(f"{word} in the file"))


@pytest.mark.parametrize("segmentation", ["polygon", "rle"])
def test_pycocotools_reads_every_mask_back_exactly(tmp_path, segmentation):
    run = a_run()
    _, path = export(run, tmp_path, segmentation)
    coco = COCO(path)
    kept = [i for r in run.items for i in r.instances]
    assert len(coco.anns) == len(kept)
    for number, expected in enumerate(kept, 1):
        found = coco.annToRLE(coco.anns[number])
        assert Rle(tuple(found["size"]), _bytes(found["counts"])) == expected.mask


def _bytes(counts):
    return counts if isinstance(counts, bytes) else counts.encode()


@pytest.mark.parametrize("segmentation", ["polygon", "rle"])
def test_pycocotools_scores_the_file_against_itself_at_ap_one(tmp_path, segmentation):
    _, path = export(a_run(), tmp_path, segmentation)
    truth = COCO(path)
    results = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "segmentation": truth.annToRLE(a),
            "score": 1.0,
        }
        for a in truth.anns.values()
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_images_are_all_listed_but_the_failed_ones_and_ids_count_from_one(tmp_path):
    report, path = export(a_run(), tmp_path)
    content = load(path)
    assert [(i["id"], i["file_name"]) for i in content["images"]] == [
        (1, "cam1/0.jpg"),
        (2, "cam2/0.jpg"),
        (3, "cam2/1.jpg"),
    ]
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(shapes()) + 3))
    assert content["categories"] == [{"id": c.id, "name": c.name} for c in CATEGORIES]
    assert (report.images, report.instances) == (3, len(shapes()) + 2)
    assert report.counts["images_left_out"] == 1
    assert "1 images that failed" in report.notes[0]


def test_area_and_bbox_are_those_of_the_mask_and_nothing_is_a_crowd(tmp_path):
    run = a_run()
    _, path = export(run, tmp_path)
    masks = [i.mask for r in run.items for i in r.instances]
    for annotation, mask in zip(load(path)["annotations"], masks, strict=True):
        x0, y0, x1, y1 = bounds_xyxy(mask)
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation["area"] == area_px(mask)
        assert annotation["iscrowd"] == 0


def test_numbers_that_are_not_finite_are_never_written(tmp_path):
    strange = instance(shapes()["disc"], detector_score=math.nan, predicted_iou=math.inf)
    report, path = export(ListReader([record("a.jpg", [strange])]), tmp_path)
    (annotation,) = load(path)["annotations"]
    assert not {"score", "predicted_iou"} & set(annotation)
    assert report.counts["not_finite"] == 2


def test_an_empty_mask_is_left_out_and_counted(tmp_path):
    report, path = export(
        ListReader([record("a.jpg", [instance(EMPTY), instance(shapes()["pixel"], 1)])]), tmp_path
    )
    assert [a["id"] for a in load(path)["annotations"]] == [1]
    assert report.counts["empty_masks"] == 1


def test_polygons_of_the_source_come_out_unchanged(tmp_path):
    mask = from_polygons((TRIANGLE,), (120, 160))
    own = instance(mask, origin="label", polygons=(TRIANGLE,), source_id=4711)
    _, path = export(ListReader([record("a.jpg", [own])]), tmp_path)
    (annotation,) = load(path)["annotations"]
    assert annotation["segmentation"] == [list(TRIANGLE)]
    assert annotation["source_id"] == 4711
    _, path = export(ListReader([record("a.jpg", [replace(own, polygons=((1.0, 1.0, 5.0, 5.0),))])]), tmp_path)
    assert len(load(path)["annotations"][0]["segmentation"][0]) > 6


@pytest.mark.parametrize("segmentation", ["polygon", "rle"])
def test_a_crowd_stays_a_crowd_with_its_mask(tmp_path, segmentation):
    crowd = instance(shapes()["twelve parts"], crowd=True, origin="label")
    _, path = export(ListReader([record("a.jpg", [crowd])]), tmp_path, segmentation)
    coco = COCO(path)
    assert coco.anns[1]["iscrowd"] == 1
    assert _bytes(coco.annToRLE(coco.anns[1])["counts"]) == crowd.mask.counts


def test_names_with_stray_bytes_and_newlines_come_back(tmp_path):
    names = ["a\nb.jpg", "caf\udce9.jpg", 'q"uote.jpg', "日本.jpg"]
    report, path = export(ListReader([record(name) for name in names]), tmp_path)
    assert [image["file_name"] for image in load(path)["images"]] == names
    assert report.counts["not_utf8"] == 1


def test_an_empty_run_is_a_valid_file(tmp_path):
    _, path = export(ListReader([], categories=()), tmp_path)
    content = load(path)
    assert content["images"] == content["annotations"] == content["categories"] == []


def test_the_same_records_give_the_same_bytes_and_a_manifest(tmp_path):
    export(a_run(), tmp_path / "one")
    export(a_run(), tmp_path / "two")
    first = tree_bytes(tmp_path / "one")
    assert first == tree_bytes(tmp_path / "two")
    assert set(first) == {"coco/instances.json", "coco/manifest.json"}


def test_an_interrupted_export_leaves_the_old_one_and_no_litter(tmp_path):
    export(a_run(), tmp_path)
    before = tree_bytes(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        export(replace(a_run(), break_at=2), tmp_path)
    assert tree_bytes(tmp_path) == before
    export(ListReader([]), tmp_path)
    assert tree_bytes(tmp_path).keys() == before.keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["coco"]


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="no export of autolabel"):
        export(a_run(), tmp_path)
    assert (tmp_path / "coco" / "thesis.txt").read_text() == "mine"


def test_an_object_of_a_class_without_name_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="class 99"):
        export(ListReader([record("a.jpg", [instance(disc(120, 160, 9, 9, 5), category_id=99)])]), tmp_path)


def test_a_mask_of_another_size_than_its_image_is_an_error(tmp_path):
    wrong = replace(record("a.jpg", [instance(shapes()["disc"])]), info=ImageInfo(120, 160))
    with pytest.raises(ExportError, match="a mask of"):
        export(ListReader([wrong]), tmp_path)


def test_a_wrong_setting_names_its_key():
    with pytest.raises(ConfigError, match=r"export\.coco\.segmentation"):
        CocoExporter(segmentation="png")
