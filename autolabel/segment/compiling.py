"""torch.compile around the parts of a network, and the few sizes of inputs that it is worth."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from autolabel.core.errors import SettingError
from autolabel.core.text import one_line, printable
from autolabel.ops.device import has_bf16_without_amx

logger = logging.getLogger(__name__)

MODES = ("none", "default", "reduce-overhead", "max-autotune")


def compiled(function: Callable[..., Any], mode: str, *, shapes: int, device_kind: str) -> Callable[..., Any]:
    """`function`, on `device_kind`, through torch.compile, once for each of up to `shapes` shapes; as it is for
    `none`."""
    if mode == "none":
        return function
    import torch
    from torch._dynamo import config as tracing
    from torch._inductor import config as compiling

    # Beyond it, which is eight, torch computes as if nothing was compiled. The limit is one for the whole process.
    tracing.recompile_limit = max(tracing.recompile_limit, shapes)
    # What it asks of the processor cannot be traced, and would cut the network into pieces.
    torch.compiler.assume_constant_result(has_bf16_without_amx)
    made = torch.compile(function, mode=mode, dynamic=False)

    def call(*inputs: Any) -> Any:
        # On a CPU oneDNN fuses more with weights that are constants.
        with compiling.patch(freezing=device_kind == "cpu"):
            return _kept(made(*inputs))

    return call


def can_compile() -> bool:
    """Whether something small can be compiled for this CPU, in seconds: a compiler may be there and its headers not."""
    import torch
    from torch.nn import functional

    weight = torch.ones(16, 16)
    try:
        compiled(lambda rows: functional.gelu(rows @ weight), "default", shapes=1, device_kind="cpu")(weight)
    except Exception as error:  # noqa: BLE001 - it has many ways to fail
        logger.info("compiling does not work here: %s", printable(one_line(error)))
        return False
    return True


def _kept(outputs: Any) -> Any:
    """What a CUDA graph wrote is overwritten by its next run."""
    if isinstance(outputs, tuple):
        return tuple(map(_kept, outputs))
    return outputs.clone() if outputs.is_cuda else outputs


def check_compiler(mode: str, device_kind: str) -> None:
    """Raises SettingError where `mode` needs a C++ compiler and there is none; else says that compiling takes time."""
    if mode == "none":
        return
    if device_kind == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise SettingError(
                f"compile_mode={mode} needs a C++ compiler on a CPU and found none: install g++ or clang, name it in "
                "CXX, or set compile_mode=none"
            ) from None
    logger.info(
        "compile_mode=%s: the first picture waits for the compiler, seconds to minutes; TORCHINDUCTOR_CACHE_DIR "
        "keeps what it made",
        mode,
    )


def bucket_of(n: int, largest: int) -> int:
    """The size that `n` are padded to: the next power of two, at most `largest`, which holds `n` unless another thread
    has halved it meanwhile.

    So there are few sizes to compile for, one picture alone does not pay for sixteen, and half a bucket is a bucket.
    """
    return max(min(1 << (n - 1).bit_length(), largest), n)


def num_buckets(largest: int) -> int:
    return len({bucket_of(n, largest) for n in range(1, largest + 1)})


def padded(rows: Any, size: int) -> Any:
    """`rows` (n, ...), a tensor, with its last row repeated to (size, ...)."""
    import torch

    missing = size - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
