"""The DETR family of transformers as a Detector: RT-DETR, RT-DETR v2, D-FINE, RF-DETR, DETR and their kin.

Code and the weights named in the configurations are Apache-2.0: the way to detect without the AGPL. Boxes are those
of the library's own `post_process_object_detection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature

import numpy as np

from autolabel.core.types import MAX_DET, Category, Detections, Frame
from autolabel.detect.hf_network import HfNetwork, Raw
from autolabel.ops.boxes import clip_xyxy
from autolabel.ops.settings import count, fraction

CLASSES = dict.fromkeys(
    (
        "rt_detr",
        "rt_detr_v2",
        "d_fine",
        "rf_detr",
        "lw_detr",
        "detr",
        "conditional_detr",
        "deformable_detr",
        "dab_detr",
    ),
    "AutoModelForObjectDetection",
)
_NO_CLASS = "N/A"  # COCO's numbers have gaps, which old checkpoints fill with this


class DetrHfDetector:
    """`weights` is a folder with config.json and .safetensors, or a name in the Hugging Face cache. There is no NMS:
    these models choose their boxes themselves."""

    def __init__(
        self, *, weights: str, conf: float, max_det: int, batch: int, device: str, precision: str
    ) -> None:
        self._conf = fraction("conf", conf)
        self._max_det = count("max_det", max_det, 1, 30_000)
        self._network = HfNetwork(
            weights=weights, classes=CLASSES, batch=batch, device=device, precision=precision
        )
        self._process = self._network.image_processor.post_process_object_detection
        self._has_top_k = "top_k" in signature(self._process).parameters
        names = {int(index): str(name) for index, name in self._network.config.id2label.items()}
        first = {name: index for index, name in sorted(names.items(), reverse=True) if name != _NO_CLASS}
        self._id_of = {index: first[name] + 1 for index, name in names.items() if name != _NO_CLASS}
        self._categories = tuple(sorted((Category(i + 1, n) for n, i in first.items()), key=lambda c: c.id))

    @property
    def categories(self) -> tuple[Category, ...]:
        """The model's classes; ids are its indices plus one."""
        return self._categories

    @property
    def identity(self) -> Mapping[str, str]:
        return self._network.identity

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Boxes of each frame, best score first, clipped to the image. Raises ImageError as HfNetwork does."""
        return [self._found(raw, frame) for raw, frame in zip(self._network(frames), frames, strict=True)]

    def _all_of(self, raw: Raw) -> Mapping[str, int]:
        """Some of the library's post-processings keep a hundred pairs of box and class, whatever is asked for; what is
        kept is for `conf` and `max_det` to say."""
        return {"top_k": raw.logits.numel()} if self._has_top_k else {}

    def _found(self, raw: Raw, frame: Frame) -> Detections:
        size_hw = frame.info.size_hw
        (found,) = self._process(raw, threshold=self._conf, target_sizes=[size_hw], **self._all_of(raw))
        boxes, scores, labels = (found[key].numpy() for key in ("boxes", "scores", "labels"))
        known = np.flatnonzero(np.isin(labels, list(self._id_of)))
        rows = known[np.argsort(-scores[known], kind="stable")][: self._max_det]
        numbers = [self._id_of[int(label)] for label in labels[rows]]
        return Detections(
            clip_xyxy(boxes[rows].astype(np.float32), size_hw),
            scores[rows].astype(np.float32),
            np.array(numbers, np.int64),
            notes=(MAX_DET,) if len(rows) == self._max_det else (),
        )
