"""The parity protocol, small: how far our ways to compute may be from `SAM2ImagePredictor` in float32, one picture at
a time, on a photograph. The same figures over more pictures are in the report of `make bench`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from autolabel.app.demo import sample_folder
from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts
from autolabel.ops.masks import iou
from autolabel.segment import sam
from benchmarks.parity import choices
from tests.unit.test_segment_sam2 import predictor_of, reference, segmenter

# The four people and the bus of the sample photograph, in fractions of it, and its parts.
BOXES = np.array(
    [[0.06, 0.37, 0.30, 0.84], [0.27, 0.37, 0.42, 0.80], [0.82, 0.36, 1.0, 0.82], [0.0, 0.2, 1.0, 0.7],
     [0.1, 0.3, 0.6, 0.6], [0.4, 0.25, 0.9, 0.5]], np.float32,
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def photograph():
    return np.array(Image.open(sample_folder() / "bus.jpg").convert("RGB").resize((300, 400)))


@pytest.fixture(scope="module")
def asked(photograph):
    h, w = photograph.shape[:2]
    frame = Frame(ImageRef("bus.jpg", "bus.jpg"), photograph, ImageInfo(w, h))
    return frame, Prompts(boxes_xyxy=BOXES * np.array([w, h, w, h], np.float32))


@pytest.fixture(scope="module")
def exact():
    return segmenter("nano", "nano_segmenter")


@pytest.fixture(scope="module")
def expected(exact, asked):
    frame, prompts = asked
    return reference(exact._model, frame.image_rgb, prompts.boxes_xyxy)[0]


def test_the_picture_is_resized_as_the_reference_does_it(exact, photograph):
    from sam2.utils.transforms import SAM2Transforms

    side = exact._model.image_size
    theirs = SAM2Transforms(side, mask_threshold=0.0)(photograph)
    cpu = torch.device("cpu")
    for ours in (sam.to_model_image(photograph, side, cpu), sam._stretched_by_torch(photograph, side, cpu)):
        steps_of_255 = (ours - theirs).abs().amax(dim=(1, 2)) * torch.tensor([0.229, 0.224, 0.225]) * 255
        assert steps_of_255.max() < 0.01


def test_features_are_those_of_the_reference(exact, photograph):
    predictor = predictor_of(exact._model, photograph)
    (ours,) = exact._encode([photograph])
    for a, b in zip([ours.embedding, *ours.high_res],
                    [predictor._features["image_embed"], *predictor._features["high_res_feats"]], strict=True):  # fmt: skip
        assert (a - b).abs().max() <= 1e-5 * b.abs().mean()


@pytest.mark.parametrize("settings", [{"batching": "image"}, {"batching": "bucket", "prompt_chunk": 8}])
def test_masks_are_within_the_thresholds(asked, expected, settings):
    frame, prompts = asked
    ((*answers,),) = segmenter("nano", "nano_segmenter", **settings).segment([frame], [prompts])
    assert [answer.prompt for answer in answers] == list(range(len(BOXES)))
    ious = np.array([iou(answer.mask, mask) for answer, mask in zip(answers, expected, strict=True)])
    assert ious.mean() >= 0.9999
    assert ious.min() >= 0.999


# bfloat16 reaches what it has to (mean 0.995, 1st percentile 0.97) where the same one of the decoder's four masks is
# chosen: 0.998 and 0.988 over 299 objects of val pictures (the weights of the nineteenth training). 5.7 % of them got
# another one, where half a percent may, so the nano configuration says float32, on a GPU too. Two of these six do.
@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"batching": "image"}, {"batching": "bucket", "prompt_chunk": 8}])
def test_bfloat16_is_within_its_thresholds_where_it_chooses_the_same_mask(asked, exact, settings):
    frame, prompts = asked
    quick = segmenter("nano", "nano_segmenter", precision="bfloat16", **settings)
    with choices() as chosen:
        expected = reference(exact._model, frame.image_rgb, prompts.boxes_xyxy)[0]
        before = len(chosen)
        ((*answers,),) = quick.segment([frame], [prompts])
    assert before == len(chosen) - before == len(BOXES)
    same = np.array(chosen[:before]) == np.array(chosen[before:])
    ious = np.array([iou(answer.mask, mask) for answer, mask in zip(answers, expected, strict=True)])
    assert same.sum() >= len(BOXES) - 2
    assert ious[same].mean() >= 0.995
    assert ious[same].min() >= 0.97
