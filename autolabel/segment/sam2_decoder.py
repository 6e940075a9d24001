"""SAM 2's mask decoder over prompts of one image or many, with the work that has no effect on its numbers left out.
Only arithmetic on modules that are handed in: it builds, loads and imports no model.

The library's own decoder (sam2/modeling/sam/mask_decoder.py) repeats the image for each prompt and projects all of its
K places for every attention. A prompt has nine or so tokens, so here the projections go to the tokens' side:
q . (W x) is (W^T q) . x, and the sum of p_k (W x_k) is W applied to the sum of p_k x_k. The places themselves, for
the first layer those of the image, shared by its prompts, are then all that an attention reads. Masks are drawn on
places in nested squares (2 x 2, and again), in which an upscaling by a transposed convolution is a matrix product,
and put into the order of an image at the end. The numbers are those of the library to the last digits of float32.

Under autocast the products over places are in its type, and nothing else is: the code of a prompt, the tokens, which
are few, scores before their softmax, and the maps stay float32. With everything in bfloat16 the logits were three
times as far from float32's, and three times as many prompts got another one of the four masks.

Twice as fast as the library for a box, a fifth faster for 20 points, slower for 40 (SAM 2.1 tiny on a CPU).

Letters in shapes: I images, N prompts, T tokens of a prompt, C channels, K = h * w places of the embedding, G heads.
"""

# ruff: noqa: N803  (shape suffixes)

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autolabel.ops.device import type_of_products, without_autocast
from autolabel.segment import answers
from autolabel.segment.in_place import activated, added

_AT_ONCE_BYTES = 16 << 20
"""Most bytes of the largest array on a CPU; for more malloc takes new pages each time. Ten boxes of SAM 2.1 tiny in
bfloat16 (AMX): 0.27 CPU s two by two, 0.34 in threes, 0.36 in fours."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSide:
    """The decoder's side of I images, before any prompt: `keys` (I, K, C), and `placed`, the same with the code of
    their places, in the type in which products read it.

    `stride_8` (I, K, C) and `stride_4` (I, 4K, C/2) are what masks are drawn with, in nested squares. Prompts that
    bring a mask have keys of their own, (N, K, C).
    """

    keys: Any
    placed: Any
    stride_8: Any
    stride_4: Any
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, image_of_prompt_N: Any | None) -> ImageSide:
        """A row a prompt; as it is when prompt i asks of image i, or all of the only one."""
        if image_of_prompt_N is None:
            return self
        index = image_of_prompt_N
        return ImageSide(
            self.keys[index], self.placed[index], self.stride_8[index], self.stride_4[index], self.size_hw
        )


@dataclass(frozen=True, slots=True, eq=False)
class FourMasks:
    """Logits of all four masks (N, 4, 4h, 4w), their predicted IoU (N, 4) and the object logit (N, 1), all float32;
    mask 0 is the one of a single answer, 1 to 3 are the three-mask choice."""

    logits: Any
    iou: Any
    object_logit: Any


class MaskDecoder:
    """The decoder of a SAM2Base (`model`), whose weights it shares. Prompts ask of `image_side(...)`, those with a
    mask of what `with_masks` makes of it."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.sam_mask_decoder
        if not (self._decoder.use_high_res_features and len(self._decoder.transformer.layers) == 2):
            raise ValueError("only the decoder of SAM 2: two layers, high-resolution features")
        self._prompt_encoder = model.sam_prompt_encoder
        dense_pe = model.sam_prompt_encoder.get_dense_pe()
        self._pe_1KC = dense_pe.flatten(2).transpose(1, 2).contiguous()
        self._tokens_TC = self._output_tokens()
        up_to_8, _, _, up_to_4, _ = self._decoder.output_upscaling
        self._to_8, self._to_4 = _as_matrix(up_to_8), _as_matrix(up_to_4)

    @property
    def prompts_at_once(self) -> int:
        """Most on a CPU: more would leave memory that is there already. Small models are faster with fewer."""
        places, channels = self._pe_1KC.shape[1:]
        return max(_AT_ONCE_BYTES // (16 * places * channels // 8 * 4), 1)  # what `_upscaled` gives is the largest

    def embed(self, points: tuple[Any, Any] | None, masks_N1RR: Any | None) -> tuple[Any, Any]:
        """Tokens (N, P, C) of points, (N, P, 2) with labels (N, P), and the embedding of masks, or of none, (N, C,
        h, w).

        Float32 under autocast too: bfloat16 moves a place by up to a pixel of 1024, and the phases of its code by up to
        a sixteenth.
        """
        with without_autocast(self._pe_1KC.device.type):
            sparse, dense = self._prompt_encoder(points=points, boxes=None, masks=masks_N1RR)
        return sparse, dense

    def image_side(self, embedding: Any, high_res: tuple[Any, Any]) -> ImageSide:
        """The image side of `embedding` (I, C, h, w) and features of strides 4 and 8, for prompts without a mask."""
        up_to_8, _, _, up_to_4, _ = self._decoder.output_upscaling
        stride_4, stride_8 = high_res
        no_mask = self._prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        # What the transposed convolutions add to every place is added here, once.
        return ImageSide(
            *self._keys(embedding, no_mask),
            _nested(stride_8 + up_to_8.bias[:, None, None], 1),
            _nested(stride_4 + up_to_4.bias[:, None, None], 2),
            embedding.shape[-2:],
        )

    def with_masks(self, image: ImageSide, embedding: Any, dense_NChw: Any) -> ImageSide:
        """For prompts that each bring a mask to one `image` of `embedding` (1, C, h, w), or to N images, a row a
        prompt; `dense_NChw` embeds the masks."""
        keys, placed = self._keys(embedding, dense_NChw)
        return replace(image, keys=keys, placed=placed)

    def _keys(self, embedding: Any, dense: Any) -> tuple[Any, Any]:
        keys = (embedding + dense).flatten(2).transpose(1, 2).contiguous()
        return keys, (keys + self._pe_1KC).to(_type_of_scored(keys))

    def __call__(self, images: ImageSide, image_of_prompt_N: Any | None, sparse_NPC: Any) -> FourMasks:
        """`image_of_prompt_N` holds rows of `images`; None when prompt i asks of image i, or all ask of the only
        one."""
        import torch

        tokens = torch.cat([self._tokens_TC.expand(len(sparse_NPC), -1, -1), sparse_NPC], dim=1)
        images = images.of(image_of_prompt_N)
        dtype = type_of_products(tokens)
        with without_autocast(tokens.device.type):
            queries, keys = self._transform(images, tokens, dtype)
            return self._answered(queries, self._upscaled(images, keys, dtype), images.size_hw)

    def _answered(self, queries: Any, upscaled: Any, size_hw: tuple[int, int]) -> FourMasks:
        scored = 1 if self._decoder.pred_obj_scores else 0
        masks = queries[:, scored + 1 : scored + 1 + self._decoder.num_mask_tokens]
        iou = self._decoder.iou_prediction_head(queries[:, scored])
        if scored:
            object_logit = self._decoder.pred_obj_score_head(queries[:, 0])
        else:  # the library's constant: an object is there
            object_logit = iou.new_full((len(iou), 1), 10.0)
        return FourMasks(self._masks(masks, upscaled, size_hw), iou, object_logit)

    def answer(self, four: FourMasks, three: bool) -> answers.Decoded:
        """The `three` masks of a prompt, or the one that the library chooses: mask 0, or where that is unstable
        the best of the other three."""
        if three:
            logits, iou = four.logits[:, 1:], four.iou[:, 1:]
        elif self._decoder.dynamic_multimask_via_stability:
            logits, iou = self._decoder._dynamic_multimask_via_stability(four.logits, four.iou)
        else:
            logits, iou = four.logits[:, :1], four.iou[:, :1]
        return answers.Decoded(logits, iou, four.object_logit)

    def _output_tokens(self) -> Any:
        import torch

        decoder = self._decoder
        own = [decoder.obj_score_token.weight] if decoder.pred_obj_scores else []
        return torch.cat([*own, decoder.iou_token.weight, decoder.mask_tokens.weight])[None]

    def _transform(self, images: ImageSide, tokens: Any, dtype: Any) -> tuple[Any, Any]:
        """The two-way transformer: tokens (N, T, C) and keys (N, K, C) after it; products over places are in
        `dtype`."""
        transformer = self._decoder.transformer
        first, second = transformer.layers
        queries = first.norm1(first.self_attn(q=tokens, k=tokens, v=tokens))
        queries, keys = _exchange(first, queries, tokens, images.keys, images.placed, dtype)
        placed = (keys + self._pe_1KC).to(images.placed.dtype)
        asking = queries + tokens
        queries = second.norm1(queries + second.self_attn(q=asking, k=asking, v=queries))
        queries, keys = _exchange(second, queries, tokens, keys, placed, dtype)
        placed = (keys + self._pe_1KC).to(images.placed.dtype)
        seen = _see(transformer.final_attn_token_to_image, queries + tokens, keys, placed, dtype)
        return transformer.norm_final_attn(queries + seen), keys

    def _upscaled(self, images: ImageSide, keys: Any, dtype: Any) -> Any:
        """Features (N, 16K, C/8), float32, that the mask tokens are compared with, in nested squares."""
        from torch.nn import functional

        _, norm, activation, _, last_activation = self._decoder.output_upscaling
        n, channels = len(keys), len(norm.weight)
        values = added(keys.to(dtype) @ self._to_8.to(dtype), images.stride_8).view(n, -1, channels)
        # LayerNorm2d of sam2 is over the channels of each place.
        values = functional.layer_norm(values, (channels,), norm.weight, norm.bias, norm.eps)
        values = activated(activation, values).to(dtype) @ self._to_4.to(dtype)
        return activated(last_activation, added(values, images.stride_4).view(n, -1, channels // 2))

    def _masks(self, tokens_NMC: Any, upscaled: Any, size_hw: tuple[int, int]) -> Any:
        import torch

        perceptrons = self._decoder.output_hypernetworks_mlps
        weights = torch.stack([mlp(tokens_NMC[:, i]) for i, mlp in enumerate(perceptrons)], dim=1)
        h, w = size_hw
        squares = (weights @ upscaled.transpose(1, 2)).view(len(weights), -1, h, w, 2, 2, 2, 2)
        return squares.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*squares.shape[:2], 4 * h, 4 * w)


def _exchange(layer: Any, queries: Any, tokens: Any, keys: Any, placed: Any, dtype: Any) -> tuple[Any, Any]:
    """What follows the self-attention in a layer: tokens look at places, then places at tokens. `keys` and
    `placed` (1 or N, K, C)."""
    seen = _see(layer.cross_attn_token_to_image, queries + tokens, keys, placed, dtype)
    queries = layer.norm2(queries + seen)
    queries = layer.norm3(queries + layer.mlp(queries))
    seen = _show(layer.cross_attn_image_to_token, queries + tokens, queries, placed, dtype)
    return queries, layer.norm4(added(seen, keys))


def _see(attention: Any, asking: Any, keys: Any, placed: Any, dtype: Any) -> Any:
    """An Attention of sam2 from tokens (N, T, C) to places: q of `asking`, k of `placed`, v of `keys`."""
    g = attention.num_heads
    # The bias of k is the same for all places, so softmax does not see it.
    rows = _through(_heads(attention, attention.q_proj(asking), scaled=True), attention.k_proj.weight)
    shares = _scores(rows, placed.transpose(1, 2)).softmax(dim=-1)
    seen = _times(shares.to(dtype), keys.to(dtype)).float()
    through_v = attention.v_proj.weight.view(g, -1, keys.shape[-1]).transpose(1, 2)
    values = seen.unflatten(1, (g, -1)) @ through_v
    return attention.out_proj(attention._recombine_heads(values) + attention.v_proj.bias)


def _show(attention: Any, offering: Any, bringing: Any, placed: Any, dtype: Any) -> Any:
    """An Attention of sam2 from places to tokens (N, T, C): q of `placed`, k of `offering`, v of `bringing`. (N,
    K, C)."""
    g = attention.num_heads
    offered = _heads(attention, attention.k_proj(offering), scaled=True)
    rows = _through(offered, attention.q_proj.weight)
    bias = offered @ attention.q_proj.bias.view(g, -1, 1)
    scores = added(_scores(rows, placed.transpose(1, 2)), bias.flatten(1, 2))
    shares = scores.unflatten(1, (g, -1)).softmax(dim=2).flatten(1, 2)
    brought = _through(_heads(attention, attention.v_proj(bringing)), attention.out_proj.weight.T)
    # The shares of a head sum to 1, so each head brings its part of the bias.
    return shares.transpose(1, 2).to(dtype) @ (brought + attention.out_proj.bias / g).to(dtype)


def _heads(attention: Any, values: Any, *, scaled: bool = False) -> Any:
    """(N, T, G * c) to (N, G, T, c); `scaled` as scaled dot product attention does it."""
    apart = attention._separate_heads(values, attention.num_heads)
    return apart * apart.shape[-1] ** -0.5 if scaled else apart


def _through(values_NGTc: Any, weight: Any) -> Any:
    """Each head's rows through its part of a projection (G * c, C): (N, G * T, C)."""
    return (values_NGTc @ weight.view(values_NGTc.shape[1], -1, weight.shape[-1])).flatten(1, 2)


def _times(rows: Any, places: Any) -> Any:
    """(N, A, B) by (1 or N, B, D); all prompts' rows in one product where there is one image."""
    if len(places) == 1:
        return (rows.flatten(0, 1) @ places[0]).unflatten(0, rows.shape[:2])
    return rows @ places


def _scores(rows: Any, places: Any) -> Any:
    """`_times` of rows and of places in `_type_of_scored`, as float32: in bfloat16 a score of 20 is off by up to a
    sixteenth."""
    import torch

    if places.dtype == torch.float32:
        return _times(rows, places)
    rows = rows.to(places.dtype)
    if torch.is_grad_enabled():  # torch has no gradient of the products below
        return _times(rows, places).float()
    if len(places) == 1:
        scores = torch.mm(rows.flatten(0, 1), places[0], out_dtype=torch.float32)
        return scores.unflatten(0, rows.shape[:2])
    return torch.bmm(rows, places, out_dtype=torch.float32)


def _type_of_scored(values: Any) -> Any:
    """The same on CUDA, where a product of such factors can come out as float32; float32 on a CPU, where it cannot."""
    import torch

    return type_of_products(values) if values.device.type == "cuda" else torch.float32


def _as_matrix(up: Any) -> Any:
    """A transposed convolution of 2 x 2 without overlap (C, D, 2, 2) as a matrix (C, 4 * D): each place becomes a
    square."""
    return up.weight.permute(0, 2, 3, 1).flatten(1).contiguous()


def _nested(level: Any, times: int) -> Any:
    """(I, D, H, W) of which each place of the embedding is a square of 2 x 2 (`times` 1) or of 2 x 2 squares (2),
    as rows (I, K, 4 * D) or (I, 4K, 4 * D) in the order in which upscaling makes them."""
    i, d, h, w = level.shape
    if times == 1:
        return level.view(i, d, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(i, -1, 4 * d)
    squares = level.view(i, d, h // 4, 2, 2, w // 4, 2, 2)
    return squares.permute(0, 2, 5, 3, 6, 4, 7, 1).reshape(i, -1, 4 * d)
