"""How good the nano segmenter's masks are: IoU on validation pictures, beside answers that look at no pixel.

Every IoU is taken at the picture's own size, from logits interpolated as SAM2ImagePredictor does.
"""

# ruff: noqa: N803  (shape suffixes)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from autolabel.ops.box_prior import BoxPrior
from autolabel.ops.masks import decode as decode_rle
from scripts.nano.dataset import ObjectMask, Picture
from scripts.nano.segmenter import (
    NEGATIVE,
    POSITIVE,
    Encoded,
    answers_to_boxes,
    decode,
    encode,
    normalize,
    single_mask,
    stretch,
)

Mask = NDArray[np.bool_]
PROMPTS_A_CALL = 8
MASK_INPUT_LIMIT = 32.0  # sam2/sam2_image_predictor.py: what a mask prompt made of logits is clamped to
# COCO's limits of small and medium, in pixels of the stored picture.
SMALL_PX, MEDIUM_PX = 32**2, 96**2


class Score(NamedTuple):
    group: str
    box_iou: float  # box prompt, one mask, of the network alone
    box_prior_iou: float | None  # that with what a small box itself says, as `segment=nano` answers
    box_predicted_iou: float
    click_iou: float  # one click, the mask the model believes in
    click_best_iou: float  # one click, the best of its three masks
    three_clicks_iou: float  # and two more, each where the answer before was most wrong
    filled_box_iou: float
    ellipse_iou: float
    grabcut_iou: float | None


def group_of(picture: Picture, target: ObjectMask) -> str:
    if picture.dataset == "coco_train":
        size = "small" if target.area_px < SMALL_PX else "medium" if target.area_px < MEDIUM_PX else "large"
        return f"coco_{size}"
    if picture.dataset == "ccp_fashion":
        return "ccp_garment" if target.is_part else "ccp_person"
    return "duts"


def choose(pictures: Sequence[Picture], limit_a_group: int | None) -> list[tuple[Picture, list[ObjectMask]]]:
    """Objects of at least 16 px to score, at most `limit_a_group` of each kind, spread over the pictures."""
    by_group: dict[str, list[tuple[Picture, ObjectMask]]] = defaultdict(list)
    for picture in pictures:
        for target in picture.objects:
            if not target.is_crowd and target.area_px >= 16:
                by_group[group_of(picture, target)].append((picture, target))
    chosen: dict[str, tuple[Picture, list[ObjectMask]]] = {}
    for members in by_group.values():
        count = len(members) if limit_a_group is None else min(limit_a_group, len(members))
        for index in np.linspace(0, len(members) - 1, count).astype(int):
            picture, target = members[index]
            chosen.setdefault(picture.name, (picture, []))[1].append(target)
    return list(chosen.values())


@torch.inference_mode()
def score(
    model: Any,
    chosen: Sequence[tuple[Picture, list[ObjectMask]]],
    *,
    grabcut: bool = False,
    prior: BoxPrior | None = None,
) -> Iterator[Score]:
    model.eval()
    device = next(model.parameters()).device
    for picture, targets in chosen:
        image = stretch(picture.image_rgb, model.image_size)
        encoded = encode(model, normalize(image[None], str(device)))
        for start in range(0, len(targets), PROMPTS_A_CALL):
            some = targets[start : start + PROMPTS_A_CALL]
            yield from _score_some(model, encoded, picture, some, grabcut, prior)


def _score_some(
    model: Any,
    encoded: Encoded,
    picture: Picture,
    targets: list[ObjectMask],
    grabcut: bool,
    prior: BoxPrior | None,
) -> Iterator[Score]:
    h, w = picture.size_hw
    device = encoded.embedding_BChw.device
    truths = [target.decode().astype(bool) for target in targets]
    to_input = np.array([model.image_size / w, model.image_size / h], np.float32)
    boxes = np.array([t.bbox_xyxy for t in targets], np.float32) * np.tile(to_input, 2)
    clicks = np.array([[innermost(truth)] for truth in truths], np.float32) * to_input

    def ask(points: NDArray[np.float32], labels: list[list[int]], earlier: torch.Tensor | None = None) -> Any:
        return decode(
            encoded,
            torch.zeros(len(points), dtype=torch.long, device=device),
            torch.from_numpy(points).to(device),
            torch.tensor(labels, device=device),
            None if earlier is None else earlier[:, None].clamp(-MASK_INPUT_LIMIT, MASK_INPUT_LIMIT),
        )

    box_logits, box_predicted = answers_to_boxes(model, encoded, torch.from_numpy(boxes).to(device))
    clicked = ask(clicks, [[POSITIVE]] * len(targets))
    box_masks = _at_size(box_logits[:, None], (h, w))[:, 0]
    click_masks = _at_size(clicked.logits_N4hw[:, 1:], (h, w))
    believed = clicked.ious_N4[:, 1:].argmax(dim=1)

    def after_corrections(logits: torch.Tensor, points: NDArray[np.float32]) -> NDArray[np.bool_]:
        signs = [[POSITIVE] for _ in targets]
        for _ in range(2):
            found = _at_size(logits[:, None], (h, w))[:, 0]
            more = [corrective_click(mask, truth) for mask, truth in zip(found, truths, strict=True)]
            points = np.concatenate([points, np.array([[xy] for xy, _ in more], np.float32) * to_input], axis=1)
            signs = [[*before, sign] for before, (_, sign) in zip(signs, more, strict=True)]
            logits, _ = single_mask(model, ask(points, signs, logits))
        return _at_size(logits[:, None], (h, w))[:, 0]

    corrected_masks = after_corrections(clicked.logits_N4hw[torch.arange(len(targets)), 1 + believed], clicks)
    for i, (target, truth) in enumerate(zip(targets, truths, strict=True)):
        click_ious = [iou(mask, truth) for mask in click_masks[i]]
        yield Score(
            group=group_of(picture, target),
            box_iou=iou(box_masks[i], truth),
            box_prior_iou=None
            if prior is None
            else iou(_with_prior(prior, box_logits[i], target, box_masks[i]), truth),
            box_predicted_iou=float(box_predicted[i]),
            click_iou=click_ious[believed[i]],
            click_best_iou=max(click_ious),
            three_clicks_iou=iou(corrected_masks[i], truth),
            filled_box_iou=iou(filled_box(target, (h, w)), truth),
            ellipse_iou=iou(inscribed_ellipse(target, (h, w)), truth),
            grabcut_iou=iou(grab_cut(picture.image_rgb, target), truth) if grabcut else None,
        )


def _with_prior(prior: BoxPrior, logits_hw: torch.Tensor, target: ObjectMask, without: Mask) -> Mask:
    box = np.array(target.bbox_xyxy, np.float32)
    size_hw = without.shape[0], without.shape[1]
    found = prior.rle(logits_hw.cpu().numpy(), box, size_hw, fused=False)
    return without if found is None else decode_rle(found).astype(bool)


def summarize(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Means per group, and over all objects of the COCO pictures and of everything."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for one in scores:
        groups[one.group].append(one)
        if one.group.startswith("coco_"):
            groups["coco_all"].append(one)
    return {name: _means(members) for name, members in sorted(groups.items())} | {"all": _means(scores)}


def _means(scores: Sequence[Score]) -> dict[str, float]:
    means: dict[str, float] = {"objects": len(scores)}
    for field in Score._fields[1:]:
        values = [getattr(one, field) for one in scores if getattr(one, field) is not None]
        if values:
            means[field] = round(float(np.mean(values)), 4)
    gaps = [abs(one.box_predicted_iou - one.box_iou) for one in scores]
    means["box_predicted_gap"] = round(float(np.mean(gaps)), 4)
    best = [one.box_iou if one.box_prior_iou is None else one.box_prior_iou for one in scores]
    means["box_iou_over_half"] = round(float(np.mean([one > 0.5 for one in best])), 4)
    return means


def iou(mask: Mask, truth: Mask) -> float:
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 0.0


def filled_box(target: ObjectMask, size_hw: tuple[int, int]) -> Mask:
    mask = np.zeros(size_hw, bool)
    x0, y0, x1, y1 = (round(value) for value in target.bbox_xyxy)
    mask[y0:y1, x0:x1] = True
    return mask


def inscribed_ellipse(target: ObjectMask, size_hw: tuple[int, int]) -> Mask:
    x0, y0, x1, y1 = target.bbox_xyxy
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    return ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 <= 1


def grab_cut(image_rgb: NDArray[np.uint8], target: ObjectMask) -> Mask:
    """Colour models and a graph cut, without learning; the box if OpenCV finds nothing to model."""
    x0, y0, x1, y1 = (round(value) for value in target.bbox_xyxy)
    labels = np.zeros(image_rgb.shape[:2], np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        rectangle = (x0, y0, x1 - x0, y1 - y0)
        cv2.grabCut(
            np.ascontiguousarray(image_rgb), labels, rectangle, background, foreground, 5, cv2.GC_INIT_WITH_RECT
        )
    except cv2.error:  # no background left to learn from
        return filled_box(target, image_rgb.shape[:2])
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _at_size(logits_NMhw: torch.Tensor, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    resized = functional.interpolate(logits_NMhw, size_hw, mode="bilinear", align_corners=False)
    return (resized > 0).cpu().numpy()


def corrective_click(mask: Mask, truth: Mask) -> tuple[tuple[float, float], int]:
    """The most inside pixel of what is missing or too much, whichever is deeper, and its sign; of a mask without
    fault the object's own. As interactive segmentation is scored (Sofiiuk et al. 2022, RITM)."""
    missing, wrong = truth & ~mask, mask & ~truth
    if not (missing.any() or wrong.any()):
        return innermost(truth), POSITIVE
    return (innermost(missing), POSITIVE) if _depth(missing) >= _depth(wrong) else (innermost(wrong), NEGATIVE)


def _depth(region: Mask) -> float:
    return float(_depths(region).max())


def _depths(region: Mask) -> NDArray[np.float32]:
    return cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]


def innermost(truth: Mask) -> tuple[float, float]:
    """The pixel farthest from the outline: a careful person's click."""
    depth = _depths(truth)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)
