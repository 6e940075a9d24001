"""SAM of transformers: the masks of the library, and SAM 2 through both doors with one set of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autolabel.core.errors import ImageError, WeightsError
from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts
from autolabel.ops.masks import encode
from tests import hf_models

hf_models.needs_transformers()

from autolabel.segment.sam2 import Sam2Segmenter  # noqa: E402
from autolabel.segment.sam_hf import SamHfSegmenter  # noqa: E402

BOXES = np.array([[20, 30, 90, 110], [60, 10, 150, 60], [5, 70, 155, 118]], np.float32)
CLICKS = (BOXES[:, None, :2] + 9).astype(np.float32)
INSIDE, OUTSIDE = np.ones((3, 1), np.int64), np.zeros((3, 1), np.int64)


pytestmark = pytest.mark.usefixtures("one_thread")


def settings(**changed):
    return {"device": "cpu", "precision": "float32", "prompt_chunk": 0, "encode_batch": 0, "masks": "single",
            "refine_steps": 0, "refine_with": "prompt", **changed}  # fmt: skip


@pytest.fixture(scope="module")
def sam1(tmp_path_factory):
    return hf_models.sam1(tmp_path_factory.mktemp("sam 1"))


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return hf_models.sam2_nano(tmp_path_factory.mktemp("sam 2"))


def frame(height: int = 120, width: int = 160, seed: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
    return Frame(ImageRef("a", "a"), image, ImageInfo(width, height))


def filled():
    masks = np.zeros((3, 120, 160), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, BOXES.astype(int), strict=True):
        mask[y0 + 3 : y1 - 9, x0 + 5 : x1] = 1
    return tuple(encode(mask) for mask in masks)


@pytest.mark.parametrize("size_hw", [(1, 200), (4000, 30)])
def test_a_picture_of_which_the_model_s_size_leaves_nothing_fails(sam1, size_hw):
    asked = Prompts(boxes_xyxy=np.array([[0, 0, 1, 1]], np.float32))
    with pytest.raises(ImageError, match=f"too_elongated: {size_hw[1]}x{size_hw[0]} px"):
        SamHfSegmenter(weights=sam1, **settings()).segment([frame(*size_hw)], [asked])


@pytest.mark.parametrize("model", ["sam1", "nano"])
def test_places_are_coded_in_float32_under_autocast_too(model, request):
    network = SamHfSegmenter(
        weights=str(request.getfixturevalue(model)), **settings(precision="bfloat16")
    )._network
    corners = {"input_boxes": torch.from_numpy(BOXES)[None], "input_points": None, "input_labels": None}
    with torch.inference_mode():
        expected = (
            network.prompt_encoder(**corners, input_masks=None)[0],
            network.get_image_wide_positional_embeddings(),
        )
        with torch.autocast("cpu", torch.bfloat16):
            found = (
                network.prompt_encoder(**corners, input_masks=None)[0],
                network.get_image_wide_positional_embeddings(),
            )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


PROMPTS = {
    "boxes": Prompts(boxes_xyxy=BOXES),
    "clicks": Prompts(points_xy=CLICKS, point_signs=INSIDE),
    "boxes and clicks": Prompts(boxes_xyxy=BOXES, points_xy=CLICKS, point_signs=OUTSIDE),
    "masks": Prompts(masks=filled()),
    "boxes and masks": Prompts(boxes_xyxy=BOXES, masks=filled()),
    "boxes, one with clicks": Prompts(
        boxes_xyxy=BOXES, points_xy=CLICKS.repeat(2, 1), point_signs=np.array([[1, 0], [-1, -1], [-1, 1]])
    ),
}


@pytest.mark.parametrize("asked", PROMPTS)
def test_sam_2_gives_the_same_masks_through_both_doors(nano, asked):
    theirs = SamHfSegmenter(weights=nano, **settings())
    ours = Sam2Segmenter(weights="nano_segmenter", architecture="nano", **settings())
    (found,), (expected,) = (s.segment([frame()], [PROMPTS[asked]]) for s in (theirs, ours))
    assert [m.prompt for m in found] == [0, 1, 2]
    assert [m.mask for m in found] == [m.mask for m in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-5)
        assert a.object_score == pytest.approx(b.object_score, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"masks": "best_iou"}, {"masks": "most_stable", "refine_steps": 2, "refine_with": "point"}])  # fmt: skip
def test_choices_and_rounds_are_those_of_sam_2(nano, changed):
    theirs = SamHfSegmenter(weights=nano, **settings(**changed))
    ours = Sam2Segmenter(weights="nano_segmenter", architecture="nano", **settings(**changed))
    (found,), (expected,) = (s.segment([frame()], [PROMPTS["boxes"]]) for s in (theirs, ours))
    assert [m.mask for m in found] == [m.mask for m in expected]


@pytest.mark.parametrize("size", [(120, 160), (160, 100), (40, 50), (300, 64)])
def test_sam_1_gives_the_library_s_masks(sam1, size):
    from transformers import AutoProcessor, SamModel

    picture = frame(*size)
    boxes = (BOXES * min(size) / 160).astype(np.float32)
    processor, model = AutoProcessor.from_pretrained(sam1), SamModel.from_pretrained(sam1).eval()
    inputs = processor(images=picture.image_rgb, input_boxes=[boxes.tolist()], return_tensors="pt")
    with torch.inference_mode():
        output = model(
            **{k: v.float() if v.is_floating_point() else v for k, v in inputs.items()}, multimask_output=False
        )
    (expected,) = processor.image_processor.post_process_masks(
        output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    (found,) = SamHfSegmenter(weights=sam1, **settings()).segment([picture], [Prompts(boxes_xyxy=boxes)])
    assert [m.mask for m in found] == [encode(mask[0].numpy()) for mask in expected]
    assert [m.predicted_iou for m in found] == pytest.approx(output.iou_scores.flatten().tolist(), abs=1e-5)
    assert {m.object_score for m in found} == {None}


@pytest.mark.parametrize("asked", PROMPTS)
def test_sam_1_answers_every_kind_of_prompt_as_if_it_were_alone(sam1, asked):
    segmenter = SamHfSegmenter(weights=sam1, **settings(refine_steps=1, masks="best_box_fit"))
    (together,) = segmenter.segment([frame()], [PROMPTS[asked]])
    alone = [segmenter.segment([frame()], [PROMPTS[asked].select([i])])[0][0] for i in range(3)]
    assert [m.prompt for m in together] == [0, 1, 2]
    for a, b in zip(together, alone, strict=True):
        assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-5)


def test_a_picture_is_encoded_once_and_one_without_questions_never(sam1):
    segmenter = SamHfSegmenter(weights=sam1, **settings())
    seen = []
    segmenter._network.vision_encoder.register_forward_hook(lambda *_: seen.append(1))
    nothing = Prompts(boxes_xyxy=np.zeros((0, 4), np.float32))
    found = segmenter.segment([frame(), frame(seed=1)], [PROMPTS["boxes"], nothing])
    assert (len(seen), [len(f) for f in found]) == (1, [3, 0])


def test_models_of_another_kind_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="rt_detr_v2 model; what fits here is sam"):
        SamHfSegmenter(weights=hf_models.rt_detr_v2(tmp_path), **settings())
