"""Fit what a small box itself says about its mask (`autolabel/ops/box_prior.py`) to the logits of the nano segmenter,
on training pictures and drawn scenes, with true boxes and moved ones, as the network sees them in the whole picture and
enlarged.

For each class of box sides a logistic regression of "inside" on the logit and the prior's three terms, divided by the
weight of the logit. Then the constant is moved to where the mean IoU is highest, which is below even odds.

python -m scripts.fit_box_prior --cache WORK/cache       # some minutes on one core; again after each new segmenter,
python -m scripts.evaluate_nano_segmenter --card         # and then how it does on the validation pictures
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from autolabel.core.types import Float32
from autolabel.ops.box_prior import BoxPrior, BySide, reached, terms, to_json
from autolabel.ops.masks import bounds_xyxy
from autolabel.ops.masks import encode as encode_mask
from autolabel.ops.rle import interpolate_window
from autolabel.segment.sam2 import SHIPPED_BOX_PRIOR
from autolabel.segment.zoom import square_around
from scripts.nano import drawn
from scripts.nano.dataset import load_pictures
from scripts.nano.scenes import SceneMaker
from scripts.nano.scoring import PROMPTS_A_CALL, choose
from scripts.nano.segmenter import (
    WEIGHTS,
    answers_to_boxes,
    build_segmenter,
    encode,
    load_weights,
    normalize,
    stretch,
)

logger = logging.getLogger("fit_box_prior")

Bools = NDArray[np.bool_]
Rng = np.random.Generator

MODEL_LIMITS_PX = (0.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
"""Of the classes of box sides in pixels of the model. From the last on the network knows better."""
PICTURE_LIMITS_PX = (0.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0)
"""Of those in pixels of the picture, where the box is larger than that for the model."""
FILLS = (0.2, 0.35)
"""What a box's longer side takes of its crop; `segment=nano_guided` has 0.3, and less where it joins crops."""
SMALLEST_CROP_PX = 48
ENLARGED_SHARE = 0.5
"""Of the objects and scenes: each enlarged box is an encoding of its own."""
MOVED_BY = 0.05
"""Of the box's width or height: the standard deviation with which the sides of every second box are moved."""
POINTS = 400
"""Pixels of an object that are looked at."""
LOGIT_LIMIT = 12.0
SHIFTS = np.arange(-1.5, 0.51, 0.125)
DRAWN_SIDES_PX = (512, 768, 1024, 1536)
DRAWN_OBJECTS = 6
SMALLEST_PX = 16


class Known(NamedTuple):
    """An object that was asked for: its box's side, and of P pixels around it the terms (P, 4) that a logistic
    regression goes by (logit, 1, bulge, edge) and the truth (P,)."""

    side_px: float
    terms: Float32
    inside: Bools


def photographs(data: Path, cache: Path, limit: int) -> Iterator[tuple[NDArray[np.uint8], list[Bools]]]:
    for picture, targets in choose(load_pictures(data, cache, split="train"), limit):
        yield picture.image_rgb, [target.decode().astype(bool) for target in targets]


def drawings(data: Path, cache: Path, scenes: int, rng: Rng) -> Iterator[tuple[NDArray[np.uint8], list[Bools]]]:
    """Cells, facades and shapes, so that the shapes of COCO's small objects do not stand for all."""
    maker = SceneMaker(pictures=load_pictures(data, cache, split="train"))
    for number in range(scenes):
        kind = (drawn.cells, drawn.facade, drawn.shapes)[number % 3]
        image, coverage = kind(rng, int(rng.choice(DRAWN_SIDES_PX)), maker.texture)
        truths = [mask > 127 for mask in coverage if np.count_nonzero(mask > 127) >= SMALLEST_PX]
        yield image, [truths[i] for i in rng.permutation(len(truths))[:DRAWN_OBJECTS]]


def asked(model: Any, image_rgb: NDArray[np.uint8], truths: Sequence[Bools], rng: Rng) -> Iterator[Known]:
    """The objects of a picture whose boxes are small for the model, each with its true box and a moved one."""
    pairs = [(box, truth) for truth in truths for box in _boxes(truth, rng)]
    sides = [_side_px(box, _to_input(model, image_rgb)) for box, _ in pairs]
    small = [(*pair, side) for pair, side in zip(pairs, sides, strict=True) if side < MODEL_LIMITS_PX[-1]]
    yield from _answers(model, image_rgb, small, rng)


def enlarged(model: Any, image_rgb: NDArray[np.uint8], truths: Sequence[Bools], rng: Rng) -> Iterator[Known]:
    """Those whose boxes are small in the picture, from crops in which they are large for the model."""
    for truth in truths:
        boxes = [*_boxes(truth, rng)]
        longer = float((boxes[0][2:] - boxes[0][:2]).max())
        side = max(math.ceil(longer / rng.uniform(*FILLS)), SMALLEST_CROP_PX)
        left, top, right, bottom = square_around(boxes[0], side, truth.shape)
        crop = image_rgb[top:bottom, left:right]
        small = [
            (box - np.array([left, top] * 2, np.float32), truth[top:bottom, left:right], _side_px(box, np.ones(2)))
            for box in boxes
            if _side_px(box, np.ones(2)) < PICTURE_LIMITS_PX[-1]
            and _side_px(box, _to_input(model, crop)) >= MODEL_LIMITS_PX[-1]
        ]
        yield from _answers(model, crop, small, rng)


@torch.inference_mode()
def _answers(
    model: Any, image_rgb: NDArray[np.uint8], boxes: Sequence[tuple[Float32, Bools, float]], rng: Rng
) -> Iterator[Known]:
    """Of boxes with their masks and sides; the picture is encoded where there are any."""
    if not boxes:
        return
    encoded = encode(model, normalize(stretch(image_rgb, model.image_size)[None]))
    for start in range(0, len(boxes), PROMPTS_A_CALL):
        some = boxes[start : start + PROMPTS_A_CALL]
        scaled = np.array([box for box, _, _ in some]) * np.tile(_to_input(model, image_rgb), 2)
        logits = answers_to_boxes(model, encoded, torch.from_numpy(scaled))[0].numpy()
        for one, (box, truth, side) in zip(logits, some, strict=True):
            yield _known(one, box, truth, side, rng)


def _to_input(model: Any, image_rgb: NDArray[np.uint8]) -> Float32:
    h, w = image_rgb.shape[:2]
    return np.array([model.image_size / w, model.image_size / h], np.float32)


def _side_px(box_xyxy: Float32, scale_xy: NDArray[np.floating[Any]]) -> float:
    return float(np.sqrt(np.prod((box_xyxy[2:] - box_xyxy[:2]) * scale_xy)))


def _boxes(truth: Bools, rng: Rng) -> Iterator[Float32]:
    tight = np.array(bounds_xyxy(encode_mask(truth)), np.float32)
    yield tight
    size = np.tile(tight[2:] - tight[:2], 2)
    moved = (tight + rng.normal(0, MOVED_BY, 4) * size).astype(np.float32)
    h, w = truth.shape
    moved = np.clip(moved, 0, np.array([w, h, w, h], np.float32))
    moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
    yield moved


def _known(logits_hw: Float32, box: Float32, truth: Bools, side_px: float, rng: Rng) -> Known:
    h, w = truth.shape
    x0, y0, x1, y1 = box.tolist()
    (left, right), (top, bottom) = reached(x0, x1, w), reached(y0, y1, h)
    values = interpolate_window(logits_hw, (h, w), (left, top, right, bottom), fused=False)
    (squared_x, rise_x), (squared_y, rise_y) = (
        terms(np.arange(left, right), x0, x1),
        terms(np.arange(top, bottom), y0, y1),
    )
    bulge, edge = squared_x + squared_y[:, None], rise_x + rise_y[:, None]
    seen = np.stack([values.clip(-LOGIT_LIMIT, LOGIT_LIMIT), np.ones_like(bulge), bulge, edge], axis=-1)
    some = rng.choice(values.size, POINTS, replace=values.size < POINTS)
    inside = truth[top:bottom, left:right].reshape(-1)[some]
    return Known(side_px, seen.reshape(-1, 4)[some].astype(np.float32), inside)


def fit(objects: Sequence[Known]) -> tuple[float, list[float]]:
    """Of one class of sides: their geometric mean, and constant, bulge and edge. Raises ValueError where the logits
    say nothing."""
    seen = torch.from_numpy(np.stack([one.terms for one in objects])).double()
    inside = torch.from_numpy(np.stack([one.inside for one in objects]))
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(seen @ weights, inside.double())
        loss.backward()
        return loss

    optimizer.step(closure)
    found = weights.detach()
    if found[0] <= 0:
        raise ValueError(f"the logits of {len(objects)} objects have the weight {float(found[0]):g}")
    values = seen @ found
    ious = [_mean_iou(values > shift, inside) for shift in SHIFTS]
    found[1] -= SHIFTS[int(np.argmax(ious))]
    side = float(np.exp(np.mean([np.log(one.side_px) for one in objects])))
    return side, (found[1:] / found[0]).tolist()


def by_side(objects: Sequence[Known], limits_px: Sequence[float]) -> BySide:
    """Fitted to each class of sides, and nothing at the last limit."""
    knots, numbers = [], []
    for low, high in pairwise(limits_px):
        some = [one for one in objects if low <= one.side_px < high]
        side, found = fit(some)
        logger.info("%g to %g px: %d boxes, constant %.2f, bulge %.2f, edge %.2f", low, high, len(some), *found)
        knots.append(round(side, 3))
        numbers.append([round(one, 4) for one in found])
    constant, bulge, edge = zip(*numbers, [0.0, 0.0, 0.0], strict=True)
    return BySide((*knots, limits_px[-1]), constant, bulge, edge)


def _mean_iou(found: torch.Tensor, inside: torch.Tensor) -> float:
    return float(((found & inside).sum(1) / (found | inside).sum(1).clamp(min=1)).mean())


def _seen(
    ask: Callable[..., Iterator[Known]], model: Any, args: argparse.Namespace, cache: Path, share: float
) -> list[Known]:
    """What `ask` has of a share of the objects and scenes. Seeds are its own."""
    rng, drawing = (np.random.default_rng([args.seed, stream]) for stream in (0, 1))
    pictures = chain(
        photographs(args.data, cache, math.ceil(share * args.limit)),
        drawings(args.data, cache, math.ceil(share * args.scenes), drawing),
    )
    return [known for image_rgb, truths in pictures for known in ask(model, image_rgb, truths, rng)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="decoded pictures (2.7 GB); default: decode, then throw away")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--limit", type=int, default=1500, help="objects of each kind of photographs")
    parser.add_argument("--scenes", type=int, default=450, help="drawn ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED_BOX_PRIOR)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    model = build_segmenter().eval()
    load_weights(model, args.weights)
    with tempfile.TemporaryDirectory() as fleeting:
        cache = args.cache or Path(fleeting)
        in_whole = _seen(asked, model, args, cache, 1.0)
        in_crops = _seen(enlarged, model, args, cache, ENLARGED_SHARE)
    about = {
        "data": f"{len(in_whole)} boxes in whole pictures and {len(in_crops)} enlarged, half of them moved by "
        f"{MOVED_BY:g} of their sides, of training pictures of DUTS-TR, COCO train2017 and CCP (at most {args.limit} "
        f"objects of each kind) and {args.scenes} drawn scenes",
        "weights": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        "seed": args.seed,
    }
    prior = BoxPrior(by_side(in_whole, MODEL_LIMITS_PX), by_side(in_crops, PICTURE_LIMITS_PX), about)
    unfinished = args.out.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(to_json(prior), "utf-8")
    unfinished.replace(args.out)


if __name__ == "__main__":
    main()
