"""SAM 1, SAM 2 and SAM 2.1 of transformers as a Segmenter: the same questions and settings as `segment=sam2_*`.

SAM 2 sees the picture as sam2 shows it; SAM 1 sees it in the corner of a square, and its masks come back through
the same two interpolations as in the library's `post_process_masks`.

Letters in shapes: N prompts, P points, M masks of one prompt, R the model's side, H and W the picture; a valid part
of (V, U) px of the R x R square holds the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autolabel.core.types import UInt8
from autolabel.ops.device import without_autocast
from autolabel.ops.settings import text
from autolabel.segment.answers import Canvas, Decoded
from autolabel.segment.asking import read_asking
from autolabel.segment.inputs import Inputs, to_model_xy
from autolabel.segment.sam import SamSegmenter, to_model_image
from autolabel.weights.hub import hosted

CLASSES: Mapping[str, str] = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
_SURELY_OUTSIDE = -10.0
_IS_THERE = 10.0  # the object logit of a model that does not ask; sam2's constant


Levels = list[Any]
"""Levels of features of one picture, finest first; the last is the embedding."""


class SamHfSegmenter(SamSegmenter[Levels]):
    """`weights` is a folder with config.json and .safetensors, or a name in the Hugging Face cache. The other settings
    are those of Sam2Segmenter. SAM 1 has no object score; its `refine_steps` start from masks that went to the model's
    input size and back, which the original's do not."""

    def __init__(
        self,
        *,
        weights: str,
        device: str,
        precision: str,
        prompt_chunk: int,
        encode_batch: int,
        masks: str,
        refine_steps: int,
        refine_with: str,
    ) -> None:
        text("weights", weights, "a folder or a name")
        super().__init__(
            read_asking(
                device=device,
                precision=precision,
                prompt_chunk=prompt_chunk,
                encode_batch=encode_batch,
                masks=masks,
                refine_steps=refine_steps,
                refine_with=refine_with,
                chunk_on_cuda=64,
            )
        )
        self._hosted = loaded = hosted(weights, classes=CLASSES)
        self._network = loaded.model.to(self._device)
        # As sam2_decoder.py: bfloat16 moves a place by up to a pixel of 1024.
        for codes_places in (self._network.prompt_encoder, self._network.shared_image_embedding):
            keep_types(codes_places, self._device.type)
        self._padded = loaded.model.config.model_type == "sam"
        self._scores_objects = not self._padded
        side = int(loaded.model.config.prompt_encoder_config.image_size)
        mask_side = 4 * side // int(loaded.model.config.prompt_encoder_config.patch_size)
        self._side, self._mask_input_hw = side, (mask_side, mask_side)
        self._identity = {**loaded.identity, "device": self._device.type, "precision": self._precision}

    def _encode(self, images_rgb: Sequence[UInt8]) -> list[Levels]:
        import torch

        def run(start: int, stop: int) -> list[Levels]:
            with self._computing():
                batch = torch.stack([self._input(image) for image in images_rgb[start:stop]])
                found = self._network.get_image_embeddings(batch)
                levels = [found] if self._padded else found  # SAM 1 has one
                return [[level[i : i + 1] for level in levels] for i in range(len(batch))]

        return self._images_at_once.run(len(images_rgb), run)

    def _input(self, image_rgb: UInt8) -> Any:
        if not self._padded:
            return to_model_image(image_rgb, self._side, self._device)
        return self._hosted.seen(image_rgb)["pixel_values"][0].to(self._device)

    def _decode(self, levels: Levels, asked: Inputs, mask_input: Any, canvas: Canvas, three: bool) -> Decoded:
        """`mask_input` (N, h, w) covers the picture, whatever its size is."""
        import torch

        masks = None if mask_input is None else self._mask_input(self._tensor(mask_input).float(), canvas)
        # transformers embeds a mask once an image, so with masks each prompt has an image of its own.
        n = 1 if masks is None else len(asked)
        prompts = self._prompt_tensors(asked, canvas, n)
        levels = [level.expand(n, -1, -1, -1) for level in levels]
        if not prompts and not self._padded:
            return self._of_masks_alone(levels, masks, three)
        answer = self._network(
            image_embeddings=levels[0] if self._padded else levels,
            input_masks=masks,
            multimask_output=three,
            **prompts,
        )
        logits, iou = answer.pred_masks.float().flatten(0, 1), answer.iou_scores.flatten(0, 1)
        if self._padded:
            return Decoded(self._valid(logits, canvas), iou, torch.full_like(iou[:, :1], _IS_THERE))
        return Decoded(logits, iou, answer.object_score_logits.reshape(-1, 1))

    def _of_masks_alone(self, levels: list[Any], masks: Any, three: bool) -> Decoded:
        """transformers adds an empty click to a mask alone, which sam2's predictor does not; so does this not."""
        network = self._network
        _, dense = network.prompt_encoder(None, None, None, masks)
        logits, iou, _, object_logit = network.mask_decoder(
            image_embeddings=levels[-1],
            image_positional_embeddings=network.get_image_wide_positional_embeddings().expand(
                len(masks), -1, -1, -1
            ),
            sparse_prompt_embeddings=dense.new_zeros(len(masks), 1, 0, dense.shape[1]),
            dense_prompt_embeddings=dense,
            multimask_output=three,
            high_resolution_features=levels[:-1],
        )
        return Decoded(logits.float().flatten(0, 1), iou.flatten(0, 1), object_logit.reshape(-1, 1))

    def _prompt_tensors(self, asked: Inputs, canvas: Canvas, n: int) -> dict[str, Any]:
        """Boxes (n, N/n, 4), points (n, N/n, P, 2) and their labels, as far as there are any."""
        if asked.xy is None or asked.labels is None:
            return {}
        xy = asked.xy * self._scale(canvas) if self._padded else to_model_xy(asked.xy, canvas.size_hw, self._side)
        boxed = 2 if asked.labels.shape[1] > 1 and asked.labels[0, 0] == 2 else 0
        corners, points, labels = xy[:, :boxed], xy[:, boxed:], asked.labels[:, boxed:]
        found = {}
        if boxed:
            found["input_boxes"] = self._tensor(corners.reshape(n, -1, 4).astype(np.float32))
        if points.shape[1]:
            found["input_points"] = self._tensor(points.reshape(n, -1, *points.shape[1:]).astype(np.float32))
            found["input_labels"] = self._tensor(labels.reshape(n, -1, labels.shape[1]))
        return found

    def _mask_input(self, masks_Nhw: Any, canvas: Canvas) -> Any:  # noqa: N803 - shape suffix
        """(N, 1, h, w), where the picture's part of the square holds the masks."""
        from torch.nn import functional

        (h, w), masks = self._mask_input_hw, masks_Nhw[:, None]
        if not self._padded:
            return masks
        side = self._side
        v, u = (max(round(x * h / side), 1) for x in self._valid_size(canvas))
        inside = functional.interpolate(masks, (v, u), mode="bilinear", align_corners=False, antialias=True)
        return functional.pad(inside, (0, w - u, 0, h - v), value=_SURELY_OUTSIDE)

    def _valid(self, logits: Any, canvas: Canvas) -> Any:
        """The picture's part (N, M, V, U) of logits of the square, at the model's input size."""
        from torch.nn import functional

        side = self._side
        v, u = self._valid_size(canvas)
        return functional.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[..., :v, :u]

    def _valid_size(self, canvas: Canvas) -> tuple[int, int]:
        """segment_anything/utils/transforms.py, get_preprocess_shape."""
        h, w = canvas.size_hw
        scale = self._side / max(h, w)
        return int(h * scale + 0.5), int(w * scale + 0.5)

    def _scale(self, canvas: Canvas) -> np.ndarray:
        (h, w), (v, u) = canvas.size_hw, self._valid_size(canvas)
        return np.array([u / w, v / h])


def keep_types(module: Any, device_kind: str) -> None:
    """From now on autocast does not reach into `module`."""
    forward = module.forward

    def alone(*inputs: Any, **named: Any) -> Any:
        with without_autocast(device_kind):
            return forward(*inputs, **named)

    module.forward = alone
