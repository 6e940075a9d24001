"""Does the quality score rank masks better than the segmenter's own guess? On validation pictures, with known masks.

`python -m benchmarks.quality`. Objects are asked for with their true box and with a moved one; the risk of a mask is
1 - IoU with its true mask, and the area under the risk-coverage curve (AURC) is the mean risk of the best k masks,
over all k: lower is better, `best` is what sorting by the true IoU gives. None of these pictures was fitted on.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.core.types import ImageInfo
from autolabel.evaluate.calibration import Known, scores
from autolabel.ops.quality import SIGNALS, Float64, signals
from autolabel.refine.quality import QualityRefiner, default_path
from benchmarks.page import RESULTS, processor, publish
from scripts.nano.answers import answers, choose
from scripts.nano.dataset import DATASETS

SHOWN = ("predicted_iou", "stability", "box_fit")
COVERAGES = (0.9, 0.7, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pictures", type=int, default=150, help="of each data set")
    parser.add_argument("--segment", default="nano", help="a choice of configs/segment")
    parser.add_argument("--calibration", default="default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    segmenter = build(compose("label", [f"segment={args.segment}", "source.path=x"]).segment)
    refs = choose(args.data, "val", args.pictures)
    pictures = [found for found in answers(segmenter, refs) if found]
    objects = sum(map(len, pictures))
    text = "\n".join([*header(args, len(pictures), objects), *tables(pictures, args.calibration)]) + "\n"
    publish(args.out, f"quality_{args.segment}_{platform.machine()}", text)


def header(args: argparse.Namespace, pictures: int, objects: int) -> list[str]:
    path = default_path() if args.calibration == "default" else Path(args.calibration)
    about = json.loads(path.read_text("utf-8"))["about"]
    return [
        f"# Quality score, {datetime.now(UTC):%Y-%m-%d}\n",
        f"{objects} masks by segment={args.segment} in {pictures} validation pictures. The score was fitted on "
        f"{about['objects']} masks in {about['images']} other pictures: {about['data']}.\n",
    ]


def tables(pictures: Sequence[Sequence[Known]], calibration: str) -> list[str]:
    refiner = QualityRefiner(calibration=calibration, min_quality=None)
    start = time.process_time()
    scored = [refiner.refine([one.instance for one in found], ImageInfo(1, 1))[0] for found in pictures]
    seconds = time.process_time() - start
    objects = [one for found in pictures for one in found]
    rows = signals([one.instance for one in objects])
    named = {"**quality**": np.array([one.quality for found in scored for one in found], np.float64)}
    named |= {name: rows[:, [s.name for s in SIGNALS].index(name)] for name in SHOWN}
    ious = np.array([one.iou for one in objects])
    lines = []
    for group in ("all", *DATASETS):
        inside = np.array([group == "all" or f"/{group}/" in one.image_id for one in objects])
        lines += [f"## {group}: {np.count_nonzero(inside)} masks, mean IoU {ious[inside].mean():.3f}\n"]
        lines += [*table({name: values[inside] for name, values in named.items()}, ious[inside]), ""]
    per_object = f"{seconds / len(objects) * 1e6:.0f} microseconds of CPU a mask, {processor()}"
    return [
        *lines,
        f"Scoring costs {per_object}: {len(objects)} masks in {seconds:.2f} s, the first use of the compiled code included.",
    ]


def table(named: dict[str, Float64], ious: Float64) -> list[str]:
    lines = [
        "| score | AURC | above best | rank correlation | mean abs. error | "
        + " | ".join(f"mean IoU of the best {coverage:.0%}" for coverage in COVERAGES)
        + " |",
        "|---" * (5 + len(COVERAGES)) + "|",
    ]
    for name, values in named.items():
        found = scores(values, ious)
        order = np.argsort(-values, kind="stable")
        means = [f"{ious[order[: max(1, round(c * len(ious)))]].mean():.3f}" for c in COVERAGES]
        aurc, best = found["aurc"], found["aurc_best"]
        assert aurc is not None
        assert best is not None
        cells = [
            f"{aurc:.4f}",
            f"{aurc - best:.4f}",
            _cell(found["spearman"]),
            _cell(found["mean_abs_error"]),
            *means,
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
