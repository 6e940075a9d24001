"""Parquet as a source: what our exporter wrote comes back whole, and what is wrong is named with file and row."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autolabel.core.errors import MissingExtra, SourceError
from autolabel.core.types import Category, Frame
from autolabel.detect.labels import LabelsDetector
from autolabel.export.parquet import ParquetExporter
from autolabel.ops.images import load_frame
from autolabel.source.parquet import ParquetSource
from tests.records import ListReader, instance, picture, record, shapes

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CATEGORIES = (Category(3, "cat"), Category(7, "dog", '{"supercategory":"pet"}'))
EXPORT = {
    "images": "embed",
    "images_per_file": 2,
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "keep",
    "val_fraction": 0.3,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}
SHAPES = shapes()


def read(path, images_dir=None, extract_to=None):
    source = ParquetSource(
        path=str(path),
        images_dir=None if images_dir is None else str(images_dir),
        extract_to=None if extract_to is None else str(extract_to),
    )
    return {ref.image_id: ref for ref in source.images()}, source


@pytest.fixture
def items(tmp_path):
    made = []
    for n in range(5):
        objects = [instance(m, i, category_id=(3, 7)[i % 2]) for i, m in enumerate(list(SHAPES.values())[: 3 * n])]
        path = picture(tmp_path / "photos" / "cam" / f"{n}.png", seed=n)
        made.append(record(f"cam/{n}.png", objects, path, source_id=100 + n, extra='{"licence":1}'))
    return made


def export(items, folder, **changes):
    run = ListReader(items, CATEGORIES, document='{"info":{"year":2026}}')
    ParquetExporter(**{**EXPORT, **changes}).export(run, folder)
    return folder


def write(path, rows, *, names=("cat", "dog"), schema=None):
    features = {"objects": [{"category": {"names": list(names), "_type": "ClassLabel"}}]}
    table = pa.Table.from_pylist(rows, schema=schema)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def row(name="a.png", **one):
    known = {"bbox": [1.0, 2.0, 30.0, 40.0], "category": 1, **one}
    return {"image": {"bytes": None, "path": name}, "width": 160, "height": 120, "objects": [known]}


@pytest.mark.parametrize("mode", ["embed", "path"])
def test_an_export_comes_back_whole(tmp_path, items, mode):
    split = replace(items[4], split="train2017")
    one = replace(items[1].candidates[0], crowd=True, source_id=9, extra='{"seen":true}')
    items = [items[0], replace(items[1], candidates=(one, *items[1].candidates[1:])), *items[2:4], split]
    folder = export(items, tmp_path / "out", images=mode)
    places = {"extract_to": tmp_path / "pictures"} if mode == "embed" else {"images_dir": tmp_path / "photos"}
    refs, source = read(folder, **places)
    assert (source.categories, source.document) == (CATEGORIES, '{"info":{"year":2026}}')
    assert set(refs) == {item.image_id for item in items}
    for item in items:
        ref = refs[item.image_id]
        assert (ref.source_id, ref.extra, ref.problem) == (item.source_id, item.extra, None)
        loaded = load_frame(ref, max_pixels=10**6, min_side=1)
        (found,) = LabelsDetector(keep_masks=True).detect([Frame(ref, loaded.image_rgb, loaded.info)])
        assert list(found.masks) == [i.mask for i in item.instances]
        assert found.category_ids.tolist() == [i.category_id for i in item.instances]
        np.testing.assert_array_equal(
            found.boxes_xyxy.reshape(-1, 4), [i.box_xyxy for i in item.instances] or np.zeros((0, 4))
        )
    assert refs[split.image_id].split == "train2017"
    assert {ref.split for ref in refs.values()} == {"train2017", "train", "validation"}
    labels = refs["cam/1.png"].labels
    assert (labels.crowd[0], labels.source_ids[0], labels.extras[0]) == (True, 9, '{"seen":true}')


def test_pictures_in_the_file_need_a_place(tmp_path, items):
    folder = export(items, tmp_path / "out")
    refs, _ = read(folder)
    assert {ref.problem.code for ref in refs.values()} == {"missing"}
    assert "source=parquet source.extract_to=" in refs["cam/0.png"].problem.detail
    refs, _ = read(folder, images_dir=tmp_path / "photos")
    assert all(ref.problem is None for ref in refs.values())


def test_pictures_whose_names_differ_in_stray_bytes_alone_both_come_back(tmp_path, items):
    both = [replace(items[1], image_id="\udcff\udcfe.png"), replace(items[2], image_id="%FF%FE.png")]
    refs, _ = read(export(both, tmp_path / "out"), extract_to=tmp_path / "pictures")
    assert sorted(len(ref.labels) for ref in refs.values()) == [3, 6]
    pictures = {Path(ref.path).read_bytes() for ref in refs.values()}
    assert pictures == {Path(item.path).read_bytes() for item in both}


def test_extracting_twice_writes_nothing_and_a_strangers_file_is_left_alone(tmp_path, items):
    folder = export(items, tmp_path / "out")
    read(folder, extract_to=tmp_path / "pictures")
    file = tmp_path / "pictures" / "cam" / "0.png"
    before = file.stat().st_mtime_ns
    read(folder, extract_to=tmp_path / "pictures")
    assert file.stat().st_mtime_ns == before
    assert len(list(file.parent.iterdir())) == len(items)
    file.write_bytes(b"mine")
    with pytest.raises(SourceError, match=r"row 0: .* is there and is another picture"):
        read(folder, extract_to=tmp_path / "pictures")
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["../up.png", "/etc/x.png", "C:\\x.png", "a\0b.png", ""])
def test_names_that_lead_out_are_refused_with_their_row(tmp_path, path):
    write(tmp_path / "x.parquet", [row(), {**row(), "image": {"bytes": b"x", "path": path}}])
    with pytest.raises(SourceError, match=r"x\.parquet' row 1: "):
        read(tmp_path / "x.parquet", extract_to=tmp_path / "pictures")
    assert not list(tmp_path.glob("pictures/**/*.png"))


def test_the_forms_of_datasets_are_read(tmp_path):
    as_lists = {**row(), "objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]] * 2, "category": [0, 1]}}
    write(tmp_path / "test-0.parquet", [as_lists])
    refs, source = read(tmp_path / "test-0.parquet")
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))
    assert refs["a.png"].labels.category_ids.tolist() == [1, 2]
    assert refs["a.png"].labels.shapes == (None, None)
    assert refs["a.png"].split == "test"


def test_a_row_without_objects_has_no_labels_or_an_empty_list(tmp_path):
    kind = pa.Table.from_pylist([row()]).schema
    write(tmp_path / "x.parquet", [{**row(), "objects": None}, {**row("b.png"), "objects": []}], schema=kind)
    refs, _ = read(tmp_path / "x.parquet")
    assert refs["a.png"].labels is None
    assert len(refs["b.png"].labels) == 0


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ({"bbox": None}, "neither bbox nor segmentation"),
        ({"bbox": [1.0, 2.0, 3.0]}, "bbox must have 4 numbers"),
        ({"bbox": [1.0, float("nan"), 3.0, 4.0]}, "not finite or out of range"),
        ({"bbox": [1.0, 1e300, 3.0, 4.0]}, "out of range"),
        ({"category": 2}, "no class 2 in the file"),
        ({"category": -1}, "no class -1 in the file"),
        ({"segmentation": {"size": [120, 161], "counts": "x"}}, r"RLE size .* differs"),
        ({"segmentation": {"size": [120, 160], "counts": [1, 2]}}, "compressed COCO string"),
        ({"segmentation": {"size": [120], "counts": "x"}}, "RLE size must have 2 numbers"),
        ({"segmentation": [[1.0, 2.0]]}, "must be {size, counts}"),
        ({"iscrowd": "no"}, "iscrowd must be 0 or 1, got 'no'"),
    ],
)
def test_a_bad_object_fails_its_picture_alone(tmp_path, one, message):
    write(tmp_path / "bad.parquet", [row("bad.png", **one)])
    refs, _ = read(tmp_path / "bad.parquet")
    assert refs["bad.png"].problem.code == "bad_label"
    assert refs["bad.png"].labels is None
    assert re.search(f"bad.parquet' row 0: object 0.*{message}", refs["bad.png"].problem.detail)


def test_a_crowd_may_be_said_in_text(tmp_path):
    rows = [row(f"{said}.png", iscrowd=said) for said in ("0", "1")]
    refs, _ = read(write(tmp_path / "x.parquet", rows))
    assert (refs["0.png"].labels.crowd, refs["1.png"].labels.crowd) == ((False,), (True,))


def test_files_that_cannot_be_trusted_are_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet at all")
    pq.write_table(pa.table({"picture": [1]}), tmp_path / "columns.parquet")
    write(tmp_path / "twice.parquet", [row(), row()])
    torn = write(tmp_path / "torn.parquet", [row(f"{n}.png") for n in range(50)])
    torn.write_bytes(torn.read_bytes()[:-40])
    for name, message in {
        "text.parquet": "is not Parquet, or damaged",
        "torn.parquet": "is not Parquet, or damaged",
        "columns.parquet": "no column `image`",
        "twice.parquet": "row 1: 'a.png' is the name of an earlier row",
        "absent.parquet": "no such file or folder",
    }.items():
        with pytest.raises(SourceError, match=message):
            read(tmp_path / name)


def test_files_of_other_classes_are_not_mixed(tmp_path):
    write(tmp_path / "a.parquet", [row()])
    write(tmp_path / "b.parquet", [row("b.png")], names=("dog", "cat"))
    with pytest.raises(SourceError, match="the same classes"):
        read(tmp_path)


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"autolabel-sam2\[parquet\]"):
        ParquetSource(path="x", images_dir=None, extract_to=None)


@pytest.mark.parametrize("extra", ["[1]", "no json", '{"a":NaN}', '{"a":1e999}', '{"a":' * 100 + "1" + "}" * 100])
@pytest.mark.parametrize("place", ["image", "object"])
def test_fields_that_cannot_be_written_again_make_their_picture_bad(tmp_path, extra, place):
    bad = row("a.png", extra=extra) if place == "object" else {**row("a.png"), "extra": extra}
    refs, _ = read(
        write(tmp_path / "x.parquet", [bad, row("b.png", extra='{"a":1}') if place == "object" else row("b.png")])
    )
    assert refs["a.png"].problem.code == "bad_label"
    assert "extra" in refs["a.png"].problem.detail
    assert refs["b.png"].problem is None


def test_class_fields_that_cannot_be_written_again_are_an_error(tmp_path, items):
    folder = tmp_path / "set"
    ParquetExporter(**EXPORT).export(ListReader(items, (Category(3, "cat", "[1]"), Category(7, "dog"))), folder)
    with pytest.raises(SourceError, match="class 3: no JSON object"):
        read(folder)
