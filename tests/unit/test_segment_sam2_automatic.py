"""Automatic masks are the instances of `SAM2AutomaticMaskGenerator`, and no full-size masks are made for them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.core.types import Frame, ImageInfo, ImageRef
from autolabel.ops.masks import ious
from autolabel.segment import sam2
from benchmarks.automatic import automatic, generated, generator_of, measured
from tests.unit.test_segment_sam2 import TINY

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]
GRID = ["detect=none", "prompt=grid", "prompt.points_per_side=6", "prompt.min_predicted_iou=0.25",
        "prompt.min_stability=0.4", "source.path=x"]  # fmt: skip


@pytest.fixture(scope="module")
def nano():
    return build(compose("label", [*GRID, "segment=nano", "segment.device=cpu"]).segment)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny_256.yaml"
    path.write_text(sam2.read_architecture(TINY).replace("image_size: 1024", "image_size: 256"))
    model = ["segment=sam2_tiny", "segment.weights=random:3", f'segment.architecture="{path}"']
    return build(compose("label", [*GRID, *model, "segment.device=cpu"]).segment)


def frame(height: int = 180, width: int = 240) -> Frame:
    """Blocks and discs on a gradient."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows + columns], 2).astype(np.float32) / 3 + 60
    for i, (x, y, r) in enumerate([(40, 40, 22), (120, 60, 30), (200, 120, 25), (70, 140, 18)]):
        cv2.circle(image, (x, y), r, [(250, 20, 20), (20, 240, 40), (30, 30, 250), (240, 240, 30)][i], -1)
    cv2.rectangle(image, (140, 120), (165, 170), (10, 10, 10), -1)
    return Frame(ImageRef("a", "a"), image.astype(np.uint8), ImageInfo(width, height))


def both(segmenter, *settings):
    config = compose("label", [*GRID, *settings]).prompt
    picture = frame()
    theirs = generated(generator_of(segmenter._model, config), picture.image_rgb)
    return theirs, automatic(segmenter, build(config), picture)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("three", ["true", "false"])
@pytest.mark.parametrize("model", ["nano", "tiny"])
def test_instances_are_those_of_the_generator(request, model, layers, three):
    settings = (f"prompt.crop_layers={layers}", f"prompt.three_masks={three}", "prompt.crop_points_downscale=2")
    theirs, ours = both(request.getfixturevalue(model), *settings)
    assert len(theirs) == len(ours) > 0
    found = ious(theirs, ours)
    assert (found.max(axis=1) > 0.99).all()
    assert (found.max(axis=0) > 0.99).all()


def test_memory_does_not_grow_with_the_picture(nano):
    prompter = build(compose("label", GRID).prompt)
    large = frame(180 * 8, 240 * 8)
    automatic(nano, prompter, frame())
    one_mask_mib = large.image_rgb.shape[0] * large.image_rgb.shape[1] / 2**20
    # The picture as the model's float input, twice, and nothing near the three hundred masks that are answered.
    assert measured(lambda: automatic(nano, prompter, large)).grown_mib < 60 * one_mask_mib
