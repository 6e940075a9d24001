import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autolabel.core.errors import ExportError
from autolabel.core.types import Columns, Rle
from autolabel.export.coco import CocoExporter
from autolabel.ops.masks import area_px, bounds_xyxy, decode, encode, from_polygons
from tests.rasters import is_red, turned
from tests.records import (
    CATEGORIES,
    ListReader,
    disc,
    drawn_for_yolo,
    failed,
    instance,
    picture,
    record,
    shapes,
    tree_bytes,
)

EMPTY = np.zeros((120, 160), np.uint8)
TRIANGLE = (10.25, 10.5, 60.75, 12.0, 30.0, 70.125)


def a_run():
    objects = [instance(mask, i, category_id=(3, 7)[i % 2]) for i, mask in enumerate(shapes().values())]
    return ListReader(
        [record("cam1/0.jpg", objects), failed("bad.jpg"), record("cam2/0.jpg"), record("cam2/1.jpg", objects[:2])]
    )


SETTINGS = {
    "segmentation": "polygon",
    "ids": "new",
    "images": "none",
    "empty_images": "keep",
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
    "simplify_iou": None,
    "warn_iou": 0.98,
    "split_files": False,
    "val_fraction": 0.5,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}


def exporter(**changes):
    return CocoExporter(**{**SETTINGS, **changes})


def export(run, tmp_path, segmentation="polygon", **changes):
    report = exporter(segmentation=segmentation, **changes).export(run, tmp_path / "coco")
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
    assert "1 image that failed" in report.notes[0]


def test_more_images_than_are_written_in_one_go_are_all_there(tmp_path):
    _, path = export(ListReader([record(f"{n}.jpg") for n in range(401)]), tmp_path)
    assert [image["id"] for image in load(path)["images"]] == list(range(1, 402))


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


@pytest.mark.parametrize(("orientation", "told"), [(1, None), (6, None), (2, 1), (5, 1)])
def test_keypoints_of_mirrored_pictures_are_counted_since_left_and_right_may_be_exchanged(
    tmp_path, orientation, told
):
    posed = instance(shapes()["disc"], extra='{"keypoints":[1,2,2]}')
    plain = record("a.jpg", [posed, instance(shapes()["disc"])])
    run = ListReader([replace(plain, info=replace(plain.info, orientation=orientation))])
    report, _ = export(run, tmp_path)
    assert report.counts.get("keypoints_mirrored") == told
    assert any("left and right" in note for note in report.notes) == bool(told)


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


@pytest.mark.parametrize(
    ("changes", "lowest"),
    [
        ({}, 0.98),
        ({"segmentation": "rle"}, 0.98),
        ({"simplify_iou": 0.99}, 0.98),
        ({"warn_iou": 1}, 1.0),
        ({"warn_iou": 0}, 0.01),
    ],
)
def test_polygons_that_another_reader_draws_are_outlined_anew_where_pycocotools_makes_another_mask(
    tmp_path, changes, lowest
):
    objects = drawn_for_yolo()
    crowd = replace(objects[0], index=len(objects), crowd=True)
    run = ListReader([record("a.jpg", [*objects, crowd])])
    report, path = export(run, tmp_path, **changes)
    coco = COCO(path)
    masks = [coco.annToRLE(annotation) for annotation in coco.anns.values()]
    assert all(area_px(Rle(tuple(mask["size"]), _bytes(mask["counts"]))) for mask in masks)
    found = exporter(**changes).read_back(run, tmp_path / "coco").deviations
    assert all(one.iou >= lowest for one in found)
    assert {one.reason for one in found} <= {"the source's own polygons", "simplified"}
    counts = report.counts
    assert counts.get("source_polygons", 0) + counts["polygons_redrawn"] == len(objects) + 1
    assert f"{counts['polygons_redrawn']} objects are outlined again" in " ".join(report.notes)
    shapes_of = [annotation["segmentation"] for annotation in load(path)["annotations"]]
    came = [[list(one.polygons[0])] for one in (*objects, crowd)]
    assert sum(shape == own for shape, own in zip(shapes_of, came, strict=True)) == counts.get(
        "source_polygons", 0
    )


def test_a_polygon_that_is_too_long_for_pycocotools_is_outlined_anew(tmp_path):
    """The loader of YOLO draws it, whatever it is."""
    there_and_back = (0.0, 0.0, 160.0, 0.0, 160.0, 120.0, 0.0, 120.0) * 2000
    own = instance(shapes()["full"], origin="label", polygons=(there_and_back,))
    report, path = export(ListReader([record("a.jpg", [own])]), tmp_path)
    assert load(path)["annotations"][0]["segmentation"] == [[160, 0, 160, 120, 0, 120, 0, 0]]
    assert report.counts["polygons_redrawn"] == 1


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


def test_bare_pictures_are_written_like_those_with_more_to_tell(tmp_path):
    records = [record(name) for name in ("a\nb.jpg", "caf\udce9.jpg", 'q"uote.jpg', "日本.jpg")]
    _, bare = export(ListReader(records), tmp_path / "bare")
    _, more = export(ListReader([replace(one, split="train") for one in records]), tmp_path / "more")
    expected = [[*image.items(), ("split", "train")] for image in load(bare)["images"]]
    assert [list(image.items()) for image in load(more)["images"]] == expected


def test_an_empty_run_is_a_valid_file(tmp_path):
    _, path = export(ListReader([], categories=()), tmp_path)
    content = load(path)
    assert content["images"] == content["annotations"] == content["categories"] == []


@dataclass(frozen=True)
class ColumnsReader(ListReader):
    """Gives objects in columns wherever these say all of them."""

    def columns(self):
        for one in self.records():
            columns = Columns.of(one.instances) if one.num_kept else None
            yield (one, None) if columns is None else (replace(one, candidates=(), verdicts=()), columns)


@pytest.mark.parametrize("changes", [{}, {"segmentation": "rle"}, {"parts": "split"}, {"split_files": True}])
def test_objects_in_columns_give_the_same_bytes_as_objects(tmp_path, changes):
    crowd = record("z.jpg", [instance(shapes()["disc"], crowd=True), instance(shapes()["ring"], 1)])
    items = [*a_run().items, crowd, record("zz.jpg", [instance(shapes()["line"], predicted_iou=None)])]
    for name, reader in (("one", ListReader), ("two", ColumnsReader)):
        export(reader(items), tmp_path / name, **changes)
    assert tree_bytes(tmp_path / "one") == tree_bytes(tmp_path / "two")


def an_upgraded_set():
    """Records as a COCO source gives them, with ids and fields of its own, and one image without."""
    own = [
        instance(shapes()["disc"], 0, source_id=70, extra='{"attributes": {"hat": true}, "area": 1}'),
        instance(shapes()["ring"], 1),
        instance(shapes()["line"], 2, source_id=12),
    ]
    first = replace(record("b.jpg", own, split="val"), source_id=900, extra='{"license": 3, "width": 1}')
    return ListReader(
        [first, record("new.jpg", own[1:2]), replace(record("a.jpg"), source_id=17)],
        categories=(replace(CATEGORIES[0], extra='{"supercategory": "animal"}'), CATEGORIES[1]),
        document='{"info": {"year": 2017}, "licenses": [{"id": 3}], "x-note": "mine", "images": []}',
    )


def test_ids_of_the_source_are_kept_and_new_ones_count_on_from_the_largest(tmp_path):
    content = load(export(an_upgraded_set(), tmp_path, ids="source")[1])
    assert [(i["id"], i["file_name"]) for i in content["images"]] == [
        (900, "b.jpg"),
        (901, "new.jpg"),
        (17, "a.jpg"),
    ]
    assert [(a["id"], a["image_id"]) for a in content["annotations"]] == [
        (70, 900),
        (71, 900),
        (12, 900),
        (72, 901),
    ]
    assert not any("source_id" in annotation for annotation in content["annotations"])


def test_unknown_fields_of_the_source_stand_where_they_stood_and_never_over_ours(tmp_path):
    content = load(export(an_upgraded_set(), tmp_path, ids="source")[1])
    assert content["info"] == {"year": 2017}
    assert (content["licenses"], content["x-note"]) == ([{"id": 3}], "mine")
    assert content["categories"][0] == {"id": 3, "name": "cat", "supercategory": "animal"}
    assert (content["images"][0]["license"], content["images"][0]["width"]) == (3, 160)
    annotation = content["annotations"][0]
    assert annotation["attributes"] == {"hat": True}
    assert annotation["area"] == int(shapes()["disc"].sum())


@pytest.mark.parametrize("split", [3, ["a"], "", {"a": 1}, None])
def test_a_split_that_is_no_text_stays_as_the_field_that_it_was(tmp_path, split):
    extra = json.dumps({"split": split, "id": 5, "width": 1})
    content = load(export(ListReader([record("a.jpg", extra=extra), record("b.jpg", split="val")]), tmp_path)[1])
    size = {"width": 160, "height": 120}
    assert content["images"] == [
        {"id": 1, "file_name": "a.jpg", **size, "split": split},
        {"id": 2, "file_name": "b.jpg", **size, "split": "val"},
    ]
    _, path = export(ListReader([record("a.jpg", split="val", extra=extra)]), tmp_path)
    assert load(path)["images"][0]["split"] == "val"


def test_ids_are_never_there_twice_whatever_the_source_and_the_policies_bring(tmp_path):
    objects = [instance(shapes()["twelve parts"], 0, source_id=5), instance(shapes()["disc"], 1, source_id=5)]
    twice = [replace(record(f"{n}.jpg", objects), source_id=5) for n in range(2)]
    report, path = export(ListReader(twice), tmp_path, ids="source", parts="split")
    content = load(path)
    for rows, length in (("images", 2), ("annotations", 26)):
        ids = [row["id"] for row in content[rows]]
        assert len(set(ids)) == len(ids) == length
        assert ids[0] == 5
    assert report.counts["ids_changed"] == 4


def test_an_id_zero_is_kept_and_the_report_says_what_it_means(tmp_path):
    zero = instance(shapes()["disc"], source_id=0)
    report, path = export(ListReader([record("a.jpg", [zero])]), tmp_path, ids="source")
    assert load(path)["annotations"][0]["id"] == 0
    assert "COCOeval" in report.notes[0]


def test_a_field_of_the_source_that_is_no_json_is_an_error(tmp_path):
    bad = instance(shapes()["disc"], extra="{")
    with pytest.raises(ExportError, match="are not JSON"):
        export(ListReader([record("a.jpg", [bad])]), tmp_path)


def test_one_file_a_split_holds_the_images_of_that_split_alone(tmp_path):
    items = [record(f"{n}.jpg", [instance(shapes()["disc"])]) for n in range(20)]
    items[3] = replace(items[3], split="test2017")
    whole = load(export(ListReader(items), tmp_path / "one")[1])
    report, _ = export(ListReader(items), tmp_path, split_files=True)
    files = [load(tmp_path / "coco" / f"instances_{side}.json") for side in ("train", "val", "test")]
    assert report.files == ("instances_test.json", "instances_train.json", "instances_val.json", "manifest.json")
    assert [image["file_name"] for image in files[2]["images"]] == ["3.jpg"]
    for rows in ("images", "annotations"):
        assert sorted((r for file in files for r in file[rows]), key=lambda r: r["id"]) == whole[rows]
    assert (report.images, report.instances) == (20, 20)


def test_images_without_an_object_can_be_left_out(tmp_path):
    report, path = export(a_run(), tmp_path, empty_images="drop")
    assert [image["file_name"] for image in load(path)["images"]] == ["cam1/0.jpg", "cam2/1.jpg"]
    assert report.counts["images_empty"] == 1


@pytest.mark.parametrize("segmentation", ["polygon", "rle"])
def test_everything_that_coco_can_hold_is_read_back_without_a_deviation(tmp_path, segmentation):
    run = a_run()
    export(run, tmp_path, segmentation)
    found = exporter(segmentation=segmentation).read_back(run, tmp_path / "coco")
    assert (found.objects, found.deviations) == (len(shapes()) + 2, ())


def test_what_does_not_come_back_is_listed_with_its_reason(tmp_path):
    triangle = instance(from_polygons((TRIANGLE,), (120, 160)), 0, origin="label", polygons=(TRIANGLE,))
    loose = replace(triangle, index=1, mask=encode(np.maximum(decode(triangle.mask), disc(120, 160, 30, 70, 3))))
    objects = [triangle, loose, instance(shapes()["ring"], 2), instance(shapes()["pixel"], 3)]
    run, changes = ListReader([record("a.jpg", objects)]), {"holes": "fill", "min_area_px": 2}
    export(run, tmp_path, **changes)
    found = exporter(**changes).read_back(run, tmp_path / "coco").deviations
    assert [(d.index, d.reason) for d in found] == [
        (1, "the source's own polygons"),
        (2, "hole filled"),
        (3, "not written: 1 px, under min_area_px"),
    ]


def test_fewer_points_never_go_below_the_floor_and_the_lowest_iou_is_told(tmp_path):
    run = a_run()
    exact, whole = export(run, tmp_path / "exact")
    report, path = export(run, tmp_path, simplify_iou=0.95)
    deviations = exporter(simplify_iou=0.95).read_back(run, tmp_path / "coco").deviations
    assert path.stat().st_size < whole.stat().st_size * 0.7
    assert all(d.iou >= 0.95 and d.reason == "simplified" for d in deviations)
    assert f"{min(d.iou for d in deviations):.3f}" in report.notes[-1]
    assert report.counts["simplified"] == len(deviations)
    assert "simplified" not in exact.counts


def test_what_is_told_of_outlines_is_of_one_export_alone(tmp_path):
    one = exporter(simplify_iou=0.9)
    loose = one.export(a_run(), tmp_path / "loose")
    plain = one.export(ListReader([record("a.png", [instance(np.ones((9, 9), np.uint8))])]), tmp_path / "plain")
    assert "the lowest IoU of an outline with its mask is" in loose.notes[-1]
    assert not any("outline" in note for note in plain.notes)


def test_copied_pictures_keep_their_names_but_for_those_that_no_reader_takes(tmp_path):
    ids = ["a.jpg", "a.png", "x/a.jpg", "_.hid.jpg", ".hid.jpg", "x\ry.jpg", "caf\udce9.jpg"]
    items = [
        record(name, [instance(disc(120, 160, 60, 60, 9 + n))], path=picture(tmp_path / "photos" / f"{n}.png"))
        for n, name in enumerate(ids)
    ]
    run = ListReader(items)
    report, path = export(run, tmp_path, images="copy")
    names = [image["file_name"] for image in load(path)["images"]]
    assert names[:4] == ids[:4]
    assert names[5:] == ["x%0Dy.jpg", "caf%E9.jpg"]
    assert re.fullmatch(r"_\.hid~[0-9a-f]{12}\.jpg", names[4])
    for name, item in zip(names, items, strict=True):
        assert (tmp_path / "coco" / "images" / name).read_bytes() == Path(item.path).read_bytes()
    assert (report.counts["renamed"], report.counts.get("not_utf8", 0)) == (3, 0)
    assert any("3 pictures are named differently" in note for note in report.notes)
    assert exporter(images="copy").read_back(run, tmp_path / "coco").deviations == ()


def as_opencv_reads(path):
    return cv2.imread(str(path))[..., ::-1]


def as_pillow_reads(path):
    with Image.open(path) as found:
        return np.asarray(found)


@pytest.mark.parametrize(("mode", "read"), [("copy", as_opencv_reads), ("upright", as_pillow_reads)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_on_the_picture_as_readers_turn_it_or_do_not(tmp_path, orientation, mode, read):
    _, file = export(ListReader([turned(tmp_path, orientation)]), tmp_path, images=mode)
    (image,), (annotation,) = load(file)["images"], load(file)["annotations"]
    seen = is_red(read(tmp_path / "coco" / "images" / image["file_name"]))
    assert seen.shape == (image["height"], image["width"])
    assert from_polygons(tuple(map(tuple, annotation["segmentation"])), seen.shape) == encode(seen)


def test_a_picture_that_is_gone_is_not_listed_when_pictures_are_written(tmp_path):
    items = [
        replace(record("a.jpg", [instance(shapes()["disc"], source_id=4)]), path=str(tmp_path / "gone.jpg")),
        record("b.png", path=picture(tmp_path / "b.png")),
    ]
    report, path = export(ListReader(items), tmp_path, images="copy")
    assert [image["file_name"] for image in load(path)["images"]] == ["b.png"]
    assert (report.images, report.instances, report.counts["images_missing"]) == (1, 0, 1)


def test_a_score_of_the_source_is_not_written_over(tmp_path):
    run = ListReader([record("a.jpg", [instance(shapes()["disc"], extra='{"score": 0.37}')])])
    _, path = export(run, tmp_path)
    assert load(path)["annotations"][0]["score"] == 0.37
