"""Pixels, boxes and points turn together, as Pillow turns pictures."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from autolabel.ops.orientation import (
    stored_size,
    upright_boxes,
    upright_image,
    upright_points,
    upright_polygon,
    upright_size,
)

ALL = pytest.mark.parametrize("orientation", range(1, 9))
HW = (5, 8)


@ALL
@pytest.mark.parametrize("channels", [(), (3,)])
def test_pixels_turn_as_in_pillow(orientation, channels):
    stored = np.random.default_rng(0).integers(0, 255, (*HW, *channels), np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    assert (upright_image(stored, orientation) == expected).all()
    assert expected.shape[:2] == upright_size(HW, orientation)
    assert stored_size(expected.shape[:2], orientation) == HW


@ALL
def test_a_box_covers_the_same_pixels_after_turning(orientation):
    stored = np.zeros(HW, np.uint8)
    stored[1:3, 2:7] = 1
    x0, y0, x1, y1 = upright_boxes(np.array([[2, 1, 7, 3]]), HW, orientation)[0].astype(int)
    expected = np.zeros(upright_size(HW, orientation), np.uint8)
    expected[y0:y1, x0:x1] = 1
    assert (upright_image(stored, orientation) == expected).all()


@ALL
def test_a_pixels_centre_stays_on_its_pixel(orientation):
    stored = np.zeros(HW, np.uint8)
    stored[3, 6] = 1
    x, y = upright_points(np.array([6.5, 3.5]), HW, orientation)
    assert upright_image(stored, orientation)[int(y), int(x)] == 1
    assert upright_polygon((6.5, 3.5), HW, orientation) == (x, y)


@ALL
def test_a_reversed_box_stays_reversed_and_no_box_stays_none(orientation):
    x0, y0, x1, y1 = upright_boxes(np.array([[7.0, 3.0, 2.0, 1.0]]), HW, orientation)[0]
    assert x1 < x0
    assert y1 < y0
    assert upright_boxes(np.zeros((0, 4)), HW, orientation).shape == (0, 4)


def test_an_upright_picture_is_not_copied():
    stored = np.zeros(HW, np.uint8)
    assert upright_image(stored, 1) is stored
