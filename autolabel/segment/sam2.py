"""SAM 2 as a Segmenter. The only file that imports sam2.

One forward pass without predictor state; its numbers are those of `SAM2ImagePredictor.predict` in float32
with `multimask_output=False`. Refuses to judge masks: every finite answer is returned, an empty one too.

Letters in shapes: B images of one encoder call, N prompts, P points, R the model's image side, h and w the
low-resolution mask (a quarter of R), H and W the picture.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, WeightsError
from autolabel.core.types import Float32, Frame, Int64, PromptedMask, Prompts, Rle, UInt8
from autolabel.ops.device import autocast, choose_device, choose_precision, in_chunks
from autolabel.ops.masks import encode as encode_mask

logger = logging.getLogger(__name__)

# sam2/utils/transforms.py
_MEAN_RGB = (0.485, 0.456, 0.406)
_STD_RGB = (0.229, 0.224, 0.225)
# sam2/modeling/sam/prompt_encoder.py: the corners of a box are points with these labels.
_CORNER_LABELS = (2, 3)
# sam2/build_sam.py, apply_postprocessing: an unstable mask gives way to the best of the other three.
_DECODER_DEFAULTS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
# Makes the masks of random weights about as large and as clear as those of trained ones.
_RANDOM_HEAD_GAIN = 300.0
_STABILITY_OFFSET = 1.0

_import_lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """What the decoder needs of one image: `embedding` (1, C, R/16, R/16), `high_res` of strides 4 and 8."""

    embedding: Any
    high_res: list[Any]


class Sam2Segmenter:
    """SAM 2 and SAM 2.1 of any size, the shipped nano model, or a fine-tuned checkpoint with its own YAML.

    `weights` is a name or path for `autolabel.weights.resolve`, or `random:SEED`. `architecture` is `nano`, one
    of sam2's own (`sam2.1/sam2.1_hiera_t.yaml`), or the path of a YAML. `prompt_chunk` prompts go through the
    decoder at once and `encode_batch` images through the encoder; 0 chooses by device.
    """

    def __init__(
        self,
        *,
        weights: str,
        architecture: str,
        device: str,
        precision: str,
        prompt_chunk: int,
        encode_batch: int,
    ) -> None:
        _check_count("segment.prompt_chunk", prompt_chunk, 4096)
        _check_count("segment.encode_batch", encode_batch, 63)
        self._device = choose_device(device, key="segment.device")
        on_cuda = self._device.type == "cuda"
        self._precision = choose_precision(precision, self._device.type, key="segment.precision")
        # Large chunks are slower on a CPU (they leave the cache) and faster on a GPU.
        self._prompt_chunk = prompt_chunk or (128 if on_cuda else 4)
        self._encode_batch = encode_batch or (8 if on_cuda else 1)
        text = read_architecture(architecture)
        model, digest = load_model(text, weights)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._scores_objects = bool(self._model.pred_obj_scores)
        self._lock = threading.Lock()
        self._fused = matching_arithmetic()
        self._dense_pe = self._model.sam_prompt_encoder.get_dense_pe()
        self._identity = {
            "weights": digest,
            "architecture": hashlib.sha256(text.encode()).hexdigest(),
            "device": self._device.type,
            "precision": self._precision,
            "torch": version("torch"),
            "sam2": version("sam2"),
        }

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        """Masks of all prompts of all frames. Frames without prompts cost nothing.

        A prompt whose answer is not finite (a box with NaN, say) goes unanswered. Raises
        ImageError `out_of_memory` when a single image or prompt does not fit on the device.
        """
        pairs = list(zip(frames, prompts, strict=True))
        answers: list[list[PromptedMask]] = [[] for _ in pairs]
        asked = [number for number, (_, prompt) in enumerate(pairs) if len(prompt)]
        for first in range(0, len(asked), self._encode_batch):
            group = asked[first : first + self._encode_batch]
            features = self._encode([pairs[number][0].image_rgb for number in group])
            for number, feature in zip(group, features, strict=True):
                frame, prompt = pairs[number]
                answers[number] = self._answer(feature, prompt, frame.info.size_hw)
        return answers

    def _encode(self, images_rgb: Sequence[UInt8]) -> list[_Features]:
        import torch

        def run(start: int, stop: int) -> list[_Features]:
            with self._lock, torch.inference_mode(), autocast(self._device.type, self._precision):
                side = self._model.image_size
                batch = [to_model_image(image, side, self._device) for image in images_rgb[start:stop]]
                return encode(self._model, torch.stack(batch))

        return in_chunks(len(images_rgb), self._encode_batch, run)

    def _answer(self, features: _Features, prompts: Prompts, size_hw: tuple[int, int]) -> list[PromptedMask]:
        _check_mask_size(prompts, self._model.sam_prompt_encoder.mask_input_size)
        points = to_model_points(prompts, size_hw, self._model.image_size)

        def run(start: int, stop: int) -> list[PromptedMask | None]:
            logits, scores = self._decode(features, points, prompts.mask_logits, slice(start, stop))
            return [
                self._answer_one(start + row, logits[row], scores[row], size_hw) for row in range(stop - start)
            ]

        found = in_chunks(len(prompts), self._prompt_chunk, run)
        return [answer for answer in found if answer is not None]

    def _decode(
        self,
        features: _Features,
        points: tuple[Float32, Int64] | None,
        mask_logits: Float32 | None,
        rows: slice,
    ) -> tuple[Float32, Float32]:
        """Low-resolution logits (N, h, w) and, a row each, predicted IoU, object score, stability."""
        import torch

        with self._lock, torch.inference_mode(), autocast(self._device.type, self._precision):
            low_res, iou, object_logit = decode(
                self._model,
                self._dense_pe,
                features,
                None if points is None else (self._tensor(points[0][rows]), self._tensor(points[1][rows])),
                None if mask_logits is None else self._tensor(mask_logits[rows])[:, None].float(),
            )
            scores = torch.cat([iou.float(), object_logit.float().sigmoid(), stability(low_res)], dim=1)
            # A NaN or an infinity anywhere in the map must show in the row's scores.
            finite = torch.isfinite(low_res).flatten(1).all(dim=1, keepdim=True)
            scores = torch.where(finite, scores, torch.nan)
            return low_res[:, 0].cpu().numpy(), scores.cpu().numpy()

    def _answer_one(
        self, number: int, logits_hw: Float32, scores: Float32, size_hw: tuple[int, int]
    ) -> PromptedMask | None:
        if not np.isfinite(scores).all():
            return None
        predicted_iou, object_score, stable = (float(score) for score in scores)
        return PromptedMask(
            number,
            logits_rle(logits_hw, size_hw, self._fused),
            predicted_iou,
            # Without the head the decoder states a constant.
            object_score if self._scores_objects else None,
            stable,
        )

    def _tensor(self, array: Float32 | Int64) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def to_model_image(image_rgb: UInt8, side: int, device: Any) -> Any:
    """The (3, R, R) float32 input of the encoder, as `SAM2Transforms` makes it; the resize runs on `device`."""
    import torch
    from torch.nn import functional

    pixels = torch.from_numpy(np.ascontiguousarray(image_rgb)).to(device)
    image = pixels.permute(2, 0, 1).contiguous().float().div_(255)
    if image.shape[-2:] != (side, side):
        image = functional.interpolate(
            image[None], (side, side), mode="bilinear", align_corners=False, antialias=True
        )[0]
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (_MEAN_RGB, _STD_RGB))
    return image.sub_(mean).div_(std)


def to_model_points(prompts: Prompts, size_hw: tuple[int, int], side: int) -> tuple[Float32, Int64] | None:
    """Points (N, P, 2) in model pixels and their labels (N, P): the corners of the box first, then the points.

    None when the prompts are masks alone.
    """
    xy, labels = [], []
    if prompts.boxes_xyxy is not None:
        xy.append(prompts.boxes_xyxy.reshape(-1, 2, 2))
        labels.append(np.tile(np.array(_CORNER_LABELS, np.int64), (len(prompts), 1)))
    if prompts.points_xy is not None and prompts.point_signs is not None:
        xy.append(prompts.points_xy)
        labels.append(prompts.point_signs)
    if not xy:
        return None
    h, w = size_hw
    # In this order and in float32, as in sam2: the quotient is rounded before the product.
    scaled = np.concatenate(xy, axis=1).astype(np.float32) / np.array([w, h], np.float32) * np.float32(side)
    return scaled.astype(np.float32), np.concatenate(labels, axis=1).astype(np.int64)


def encode(model: Any, images: Any) -> list[_Features]:
    """Features of images (B, 3, R, R); what `SAM2ImagePredictor.set_image` keeps, one entry an image."""
    levels = model.forward_image(images)["backbone_fpn"][-model.num_feature_levels :]
    *high_res, embedding = levels
    if model.directly_add_no_mem_embed:
        embedding = embedding + model.no_mem_embed.reshape(1, -1, 1, 1)
    return [_Features(embedding[i : i + 1], [level[i : i + 1] for level in high_res]) for i in range(len(images))]


def decode(
    model: Any, dense_pe: Any, features: _Features, points: tuple[Any, Any] | None, mask_logits: Any | None
) -> tuple[Any, Any, Any]:
    """Unclamped float32 logits (N, 1, h, w), predicted IoU (N, 1), object logit (N, 1) of N prompts."""
    sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=mask_logits)
    low_res, iou, _, object_logit = model.sam_mask_decoder(
        image_embeddings=features.embedding,
        image_pe=dense_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
        repeat_image=len(sparse) > 1,
        high_res_features=features.high_res,
    )
    return low_res.float(), iou, object_logit


def stability(logits: Any) -> Any:
    """Of logits (N, 1, h, w): the IoU (N, 1) of the masks above +1 and above -1; 0 where both are empty."""
    inner = (logits > _STABILITY_OFFSET).flatten(1).sum(dim=1, keepdim=True)
    outer = (logits > -_STABILITY_OFFSET).flatten(1).sum(dim=1, keepdim=True)
    return inner / outer.clamp(min=1)


def logits_rle(logits_hw: Float32, size_hw: tuple[int, int], fused: bool | None) -> Rle:
    """The mask `upsampled logits > 0` of one finite low-resolution map; no answer depends on `fused`.

    `fused` is what `matching_arithmetic` found. Where it found nothing, and for tiny pictures, the mask is
    made at full size, one at a time: many boxes on a large picture must not hold all of theirs together.
    """
    import torch
    from torch.nn import functional

    from autolabel.ops.rle import SMALLEST_H_PLUS_W, logits_to_rle

    if fused is not None and sum(size_hw) >= SMALLEST_H_PLUS_W:
        return logits_to_rle(logits_hw, size_hw, fused=fused)
    logits_11hw = torch.from_numpy(logits_hw)[None, None]
    full = functional.interpolate(logits_11hw, size_hw, mode="bilinear", align_corners=False)
    return encode_mask((full[0, 0] > 0).numpy())


@cache
def matching_arithmetic() -> bool | None:
    """The `fused` with which `ops.rle` computes as torch does on this CPU, bit for bit; None when neither does."""
    import torch
    from torch.nn import functional

    from autolabel.ops.rle import interpolate

    probe = np.random.default_rng(0).normal(size=(24, 20)).astype(np.float32)
    size_hw = (90, 110)
    torchs = functional.interpolate(torch.from_numpy(probe)[None, None], size_hw, mode="bilinear")[0, 0].numpy()
    for fused in (True, False):
        if np.array_equal(interpolate(probe, size_hw, fused=fused), torchs):
            return fused
    logger.info("masks are made at full size: this CPU's arithmetic is not one that ops.rle knows")
    return None


def _check_mask_size(prompts: Prompts, expected_hw: tuple[int, int]) -> None:
    if prompts.mask_logits is not None and prompts.mask_logits.shape[1:] != tuple(expected_hw):
        raise ValueError(f"mask_logits must be (N, {expected_hw[0]}, {expected_hw[1]}), "
                         f"got {prompts.mask_logits.shape}")  # fmt: skip


def _check_count(key: str, value: int, largest: int) -> None:
    if not (isinstance(value, int) and 0 <= value <= largest):
        raise ConfigError(f"{key} must be a whole number in [0, {largest}], got {value!r}")


# Architecture and weights


def read_architecture(architecture: str) -> str:
    """The YAML text of `nano`, of a YAML of sam2's own, or of a file."""
    if architecture == "nano":
        return (configs_dir() / "segment" / "sam2_arch" / "nano.yaml").read_text("utf-8")
    if Path(architecture).is_file():
        return Path(architecture).read_text("utf-8")
    root = _sam2_folder() / "configs"
    own = root / architecture.removeprefix("configs/")
    if own.is_file():
        return own.read_text("utf-8")
    names = sorted(str(path.relative_to(root)) for path in root.glob("sam2*/*_hiera_?*.yaml"))
    raise ConfigError(
        f"segment.architecture {architecture!r} is not a file; sam2 has nano, "
        + ", ".join(name for name in names if "training" not in name)
    )


def load_model(architecture_yaml: str, weights: str) -> tuple[Any, str]:
    """The SAM2Base that the YAML describes with its weights, on the CPU, and the weights' sha256.

    `random:SEED` gives random weights, which do not depend on and do not move the global generator.
    """
    if weights.startswith("random:"):
        return _random_model(architecture_yaml, weights), weights
    from autolabel.weights import resolve

    resolved = resolve(weights)
    model = _build(architecture_yaml)
    load_strictly(model, read_state(resolved.path), resolved.path)
    return model, resolved.sha256


def _random_model(architecture_yaml: str, weights: str) -> Any:
    import torch

    seed = weights.removeprefix("random:")
    if not seed.isdigit():
        raise ConfigError(f"segment.weights must be a name, a path or random:SEED, got {weights!r}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(seed))
        model = _build(architecture_yaml)
        for network in model.sam_mask_decoder.output_hypernetworks_mlps:
            network.layers[-1].weight.mul_(_RANDOM_HEAD_GAIN)
    return model


def _build(architecture_yaml: str) -> Any:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.create(architecture_yaml)
    if "model" not in config:
        raise ConfigError("segment.architecture has no `model:` section; give the YAML that builds the model")
    extra = config.model.get("sam_mask_decoder_extra_args") or {}
    OmegaConf.update(config, "model.sam_mask_decoder_extra_args", {**_DECODER_DEFAULTS, **extra}, force_add=True)
    OmegaConf.resolve(config)
    with _import_lock, hydra_left_alone():
        # The YAML names classes of sam2, so this is also where sam2 is imported.
        return instantiate(config.model, _recursive_=True)


@contextmanager
def hydra_left_alone() -> Iterator[None]:
    """Keep `import sam2` from initialising Hydra for the whole process; leave Hydra's state as it was."""
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance()
    before = state.hydra
    # sam2/__init__.py initialises Hydra unless it finds it initialised.
    state.hydra = before if before is not None else object()
    try:
        yield
    finally:
        state.hydra = before


def _sam2_folder() -> Path:
    from importlib.resources import files

    with _import_lock, hydra_left_alone():
        return Path(str(files("sam2")))


def read_state(path: Path) -> Mapping[str, Any]:
    """The tensors of a `.safetensors` file, or of the `model` entry of a `.pt`. Never unpickles code."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    import pickle

    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path} is damaged, or holds more than tensors: {error}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise WeightsError(f"{path} is not a SAM 2 checkpoint: it has no `model` entry")
    state: Mapping[str, Any] = checkpoint["model"]
    return state


def load_strictly(model: Any, state: Mapping[str, Any], path: Path) -> None:
    """Fill `model`; WeightsError names the keys that are missing, unexpected or of another shape."""
    own = model.state_dict()
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape),
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in wrong.items() if keys)
        raise WeightsError(f"{path} does not fit segment.architecture: {found}")
    model.load_state_dict(state)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
