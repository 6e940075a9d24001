"""Arithmetic in memory that is there already: a large array of its own costs more time in new pages than in numbers.

Where gradients are recorded, what was there is kept: it is needed on the way back.
"""

from __future__ import annotations

from typing import Any


def activated(activation: Any, values: Any) -> Any:
    """`activation(values)`, in the memory of `values` where it is GELU."""
    import torch

    if type(activation) is torch.nn.GELU and not values.requires_grad:
        return torch.ops.aten.gelu_(values, approximate=activation.approximate)
    return activation(values)


def added(values: Any, more: Any) -> Any:
    """`values + more`, in the memory of `values` unless the sum is of a wider type."""
    import torch

    learns = values.requires_grad or more.requires_grad
    if torch.promote_types(values.dtype, more.dtype) == values.dtype and not learns:
        return values.add_(more)
    return values + more
