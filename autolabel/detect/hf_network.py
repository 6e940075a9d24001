"""A detector network of transformers: pictures to raw boxes and scores. What those mean is for the detectors to say.

Every picture is prepared alone, as if it were the only one, so no padding depends on its neighbours; only pictures
that come out at one size go through the network together.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolabel.core.types import Frame
from autolabel.ops.device import Chunks, autocast, choose_device, choose_precision, not_finite
from autolabel.ops.settings import count
from autolabel.ops.settings import text as check_text
from autolabel.weights.hub import hosted


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """The network's answer for one picture, float32 on the CPU: `logits` (1, Q, C) and `pred_boxes` (1, Q, 4), centre
    and size in fractions. Named as transformers names them, which post-processes this."""

    logits: Any
    pred_boxes: Any


class HfNetwork:
    """The model in `weights` (a folder, or a name in the Hugging Face cache) that is one of `classes`."""

    def __init__(
        self,
        *,
        weights: str,
        classes: Mapping[str, str],
        batch: int,
        device: str,
        precision: str,
        text: bool = False,
    ) -> None:
        check_text("weights", weights, "a folder or a name")
        count("batch", batch, 0, 1024)
        self._device = choose_device(device)
        # As in the other detectors: alone on a CPU a picture's numbers do not depend on its neighbours.
        self._images = Chunks(batch or (8 if self._device.type == "cuda" else 1))
        self._precision = choose_precision(precision, self._device)
        self._hosted = loaded = hosted(weights, classes=classes, text=text)
        self._model = loaded.model.to(self._device)
        self._lock = threading.Lock()
        self.image_processor, self.tokenizer, self.config = (
            loaded.image_processor,
            loaded.tokenizer,
            loaded.model.config,
        )
        self.identity = {**loaded.identity, "device": self._device.type, "precision": self._precision}

    def __call__(self, frames: Sequence[Frame], text: Mapping[str, Any] | None = None) -> list[Raw]:
        """`text` are inputs (P, T) that every picture is asked with. Raises ImageError `out_of_memory`,
        `too_elongated`, and `not_finite` when scores of one are not."""

        def run(start: int, stop: int) -> list[Raw]:
            prepared = [self._hosted.seen(frame.image_rgb) for frame in frames[start:stop]]
            if len({inputs["pixel_values"].shape for inputs in prepared}) == 1:
                return self._forward(prepared, text or {})
            return [raw for inputs in prepared for raw in self._forward([inputs], text or {})]

        return self._images.run(len(frames), run)

    def _forward(self, prepared: Sequence[Mapping[str, Any]], text: Mapping[str, Any]) -> list[Raw]:
        import torch

        inputs = {key: torch.cat([one[key] for one in prepared]).to(self._device) for key in prepared[0]}
        asked = {key: value.repeat(len(prepared), 1).to(self._device) for key, value in text.items()}
        with self._lock, torch.inference_mode(), autocast(self._device.type, self._precision):
            output = self._model(**inputs, **asked)
        logits, boxes = output.logits.float().cpu(), output.pred_boxes.float().cpu()
        if bool(logits.isnan().any()):  # not all that is infinite: models fill up phrases with minus infinity
            raise not_finite("detect")
        return [Raw(logits[i : i + 1], boxes[i : i + 1]) for i in range(len(prepared))]
