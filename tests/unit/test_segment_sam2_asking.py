"""Every way to ask SAM 2 beside the plain box: the masks of sam2's own predictor, asked the same in the same steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel.core.types import Prompts
from autolabel.ops.boxes import iou_xyxy
from autolabel.ops.masks import bounds_xyxy, encode, iou
from autolabel.segment import sam2
from autolabel.segment.inputs import by_shape, inner_points, to_logits, to_model_xy
from tests.records import disc
from tests.unit.test_segment_sam2 import BOXES, TINY, frame, predictor_of, segmenter

POINTS = np.array([[[40, 60], [80, 100]], [[100, 30], [70, 50]], [[20, 90], [90, 75]]], np.float32)
SIGNS = np.array([[1, 0], [1, 1], [1, 0]], np.int64)
ROUGH = tuple(encode(disc(120, 160, x, y, r)) for x, y, r in ((50, 60, 30), (100, 40, 20), (80, 90, 25)))

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def tiny_yaml(tmp_path_factory):
    """SAM 2.1 tiny at a quarter of its picture size."""
    path = tmp_path_factory.mktemp("tiny") / "tiny_256.yaml"
    path.write_text(sam2.read_architecture(TINY).replace("image_size: 1024", "image_size: 256"))
    return str(path)


@pytest.fixture(scope="module", params=["nano", pytest.param("tiny", marks=pytest.mark.slow)])
def model(request, tiny_yaml):
    return ("nano", "nano_segmenter") if request.param == "nano" else (tiny_yaml, "random:3")


@pytest.fixture(scope="module")
def loaded():
    """Weights are read once; the settings of a way to ask are not in them."""
    return {}


def asking(loaded, model, **settings):
    if model not in loaded:
        loaded[model] = segmenter(*model)
    ours = sam2.Sam2Segmenter.__new__(sam2.Sam2Segmenter)
    ours.__dict__.update(loaded[model].__dict__)
    ours.__dict__.update({f"_{name}": value for name, value in settings.items()})
    return ours


def best(masks_choice, masks, ious, low):
    """Row by row the number of the chosen mask, from what the predictor returns."""
    if masks_choice == "best_iou":
        return ious.argmax(1)
    if masks_choice == "most_stable":
        return ((low > 1).sum((2, 3)) / np.maximum((low > -1).sum((2, 3)), 1)).argmax(1)
    tight = [[bounds_xyxy(encode(mask)) or (0, 0, 0, 0) for mask in three] for three in masks]
    fits = [iou_xyxy(BOXES[i : i + 1], np.array(three, np.float32))[0] for i, three in enumerate(tight)]
    return np.array(fits).argmax(1)


def reference(model, choice, steps, refine_with="prompt"):
    """Masks and predicted IoUs of BOXES in steps of `SAM2ImagePredictor.predict`."""
    picture = frame().image_rgb
    predictor = predictor_of(model, picture)
    masks, ious, low = predictor.predict(box=BOXES, multimask_output=choice != "single")
    if choice != "single":
        row, chosen = np.arange(3), best(choice, masks, ious, low)
        masks, ious, low = masks[row, chosen][:, None], ious[row, chosen][:, None], low[row, chosen][:, None]
    for _ in range(steps):
        again = {"box": BOXES} if refine_with != "mask" else {}
        if refine_with == "point":
            inside = inner_points(low[:, 0], picture.shape[:2])[:, None]
            again |= {"point_coords": inside, "point_labels": np.ones((3, 1))}
        if refine_with == "mask":  # the predictor takes masks alone only one by one
            each = [predictor.predict(mask_input=one, multimask_output=False) for one in low]
            masks, ious, low = (np.stack(part) for part in zip(*each, strict=True))
        else:
            masks, ious, low = predictor.predict(mask_input=low, multimask_output=False, **again)
    return [encode(mask) for mask in masks[:, 0]], ious[:, 0]


def agree(answers, expected):
    masks, ious = expected
    assert [answer.mask for answer in answers] == masks
    assert np.allclose([answer.predicted_iou for answer in answers], ious, atol=1e-6)


def nearly_agree(answers, expected):
    """Not to the byte: last digits depend on where arrays lie in memory, and the innermost point of a mask may move by
    some pixels for one that flips, from step to step."""
    masks, ious = expected
    assert min(iou(answer.mask, mask) for answer, mask in zip(answers, masks, strict=True)) >= 0.95
    assert np.allclose([answer.predicted_iou for answer in answers], ious, atol=0.02)


@pytest.mark.parametrize("choice", ["best_iou", "best_box_fit", "most_stable"])
def test_one_of_three_masks_is_the_predictors(loaded, model, choice):
    ours = asking(loaded, model, masks=choice)
    agree(ours.segment([frame()], [Prompts(boxes_xyxy=BOXES)])[0], reference(ours._model, choice, 0))


@pytest.mark.parametrize(("choice", "steps", "refine_with"),
                         [("single", 1, "prompt"), ("best_iou", 2, "prompt"), ("single", 2, "mask"),
                          ("most_stable", 1, "point"), ("single", 3, "point")])  # fmt: skip
def test_steps_are_those_of_the_predictor(loaded, model, choice, steps, refine_with):
    ours = asking(loaded, model, masks=choice, refine_steps=steps, refine_with=refine_with)
    answers = ours.segment([frame()], [Prompts(boxes_xyxy=BOXES)])[0]
    (nearly_agree if refine_with == "point" else agree)(
        answers, reference(ours._model, choice, steps, refine_with)
    )


def test_steps_left_out_would_be_seen(loaded, model):
    ours = asking(loaded, model, masks="best_iou", refine_steps=0, refine_with="point")
    answers = ours.segment([frame()], [Prompts(boxes_xyxy=BOXES)])[0]
    with pytest.raises(AssertionError):
        nearly_agree(answers, reference(ours._model, "best_iou", 3, "point"))


def test_points_boxes_and_masks_are_asked_as_the_predictor_does(loaded, model):
    ours = asking(loaded, model)
    picture = frame()
    predictor = predictor_of(ours._model, picture.image_rgb)
    side = ours._model.sam_prompt_encoder.mask_input_size
    rough = np.stack([to_logits(mask, side) for mask in ROUGH])[:, None]
    points = {"point_coords": POINTS, "point_labels": SIGNS}
    for asked, given in (
        (Prompts(points_xy=POINTS, point_signs=SIGNS), points),
        (Prompts(boxes_xyxy=BOXES, points_xy=POINTS, point_signs=SIGNS), {"box": BOXES, **points}),
        (Prompts(boxes_xyxy=BOXES, masks=ROUGH), {"box": BOXES, "mask_input": rough}),
        (Prompts(points_xy=POINTS, point_signs=SIGNS, masks=ROUGH), {"mask_input": rough, **points}),
    ):
        masks, ious, _ = predictor.predict(multimask_output=False, **given)
        agree(ours.segment([picture], [asked])[0], ([encode(mask[0]) for mask in masks], ious[:, 0]))


def test_prompts_of_different_shapes_are_answered_as_each_alone(loaded, model):
    ours = asking(loaded, model)
    boxes = BOXES.copy()
    boxes[1] = np.nan
    signs = np.array([[-1, -1], [1, -1], [1, 0]], np.int64)
    mixed = Prompts(boxes_xyxy=boxes, points_xy=POINTS, point_signs=signs, masks=(None, None, ROUGH[2]))
    (together,) = ours.segment([frame()], [mixed])
    alone = [ours.segment([frame()], [mixed.select([row])])[0][0] for row in range(3)]
    assert [answer.prompt for answer in together] == [0, 1, 2]
    assert [answer.mask for answer in together] == [answer.mask for answer in alone]
    predictor = predictor_of(ours._model, frame().image_rgb)
    masks, _, _ = predictor.predict(POINTS[1, :1], np.array([1]), multimask_output=False)
    assert together[1].mask == encode(masks[0])


@pytest.mark.parametrize("steps", [0, 3])
def test_a_picture_is_encoded_once_however_much_is_asked(loaded, monkeypatch, steps):
    ours = asking(loaded, ("nano", "nano_segmenter"), masks="best_iou", refine_steps=steps, refine_with="point")
    seen = []
    encoder = ours._encoder
    monkeypatch.setattr(ours, "_encoder", lambda images: seen.append(len(images)) or encoder(images))
    boxes = np.tile(BOXES, (4, 1))
    mixed = Prompts(boxes_xyxy=boxes, masks=(None, *ROUGH) * 3)
    (answers,) = ours.segment([frame()], [mixed])
    assert seen == [1]
    assert len(answers) == 12


@pytest.mark.parametrize("steps", [0, 2])
def test_chunks_do_not_change_the_answers_of_any_step(loaded, steps):
    settings = {"masks": "best_box_fit", "refine_steps": steps, "refine_with": "point"}
    asked = [Prompts(boxes_xyxy=np.concatenate([BOXES, BOXES[:1] + 3]))]
    whole = asking(loaded, ("nano", "nano_segmenter"), prompt_chunk=4, **settings).segment([frame()], asked)
    parts = asking(loaded, ("nano", "nano_segmenter"), prompt_chunk=2, **settings).segment([frame()], asked)
    if not steps:
        assert [a.mask for a in parts[0]] == [a.mask for a in whole[0]]
    pairs = zip(parts[0], whole[0], strict=True)  # with clicks in between not to the byte: see `nearly_agree`
    assert min(iou(a.mask, b.mask) for a, b in pairs) >= 0.95


def test_without_a_box_the_best_fit_is_the_best_iou(loaded):
    asked = [Prompts(points_xy=POINTS, point_signs=SIGNS)]
    fit, iou = (asking(loaded, ("nano", "nano_segmenter"), masks=m) for m in ("best_box_fit", "best_iou"))
    assert fit.segment([frame()], asked) == iou.segment([frame()], asked)


def test_corners_come_first_and_are_scaled_to_the_models_square():
    asked = Prompts(
        boxes_xyxy=np.array([[10, 20, 30, 40]], np.float32),
        points_xy=np.array([[[5, 5]]], np.float32),
        point_signs=np.array([[1]]),
    )
    (inputs,) = by_shape(asked)
    assert to_model_xy(inputs.xy, (50, 100), 1000).tolist() == [[[100, 400], [300, 800], [50, 100]]]
    assert inputs.labels.tolist() == [[2, 3, 1]]


def test_a_prompt_that_holds_nothing_is_left_out():
    nothing = Prompts(boxes_xyxy=np.full((2, 4), np.nan, np.float32), masks=(None, ROUGH[0]))
    assert [group.rows.tolist() for group in by_shape(nothing)] == [[1]]


def test_a_mask_becomes_logits_whose_sign_is_the_mask():
    logits = to_logits(ROUGH[0], (60, 80))
    coarse = disc(120, 160, 50, 60, 30).reshape(60, 2, 80, 2).mean((1, 3))
    assert ((logits > 0) == (coarse > 0.5))[coarse != 0.5].all()
    assert np.abs(logits).max() < 7


def test_the_inner_point_lies_inside_and_an_empty_map_gives_its_highest_place():
    maps = np.stack([disc(32, 32, 20, 10, 6).astype(np.float32) - 0.5, np.full((32, 32), -1, np.float32)])
    maps[1, 4, 8] = -0.1
    assert inner_points(maps, (64, 320)).tolist() == [[205, 21], [85, 9]]


@pytest.mark.slow
def test_tiny_at_its_own_size_agrees_in_three_steps(loaded):
    ours = asking(loaded, (TINY, "random:3"), masks="best_iou", refine_steps=2, refine_with="prompt")
    answers = ours.segment([frame()], [Prompts(boxes_xyxy=BOXES)])[0]
    nearly_agree(answers, reference(ours._model, "best_iou", 2, "prompt"))


def test_the_default_way_to_ask_is_one_mask_in_one_step():
    assert replace(Prompts(boxes_xyxy=BOXES)).keep == "first"
    plain = segmenter()
    assert (plain._masks, plain._refine_steps) == ("single", 0)
