"""SAM 2's image encoder for pictures: the library's numbers to the last digits of float32, with less work around them.
Only arithmetic on modules that are handed in: it builds, loads and imports no model.

The library's own (sam2/modeling/backbones) interpolates the same position embedding for every picture, makes sine
codes of all levels that only video needs, keeps the first stage in an order in which every further operation must
copy, and projects the two finest levels to their full width to reduce them at once (`conv_s0`, `conv_s1`): two linear
maps in a row are one. Blocks and levels stay (B, H, W, C) from the patches to the end. On a CPU large blocks are
computed in strips of whole windows, which stay in its caches.

Letters in shapes: B images, R the model's image side, H and W places of a level, C channels, S a window's side.
"""

# ruff: noqa: N803  (shape suffixes)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autolabel.ops.device import has_bf16_without_amx, runs_bf16, type_of_products
from autolabel.segment.in_place import activated, added

_ROWS_AT_ONCE = 512
"""Queries at once; 128 to 4096 made no clear difference where it was measured."""
_AT_ONCE_BYTES = 16 << 20
"""Most bytes of the widest array of a block on a CPU. A larger block is computed strip by strip: the widest of SAM
2.1 tiny has 151 MB, in new pages each time and far beyond every cache."""
_STRIP_BYTES = 4 << 20
_COMPILED_STRIP_BYTES = 24 << 20
"""What both are in a compiled graph, which holds every strip and so should have few: from 32 MB on malloc takes new
pages for every array (mallopt(3), M_MMAP_THRESHOLD)."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    weight: Any  # (to, from)
    bias: Any

    @classmethod
    def of_conv(cls, conv: Any) -> Projection:
        return cls(conv.weight.flatten(1), conv.bias)

    def __call__(self, values: Any) -> Any:
        from torch.nn import functional

        return functional.linear(values, self.weight, self.bias)

    def after(self, first: Projection) -> Projection:
        """This and `first` before it as one."""
        weight, bias, first_weight, first_bias = (
            values.cpu().double() for values in (self.weight, self.bias, first.weight, first.bias)
        )
        return Projection((weight @ first_weight).to(self.weight), (weight @ first_bias + bias).to(self.bias))

    def without_bias(self) -> Projection:
        return Projection(self.weight, None)

    def as_bfloat16(self) -> Projection:
        return Projection(self.weight.bfloat16(), None if self.bias is None else self.bias.bfloat16())


class ImageEncoder:
    """What `SAM2Base.forward_image` gives of a picture to the mask decoder. It holds what follows from the weights of
    `model` alone, so it is made after they are loaded and where they are to stay."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._trunk, self._neck = model.image_encoder.trunk, model.image_encoder.neck
        self._by_library = not _is_usual(model)
        if self._by_library:
            return
        # Finest first, as the trunk's stages.
        lateral = [Projection.of_conv(level.conv) for level in reversed(self._neck.convs)]
        decoder = model.sam_mask_decoder
        reduced = [Projection.of_conv(decoder.conv_s0), Projection.of_conv(decoder.conv_s1)]
        side = model.image_size // self._trunk.patch_embed.proj.stride[0]
        self._place_1HWC = self._trunk._get_pos_embed((side, side)).contiguous()
        self._lateral = lateral
        self._direct = [last.after(first) for last, first in zip(reduced, lateral[:2], strict=True)]
        self._reduce_coarser = [last.without_bias() for last in reduced]

    def hold_bfloat16(self) -> None:
        """The weights that autocast makes bfloat16 are so from now on, the model's too. Of weights that do not learn it
        remembers nothing, and makes them again for every call."""
        import torch

        if self._by_library:
            return
        for layer in self._trunk.modules():
            if type(layer) in (torch.nn.Linear, torch.nn.Conv2d):
                layer.to(torch.bfloat16)
        self._lateral, self._direct, self._reduce_coarser = (
            [projection.as_bfloat16() for projection in projections]
            for projections in (self._lateral, self._direct, self._reduce_coarser)
        )

    def __call__(self, images_B3RR: Any) -> tuple[Any, tuple[Any, ...]]:
        """The embedding (B, C, R/16, R/16), and the features of strides 4 and 8 that masks are drawn with."""
        if self._by_library:
            embedding, fine = self._encode_by_library(images_B3RR)
        else:
            embedding, fine = self._levels(self._stages(images_B3RR))
        if self._model.directly_add_no_mem_embed:
            embedding = embedding + self._model.no_mem_embed.reshape(1, -1, 1, 1)
        return embedding, fine

    def _encode_by_library(self, images_B3RR: Any) -> tuple[Any, tuple[Any, ...]]:
        levels = self._model.forward_image(images_B3RR)["backbone_fpn"][-self._model.num_feature_levels :]
        *fine, embedding = levels
        return embedding, tuple(fine)

    def _stages(self, images_B3RR: Any) -> list[Any]:
        """The trunk's stages (B, H, W, C), finest first."""
        import torch

        rows = images_B3RR.contiguous(memory_format=torch.channels_last)
        # The order of the sum is the order in memory.
        values = self._place_1HWC + self._trunk.patch_embed.proj(rows).permute(0, 2, 3, 1)
        stages = []
        for i, block in enumerate(self._trunk.blocks):
            values = run_block(block, values)
            if i in self._trunk.stage_ends:
                stages.append(values)
        return stages

    def _levels(self, stages: list[Any]) -> tuple[Any, tuple[Any, ...]]:
        """The neck (sam2's FpnNeck) from the coarsest level to the finest; a level is a sum of the stage and of
        the level above, so the two finest are reduced summand by summand."""
        above = self._lateral[3](stages[3])
        above = embedding = self._sum(self._lateral[2](stages[2]), 2, above)
        stride_8 = self._reduced(1, stages[1], above)
        if 0 in self._neck.fpn_top_down_levels:
            above = self._sum(self._lateral[1](stages[1]), 1, above)
        stride_4 = self._reduced(0, stages[0], above)
        return _as_image(embedding), (_as_image(stride_4), _as_image(stride_8))

    def _reduced(self, level: int, stage: Any, above: Any) -> Any:
        direct = self._direct[level](stage)
        if level not in self._neck.fpn_top_down_levels:
            return direct
        return self._sum(direct, level, self._reduce_coarser[level](above))

    def _sum(self, values: Any, level: int, above: Any) -> Any:
        from torch.nn import functional

        if level not in self._neck.fpn_top_down_levels:
            return values
        mode = self._neck.fpn_interp_model
        corners = None if mode == "nearest" else False
        wider = functional.interpolate(
            above.permute(0, 3, 1, 2).float(), scale_factor=2.0, mode=mode, align_corners=corners
        )
        return values + wider.permute(0, 2, 3, 1)


def run_block(block: Any, values: Any) -> Any:
    """A MultiScaleBlock of sam2 (hieradet.py) on (B, H, W, C)."""
    rows = _rows_a_strip(block, values)
    if rows is None:
        return _widened(block, _attended(block, values))
    if block.window_size:
        return _by_strips(lambda strip: _widened(block, _attended(block, strip)), values, rows)
    return _by_strips(lambda strip: _widened(block, strip), _attended(block, values), rows)


def _rows_a_strip(block: Any, values: Any) -> int | None:
    """How many rows of (B, H, W, C) to compute at a time, whole windows; None for all. Not where gradients are
    recorded."""
    import torch

    if values.device.type != "cpu" or torch.is_grad_enabled():
        return None
    b, h, w, _ = values.shape
    widest = max(block.attn.qkv.out_features, block.mlp.layers[0].out_features)
    row_bytes = w * widest * type_of_products(values).itemsize
    at_once, strip = _AT_ONCE_BYTES, _STRIP_BYTES
    if torch.compiler.is_compiling():
        at_once = strip = _COMPILED_STRIP_BYTES
    if b * h * row_bytes <= at_once:
        return None
    step = block.window_size or 1
    return max(strip // (row_bytes * step), 1) * step


def _by_strips(run: Callable[[Any], Any], values: Any, rows: int) -> Any:
    import torch

    images = [torch.cat([run(strip) for strip in image.split(rows, dim=1)], dim=1) for image in values.split(1)]
    return images[0] if len(images) == 1 else torch.cat(images)


def _attended(block: Any, values: Any) -> Any:
    shortcut = values
    values = block.norm1(values)
    # As every product would make it, but now half the bytes go into windows.
    values = values.to(type_of_products(values))
    if block.dim != block.dim_out:
        # float32 under autocast too: a sum of all blocks before loses its last digits once, not at each.
        shortcut = pooled(block.pool, block.proj(values)).float()
    side = block.window_size
    if not side:
        return shortcut + attend(block.attn, values)
    values = attend(block.attn, into_windows(values, side))
    if block.q_stride:
        side //= block.q_stride[0]
    return add_windows(shortcut, values, side)


def _widened(block: Any, values: Any) -> Any:
    widen, narrow = block.mlp.layers
    return added(values, narrow(activated(block.mlp.act, widen(block.norm2(values)))))


def attend(attention: Any, values: Any) -> Any:
    """A MultiScaleAttention of sam2 (hieradet.py) within each of (B, H, W, C)."""
    from torch.nn import functional

    b, h, w, _ = values.shape
    queries, keys, offered = attention.qkv(values).view(b, h * w, 3, attention.num_heads, -1).unbind(2)
    if attention.q_pool is not None:
        queries = pooled(attention.q_pool, queries.reshape(b, h, w, -1))
        h, w = queries.shape[1:3]
        queries = queries.reshape(b, h * w, attention.num_heads, -1)
    by = attention_by_products if _quick_products(queries) else functional.scaled_dot_product_attention
    seen = by(queries.transpose(1, 2), keys.transpose(1, 2), offered.transpose(1, 2))
    return attention.proj(seen.transpose(1, 2).reshape(b, h, w, -1))


def attention_by_products(queries: Any, keys: Any, offered: Any) -> Any:
    """`scaled_dot_product_attention` of (B, G, L, c) by matrix products, some rows at a time: all scores of an image's
    4096 places would not stay in a cache."""
    import torch

    queries = queries * queries.shape[-1] ** -0.5
    parts = [
        (part @ keys.transpose(-2, -1)).softmax(dim=-1) @ offered for part in queries.split(_ROWS_AT_ONCE, dim=2)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _quick_products(values: Any) -> bool:
    """Whether torch's fused attention would be slower: bfloat16 on a CPU that has units for it. AMX it does use, though
    not backwards: SAM 2.1 tiny's encoder took 1.55 CPU s by products, 0.95 fused; nano's attention in training, four
    pictures backwards, 0.2 and 0.5."""
    import torch

    if values.device.type != "cpu" or values.dtype != torch.bfloat16:
        return False
    return (torch.is_grad_enabled() and runs_bf16("cpu")) or has_bf16_without_amx()


def pooled(pool: Any, values: Any) -> Any:
    """(B, H, W, C) smaller; as it is for None."""
    import torch

    if pool is None:
        return values
    h, w = values.shape[1:3]
    if (pool.kernel_size, pool.stride, h % 2, w % 2) == ((2, 2), (2, 2), 0, 0) and not torch.is_grad_enabled():
        # As it lies in memory: the module would copy what is a part of a wider array. It has its own rule for
        # gradients.
        rows = torch.maximum(values[:, 0::2], values[:, 1::2])
        return torch.maximum(rows[:, :, 0::2], rows[:, :, 1::2])
    return pool(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def into_windows(values: Any, side: int) -> Any:
    """(B, H, W, C) to (B * windows, S, S, C), with zeros after the last row and column where S does not divide them."""
    from torch.nn import functional

    b, h, w, c = values.shape
    down, right = -h % side, -w % side
    if down or right:
        values = functional.pad(values, (0, 0, 0, right, 0, down))
    grid = values.view(b, (h + down) // side, side, (w + right) // side, side, c)
    # Contiguous also where one row of windows could be a view: matrix products are slow on that.
    return grid.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, side, side, c)


def add_windows(values: Any, windows: Any, side: int) -> Any:
    """`values` (B, H, W, C) plus the windows that lie on them."""
    b, h, w, c = values.shape
    high, wide = -(-h // side), -(-w // side)
    grid = windows.view(b, high, wide, side, side, c).permute(0, 1, 3, 2, 4, 5)
    if (high * side, wide * side) == (h, w):
        return (values.view(grid.shape) + grid).view(values.shape)
    return values + grid.reshape(b, high * side, wide * side, c)[:, :h, :w]


def _as_image(values: Any) -> Any:
    """(B, H, W, C) to (B, C, H, W) in its own order: what is added to it is so, too."""
    return values.permute(0, 3, 1, 2).contiguous()


def _is_usual(model: Any) -> bool:
    """Whether the trunk and the neck are those of the published models, down to what is taken for granted here. A
    checkpoint with a YAML of its own may have others; those are left to the library."""
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    return (
        (type(trunk).__name__, type(neck).__name__) == ("Hiera", "FpnNeck")
        and (trunk.return_interm_layers, len(trunk.stage_ends), len(neck.convs)) == (True, 4, 4)
        and (model.image_encoder.scalp, model.num_feature_levels, neck.fuse_type) == (1, 3, "sum")
        and model.use_high_res_features_in_sam
        and all(
            (level.conv.kernel_size, level.conv.stride, level.conv.padding) == ((1, 1), (1, 1), (0, 0))
            for level in neck.convs
        )
        and all(len(block.mlp.layers) == 2 and not block.mlp.sigmoid_output for block in trunk.blocks)
    )
