"""Average the nano segmenter's weights of trainings that went on from one another or from the same ones (Wortsman et al.
2022, "Model soups"). What they disagree about at random cancels out; the result is measured as any other weights are,
before it is shipped.

    python -m scripts.average_nano_segmenter --weights A.safetensors B.safetensors C.safetensors --shares 2 1 1 --out D.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from scripts.nano.segmenter import WEIGHTS, build_segmenter
from scripts.train_nano_segmenter import export_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, help="the JSON of the last says what it is"
    )
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="one each, of their sum")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    if len(args.shares) != len(args.weights) or min(args.shares) <= 0:
        parser.error(f"{len(args.weights)} weights need as many shares above 0, got {args.shares}")
    shares = [share / sum(args.shares) for share in args.shares]
    parts = [load_file(path) for path in args.weights]
    model = build_segmenter()
    # In float32: a half of float16 has not the digits.
    mean = {
        key: sum(share * part[key].float() for share, part in zip(shares, parts, strict=True)) for key in parts[0]
    }
    model.load_state_dict(mean, strict=True)
    about = json.loads(args.weights[-1].with_suffix(".json").read_text("utf-8"))
    about["averaged"] = [described(path, share) for path, share in zip(args.weights, shares, strict=True)]
    changed = ("sha256", "bytes", "params", "exported", "watched_objects")
    export_weights(model, args.out, {key: value for key, value in about.items() if key not in changed})


def described(path: Path, share: float) -> dict[str, Any]:
    about = json.loads(path.with_suffix(".json").read_text("utf-8"))
    told = {key: about[key] for key in ("trained_minutes", "images", "optimizer", "seed") if key in about}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "share": round(share, 6), **told}


if __name__ == "__main__":
    main()
