"""Pictures of the benchmarks: photographs, all different, the same every time, with boxes of what is in them."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import SIZES_HW, asked, photographs_in, read_bgr, samples, seen_in, view, written


@pytest.fixture(scope="module")
def photographs():
    return samples()


@pytest.mark.parametrize("size_hw", [*SIZES_HW.values(), (100, 30)])
def test_every_crop_shows_objects_and_their_boxes_lie_in_it(photographs, size_hw, monkeypatch):
    # Pixels of 12 megapixels are of no interest here.
    monkeypatch.setattr(Image.Image, "resize", lambda image, size_wh, *_, **__: Image.new("RGB", size_wh))
    for number in range(24):
        _, boxes = view(photographs[number % 2], size_hw, number)
        x0, y0, x1, y1 = boxes.T
        assert len(boxes)
        assert (x0 >= 0).all()
        assert (x1 <= size_hw[1]).all()
        assert (y0 >= 0).all()
        assert (y1 <= size_hw[0]).all()
        assert (x1 - x0 >= 4).all()
        assert (y1 - y0 >= 4).all()


def test_pictures_differ_and_are_the_same_every_time(photographs, tmp_path):
    first = written(tmp_path / "a", (48, 64), 10, 6, photographs)
    second = written(tmp_path / "b", (48, 64), 10, 4, photographs)
    contents = [one.path.read_bytes() for one in first]
    assert len(set(contents)) == 6
    assert [one.path.read_bytes() for one in second] == contents[:4]
    assert all(np.array_equal(a.boxes_xyxy, b.boxes_xyxy) for a, b in zip(first, second, strict=False))
    with Image.open(first[0].path) as image:
        assert image.size == (64, 48)


@pytest.mark.parametrize("count", [0, 1, 10, 50])
def test_as_many_boxes_as_were_asked_for_all_different_and_inside(count):
    objects = np.array([[0, 0, 30, 40], [10, 10, 60, 48], [50, 5, 64, 20]], np.float32)
    boxes = asked(objects, count, (48, 64), 7)
    assert boxes.shape == (count, 4)
    assert boxes.dtype == np.float32
    assert len(np.unique(boxes, axis=0)) == count
    assert ((boxes >= 0) & (boxes <= [64, 48, 64, 48])).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()


def test_fewer_boxes_are_the_first_of_more():
    objects = np.array([[0, 0, 30, 40], [10, 10, 60, 48], [50, 5, 64, 20]], np.float32)
    assert np.array_equal(asked(objects, 10, (48, 64), 7), asked(objects, 50, (48, 64), 7)[:10])


def test_a_box_moves_with_its_crop_and_goes_when_too_little_of_it_is_left():
    boxes = np.array([[10, 10, 20, 20], [0, 0, 12, 12], [0, 0, 11, 11]], np.float32)
    assert seen_in(boxes, (10, 10, 30, 30), (40, 40)).tolist() == [[0, 0, 20, 20]]
    assert seen_in(boxes, (5, 5, 25, 25), (20, 20)).tolist() == [[5, 5, 15, 15]]


def test_a_folder_of_somebodys_own_gets_boxes_too(tmp_path):
    Image.new("RGB", (80, 60), (120, 120, 120)).save(tmp_path / "grey one.PNG")
    (tmp_path / "notes.txt").write_text("")
    (found,) = photographs_in(tmp_path)
    assert found.boxes_xyxy.tolist() == [[20, 15, 60, 45]]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no picture"):
        photographs_in(tmp_path)


def test_what_opencv_cannot_read_is_named_in_one_line(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for path in (tmp_path / "text.jpg", tmp_path / "absent.jpg"):
        with pytest.raises(SystemExit, match=rf"^{path}: not there, or not a picture$"):
            read_bgr(path)
