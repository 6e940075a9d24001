"""Score the nano segmenter on the validation pictures; `--card` writes the numbers into its model card.

python -m scripts.evaluate_nano_segmenter
python -m scripts.evaluate_nano_segmenter --limit 300 --grabcut --card
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch

from autolabel.ops.box_prior import read_box_prior
from autolabel.segment.sam2 import SHIPPED_BOX_PRIOR
from scripts.nano.dataset import load_pictures
from scripts.nano.scoring import choose, score, summarize
from scripts.nano.segmenter import PROJECT, WEIGHTS, build_segmenter, load_weights

logger = logging.getLogger("evaluate_nano_segmenter")

CARD = PROJECT / "docs" / "models" / "nano-segmenter.md"
BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"

GROUPS = {
    "duts": "DUTS: salient objects",
    "coco_all": "COCO: all",
    "coco_large": "COCO: large",
    "coco_medium": "COCO: medium",
    "coco_small": "COCO: small",
    "ccp_person": "CCP: people",
    "ccp_garment": "CCP: garments",
    "all": "every object scored",
}
COLUMNS = {
    "objects": "objects",
    "box_prior_iou": "**box prompt**",
    "box_iou": "box, network alone",
    "box_iou_over_half": "box: share over 0.5",
    "click_iou": "one click",
    "click_best_iou": "click, best of 3",
    "three_clicks_iou": "three clicks",
    "filled_box_iou": "filled box",
    "ellipse_iou": "ellipse",
    "grabcut_iou": "GrabCut",
    "box_predicted_gap": "predicted IoU off by",
}


def table(summary: dict[str, dict[str, float]]) -> str:
    columns = [name for name in COLUMNS if any(name in group for group in summary.values())]
    lines = [
        "| mean IoU | " + " | ".join(COLUMNS[name] for name in columns) + " |",
        "|---" + "|---:" * len(columns) + "|",
    ]
    for name, title in GROUPS.items():
        if name in summary:
            cells = (_cell(summary[name].get(column)) for column in columns)
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def facts(about: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"- sha256 `{about['sha256']}`, {about['bytes'] / 1e6:.1f} MB, {about['params'] / 1e6:.2f} M parameters",
            f"- {about['steps']} steps, {about['images']} scenes in {about['trained_minutes']} minutes with "
            f"{about['threads']} thread(s) of {about['hardware']} (shared with other work)",
            f"- {about['optimizer']}, seed {about['seed']}, torch {about['torch']}",
        ]
    )


def fill_card(card: Path, about: dict[str, Any], summary: dict[str, dict[str, float]]) -> None:
    before, _, rest = card.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    card.write_text(f"{before}{BEGIN}\n{facts(about)}\n\n{table(summary)}\n{END}{after}", "utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="decoded pictures (2.7 GB); default: decode, then throw away")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--box-prior", type=Path, default=SHIPPED_BOX_PRIOR, help="of scripts.fit_box_prior, for these weights"
    )
    parser.add_argument("--size", type=int, help="another input size than the model's own")
    parser.add_argument("--limit", type=int, help="objects of each kind; default: all")
    parser.add_argument("--grabcut", action="store_true", help="compare with GrabCut too (slow)")
    parser.add_argument("--card", action="store_true", help="write the table into the model card")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    model = build_segmenter(args.size).to(args.device)
    load_weights(model, args.weights)
    fitted, _ = read_box_prior(args.box_prior, key="--box-prior")
    fits = not args.size and fitted.about["weights"] == hashlib.sha256(args.weights.read_bytes()).hexdigest()
    if not fits:
        logger.info("without a box prior: %s was not fitted to this", args.box_prior)
    with tempfile.TemporaryDirectory() as fleeting:
        pictures = load_pictures(args.data, args.cache or Path(fleeting), split="val")
        chosen = choose(pictures, args.limit)
        summary = summarize(list(score(model, chosen, grabcut=args.grabcut, prior=fitted if fits else None)))
    logger.info("%s", table(summary))
    if args.card:
        about_path = args.weights.with_suffix(".json")
        about = json.loads(about_path.read_text("utf-8")) | {"validation": summary}
        about_path.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        fill_card(CARD, about, summary)


if __name__ == "__main__":
    main()
