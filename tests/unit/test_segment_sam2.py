"""SAM 2: the reference's masks, one encoding a picture, and no trace in Hydra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, ImageError, WeightsError
from autolabel.core.types import Frame, ImageInfo, ImageRef, Prompts, Sieve
from autolabel.ops.masks import encode
from autolabel.segment import answers, sam, sam2, sam2_buckets, sam2_decoder
from autolabel.segment.answers import logits_rle, matching_arithmetic
from autolabel.segment.sam2 import Sam2Segmenter
from autolabel.segment.sam2_decoder import MaskDecoder
from tests.records import disc
from tests.unit.test_device import denormals_are_zero

TINY = "sam2.1/sam2.1_hiera_t.yaml"
BOXES = np.array([[20, 30, 90, 110], [60, 10, 150, 60], [5, 70, 155, 118]], np.float32)


def segmenter(architecture: str = "nano", weights: str = "random:0", **settings) -> Sam2Segmenter:
    plain = {"device": "cpu", "precision": "float32", "prompt_chunk": 0, "encode_batch": 0,
             "masks": "single", "refine_steps": 0, "refine_with": "prompt"}  # fmt: skip
    return Sam2Segmenter(weights=weights, architecture=architecture, **{**plain, **settings})


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def nano() -> Sam2Segmenter:
    return segmenter()


def frame(seed: int = 0, height: int = 120, width: int = 160) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Frame(ImageRef("a", "a"), coarse.repeat(8, 0).repeat(8, 1), ImageInfo(width, height))


def predictor_of(model, image_rgb):
    """sam2's own predictor with the picture set."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    # The predictor knows only models of 1024 px.
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    predictor.set_image(image_rgb)
    return predictor


def reference(model, image_rgb, boxes_xyxy):
    """RLE and predicted IoU of each box."""
    masks, ious, _ = predictor_of(model, image_rgb).predict(box=boxes_xyxy, multimask_output=False)
    masks = masks.reshape(len(boxes_xyxy), *image_rgb.shape[:2])
    return [encode(mask) for mask in masks], ious.reshape(-1)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
class TestReference:
    """sam2's own predictor on the same picture, byte for byte."""

    def agree(self, ours: Sam2Segmenter) -> None:
        picture = frame()
        (answers,) = ours.segment([picture], [Prompts(boxes_xyxy=BOXES)])
        masks, ious = reference(ours._model, picture.image_rgb, BOXES)
        assert [answer.mask for answer in answers] == masks
        assert len(set(masks)) == 3
        assert np.allclose([answer.predicted_iou for answer in answers], ious, atol=1e-6)

    def test_nano(self):
        self.agree(segmenter("nano", "nano_segmenter"))

    def test_tiny_at_a_quarter_of_its_size(self, tmp_path):
        small = tmp_path / "tiny_256.yaml"
        small.write_text(sam2.read_architecture(TINY).replace("image_size: 1024", "image_size: 256"))
        self.agree(segmenter(str(small), "random:3"))

    @pytest.mark.slow
    def test_tiny(self):
        self.agree(segmenter(TINY, "random:3"))


def test_hydra_is_as_it_was_before_sam2_came():
    assert not GlobalHydra.instance().is_initialized()
    before = GlobalHydra.instance().hydra
    with sam2.hydra_left_alone():
        assert GlobalHydra.instance().is_initialized()
    assert GlobalHydra.instance().hydra is before


def test_no_prompts_one_and_many_keep_their_places(nano):
    many = np.tile(BOXES, (4, 1))[:11] + np.arange(11, dtype=np.float32)[:, None]
    prompts = [Prompts(boxes_xyxy=rows) for rows in (BOXES[:0], BOXES[:1], many)]
    answers = nano.segment([frame(0), frame(1), frame(2)], prompts)
    assert [[answer.prompt for answer in found] for found in answers] == [[], [0], list(range(11))]
    assert all(answer.mask.size_hw == (120, 160) for found in answers for answer in found)


def test_pictures_without_prompts_never_reach_the_encoder(nano, monkeypatch):
    monkeypatch.setattr(nano, "_encoder", None)
    assert nano.segment([frame(), frame()], [Prompts(boxes_xyxy=BOXES[:0])] * 2) == [[], []]
    assert nano.segment([], []) == []


def test_scores_are_fractions(nano):
    (answers,) = nano.segment([frame()], [Prompts(boxes_xyxy=BOXES)])
    for answer in answers:
        assert 0 <= answer.object_score <= 1
        assert 0 <= answer.stability <= 1


@pytest.mark.parametrize("chunk", [2, 64])
def test_chunks_do_not_change_masks(nano, chunk):
    # 4 boxes: a single prompt alone takes another matrix kernel and may differ in the last bit of a logit.
    asked = [Prompts(boxes_xyxy=np.concatenate([BOXES, BOXES[:1] + 3]))]
    chunked = segmenter(prompt_chunk=chunk).segment([frame()], asked)
    assert masks_of(chunked) == masks_of(nano.segment([frame()], asked))


@pytest.mark.parametrize(
    ("architecture", "given", "at_once"),
    [("nano", 0, 4), (TINY, 0, 2), (TINY, 9, 9)],
)
def test_on_a_cpu_large_models_are_asked_with_fewer_prompts_at_once(architecture, given, at_once, monkeypatch):
    loaded = segmenter(architecture, "random:0", prompt_chunk=given)
    sizes, upscaled = [], MaskDecoder._upscaled

    def watched(*inputs):
        found = upscaled(*inputs)
        sizes.append((len(found), found.nbytes))
        return found

    monkeypatch.setattr(MaskDecoder, "_upscaled", watched)
    loaded.segment([frame()], [Prompts(boxes_xyxy=np.repeat(BOXES[:1], 9, axis=0))])
    assert sizes[0][0] == at_once
    assert given or sizes[0][1] <= sam2_decoder._AT_ONCE_BYTES


@pytest.mark.parametrize("batching", ["image", "bucket"])
def test_networks_compute_without_denormals_and_masks_are_made_with_them(batching, monkeypatch):
    loaded, seen = segmenter(batching=batching), []
    decode, prompted = MaskDecoder.__call__, answers.prompted

    def watched(function):
        return lambda *inputs: seen.append(denormals_are_zero()) or function(*inputs)

    monkeypatch.setattr(MaskDecoder, "__call__", watched(decode))
    for module in (answers, sam2_buckets):
        monkeypatch.setattr(module, "prompted", watched(prompted))
    loaded.segment([frame()], [Prompts(boxes_xyxy=BOXES)])
    assert seen == [True, False, False, False]


def test_pictures_encoded_together_have_the_masks_they_have_alone(nano):
    frames, asked = [frame(0), frame(1, 96, 200), frame(2)], [Prompts(boxes_xyxy=BOXES)] * 3
    together = segmenter(encode_batch=3).segment(frames, asked)
    assert masks_of(together) == masks_of(nano.segment(frames, asked))


def masks_of(answers):
    return [[answer.mask for answer in found] for found in answers]


def test_an_unanswered_prompt_shifts_no_other(nano):
    holed = BOXES.copy()
    holed[1] = np.nan
    (answers,) = nano.segment([frame()], [Prompts(boxes_xyxy=holed)])
    (whole,) = nano.segment([frame()], [Prompts(boxes_xyxy=BOXES)])
    assert [answer.prompt for answer in answers] == [0, 2]
    assert [answer.mask for answer in answers] == [whole[0].mask, whole[2].mask]


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_grids_answers_that_are_no_numbers_are_no_empty_picture(nano, monkeypatch, spoilt):
    points = np.array([[[40, 50]], [[100, 60]]], np.float32)
    grid = Prompts(
        points_xy=points,
        point_signs=np.ones((2, 1), np.int64),
        sieve=Sieve(True, 0.0, 0.0, 1, 1.0, 0.7, 0.7, None),
    )
    (sound,) = nano.segment([frame()], [grid])
    assert sound
    decode = nano._decode

    def with_a_hole(*asked):
        answer = decode(*asked)
        answer.logits[1, 0, 0, 0] = spoilt
        return answer

    monkeypatch.setattr(nano, "_decode", with_a_hole)
    with pytest.raises(ImageError, match="scores are not numbers") as error:
        nano.segment([frame()], [grid])
    assert error.value.code == "not_finite"


def test_points_boxes_and_masks_can_be_asked_together(nano):
    points = np.array([[[50, 60], [0, 0]], [[100, 30], [80, 50]]], np.float32)
    signs = np.array([[1, -1], [1, 0]], np.int64)
    masks = (encode(disc(120, 160, 60, 60, 30)), None)
    alone = Prompts(points_xy=points, point_signs=signs)
    for asked in (alone, replace(alone, boxes_xyxy=BOXES[:2]), replace(alone, masks=masks),
                  Prompts(masks=masks[:1] * 2)):  # fmt: skip
        (answers,) = nano.segment([frame()], [asked])
        assert [answer.prompt for answer in answers] == [0, 1]


def test_a_padding_point_says_nothing_of_its_place(nano):
    signs = np.array([[1, -1]], np.int64)
    here, there = (
        Prompts(points_xy=np.array([[[50, 60], place]], np.float32), point_signs=signs)
        for place in ([0, 0], [99, 99])
    )
    assert nano.segment([frame()], [here]) == nano.segment([frame()], [there])


@pytest.mark.parametrize("size_hw", [(30, 40), (60, 68), (60, 69), (301, 200)])
def test_short_and_long_ways_to_a_mask_agree(size_hw):
    logits = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    quick = logits_rle(logits, size_hw, matching_arithmetic())
    assert quick == logits_rle(logits, size_hw, None)


def test_random_weights_are_those_of_their_seed_and_leave_the_generator_alone(nano):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again, other = segmenter(), segmenter(weights="random:1")
    assert torch.equal(torch.rand(1), expected)
    asked = [Prompts(boxes_xyxy=BOXES)]
    assert again.segment([frame()], asked) == nano.segment([frame()], asked)
    assert other.segment([frame()], asked) != nano.segment([frame()], asked)
    assert again.identity == nano.identity != other.identity


def test_other_arithmetic_is_another_identity(nano, monkeypatch):
    before = dict(nano.identity)
    monkeypatch.setitem(sam.ARITHMETIC, "float32", "next")
    assert nano.identity == {**before, "arithmetic": "next"} != before
    monkeypatch.setitem(sam.ARITHMETIC, "bfloat16", "another")
    assert nano.identity["arithmetic"] == "next"


def test_bfloat16_makes_its_weights_once_and_float32_none():
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        model = segmenter(precision=precision)._model
        assert model.image_encoder.trunk.blocks[0].attn.qkv.weight.dtype == dtype
        assert model.sam_prompt_encoder.no_mask_embed.weight.dtype == torch.float32


def test_weights_that_do_not_fit_are_refused_with_their_keys(nano, tmp_path):
    state = dict(nano._model.state_dict())
    state["extra.weight"] = torch.zeros(1)
    state["no_mem_embed"] = torch.zeros(2)
    del state["sam_mask_decoder.iou_token.weight"]
    torch.save({"model": state}, tmp_path / "wrong.pt")
    with pytest.raises(WeightsError) as caught:
        segmenter(weights=str(tmp_path / "wrong.pt"))
    for part in ("1 missing: sam_mask_decoder.iou_token.weight", "1 unexpected: extra.weight",
                 "1 of another shape: no_mem_embed"):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights_come_back_from_a_file(nano, tmp_path, ending):
    from safetensors.torch import save_file

    path = tmp_path / f"my model.{ending}"
    state = {key: tensor.clone() for key, tensor in nano._model.state_dict().items()}
    torch.save({"model": state}, path) if ending == "pt" else save_file(state, path)
    loaded = segmenter(weights=str(path))
    asked = [Prompts(boxes_xyxy=BOXES)]
    assert loaded.segment([frame()], asked) == nano.segment([frame()], asked)
    assert len(loaded.identity["weights"]) == 64


class _RunsCode:
    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


def test_a_checkpoint_with_code_is_refused_and_does_not_run_it(tmp_path, capsys):
    torch.save({"model": _RunsCode()}, tmp_path / "hostile.pt")
    with pytest.raises(WeightsError, match=r"hostile\.pt is damaged, or holds more than tensors"):
        segmenter(weights=str(tmp_path / "hostile.pt"))
    assert capsys.readouterr().out == ""


def test_an_architecture_can_be_a_file_of_ones_own(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_bytes((configs_dir() / "segment" / "sam2_arch" / "nano.yaml").read_bytes())
    assert segmenter(str(own)).identity == segmenter("nano").identity


def test_an_unknown_architecture_names_those_there_are():
    with pytest.raises(ConfigError, match=r"sam2\.1/sam2\.1_hiera_t\.yaml"):
        segmenter("sam3")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("encode_batch", 64),
        ("device", "tpu"),
        ("weights", "random:x"),
    ],
)
def test_what_a_model_or_a_device_cannot_have_is_refused(setting, value):
    with pytest.raises(ConfigError, match=rf"^{setting} "):
        segmenter(**{setting: value})


def test_out_of_memory_in_encoder_and_decoder_loses_no_prompt_and_is_remembered(monkeypatch):
    ours, sizes = segmenter(encode_batch=4, prompt_chunk=4), []

    def with_room_for(limit, function, size_of):
        def call(*inputs):
            sizes.append(size_of(*inputs))
            if sizes[-1] > limit:
                raise torch.OutOfMemoryError
            return function(*inputs)

        return call

    monkeypatch.setattr(ours, "_encoder", with_room_for(2, ours._encoder, len))
    monkeypatch.setattr(
        ours,
        "_decoder",
        Watched(ours._decoder, with_room_for(1, ours._decoder, lambda side, image, sparse: len(sparse))),
    )
    for expected in ([4, 2, 2] + [3, 1, 1, 1] + [1] * 9, ([2] + [1] * 6) * 2):
        sizes.clear()
        answers = ours.segment([frame(seed) for seed in range(4)], [Prompts(boxes_xyxy=BOXES)] * 4)
        assert [[answer.prompt for answer in found] for found in answers] == [[0, 1, 2]] * 4
        assert sizes == expected


class Watched:
    """A decoder whose calls go through `call`."""

    def __init__(self, decoder, call):
        self._decoder, self._call = decoder, call

    def __getattr__(self, name):
        return getattr(self._decoder, name)

    def __call__(self, *inputs):
        return self._call(*inputs)
