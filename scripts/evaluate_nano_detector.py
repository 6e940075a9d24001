"""What the nano detector finds: AP50, AR@100 and recall on the validation splits, and boxes drawn on pictures.

    python -m scripts.evaluate_nano_detector --data-root ../shared/data --cache-dir CACHE [--image PICTURE ...]

Class-agnostic throughout. COCO val is labelled completely, so only there does precision mean something; on
DUTS and CCP val only recall does.
"""

# ruff: noqa: E402 - ultralytics reads these variables at its import
from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

for _name, _value in {
    "YOLO_AUTOINSTALL": "0",
    "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS": "1",
    "ULTRALYTICS_SAFE_LOAD": "1",
    "YOLO_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}.items():
    os.environ.setdefault(_name, _value)

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRef
from autolabel.detect.yolo import letterbox, voted
from autolabel.ops.images import load_frame
from scripts.nano.compose import VEHICLES, is_object
from scripts.nano.dataset import Picture, load_pictures

BOX_VOTING = 0.5  # as in configs/detect/nano.yaml
WEIGHTS_DIR = Path("autolabel/weights/nano")
Boxes = NDArray[np.float32]  # (N, 5): x0, y0, x1, y1 in pixels of the picture, confidence; best first
Predict = Callable[[NDArray[np.uint8]], Boxes]


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """As `autolabel label` sees it. Ends with one line where it cannot be read."""
    try:
        return load_frame(ImageRef(path.name, str(path)), max_pixels=10**9, min_side=1).image_rgb
    except ImageError as error:
        raise SystemExit(f"{path}: {error}") from error


def load_model(description: dict[str, Any], weights: Path) -> torch.nn.Module:
    """The architecture named in the JSON beside the weights, with these weights, ready to infer."""
    from safetensors.torch import load_file
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(description["architecture"], nc=description["nc"], verbose=False)
    model.load_state_dict(load_file(weights), strict=True)
    return model.eval()


@torch.inference_mode()
def detect(
    model: torch.nn.Module,
    image_rgb: NDArray[np.uint8],
    *,
    image_size: int,
    conf: float,
    iou: float,
    max_det: int = 100,
) -> Boxes:
    """Letterbox as `detect=nano` does, run, suppress duplicates, let the boxes vote."""
    h, w = image_rgb.shape[:2]
    fit = letterbox(image_rgb, image_size, stretch=False, shrink="area", stride=32)
    parameter = next(model.parameters())
    batch = torch.from_numpy(fit.image_rgb).to(parameter.device).permute(2, 0, 1)[None].float() / 255
    proposed = model(batch.contiguous(memory_format=torch.channels_last))[0][0].float().cpu()  # (5, anchors)
    certain = proposed[:, proposed[4] > conf]
    centers, sizes, scores = certain[:2].T, certain[2:4].T, certain[4]
    boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], 1)
    kept = nms(boxes, scores, iou)[:max_det]
    rows = torch.cat([boxes[kept], scores[kept, None], torch.zeros(len(kept), 1)], 1)
    boxes = voted(rows, proposed, BOX_VOTING)[:, :4]
    boxes = (boxes - torch.tensor(fit.offset_xy * 2)) / torch.tensor(fit.scale_xy * 2)
    boxes[:, 0::2].clamp_(0, w)
    boxes[:, 1::2].clamp_(0, h)
    return torch.cat([boxes, scores[kept, None]], 1).numpy()


def evaluate(pictures: Iterable[Picture], predict: Predict, *, conf: float) -> dict[str, float]:
    """`predict` must report down to a confidence near 0 for AP and AR; `conf` is where P and R are read."""
    scenes = [(picture, predict(picture.image_rgb)) for picture in pictures]
    ap50, ap50_large, ar100 = _coco_metrics(scenes)
    metrics = {"pictures": len(scenes), "ap50": ap50, "ap50_large": ap50_large, "ar100": ar100}
    return {key: round(value, 4) for key, value in {**metrics, **_at_confidence(scenes, conf)}.items()}


def _coco_metrics(scenes: list[tuple[Picture, Boxes]]) -> tuple[float, float, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id, (picture, boxes) in enumerate(scenes, 1):
        images.append({"id": image_id, "height": picture.size_hw[0], "width": picture.size_hw[1]})
        for thing in picture.objects:
            if is_object(thing, picture) or thing.is_crowd:
                truths.append(
                    {
                        "id": len(truths) + 1,
                        "image_id": image_id,
                        "category_id": 1,
                        "bbox": _xyxy_to_xywh(thing.bbox_xyxy),
                        "area": thing.area_px,
                        "iscrowd": int(thing.is_crowd),
                    }
                )
        for row in boxes:
            bbox = _xyxy_to_xywh(row[:4].tolist())
            results.append({"image_id": image_id, "category_id": 1, "bbox": bbox, "score": float(row[4])})
    if not results:
        return 0.0, 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": truths,
            "categories": [{"id": 1, "name": "object"}],
            "info": {},
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"], run.eval["recall"]  # (T, R, K, A, M) and (T, K, A, M)
    return (
        float(np.mean(precision[0, :, 0, 0, -1])),
        float(np.mean(precision[0, :, 0, 3, -1])),
        float(np.mean(recall[:, 0, 0, -1])),
    )


def _at_confidence(scenes: list[tuple[Picture, Boxes]], conf: float) -> dict[str, float]:
    """Recall at IoU 0.5 by kind of object, sides of 32 px and more; precision over boxes of that size."""
    found: dict[str, list[bool]] = {"person": [], "vehicle": [], "other": []}
    correct, reported = 0, 0
    for picture, rows in scenes:
        boxes = rows[rows[:, 4] >= conf, :4]
        truths = [thing for thing in picture.objects if is_object(thing, picture)]
        if truths and len(boxes):
            overlaps = iou_matrix(boxes, np.array([thing.bbox_xyxy for thing in truths], np.float32))
        else:
            overlaps = np.zeros((len(boxes), len(truths)), np.float32)
        taken = _match(overlaps)
        crowds = [thing.bbox_xyxy for thing in picture.objects if thing.is_crowd]
        large = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= 32
        for index in np.flatnonzero(large):
            if index in taken.values() or not any(_inside(boxes[index], crowd) for crowd in crowds):
                reported += 1
                correct += index in taken.values()
        for column, thing in enumerate(truths):
            x0, y0, x1, y1 = thing.bbox_xyxy
            if min(x1 - x0, y1 - y0) >= 32:
                kind = (
                    "person"
                    if thing.category == "person"
                    else "vehicle"
                    if thing.category in VEHICLES
                    else "other"
                )
                found[kind].append(column in taken)
    recalls = {f"recall_{kind}": float(np.mean(hits)) for kind, hits in found.items() if hits}
    everything = [hit for hits in found.values() for hit in hits]
    recalls["recall"] = float(np.mean(everything)) if everything else 0.0
    return {
        "conf": conf,
        **recalls,
        "precision": correct / max(1, reported),
        "boxes": reported / max(1, len(scenes)),
    }


def _match(overlaps: NDArray[np.float32]) -> dict[int, int]:
    """Truth to box, each at most once, the most confident box first."""
    taken: dict[int, int] = {}
    for row in range(overlaps.shape[0]):
        free = [column for column in np.flatnonzero(overlaps[row] >= 0.5).tolist() if column not in taken]
        if free:
            taken[max(free, key=lambda column: overlaps[row, column])] = row
    return taken


def iou_matrix(a_xyxy: NDArray[np.float32], b_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """(len(a), len(b))."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), 2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], 1) for boxes in (a_xyxy, b_xyxy))
    return common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-9)


def _inside(box: NDArray[np.float32], crowd_xyxy: tuple[float, float, float, float]) -> bool:
    width = min(box[2], crowd_xyxy[2]) - max(box[0], crowd_xyxy[0])
    height = min(box[3], crowd_xyxy[3]) - max(box[1], crowd_xyxy[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return bool(width > 0 and height > 0 and width * height > 0.5 * area)


def _xyxy_to_xywh(box_xyxy: Iterable[float]) -> list[float]:
    x0, y0, x1, y1 = box_xyxy
    return [x0, y0, x1 - x0, y1 - y0]


def draw(image_rgb: NDArray[np.uint8], boxes: Boxes) -> NDArray[np.uint8]:
    """RGB with boxes and confidences."""
    canvas = image_rgb.copy()
    thick = max(1, max(canvas.shape[:2]) // 320)
    for rank, (x0, y0, x1, y1, score) in enumerate(boxes.tolist()):
        colour = tuple(int(v) for v in np.random.default_rng(rank).integers(60, 256, 3))
        cv2.rectangle(canvas, (int(x0), int(y0)), (int(x1), int(y1)), colour, thick)
        place = (int(x0) + 2, int(y0) + 14 * thick)
        cv2.putText(canvas, f"{score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thick, colour, thick)
    return canvas


def evaluate_all(
    model: torch.nn.Module, pictures: list[Picture], *, image_size: int, conf: float, iou: float
) -> dict[str, dict[str, float]]:
    """By data set. AP and AR look at everything above 0.01."""

    def predict(image_rgb: NDArray[np.uint8]) -> Boxes:
        return detect(model, image_rgb, image_size=image_size, conf=0.01, iou=iou)

    names = sorted({picture.dataset for picture in pictures})
    return {name: evaluate([p for p in pictures if p.dataset == name], predict, conf=conf) for name in names}


def recommended(model: torch.nn.Module, pictures: list[Picture], *, iou: float) -> tuple[int, float]:
    """(image size, confidence): the size by AP50 over the data sets, the confidence by F1 where labels are complete."""
    sizes = {
        size: evaluate_all(model, pictures, image_size=size, conf=0.3, iou=iou)
        for size in (256, 288, 320, 352, 384, 416)
    }
    image_size = max(sizes, key=lambda size: sum(metrics["ap50"] for metrics in sizes[size].values()))
    complete = [picture for picture in pictures if picture.complete_labels]
    scenes = [(p, detect(model, p.image_rgb, image_size=image_size, conf=0.1, iou=iou)) for p in complete]

    def f1(conf: float) -> float:
        metrics = _at_confidence(scenes, conf)
        recall, precision = metrics["recall"], metrics["precision"]
        return 2 * recall * precision / max(1e-9, recall + precision)

    return image_size, max((0.25, 0.3, 0.35, 0.4, 0.45, 0.5), key=f1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache-dir", type=Path, required=True, help="decoded pictures; outside the project")
    parser.add_argument(
        "--weights-dir", type=Path, default=WEIGHTS_DIR, help="detector.safetensors, detector.json"
    )
    parser.add_argument("--image-size", type=int, nargs="*", help="default: the recommended one")
    parser.add_argument("--conf", type=float, nargs="*", help="default: the recommended one")
    parser.add_argument("--image", type=Path, nargs="*", default=[], help="pictures to draw boxes on")
    parser.add_argument("--draw-dir", type=Path, default=Path())
    parser.add_argument("--every", type=int, default=1, help="use one of so many DUTS and CCP pictures")
    args = parser.parse_args()

    images = {path: read_rgb(path) for path in args.image}
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    description = json.loads((args.weights_dir / "detector.json").read_text("utf-8"))
    model = load_model(description, args.weights_dir / "detector.safetensors")
    pictures = load_pictures(args.data_root, args.cache_dir, split="val")
    pictures = [p for i, p in enumerate(pictures) if p.complete_labels or i % args.every == 0]
    iou = description["iou"]
    for image_size in args.image_size or [description["imgsz"]]:
        for conf in args.conf or [description["conf"]]:
            metrics = evaluate_all(model, pictures, image_size=image_size, conf=conf, iou=iou)
            print(json.dumps({"image_size": image_size, "conf": conf, **metrics}))
            for path, image_rgb in images.items():
                boxes = detect(model, image_rgb, image_size=image_size, conf=conf, iou=iou)
                drawn = args.draw_dir / f"{path.stem}-{image_size}-{conf}.png"
                cv2.imwrite(str(drawn), cv2.cvtColor(draw(image_rgb, boxes), cv2.COLOR_RGB2BGR))
                print(json.dumps({"drawn": str(drawn), "boxes": boxes.round(2).tolist()}))


if __name__ == "__main__":
    main()
