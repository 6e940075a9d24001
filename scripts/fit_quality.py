"""Fit the quality score that ships as the default, on the nano segmenter's answers to the training pictures.

python -m scripts.fit_quality                  # some minutes on one core; again after each new nano segmenter
python -m benchmarks.quality                   # then: how it ranks on the validation pictures
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from autolabel.app.compose import build, compose
from autolabel.evaluate.calibration import Known, fit
from autolabel.ops.quality import to_json
from autolabel.refine.quality import default_path
from scripts.nano.answers import answers, choose

logger = logging.getLogger("fit_quality")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pictures", type=int, default=150, help="of each data set")
    parser.add_argument("--segment", default="nano", help="a choice of configs/segment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=default_path())
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    segmenter = build(compose("label", [f"segment={args.segment}", "source.path=x"]).segment)
    refs = choose(args.data, "train", args.pictures)
    objects: list[Known] = []
    for number, found in enumerate(answers(segmenter, refs, args.seed), 1):
        objects += found
        if number % 50 == 0:
            logger.info("%d of %d pictures, %d objects", number, len(refs), len(objects))
    data = (
        f"true and moved boxes of at most {args.pictures} training pictures each of DUTS-TR, COCO train2017 and CCP, "
        f"answered by segment={args.segment} with weights sha256 {segmenter.identity['weights']}"
    )
    calibration = fit(objects, data=data, prior=None)
    unfinished = args.out.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(to_json(calibration), "utf-8")
    unfinished.replace(args.out)
    logger.info("%s: %s", args.out, dict(calibration.about))


if __name__ == "__main__":
    main()
