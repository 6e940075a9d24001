"""Linear layers of a model by another library, where that is faster on this processor.

torch computes float32 linear layers on a CPU by the BLAS that it was built with (MKL). oneDNN, which torch has too, was
twice as fast in single layers on an AMD processor with AVX-512, with an error of 5e-6 of the mean feature, and no
faster on one with AVX2 alone; a whole run was measured on the latter only. The operator has no public name;
`torch.set_float32_matmul_precision("medium")` leads to it as well, but for the whole process, and to bfloat16
where a processor is quick at that.
"""

from __future__ import annotations

import logging
import platform
from functools import cache
from pathlib import Path
from typing import Any

from autolabel.core.errors import SettingError

logger = logging.getLogger(__name__)

WAYS = ("auto", "torch", "onednn")
FEWEST_ROWS = 64
"""Fewer than that stay with torch, which is quicker at them."""
MOST_ERROR = 1e-5
"""Largest error, as a fraction of the mean absolute output of a layer."""
_CPUINFO = Path("/proc/cpuinfo")


def choose_linear(model: Any, way: str, *, device_kind: str, precision: str) -> str:
    """What computes the linear layers from now on, `torch` or `onednn`: it decides last digits, so it belongs into the
    identity. `way` is one of `WAYS`.

    `torch` leaves `model` as it is; `onednn` needs float32 on a CPU, else ConfigError; `auto` is oneDNN where it is
    known to be faster. A processor decides that and no timing, so a run that goes on on the same one computes as
    before.
    """
    import torch

    fits = (device_kind, precision) == ("cpu", "float32")
    if way == "onednn":
        if not fits:
            raise SettingError(
                f"linear=onednn is for float32 on a CPU, this is {precision} on {device_kind}; set linear=torch"
            )
        use_onednn(model)
        return "onednn"
    if way == "auto" and fits and is_faster(torch.backends.cpu.get_cpu_capability()):
        try:
            use_onednn(model)
        except SettingError as error:
            logger.info("linear=auto is torch: %s", error)
        else:
            logger.info("linear=auto is onednn on this processor")
            return "onednn"
    return "torch"


def is_faster(capability: str) -> bool:
    """Whether oneDNN is known to beat torch's BLAS on this processor, which torch calls `capability`: where it is
    an AMD with AVX-512."""
    return capability.startswith("AVX512") and "AuthenticAMD" in _maker()


def _maker() -> str:
    """A text with `AuthenticAMD` or `GenuineIntel` in it."""
    try:
        return _CPUINFO.read_text("utf-8")
    except OSError:  # not on Linux
        return platform.processor()


def use_onednn(model: Any) -> None:
    """Every linear layer of a float32 model on a CPU is computed by oneDNN from now on. Raises ConfigError, in the name
    of the setting, where this torch cannot do that, or where its numbers are not those of float32; `model` is as before
    then."""
    import torch

    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    if not layers:
        return
    largest = max(layers, key=lambda layer: layer.weight.numel())
    try:
        largest.__class__ = by_onednn()
        error = check(largest)
    except (AttributeError, RuntimeError) as failure:  # the operator has no public name, so its form may change
        largest.__class__ = torch.nn.Linear
        raise SettingError("linear=onednn: this torch has no such linear layers; set linear=torch") from failure
    if not error <= MOST_ERROR:
        largest.__class__ = torch.nn.Linear
        raise SettingError(
            f"linear=onednn: its numbers differ by {error:.0e} here, more than float32's; set linear=torch"
        )
    for layer in layers:
        layer.__class__ = by_onednn()


def check(layer: Any) -> float:
    """The largest difference between oneDNN and torch on a seeded input, of the mean absolute output."""
    import torch
    from torch.nn.functional import linear

    rows = torch.randn(4 * FEWEST_ROWS, layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = linear(rows, layer.weight, layer.bias)
        return float((layer(rows) - expected).abs().max() / expected.abs().mean())


@cache
def by_onednn() -> Any:
    """The class of such a layer. Raises AttributeError where this torch has no such operator."""
    import torch

    multiply = torch.ops.mkldnn._linear_pointwise

    class OneDnnLinear(torch.nn.Linear):
        def forward(self, rows: Any) -> Any:
            if rows.numel() < FEWEST_ROWS * self.in_features:
                return super().forward(rows)
            return multiply(rows.contiguous(), self.weight, self.bias, "none", [], "")

    return OneDnnLinear
