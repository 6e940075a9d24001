"""Ultralytics detectors (YOLO, RT-DETR) as a Detector. The only file that imports ultralytics to detect;
`export/ultralytics_reader.py` does to read exports back.

It borrows the network and its NMS, and none of the rest: no downloads, no pip, no settings in the home
folder, no analytics, no pickled code. Every picture is letterboxed to one fixed square, so its boxes do not
depend on its neighbours in a batch. Boxes are those of `YOLO.predict(..., rect=False)` where `shrink`, `pad` and
`box_voting` have their defaults.
"""

# ruff: noqa: N803  (shape suffixes)

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.core.errors import SettingError, WeightsError
from autolabel.core.types import MAX_DET, Category, Detections, Float32, Frame, UInt8
from autolabel.ops.device import Chunks, autocast, choose_device, choose_precision, not_finite, upload
from autolabel.ops.names import nearest
from autolabel.ops.settings import count, flag, fraction, number, one_of, optional, text
from autolabel.weights.load import load_strictly, seed_of, seeded
from autolabel.weights.quiet import ultralytics_at_bay

_PAD_VALUE = 114
# Ultralytics' own floor for models that choose their best boxes without NMS.
_LEAST_TOP_K = 300
_LEAST_PROPOSALS = 7
_VOTES_AT_ONCE = 512  # boxes, each against all proposals
_TASKS = ("detect", "segment", "pose")
_MODELS = {
    "RTDETRDecoder": "RTDETRDetectionModel",
    "WorldDetect": "WorldModel",
    "YOLOEDetect": "YOLOEModel",
    "YOLOESegment": "YOLOESegModel",
    "YOLOESegment26": "YOLOESegModel",
}
"""Models that are not plain detection models, by their head."""

_import_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network before fusing, its class names by index, and what identifies its weights and architecture."""

    model: Any
    names: Mapping[int, str]
    digest: str
    architecture: str


class YoloDetector:
    """Any ultralytics detector: YOLO v3 to v26, RT-DETR, the shipped nano model, your own `.pt`.

    `weights` is a name or path for `autolabel.weights.resolve`, or `random:SEED`. A `.pt` carries its
    architecture; `.safetensors` and random weights need `architecture` (`yolo11n.yaml`, or a path), which may
    also stand in a `.json` of the same name beside the weights, with the class `names`. `iou` is the NMS
    threshold; models without NMS (RT-DETR, a YOLO saved with its NMS-free head alone) ignore it. `batch` images,
    of those that a call brings, go through the network at once, 0 chooses by device. `classes` are the names to
    keep, None for all. `shrink` is how a larger picture is made smaller: `bilinear`, as ultralytics does it, which
    looks at four pixels for one; `area`, the mean of all. `pad` is what is filled up with grey: a `square`, or
    each side to a multiple of the model's `stride`; pictures of one size share a batch then. `box_voting` in (0,
    1] makes of a box the mean of all that the model proposed for it (see `voted`), where there is NMS.
    """

    def __init__(
        self,
        *,
        weights: str,
        architecture: str | None,
        conf: float,
        iou: float,
        max_det: int,
        image_size: int,
        batch: int,
        device: str,
        precision: str,
        classes: list[str] | None,
        agnostic_nms: bool,
        shrink: str = "bilinear",
        pad: str = "square",
        box_voting: float | None = None,
    ) -> None:
        text("weights", weights, "a name, a path or random:SEED")
        optional(text, "architecture", architecture, "a name or a path")
        if classes is not None and not (isinstance(classes, list) and classes):
            raise SettingError(f"classes must be null or a list such as [person, car], got {classes!r}")
        self._conf, self._iou = fraction("conf", conf), fraction("iou", iou)
        self._max_det = count("max_det", max_det, 1, 30_000)
        self._image_size = count("image_size", image_size, 1, 7680)
        count("batch", batch, 0, 1024)
        self._agnostic_nms = flag("agnostic_nms", agnostic_nms)
        self._box_voting = optional(number, "box_voting", box_voting, 0, 1, above=True)
        self._shrink = one_of("shrink", shrink, ("bilinear", "area"))
        self._pad = one_of("pad", pad, ("square", "stride"))
        self._device = choose_device(device)
        # On a CPU a batch gains nothing, and one picture alone is computed by other kernels than several: its
        # boxes move by a thousandth of a pixel. One at a time they never do.
        self._images_at_once = Chunks(batch or (16 if self._device.type == "cuda" else 1))
        self._precision = choose_precision(precision, self._device)
        with _import_lock, ultralytics_at_bay():
            import torch

            if self._device.type == "cuda":
                # ultralytics suppresses duplicates by it where it is loaded, else by a loop over boxes, which on a GPU
                # waits for the device at each of them. On a CPU loading it takes longer than torch does.
                import torchvision  # noqa: F401

            loaded = self._load(weights, architecture)
            # On a GPU as pixels lie, which its convolutions like best.
            self._layout = torch.channels_last if self._device.type == "cuda" else torch.contiguous_format
            self._model = _for_inference(loaded.model, max_det, self._agnostic_nms).to(self._device)
            self._model = self._model.to(memory_format=self._layout)
        stride = max(int(self._model.stride.max()), 32)
        if image_size % stride:
            raise SettingError(f"image_size must be a multiple of {stride} for {weights}, got {image_size}")
        self._stride = stride
        self._stretch = type(self._model.model[-1]).__name__ == "RTDETRDecoder"
        if box_voting is not None and (self._stretch or self._model.end2end):
            raise SettingError(f"box_voting needs a model with NMS, {weights} has none")
        self._keep = _class_indices(classes, loaded.names)
        self._categories = tuple(
            Category(index + 1, name)
            for index, name in sorted(loaded.names.items())
            if self._keep is None or index in self._keep
        )
        # What the network scores, and what its boxes are told apart by.
        self._score_count = self._class_count = int(self._model.model[-1].nc)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(
            min(8, len(os.sched_getaffinity(0))), thread_name_prefix="autolabel-fit"
        )
        self._identity = {
            "weights": loaded.digest,
            "architecture": loaded.architecture,
            "device": self._device.type,
            "precision": self._precision,
            "torch": version("torch"),
            "ultralytics": version("ultralytics"),
        }

    def _load(self, weights: str, architecture: str | None) -> Loaded:
        """The network as it is before fusing; within `ultralytics_at_bay`."""
        return load_detector(weights, architecture)

    @property
    def categories(self) -> tuple[Category, ...]:
        """The kept classes; ids are the model's indices plus one, also when `classes` leaves some out."""
        return self._categories

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Boxes of each frame, best score first, clipped to the image. Boxes that are not finite are passed on.

        Raises ImageError `out_of_memory` when a single image does not fit on the device, and `not_finite` when scores
        of one are not.
        """

        def run(start: int, stop: int) -> list[Detections]:
            images = [frame.image_rgb for frame in frames[start:stop]]
            fitted = self._fitted(images)
            found = self._each([fit.image_rgb for fit in fitted])
            return [
                replace(
                    _to_detections(rows, fit, image.shape[:2]),
                    notes=(MAX_DET,) if len(rows) == self._max_det else (),
                )
                for rows, fit, image in zip(found, fitted, images, strict=True)
            ]

        return self._images_at_once.run(len(frames), run)

    def _fitted(self, images: Sequence[UInt8]) -> list[Fitted]:
        """Each on its grey ground; before a GPU by threads, which one alone cannot feed."""
        stride = self._stride if self._pad == "stride" else self._image_size
        fit = partial(letterbox, side=self._image_size, stretch=self._stretch, shrink=self._shrink, stride=stride)
        if self._device.type == "cpu" or len(images) == 1:
            return [fit(image) for image in images]
        return list(self._threads.map(fit, images))

    def _each(self, images: Sequence[UInt8]) -> list[Float32]:
        """`_forward` for images of several sizes, those of one size together."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        found: dict[int, Float32] = {}
        for some in by_size.values():
            found |= zip(some, self._forward(np.stack([images[i] for i in some])), strict=True)
        return [found[i] for i in range(len(images))]

    def _forward(self, images: UInt8) -> list[Float32]:
        """For images (B, H, W, 3), each (N, 6): box in pixels of the padded image, score, class index; best first."""
        import torch

        with self._lock, torch.inference_mode():
            pixels = upload(images, self._device).permute(0, 3, 1, 2)
            inputs = pixels.contiguous(memory_format=self._layout).float().div_(255)
            with autocast(self._device.type, self._precision):
                output = self._model(inputs)
            # Proposals come first, one level deeper where there are mask prototypes beside them.
            while isinstance(output, tuple | list):
                output = output[0]
            output = output.float()
            # One image a call: the NMS of a batch gives up on the rest when its time is over.
            found = [self._select(self._scored(one)) for one in self._proposed(output)]
            rows = torch.cat(found).cpu().numpy().astype(np.float32)  # one copy, whatever the batch
            return np.split(rows, np.cumsum([len(some) for some in found])[:-1])

    def _proposed(self, output: Any) -> Sequence[Any]:
        """Each picture's proposals (1, ...), where its duplicates are suppressed: a GPU would have to be waited for
        several times a picture, and has little to do meanwhile. Box voting wants all of them, whatever their score."""
        if self._device.type == "cpu" or self._box_voting is not None:
            return tuple(output.split(1))
        if self._stretch or self._model.end2end:
            return tuple(output.cpu().split(1))
        return self._above(output)

    def _above(self, output: Any) -> list[Any]:
        """A GPU's: what NMS looks at, on the host."""
        return above(output, self._conf, self._score_count)

    def _scored(self, output_1: Any) -> Any:
        """The same, if its scores are numbers. On a GPU those that are none are among the few that came to the host."""
        chosen = self._stretch or self._model.end2end  # rows of a box, its score and its class
        scores = output_1[..., 4] if chosen else output_1[:, 4 : 4 + self._score_count]
        if bool(scores.isnan().any()):
            raise not_finite("detect")
        return output_1

    def _select(self, output_1: Any) -> Any:
        if self._stretch:
            return _select_rtdetr(output_1[0], self._conf, self._keep, self._max_det, self._image_size)
        if self._box_voting is None:
            return self._suppressed(output_1)
        # NMS may write into what it is given.
        return voted(self._suppressed(output_1.clone()), output_1[0], self._box_voting)

    def _suppressed(self, output_1: Any) -> Any:
        from ultralytics.utils.nms import non_max_suppression

        rows = non_max_suppression(
            output_1,
            self._conf,
            self._iou,
            self._keep,
            self._agnostic_nms,
            max_det=self._max_det,
            nc=self._class_count,
            end2end=self._model.end2end,
        )[0]
        return rows[:, :6]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A picture on its grey ground: pixel = scale * original pixel + offset, each as (x, y)."""

    image_rgb: UInt8
    scale_xy: tuple[float, float]
    offset_xy: tuple[int, int]


def letterbox(
    image_rgb: UInt8, side: int, *, stretch: bool, shrink: str = "bilinear", stride: int | None = None
) -> Fitted:
    """The picture with its longer side made `side`, centred on grey whose sides are multiples of `stride` (None: on a
    square), or stretched to a square.

    Sizes, rounding and bilinear interpolation are those of ultralytics' `LetterBox` and `scale_boxes`.
    """
    import cv2

    h, w = image_rgb.shape[:2]
    gain = min(side / h, side / w)
    new_w, new_h = (side, side) if stretch else (max(round(w * gain), 1), max(round(h * gain), 1))
    resized = image_rgb
    if (new_w, new_h) != (w, h):
        method = cv2.INTER_AREA if shrink == "area" and new_w * new_h < w * h else cv2.INTER_LINEAR
        resized = cv2.resize(image_rgb, (new_w, new_h), interpolation=method)
    stride = stride or side
    full_w, full_h = (-(-new // stride) * stride for new in (new_w, new_h))
    left, top = round((full_w - new_w) / 2 - 0.1), round((full_h - new_h) / 2 - 0.1)
    ground = np.full((full_h, full_w, 3), _PAD_VALUE, np.uint8)
    ground[top : top + new_h, left : left + new_w] = resized
    return Fitted(ground, (new_w / w, new_h / h), (left, top))


def above(output: Any, conf: float, score_count: int) -> list[Any]:
    """Those of the proposals (B, 4 + scores, A) that NMS looks at, whose best score is above `conf`, or not a number:
    for each picture (1, 4 + scores, k) on the host, in their order. The device is waited for three times, whatever
    the batch."""
    from torch.nn.functional import pad

    wanted = ~(output[:, 4 : 4 + score_count].amax(dim=1) <= conf)
    picture, place = wanted.nonzero(as_tuple=True)
    found, counts = output[picture, :, place].cpu(), wanted.sum(dim=1).tolist()
    # ultralytics takes a last dimension of 6 for boxes that want no NMS. What is added scores 0, which is never above.
    return [pad(some.T[None], (0, max(_LEAST_PROPOSALS - len(some), 0))) for some in found.split(counts)]


def voted(rows_K6: Any, proposed: Any, least_iou: float) -> Any:
    """Boxes after NMS (K, 6: xyxy, score, class), each replaced by the mean of the `proposed` ones (4 + classes,
    A) that overlap it by `least_iou` or more, weighted by the square of their score for its class. Box voting of
    Gidaris and Komodakis 2015 (Object detection via a multi-region and semantic segmentation-aware CNN model), for
    boxes that are not sure of their edges: NMS keeps the most certain, which need not be the best placed."""
    import torch
    from ultralytics.utils.metrics import box_iou

    proposed = proposed[:, proposed.isfinite().all(dim=0)]
    centre, size = proposed[:2].T, proposed[2:4].T
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    means = []
    for rows in rows_K6.split(_VOTES_AT_ONCE):
        weights = proposed[4 + rows[:, 5].long()] ** 2 * (box_iou(rows[:, :4], boxes) >= least_iou)
        total = weights.sum(dim=1, keepdim=True)
        means.append(torch.where(total > 0, weights @ boxes / total, rows[:, :4]))
    return torch.cat([torch.cat(means), rows_K6[:, 4:]], dim=1)


def _to_detections(rows: Float32, fitted: Fitted, size_hw: tuple[int, ...]) -> Detections:
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    offset, scale = (np.array(pair * 2, np.float32) for pair in (fitted.offset_xy, fitted.scale_xy))
    h, w = size_hw
    boxes = np.clip((rows[:, :4] - offset) / scale, np.float32(0), np.array([w, h, w, h], np.float32))
    return Detections(boxes.astype(np.float32), rows[:, 4].copy(), rows[:, 5].astype(np.int64) + 1)


def _select_rtdetr(rows: Any, conf: float, keep: list[int] | None, max_det: int, side: int) -> Any:
    """What `RTDETRPredictor.postprocess` keeps of (queries, 6); boxes go from fractions to square pixels."""
    import torch

    centre, size, rest = rows[:, :2], rows[:, 2:4], rows[:, 4:]
    kept = rows[:, 4] > conf
    if keep is not None:
        kept &= (rows[:, 5:6] == torch.tensor(keep, device=rows.device)).any(dim=1)
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1) * side
    return torch.cat([boxes, rest], dim=1)[kept][:max_det]


def _class_indices(classes: list[str] | None, names: Mapping[int, str]) -> list[int] | None:
    if classes is None:
        return None
    known = set(names.values())
    for name in classes:
        if name not in known:
            raise SettingError(f"classes: the model has no class {name!r}; {nearest(str(name), known)}")
    return [index for index, name in sorted(names.items()) if name in classes]


# Loading


def load_detector(weights: str, architecture: str | None) -> Loaded:
    """The network with its weights, in float32 on the CPU. Call it within `ultralytics_at_bay`.

    Raises ConfigError for an unknown architecture, WeightsError for a file that is damaged, does not fit, is
    no detector, or would need code to be unpickled.
    """
    seed = seed_of(weights)
    if seed is not None:
        if architecture is None:
            raise SettingError(f"weights={weights} needs an architecture")
        with seeded(seed):
            model, digest = _build(architecture, None)
        return Loaded(model, model.names, weights, digest)
    from autolabel.weights import resolve

    resolved = resolve(weights)
    if resolved.path.suffix == ".safetensors":
        model, digest = _from_safetensors(resolved.path, architecture)
    elif architecture is not None:
        raise SettingError(f"architecture must be null for {weights}: a .pt carries its own")
    else:
        model, digest = _from_checkpoint(resolved.path), "in the checkpoint"
    names = {int(index): str(name) for index, name in dict(model.names).items()}
    return Loaded(model, names, resolved.sha256, digest)


def _from_safetensors(path: Path, architecture: str | None) -> tuple[Any, str]:
    from safetensors.torch import load_file

    beside = path.with_suffix(".json")
    about = json.loads(beside.read_text("utf-8")) if beside.is_file() else {}
    architecture = architecture or about.get("architecture")
    if architecture is None:
        raise SettingError(f"architecture is needed for {path}: there is no {beside.name} that states it")
    model, digest = _build(architecture, about.get("nc"))
    load_strictly(model, load_file(path), path)
    names = about.get("names")
    if names is not None:
        model.names = dict(enumerate(names)) if isinstance(names, list) else names
    return model, digest


def _from_checkpoint(path: Path) -> Any:
    from ultralytics.nn.tasks import torch_safe_load

    if path.suffix != ".pt":
        raise WeightsError(f"{path} is neither .pt nor .safetensors")
    try:
        # Stated here too: the environment variable is read only once, perhaps before us.
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
    except (TypeError, RuntimeError, ModuleNotFoundError) as error:
        raise WeightsError(f"{path} cannot be loaded without running code from it: {error}") from error
    model = checkpoint.get("ema") or checkpoint.get("model")
    task = getattr(model, "task", "detect")
    if not hasattr(model, "fuse") or task not in _TASKS:
        raise WeightsError(f"{path} is not a detector (task {task!r})")
    return model.float()


def _build(architecture: str, num_classes: int | None) -> tuple[Any, str]:
    """The network of a YAML and the sha256 of the YAML's text."""
    from ultralytics.nn import tasks

    path, source = _architecture_file(architecture)
    config = tasks.yaml_model_load(path)
    name = next((name for head, name in _MODELS.items() if head in [layer[2] for layer in config["head"]]), "")
    kind = getattr(tasks, name or "DetectionModel")
    digest = hashlib.sha256(f"{config['scale']}\n".encode() + source.read_bytes()).hexdigest()
    return kind(config, nc=num_classes, verbose=False), digest


def _architecture_file(architecture: str) -> tuple[Path, Path]:
    """The name to give to ultralytics (its letter says the size), and the file that stands behind it."""
    import ultralytics

    if Path(architecture).is_file():
        return Path(architecture), Path(architecture)
    stem = architecture.removesuffix(".yaml")
    # yolo11n.yaml is yolo11.yaml at scale n.
    family = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", stem)
    own = {path.stem: path for path in (Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml")}
    for name in (stem, family):
        if name in own:
            return own[name].with_name(f"{stem}.yaml"), own[name]
    close = difflib.get_close_matches(stem, own, n=3) or ["yolo11n", "yolo26n", "rtdetr-l"]
    raise SettingError(f"architecture {architecture!r} is not a file; ultralytics has {', '.join(close)}")


def _for_inference(model: Any, max_det: int, agnostic_nms: bool) -> Any:
    """Fused and frozen, of two heads the one with NMS, as `predict` takes it. A head that chooses its best boxes
    itself is told how many."""
    if model.end2end and model.model[-1].cv2 is not None:
        model.end2end = False
    model = model.fuse(verbose=False).eval()
    for parameter in model.parameters():
        parameter.requires_grad = False
    if model.end2end:
        model.set_head_attr(max_det=max(max_det, _LEAST_TOP_K), agnostic_nms=agnostic_nms)
    return model
