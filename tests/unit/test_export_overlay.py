from dataclasses import replace

import cv2
import numpy as np
import pytest

from autolabel.export.overlay import OverlayExporter, colour_of, draw_instances
from tests.records import ListReader, disc, failed, instance, picture, record, shapes

SETTINGS = {"max_images": None, "max_side": 640, "alpha": 0.5, "labels": True, "jpeg_quality": 92}
SHAPES = shapes()


def export(items, folder, **changes):
    return OverlayExporter(**{**SETTINGS, **changes}).export(ListReader(items), folder)


@pytest.fixture
def make(tmp_path):
    def made(image_id, masks=(), size_hw=(120, 160)):
        path = picture(tmp_path / "photos" / image_id, size_hw)
        return record(image_id, [instance(m, i) for i, m in enumerate(masks)], path, size_hw=size_hw)

    return made


def test_every_image_becomes_a_jpeg_and_suffixes_keep_names_apart(tmp_path, make):
    items = [
        make("a.png", SHAPES.values()),
        make("a.jpg"),
        make("deep/er/b.png", [SHAPES["pixel"]]),
        failed("x.png"),
    ]
    report = export(items, tmp_path / "overlay")
    found = sorted(p.relative_to(tmp_path / "overlay").as_posix() for p in (tmp_path / "overlay").rglob("*.jpg"))
    assert found == ["a.jpg.jpg", "a.png.jpg", "deep/er/b.png.jpg"]
    assert (report.images, report.instances) == (3, len(SHAPES) + 1)


@pytest.mark.parametrize("size_hw", [(3, 3), (120, 160), (700, 2000), (2000, 30)])
def test_pictures_of_any_size_fit_the_limit(size_hw):
    image = np.full((*size_hw, 3), 90, np.uint8)
    mask = np.zeros(size_hw, np.uint8)
    mask[0, 0] = mask[-1, -1] = 1
    drawn = draw_instances(image, [instance(mask)], {3: "cat"}, max_side=640, alpha=0.5, labels=True)
    assert max(drawn.shape[:2]) <= 640
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1
    assert (image == 90).all()


def test_the_mask_is_blended_in_its_colour_and_nowhere_else():
    image = np.full((640, 640, 3), 100, np.uint8)
    drawn = draw_instances(
        image, [instance(disc(640, 640, 300, 300, 100))], {}, max_side=640, alpha=0.5, labels=False
    )
    expected = np.rint(100 * 0.5 + np.array(colour_of(0)) * 0.5)
    assert np.abs(drawn[300, 300].astype(float) - expected).max() <= 1
    assert (drawn[:190] == 100).all()


def test_a_small_object_lies_on_top_of_a_large_one():
    large, small = disc(640, 640, 320, 320, 200), disc(640, 640, 320, 320, 40)
    image = np.zeros((640, 640, 3), np.uint8)
    for order in ([small, large], [large, small]):
        shown = [instance(mask, int(mask is small)) for mask in order]
        drawn = draw_instances(image, shown, {}, max_side=640, alpha=1.0, labels=False)
        assert tuple(drawn[320, 320].tolist()) == colour_of(1)


def test_neighbouring_colours_differ():
    colours = np.array([colour_of(i) for i in range(40)], float)
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 60


def test_the_chosen_images_are_spread_over_the_run(tmp_path, make):
    report = export([make(f"{n}.png") for n in range(10)], tmp_path / "overlay", max_images=3)
    assert [file for file in report.files if file.endswith(".jpg")] == ["0.png.jpg", "3.png.jpg", "6.png.jpg"]
    assert "3 of 10" in report.notes[0]


def test_pictures_that_are_gone_or_changed_are_counted(tmp_path, make):
    items = [make("a.png"), make("b.png"), make("c.png")]
    (tmp_path / "photos" / "a.png").unlink()
    items[1] = replace(items[1], info=replace(items[1].info, sha256="0" * 64))
    report = export(items, tmp_path / "overlay")
    assert report.counts == {"images_missing": 1, "images_changed": 1, "images": 1}
    assert len(report.notes) == 2


def test_small_pictures_are_drawn_larger(tmp_path, make):
    export([make("a.png", SHAPES.values())], tmp_path / "one")
    assert cv2.imread(str(tmp_path / "one" / "a.png.jpg")).shape == (480, 640, 3)


def test_a_name_without_end_is_cut_and_drawn(make, tmp_path):
    image, one = np.full((120, 160, 3), 90, np.uint8), instance(SHAPES["disc"])
    drawn = draw_instances(image, [one], {3: "x" * 2_000_000}, max_side=640, alpha=0.5, labels=True)
    assert drawn.shape == (480, 640, 3)


def test_pictures_for_eyes_are_not_read_back(tmp_path, make):
    run, exporter = ListReader([make("a.png", [SHAPES["disc"]])]), OverlayExporter(**SETTINGS)
    exporter.export(run, tmp_path / "out")
    back = exporter.read_back(run, tmp_path / "out")
    assert (back.objects, back.deviations) == (0, ())
