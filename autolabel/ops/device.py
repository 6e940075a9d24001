"""Where a model computes, in which precision, and in pieces of which size. Holds no model.

torch is imported inside the calls, so that this module stays light.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from autolabel.core.errors import ImageError, SettingError
from autolabel.ops.settings import one_of

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]
T = TypeVar("T")

NO_ROOM = "one picture or prompt does not fit on the device; a smaller model, or device=cpu, does"


def not_finite(stage: str) -> ImageError:
    """The error of a model whose scores are NaN: no threshold holds for them, and objects would go in silence."""
    return ImageError(
        "not_finite",
        f"the model's scores are not numbers; its weights may be damaged, else {stage}.precision=float32 may help",
    )


def choose_device(device: str, *, key: str = "device") -> Any:
    """The torch.device meant by `auto`, `cpu`, `cuda` or `cuda:N`; `key` names the setting in errors."""
    import torch

    kind, _, number = str(device).partition(":")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, str) or kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise SettingError(f"{key} must be auto, cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise SettingError(
            f"{key} is {device}, but torch sees {torch.cuda.device_count()} CUDA devices; device=auto takes what there is"
        )
    return torch.device(device)


def choose_precision(precision: str, device: Any, *, key: str = "precision") -> Precision:
    """The precision meant on `device` (a torch.device, or its name) by `float32`, `bfloat16`, `fast` (bfloat16 wherever
    it is faster) or `auto`: float32, whose labels need no proof (`label` may have decided otherwise before, by one).

    Where `fast` or `bfloat16` cannot be fast, one line says so. What was chosen belongs into the identity.
    """
    import torch

    kind = torch.device(device).type
    if one_of(key, precision, ("auto", "fast", "float32", "bfloat16")) in ("float32", "auto"):
        return "float32"
    if runs_bf16(device):
        return "bfloat16"
    if precision == "bfloat16":
        logger.warning("%s=bfloat16: this %s has no bfloat16 units and imitates it, slowly", key, kind)
        return "bfloat16"
    logger.warning("%s=fast: this %s has no bfloat16 units; float32 is used", key, kind)
    return "float32"


def runs_bf16(device: Any) -> bool:
    """Whether bfloat16 is faster than float32 on `device` (a torch.device, or its name): Ampere and later, a CPU
    with AVX512_BF16 or AMX. Without them a CPU computes it ten times slower."""
    import torch

    place = torch.device(device)
    if place.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(place)[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_bf16_without_amx() -> bool:
    """Whether this CPU's units for bfloat16 are those of AVX512_BF16 alone."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported())


def autocast(device_kind: str, precision: Precision) -> AbstractContextManager[Any]:
    """What a forward pass runs in. Nothing for float32; on CUDA that products and convolutions have all its digits."""
    import torch

    if precision == "float32":
        return every_digit() if device_kind == "cuda" else nullcontext()
    context: AbstractContextManager[Any] = torch.autocast(device_kind, dtype=torch.bfloat16)
    return context


@contextmanager
def every_digit() -> Iterator[None]:
    """No TF32, which leaves ten bits of float32: torch uses it for convolutions by default, and for matrix products
    where this process or its environment asked for it. Afterwards all is as it was."""
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = products.fp32_precision, convolutions.fp32_precision
    word: str | None = None
    try:
        word = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
    except RuntimeError:  # somebody set it by the newer of torch's two interfaces, and the older refuses to answer
        pass
    products.fp32_precision = convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        if word is not None:
            torch.set_float32_matmul_precision(word)
        products.fp32_precision, convolutions.fp32_precision = before


def type_of_products(values: Any) -> Any:
    """What autocast computes products in where `values` are; float32 without it."""
    import torch

    kind = values.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


@contextmanager
def without_denormals(device_kind: str) -> Iterator[None]:
    """Numbers below 1.2e-38, which this thread's CPU computes far slower than others, are 0 within it. A softmax leaves
    them to all that is far away: with them the decoder of the nano model took twice as long."""
    import torch

    before = sys.float_info.min / 2 == 0
    if device_kind == "cpu":
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if device_kind == "cpu":
            torch.set_flush_denormal(before)


def without_autocast(device_kind: str) -> AbstractContextManager[Any]:
    """Within `autocast`, each operation in the type of what it is given: for what bfloat16 moves too far."""
    import torch

    context: AbstractContextManager[Any] = torch.autocast(device_kind, enabled=False)
    return context


def upload(array: NDArray[Any], device: Any) -> Any:
    """The array as a tensor on `device`; to a GPU through pinned memory, so that nobody waits for the copy."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a class for what its allocator lacks; the driver (pinned memory, kernels that load late) and cuBLAS
    say it in words."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    words = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Chunks:
    """Many items in pieces of at most `size`, which shrinks when the device is out of memory and stays so: each further
    call would run out of it again."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, run: Callable[[int, int], list[T]]) -> list[T]:
        """`run(start, stop)` over `0..count`, joined in order; a piece that does not fit is halved and asked again.

        Raises ImageError `out_of_memory` for a single item that does not fit.
        """
        import torch

        done: list[T] = []
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                done += run(start, stop)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            else:
                start = stop
                continue
            # Outside the handler: the exception keeps the tensors of its frames alive.
            torch.cuda.empty_cache()
            if stop - start == 1:
                raise ImageError("out_of_memory", NO_ROOM)
            self.size = (stop - start) // 2
            logger.warning("%d at once are out of the device's memory; %d from now on", stop - start, self.size)
        return done
