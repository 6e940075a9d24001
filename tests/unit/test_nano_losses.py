"""What the nano segmenter is trained to do with small objects."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from autolabel.ops.device import autocast
from scripts import train_nano_segmenter
from scripts.nano.scoring import corrective_click
from scripts.nano.segmenter import NEGATIVE, POSITIVE, Decoded, build_segmenter, decode, encode
from scripts.train_nano_segmenter import (
    FILLED_LOGIT,
    NEAR_SIDE,
    Batch,
    Optimizers,
    corrected,
    filled_boxes,
    first_click,
    mask_losses,
    nearly_true_masks,
    objects_to_ask,
    points_around,
    read_at,
    real_ious,
)

SIDE = 256


def square(*corners: tuple[int, int, int, int]) -> torch.Tensor:
    fine = torch.zeros(len(corners), SIDE, SIDE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(fine, corners, strict=True):
        mask[y0:y1, x0:x1] = 255
    return fine


def read(logits: torch.Tensor, fine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The grid of an object, and on it an answer and the truth."""
    torch.manual_seed(0)
    grid = points_around(fine)
    return grid, read_at(logits, grid), read_at(fine[:, None].float(), grid) / 255


def test_an_answer_is_read_between_its_logits_as_interpolate_does():
    logits = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    centres = (torch.arange(64) + 0.5) / 32 - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=2).expand(2, -1, -1, -1)
    expected = functional.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(read_at(logits, grid), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("box", [(100, 40, 112, 70), (0, 0, 6, 6), (0, 0, SIDE, SIDE), (200, 3, SIDE, 9)])
def test_the_points_cover_an_object_and_what_is_around_it_in_the_picture(box):
    torch.manual_seed(0)
    points = (points_around(square(box))[0] + 1) * SIDE / 2
    assert points.shape == (NEAR_SIDE, NEAR_SIDE, 2)
    low, high = points.amin((0, 1)), points.amax((0, 1))
    step = (high - low) / (NEAR_SIDE - 1)
    assert (low >= 0).all()
    assert (high <= SIDE).all()
    around = torch.tensor([-3, -3, 3, 3])  # it reaches beyond the object, as far as the picture does
    wanted = (torch.tensor(box).float() + around).clamp(0, SIDE)
    assert (low <= wanted[:2] + step).all()
    assert (high >= wanted[2:] - step).all()


def test_a_mask_that_shrinks_between_its_logits_is_to_grow():
    """Every logit has the right sign, but those outside are so sure that half of the object is lost between them."""
    fine = square((96, 96, 108, 108))
    inside = functional.avg_pool2d(fine[:, None].float(), 4) > 127
    ring = (functional.max_pool2d(inside.float(), 3, stride=1, padding=1) > 0) & ~inside
    logits = torch.where(inside, 4.0, -12.0).expand(1, 4, -1, -1).clone().requires_grad_()
    mask = functional.interpolate(logits, SIDE, mode="bilinear")[0, 0] > 0
    assert mask.sum() < 0.7 * (fine > 0).sum()
    _, near, truth = read(logits, fine)
    coarse = functional.avg_pool2d(fine[:, None].float() / 255, 4)[:, 0]
    (slope,) = torch.autograd.grad(mask_losses(logits, near, coarse, truth)[0, 0], logits)
    assert slope[0, 0][ring[0, 0]].sum() < 0


@pytest.mark.parametrize("found", [(96, 96, 108, 108), (99, 96, 111, 110), (40, 90, 200, 120), (0, 0, 8, 8)])
def test_an_iou_is_that_of_the_picture(found):
    fine, mask = square((96, 96, 108, 108)), square(found)
    logits = functional.avg_pool2d(mask[:, None].float(), 4).sub(127).expand(1, 4, -1, -1)
    drawn, object_ = functional.interpolate(logits, SIDE, mode="bilinear")[0, 0] > 0, fine[0] > 0
    expected = (drawn & object_).sum() / (drawn | object_).sum()
    grid, near, truth = read(logits, fine)
    assert real_ious(logits, near, truth, grid)[0, 0] == pytest.approx(float(expected), abs=0.05)


def test_a_corrective_click_is_where_the_answer_is_most_wrong():
    truth = square((40, 40, 80, 80))[0].numpy() > 0
    half, more = truth.copy(), truth.copy()
    half[:, 60:] = False
    more[100:140, 100:160] = True
    (x, y), sign = corrective_click(half, truth)
    assert (60 <= x < 80, 40 <= y < 80, sign) == (True, True, POSITIVE)
    (x, y), sign = corrective_click(more, truth)
    assert (100 <= x < 160, 100 <= y < 140, sign) == (True, True, NEGATIVE)
    both = more.copy()
    both[:, 74:80] = False  # six columns are missing, forty rows are too much
    (x, y), sign = corrective_click(both, truth)
    assert (100 <= x < 160, 100 <= y < 140, sign) == (True, True, NEGATIVE)
    (x, y), sign = corrective_click(truth, truth)
    assert truth[int(y), int(x)]
    assert sign == POSITIVE


def test_a_filled_box_says_how_much_of_each_place_it_covers():
    corners = torch.tensor([[[4.0, 8.0], [14.0, 16.0]], [[0.0, 0.0], [32.0, 16.0]]])
    empty = torch.empty(0)
    asked = Batch(empty, empty, torch.zeros(2, 4, 8), empty, empty, corners, empty)
    first, whole = filled_boxes(asked)[:, 0] / FILLED_LOGIT
    # Places of 4 px: columns 1 and 2 whole, of column 3 a half.
    assert first[2:].tolist() == [[-1, 1, 1, 0, -1, -1, -1, -1]] * 2
    assert (first[:2] == -1).all()
    assert (whole == 1).all()


@pytest.mark.parametrize("innermost", [0.0, 1.0])
def test_a_further_click_lies_where_the_believed_mask_is_wrong(innermost, monkeypatch):
    """Of a single click the one of three with the highest predicted IoU, as the product goes on; later mask 0."""
    monkeypatch.setattr(train_nano_segmenter, "INNERMOST_RATE", innermost)
    monkeypatch.setattr(train_nano_segmenter, "NO_NEW_CLICK_RATE", 0.0)
    truth = torch.zeros(1, 16, 16)
    truth[0, 4:12, 4:12] = 1
    logits = torch.full((1, 4, 16, 16), -5.0)
    logits[0, 0, 4:12, 4:8] = 5.0  # the right half is missing
    logits[0, 2, 4:12, 4:16] = 50.0  # four columns too much
    decoded = Decoded(logits, torch.tensor([[0.9, 0.1, 0.5, 0.2]]), torch.zeros(1))
    once = Batch(
        images_B3SS=torch.empty(0),
        image_of_prompt_N=torch.zeros(1, dtype=torch.long),
        targets_Nhw=truth,
        fine_NSS=truth.repeat_interleave(4, 1).repeat_interleave(4, 2).mul(255).to(torch.uint8),
        has_object_N=torch.ones(1, dtype=torch.bool),
        points_NT2=torch.tensor([[[20.0, 20.0]]]),
        labels_NT=torch.tensor([[POSITIVE]]),
    )
    rng = np.random.default_rng(0)
    twice, mask = corrected(once, decoded, rng)
    assert twice.labels_NT.tolist() == [[POSITIVE, NEGATIVE]]
    x, y = twice.points_NT2[0, 1].tolist()
    assert 47.5 <= x <= 63.5
    assert 15.5 <= y <= 47.5
    assert torch.equal(mask, logits[:, 2:3].clamp(-32, 32))
    thrice, mask = corrected(twice, decoded, rng)
    assert thrice.labels_NT.tolist() == [[POSITIVE, NEGATIVE, POSITIVE]]
    x, y = thrice.points_NT2[0, 2].tolist()
    assert 31.5 <= x <= 47.5
    assert 15.5 <= y <= 47.5
    assert torch.equal(mask, logits[:, :1])
    monkeypatch.setattr(train_nano_segmenter, "NO_NEW_CLICK_RATE", 1.0)
    again, mask = corrected(once, decoded, rng)
    assert again is once
    assert torch.equal(mask, logits[:, 2:3].clamp(-32, 32))


@pytest.mark.parametrize("seed", range(8))
def test_nearly_true_masks_are_the_objects_but_for_their_edges_and_a_disc(seed):
    truth = torch.zeros(2, 64, 64)
    truth[0, 12:52, 12:52] = 1
    truth[1, 20:60, 8:40] = 1
    masks = nearly_true_masks(truth, np.random.default_rng(seed))
    assert masks.shape == (2, 1, 64, 64)
    assert 4 <= masks.abs().max() <= 16
    both, either = ((masks[:, 0] > 0) & (truth > 0.5)).sum((1, 2)), ((masks[:, 0] > 0) | (truth > 0.5)).sum((1, 2))
    assert (both / either > 0.6).all()


def test_muon_trains_the_attention_between_prompts_and_picture():
    model = build_segmenter(128)
    trained = {
        id(p) for group in Optimizers(model, kind="muon", lr=1e-3)._all[1].param_groups for p in group["params"]
    }
    named = dict(model.sam_mask_decoder.transformer.named_parameters())
    attention = [name for name, p in named.items() if "_attn" in name and p.ndim == 2]
    assert len(attention) == 28
    assert all(id(named[name]) in trained for name in attention)
    codes = ("iou_token.weight", "mask_tokens.weight", "obj_score_token.weight")
    assert not any(id(p) in trained for name, p in model.named_parameters() if name.endswith(codes))


def test_places_are_coded_alike_under_autocast():
    """bfloat16 moves a place by up to a pixel."""
    model = build_segmenter(128)
    images = torch.rand(1, 3, 128, 128)
    points = torch.tensor([[[101.3, 17.8]]])
    seen = []
    model.sam_prompt_encoder.register_forward_hook(lambda module, given, found: seen.append(found[0].detach()))
    for precision in ("float32", "bfloat16"):
        with torch.no_grad(), autocast("cpu", precision):
            decode(encode(model, images), torch.zeros(1, dtype=torch.long), points, torch.tensor([[POSITIVE]]))
    assert torch.equal(*seen)
    assert seen[1].dtype == torch.float32


def test_a_first_click_is_on_the_object():
    mask = np.zeros((32, 32), bool)
    mask[3:9, 5:30] = True
    clicks = [first_click(np.random.default_rng(seed), mask) for seed in range(20)]
    assert all(mask[int(y), int(x)] for x, y in clicks)
    assert len({tuple(click) for click in clicks}) > 5


def test_every_object_of_a_batch_is_asked_for_and_small_ones_twice_as_often():
    def scene(*long_sides: int) -> np.ndarray:
        masks = np.zeros((len(long_sides), 128, 128), np.uint8)
        for mask, side in zip(masks, long_sides, strict=True):
            mask[:5, :side] = 255
        return masks

    scenes = [scene(100), scene(8, 100, 100, 100)]
    asked = [objects_to_ask(np.random.default_rng(seed), scenes, 8) for seed in range(400)]
    assert all(len(pairs) == 8 for pairs in asked)
    whole = [objects_to_ask(np.random.default_rng(seed), scenes, 40) for seed in range(20)]
    assert all(set(pairs) == {(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)} for pairs in whole)
    first = [objects_to_ask(np.random.default_rng(seed), scenes, 1)[0] for seed in range(4000)]
    alone, small, large = (first.count(pair) / 4000 for pair in ((0, 0), (1, 0), (1, 1)))
    assert small / large == pytest.approx(2, rel=0.25)
    assert alone / large == pytest.approx(2, rel=0.25)  # its scene has a quarter as many


def test_a_further_click_on_a_thin_object_says_that_it_is_there(monkeypatch):
    """One pixel of four: a quarter of the input has no place where it covers more than half."""
    monkeypatch.setattr(train_nano_segmenter, "NO_NEW_CLICK_RATE", 0.0)
    monkeypatch.setattr(train_nano_segmenter, "INNERMOST_RATE", 0.0)
    fine = torch.zeros(1, 64, 64, dtype=torch.uint8)
    fine[0, ::4] = 255
    logits = torch.full((1, 4, 16, 16), 5.0)
    one = torch.ones(1, dtype=torch.long)
    once = Batch(
        torch.empty(0),
        one - 1,
        torch.full((1, 16, 16), 0.25),
        fine,
        one > 0,
        one[:, None, None] * torch.zeros(1, 1, 2),
        one[:, None],
    )
    clicks = [
        corrected(once, Decoded(logits, torch.zeros(1, 4), torch.zeros(1)), np.random.default_rng(seed))[0]
        for seed in range(60)
    ]
    for asked in clicks:
        x, y = asked.points_NT2[0, 1].round().long().tolist()
        assert asked.labels_NT[0, 1] == (POSITIVE if fine[0, y, x] else NEGATIVE)
    signs = {int(asked.labels_NT[0, 1]) for asked in clicks}
    assert signs == {POSITIVE, NEGATIVE}
