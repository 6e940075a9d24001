"""Average weights of trainings of one nano model that went on from one another or from the same ones (Wortsman et
al. 2022, "Model soups"). What they disagree about at random cancels out; the result is measured as any other
weights are, before it is shipped.

    python -m scripts.average_nano_weights --weights A.safetensors B.safetensors --shares 2 1 --out C.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

OF_ONE_FILE = ("sha256", "bytes", "exported", "watched_objects", "metrics")
"""What the JSON beside weights says that does not hold for an average with others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, help="the JSON of the last says what it is"
    )
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="one each, of their sum")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if len(args.shares) != len(args.weights) or min(args.shares) <= 0:
        parser.error(f"{len(args.weights)} weights need as many shares above 0, got {args.shares}")
    shares = [share / sum(args.shares) for share in args.shares]
    parts = [load_file(path) for path in args.weights]
    if len({tuple(sorted((key, tuple(value.shape)) for key, value in part.items())) for part in parts}) > 1:
        parser.error("the weights are of models of different shapes")
    save_file({key: mean([part[key] for part in parts], shares) for key in parts[-1]}, args.out)
    about = json.loads(args.weights[-1].with_suffix(".json").read_text("utf-8"))
    about = {key: value for key, value in about.items() if key not in OF_ONE_FILE}
    about["averaged"] = [described(path, share) for path, share in zip(args.weights, shares, strict=True)]
    content = args.out.read_bytes()
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **about}
    args.out.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """In float32, since a half of float16 has not the digits, then in the kind of the last. Counters stay the
    last's."""
    if not values[-1].is_floating_point():
        return values[-1]
    total = sum(share * value.float() for value, share in zip(values, shares, strict=True))
    assert isinstance(total, Tensor)
    return total.to(values[-1].dtype).contiguous()


def described(path: Path, share: float) -> dict[str, Any]:
    about = json.loads(path.with_suffix(".json").read_text("utf-8"))
    told = {
        key: about[key] for key in ("trained_minutes", "images", "samples", "optimizer", "seed") if key in about
    }
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "share": round(share, 6), **told}


if __name__ == "__main__":
    main()
