"""Detectors of transformers that are asked in words: Grounding DINO and OWLv2. An ontology says which phrases stand
for which class; a phrase that is not in it is never found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.types import Category, Detections, Float32, Frame
from autolabel.detect.hf_network import HfNetwork, Raw
from autolabel.detect.ontology import best_detections
from autolabel.ops.boxes import cxcywh_to_xyxy
from autolabel.ops.ontology import read_ontology
from autolabel.ops.settings import count, fraction


class _PhraseDetector:
    """The base of both: settings, and boxes of which the likeliest class is taken."""

    _CLASSES: Mapping[str, str]
    _FORBIDDEN = ""

    def __init__(
        self,
        *,
        weights: str,
        ontology: dict[str, str | list[str] | None] | None,
        conf: float,
        iou: float,
        max_det: int,
        batch: int,
        device: str,
        precision: str,
    ) -> None:
        self._conf, self._iou = fraction("conf", conf), fraction("iou", iou)
        self._max_det = count("max_det", max_det, 1, 30_000)
        self._ontology = read_ontology(ontology, forbidden=self._FORBIDDEN)
        self._network = HfNetwork(
            weights=weights, classes=self._CLASSES, batch=batch, device=device, precision=precision, text=True
        )
        self._text = self._read()

    def _read(self) -> Any:
        """What the network is asked with, the same for all pictures."""
        raise NotImplementedError

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._ontology.categories

    @property
    def identity(self) -> Mapping[str, str]:
        return self._network.identity

    def _best(self, raw: Raw, scores: Float32, scale_wh: tuple[int, int], frame: Frame) -> Detections:
        boxes = cxcywh_to_xyxy(raw.pred_boxes[0].numpy()) * np.array(scale_wh * 2, np.float32)
        of_classes = self._ontology.of_classes(scores)
        return best_detections(
            boxes, of_classes, frame.info.size_hw, conf=self._conf, iou=self._iou, max_det=self._max_det
        )


class GroundingDinoDetector(_PhraseDetector):
    """Grounding DINO and MM Grounding DINO. All phrases are one sentence for the model, with a full stop behind each;
    a box is as likely a phrase as the likeliest of the phrase's tokens, and its class is that of the likeliest phrase.

    The library's own post-processing takes the same score, and joins whatever tokens pass a second threshold to a new
    phrase; here no phrase is made up.
    """

    _CLASSES = dict.fromkeys(("grounding-dino", "mm-grounding-dino"), "AutoModelForZeroShotObjectDetection")
    _FORBIDDEN = ".?"  # what the model itself takes for the end of a phrase

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Boxes of each frame, best score first, clipped to the image. Raises ImageError as HfNetwork does."""
        text, tokens = self._text
        found = []
        for raw, frame in zip(self._network(frames, text), frames, strict=True):
            probabilities = raw.logits[0].sigmoid().numpy()
            scores = np.stack([probabilities[:, some].max(axis=1) for some in tokens], axis=1)
            height, width = frame.info.size_hw
            found.append(self._best(raw, scores, (width, height), frame))
        return found

    def _read(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The text inputs (1, T), and the places of each phrase's tokens."""
        phrases = self._ontology.phrases
        sentence = " ".join(f"{phrase}." for phrase in phrases)
        encoded = self._network.tokenizer(
            sentence, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True
        )
        first, last = encoded.pop("offset_mapping")[0].numpy().T
        longest = int(self._network.config.max_text_len)
        if len(first) > longest:
            raise SettingError(f"ontology: {len(first)} tokens are more than the {longest} of this model")
        tokens, at = [], 0
        for phrase in phrases:
            tokens.append(np.flatnonzero((first >= at) & (last <= at + len(phrase)) & (last > first)))
            at += len(phrase) + len(". ")
        return dict(encoded), tokens


class Owlv2Detector(_PhraseDetector):
    """OWLv2, asked with each phrase on its own. It sees the picture in the corner of a square."""

    _CLASSES: Mapping[str, str] = {"owlv2": "Owlv2ForObjectDetection"}

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Boxes of each frame, best score first, clipped to the image. Raises ImageError as HfNetwork does."""
        found = []
        for raw, frame in zip(self._network(frames, self._text), frames, strict=True):
            side = max(frame.info.size_hw)
            found.append(self._best(raw, raw.logits[0].sigmoid().numpy(), (side, side), frame))
        return found

    def _read(self) -> dict[str, Any]:
        """Text inputs (P, T), padded to the longest that the model reads."""
        longest = int(self._network.config.text_config.max_position_embeddings)
        phrases = list(self._ontology.phrases)
        for phrase, ids in zip(phrases, self._network.tokenizer(phrases)["input_ids"], strict=True):
            if len(ids) > longest:
                raise SettingError(f"ontology: {phrase!r} has {len(ids)} tokens, this model reads {longest}")
        encoded = self._network.tokenizer(phrases, padding="max_length", max_length=longest, return_tensors="pt")
        return {key: encoded[key] for key in ("input_ids", "attention_mask")}
