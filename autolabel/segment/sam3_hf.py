"""SAM 3 of transformers, asked in words: pictures to classes, boxes and masks in one step.

The numbers are the model's own (score of the object times that of the phrase being in the picture); masks are
those of its authors: the low-resolution logits, interpolated to the picture's size, above 0. What transformers'
post-processing interpolates are probabilities, which differs in a pixel here and there along the outline.

Letters in shapes: B pictures of one encoder call, P phrases, Q objects the model looks for, L levels of features, T
tokens, h and w the low-resolution mask.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.types import MAX_DET, Category, Float32, Frame, Instance, Instances, Rle
from autolabel.ops.boxes import clip_xyxy, scale_normalized
from autolabel.ops.device import Chunks, autocast, choose_device, choose_precision, not_finite
from autolabel.ops.duplicates import mask_nms
from autolabel.ops.masks import bounds_xyxy
from autolabel.ops.ontology import read_ontology
from autolabel.ops.settings import count, fraction, text
from autolabel.segment.answers import Canvas, matching_arithmetic, stability
from autolabel.weights.hub import hosted

# The released files hold the tracker for video too, of which nothing is loaded.
CLASSES: Mapping[str, str] = {"sam3": "Sam3Model", "sam3_video": "Sam3Model"}
_GATE = "accept its licence on huggingface.co, sign in with `hf auth login`"
_NO_BOX = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a phrase of `class_index` found: `box_xyxy` in fractions of the picture, `logits_hw` low-resolution."""

    class_index: int
    score: float
    stability: float
    box_xyxy: Float32
    logits_hw: Float32


class Sam3Model:
    """`weights` is a folder with config.json and .safetensors, or a name in the Hugging Face cache. `classes` says
    which phrases stand for which class, as `detect.ontology` does.

    A picture is encoded once, and asked with each phrase on its own, `prompt_chunk` of them at a time; `encode_batch`
    pictures go through the encoder together; 0 chooses by device. An object counts with a score above `conf`; of
    those of one class whose masks have an IoU above `iou`, whatever phrase they come from, the best stays; of all, the
    best `max_det`. Their scores are `detector_score` and `stability`; the model does not guess its masks' IoU.
    """

    def __init__(
        self,
        *,
        weights: str,
        classes: dict[str, str | list[str] | None] | None,
        conf: float,
        iou: float,
        max_det: int,
        prompt_chunk: int,
        encode_batch: int,
        device: str,
        precision: str,
    ) -> None:
        text("weights", weights, "a folder or a name")
        self._conf, self._iou = fraction("conf", conf), fraction("iou", iou)
        self._max_det = count("max_det", max_det, 1, 30_000)
        count("prompt_chunk", prompt_chunk, 0, 4096)
        count("encode_batch", encode_batch, 0, 63)
        self._ontology = read_ontology(classes, key="classes")
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        on_cuda = self._device.type == "cuda"
        self._phrases_at_once = Chunks(prompt_chunk or (8 if on_cuda else 1))
        self._images_at_once = Chunks(encode_batch or (4 if on_cuda else 1))
        self._hosted = loaded = hosted(weights, classes=CLASSES, text=True, gate=_GATE)
        self._network = loaded.model.to(self._device)
        self._lock = threading.Lock()
        self._fused = matching_arithmetic()
        self._phrases = self._read(loaded.tokenizer)
        self._identity = {**loaded.identity, "device": self._device.type, "precision": self._precision}

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._ontology.categories

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    def find(self, frames: Sequence[Frame]) -> list[Instances]:
        """The objects of each picture, best score first. Raises ImageError `out_of_memory` and `not_finite`."""

        import torch

        def run(start: int, stop: int) -> list[Instances]:
            some = frames[start:stop]
            with self._lock, torch.inference_mode(), autocast(self._device.type, self._precision):
                seen = [self._asked(levels) for levels in self._encoded(some)]
            return [self._instances(found, frame) for found, frame in zip(seen, some, strict=True)]

        return self._images_at_once.run(len(frames), run)

    def _read(self, tokenizer: Any) -> tuple[Any, Any]:
        """The phrases' features (P, T, C), and which tokens count (P, T): the same for all pictures."""
        import torch

        longest = int(self._network.config.text_config.max_position_embeddings)
        phrases = list(self._ontology.phrases)
        for phrase, ids in zip(phrases, tokenizer(phrases)["input_ids"], strict=True):
            if len(ids) > longest:
                raise SettingError(f"classes: {phrase!r} has {len(ids)} tokens, this model reads {longest}")
        encoded = tokenizer(phrases, padding="max_length", max_length=longest, return_tensors="pt").to(
            self._device
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        with torch.inference_mode(), autocast(self._device.type, self._precision):
            return self._network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output, mask

    def _encoded(self, frames: Sequence[Frame]) -> list[Any]:
        """The levels of features of every picture, as the model's forward pass takes them."""
        import torch

        pixels = torch.cat([self._hosted.seen(f.image_rgb)["pixel_values"] for f in frames]).to(self._device)
        seen = self._network.get_vision_features(pixels)
        pairs = zip(seen.fpn_hidden_states, seen.fpn_position_encoding, strict=True)
        levels = [(hidden, place.expand(len(frames), -1, -1, -1)) for hidden, place in pairs]
        return [[(hidden[i : i + 1], place[i : i + 1]) for hidden, place in levels] for i in range(len(frames))]

    def _asked(self, levels: Sequence[tuple[Any, Any]]) -> list[Found]:
        """What each phrase finds in one picture."""

        def run(start: int, stop: int) -> list[Found]:
            n = stop - start
            seen = SimpleNamespace(
                fpn_hidden_states=tuple(hidden.expand(n, -1, -1, -1) for hidden, _ in levels),
                fpn_position_encoding=tuple(place.expand(n, -1, -1, -1) for _, place in levels),
                hidden_states=None,
                attentions=None,
            )
            features, mask = (column[start:stop] for column in self._phrases)
            answer = self._network(
                vision_embeds=seen, text_embeds=SimpleNamespace(pooler_output=features), attention_mask=mask
            )
            return [one for row in range(n) for one in self._sure(answer, row, start + row)]

        return self._phrases_at_once.run(len(self._ontology.phrases), run)

    def _sure(self, answer: Any, row: int, phrase: int) -> list[Found]:
        """Objects above `conf`; only their maps leave the device."""
        scores = answer.pred_logits[row].float().sigmoid()
        if answer.presence_logits is not None:
            scores = scores * answer.presence_logits[row].float().sigmoid()
        if not bool(scores.isfinite().all()):
            raise not_finite("labeler")
        best = scores.argsort(descending=True, stable=True)
        best = best[scores[best] > self._conf]
        logits = answer.pred_masks[row, best].float()
        columns = (scores[best], stability(logits[:, None])[:, 0], answer.pred_boxes[row, best].float(), logits)
        number = self._ontology.class_of_phrase[phrase]
        return [
            Found(number, float(score), float(stable), box, map_hw)
            for score, stable, box, map_hw in zip(*(column.cpu().numpy() for column in columns), strict=True)
        ]

    def _instances(self, found: Sequence[Found], frame: Frame) -> Instances:
        """Best first, each object once, and only then no more than `max_det`."""
        canvas = Canvas(frame.info.size_hw, self._fused)
        # A map that is not finite has no mask; the labeler says so.
        masks = [canvas.rle(one.logits_hw) if np.isfinite(one.logits_hw).all() else None for one in found]
        rows = _once(found, masks, self._iou)[: self._max_det]
        boxes = np.array([one.box_xyxy for one in found], np.float32).reshape(-1, 4)
        boxes = clip_xyxy(scale_normalized(boxes, canvas.size_hw), canvas.size_hw)
        ids = [category.id for category in self.categories]
        instances = []
        for index, row in enumerate(rows):
            x0, y0, x1, y1 = boxes[row].tolist()
            instances.append(
                Instance(
                    index=index,
                    category_id=ids[found[row].class_index],
                    box_xyxy=(x0, y0, x1, y1),
                    detector_score=found[row].score,
                    mask=masks[row],
                    stability=found[row].stability if masks[row] is not None else None,
                )
            )
        return Instances(tuple(instances), notes=(MAX_DET,) if len(rows) == self._max_det else ())


def _once(found: Sequence[Found], masks: Sequence[Rle | None], max_iou: float) -> list[int]:
    """Rows that stay, best score first: objects without a mask, and of masks of one class that overlap the best."""
    bounds = [(None if mask is None else bounds_xyxy(mask)) or _NO_BOX for mask in masks]
    stay = [row for row, mask in enumerate(masks) if mask is None]
    for number in sorted({one.class_index for one in found}):
        mine = [row for row, one in enumerate(found) if one.class_index == number and masks[row] is not None]
        kept = mask_nms(
            [mask for row in mine if (mask := masks[row]) is not None],
            np.array([bounds[row] for row in mine], np.float32).reshape(-1, 4),
            np.array([found[row].score for row in mine], np.float32),
            max_iou,
        )
        stay += [mine[i] for i in kept]
    return sorted(stay, key=lambda row: (-found[row].score, row))
