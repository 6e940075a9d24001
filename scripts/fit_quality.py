"""Fit the quality score that ships as the default, on answers to the training pictures by the nano segmenter, alone
and guided: the one's answers have no agreement, all of the other's have.

python -m scripts.fit_quality                  # some minutes on one core; again after each new nano segmenter
python -m benchmarks.quality                   # then: how it ranks on the validation pictures
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.evaluate.calibration import Known, fit
from autolabel.ops.quality import to_json
from autolabel.refine.quality import default_path
from scripts.nano.answers import answers, choose

logger = logging.getLogger("fit_quality")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pictures", type=int, default=100, help="of each data set")
    parser.add_argument("--segment", nargs="+", default=["nano", "nano_guided"], help="choices of configs/segment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=default_path())
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    refs = choose(args.data, "train", args.pictures)
    objects: list[Known] = []
    weights = set()
    for choice in args.segment:
        segmenter = build(compose("label", [f"segment={choice}", "source.path=x"]).segment)
        weights.add(segmenter.identity["weights"])
        for number, found in enumerate(answers(segmenter, refs, args.seed), 1):
            objects += found
            if number % 50 == 0:
                logger.info("%s: %d of %d pictures, %d objects", choice, number, len(refs), len(objects))
    data = (
        f"true and moved boxes of at most {args.pictures} training pictures each of DUTS-TR, COCO train2017 and CCP, "
        f"answered by segment={','.join(args.segment)} with weights sha256 {', '.join(sorted(weights))}"
    )
    calibration = fit(objects, data=data, prior=None)
    unfinished = args.out.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(to_json(calibration), "utf-8")
    unfinished.replace(args.out)
    logger.info("%s: %s", args.out, dict(calibration.about))


if __name__ == "__main__":
    main()
