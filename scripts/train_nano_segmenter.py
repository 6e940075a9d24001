"""Train the embedded nano SAM 2 from nothing, on one CPU core if need be.

    python -m scripts.train_nano_segmenter --workdir /somewhere/segmenter --minutes 120
    python -m scripts.train_nano_segmenter --workdir /somewhere/segmenter --until 08:30 --resume

The budget is time (`--minutes`, `--until`) or `--steps`, and the schedule follows it: learning rate, input
size (128, 256, then 512 px) and batch size are functions of the share of the budget that is spent. Weights
are exported as it goes, and scored and exported at the end. It computes in bfloat16 where the device has units for it
(the weights' JSON says so). On a CPU start it with
`OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000`: no page faults, a tenth faster.
"""

# ruff: noqa: N803, N815  (shape suffixes)

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import logging
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autolabel.ops.device import Precision, autocast, runs_bf16
from scripts.nano.dataset import load_pictures
from scripts.nano.geometry import teach_boxes
from scripts.nano.muon import Muon
from scripts.nano.scenes import Scene, SceneMaker
from scripts.nano.scoring import MASK_INPUT_LIMIT, choose, corrective_click, innermost, score, summarize
from scripts.nano.segmenter import (
    BOTTOM_RIGHT,
    NEGATIVE,
    POSITIVE,
    TOP_LEFT,
    WEIGHTS,
    Decoded,
    as_encoded,
    build_segmenter,
    decode,
    encode,
    load_weights,
    normalize,
    save_weights,
)

logger = logging.getLogger("train_nano_segmenter")


@dataclass(frozen=True, slots=True)
class Phase:
    """What holds from `start` (share of the budget spent) on."""

    start: float
    size_px: int
    batch: int
    boxes: int  # an image, on average
    clicks: int
    mosaic_rate: float


PHASES = (
    Phase(start=0.0, size_px=128, batch=16, boxes=4, clicks=1, mosaic_rate=0.15),
    Phase(start=0.22, size_px=256, batch=8, boxes=6, clicks=2, mosaic_rate=0.35),
    # Stored pictures are smaller than 512 px: whole ones would be enlarged and soft, four of them are not.
    Phase(start=0.72, size_px=512, batch=4, boxes=6, clicks=2, mosaic_rate=0.45),
)
# From weights that already know what a prompt means. Small objects are learnt at 512 px and lost again below.
CONTINUED_PHASES = (
    Phase(start=0.0, size_px=384, batch=6, boxes=8, clicks=3, mosaic_rate=0.5),
    # Decoding 12 prompts a picture and correcting them took three times as long as encoding it.
    Phase(start=0.5, size_px=512, batch=6, boxes=5, clicks=3, mosaic_rate=0.55),
)
SMOKE_PHASES = (
    Phase(start=0.0, size_px=128, batch=2, boxes=2, clicks=1, mosaic_rate=0.3),
    Phase(start=0.7, size_px=256, batch=1, boxes=2, clicks=1, mosaic_rate=0.3),
)
EMPTY_BOX_RATE = 0.4  # of the fully labelled scenes: one box with nothing in it
INNERMOST_RATE = 0.5  # of the clicks, the first and those that correct
EMA_DECAY = 0.995
NEAR_SIDE = 64  # points a side of the grid around an object
FILLED_LOGIT = 8.0
MASK_LESSON_RATE = 0.15  # of the steps: first clicks that bring nearly the true mask
NO_NEW_CLICK_RATE = 0.15  # of the further rounds, as SAM was trained: the same points, and the mask that they gave
SMALL_PX = 64  # of 512: the long side under which an object is asked for twice as often
_TOKENS = ("token.weight", "tokens.weight")


@dataclass(frozen=True, slots=True)
class Batch:
    images_B3SS: Tensor
    image_of_prompt_N: Tensor
    targets_Nhw: Tensor  # coverage 0..1 at a quarter of the input
    fine_NSS: Tensor  # coverage 0..255 at the size of the input
    has_object_N: Tensor
    points_NT2: Tensor
    labels_NT: Tensor

    def at(self, rows: np.ndarray) -> Batch:
        """These prompts of the same images."""
        own = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self) if f.name != "images_B3SS"}
        return Batch(self.images_B3SS, **own)


# --- prompts ---------------------------------------------------------------------------------------------


def jittered_box(rng: np.random.Generator, mask: np.ndarray, size: int) -> np.ndarray:
    """Tight in half of the cases, else off by as much as a detector's box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    off = rng.choice([0.0, 0.03, 0.08], p=[0.55, 0.25, 0.2])
    # Of a small object a pixel is much: boxes moved by more taught that a box says little about where its edges are.
    moved = box + np.clip(rng.standard_normal(4), -2, 2) * (off * sides + (off > 0) * size / 1600)
    moved = np.clip(moved, 0, size).astype(np.float32)
    return moved if (moved[2:] - moved[:2] >= 2).all() else box


def empty_box(rng: np.random.Generator, scene: Scene) -> np.ndarray | None:
    """A box that touches no labelled object, or None where there is no room."""
    size = scene.image_rgb.shape[0]
    covered = np.asarray((scene.masks > 0).any(axis=0))
    for _ in range(8):
        w, h = np.exp(rng.uniform(np.log(0.05), np.log(0.4), 2)) * size
        x, y = rng.uniform(0, size - w), rng.uniform(0, size - h)
        if not covered[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1].any():
            return np.array([x, y, x + w, y + h], np.float32)
    return None


def first_click(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Half of them where a careful person clicks, half anywhere on the object."""
    if rng.random() < INNERMOST_RATE:
        return np.array(innermost(mask), np.float32)
    rows, columns = np.nonzero(mask)
    i = rng.integers(len(rows))
    return np.array([columns[i], rows[i]], np.float32)


def make_batches(rng: np.random.Generator, maker: SceneMaker, phase: Phase, device: str) -> tuple[Batch, Batch]:
    """The same scenes twice: asked with boxes, and asked with single clicks."""
    scenes: list[Scene] = []
    while len(scenes) < phase.batch:
        scene = maker.make(rng, phase.size_px, phase.mosaic_rate)
        if len(scene.masks):
            scenes.append(scene)
    images = normalize(np.stack([scene.image_rgb for scene in scenes]), device)
    quarters = [_quarter(scene.masks) for scene in scenes]

    boxes, clicks = _Prompts(), _Prompts()
    asked = objects_to_ask(rng, [scene.masks for scene in scenes], (phase.boxes + phase.clicks) * phase.batch)
    for nth, (b, i) in enumerate(asked):
        mask, coverage = scenes[b].masks[i], quarters[b][i]
        if nth < phase.boxes * phase.batch:
            box = jittered_box(rng, mask >= 128, phase.size_px)
            boxes.add(b, coverage, mask, box.reshape(2, 2), [TOP_LEFT, BOTTOM_RIGHT])
        else:
            clicks.add(b, coverage, mask, first_click(rng, mask >= 128)[None], [POSITIVE])
    for b, scene in enumerate(scenes):
        if scene.complete_labels and rng.random() < EMPTY_BOX_RATE:
            nothing = empty_box(rng, scene)
            if nothing is not None:
                empty = np.zeros_like(scene.masks[0])
                boxes.add(b, _quarter(empty[None])[0], empty, nothing.reshape(2, 2), [TOP_LEFT, BOTTOM_RIGHT])
    return boxes.as_batch(images), clicks.as_batch(images)


class _Prompts:
    def __init__(self) -> None:
        self._rows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, list[int]]] = []

    def add(self, image: int, target: np.ndarray, fine: np.ndarray, points: np.ndarray, labels: list[int]) -> None:
        self._rows.append((image, target, fine, points, labels))

    def as_batch(self, images: Tensor) -> Batch:
        image, target, fine, points, labels = zip(*self._rows, strict=True)
        device = images.device
        return Batch(
            images_B3SS=images,
            image_of_prompt_N=torch.tensor(image, device=device),
            targets_Nhw=torch.from_numpy(np.stack(target)).to(device),
            fine_NSS=torch.from_numpy(np.stack(fine)).to(device),
            has_object_N=torch.tensor([bool(mask.any()) for mask in fine], device=device),
            points_NT2=torch.from_numpy(np.stack(points)).to(device),
            labels_NT=torch.tensor(labels, device=device),
        )


def _quarter(masks: np.ndarray) -> np.ndarray:
    n, size, _ = masks.shape
    blocks = masks.reshape(n, size // 4, 4, size // 4, 4)
    return blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)


def objects_to_ask(
    rng: np.random.Generator, masks_of_scenes: Sequence[np.ndarray], wanted: int
) -> list[tuple[int, int]]:
    """`wanted` pairs of a scene and one of its objects, drawn by weight and mostly each before any again.

    An object weighs less among many, so that a crowd does not displace the others, and twice as much where it is small:
    small ones are rarer in scenes than in what people label.
    """
    pairs, weights = [], []
    for b, masks in enumerate(masks_of_scenes):
        solid = masks >= 128
        long_sides = np.maximum(*(solid.any(axis).sum(1) for axis in (1, 2)))
        pairs += [(b, i) for i in range(len(masks))]
        weights += [(1 + (side * 512 < SMALL_PX * masks.shape[1])) / math.sqrt(len(masks)) for side in long_sides]
    again = np.arange(math.ceil(wanted / len(pairs)) + 2)[:, None]
    # Drawing without replacement by weight (Efraimidis and Spirakis, 2006); a second time counts a quarter, and so on.
    keys = np.log(rng.random((len(again), len(pairs)))) / (np.array(weights) * 0.25**again)
    drawn = rng.permutation(np.argsort(-keys, axis=None)[:wanted])
    return [pairs[i % len(pairs)] for i in drawn.tolist()]


# --- loss ------------------------------------------------------------------------------------------------


def mask_losses(logits_N4hw: Tensor, near_N4GG: Tensor, targets_Nhw: Tensor, truth_N1GG: Tensor) -> Tensor:
    """(N, 4). Cross-entropy and dice on a grid around the object, and both over the picture.

    On the grid an answer is read between its logits, as a picture's mask is: where logits outside are larger than those
    inside, a small object's mask shrinks, which its logits alone do not show. There, a small object counts like a
    large.
    """
    coarse = targets_Nhw[:, None].expand_as(logits_N4hw)
    truth = truth_N1GG.expand_as(near_N4GG)
    close, everywhere = (
        functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((2, 3))
        for logits, wanted in ((near_N4GG, truth), (logits_N4hw, coarse))
    )
    return close + dice(near_N4GG, truth) + 2 * everywhere + 0.5 * dice(logits_N4hw, coarse)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    probability = logits.sigmoid()
    overlap = (probability * targets).sum((2, 3))
    return 1 - (2 * overlap + 0.5) / (probability.sum((2, 3)) + targets.sum((2, 3)) + 0.5)


def points_around(fine_NSS: Tensor) -> Tensor:
    """(N, NEAR_SIDE, NEAR_SIDE, 2), xy in -1..1: evenly over the object's box grown by a third of its sides, from
    a start that is another one each time."""
    size = fine_NSS.shape[1]
    axes = []
    for along in (1, 2):
        present = (fine_NSS > 0).any(along)
        at = torch.arange(size, device=fine_NSS.device)
        first = torch.where(present, at, size).amin(1)
        last = torch.where(present, at, -1).amax(1)
        margin = ((last + 1 - first) / 3).clamp(min=size / 64)
        low, high = (first - margin).clamp(min=0), (last + 1 + margin).clamp(max=size)
        share = (torch.arange(NEAR_SIDE, device=at.device) + torch.rand(len(low), 1, device=at.device)) / NEAR_SIDE
        axes.append((low[:, None] + share * (high - low)[:, None]) * (2 / size) - 1)
    x, y = axes
    return torch.stack([x[:, None, :].expand(-1, NEAR_SIDE, -1), y[:, :, None].expand(-1, -1, NEAR_SIDE)], dim=3)


def read_at(maps_NChw: Tensor, grid: Tensor) -> Tensor:
    """Maps at points, between their values as `interpolate` reads them."""
    return functional.grid_sample(maps_NChw, grid, mode="bilinear", padding_mode="border", align_corners=False)


def real_ious(logits_N4hw: Tensor, near_N4GG: Tensor, truth_N1GG: Tensor, grid: Tensor) -> Tensor:
    """(N, 4), as they will be at a picture's size: counted on the grid, and among the logits where the grid is not."""
    low, high = grid[:, 0, 0], grid[:, -1, -1]
    share = ((high - low) / 2 * NEAR_SIDE / (NEAR_SIDE - 1)).prod(1)[:, None]  # of the picture's area
    inside = []
    for axis, length in enumerate(reversed(logits_N4hw.shape[2:])):
        centres = (torch.arange(length, device=grid.device) + 0.5) * (2 / length) - 1
        inside.append((centres >= low[:, axis, None]) & (centres <= high[:, axis, None]))
    covered = inside[1][:, None, :, None] & inside[0][:, None, None, :]
    masks, truth = near_N4GG > 0, truth_N1GG > 0.5
    both, either = ((found.float().mean((2, 3)) * share) for found in (masks & truth, masks | truth))
    far = ((logits_N4hw > 0) & ~covered).float().mean((2, 3))
    return both / (either + far).clamp(min=1e-9)


def prompt_loss(decoded: Decoded, batch: Batch, single: float, several: float) -> tuple[Tensor, dict[str, float]]:
    """`single` weighs mask token 0, `several` the best of the other three, of which none may be forgotten."""
    grid = points_around(batch.fine_NSS)
    near, truth = read_at(decoded.logits_N4hw, grid), read_at(batch.fine_NSS[:, None].float(), grid) / 255
    losses = mask_losses(decoded.logits_N4hw, near, batch.targets_Nhw, truth)
    best = losses[:, 1:].amin(1) * 0.9 + losses[:, 1:].mean(1) * 0.1
    there = batch.has_object_N.float()
    masks = ((single * losses[:, 0] + several * best) * there).sum() / there.sum().clamp(min=1)
    with torch.no_grad():
        ious = real_ious(decoded.logits_N4hw, near, truth, grid)
    predicted = (functional.mse_loss(decoded.ious_N4, ious, reduction="none").mean(1) * there).mean()
    objects = functional.binary_cross_entropy_with_logits(decoded.object_logits_N, there)
    seen = batch.has_object_N
    report = {
        "mask": masks.item(),
        "iou": ious[seen, 0].mean().item(),
        "iou_best": ious[seen, 1:].amax(1).mean().item(),
        "iou_gap": (decoded.ious_N4[seen, 0] - ious[seen, 0]).abs().mean().item(),
    }
    return masks + 2 * predicted + 0.05 * objects, report


def corrected(batch: Batch, decoded: Decoded, rng: np.random.Generator) -> tuple[Batch, Tensor]:
    """The prompts with one more click each, where the mask is wrong: on it if it is missing, off it if too much. And
    the mask, (N, 1, h, w) of logits: the one that the product goes on from, of a single click the one believed in of
    three, else mask 0. A mask that is left out would leave clicks on errors that the network is not told of."""
    logits = decoded.logits_N4hw.detach()
    believed = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    if batch.labels_NT.shape[1] == 1:
        believed = 1 + decoded.ious_N4[:, 1:].argmax(1)
    mask = logits[torch.arange(len(logits), device=logits.device), believed]
    mask_input = mask[:, None].clamp(-MASK_INPUT_LIMIT, MASK_INPUT_LIMIT)
    if rng.random() < NO_NEW_CLICK_RATE:
        return batch, mask_input
    click = _click_on_error(mask > 0, batch.targets_Nhw > 0.5, innermost=bool(rng.random() < INNERMOST_RATE))
    # By the object's own pixels: among quarters, a thin object has none.
    x, y = click.round().long().unbind(1)
    there = batch.fine_NSS[torch.arange(len(click), device=click.device), y, x] >= 128
    label = torch.where(there, POSITIVE, NEGATIVE)[:, None]
    asked = dataclasses.replace(
        batch,
        points_NT2=torch.cat([batch.points_NT2, click[:, None]], 1),
        labels_NT=torch.cat([batch.labels_NT, label], 1),
    )
    return asked, mask_input


def nearly_true_masks(targets_Nhw: Tensor, rng: np.random.Generator) -> Tensor:
    """Masks (N, 1, h, w) of logits to begin from: the true ones, grown or shrunk by up to three places, with a disc of
    each added or taken away, more or less sure of themselves."""
    masks = targets_Nhw[:, None]
    n, _, h, w = masks.shape
    by = int(rng.integers(-3, 4))
    if by:
        grown = functional.max_pool2d(math.copysign(1, by) * masks, 2 * abs(by) + 1, stride=1, padding=abs(by))
        masks = math.copysign(1, by) * grown
    y, x = torch.meshgrid(*(torch.arange(side, device=masks.device) for side in (h, w)), indexing="ij")
    places = torch.multinomial(targets_Nhw.flatten(1) + 1e-4, 1)[:, :, None]
    radius = torch.from_numpy(rng.uniform(0, h / 12, (n, 1, 1)).astype(np.float32)).to(masks.device)
    disc = ((x - places % w) ** 2 + (y - places // w) ** 2 < radius**2)[:, None]
    masks = torch.where(disc, float(rng.random() < 0.5), masks)
    return float(rng.uniform(4, 16)) * (2 * masks - 1)


def _click_on_error(masks_Nhw: Tensor, truths_Nhw: Tensor, *, innermost: bool) -> Tensor:
    """Points (N, 2) of the input, of which the masks have a quarter."""
    device, w = masks_Nhw.device, masks_Nhw.shape[2]
    wrong = (masks_Nhw != truths_Nhw).flatten(1).float()
    # A mask without errors gets a click anywhere; it is then told what it knows.
    weights = torch.where(wrong.sum(1, keepdim=True) > 0, wrong, torch.ones_like(wrong))
    at = torch.multinomial(weights, 1)
    clicks = torch.cat([at % w, at // w], 1) * 4 + torch.rand(len(at), 2, device=device) * 3.99 - 0.49
    if innermost:
        masks, truths = masks_Nhw.cpu().numpy(), truths_Nhw.cpu().numpy()
        for i in wrong.any(1).nonzero()[:, 0].tolist():
            (x, y), _ = corrective_click(masks[i], truths[i])
            clicks[i, 0], clicks[i, 1] = 4 * x + 1.5, 4 * y + 1.5
    return clicks


def filled_boxes(boxes: Batch) -> Tensor:
    """The box prompts as masks (N, 1, h, w) of logits, at its edges between by how much of a place it covers."""
    corners = boxes.points_NT2.reshape(-1, 4, 1) / 4
    covered = []
    for axis, places in enumerate(reversed(boxes.targets_Nhw.shape[1:])):
        left = torch.arange(places, device=corners.device)
        covered.append(
            (torch.minimum(left + 1, corners[:, axis + 2]) - left.maximum(corners[:, axis])).clamp(0, 1)
        )
    across, down = covered
    return (FILLED_LOGIT * (2 * down[:, :, None] * across[:, None, :] - 1))[:, None]


def step_loss(
    model: Any,
    boxes: Batch,
    clicks: Batch,
    rng: np.random.Generator,
    *,
    correction_rate: float,
    rounds: int = 1,
    filled_box_rate: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    encoded = encode(model, boxes.images_B3SS)

    def ask(batch: Batch, mask_input: Tensor | None = None) -> Decoded:
        return decode(encoded, batch.image_of_prompt_N, batch.points_NT2, batch.labels_NT, mask_input)

    box_answer = ask(boxes, filled_boxes(boxes) if rng.random() < filled_box_rate else None)
    click_answer = ask(clicks)
    box_loss, box_report = prompt_loss(box_answer, boxes, single=1.0, several=0.35)
    click_loss, click_report = prompt_loss(click_answer, clicks, single=0.25, several=1.0)
    loss = box_loss + click_loss * len(clicks.targets_Nhw) / len(boxes.targets_Nhw)
    if rng.random() < MASK_LESSON_RATE:
        given = nearly_true_masks(clicks.targets_Nhw, rng)
        told, _ = prompt_loss(ask(clicks, given), clicks, single=1.0, several=0.2)
        loss = loss + 0.5 * told * len(clicks.targets_Nhw) / len(boxes.targets_Nhw)
    # Half as many boxes as clicks: they have less to correct.
    for batch, answer, share in (boxes, box_answer, correction_rate / 2), (clicks, click_answer, correction_rate):
        asked, found = batch, answer
        for nth in range(rounds):
            rows = rng.permutation(len(asked.targets_Nhw))
            rows = rows[: round(len(rows) * (correction_rate if nth else share))]
            if not len(rows):
                break
            asked, mask_input = corrected(asked.at(rows), Decoded(*(part[rows] for part in found)), rng)
            found = ask(asked, mask_input)
            more, _ = prompt_loss(found, asked, single=1.0, several=0.2)
            loss = loss + 0.7 * more * len(rows) / len(boxes.targets_Nhw)
    report = {f"box_{name}": value for name, value in box_report.items()}
    return loss, report | {f"click_{name}": value for name, value in click_report.items()}


# --- optimisation ----------------------------------------------------------------------------------------


class Optimizers:
    """AdamW, or Muon for the matrices inside the network and AdamW for the rest."""

    def __init__(self, model: nn.Module, *, kind: str, lr: float) -> None:
        matrices, decayed, plain = [], [], []
        for name, parameter in model.named_parameters():
            # Not by "token" alone: the attention between prompts and picture is called cross_attn_token_to_image.
            inner = parameter.ndim >= 2 and "embed" not in name and not name.endswith(_TOKENS)
            if kind == "muon" and inner and parameter.ndim == 2 and min(parameter.shape) > 8:
                matrices.append(parameter)
            elif inner:
                decayed.append(parameter)
            else:
                plain.append(parameter)
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        self._all: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))]
        if matrices:
            self._all.append(Muon(matrices, lr=lr, weight_decay=0.05))
        self._peak_lr = lr

    def step(self, share_of_peak: float) -> None:
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = self._peak_lr * share_of_peak
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._all]

    def restore(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)


def learning_rate_share(progress: float, step: int, warmup_steps: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return min(1.0, (step + 1) / warmup_steps) * max(cosine, 0.01)


class Budget:
    """How much of the time or of the steps is spent, 0 to 1."""

    def __init__(self, *, seconds: float | None, steps: int | None, spent_s: float) -> None:
        self._seconds, self._steps = seconds, steps
        self._started = time.monotonic() - spent_s

    def spent_s(self) -> float:
        return time.monotonic() - self._started

    def progress(self, step: int) -> float:
        by_time = self.spent_s() / self._seconds if self._seconds else 0.0
        return max(by_time, step / self._steps if self._steps else 0.0)


class Trainer:
    def __init__(self, args: argparse.Namespace, phases: tuple[Phase, ...]) -> None:
        self._args, self._phases = args, phases
        self._workdir: Path = args.workdir
        self._workdir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(args.seed)
        self._rng = np.random.default_rng(args.seed)
        pictures = load_pictures(args.data, args.cache or args.workdir / "cache")
        if args.smoke:
            pictures = pictures[:24] + [p for p in pictures if p.dataset != "duts_tr"][::40]
        self._maker = SceneMaker(pictures=[p for p in pictures if p.split == "train"])
        self._watched = choose([p for p in pictures if p.split == "val"], 2 if args.smoke else 20)
        self._device_kind = torch.device(args.device).type
        self._precision: Precision = "bfloat16" if runs_bf16(args.device) else "float32"
        # One set of parameters; the sizes differ in what the prompt encoder takes for the whole picture.
        self._models = {phase.size_px: build_segmenter(phase.size_px).to(args.device) for phase in phases}
        self._model = next(iter(self._models.values()))
        self._share_parameters()
        self._ema_model = build_segmenter().to(args.device)
        self._ema_model.load_state_dict(self._model.state_dict())
        self._optimizers = Optimizers(self._model, kind=args.optimizer, lr=args.lr)
        self._step, self._images, spent_s = 0, 0, 0.0
        self._continued_from: dict[str, Any] = {}
        if args.resume:
            spent_s = self._restore()
        elif args.init:
            self._start_from(args.init)
        elif args.geometry_steps:
            self._teach_boxes(args.geometry_steps)
        seconds = args.minutes * 60 if args.minutes else None
        if args.until:
            seconds = spent_s + _seconds_until(args.until)
        self._budget = Budget(seconds=seconds, steps=args.steps, spent_s=spent_s)

    def _start_from(self, weights: Path) -> None:
        """Weights of an earlier run, with fresh optimisers and a fresh schedule."""
        load_weights(self._model, weights)
        load_weights(self._ema_model, weights)
        about = json.loads(weights.with_suffix(".json").read_text("utf-8"))
        self._continued_from = {key: about.get(key) for key in ("sha256", "trained_minutes", "steps", "images")}

    def _share_parameters(self) -> None:
        for other in list(self._models.values())[1:]:
            for name, parameter in self._model.named_parameters():
                owner, _, leaf = name.rpartition(".")
                setattr(other.get_submodule(owner), leaf, parameter)
            for name, buffer in self._model.named_buffers():
                owner, _, leaf = name.rpartition(".")
                other.get_submodule(owner).register_buffer(leaf, buffer)

    def _teach_boxes(self, steps: int) -> None:
        model = build_segmenter(128)
        model.load_state_dict(self._model.state_dict())
        optimizers = Optimizers(model, kind=self._args.optimizer, lr=2 * self._args.lr)

        def lesson_loss(features: list[Tensor], boxes_N22: Tensor, ellipses: Tensor) -> tuple[Tensor, float]:
            n = len(boxes_N22)
            asked = Batch(
                images_B3SS=torch.empty(0),
                image_of_prompt_N=torch.arange(n),
                targets_Nhw=ellipses,
                fine_NSS=(ellipses * 255).to(torch.uint8),
                has_object_N=torch.ones(n, dtype=torch.bool),
                points_NT2=boxes_N22,
                labels_NT=torch.tensor([TOP_LEFT, BOTTOM_RIGHT]).expand(n, -1),
            )
            encoded = as_encoded(model, features)
            answer = decode(encoded, asked.image_of_prompt_N, asked.points_NT2, asked.labels_NT)
            loss, report = prompt_loss(answer, asked, single=1.0, several=0.35)
            return loss, report["iou"]

        def take_step(step: int) -> None:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers.step(min(1.0, (step + 1) / 20, (steps - step) / (0.3 * steps)))

        def report(step: int, iou: float) -> None:
            self._write({"geometry_step": step, "geometry_iou": round(iou, 4)})

        self._budget = Budget(seconds=None, steps=None, spent_s=0.0)
        teach_boxes(model, lesson_loss, take_step, steps=steps, seed=self._args.seed, report=report)
        self._model.load_state_dict(model.state_dict())
        self._ema_model.load_state_dict(model.state_dict())
        torch.save(model.state_dict(), self._workdir / "geometry.pt")

    def run(self) -> None:
        saved = exported = looked = time.monotonic()
        while (progress := self._budget.progress(self._step)) < 1.0:
            report = self._train_step(progress)
            now = time.monotonic()
            if self._step % 20 == 0 or self._args.smoke:
                self._write({"progress": round(progress, 4), **report})
            if now - saved > 60 * self._args.checkpoint_minutes:
                self._save_checkpoint()
                saved = now
            if now - looked > 60 * self._args.look_minutes:
                self._look(export=now - exported > 60 * self._args.export_minutes)
                if now - exported > 60 * self._args.export_minutes:
                    exported = now
                looked = now
        self._save_checkpoint()
        self._look(export=True)

    def _train_step(self, progress: float) -> dict[str, float]:
        phase = next(p for p in reversed(self._phases) if progress >= p.start)
        model = self._models[phase.size_px]
        model.train()
        boxes, clicks = make_batches(self._rng, self._maker, phase, self._args.device)
        with autocast(self._device_kind, self._precision):
            loss, report = step_loss(
                model,
                boxes,
                clicks,
                self._rng,
                correction_rate=self._args.correction_rate,
                rounds=self._args.rounds,
                filled_box_rate=self._args.filled_box_rate,
            )
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = learning_rate_share(progress, self._step, warmup_steps=50 if not self._args.smoke else 2)
        self._optimizers.step(share)
        self._step += 1
        self._images += phase.batch
        self._update_ema()
        return report | {
            "loss": loss.item(),
            "norm": norm.item(),
            "lr": share * self._args.lr,
            "px": phase.size_px,
        }

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(EMA_DECAY, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(list(self._ema_model.parameters()), list(self._model.parameters()), 1 - decay)

    def _look(self, *, export: bool) -> None:
        summary = summarize(list(score(self._ema_model, self._watched)))
        self._write({"val": summary})
        overview = {name: group["box_iou"] for name, group in summary.items()}
        logger.info("step %d, %.0f min: box IoU %s", self._step, self._budget.spent_s() / 60, overview)
        if export:
            export_weights(self._ema_model, self._args.out, self._facts() | {"watched_objects": summary})

    def _facts(self) -> dict[str, Any]:
        return {
            "trained_minutes": round(self._budget.spent_s() / 60, 1),
            "steps": self._step,
            "images": self._images,
            "seed": self._args.seed,
            "optimizer": f"{self._args.optimizer}, peak learning rate {self._args.lr}",
            "phases": [dataclasses.asdict(phase) for phase in self._phases],
            "correction_rate": self._args.correction_rate,
            "rounds": self._args.rounds,
            "filled_box_rate": self._args.filled_box_rate,
            "precision": self._precision,
            "threads": torch.get_num_threads(),
            "hardware": _hardware(self._args.device),
            "torch": torch.__version__,
            **({"continued_from": self._continued_from} if self._continued_from else {}),
        }

    def _write(self, entry: dict[str, Any]) -> None:
        line = {"step": self._step, "minutes": round(self._budget.spent_s() / 60, 2), "images": self._images}
        with (self._workdir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | entry) + "\n")

    def _save_checkpoint(self) -> None:
        path = self._workdir / "checkpoint.pt"
        unfinished = path.with_suffix(".part")
        torch.save(
            {
                "model": self._model.state_dict(),
                "ema": self._ema_model.state_dict(),
                "optimizers": self._optimizers.state(),
                "step": self._step,
                "images": self._images,
                "spent_s": self._budget.spent_s(),
                "numpy_rng": json.dumps(self._rng.bit_generator.state),
                "torch_rng": torch.get_rng_state(),
                "continued_from": self._continued_from,
            },
            unfinished,
        )
        unfinished.replace(path)

    def _restore(self) -> float:
        saved = torch.load(self._workdir / "checkpoint.pt", map_location=self._args.device, weights_only=True)
        self._model.load_state_dict(saved["model"])
        self._ema_model.load_state_dict(saved["ema"])
        self._optimizers.restore(saved["optimizers"])
        self._step, self._images = saved["step"], saved["images"]
        self._continued_from = saved.get("continued_from", {})
        self._rng.bit_generator.state = json.loads(saved["numpy_rng"])
        torch.set_rng_state(saved["torch_rng"].cpu())
        return float(saved["spent_s"])


def export_weights(model: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """The weights and, beside them, what a person wants to know about them."""
    save_weights(model.state_dict(), path)
    about = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path.with_suffix(".json").write_text(json.dumps(about | facts, indent=2) + "\n", "utf-8")


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _seconds_until(clock: str) -> float:
    now = datetime.datetime.now().astimezone()
    end = now.replace(hour=int(clock[:2]), minute=int(clock[3:]), second=0, microsecond=0)
    return (end - now).total_seconds() % 86400


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--workdir", type=Path, required=True, help="checkpoints and metrics")
    parser.add_argument("--cache", type=Path, help="decoded pictures (2.7 GB); default: in the workdir")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--until", metavar="HH:MM", help="local time at which training ends")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path, help="weights of an earlier run to go on from, e.g. the shipped ones")
    parser.add_argument("--last-phase", action="store_true", help="at the last input size from the start")
    parser.add_argument(
        "--clicks", type=int, help="a picture, the rest of its prompts boxes; default: the phase's"
    )
    parser.add_argument(
        "--correction-rate",
        type=float,
        default=0.25,
        help="share of the first clicks that get a further one, where the mask was wrong, and of those that get one "
        "more; half as many boxes",
    )
    parser.add_argument("--rounds", type=int, default=1, help="of further clicks at most")
    parser.add_argument(
        "--filled-box-rate",
        type=float,
        default=0.0,
        help="share of the steps whose boxes come as masks too, filled",
    )
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps, end to end, under a minute")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--geometry-steps", type=int, default=400, help="lessons before the first picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint-minutes", type=float, default=4)
    parser.add_argument("--look-minutes", type=float, default=10, help="between scores of watched objects")
    parser.add_argument("--export-minutes", type=float, default=14)
    args = parser.parse_args()
    if not 0 <= args.filled_box_rate <= 1:
        parser.error(f"--filled-box-rate is a share, 0 to 1, got {args.filled_box_rate}")
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    if not 0 <= args.correction_rate <= 1:
        parser.error(f"--correction-rate is a share, in [0, 1], got {args.correction_rate}")
    if args.smoke:
        args.steps = args.steps or 6
        args.geometry_steps = min(args.geometry_steps, 4)
    if not (args.minutes or args.until or args.steps):
        parser.error("say when to stop: --minutes, --until or --steps")
    return args


def main() -> None:
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    # A softmax leaves them to far places. The decoder forwards and backwards, eight boxes: 0.38 s with them in float32,
    # 0.13 without, on AMX in bfloat16 0.14 and 0.13.
    torch.set_flush_denormal(True)
    # On AMD this sends float32 products to oneDNN, which is faster and as exact. AMX and CUDA round them, as autocast
    # does the others: for training that is enough, and on AMX a step takes a third of the time.
    torch.set_float32_matmul_precision("medium")
    phases: tuple[Phase, ...] = CONTINUED_PHASES if args.init else PHASES
    if args.smoke:
        phases = SMOKE_PHASES
    if args.last_phase:
        phases = (dataclasses.replace(phases[-1], start=0.0),)
    if args.clicks is not None:
        phases = tuple(
            dataclasses.replace(p, boxes=p.boxes + p.clicks - args.clicks, clicks=args.clicks) for p in phases
        )
        if args.clicks < 1 or min(p.boxes for p in phases) < 1:
            raise SystemExit("--clicks: at least one click and one box a picture")
    Trainer(args, phases).run()


if __name__ == "__main__":
    main()
