"""A child of `autolabel doctor`: imports the heavy packages and says what happened, one JSON line a step.

A file of its own, run by path: a broken native library may end the process that imports it, and that must not
be the one that explains. Imports nothing of autolabel.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any


def _torch() -> dict[str, Any]:
    torch = import_module("torch")
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": [{"name": d.name, "bytes": d.total_memory, "capability": [d.major, d.minor]} for d in devices],
        "threads": torch.get_num_threads(),
        "linear": _linear(torch),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _linear(torch: Any) -> dict[str, float]:
    """How fast linear layers of SAM 2's kind are, by library, in thousand million float32 operations a second."""
    rows, weight, bias = torch.ones(4096, 384), torch.ones(1536, 384), torch.ones(1536)
    ways = {
        "torch": lambda: torch.nn.functional.linear(rows, weight, bias),
        "onednn": lambda: torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""),
    }
    for name in list(ways):  # the first call of each warms up
        try:
            ways[name]()
        except (AttributeError, RuntimeError):
            # A private operator of torch is not in every build, or of another form.
            del ways[name]
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(3):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: 2 * 4096 * 384 * 1536 / seconds / 1e9 for name, seconds in best.items()}


def _torchvision() -> dict[str, Any]:
    torch, torchvision = import_module("torch"), import_module("torchvision")
    # The operator library loads silently or not at all; only a call shows which.
    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    return {"version": torchvision.__version__}


def _cv2() -> dict[str, Any]:
    return {"version": import_module("cv2").__version__}


def _sam2() -> dict[str, Any]:
    # In a process of its own, sam2 may initialise Hydra as it likes.
    import_module("sam2.modeling.sam2_base")
    return {}


def _pycocotools() -> dict[str, Any]:
    import_module("pycocotools.mask")
    return {}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "pycocotools": _pycocotools,
    "cv2": _cv2,
    "torch": _torch,
    "torchvision": _torchvision,
    "sam2": _sam2,
}


def main() -> None:
    for name, step in STEPS.items():
        try:
            line = {"step": name, "found": step()}
        except Exception as error:  # noqa: BLE001 whatever an import raises is the finding
            line = {"step": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
