"""The nano SAM 2 as the trainer and the evaluation see it: build, encode, decode, save, load.

Built by the library, computed as the product computes: the same numbers and gradients in three quarters of the time.

Letters: B images, N prompts (of all images together), T points of one prompt, h and w the mask logits
(a quarter of the input).
"""

# ruff: noqa: N803, N815  (shape suffixes)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autolabel.ops.device import without_autocast
from autolabel.segment.sam2 import hydra_left_alone
from autolabel.segment.sam2_decoder import ImageSide, MaskDecoder
from autolabel.segment.sam2_encoder import ImageEncoder

PROJECT = Path(__file__).resolve().parents[2]
ARCHITECTURE = PROJECT / "configs" / "segment" / "sam2_arch" / "nano.yaml"
WEIGHTS = PROJECT / "autolabel" / "weights" / "nano" / "segmenter.safetensors"

# As SAM2ImagePredictor normalises.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)

# Labels of the points of a prompt, as sam2 numbers them.
NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = 0, 1, 2, 3


class Decoded(NamedTuple):
    logits_N4hw: Tensor  # mask token 0, then the three for ambiguous prompts
    ious_N4: Tensor
    object_logits_N: Tensor


class Encoded(NamedTuple):
    """Pictures as prompts ask of them, as often as they like: made once a step."""

    decoder: MaskDecoder
    images: ImageSide
    embedding_BChw: Tensor


def build_segmenter(image_size: int | None = None) -> nn.Module:
    """The model of nano.yaml; another input size has the same weights."""
    config = OmegaConf.load(ARCHITECTURE)
    if image_size is not None:
        config.model.image_size = image_size
    # The three options of build_sam2(apply_postprocessing=True).
    config.model.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    with hydra_left_alone():
        return instantiate(config.model, _recursive_=True)


def normalize(images_rgb: NDArray[np.uint8], device: str = "cpu") -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float."""
    images = torch.from_numpy(images_rgb).to(device).permute(0, 3, 1, 2).float().div_(255)
    mean = torch.tensor(MEAN_RGB, device=device).view(1, 3, 1, 1)
    std = torch.tensor(STD_RGB, device=device).view(1, 3, 1, 1)
    return images.sub_(mean).div_(std).contiguous()


def stretch(image_rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    shrinks = image_rgb.shape[0] > size or image_rgb.shape[1] > size
    return cv2.resize(image_rgb, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def encode(model: Any, images_B3SS: Tensor) -> Encoded:
    """What follows from the weights is made anew each time: they are being trained."""
    embedding, fine = ImageEncoder(model)(images_B3SS)
    return as_encoded(model, [*fine, embedding])


def as_encoded(model: Any, features: list[Tensor]) -> Encoded:
    """Of features (B, C, h, w) at strides 4, 8 and 16."""
    *fine, embedding = features
    with without_autocast(embedding.device.type):
        decoder = MaskDecoder(model)  # it makes the codes of all places
    return Encoded(decoder, decoder.image_side(embedding, (fine[0], fine[1])), embedding)


def decode(
    encoded: Encoded,
    image_of_prompt_N: Tensor,
    points_NT2: Tensor,
    labels_NT: Tensor,
    mask_input_N1hw: Tensor | None = None,
) -> Decoded:
    """All four masks of every prompt; points in pixels of the model's input."""
    decoder, images, embedding = encoded
    sparse, dense = decoder.embed((points_NT2, labels_NT), mask_input_N1hw)
    if mask_input_N1hw is None:
        found = decoder(images, image_of_prompt_N, sparse)
    else:
        # Then each prompt has an image side of its own.
        own = decoder.with_masks(images.of(image_of_prompt_N), embedding[image_of_prompt_N], dense)
        found = decoder(own, None, sparse)
    return Decoded(found.logits.float(), found.iou.float(), found.object_logit.float()[:, 0])


def answers_to_boxes(model: Any, encoded: Encoded, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, h, w) and predicted IoU (N,) of boxes on one image, in pixels of the model's input."""
    n, device = len(boxes_N4), boxes_N4.device
    labels = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]] * n, device=device)
    first = torch.zeros(n, dtype=torch.long, device=device)
    return single_mask(model, decode(encoded, first, boxes_N4.reshape(n, 2, 2), labels))


def single_mask(model: Any, decoded: Decoded) -> tuple[Tensor, Tensor]:
    """What multimask_output=False returns: token 0, or the best of the others where 0 is unstable."""
    logits, ious = model.sam_mask_decoder._dynamic_multimask_via_stability(decoded.logits_N4hw, decoded.ious_N4)
    return logits[:, 0], ious[:, 0]


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """fp16, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    save_file({name: value.detach().cpu().half().contiguous() for name, value in state.items()}, unfinished)
    unfinished.chmod(0o644)
    unfinished.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=True)
