"""Speed against the reference, parity beside it: `make bench`.

Contestants take turns (A B A B ...), CPU seconds of the process are compared pair by pair, and every ratio
stands beside the fraction of identical masks. Results are written to benchmarks/results as a dated page.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from autolabel.core.types import Frame, ImageInfo, ImageRef, PromptedMask, Prompts, Rle
from autolabel.ops.masks import encode
from autolabel.ops.rle import logits_to_rle

RESULTS = Path(__file__).parent / "results"
SIZES_HW = {"640x480": (480, 640), "1080p": (1080, 1920), "4000x3000": (3000, 4000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["nano"], help="segment configs, e.g. nano sam2_tiny")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    lines = [header(arguments.repeats), *tail_table(arguments.repeats)]
    for model in arguments.models:
        lines += model_table(model, arguments.repeats)
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"cpu_{platform.machine()}_{datetime.now(UTC):%Y-%m-%d}.md"
    (arguments.out / name).write_text(text)


def header(repeats: int) -> str:
    names = ("torch", "sam2", "numpy", "numba", "pycocotools")
    versions = ", ".join(f"{n} {version(n)}" for n in names)
    return (
        f"# CPU, {datetime.now(UTC):%Y-%m-%d}\n\n{processor()}, {torch.get_num_threads()} threads; {versions}. "
        f"CPU seconds of the process, {repeats} paired repeats after one warm-up; median ratio (min to max).\n"
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def paired(reference: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[float, float, str]:
    """Median CPU seconds of both, and the ratio reference / ours as text."""
    reference(), ours()
    times = [(cpu_seconds(reference), cpu_seconds(ours)) for _ in range(repeats)]
    ratios = sorted(a / b for a, b in times)
    text = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), text


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def tail_table(repeats: int) -> list[str]:
    """From low-resolution logits to run lengths: upsample + threshold + pycocotools against the direct way."""
    rows = ["## Mask tail: 256 x 256 logits to COCO RLE, 10 masks\n",
            "| picture | reference, ms a mask | direct, ms a mask | ratio | identical bytes |", "|---|---|---|---|---|"]  # fmt: skip
    fused = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    logits = blobs(10)
    for name, size in SIZES_HW.items():

        def reference(size: tuple[int, int] = size) -> list[Rle]:
            return [reference_rle(one, size) for one in logits]

        def ours(size: tuple[int, int] = size) -> list[Rle]:
            return [logits_to_rle(one, size, fused=fused) for one in logits]

        same = sum(a == b for a, b in zip(reference(), ours(), strict=True))
        slow, fast, ratio = paired(reference, lambda ours=ours: [ours() for _ in range(20)], repeats)
        ratios = float(ratio.split()[0]) * 20
        rows.append(f"| {name} | {slow * 100:.2f} | {fast * 5:.3f} | {ratios:.0f} | {same} of {len(logits)} |")
    return [*rows, ""]


def reference_rle(logits: np.ndarray, size: tuple[int, int]) -> Rle:
    full = F.interpolate(torch.from_numpy(logits)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return encode((full > 0).numpy())


def blobs(count: int) -> list[np.ndarray]:
    """Wobbly ellipses of about 3 % of the area, as logits."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:256, 0:256]
    found = []
    for _ in range(count):
        y, x = random.uniform(50, 206, 2)
        angle = np.arctan2(rows - y, columns - x)
        wobble = 1 + 0.15 * np.sin(random.integers(3, 8) * angle + random.uniform(0, 6))
        found.append(
            (25 * wobble - np.hypot(rows - y, (columns - x) * random.uniform(0.7, 1.4))).astype(np.float32)
        )
    return found


def model_table(config: str, repeats: int) -> list[str]:
    """A whole picture: `SAM2ImagePredictor` and pycocotools against this segmenter, same weights, same boxes."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from autolabel.app.compose import build, compose

    segmenter = build(compose("label", [f"segment={config}", "source.path=x"]).segment)
    predictor = SAM2ImagePredictor(segmenter._model)
    # The predictor writes down the feature sizes of a 1024 px model.
    predictor._bb_feat_sizes = [(segmenter._model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    rows = [f"## {config}: one picture, all boxes, to COCO RLE (fp32)\n",
            "| picture | boxes | predictor, CPU s | ours, CPU s | ratio | identical masks |", "|---|---|---|---|---|---|"]  # fmt: skip
    for name, size in SIZES_HW.items():
        image = picture(size)
        for count in (1, 10, 50):
            boxes = random_boxes(count, size)

            def reference(image: np.ndarray = image, boxes: np.ndarray = boxes) -> list[Rle]:
                predictor.set_image(image)
                masks, _, _ = predictor.predict(box=boxes, multimask_output=False)
                return [encode(mask > 0) for mask in masks.reshape(-1, *masks.shape[-2:])]

            def ours(image: np.ndarray = image, boxes: np.ndarray = boxes, name: str = name) -> list[PromptedMask]:
                info = ImageInfo(image.shape[1], image.shape[0])
                return segmenter.segment([Frame(ImageRef(name, name), image, info)], [Prompts(boxes)])[0]

            same = sum(a == b.mask for a, b in zip(reference(), ours(), strict=True))
            slow, fast, ratio = paired(reference, ours, repeats)
            rows.append(f"| {name} | {count} | {slow:.3f} | {fast:.3f} | {ratio} | {same} of {count} |")
    return [*rows, ""]


def picture(size: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(1)
    small = torch.from_numpy(random.uniform(0, 255, (1, 3, 24, 32)).astype(np.float32))
    return F.interpolate(small, size, mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0).byte().numpy().copy()


def random_boxes(count: int, size: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(count)
    height, width = size
    x0, y0 = random.uniform(0, width * 0.7, count), random.uniform(0, height * 0.7, count)
    w, h = random.uniform(0.08, 0.28, count) * width, random.uniform(0.08, 0.28, count) * height
    return np.stack([x0, y0, x0 + w, y0 + h], 1).astype(np.float32)


if __name__ == "__main__":
    main()
