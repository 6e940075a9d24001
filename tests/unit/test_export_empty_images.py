"""Images without an object to write: where nothing was found they are negatives, where all was dropped they are not."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from autolabel.core.types import Verdict
from autolabel.export.empty_images import EmptyImages
from autolabel.export.policy import Policy
from autolabel.ops.masks import encode
from autolabel.store.codec import decode_columns, encode_record
from tests.records import ListReader, disc, failed, instance, picture, record, shapes

SHAPES = shapes()
FORMATS = ("coco", "yolo", "yolo_detect", "yolo_obb")


def items(tmp_path):
    """By name: with an object, with nothing found, with all dropped by refining, by a policy, and by both."""

    def made(name, masks=(), reasons=()):
        one = record(
            name, [instance(mask, i) for i, mask in enumerate(masks)], picture(tmp_path / "photos" / name)
        )
        return replace(one, verdicts=tuple(map(Verdict, reasons))) if reasons else one

    disc_, pixel = SHAPES["disc"], SHAPES["pixel"]
    return [
        made("object.png", [disc_]),
        made("nothing.png"),
        made("refined.png", [disc_, disc_], ["min_quality: 0.5 < 0.7", "min_area: 9 < 16 px"]),
        made("small.png", [pixel]),
        made("both.png", [disc_, pixel], ["min_quality: 0.1 < 0.7", None]),
        made("half.png", [disc_, disc_], ["min_quality: 0.1 < 0.7", None]),
        failed("failed.png"),
    ]


def exporter(name, **changes):
    settings = yaml.safe_load(Path("configs/export", f"{name}.yaml").read_text("utf-8"))[name]
    return instantiate({**settings, "min_area_px": 2, "images": "copy", **changes})


def pictures(folder):
    return {path.name for path in (folder / "images").rglob("*.png")}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("choice", "left_out", "line"),
    [
        ("keep", set(), "are written as images without objects, background for a trainer; export.{}.empty_images=found_none leaves them out"),
        ("found_none", {"refined", "small", "both"}, "are left out (export.{}.empty_images=found_none)"),
        ("drop", {"refined", "small", "both", "nothing"}, "are left out (export.{}.empty_images=drop)"),
    ],
)  # fmt: skip
def test_images_that_lost_all_objects_are_told_from_those_that_have_none(tmp_path, name, choice, left_out, line):
    run, chosen = ListReader(items(tmp_path)), exporter(name, empty_images=choice)
    report = chosen.export(run, tmp_path / "out")
    everything = {"object", "nothing", "refined", "small", "both", "half"}
    assert pictures(tmp_path / "out") == {f"{stem}.png" for stem in everything - left_out}
    told = "3 images whose objects were all dropped (2 min_quality, 2 min_area_px, 1 min_area) "
    assert [note for note in report.notes if "all dropped" in note] == [told + line.format(name)]
    assert report.counts["images_emptied"] == 3
    assert report.counts.get("images_empty", 0) == (choice == "drop")
    assert report.images == len(everything - left_out)
    assert all("min_area_px" in one.reason for one in chosen.read_back(run, tmp_path / "out").deviations)


@pytest.mark.parametrize("name", FORMATS)
def test_where_no_image_lost_its_objects_there_is_no_line(tmp_path, name):
    kept = [one for one in items(tmp_path) if one.image_id in ("object.png", "nothing.png", "half.png")]
    report = exporter(name).export(ListReader(kept), tmp_path / "out")
    assert not any("all dropped" in note for note in report.notes)
    assert report.images == 3


@pytest.mark.parametrize(
    ("policy", "changes", "reason"),
    [
        (Policy(), {"mask": encode(disc(120, 160, 500, 500, 1))}, "empty_mask"),
        (Policy(crowd="drop"), {"crowd": True}, "crowd"),
        (Policy(min_area_px=2000000), {}, "min_area_px"),
    ],
)
def test_what_a_format_leaves_out_is_a_reason_too(policy, changes, reason):
    one = replace(instance(SHAPES["disc"]), **changes)
    empty, counts = EmptyImages("x", "keep", policy), Counter()
    assert empty.count(record("a.png", [one]), counts)
    assert f"1 image whose objects were all dropped (1 {reason}) is written as an image" in empty.note(counts)[0]


def test_of_an_image_without_kept_objects_the_store_tells_what_was_dropped():
    one = record("a.png", [instance(SHAPES["disc"])])
    kept, columns = decode_columns(encode_record(one), "a.png", "a.png")
    assert (len(columns), kept.candidates) == (1, ())
    lost = replace(one, verdicts=(Verdict("min_quality: 0.1 < 0.7"),))
    assert decode_columns(encode_record(lost), "a.png", "") == (lost, None)
