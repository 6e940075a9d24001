import os
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from autolabel.core.errors import ConfigError, ImageError
from autolabel.core.types import ImageInfo, ImageRecord
from autolabel.export.atomic import replaced
from autolabel.export.pictures import Pictures, upright_rgb
from autolabel.export.raster import named, picture_path
from autolabel.ops.images import decode_rgb
from tests.records import ListReader, picture, record


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
    pictures = Pictures(key="x", mode=mode)
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


@pytest.mark.parametrize("mode", ["copy", "upright"])
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


def test_the_upright_picture_is_the_one_that_was_labelled_or_an_error(tmp_path):
    one, rgb = turned(tmp_path / "a.jpg", 6)
    assert (upright_rgb(one) == rgb).all()
    with pytest.raises(ImageError, match="changed"):
        upright_rgb(ImageRecord("a.jpg", one.path, "empty", ImageInfo(20, 12)))


def test_a_wrong_mode_names_its_key():
    with pytest.raises(ConfigError, match=r"export\.x\.images"):
        Pictures(key="x", mode="move")


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
    pictures = Pictures(key="x", mode="copy")
    ((_, path),) = named(run, lambda record: picture_path(record, pictures), counts)
    assert str(path).isprintable()
