"""SAM 2 as a Segmenter. The only file that imports sam2.

Forward passes without predictor state; the numbers are those of `SAM2ImagePredictor.predict` in float32, asked
with the same prompts in the same steps. Refuses to judge masks: every finite answer is returned, an empty one too,
unless a sieve was asked for.

Letters in shapes: B images of one encoder call, N prompts, P points, M masks of one prompt, R the model's image
side, h and w the low-resolution mask (a quarter of R), H and W the picture.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, WeightsError
from autolabel.core.types import Float32, Frame, Int64, PromptedMask, Prompts, Rle, Sieve, UInt8
from autolabel.ops.boxes import iou_xyxy
from autolabel.ops.device import autocast, choose_device, choose_precision, in_chunks
from autolabel.ops.masks import bounds_xyxy
from autolabel.ops.masks import encode as encode_mask
from autolabel.ops.settings import count, one_of
from autolabel.segment.inputs import Inputs, by_shape, inner_points, to_model_xy
from autolabel.segment.sam2_decoder import ImageSide, MaskDecoder

logger = logging.getLogger(__name__)

# sam2/utils/transforms.py
_MEAN_RGB = (0.485, 0.456, 0.406)
_STD_RGB = (0.229, 0.224, 0.225)
# sam2/build_sam.py, apply_postprocessing: an unstable mask gives way to the best of the other three.
_DECODER_DEFAULTS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
# Makes the masks of random weights about as large and as clear as those of trained ones.
_RANDOM_HEAD_GAIN = 300.0
_STABILITY_OFFSET = 1.0
# sam2/sam2_image_predictor.py: what a mask prompt made of logits is clamped to.
_MASK_INPUT_LIMIT = 32.0
_MASK_CHOICES = ("single", "best_iou", "best_box_fit", "most_stable")
_REFINE_WITH = ("prompt", "mask", "point")

_import_lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """What the decoder needs of one image: `embedding` (1, C, R/16, R/16), `high_res` of strides 4 and 8, and where
    very many prompts follow, what of their decoding is the same for all."""

    embedding: Any
    high_res: list[Any]
    side: ImageSide | None = None


class Sam2Segmenter:
    """SAM 2 and SAM 2.1 of any size, the shipped nano model, or a fine-tuned checkpoint with its own YAML.

    `weights` is a name or path for `autolabel.weights.resolve`, or `random:SEED`. `architecture` is `nano`, one
    of sam2's own (`sam2.1/sam2.1_hiera_t.yaml`), or the path of a YAML. `prompt_chunk` prompts go through the
    decoder at once and `encode_batch` images through the encoder; 0 chooses by device.

    `masks` is `single` (one mask a prompt) or how one of three is chosen: by predicted IoU, by the IoU of its tight
    box with the prompt's box (predicted IoU where there is none), by its stability. Then the answer's logits are
    asked with again, `refine_steps` times, for one mask: beside the `prompt`, alone (`mask`), or beside the prompt
    and one more `point` most inside of the last answer.
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
        masks: str,
        refine_steps: int,
        refine_with: str,
    ) -> None:
        count("segment.prompt_chunk", prompt_chunk, 0, 4096)
        count("segment.encode_batch", encode_batch, 0, 63)
        self._masks = one_of("segment.masks", masks, _MASK_CHOICES)
        self._refine_steps = count("segment.refine_steps", refine_steps, 0, 100)
        self._refine_with = one_of("segment.refine_with", refine_with, _REFINE_WITH)
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
        found: list[PromptedMask] = []
        if prompts.sieve is not None:
            features = self._with_side(features)
        for inputs in by_shape(prompts):
            ask = partial(self._answer_some, features, inputs, prompts.sieve, size_hw)
            found += in_chunks(len(inputs), self._prompt_chunk, ask)
        return sorted(found, key=lambda answer: answer.prompt)

    def _answer_some(
        self,
        features: _Features,
        inputs: Inputs,
        sieve: Sieve | None,
        size_hw: tuple[int, int],
        start: int,
        stop: int,
    ) -> list[PromptedMask]:
        import torch

        view = View(size_hw, self._fused)
        with self._lock, torch.inference_mode(), autocast(self._device.type, self._precision):
            asked, answer = self._first(features, inputs.part(slice(start, stop)), sieve, view)
            for _ in range(self._refine_steps):
                answer = self._decode(features, *self._again(asked, answer, view), view, False)
            scores = answer.scores()
            if sieve is not None:  # before anything leaves the device
                passed = np.flatnonzero(scores[:, 0] > sieve.min_predicted_iou)
                asked, answer, scores = asked.part(passed), answer.part(passed), scores[passed]
            logits = answer.logits[:, 0].cpu().numpy()
        if sieve is not None:
            return self._sifted(asked.rows, logits, scores, view, sieve.min_stability)
        return self._finished(asked.rows, logits, scores, view)

    def _first(
        self, features: _Features, asked: Inputs, sieve: Sieve | None, view: View
    ) -> tuple[Inputs, Decoded]:
        """One mask a prompt; for a sieve every mask, each with its prompt."""
        three = self._masks != "single" if sieve is None else sieve.three_masks
        mask_input = asked.logits(self._model.sam_prompt_encoder.mask_input_size)
        answer = self._decode(features, asked, mask_input, view, three)
        if sieve is not None:
            return asked.part(np.repeat(np.arange(len(asked)), answer.logits.shape[1])), answer.each()
        return asked, answer.only(self._choice(answer, asked.boxes_xyxy, view)) if three else answer

    def _with_side(self, features: _Features) -> _Features:
        import torch

        with self._lock, torch.inference_mode(), autocast(self._device.type, self._precision):
            stride_4, stride_8 = features.high_res
            return replace(features, side=self._many.image_side(features.embedding, (stride_4, stride_8)))

    @cached_property
    def _many(self) -> MaskDecoder:
        """For grids alone: its last digits may differ from the library's, and boxes are to have the library's."""
        return MaskDecoder(self._model)

    def _decode(self, features: _Features, asked: Inputs, mask_input: Any, view: View, three: bool) -> Decoded:
        """`mask_input` is (N, h, w) or None."""
        points = None
        if asked.xy is not None and asked.labels is not None:
            points = (
                self._tensor(to_model_xy(asked.xy, view.size_hw, self._model.image_size)),
                self._tensor(asked.labels),
            )
        if three and features.side is not None and mask_input is None:
            sparse, _ = self._model.sam_prompt_encoder(points=points, boxes=None, masks=None)
            four = self._many(features.side, None, sparse)
            return Decoded(four.logits[:, 1:].float(), four.iou[:, 1:], four.object_logit)
        masks = None if mask_input is None else self._tensor(mask_input)[:, None].float()
        return decode(self._model, self._dense_pe, features, points, masks, three)

    def _again(self, asked: Inputs, answer: Decoded, view: View) -> tuple[Inputs, Any]:
        """The next step's prompt and mask input."""
        logits = answer.logits[:, 0]
        if self._refine_with == "mask":
            asked = asked.without_points()
        elif self._refine_with == "point":
            asked = asked.with_point(inner_points(logits.cpu().numpy(), view.size_hw))
        return asked, logits.clamp(-_MASK_INPUT_LIMIT, _MASK_INPUT_LIMIT)

    def _choice(self, answer: Decoded, boxes_xyxy: Float32, view: View) -> Any:
        """Which of the three masks (N,) stays."""
        if self._masks == "most_stable":
            return stability(answer.logits).argmax(dim=1)
        best = answer.iou.argmax(dim=1)
        if self._masks == "best_iou" or np.isnan(boxes_xyxy).any():
            return best
        return self._tensor(best_fits(answer.logits.cpu().numpy(), boxes_xyxy, view))

    def _finished(self, rows: Int64, logits: Float32, scores: Float32, view: View) -> list[PromptedMask]:
        """Every finite answer; a NaN in the map shows in the scores."""
        return [
            self._prompted(int(rows[i]), logits[i], scores[i], view)
            for i in range(len(rows))
            if np.isfinite(scores[i]).all()
        ]

    def _sifted(
        self, rows: Int64, logits: Float32, scores: Float32, view: View, min_stability: float
    ) -> list[PromptedMask]:
        """The stable ones, with their stability at the picture's size. Unstable ones never get a mask."""
        found = []
        for i in range(len(rows)):
            if np.isfinite(scores[i]).all():
                scores[i, 2] = view.stability(logits[i], _STABILITY_OFFSET)
                if scores[i, 2] >= min_stability:
                    found.append(self._prompted(int(rows[i]), logits[i], scores[i], view))
        return found

    def _prompted(self, row: int, logits_hw: Float32, scores: Float32, view: View) -> PromptedMask:
        predicted_iou, object_score, stable = (float(score) for score in scores)
        # Without the head the decoder states a constant.
        known = object_score if self._scores_objects else None
        return PromptedMask(row, view.rle(logits_hw), predicted_iou, known, stable)

    def _tensor(self, array: Any) -> Any:
        import torch

        if not isinstance(array, np.ndarray):
            return array
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What the decoder says to N prompts: unclamped float32 `logits` (N, M, h, w), predicted `iou` (N, M), and the
    logit of there being an object, `object_logit` (N, 1)."""

    logits: Any
    iou: Any
    object_logit: Any

    def only(self, chosen: Any) -> Decoded:
        """One mask a prompt: that of number `chosen` (N,)."""
        import torch

        row = torch.arange(len(chosen), device=self.logits.device)
        return Decoded(self.logits[row, chosen][:, None], self.iou[row, chosen][:, None], self.object_logit)

    def part(self, rows: Int64) -> Decoded:
        """The answers to some of the prompts."""
        import torch

        index = torch.from_numpy(rows).to(self.logits.device)
        return Decoded(self.logits[index], self.iou[index], self.object_logit[index])

    def each(self) -> Decoded:
        """Every mask as the answer to a prompt of its own, in order."""
        m = self.logits.shape[1]
        return Decoded(
            self.logits.flatten(0, 1)[:, None],
            self.iou.flatten()[:, None],
            self.object_logit.repeat_interleave(m, dim=0),
        )

    def scores(self) -> Float32:
        """Of one mask a prompt: predicted IoU, object score and stability (N, 3); NaN where the map is not finite."""
        import torch

        values = [self.iou.float(), self.object_logit.float().sigmoid(), stability(self.logits)]
        # A NaN or an infinity anywhere in the map must show in the row's scores.
        finite = torch.isfinite(self.logits).flatten(1).all(dim=1, keepdim=True)
        scores: Float32 = torch.where(finite, torch.cat(values, dim=1), torch.nan).cpu().numpy()
        return scores


@dataclass(frozen=True, slots=True)
class View:
    """The picture that masks are for. `fused` is what `matching_arithmetic` found; no answer depends on it."""

    size_hw: tuple[int, int]
    fused: bool | None

    def rle(self, logits_hw: Float32) -> Rle:
        return logits_rle(logits_hw, self.size_hw, self.fused)

    def stability(self, logits_hw: Float32, offset: float) -> float:
        """IoU of the masks above `+offset` and above `-offset` at the picture's size; NaN where both are empty, as
        in sam2/utils/amg.py."""
        inner, outer = (
            logits_area(logits_hw - np.float32(shift), self.size_hw, self.fused) for shift in (offset, -offset)
        )
        return inner / outer if outer else float("nan")


def best_fits(logits: Float32, boxes_xyxy: Float32, view: View) -> Int64:
    """For each prompt the one of its masks, logits (N, M, h, w), whose tight box has the highest IoU with its box (N, 4)."""
    fits = np.zeros(logits.shape[:2])
    for i, m in np.ndindex(fits.shape):
        bounds = bounds_xyxy(view.rle(logits[i, m])) or (0, 0, 0, 0)
        fits[i, m] = iou_xyxy(boxes_xyxy[i : i + 1], np.array([bounds], np.float32))[0, 0]
    return fits.argmax(axis=1)


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


def encode(model: Any, images: Any) -> list[_Features]:
    """Features of images (B, 3, R, R); what `SAM2ImagePredictor.set_image` keeps, one entry an image."""
    levels = model.forward_image(images)["backbone_fpn"][-model.num_feature_levels :]
    *high_res, embedding = levels
    if model.directly_add_no_mem_embed:
        embedding = embedding + model.no_mem_embed.reshape(1, -1, 1, 1)
    return [_Features(embedding[i : i + 1], [level[i : i + 1] for level in high_res]) for i in range(len(images))]


def decode(
    model: Any, dense_pe: Any, features: _Features, points: tuple[Any, Any] | None, masks: Any | None, three: bool
) -> Decoded:
    """The decoder's answer to N prompts: points (N, P, 2) with labels (N, P), mask input (N, 1, h, w), or both."""
    sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=masks)
    low_res, iou, _, object_logit = model.sam_mask_decoder(
        image_embeddings=features.embedding,
        image_pe=dense_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=three,
        repeat_image=len(sparse) > 1,
        high_res_features=features.high_res,
    )
    return Decoded(low_res.float(), iou, object_logit)


def stability(logits: Any) -> Any:
    """Of logits (N, M, h, w): the IoU (N, M) of the masks above +1 and above -1; 0 where both are empty."""
    inner = (logits > _STABILITY_OFFSET).flatten(2).sum(dim=2)
    outer = (logits > -_STABILITY_OFFSET).flatten(2).sum(dim=2)
    return inner / outer.clamp(min=1)


def logits_rle(logits_hw: Float32, size_hw: tuple[int, int], fused: bool | None) -> Rle:
    """The mask `upsampled logits > 0` of one finite low-resolution map; no answer depends on `fused`.

    `fused` is what `matching_arithmetic` found. Where it found nothing, and for tiny pictures, the mask is
    made at full size, one at a time: many boxes on a large picture must not hold all of theirs together.
    """
    from autolabel.ops.rle import logits_to_rle

    if _is_direct(size_hw, fused):
        return logits_to_rle(logits_hw, size_hw, fused=bool(fused))
    return encode_mask(_full_mask(logits_hw, size_hw))


def logits_area(logits_hw: Float32, size_hw: tuple[int, int], fused: bool | None) -> int:
    """Pixels of that mask."""
    from autolabel.ops.rle import logits_area_px

    if _is_direct(size_hw, fused):
        return logits_area_px(logits_hw, size_hw, fused=bool(fused))
    return int(_full_mask(logits_hw, size_hw).sum())


def _is_direct(size_hw: tuple[int, int], fused: bool | None) -> bool:
    from autolabel.ops.rle import SMALLEST_H_PLUS_W

    return fused is not None and sum(size_hw) >= SMALLEST_H_PLUS_W


def _full_mask(logits_hw: Float32, size_hw: tuple[int, int]) -> np.ndarray:
    import torch
    from torch.nn import functional

    logits_11hw = torch.from_numpy(logits_hw)[None, None]
    full = functional.interpolate(logits_11hw, size_hw, mode="bilinear", align_corners=False)
    mask: np.ndarray = (full[0, 0] > 0).numpy()
    return mask


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
