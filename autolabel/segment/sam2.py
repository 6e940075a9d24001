"""SAM 2 as a Segmenter. The only file that imports sam2.

Forward passes without predictor state; the numbers are those of `SAM2ImagePredictor.predict` in float32, asked
with the same prompts in the same steps, and so are the masks, but for those of small boxes where a box prior is set.
Refuses to judge masks: every finite answer is returned, an empty one too, unless a sieve was asked for.

Letters in shapes: B images of one encoder call, N prompts, P points, M masks of one prompt, R the model's image
side, h and w the low-resolution mask (a quarter of R), H and W the picture.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from autolabel.core.configs import HYDRA_TURN, configs_dir
from autolabel.core.errors import SettingError, WeightsError
from autolabel.core.protocols import Later
from autolabel.core.types import Frame, PromptedMask, Prompts, UInt8
from autolabel.ops.box_prior import read_box_prior
from autolabel.ops.settings import one_of, optional, text
from autolabel.segment.answers import Canvas, Decoded
from autolabel.segment.asking import read_asking
from autolabel.segment.compiling import MODES, bucket_of, check_compiler, compiled, num_buckets, padded
from autolabel.segment.inputs import Inputs, to_model_xy
from autolabel.segment.linear import WAYS, choose_linear
from autolabel.segment.sam import SamSegmenter, to_model_image
from autolabel.segment.sam2_buckets import CHOICES, BucketSegmenter
from autolabel.segment.sam2_decoder import ImageSide, MaskDecoder
from autolabel.segment.sam2_encoder import ImageEncoder
from autolabel.weights.load import load_strictly, seed_of, seeded

logger = logging.getLogger(__name__)

# sam2/build_sam.py, apply_postprocessing: an unstable mask gives way to the best of the other three.
_DECODER_DEFAULTS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
# Makes the masks of random weights about as large and as clear as those of trained ones.
_RANDOM_HEAD_GAIN = 300.0
_BATCHING = ("auto", "image", "bucket")

SHIPPED_BOX_PRIOR = Path(str(files("autolabel.segment"))) / "box_prior.json"


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What is kept of one image: `embedding` (1, C, R/16, R/16), `high_res` of strides 4 and 8, and once prompts are
    there, `side`, what of the decoding is the same for all of them."""

    embedding: Any
    high_res: list[Any]
    side: ImageSide | None = None


class Sam2Segmenter(SamSegmenter[Features]):
    """SAM 2 and SAM 2.1 of any size, the shipped nano model, or a fine-tuned checkpoint with its own YAML.

    `weights` is a name or path for `autolabel.weights.resolve`, or `random:SEED`. `architecture` is `nano`, one
    of sam2's own (`sam2.1/sam2.1_hiera_t.yaml`), or the path of a YAML. `prompt_chunk` prompts go through the
    decoder at once and `encode_batch` images through the encoder; 0 chooses by device.

    `masks` is `single` (one mask a prompt) or how one of three is chosen: by predicted IoU, by the IoU of its tight
    box with the prompt's box (predicted IoU where there is none), by its stability. Then the answer's logits are
    asked with again, `refine_steps` times, for one mask: beside the `prompt`, alone (`mask`), or beside the prompt
    and one more `point` most inside of the last answer.

    `batching` is `image`, one picture's prompts after the other's, or `bucket`, those of many pictures together
    (`sam2_buckets.py`; in a few fixed sizes where they are compiled), as far as they are boxes and points without
    refine steps. `auto`: buckets on a GPU, and where they are compiled. `compile_mode` is one of torch.compile's modes,
    `none`, or `auto`, which is `none` (`label` replaces it by either): for buckets the whole network is compiled, else
    the image encoder. `linear` says which library computes the linear layers of float32 on a CPU: `torch`, `onednn`, or
    `auto`, the faster one by processor.

    `box_prior` is null, `nano`, or the path of a file of `scripts/fit_box_prior.py`: what a small box itself says about
    its mask, fitted to the logits of one model (`ops/box_prior.py`). `nano` is for the weights that it was fitted to,
    the shipped ones; others are asked without. Scores and stability are the network's, of its mask without the prior.
    """

    _buckets: BucketSegmenter | None = None

    def __init__(
        self,
        *,
        weights: str,
        architecture: str,
        device: str,
        precision: str,
        prompt_chunk: int,
        encode_batch: int,
        masks: str = "single",
        refine_steps: int = 0,
        refine_with: str = "prompt",
        batching: str = "auto",
        compile_mode: str = "auto",
        linear: str = "torch",
        box_prior: str | None = None,
    ) -> None:
        text("weights", weights, "a name, a path or random:SEED")
        text("architecture", architecture, "nano, a name or a path")
        optional(text, "box_prior", box_prior, "nano or a path")
        one_of("linear", linear, WAYS)
        super().__init__(
            read_asking(
                device=device,
                precision=precision,
                prompt_chunk=prompt_chunk,
                encode_batch=encode_batch,
                masks=masks,
                refine_steps=refine_steps,
                refine_with=refine_with,
                chunk_on_cuda=128,
            )
        )
        if one_of("compile_mode", compile_mode, ("auto", *MODES)) == "auto":
            compile_mode = "none"  # `label` decides for a run; a network does not know how many pictures there are
        self._compiles = compile_mode != "none"
        check_compiler(compile_mode, self._device.type)
        batching = chosen_batching(
            batching,
            masks=self._masks,
            refine_steps=self._refine_steps,
            pays=self._compiles or self._device.type == "cuda",
        )
        described = read_architecture(architecture)
        model, digest = load_model(described, weights)
        self._model = model.to(self._device).eval().requires_grad_(False)
        library = choose_linear(self._model, linear, device_kind=self._device.type, precision=self._precision)
        encoder = ImageEncoder(self._model)
        if self._precision == "bfloat16":
            encoder.hold_bfloat16()
        self._encoder: Callable[[Any], tuple[Any, tuple[Any, ...]]] = compiled(
            encoder, compile_mode, shapes=num_buckets(self._images_at_once.size), device_kind=self._device.type
        )
        self._scores_objects = bool(self._model.pred_obj_scores)
        self._mask_input_hw = self._model.sam_prompt_encoder.mask_input_size
        self._decoder = MaskDecoder(self._model)
        if not prompt_chunk and self._device.type == "cpu":
            at_once = self._prompts_at_once
            at_once.size = min(at_once.size, self._decoder.prompts_at_once)
        self._identity = {
            "weights": digest,
            "architecture": hashlib.sha256(described.encode()).hexdigest(),
            "device": self._device.type,
            "precision": self._precision,
            "batching": batching,
            "torch": version("torch"),
            "sam2": version("sam2"),
            "box_prior": "",  # without one, whatever the setting says
        }
        if box_prior is not None:
            prior, sha256 = read_box_prior(box_prior_path(box_prior))
            if box_prior == "nano" and prior.about.get("weights") != digest:
                logger.info("no box prior: that of the package was fitted to other weights than %s", weights)
            else:
                self._prior, self._identity["box_prior"] = prior, sha256
        if library != "torch":  # which every run of before knows without a word
            self._identity["linear"] = library
        if batching == "bucket":
            self._buckets = self._in_buckets(compile_mode)

    def _in_buckets(self, compile_mode: str) -> BucketSegmenter:
        side, device = self._model.image_size, self._device
        return BucketSegmenter(
            self._model,
            to_input=lambda image_rgb: to_model_image(image_rgb, side, device),
            encode=self._encoder,
            within=self._computing,
            images=self._images_at_once,
            prompts=self._prompts_at_once,
            choice=self._masks,
            compile_mode=compile_mode,
            fused=self._fused,
            prior=self._prior,
        )

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]:
        return self.begin(frames, prompts)()

    def begin(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> Later:
        """Begin as every SAM does; what fits into buckets is computed there, and may be asked for later."""
        fits = [self._buckets is not None and len(one) > 0 and fits_buckets(one) for one in prompts]
        pairs = list(zip(frames, prompts, fits, strict=True))
        apart = super().segment([f for f, _, fit in pairs if not fit], [p for _, p, fit in pairs if not fit])
        if self._buckets is None:
            return lambda: apart
        begun = self._buckets.begin([f for f, _, fit in pairs if fit], [p for _, p, fit in pairs if fit])

        def later() -> list[list[PromptedMask]]:
            together, others = iter(begun()), iter(apart)
            return [next(together if fit else others) for fit in fits]

        return later

    def _encode(self, images_rgb: Sequence[UInt8]) -> list[Features]:
        import torch

        def run(start: int, stop: int) -> list[Features]:
            with self._computing():
                side = self._model.image_size
                batch = torch.stack(
                    [to_model_image(image, side, self._device) for image in images_rgb[start:stop]]
                )
                size = bucket_of(len(batch), self._images_at_once.size) if self._compiles else len(batch)
                return encode(self._encoder, padded(batch, size))[: len(batch)]

        return self._images_at_once.run(len(images_rgb), run)

    def _prepared(self, features: Features, groups: Sequence[Inputs]) -> Features:
        with self._computing():
            stride_4, stride_8 = features.high_res
            return replace(features, side=self._decoder.image_side(features.embedding, (stride_4, stride_8)))

    def _decode(self, features: Features, asked: Inputs, mask_input: Any, canvas: Canvas, three: bool) -> Decoded:
        assert features.side is not None, "prompts are asked of what `_prepared` gave"
        points = masks = None
        if asked.xy is not None and asked.labels is not None:
            xy = to_model_xy(asked.xy, canvas.size_hw, self._model.image_size)
            points = self._tensor(xy), self._tensor(asked.labels)
        if mask_input is not None:
            masks = self._tensor(mask_input)[:, None].float()
        sparse, dense = self._decoder.embed(points, masks)
        side = features.side
        if masks is not None:
            side = self._decoder.with_masks(side, features.embedding, dense)
        return self._decoder.answer(self._decoder(side, None, sparse), three)


def box_prior_path(box_prior: str) -> Path:
    """That of the package for `nano`, else the path itself."""
    return SHIPPED_BOX_PRIOR if box_prior == "nano" else Path(box_prior).expanduser()


def chosen_batching(batching: str, *, masks: str, refine_steps: int, pays: bool) -> str:
    """`image` or `bucket`, whichever it will be; ConfigError for words that there are not. `pays` is whether buckets
    are faster here. Refine steps and choices by the prompt's box leave nothing to them."""
    if one_of("batching", batching, _BATCHING) == "auto":
        batching = "bucket" if pays else "image"
    return "image" if refine_steps or masks not in CHOICES else batching


def fits_buckets(prompts: Prompts) -> bool:
    """Whether all prompts of a picture are boxes and points with one answer each."""
    masks = prompts.masks or ()
    return prompts.sieve is None and all(mask is None for mask in masks)


def encode(encoder: Callable[[Any], tuple[Any, tuple[Any, ...]]], images: Any) -> list[Features]:
    """Features of images (B, 3, R, R); what `SAM2ImagePredictor.set_image` keeps, one entry an image."""
    embedding, high_res = encoder(images)
    return [Features(embedding[i : i + 1], [level[i : i + 1] for level in high_res]) for i in range(len(images))]


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
    raise SettingError(
        f"architecture {architecture!r} is not a file; sam2 has nano, "
        + ", ".join(name for name in names if "training" not in name)
    )


def load_model(architecture_yaml: str, weights: str) -> tuple[Any, str]:
    """The SAM2Base that the YAML describes with its weights, on the CPU, and the weights' sha256.

    `random:SEED` gives random weights, which do not depend on and do not move the global generator.
    """
    seed = seed_of(weights)
    if seed is not None:
        return _random_model(architecture_yaml, seed), weights
    from autolabel.weights import resolve

    resolved = resolve(weights)
    model = _build(architecture_yaml)
    load_strictly(model, read_state(resolved.path), resolved.path)
    return model, resolved.sha256


def _random_model(architecture_yaml: str, seed: int) -> Any:
    import torch

    with seeded(seed), torch.no_grad():
        model = _build(architecture_yaml)
        for network in model.sam_mask_decoder.output_hypernetworks_mlps:
            network.layers[-1].weight.mul_(_RANDOM_HEAD_GAIN)
    return model


def _build(architecture_yaml: str) -> Any:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.create(architecture_yaml)
    if "model" not in config:
        raise SettingError("architecture has no `model:` section; give the YAML that builds the model")
    extra = config.model.get("sam_mask_decoder_extra_args") or {}
    OmegaConf.update(config, "model.sam_mask_decoder_extra_args", {**_DECODER_DEFAULTS, **extra}, force_add=True)
    OmegaConf.resolve(config)
    with hydra_left_alone():
        # The YAML names classes of sam2, so this is also where sam2 is imported.
        return instantiate(config.model, _recursive_=True)


@contextmanager
def hydra_left_alone() -> Iterator[None]:
    """Keep `import sam2` from initialising Hydra for the whole process; leave Hydra's state as it was."""
    from hydra.core.global_hydra import GlobalHydra

    with HYDRA_TURN:
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

    with hydra_left_alone():
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
