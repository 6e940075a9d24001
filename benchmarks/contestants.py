"""Programs that turn pictures and boxes into masks on disk, ours among them: same pictures, boxes, weights.

Each is written as its authors' code does it (the places are named), with everything from the file to the labels
on disk inside. A contestant is a call that takes paths and boxes and gives the masks as COCO run lengths, or None
where it only writes polygons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from autolabel.core.types import ImageRef, Prompts, Rle
from autolabel.ops.device import runs_bf16
from autolabel.ops.images import load_frame
from autolabel.ops.masks import encode
from autolabel.weights.quiet import ultralytics_at_bay

Masks = list[list[Rle]]
Contestant = Callable[[Sequence[Path], Sequence[np.ndarray]], Masks | None]


def contestants(
    segmenters: Mapping[str, Any], out: Path, ultralytics_weights: Path | None
) -> dict[str, Contestant]:
    """By name, the reference first; those that this machine cannot run are left out. `segmenters` are ours, of equal
    weights; the first is in float32 and lends its network to the predictor."""
    predictor = predictor_of(next(iter(segmenters.values()))._model)
    found: dict[str, Contestant] = {
        "SAM2ImagePredictor": lambda paths, boxes: predictor_loop(predictor, paths, boxes, out / "reference"),
        "predictor, one call a box": lambda paths, boxes: box_by_box(predictor, paths, boxes, out / "boxes"),
        "predictor, set_image_batch": lambda paths, boxes: batched(predictor, paths, boxes, out / "batched"),
    }
    if ultralytics_weights is not None:
        found["ultralytics SAM"] = ultralytics_loop(ultralytics_weights, out / "ultralytics")
    for name, segmenter in segmenters.items():
        found[name] = partial(ours, segmenter, out=out / name)
    return found


@contextmanager
def choices_of(models: Sequence[Any]) -> Iterator[list[int]]:
    """Which of its four masks each prompt got meanwhile, in the order of the calls: sam2's `build_sam.py` has an
    unstable mask replaced by the best of three, and a last digit can tip that."""
    chosen: list[int] = []
    decoders = [model.sam_mask_decoder for model in models]

    def watched(decoder: Any, logits: Any, iou: Any) -> Any:
        stable = decoder._get_stability_scores(logits[:, :1]) >= decoder.dynamic_multimask_stability_thresh
        chosen.extend(torch.where(stable[:, 0], 0, 1 + iou[:, 1:].argmax(-1)).tolist())
        return type(decoder)._dynamic_multimask_via_stability(decoder, logits, iou)

    for decoder in decoders:
        decoder._dynamic_multimask_via_stability = partial(watched, decoder)
    try:
        yield chosen
    finally:
        for decoder in decoders:
            del decoder._dynamic_multimask_via_stability


def predictor_of(model: Any) -> Any:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    # The predictor writes down the feature sizes of a 1024 px model.
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


def predictor_loop(predictor: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path) -> Masks:
    """As the notebook image_predictor_example.ipynb of sam2 and grounded_sam2_local_demo.py of Grounded-SAM-2."""
    found = []
    for path, some in zip(paths, boxes, strict=True):
        with torch.inference_mode():
            predictor.set_image(np.array(Image.open(path).convert("RGB")))
            masks, _, _ = predictor.predict(box=some, multimask_output=False)
        found.append([encode(mask > 0) for mask in masks.reshape(-1, *masks.shape[-2:])])
        save(out, path, found[-1])
    return found


def box_by_box(predictor: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path) -> Masks:
    """As autodistill-grounded-sam-2, grounded_sam_2.py: one `predict` a box."""
    found = []
    for path, some in zip(paths, boxes, strict=True):
        with torch.inference_mode():
            predictor.set_image(np.array(Image.open(path).convert("RGB")))
            masks = [predictor.predict(box=box, multimask_output=False)[0][0] for box in some]
        found.append([encode(mask > 0) for mask in masks])
        save(out, path, found[-1])
    return found


def batched(predictor: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path, size: int = 4) -> Masks:
    """The predictor's own batch calls, in bfloat16 where the processor has it: its strongest form."""
    device = predictor.device.type
    half = torch.autocast(device, torch.bfloat16) if runs_bf16(device) else nullcontext()
    found: Masks = []
    for start in range(0, len(paths), size):
        part = slice(start, start + size)
        with torch.inference_mode(), half:
            predictor.set_image_batch([np.array(Image.open(path).convert("RGB")) for path in paths[part]])
            answers, _, _ = predictor.predict_batch(box_batch=list(boxes[part]), multimask_output=False)
        for path, masks in zip(paths[part], answers, strict=True):
            found.append([encode(mask > 0) for mask in masks.reshape(-1, *masks.shape[-2:])])
            save(out, path, found[-1])
    return found


def ultralytics_loop(weights: Path, out: Path) -> Contestant:
    """As ultralytics/data/annotator.py after its detector; it writes polygons, and letterboxes the picture."""
    import cv2

    with ultralytics_at_bay():
        from ultralytics import SAM

        model = SAM(str(weights))

    def label(paths: Sequence[Path], boxes: Sequence[np.ndarray]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for path, some in zip(paths, boxes, strict=True):
            results = model(cv2.imread(str(path)), bboxes=some, verbose=False, save=False)
            outlines = [] if results[0].masks is None else results[0].masks.xyn
            rows = ["0 " + " ".join(map(str, s.reshape(-1).tolist())) for s in outlines if len(s) >= 3]
            (out / f"{path.stem}.txt").write_text("\n".join(rows) + "\n")

    return label


def ours(segmenter: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path, size: int = 8) -> Masks:
    """The decoder, the segmenter and the batches that `autolabel label` uses."""
    found: Masks = []
    for start in range(0, len(paths), size):
        part = slice(start, start + size)
        frames = [load_frame(ImageRef(p.name, str(p)), max_pixels=10**9, min_side=1) for p in paths[part]]
        answers = segmenter.segment(frames, [Prompts(some) for some in boxes[part]])
        for path, masks in zip(paths[part], answers, strict=True):
            found.append([answer.mask for answer in masks])
            save(out, path, found[-1])
    return found


def save(out: Path, path: Path, masks: Sequence[Rle]) -> None:
    """Run lengths of one picture as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [{"size": list(mask.size_hw), "counts": mask.counts.decode("ascii")} for mask in masks]
    (out / f"{path.stem}.json").write_text(json.dumps(rows))
