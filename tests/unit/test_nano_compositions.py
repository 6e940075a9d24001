"""Where the labels of the nano detector's training pictures lie, and how often what is pasted."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from scripts.nano.compose import Composer
from scripts.nano.dataset import ObjectMask, Picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
SIZE_HW = (300, 448)
LEFT, TOP, RIGHT, BOTTOM = 101, 57, 303, 212


@pytest.fixture
def picture():
    """A white rectangle on black."""
    mask = np.zeros(SIZE_HW, np.uint8, order="F")
    mask[TOP:BOTTOM, LEFT:RIGHT] = 1
    box = float(LEFT), float(TOP), float(RIGHT), float(BOTTOM)
    thing = ObjectMask(
        coco_mask.encode(mask), box, int(mask.sum()), "salient object", is_part=False, is_crowd=False
    )
    pixels = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2).reshape(-1)
    return Picture("one", "duts_tr", "train", SIZE_HW, (thing,), complete_labels=False, _cache=pixels, _offset=0)


def test_labels_lie_where_the_object_is_after_resizing(picture):
    """OpenCV's INTER_NEAREST puts them half a pixel to the right and down."""
    off = []
    for seed in range(60):
        canvas = Composer(pictures=[picture], seed=seed)._base(picture, 160, 176)
        shown, labelled = canvas.image_rgb[..., 0] > 127, canvas.ids == 1
        if labelled.any():
            off.append([np.mean(places) for places in np.nonzero(shown)])
            off[-1] = [a - np.mean(places) for a, places in zip(off[-1], np.nonzero(labelled), strict=True)]
    assert len(off) > 50
    assert np.abs(np.mean(off, axis=0)).max() < 0.15


@pytest.mark.parametrize("crowd", [True, False])
def test_half_bodies_are_as_rare_in_tiles_as_in_whole_pictures(picture, crowd, monkeypatch):
    pasted = []
    for name in ("_paste_half_bodies", "_paste_row_of_people", "_paste_anywhere"):
        monkeypatch.setattr(Composer, name, lambda *_, name=name, **__: pasted.append(name))
    composer = Composer(pictures=[picture], seed=0)
    halves = composed = 0
    for _ in range(600):
        pasted.clear()
        composer._scene(64, 64, crowd=crowd)
        composed += bool(pasted)
        halves += "_paste_half_bodies" in pasted
    assert halves / composed == pytest.approx(0.26, abs=0.06)
