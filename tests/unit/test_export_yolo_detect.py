"""YOLO boxes: exact through the ultralytics loader, whatever the mask, the name or the orientation."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from autolabel.core.errors import ConfigError
from autolabel.export.yolo_detect import YoloDetectExporter
from autolabel.ops.masks import bounds_xyxy, encode
from tests.rasters import is_red, noise, photo, turned
from tests.records import ListReader, disc, failed, shapes

SETTINGS = {
    "images": "copy",
    "empty_images": "keep",
    "box": "mask",
    "parts": "keep",
    "min_area_px": 1,
    "crowd": "drop",
    "val_fraction": 0.25,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}
SHAPES = shapes()


def exported(items, folder, **changes):
    """The report, and what reading back gives."""
    exporter, run = YoloDetectExporter(**{**SETTINGS, **changes}), ListReader(items)
    return exporter.export(run, folder), exporter.read_back(run, folder)


@pytest.fixture
def make(tmp_path):
    return partial(photo, tmp_path)


def images(folder):
    return sorted(p for p in (folder / "images").rglob("*") if p.is_file())


def read_by_the_loader(image):
    """Class numbers and boxes in pixels of the picture that the loader sees."""
    from ultralytics.data.utils import img2label_paths, verify_image_label

    label = img2label_paths([str(image)])[0]
    found = verify_image_label((str(image), label, "", False, 2, 0, 0, False))
    _, labels, size_hw, segments, _, missing, _, _, corrupt, message = found
    assert (missing, corrupt, message, segments) == (0, 0, "", [])
    x, y, w, h = (labels[:, 1:] * np.array([*size_hw[::-1], *size_hw[::-1]])).T
    return labels[:, 0].astype(int).tolist(), np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)


def test_the_loader_reads_the_tight_box_of_every_mask(tmp_path, make):
    items = [make(f"{name}.png", [mask, SHAPES["full"]]) for name, mask in SHAPES.items() if name != "full"]
    report, back = exported(items, tmp_path / "out")
    for image in images(tmp_path / "out"):
        classes, boxes = read_by_the_loader(image)
        assert classes == [0, 1]
        wanted = [bounds_xyxy(encode(SHAPES[image.stem])), (0, 0, 160, 120)]
        np.testing.assert_allclose(boxes, wanted, atol=1e-4)
    assert (report.instances, back.objects, back.deviations) == (2 * len(items), 2 * len(items), ())


@settings(max_examples=25)
@given(noise(most=1))
def test_noise_has_its_box_to_the_pixel(tmp_path_factory, masks):
    _, back = exported([photo(folder := tmp_path_factory.mktemp("noise"), "a.png", masks)], folder / "out")
    assert (back.objects, back.deviations) == (1, ())


def test_a_prompt_box_is_clipped_to_the_picture(tmp_path, make):
    labelled = make("a.png", [SHAPES["disc"]])
    labelled = replace(labelled, candidates=(replace(labelled.candidates[0], box_xyxy=(-5.5, 10.25, 90, 200)),))
    _, back = exported([labelled], tmp_path / "out", box="prompt")
    _, boxes = read_by_the_loader(images(tmp_path / "out")[0])
    np.testing.assert_allclose(boxes, [[0, 10.25, 90, 120]], atol=1e-4)
    assert back.deviations == ()


@pytest.mark.parametrize(("parts", "rows"), [("keep", 1), ("largest", 1), ("split", 12)])
def test_parts_have_one_box_or_each_its_own(tmp_path, make, parts, rows):
    report, back = exported([make("a.png", [SHAPES["twelve parts"]])], tmp_path / "out", parts=parts)
    assert report.instances == len(read_by_the_loader(images(tmp_path / "out")[0])[0]) == rows
    assert back.deviations == ()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["copy", "upright"])
def test_boxes_lie_on_the_picture_as_the_loader_turns_it(tmp_path, suffix, orientation, mode):
    from ultralytics.utils.patches import imread

    exported([turned(tmp_path, orientation, suffix)], tmp_path / "out", images=mode)
    (image,) = images(tmp_path / "out")
    seen = is_red(imread(str(image))[..., ::-1])
    np.testing.assert_allclose(read_by_the_loader(image)[1], [bounds_xyxy(encode(seen))], atol=1e-3)


def test_images_without_objects_can_be_left_out(tmp_path, make):
    crowd = make("crowd.png", [SHAPES["disc"]])
    crowd = replace(crowd, candidates=(replace(crowd.candidates[0], crowd=True),))
    items = [make("a.png", [SHAPES["disc"]]), make("empty.png"), crowd]
    report, back = exported(items, tmp_path / "out", empty_images="drop")
    assert [image.name for image in images(tmp_path / "out")] == ["a.png"]
    assert [report.counts[f"images_{what}"] for what in ("empty", "emptied")] == [1, 1]
    assert [(d.image_id, d.reason) for d in back.deviations] == [("crowd.png", "not written: crowd")]


def test_hostile_names_keep_their_labels(tmp_path, make):
    ids = [
        "new\nline.png",
        ".hidden/.x.png",
        "images/y.png",
        "a b/é.png",
        "x" * 240 + ".png",
        "stray\udce9.png",
        "y.jpg",
    ]
    report, back = exported([make(name, [SHAPES["disc"]]) for name in ids], tmp_path / "out")
    assert all(len(read_by_the_loader(image)[0]) == 1 for image in images(tmp_path / "out"))
    assert (report.images, back.objects, back.deviations) == (len(ids), len(ids), ())


def test_what_is_not_written_is_listed_with_its_reason(tmp_path, make):
    gone = make("gone.png", [SHAPES["disc"]])
    Path(gone.path).unlink()
    labelled = make("a.png", [SHAPES["disc"], SHAPES["ring"], SHAPES["two pixels"]])
    twin = replace(labelled.candidates[0], index=3)
    crowd = replace(labelled.candidates[1], crowd=True)
    labelled = replace(
        labelled,
        candidates=(labelled.candidates[0], crowd, labelled.candidates[2], twin),
        verdicts=(*labelled.verdicts, labelled.verdicts[0]),
    )
    report, back = exported([labelled, gone, failed("f.png")], tmp_path / "out", min_area_px=3)
    assert {d.index: d.reason for d in back.deviations if d.image_id == "a.png"} == {
        1: "not written: crowd",
        2: "not written: 2 px, under min_area_px",
        3: "its row is equal to another; the loader drops it",
    }
    assert [d.reason for d in back.deviations if d.image_id == "gone.png"] == ["the image is not in the export"]
    assert all(d.iou == 0 for d in back.deviations)
    counts = {
        "images_left_out": 1,
        "images_missing": 1,
        "crowds_left_out": 1,
        "below_min_area": 1,
        "same_row_twice": 1,
    }
    assert counts.items() <= report.counts.items()


def test_a_row_that_the_loader_drops_costs_no_other_object_its_own(tmp_path, make):
    mask = disc(120, 160, 60, 60, 30)
    item = make("a.png", [mask, mask, disc(120, 160, 70, 65, 30), disc(120, 160, 20, 20, 10)])
    item = replace(item, candidates=tuple(replace(one, category_id=3) for one in item.candidates))
    _, back = exported([item], tmp_path / "out")
    assert [(d.index, d.iou) for d in back.deviations] == [(1, 0.0)]


def test_an_image_without_objects_has_an_empty_label_file(tmp_path, make):
    exported([make("a.png"), make("b.png", [SHAPES["disc"]])], tmp_path / "out")
    labels = {p.stem: p.read_bytes() for p in (tmp_path / "out" / "labels").rglob("*.txt")}
    assert labels["a"] == b""


def test_a_box_that_was_moved_and_a_row_that_is_none_are_noticed(tmp_path, make):
    exporter, run = YoloDetectExporter(**SETTINGS), ListReader([make("a.png", [SHAPES["disc"]])])
    exporter.export(run, tmp_path / "out")
    (label,) = (tmp_path / "out").rglob("a.txt")
    label.write_text("0 0.5 0.5 0.25 0.25\n")
    (found,) = exporter.read_back(run, tmp_path / "out").deviations
    assert 0 < found.iou < 1
    label.write_text("0 0.5 0.5\n")
    (found,) = exporter.read_back(run, tmp_path / "out").deviations
    assert found.iou == 0
    assert found.reason.startswith("the loader does not take it: ")


def test_parts_that_share_a_prompt_have_no_boxes_of_their_own():
    with pytest.raises(ConfigError, match=r"^parts=split needs box=mask"):
        YoloDetectExporter(**{**SETTINGS, "box": "prompt", "parts": "split"})
