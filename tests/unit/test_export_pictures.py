import io
import os
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from autolabel.app.build import build_all
from autolabel.app.compose import compose
from autolabel.core.errors import ExportError, ImageError
from autolabel.core.types import ImageInfo, ImageRecord
from autolabel.export.atomic import replaced
from autolabel.export.image_names import named, picture_path
from autolabel.export.names import TreeNames
from autolabel.export.pictures import Pictures, upright_rgb
from autolabel.ops.images import decode_rgb
from tests.records import ListReader, disc, failed, instance, picture, record, tree_bytes


def turned(path, orientation, size_hw=(12, 20)):
    """A JPEG with an EXIF orientation, and the record of it as labelling it gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.zeros((*size_hw, 3), np.uint8)
    ramp[: size_hw[0] // 2, : size_hw[1] // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp).save(path, exif=exif, quality=95)
    rgb, info = decode_rgb(path.read_bytes(), max_pixels=10**6)
    return ImageRecord(path.name, str(path), "empty", info), rgb


def write(one, tmp_path, mode):
    counts = Counter()
    pictures = Pictures(mode=mode)
    with replaced(tmp_path / mode) as draft:
        done = pictures.write(one, f"0{pictures.suffix(one)}", draft, counts)
    files = [path for path in (tmp_path / mode).iterdir() if path.name != "manifest.json"]
    return done, counts, (files or [None])[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reader_that_does_not_rotate_sees_the_labelled_picture_when_it_is_baked_upright(tmp_path, orientation):
    one, rgb = turned(tmp_path / "in" / "a.jpg", orientation)
    done, counts, path = write(one, tmp_path, "upright")
    with Image.open(path) as stored:
        seen = np.asarray(stored.convert("RGB"))
    assert done
    assert seen.shape == rgb.shape
    assert np.abs(seen.astype(int) - rgb).max() <= (0 if orientation > 1 else 8)  # two JPEG decoders differ
    assert counts["images_converted"] == (orientation > 1)
    assert path.suffix == (".png" if orientation > 1 else ".jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reader_that_rotates_sees_the_labelled_picture_in_a_plain_copy(tmp_path, orientation):
    one, rgb = turned(tmp_path / "in" / "a.jpg", orientation)
    _, _, path = write(one, tmp_path, "copy")
    assert path.read_bytes() == (tmp_path / "in" / "a.jpg").read_bytes()
    assert (cv2.imread(str(path))[..., ::-1] == rgb).all()


def test_links_point_at_the_input_and_none_writes_nothing(tmp_path):
    one = record("a.png", path=picture(tmp_path / "in" / "a.png"))
    assert write(one, tmp_path, "link")[2].samefile(tmp_path / "in" / "a.png")
    assert write(one, tmp_path, "none")[::2] == (True, None)


@pytest.mark.parametrize("mode", ["copy", "link", "upright"])
@pytest.mark.parametrize("suffix", [".png", ".ppm"])
def test_a_picture_that_is_gone_or_another_one_is_left_out_and_counted(tmp_path, mode, suffix):
    path = picture(tmp_path / "in" / f"a{suffix}")
    one = record(path.name, path=path)
    picture(path, seed=9)
    assert write(one, tmp_path, mode) == (False, Counter(images_changed=1), None)
    picture(path, size_hw=(400, 400))
    assert write(one, tmp_path, mode) == (False, Counter(images_changed=1), None)
    path.unlink()
    assert write(one, tmp_path, mode) == (False, Counter(images_missing=1), None)


def misnamed(path, form, orientation=1):
    """A picture of that format called .jpg, the record of it, and its pixels as they were labelled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.zeros((12, 20, 3), np.uint8)
    ramp[:6, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.fromarray(ramp).save(data, form, **({} if orientation == 1 else {"exif": exif}))
    path.write_bytes(data.getvalue())
    rgb, info = decode_rgb(data.getvalue(), max_pixels=10**6)
    assert info.orientation == orientation
    return ImageRecord(path.name, str(path), "empty", info), rgb


@pytest.mark.parametrize("mode", ["copy", "link", "upright"])
@pytest.mark.parametrize(("form", "orientation"), [("GIF", 1), ("PPM", 1), ("AVIF", 1), ("AVIF", 6), ("WEBP", 6)])
def test_a_picture_whose_name_hides_a_format_that_readers_differ_on_becomes_an_upright_png(
    tmp_path, mode, form, orientation
):
    one, rgb = misnamed(tmp_path / "in" / "a.jpg", form, orientation)
    done, counts, path = write(one, tmp_path, mode)
    assert (done, counts, path.is_symlink()) == (True, Counter(images_converted=1), False)
    with Image.open(path) as stored:
        assert stored.format == "PNG"
        assert (np.asarray(stored) == rgb).all()


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "TIFF"])
def test_a_picture_whose_name_hides_a_format_that_all_readers_take_stays_as_it_is(tmp_path, form):
    one, _ = misnamed(tmp_path / "in" / "a.jpg", form)
    done, counts, path = write(one, tmp_path, "copy")
    assert (done, counts, path.read_bytes()) == (True, Counter(), (tmp_path / "in" / "a.jpg").read_bytes())


def test_a_picture_at_an_address_goes_by_its_content_too(tmp_path, bucket):
    one, rgb = misnamed(tmp_path / "in" / "a.jpg", "GIF")
    bucket("/in/a.jpg", (tmp_path / "in" / "a.jpg").read_bytes())
    _, counts, path = write(replace(one, path="memory://in/a.jpg"), tmp_path, "copy")
    assert counts == Counter(images_converted=1)
    assert (cv2.imread(str(path))[..., ::-1] == rgb).all()


PICTURED = {
    "coco": "copy", "cvat": "copy", "label_studio": "copy", "labelme": "link", "fiftyone": "upright", "voc": "upright",
    "instance_png": "upright", "semantic_png": "copy", "yolo": "copy", "yolo_detect": "link", "yolo_obb": "copy",
    "parquet": "embed", "cutouts": None, "overlay": None,
}  # fmt: skip


def exporter(name):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    images = [] if PICTURED[name] is None else [f"export.{name}.images={PICTURED[name]}"]
    return build_all("export", compose("export", [f"export=[{name}]", *images]).export)[name]


@pytest.mark.parametrize("name", PICTURED)
def test_an_export_without_a_single_picture_takes_the_place_of_none_that_has_some(tmp_path, monkeypatch, name):
    path = picture(tmp_path / "in" / "a.png")
    object_ = instance(disc(120, 160, 60, 60, 30))
    run = ListReader([failed("bad.png"), replace(record("a.png", [object_], path), path="in/a.png")])
    monkeypatch.chdir(tmp_path)
    exporter(name).export(run, tmp_path / "out")
    before = tree_bytes(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        ExportError, match=r"1 picture can no longer be read .* in/a\.png: looked for from .*elsewhere"
    ):
        exporter(name).export(run, tmp_path / "out")
    assert tree_bytes(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "elsewhere"}
    for _ in range(2):  # the second one takes the place of one that is as empty
        assert exporter(name).export(run, tmp_path / "new").counts["images_missing"] == 1


@pytest.mark.parametrize("name", [*PICTURED, "coco_panoptic"])
def test_folders_called_like_a_label_file_and_a_picture_called_like_the_manifest_are_exported(tmp_path, name):
    ids = [
        "a.jpg",
        "manifest.jpg",
        "v1.0/a.jpg",
        "manifest.json/c.jpg",
        "manifest.json_/c.jpg",
        "e.jpg",
        "e_0.png/d.jpg",
        "e_0.png/e_0.png/d.jpg",
        "e.jpg.jpg/d.jpg",
        *(f"a.{suffix}/b.jpg" for suffix in ("txt", "json", "xml", "png", "jpg")),
    ]
    disc_ = instance(disc(120, 160, 60, 60, 30))
    items = [
        record(image_id, [disc_], picture(tmp_path / "in" / f"{n}.jpg", seed=n), split="train")
        for n, image_id in enumerate(ids)
    ]
    settings = compose("export", [f"export=[{name}]"]).export
    one, run = build_all("export", settings)[name], ListReader(items)
    report = one.export(run, tmp_path / "out")
    assert (report.images, report.instances) == (len(ids), len(ids))
    assert one.read_back(run, tmp_path / "out").deviations == ()


def test_only_a_picture_whose_label_file_would_be_a_folder_is_renamed():
    names = TreeNames()
    ids = ["a.jpg", "a.txt/b.jpg", "c.jpg", "c/d.jpg", "v1.jpg", "v1.0/e.jpg", "f.png/g.tif", "f.png"]
    for one in ids:
        names.announce(one)
    assert [name for one in ids if (name := names.name(one)) != one] == ["a.jpg.jpg", "f.png.png"]


def test_an_export_with_a_picture_left_takes_the_place_of_the_old_one(tmp_path):
    run = ListReader([record(f"{n}.png", path=picture(tmp_path / f"{n}.png", seed=n)) for n in range(2)])
    exporter("yolo").export(run, tmp_path / "out")
    (tmp_path / "0.png").unlink()
    assert exporter("yolo").export(run, tmp_path / "out").images == 1
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["1.png"]


def test_the_upright_picture_is_the_one_that_was_labelled_or_an_error(tmp_path):
    one, rgb = turned(tmp_path / "a.jpg", 6)
    assert (upright_rgb(one) == rgb).all()
    with pytest.raises(ImageError, match="changed"):
        upright_rgb(ImageRecord("a.jpg", one.path, "empty", ImageInfo(20, 12)))


@pytest.mark.parametrize("mode", ["copy", "link", "upright"])
@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "folder", "a\0b", "\ud800", "x" * 5000])
def test_a_path_that_is_no_picture_file_counts_as_a_missing_picture(tmp_path, mode, place):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    one = ImageRecord(
        "a.jpg", str(tmp_path) + "/" + place if place[0] != "/" else place, "empty", ImageInfo(20, 12)
    )
    assert write(one, tmp_path, mode) == (False, Counter(images_missing=1), None)


@pytest.mark.parametrize("image_id", ["a\ud800.jpg", "a.p\nng", "a.\udc80"])
def test_a_picture_has_a_name_that_every_reader_takes_whatever_its_id(tmp_path, image_id):
    one = record(image_id, path=picture(tmp_path / "in" / "a.png"))
    counts, run = Counter(), ListReader([one])
    pictures = Pictures(mode="copy")
    ((_, path),) = named(run, lambda record: picture_path(record, pictures), counts)
    assert str(path).isprintable()
