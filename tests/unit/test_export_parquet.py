"""Parquet: every mask comes back pixel by pixel, pictures are upright, and files are whole row groups at a time."""

import hashlib
import io
import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from pycocotools import mask as coco_mask

from autolabel.core.errors import MissingExtra
from autolabel.core.types import Category, Rle
from autolabel.export import parquet as module
from autolabel.export.parquet import ParquetExporter
from autolabel.ops.masks import decode
from tests.rasters import is_red, noise, photo, turned
from tests.records import CATEGORIES, ListReader, disc, failed, instance, picture, record, shapes

pq = pytest.importorskip("pyarrow.parquet")

SETTINGS = {
    "images": "embed",
    "images_per_file": 10000,
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
    "val_fraction": 0.25,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}
SHAPES = shapes()


def exported(items, folder, categories=CATEGORIES, **changes):
    exporter, run = ParquetExporter(**{**SETTINGS, **changes}), ListReader(items, categories)
    return exporter.export(run, folder), exporter.read_back(run, folder)


def rows(folder):
    files = sorted((folder / "data").glob("*.parquet"))
    return {row["image_id"]: row for file in files for row in pq.read_table(file).to_pylist()}


@pytest.fixture
def make(tmp_path):
    return partial(photo, tmp_path)


def test_pycocotools_reads_every_mask_back(tmp_path, make):
    report, back = exported([make("a.png", [*SHAPES.values()])], tmp_path / "out")
    (row,) = rows(tmp_path / "out").values()
    for one, mask in zip(row["objects"], SHAPES.values(), strict=True):
        read = {"size": one["segmentation"]["size"], "counts": one["segmentation"]["counts"].encode()}
        assert coco_mask.iou([read], [coco_mask.encode(np.asfortranarray(mask))], [0]) == 1.0
        assert (one["area"], one["bbox"]) == (mask.sum(), coco_mask.toBbox(read).tolist())
    assert (back.objects, back.deviations, report.instances) == (len(SHAPES), (), len(SHAPES))


@settings(max_examples=25)
@given(noise())
def test_noise_is_exact(tmp_path_factory, masks):
    folder = tmp_path_factory.mktemp("noise")
    items = [record("a.png", [instance(mask, i) for i, mask in enumerate(masks)])]
    _, back = exported(items, folder / "out", images="path")
    assert (back.objects, back.deviations) == (len(masks), ())


def test_a_picture_whose_name_lies_about_its_format_is_embedded_as_a_png(tmp_path, make):
    path = make("a.jpg", size_hw=(120, 160)).path
    Image.new("RGB", (160, 120)).save(path, "GIF")
    report, _ = exported([record("a.jpg", path=path)], tmp_path / "out")
    assert rows(tmp_path / "out")["a.jpg"]["image"]["bytes"].startswith(b"\x89PNG")
    assert report.counts["images_converted"] == 1


def test_a_row_says_all_that_is_known(tmp_path, make):
    labelled = make("b/a.png", [SHAPES["disc"]], source_id=77, extra='{"licence":1}', split="val")
    one = replace(labelled.candidates[0], source_id=5, crowd=True, extra='{"seen":true}', predicted_iou=None)
    exported([replace(labelled, candidates=(one,))], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out" / "data").iterdir()] == ["validation-00000.parquet"]
    row = rows(tmp_path / "out")["b/a.png"]
    assert row["image"] == {"bytes": Path(labelled.path).read_bytes(), "path": "b/a.png"}
    keys = ("width", "height", "split", "source_id", "extra")
    assert [row[key] for key in keys] == [160, 120, "val", 77, '{"licence":1}']
    (found,) = row["objects"]
    expected = {"index": 0, "category": 0, "category_id": 3, "score": 0.9, "predicted_iou": None, "iscrowd": True}
    assert {**expected, "source_id": 5, "extra": '{"seen":true}'}.items() <= found.items()


def test_the_metadata_has_the_features_that_datasets_looks_for(tmp_path, make):
    categories = (Category(7, "dog"), Category(3, "cat"), Category(9, "dog", '{"supercategory":"pet"}'))
    exported([make("a.png", [SHAPES["disc"]])], tmp_path / "out", categories)
    schema = pq.read_schema(next((tmp_path / "out" / "data").iterdir()))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert set(features) == set(schema.names)
    assert features["image"] == {"_type": "Image"}
    assert features["objects"][0]["category"] == {"names": ["cat", "dog (7)", "dog (9)"], "_type": "ClassLabel"}
    assert features["objects"][0]["bbox"] == [{"dtype": "float64", "_type": "Value"}]
    ours = json.loads(schema.metadata[b"autolabel"])
    assert ours["categories"][2] == {"id": 9, "name": "dog", "extra": '{"supercategory":"pet"}'}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_upright_for_pillow_that_does_not_turn_it(tmp_path, suffix, orientation):
    exported([turned(tmp_path, orientation, suffix)], tmp_path / "out")
    (row,) = rows(tmp_path / "out").values()
    seen = is_red(np.array(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")))
    assert seen.shape == (row["height"], row["width"])
    counts = row["objects"][0]["segmentation"]["counts"].encode()
    np.testing.assert_array_equal(decode(Rle(seen.shape, counts)), seen)


def test_pictures_can_be_named_instead_and_need_not_exist(tmp_path, make):
    item = make("a.png", [SHAPES["disc"]])
    Path(item.path).unlink()
    report, back = exported([item], tmp_path / "out", images="path")
    assert rows(tmp_path / "out")["a.png"]["image"] == {"bytes": None, "path": item.path}
    assert (report.images, back.deviations) == (1, ())


def test_pictures_that_are_gone_or_changed_are_left_out_and_listed(tmp_path, make):
    items = [make(name, [SHAPES["disc"]]) for name in ("a.png", "b.png", "c.png")]
    Path(items[0].path).unlink()
    picture(Path(items[1].path), seed=99)
    report, back = exported([*items, failed("d.png")], tmp_path / "out")
    assert set(rows(tmp_path / "out")) == {"c.png"}
    assert {key: report.counts[key] for key in ("images_missing", "images_changed", "images_left_out")} == {
        "images_missing": 1,
        "images_changed": 1,
        "images_left_out": 1,
    }
    assert [(d.image_id, d.reason) for d in back.deviations] == [
        ("a.png", "the image is not in the export"),
        ("b.png", "the image is not in the export"),
    ]


@pytest.mark.filterwarnings("default")  # its warnings are its own
def test_datasets_loads_pictures_classes_and_objects(tmp_path, make, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    masks = [*SHAPES.values()]
    items = [make(f"{n}.png", masks[:n], split=("train", "val", "test")[n % 3]) for n in range(6)]
    exported(items, tmp_path / "out", images_per_file=1)
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "validation": 2, "test": 2}
    row = found["test"][1]
    assert row["image"].size == (160, 120)
    names = found["test"].features["objects"].feature["category"].int2str([o["category"] for o in row["objects"]])
    assert names == ["cat", 'dog: "big"', "cat", 'dog: "big"', "cat"]
    for one, mask in zip(row["objects"], masks, strict=False):
        np.testing.assert_array_equal(decode(Rle((120, 160), one["segmentation"]["counts"].encode())), mask)


def test_files_and_row_groups_are_cut(tmp_path, make, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 3)
    items = [make(f"{n:02}.png", [disc(120, 160, 20 + n, 40, 9)], split="train") for n in range(17)]
    report, back = exported(items, tmp_path / "out", images_per_file=8)
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [f.name for f in files] == [f"train-{n:05}.parquet" for n in range(3)]
    groups = [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in map(pq.read_metadata, files)]
    assert groups == [[3, 3, 2], [3, 3, 2], [1]]
    assert list(rows(tmp_path / "out")) == [item.image_id for item in items]
    assert (back.objects, back.deviations) == (17, ())
    assert set(report.files) == {"data/", "manifest.json"}


def test_an_empty_run_still_has_its_columns(tmp_path):
    exported([], tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "data" / "train-00000.parquet")
    assert (table.num_rows, "objects" in table.column_names) == (0, True)


def test_hostile_names_and_images_without_objects(tmp_path, make):
    ids = ["new\nline.png", "../up.png", "é 日本.png", "stray\udce9.png", "x" * 200 + ".png"]
    items = [replace(make(f"{n}.png"), image_id=name) for n, name in enumerate(ids)]
    report, _ = exported(items, tmp_path / "out")
    assert set(rows(tmp_path / "out")) == {*ids[:3], "stray%E9.png", ids[4]}
    assert (report.images, report.counts["not_utf8"]) == (5, 1)
    assert all(row["objects"] == [] for row in rows(tmp_path / "out").values())


def test_names_that_differ_in_stray_bytes_alone_have_a_row_each(tmp_path, make):
    ids = ["a/\udcff\udcfe.png", "a/%FF%FE.png", "a/%FF\udcfe.png", "caf\udce9.png"]
    items = [
        replace(make(f"{n}.png", [disc(120, 160, 60, 60, 9 + n)]), image_id=name) for n, name in enumerate(ids)
    ]
    report, back = exported(items, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert {"a/%FF%FE.png", "caf%E9.png"} < set(found)
    assert (len(found), len({row["image"]["path"] for row in found.values()})) == (4, 4)
    assert (back.objects, back.deviations, report.counts["not_utf8"]) == (4, (), 3)


def test_a_picture_that_becomes_a_png_does_not_get_the_name_of_another(tmp_path, make):
    ids = ["a.gif", "a.gif.png", "b.gif", "c\udce9.gif"]
    items = [replace(make(f"{n}.png"), image_id=name) for n, name in enumerate(ids)]
    exported(items, tmp_path / "out")
    files = {image_id: row["image"]["path"] for image_id, row in rows(tmp_path / "out").items()}
    digest = hashlib.sha256(b"a.gif").hexdigest()[:12]
    assert files == {
        "a.gif": f"a.gif~{digest}.png",
        "a.gif.png": "a.gif.png",
        "b.gif": "b.gif.png",
        "c%E9.gif": "c%E9.gif.png",
    }


def test_policies_change_masks_and_say_so(tmp_path, make):
    items = [make("a.png", [SHAPES["ring"], SHAPES["two parts"], SHAPES["disc"]])]
    items[0] = replace(
        items[0], candidates=(*items[0].candidates[:2], replace(items[0].candidates[2], crowd=True))
    )
    report, back = exported(items, tmp_path / "out", holes="fill", parts="split", crowd="drop")
    assert report.instances == 3
    assert [(d.index, d.reason) for d in back.deviations] == [(0, "hole filled"), (2, "not written: crowd")]


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"autolabel-sam2\[parquet\]"):
        ParquetExporter(**SETTINGS)


def test_text_that_is_not_utf8_is_written_with_its_bytes_as_percent_signs(tmp_path, make):
    one = replace(
        make("a.png", [SHAPES["disc"]]), split="train\udc80", extra='{"a":"\ud800"}', image_id="a\ud800.png"
    )
    exported([one], tmp_path / "out")
    (row,) = rows(tmp_path / "out").values()
    assert (row["split"], row["image_id"]) == ("train%80", "a%ED%A0%80.png")


@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "a\0b"])
def test_a_path_that_is_no_file_is_a_missing_picture(tmp_path, make, path):
    os.mkfifo(tmp_path / "pipe")
    one = replace(make("a.png", [SHAPES["disc"]]), path=str(tmp_path / path))
    report, _ = exported([one], tmp_path / "out")
    assert report.counts == {"images_missing": 1, "splits_dealt": 1}
