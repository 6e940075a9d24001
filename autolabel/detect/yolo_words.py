"""Ultralytics' open-vocabulary detectors, YOLO-World and YOLOE, asked in words: the classes are those of an ontology.

Such a model knows phrases as vectors of a text encoder. Ultralytics would install that encoder from a repository and
fetch its weights; here a person names what there is: a CLIP model in the form of transformers (YOLO-World was trained
with ViT-B/32), or a file of vectors, one a phrase, which is all that YOLOE's TorchScript encoder has to offer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.core.errors import SettingError, WeightsError
from autolabel.core.types import Float32
from autolabel.detect.yolo import Loaded, YoloDetector
from autolabel.ops.names import nearest
from autolabel.ops.ontology import read_ontology
from autolabel.ops.settings import text as check_text
from autolabel.weights.cache import sha256_of
from autolabel.weights.hub import hosted

_ALL = 1 << 20
"""More boxes than any head proposes."""
_CLIP = {"clip": "CLIPTextModelWithProjection", "clip_text_model": "CLIPTextModelWithProjection"}


class YoloWordsDetector(YoloDetector):
    """`weights` and the other settings are those of YoloDetector. `text` says how phrases become vectors: a folder or
    cached name of a CLIP model (extra `hf`), or a `.safetensors` with a vector for each phrase under its name."""

    def __init__(
        self,
        *,
        weights: str,
        architecture: str | None,
        ontology: dict[str, str | list[str] | None] | None,
        text: str,
        conf: float,
        iou: float,
        max_det: int,
        image_size: int,
        batch: int,
        device: str,
        precision: str,
    ) -> None:
        self._ontology = read_ontology(ontology)
        self._text = check_text("text", text, "a folder, a name or a .safetensors file")
        super().__init__(
            weights=weights, architecture=architecture, conf=conf, iou=iou, max_det=max_det, image_size=image_size,
            batch=batch, device=device, precision=precision, classes=None, agnostic_nms=False,
        )  # fmt: skip
        self._categories = self._ontology.categories
        self._class_count = len(self._categories)
        if self._model.end2end and len(self._ontology.phrases) > self._class_count:
            # What several phrases find twice goes before the best are taken, so the head leaves none out.
            self._model.set_head_attr(max_det=_ALL)
        self._identity = {**self._identity, "text": self._text_digest}

    def _load(self, weights: str, architecture: str | None) -> Loaded:
        vectors, self._text_digest = phrase_vectors(self._text, self._ontology.phrases)
        loaded = super()._load(weights, architecture)
        teach(loaded.model, self._ontology.phrases, vectors)
        return replace(loaded, names=dict(enumerate(self._ontology.phrases)))

    def _select(self, output_1: Any) -> Any:
        """Classes instead of phrases before boxes are chosen, so that several phrases of a class are one class."""
        import torch

        class_of = torch.tensor(self._ontology.class_of_phrase, device=output_1.device)
        if self._model.end2end:
            from torchvision.ops import batched_nms

            rows = output_1[0, output_1[0, :, 4] > self._conf, :6].clone()
            rows[:, 5] = class_of[rows[:, 5].long()].to(rows.dtype)
            if len(class_of) > self._class_count:
                rows = rows[batched_nms(rows[:, :4], rows[:, 4], rows[:, 5], self._iou)]
            return rows[: self._max_det]
        boxes, scores, rest = output_1.split([4, len(class_of), output_1.shape[1] - 4 - len(class_of)], dim=1)
        best = [scores[:, class_of == number].amax(dim=1, keepdim=True) for number in range(self._class_count)]
        return super()._select(torch.cat([boxes, *best, rest], dim=1))


def teach(model: Any, phrases: Sequence[str], vectors_PD: Float32) -> None:  # noqa: N803 - shape suffix
    """Make `phrases` the classes of a YOLO-World or YOLOE network. Raises ConfigError for any other network."""
    import torch

    vectors, head = torch.from_numpy(vectors_PD)[None], model.model[-1]
    is_world, is_yoloe = hasattr(model, "txt_feats"), hasattr(head, "get_tpe")
    if not is_world and not is_yoloe:
        raise SettingError("weights is neither YOLO-World nor YOLOE: it cannot be asked in words; use detect=yolo")
    wanted = model.txt_feats.shape[-1] if is_world else getattr(head, "embed", vectors.shape[-1])
    if vectors.shape[-1] != wanted:
        raise SettingError(f"text gives vectors of {vectors.shape[-1]} numbers, this model reads {wanted}")
    names = dict(enumerate(phrases))
    if is_world:
        model.txt_feats, model.names, head.nc = vectors, names, len(names)
        return
    if hasattr(head, "lrpc"):
        raise SettingError("weights is a YOLOE without prompts (-pf); take the one without -pf in its name")
    with torch.no_grad():
        model.set_classes(list(phrases), head.get_tpe(vectors))


def phrase_vectors(text: str, phrases: Sequence[str]) -> tuple[Float32, str]:
    """Unit vectors (P, D) of the phrases, and the sha256 of what they come from. Raises ConfigError, WeightsError,
    WeightsMissing and MissingExtra."""
    path = Path(text).expanduser()
    found, digest = _from_file(path, phrases) if path.suffix == ".safetensors" else _from_clip(text, phrases)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise WeightsError(f"{text} gives vectors without a length")
    return (found / length).astype(np.float32), digest


def _from_file(path: Path, phrases: Sequence[str]) -> tuple[np.ndarray, str]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    digest = sha256_of(path)
    try:
        vectors: Mapping[str, np.ndarray] = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    for phrase in phrases:
        if phrase not in vectors:
            raise SettingError(f"text: {path} has no vector for {phrase!r}; {nearest(phrase, vectors)}")
    rows = [vectors[phrase].astype(np.float32).reshape(-1) for phrase in phrases]
    if len({len(row) for row in rows}) > 1:
        raise WeightsError(f"{path} holds vectors of several lengths")
    return np.stack(rows), digest


def _from_clip(text: str, phrases: Sequence[str]) -> tuple[np.ndarray, str]:
    import torch

    loaded = hosted(text, classes=_CLIP, images=False, text=True)
    longest = int(loaded.model.config.max_position_embeddings)
    encoded = loaded.tokenizer(list(phrases), padding=True, return_tensors="pt")
    if encoded["input_ids"].shape[1] > longest:
        raise SettingError(f"ontology: a phrase has more than the {longest} tokens that the text model reads")
    with torch.inference_mode():
        vectors: np.ndarray = loaded.model(**encoded).text_embeds.numpy()
    return vectors, loaded.identity["weights"]
