"""SAM 2's mask decoder over prompts of many images at once: what does not depend on the prompt is computed once
an image. Only arithmetic on modules that are handed in: it builds, loads and imports no model.

The library's own decoder (sam2/modeling/sam/mask_decoder.py) repeats the image for each prompt first and then
projects it, in the first layer three times over; 22 % of its work is the same for all prompts of an image. The
numbers are those of the library: to the bit for one prompt, to the last digits of float32 for several, because a
matrix product of another shape adds in another order.

Letters in shapes: I images, N prompts, T tokens of a prompt, C channels, K = h * w places of the embedding.
"""

# ruff: noqa: N803  (shape suffixes)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autolabel.segment import answers


@dataclass(frozen=True, slots=True, eq=False)
class ImageSide:
    """Of I images, before any prompt: `keys` (I, K, C), and the first layer's projections of them, (I, K, C/2).

    `high_res` are the features of strides 4 and 8. Where prompts bring a mask, every prompt is its own image.
    """

    keys: Any
    attended_keys: Any  # token to image
    attended_values: Any
    asking: Any  # image to token
    high_res: tuple[Any, Any]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Logits of all four masks (N, 4, 4h, 4w), their predicted IoU (N, 4) and the object logit (N, 1); mask 0 is
    the one of a single answer, 1 to 3 are the three-mask choice."""

    logits: Any
    iou: Any
    object_logit: Any


class MaskDecoder:
    """The decoder of a SAM2Base (`model`), whose weights it shares. Prompts without a mask ask of `image_side(...)`
    as it is; prompts with masks of `image_side(..., dense=)`."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.sam_mask_decoder
        if not (self._decoder.use_high_res_features and len(self._decoder.transformer.layers) == 2):
            raise ValueError("only the decoder of SAM 2: two layers, high-resolution features")
        self._prompt_encoder = model.sam_prompt_encoder
        dense_pe = model.sam_prompt_encoder.get_dense_pe()
        self._pe_1KC = dense_pe.flatten(2).transpose(1, 2).contiguous()
        self._tokens_TC = self._output_tokens()

    def image_side(self, embedding: Any, high_res: tuple[Any, Any], dense: Any | None = None) -> ImageSide:
        """Of `embedding` (I, C, h, w); `dense` (I, C, h, w) is the masks' embedding, else that of no mask."""
        if dense is None:
            dense = self._prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        keys = (embedding + dense).flatten(2).transpose(1, 2).contiguous()
        placed = keys + self._pe_1KC
        first = self._decoder.transformer.layers[0]
        token_to_image, image_to_token = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        return ImageSide(
            keys,
            token_to_image.k_proj(placed),
            token_to_image.v_proj(keys),
            image_to_token.q_proj(placed),
            high_res,
        )

    def __call__(self, images: ImageSide, image_of_prompt_N: Any | None, sparse_NPC: Any) -> Decoded:
        """`image_of_prompt_N` holds rows of `images`; None when prompt i asks of image i, or all ask of the only
        one."""
        import torch

        tokens = torch.cat([self._tokens_TC.expand(len(sparse_NPC), -1, -1), sparse_NPC], dim=1)
        queries, keys = self._transform(images, image_of_prompt_N, tokens)
        scored = 1 if self._decoder.pred_obj_scores else 0
        masks = queries[:, scored + 1 : scored + 1 + self._decoder.num_mask_tokens]
        iou = self._decoder.iou_prediction_head(queries[:, scored])
        if scored:
            object_logit = self._decoder.pred_obj_score_head(queries[:, 0])
        else:  # the library's constant: an object is there
            object_logit = iou.new_full((len(iou), 1), 10.0)
        logits = self._masks(masks, self._upscaled(images, image_of_prompt_N, keys))
        return Decoded(logits, iou, object_logit)

    def answer(self, four: Decoded, three: bool) -> answers.Decoded:
        """The `three` masks of a prompt, or the one that the library chooses: mask 0, or where that is unstable the best
        of the other three."""
        if three:
            logits, iou = four.logits[:, 1:], four.iou[:, 1:]
        elif self._decoder.dynamic_multimask_via_stability:
            logits, iou = self._decoder._dynamic_multimask_via_stability(four.logits, four.iou)
        else:
            logits, iou = four.logits[:, :1], four.iou[:, :1]
        return answers.Decoded(logits.float(), iou, four.object_logit)

    def _output_tokens(self) -> Any:
        import torch

        decoder = self._decoder
        own = [decoder.obj_score_token.weight] if decoder.pred_obj_scores else []
        return torch.cat([*own, decoder.iou_token.weight, decoder.mask_tokens.weight])[None]

    def _transform(self, images: ImageSide, index: Any | None, tokens: Any) -> tuple[Any, Any]:
        """The two-way transformer: tokens (N, T, C) and keys (N, K, C) after it."""
        transformer = self._decoder.transformer
        first, second = transformer.layers
        queries = first.norm1(first.self_attn(q=tokens, k=tokens, v=tokens))
        queries = first.norm2(
            queries + _ask_images(first.cross_attn_token_to_image, queries + tokens, images, index)
        )
        queries = first.norm3(queries + first.mlp(queries))
        attention = first.cross_attn_image_to_token
        seen = _attend(
            attention,
            _rows(images.asking, index, len(tokens)),
            attention.k_proj(queries + tokens),
            attention.v_proj(queries),
        )
        keys = first.norm4(_rows(images.keys, index, len(tokens)) + seen)
        queries, keys = second(queries=queries, keys=keys, query_pe=tokens, key_pe=self._pe_1KC)
        final = transformer.final_attn_token_to_image(q=queries + tokens, k=keys + self._pe_1KC, v=keys)
        return transformer.norm_final_attn(queries + final), keys

    def _upscaled(self, images: ImageSide, index: Any | None, keys: Any) -> Any:
        """Features (N, C/8, 4h, 4w) that the mask tokens are compared with."""
        up_to_8, norm, activation, up_to_4, last_activation = self._decoder.output_upscaling
        stride_4, stride_8 = images.high_res
        h, w = (side // 2 for side in stride_8.shape[-2:])
        source = keys.transpose(1, 2).reshape(len(keys), -1, h, w)
        upscaled = activation(norm(up_to_8(source) + _rows(stride_8, index, len(keys))))
        return last_activation(up_to_4(upscaled) + _rows(stride_4, index, len(keys)))

    def _masks(self, tokens_NMC: Any, upscaled: Any) -> Any:
        import torch

        perceptrons = self._decoder.output_hypernetworks_mlps
        weights = torch.stack([mlp(tokens_NMC[:, i]) for i, mlp in enumerate(perceptrons)], dim=1)
        n, _, h, w = upscaled.shape
        return (weights @ upscaled.flatten(2)).view(n, -1, h, w)


def _rows(values: Any, index: Any | None, n: int) -> Any:
    """One row a prompt; a view where there is one image, or one image a prompt."""
    if index is not None:
        return values[index]
    return values if len(values) == n else values.expand(n, *values.shape[1:])


def _ask_images(attention: Any, tokens_NTC: Any, images: ImageSide, index: Any | None) -> Any:
    """First layer, token to image. All tokens of one image's prompts are queries of one attention."""
    n, t, _ = tokens_NTC.shape
    asking = attention.q_proj(tokens_NTC)
    if index is None and len(images) == 1:
        seen = _attend(attention, asking.reshape(1, n * t, -1), images.attended_keys, images.attended_values)
        return seen.view(n, t, -1)
    keys, values = (_rows(side, index, n) for side in (images.attended_keys, images.attended_values))
    return _attend(attention, asking, keys, values)


def _attend(attention: Any, queries: Any, keys: Any, values: Any) -> Any:
    """`attention` (a sam2 Attention) on queries, keys and values that are projected already."""
    from torch.nn import functional

    split = (attention._separate_heads(x, attention.num_heads) for x in (queries, keys, values))
    seen = functional.scaled_dot_product_attention(*split)
    return attention.out_proj(attention._recombine_heads(seen))
