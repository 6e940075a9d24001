from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from autolabel.core.types import Category, ImageInfo, Verdict
from autolabel.export import policy
from autolabel.export.yolo import YoloExporter
from autolabel.ops.masks import decode, encode
from autolabel.ops.polygons import coco_polygons, yolo_rasterize
from tests.rasters import is_red, turned
from tests.records import CATEGORIES, ListReader, disc, failed, instance, picture, record, shapes, tree_bytes

SETTINGS = {
    "images": "copy",
    "empty_images": "keep",
    "holes": "keep",
    "parts": "keep",
    "overlaps": "keep",
    "min_area_px": 1,
    "crowd": "drop",
    "keep_far_parts": False,
    "simplify_iou": None,
    "warn_iou": 0.98,
    "val_fraction": 0.25,
    "test_fraction": 0.0,
    "seed": 0,
    "stratify": False,
    "group_by": None,
}
SHAPES = shapes()
AWKWARD = [
    "\x7f",
    "a\x85b",
    "\u2028",
    "\ufeff",
    "\ufffe",
    "\U000e0001",
    "\udc80x",
    "\ud800",
    'a"b\\',
    "\t: #",
    "猫 🐈",
    "\x00",
]


def export(items, folder, categories=None, break_at=None, **changes):
    run = ListReader(items, *(() if categories is None else (categories,)), break_at=break_at)
    return YoloExporter(**{**SETTINGS, **changes}).export(run, folder)


@pytest.fixture
def make(tmp_path):
    """A labelled picture of the input folder `photos`, which exists."""

    def made(image_id, masks=(), **changes):
        path = picture(tmp_path / "photos" / image_id, seed=len(image_id))
        return record(
            image_id, [instance(m, i, category_id=(3, 7)[i % 2]) for i, m in enumerate(masks)], path, **changes
        )

    return made


def images(folder):
    return sorted(p for p in (folder / "images").rglob("*") if p.is_file())


def label_of(image):
    """Where the loader looks: the last /images/ becomes /labels/."""
    from ultralytics.data.utils import img2label_paths

    return Path(img2label_paths([str(image)])[0])


def read_by_the_loader(image):
    """Class numbers and masks, as the ultralytics loader makes them of image and label."""
    from ultralytics.data.utils import polygon2mask, verify_image_label

    found = verify_image_label((str(image), str(label_of(image)), "", False, 2, 0, 0, False))
    _, labels, size_hw, segments, _, missing, _, _, corrupt, message = found
    assert (missing, corrupt, message) == (0, 0, "")
    scale = np.array(size_hw[::-1], np.float32)
    return labels[:, 0].astype(int).tolist(), [polygon2mask(size_hw, [(s * scale).reshape(-1)]) for s in segments]


def test_the_loader_reads_single_parts_exactly_and_several_with_the_iou_that_was_reported(tmp_path, make):
    report = export([make("a.png", SHAPES.values())], tmp_path / "yolo")
    (image,) = images(tmp_path / "yolo")
    classes, masks = read_by_the_loader(image)
    assert classes == [i % 2 for i in range(len(SHAPES))]
    found = {}
    for (name, mask), back in zip(SHAPES.items(), masks, strict=True):
        found[name] = (mask & back).sum() / (mask | back).sum()
    several = {"island in a hole", "two parts", "twelve parts", "speck", "two pixels", "noise"}
    assert all(iou == 1.0 for name, iou in found.items() if name not in several)
    assert found["two parts"] >= 0.98
    assert f"{min(found.values()):.3f} in 'a.png'" in "\n".join(report.notes)


def test_every_object_is_one_row(tmp_path, make):
    items = [make(f"{n}.png", [mask] * (n + 1)) for n, mask in enumerate(SHAPES.values())]
    report = export(items, tmp_path / "yolo")
    for image in images(tmp_path / "yolo"):
        assert len(label_of(image).read_text().splitlines()) == int(image.stem) + 1
    assert report.instances == sum(range(1, len(SHAPES) + 1))


def test_an_image_without_objects_has_an_empty_label_file(tmp_path, make):
    report = export([make("a.png"), failed("b.png"), make("c.png")], tmp_path / "yolo")
    labels = sorted((tmp_path / "yolo" / "labels").rglob("*.txt"))
    assert [(p.stem, p.read_bytes()) for p in sorted(labels, key=lambda p: p.stem)] == [("a", b""), ("c", b"")]
    assert (report.images, report.instances, report.counts["images_left_out"]) == (2, 0, 1)


def test_same_names_never_share_a_label(tmp_path, make):
    ids = ["a.png", "a.jpg", "a.jpg.png", "cam1/0.png", "cam2/0.png", "v1.0/x.png", "v1.1/x.png", "A.png"]
    items = [make(name, [disc(120, 160, 20 + 9 * n, 40, 9)]) for n, name in enumerate(ids)]
    report = export(items, tmp_path / "yolo", val_fraction=0.0)
    found = images(tmp_path / "yolo")
    assert len({label_of(image) for image in found}) == len(ids) == len(found)
    assert all(len(read_by_the_loader(image)[1]) == 1 for image in found)
    assert report.counts["renamed_for_a_shared_stem"] == 2
    assert {"a.png.png", "a.jpg.jpg.jpg"} <= {image.name for image in found}


def test_hostile_names_reach_the_loader(tmp_path, make):
    from ultralytics.data.utils import get_hash

    ids = [
        "new\nline.png",
        ".hidden/.x.png",
        "images/y.png",
        "a b [c]/é.png",
        "x" * 240 + ".png",
        "stray\udce9.png",
    ]
    export([make(name, [SHAPES["disc"]]) for name in ids], tmp_path / "yolo")
    root = tmp_path / "yolo" / "images"
    seen = sorted(path for side in root.iterdir() for path in side.glob("**/[!.]*.png"))
    assert len(seen) == len(ids)
    assert get_hash([str(path) for path in seen])
    assert all(len(read_by_the_loader(image)[1]) == 1 for image in seen)
    assert not any(part.startswith(".") for image in seen for part in image.relative_to(root).parts)


def test_data_yaml_names_classes_by_position_and_neither_a_path_nor_a_download(tmp_path, make):
    export([make("a.png"), make("b.png")], tmp_path / "yolo")
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert content == {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: 'dog: "big"'}}


def test_class_names_of_any_script_come_back(tmp_path, make):
    names = ["日本 🦉", "a: b", "yes", "#1", "tab\tname"]
    categories = tuple(Category(i + 1, name) for i, name in enumerate(names))
    export([make("a.png")], tmp_path / "yolo", categories)
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert list(content["names"].values()) == names


def test_the_folder_can_be_moved(tmp_path, make, monkeypatch):
    from ultralytics.data.utils import check_det_dataset

    export([make("a.png", [SHAPES["disc"]]), make("b.png")], tmp_path / "yolo")
    (tmp_path / "yolo").rename(tmp_path / "moved here")
    monkeypatch.chdir("/")
    data = check_det_dataset(str(tmp_path / "moved here" / "data.yaml"), autodownload=False)
    assert [Path(data[side]).parent.parent.name for side in ("train", "val")] == ["moved here"] * 2


def test_an_image_stays_on_its_side_when_others_come_and_go(tmp_path, make):
    items = [make(f"{n:02}.png") for n in range(30)]
    export(items, tmp_path / "all")
    export(items[5:], tmp_path / "some")
    whole, part = ({p.name: p.parent.name for p in images(tmp_path / name)} for name in ("all", "some"))
    assert sum(whole[name] != side for name, side in part.items()) == 0
    assert set(whole.values()) == {"train", "val"}


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_two_images_fill_both_sides(tmp_path, make, fraction):
    export([make("a.png"), make("b.png")], tmp_path / "yolo", val_fraction=fraction)
    assert sorted(image.parent.name for image in images(tmp_path / "yolo")) == ["train", "val"]


def test_one_image_is_train_and_val_and_the_report_says_so(tmp_path, make):
    report = export([make("a.png")], tmp_path / "yolo", val_fraction=0.0)
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert content["train"] == content["val"] == "images/train"
    assert "no picture is left for val" in report.notes[-1]


def test_without_a_picture_the_report_says_once_that_nothing_can_be_trained(tmp_path):
    report = export([failed("a.png")], tmp_path / "yolo")
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert (content["train"], content["val"]) == ("images/train", "images/val")
    assert report.notes[1:] == ("it holds no picture: nothing can be trained on it",)


def test_the_splits_of_the_source_are_kept(tmp_path, make):
    wanted = {"a.png": "valid", "b.png": "test", "c.png": "train2017", "d.png": "test"}
    export([make(name, split=split) for name, split in wanted.items()], tmp_path / "yolo")
    found = {image.name: image.parent.name for image in images(tmp_path / "yolo")}
    assert found == {"a.png": "val", "b.png": "test", "c.png": "train", "d.png": "test"}


def test_inputs_are_copied_untouched_and_links_point_at_them(tmp_path, make):
    items = [make("a.png"), make("b.jpg"), make("c.jpg")]
    broken = tmp_path / "photos" / "c.jpg"
    broken.write_bytes(broken.read_bytes() + b"appended")
    items[2] = record("c.jpg", path=broken)
    before = tree_bytes(tmp_path / "photos")
    export(items, tmp_path / "copied")
    assert {p.name: p.read_bytes() for p in images(tmp_path / "copied")} == before
    export(items, tmp_path / "linked", images="link")
    found = {p.name: p for p in images(tmp_path / "linked")}
    assert found["a.png"].is_symlink()
    assert found["a.png"].samefile(tmp_path / "photos" / "a.png")
    # The loader rewrites a JPEG that does not end with its end marker, through a link too.
    assert not found["c.jpg"].is_symlink()
    for image in found.values():
        verify(image)
    assert found["c.jpg"].read_bytes() != before["c.jpg"]
    assert tree_bytes(tmp_path / "photos") == before


def verify(image):
    from ultralytics.data.utils import verify_image_label

    assert verify_image_label((str(image), str(label_of(image)), "", False, 2, 0, 0, False))[8] == 0


def test_pictures_that_are_gone_or_changed_are_left_out_and_counted(tmp_path, make):
    items = [make("a.png"), make("b.png"), make("c.png"), make("tiny.png")]
    (tmp_path / "photos" / "b.png").unlink()
    picture(tmp_path / "photos" / "c.png", seed=99)
    small = picture(tmp_path / "photos" / "tiny.png", (9, 200))
    items[3] = record("tiny.png", path=small, size_hw=(9, 200))
    items.append(replace(items[0], image_id="huge.png", info=ImageInfo(17_896, 10_000)))
    report = export(items, tmp_path / "yolo")
    assert [image.name for image in images(tmp_path / "yolo")] == ["a.png"]
    reasons = ("missing", "changed", "too_small", "too_large")
    assert [report.counts[f"images_{why}"] for why in reasons] == [1, 1, 1, 1]


def test_formats_that_readers_disagree_on_become_upright_png(tmp_path):
    path = picture(tmp_path / "photos" / "a.ppm")
    turned = picture(tmp_path / "photos" / "b.webp")
    items = [record("a.ppm", [instance(SHAPES["ring"])], path), record("b.webp", path=turned)]
    items[1] = replace(items[1], info=ImageInfo(160, 120, 6))
    report = export(items, tmp_path / "yolo")
    found = {image.name: image for image in images(tmp_path / "yolo")}
    assert set(found) == {"a.ppm.png", "b.webp.png"}
    assert report.counts["images_converted"] == 2
    assert (cv2.imread(str(found["a.ppm.png"])) == cv2.imread(str(path))).all()
    assert (read_by_the_loader(found["a.ppm.png"])[1][0] == SHAPES["ring"]).all()


def test_a_picture_that_the_loader_refuses_costs_its_own_objects_alone(tmp_path, make, caplog):
    items = [
        make(name, masks)
        for name, masks in (("a.png", [SHAPES["disc"]]), ("b.png", ()), ("c.png", [SHAPES["ring"]]))
    ]
    exporter, run = YoloExporter(**SETTINGS), ListReader(items)
    exporter.export(run, tmp_path / "yolo")
    for image in images(tmp_path / "yolo"):
        if image.name != "c.png":
            Image.new("RGB", (160, 120)).save(image, "GIF")
    found = exporter.read_back(run, tmp_path / "yolo")
    assert found.objects == 2
    assert [(one.image_id, one.iou) for one in found.deviations] == [("a.png", 0.0)]
    assert found.deviations[0].reason.startswith("the loader does not take it: Invalid image format GIF")
    assert [line for line in caplog.messages if line.startswith("b.png: the loader")]


def test_the_loader_takes_a_picture_whose_name_lies_about_its_format(tmp_path, make):
    item = make("a.jpg")
    with Image.open(item.path) as drawn:
        drawn.copy().save(item.path, "GIF")
    export([record("a.jpg", [instance(SHAPES["ring"])], item.path)], tmp_path / "yolo")
    (image,) = images(tmp_path / "yolo")
    assert (read_by_the_loader(image)[1][0] == SHAPES["ring"]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_on_the_picture_as_the_loader_turns_it(tmp_path, orientation):
    from ultralytics.utils.patches import imread

    export([turned(tmp_path, orientation)], tmp_path / "out", categories=CATEGORIES)
    (picture,), (label,) = (sorted((tmp_path / "out").glob(f"{folder}/*/*.*")) for folder in ("images", "labels"))
    seen = is_red(imread(str(picture))[..., ::-1])
    ring = np.array(label.read_text().split()[1:], np.float32).reshape(-1, 2)
    assert (yolo_rasterize(ring, seen.shape) == seen).all()


def test_the_persons_own_polygon_comes_out_unchanged(tmp_path, make):
    own = np.array([[0.1, 0.1], [0.5, 0.125], [0.3, 0.7]])
    mask = encode(yolo_rasterize(own, (120, 160)))
    polygon = tuple((own * [160, 120]).ravel().tolist())
    labelled = make("a.png", [decode(mask)])
    kept = replace(labelled.candidates[0], origin="label", polygons=(polygon,))
    report = export([replace(labelled, candidates=(kept,))], tmp_path / "yolo")
    (image,) = images(tmp_path / "yolo")
    written = np.array(label_of(image).read_text().split()[1:], float).reshape(-1, 2)
    assert np.allclose(written, own, atol=1e-8)
    assert report.counts["source_polygons"] == 1


def test_a_polygon_that_the_loader_draws_otherwise_is_outlined_anew(tmp_path, make):
    """Along corners, as COCO has it: the loader paints a disc half a pixel larger."""
    labelled = make("a.png", [SHAPES["disc"]])
    (one,) = labelled.candidates
    corners = replace(one, origin="label", polygons=tuple(coco_polygons(one.mask)))
    run = ListReader([replace(labelled, candidates=(corners,))])
    report = export(run.items, tmp_path / "yolo")
    assert report.counts["polygons_redrawn"] == 1
    assert any("1 object is outlined again" in note for note in report.notes)
    back = YoloExporter(**SETTINGS).read_back(run, tmp_path / "yolo")
    assert (back.objects, back.deviations) == (1, ())


def test_what_one_row_cannot_hold_is_counted(tmp_path, make):
    empty = np.zeros((120, 160), np.uint8)
    masks = [SHAPES["twelve parts"], SHAPES["speck"], empty, SHAPES["disc"], SHAPES["disc"], SHAPES["disc"]]
    labelled = make("a.png", masks)
    crowd = replace(labelled.candidates[5], crowd=True)
    twin = replace(labelled.candidates[4], category_id=labelled.candidates[3].category_id)
    labelled = replace(labelled, candidates=(*labelled.candidates[:4], twin, crowd))
    counts = export([labelled], tmp_path / "yolo").counts
    assert {
        key: counts[key] for key in ("bridged_objects", "parts_left_out", "empty_masks", "crowds_left_out")
    } == {
        "bridged_objects": 1,
        "parts_left_out": 1,
        "empty_masks": 1,
        "crowds_left_out": 1,
    }
    assert counts["same_row_twice"] == 1


def test_images_without_an_object_can_be_left_out(tmp_path, make):
    items = [make("a.png", [SHAPES["disc"]]), make("b.png"), make("c.png", [SHAPES["pixel"]]), failed("d.png")]
    report = export(items, tmp_path / "yolo", empty_images="drop", min_area_px=2)
    assert [image.name for image in images(tmp_path / "yolo")] == ["a.png"]
    assert [report.counts[f"images_{what}"] for what in ("empty", "emptied", "left_out")] == [1, 1, 1]


def test_the_policies_change_what_the_loader_reads(tmp_path, make):
    wanted = {"holes": ("fill", disc(120, 160, 70, 60, 40)), "parts": ("largest", disc(120, 160, 61, 60, 30))}
    for key, (value, expected) in wanted.items():
        masks = [SHAPES["ring"]] if key == "holes" else [SHAPES["speck"]]
        export([make("a.png", masks)], tmp_path / key, **{key: value})
        (image,) = images(tmp_path / key)
        assert (read_by_the_loader(image)[1][0] == expected).all()
    export([make("a.png", [SHAPES["twelve parts"]])], tmp_path / "split", parts="split")
    (image,) = images(tmp_path / "split")
    assert (sum(read_by_the_loader(image)[1]) == SHAPES["twelve parts"]).all()


def test_fewer_points_never_go_below_the_floor(tmp_path, make):
    items = [make("a.png", [SHAPES[name] for name in ("disc", "ring", "swiss", "full", "line", "pixel")])]
    export(items, tmp_path / "exact")
    export(items, tmp_path / "short", simplify_iou=0.95)
    exact, short = (label_of(images(tmp_path / name)[0]).read_text() for name in ("exact", "short"))
    assert len(short) < len(exact) / 2
    run = ListReader(items)
    found = YoloExporter(**{**SETTINGS, "simplify_iou": 0.95}).read_back(run, tmp_path / "short").deviations
    assert found
    assert all(d.iou >= 0.95 and d.reason == "simplified" for d in found)


def test_what_the_loader_does_not_give_back_is_listed_with_its_reason(tmp_path, make):
    names = ("disc", "ring", "two parts", "speck", "pixel")
    items = [make("a.png", [SHAPES[name] for name in names]), make("b.png", [SHAPES["swiss"]])]
    changes = {"min_area_px": 2, "holes": "fill"}
    export(items, tmp_path / "yolo", **changes)
    found = YoloExporter(**{**SETTINGS, **changes}).read_back(ListReader(items), tmp_path / "yolo")
    assert found.objects == 6
    assert sorted((d.image_id, d.index, d.reason) for d in found.deviations) == [
        ("a.png", 1, "hole filled"),
        ("a.png", 2, "parts joined by lines"),
        ("a.png", 3, "far part left out"),
        ("a.png", 4, "not written: 1 px, under min_area_px"),
        ("b.png", 0, "hole filled"),
    ]


def test_objects_that_a_policy_cut_are_told_apart_where_the_loader_drops_a_row(tmp_path, make, monkeypatch):
    """And what the policy did to an image is found out once, not for each of its objects."""
    discs = [disc(120, 160, x, 60, 20) for x in (40, 60, 80, 120)]
    item = make("a.png", [discs[0], discs[1], discs[3], discs[2]])
    twin = replace(item.candidates[2], index=4, detector_score=0.9, crowd=True)  # crowds take no part in overlaps
    candidates = tuple(replace(one, category_id=3) for one in (*item.candidates, twin))
    item = replace(item, candidates=candidates, verdicts=(Verdict(),) * 5)
    changes = {"overlaps": "score", "crowd": "keep"}
    report = export([item], tmp_path / "yolo", **changes)
    assert report.counts["same_row_twice"] == 1
    asked, cut = [], policy._without_overlaps
    monkeypatch.setattr(policy, "_without_overlaps", lambda *given: asked.append(given) or cut(*given))
    found = YoloExporter(**{**SETTINGS, **changes}).read_back(ListReader([item]), tmp_path / "yolo").deviations
    assert len(asked) == 1
    assert [d.index for d in found if not d.iou] == [4]
    assert {d.index for d in found if d.iou} == {1, 3}
    assert all(d.iou > 0.5 and d.reason.startswith("overlap: ") for d in found if d.iou)


def test_a_test_side_is_a_folder_and_a_line_of_data_yaml(tmp_path, make):
    items = [make(f"{n:02}.png") for n in range(30)]
    export(items, tmp_path / "yolo", test_fraction=0.3)
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert content["test"] == "images/test"
    assert {image.parent.name for image in images(tmp_path / "yolo")} == {"train", "val", "test"}


@pytest.mark.parametrize("root", ["images/{}", "{}/images", "{}"])
def test_a_yolo_data_set_keeps_its_folders(tmp_path, make, root):
    ids = {
        f"{root.format(split)}/{name}": split for split in ("train", "val") for name in ("a.png", "train/b.png")
    }
    export([make(id_, [SHAPES["disc"]], split=split) for id_, split in ids.items()], tmp_path / "yolo")
    found = [str(path.relative_to(tmp_path / "yolo" / "images")) for path in images(tmp_path / "yolo")]
    assert found == ["train/a.png", "train/train/b.png", "val/a.png", "val/train/b.png"]
    assert all(len(read_by_the_loader(image)[1]) == 1 for image in images(tmp_path / "yolo"))


def test_pictures_that_meet_without_their_split_folder_are_kept_apart(tmp_path, make):
    ids = ["images/train/a.png", "a.png", "train/a.jpg"]
    export([make(id_, [SHAPES["disc"]], split="train") for id_ in ids], tmp_path / "yolo")
    found = [path.name for path in images(tmp_path / "yolo")]
    assert found == ["a.jpg.jpg", "a.png.png", "a.png.png.png"]


@pytest.mark.parametrize("name", AWKWARD)
def test_data_yaml_can_be_read_whatever_a_class_is_called(tmp_path, make, name):
    export([make("a.png")], tmp_path / "yolo", (Category(1, name), Category(2, "cat")))
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_bytes())
    assert content["names"] == {0: name.replace("\udc80", "?").replace("\ud800", "?"), 1: "cat"}
