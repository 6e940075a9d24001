"""SAM 3 asked in words: the library's numbers, one encoding a picture, each object of a class once."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from autolabel.core.errors import ConfigError, ImageError, WeightsError, WeightsMissing
from autolabel.core.types import Frame, ImageInfo, ImageRef
from autolabel.ops.masks import encode, iou
from tests import hf_models

hf_models.needs_transformers()

from autolabel.segment.sam3_hf import Sam3Model  # noqa: E402

PHRASES = {"lift": "yellow forklift", "person": ["person", "worker"], "car": None}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return hf_models.sam3(tmp_path_factory.mktemp("sam 3"))


def model(weights: str, **changed: object) -> Sam3Model:
    settings = {"classes": PHRASES, "conf": 0.2, "iou": 0.7, "max_det": 100, "prompt_chunk": 0, "encode_batch": 0,
                "device": "cpu", "precision": "float32", **changed}  # fmt: skip
    return Sam3Model(weights=weights, **settings)


def frame(height: int = 90, width: int = 130, seed: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
    return Frame(ImageRef("a", "a"), image, ImageInfo(width, height))


def library(weights: str, picture: Frame, phrase: str):
    """The answer of transformers to one phrase, and its post-processed boxes and scores."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers import Sam3Model as Theirs

    processor = AutoImageProcessor.from_pretrained(weights)
    text = AutoTokenizer.from_pretrained(weights)(phrase, padding="max_length", max_length=32, return_tensors="pt")
    pixels = processor(images=picture.image_rgb, input_data_format="channels_last", return_tensors="pt")
    with torch.inference_mode():
        answer = Theirs.from_pretrained(weights).eval()(pixel_values=pixels["pixel_values"], **text)
    (found,) = processor.post_process_object_detection(answer, threshold=0.2, target_sizes=[picture.info.size_hw])
    return answer, found


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 130), (112, 112), (40, 200)])
def test_scores_boxes_and_masks_are_the_library_s(weights, size):
    picture = frame(*size)
    answer, expected = library(weights, picture, "person")
    found = model(weights, classes={"someone": "person"}, iou=1.0).find([picture])[0].found
    order = np.argsort(-expected["scores"].numpy(), kind="stable")
    assert len(order) > 1
    assert [one.detector_score for one in found] == pytest.approx(expected["scores"].numpy()[order], abs=1e-6)
    boxes = expected["boxes"].numpy()[order].clip(0, [size[1], size[0]] * 2)
    assert np.array([one.box_xyxy for one in found]) == pytest.approx(boxes, abs=1e-3)
    scores = answer.pred_logits[0].sigmoid() * answer.presence_logits[0].sigmoid()
    logits = answer.pred_masks[0, scores > 0.2][order.tolist()]
    full = torch.nn.functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0] > 0
    assert [iou(one.mask, encode(mask.numpy())) for one, mask in zip(found, full, strict=True)] == pytest.approx(
        [1.0] * len(order), abs=1e-3
    )


@pytest.mark.slow
def test_the_form_in_which_its_authors_publish_it_gives_the_same(weights, tmp_path):
    assert model(hf_models.sam3_video(tmp_path)).find([frame()]) == model(weights).find([frame()])


def test_a_picture_is_encoded_once_however_many_phrases_are_asked(weights):
    ours, pictures, asked = model(weights), [], []
    ours._network.vision_encoder.register_forward_hook(lambda *_: pictures.append(1))
    ours._network.detr_decoder.register_forward_hook(lambda *_: asked.append(1))
    ours.find([frame(), frame(seed=1)])
    assert (len(pictures), len(asked)) == (2, 2 * 4)


def test_of_objects_of_one_class_that_overlap_the_best_stays_whatever_phrase_it_came_from(weights):
    loose, tight = (model(weights, iou=limit).find([frame()])[0].found for limit in (1.0, 0.3))
    doubles = {
        (a.category_id, b.category_id) for a in loose for b in loose if a is not b and iou(a.mask, b.mask) > 0.3
    }
    assert (2, 2) in doubles, "the fake finds everything once: the test proves nothing"
    for a in tight:
        others = [b for b in tight if b is not a and b.category_id == a.category_id]
        assert all(iou(a.mask, b.mask) <= 0.3 for b in others)
    for lost in (one for one in loose if replace(one, index=0) not in [replace(t, index=0) for t in tight]):
        better = [
            t for t in tight if t.category_id == lost.category_id and t.detector_score >= lost.detector_score
        ]
        assert any(iou(lost.mask, t.mask) > 0.3 for t in better)
    assert {1, 2, 3} == {one.category_id for one in tight}


@pytest.mark.slow
def test_objects_are_numbered_best_first_and_no_more_than_asked_for(weights):
    found = model(weights, max_det=5).find([frame()])[0].found
    assert [one.index for one in found] == [0, 1, 2, 3, 4]
    scores = [one.detector_score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0.2
    (everything,) = model(weights).find([frame()])
    assert found == everything.found[:5]
    assert everything.notes == ()


@pytest.mark.parametrize("iou_limit", [1.0, 0.05])
def test_as_many_as_asked_for_are_limited_also_where_doubles_went_before(weights, iou_limit):
    (everything,) = model(weights, iou=iou_limit).find([frame()])
    count = len(everything.found)
    assert count > 2
    for max_det, limited in ((count - 1, True), (count, True), (count + 1, False)):
        (some,) = model(weights, iou=iou_limit, max_det=max_det).find([frame()])
        assert some.found == everything.found[:max_det]
        assert some.notes == ("max_det",) * limited


@pytest.mark.slow
def test_pictures_are_found_together_as_alone_and_chunks_of_phrases_change_last_digits_at_the_most(weights):
    pictures = [frame(), frame(60, 60, 1), frame(3, 40, 2)]
    alone = [model(weights).find([one])[0] for one in pictures]
    assert model(weights).find(pictures) == alone
    together = model(weights, prompt_chunk=3, encode_batch=3).find(pictures)
    for some, others in zip(together, alone, strict=True):
        scores = [one.detector_score for one in others.found]
        assert [one.detector_score for one in some.found] == pytest.approx(scores, abs=1e-4)


@pytest.mark.slow
def test_a_map_that_is_not_finite_is_an_object_without_a_mask(weights):
    ours = model(weights)
    with torch.no_grad():
        ours._network.mask_decoder.instance_projection.weight.fill_(torch.nan)
    found = ours.find([frame()])[0].found
    assert found
    assert {(one.mask, one.stability) for one in found} == {(None, None)}


@pytest.mark.slow
def test_scores_that_are_no_numbers_fail_the_picture_and_not_in_silence(weights):
    ours = model(weights)
    with torch.no_grad():
        ours._network.dot_product_scoring.query_proj.weight.fill_(torch.nan)
    with pytest.raises(ImageError, match="scores are not numbers"):
        ours.find([frame()])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encode_batch": 64}, "^encode_batch"),
        ({"classes": None}, r"^classes: which objects\?"),
        ({"classes": {"a": 3}}, "^classes: 'a'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name_before_anything_is_loaded(changed, words):
    with pytest.raises(ConfigError, match=words):
        model("nowhere", **changed)


def test_a_phrase_longer_than_the_model_reads_is_refused(weights):
    with pytest.raises(ConfigError, match=r"classes: 'word .* this model reads 32"):
        model(weights, classes={"a": "word " * 40})


def test_weights_that_are_not_here_are_one_line_with_the_licence_and_the_way(tmp_path):
    with pytest.raises(WeightsMissing, match=r"accept its licence .* hf download facebook/sam3 ") as caught:
        model("facebook/sam3")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_model_of_another_kind_or_one_that_is_damaged_is_refused(weights, tmp_path):
    with pytest.raises(WeightsError, match="rt_detr_v2 model; what fits here is sam3"):
        model(hf_models.rt_detr_v2(tmp_path / "other"))
    broken = tmp_path / "broken"
    shutil.copytree(weights, broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        model(str(broken))
