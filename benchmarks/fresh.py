"""One contestant in a process of its own: what its first pass takes, and how much memory it needs at the most.

In a process that others have used, whoever comes first pays for what all share, and memory that one has freed is there
for the next. `measure` starts `python -m benchmarks.fresh`, which reads a task and writes what it measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pictures import Picture

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Fresh:
    """Of a process: seconds on the clock of the first pass over the pictures, resident memory with the models
    loaded and at its peak, and the most that was allocated on the GPU, models included (None without one); MB."""

    first_s: float
    loaded_mb: float
    peak_mb: float
    gpu_mb: float | None


def measure(setup: Any, name: str, pictures: Sequence[Picture], threads: int) -> Fresh:
    """Contestant `name` of a `contestants.Setup`. Raises CalledProcessError where it ends in an error, which then
    stands above."""
    task = {
        "setup": asdict(setup),
        "name": name,
        "threads": threads,
        "paths": [str(picture.path) for picture in pictures],
        "boxes": [picture.boxes_xyxy.tolist() for picture in pictures],
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh"],
        input=json.dumps(task),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment(threads),
    )
    # Libraries print what they like before.
    return Fresh(**json.loads(done.stdout.splitlines()[-1]))


def environment(threads: int) -> dict[str, str]:
    """Of a process that finds this checkout wherever it is started; `threads` 0: as many as its libraries like."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **(counts if threads else {}),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def main() -> None:
    task = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(asdict(measured(task))) + "\n")


def measured(task: dict[str, Any]) -> Fresh:
    import numpy as np

    from benchmarks.contestants import Networks, Setup, contestants

    prepare(task["threads"])
    setup = Setup(**task["setup"])
    (contestant,) = [one for one in contestants(setup) if one.name == task["name"]]
    boxes = [np.array(some, np.float32).reshape(-1, 4) for some in task["boxes"]]
    with TemporaryDirectory() as folder:
        label = contestant.make(Networks(setup), Path(folder))
        loaded, began = memory_mb("VmRSS"), time.monotonic()
        label([Path(path) for path in task["paths"]], boxes, Path(folder) / "out")
        seconds = time.monotonic() - began
    return Fresh(seconds, loaded, memory_mb("VmHWM"), gpu_peak_mb(setup.device))


def prepare(threads: int) -> None:
    """Of this process: torch with so many `threads` (0: as many as it likes), and matrix products and convolutions
    of a GPU with all digits of float32, whoever computes them."""
    import torch

    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if threads:
        torch.set_num_threads(threads)


def memory_mb(key: str, process: int | str = "self") -> float:
    """`VmRSS`: resident now; `VmHWM`: at the most so far. 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), 0.0)


def children() -> list[int]:
    """Processes that this one started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _stat(path)
        if fields and int(fields[1]) == os.getpid():
            found.append(int(path.parent.name))
    return found


def cpu_seconds() -> float:
    """Of this process and of all that it started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [_stat(Path(f"/proc/{process}/stat")) for process in children()]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in running if fields)
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _stat(path: Path) -> list[str]:
    """What stands behind the name (which may hold anything): state, parent, ..., user and system time in ticks,
    the 11th and 12th. Empty for a process that has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def gpu_peak_mb(device: str) -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


if __name__ == "__main__":
    main()
