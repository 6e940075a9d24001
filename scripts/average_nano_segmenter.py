"""Average the nano segmenter's weights of two trainings of which one went on from the other (Wortsman et al. 2022, "Model
soups"). What the two disagree about at random cancels out; it is measured as any other weights are, before it is shipped.

    python -m scripts.average_nano_segmenter --earlier A.safetensors --later B.safetensors --share 0.6 --out C.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from safetensors.torch import load_file

from scripts.nano.segmenter import WEIGHTS, build_segmenter
from scripts.train_nano_segmenter import export_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=Path, required=True)
    parser.add_argument("--later", type=Path, required=True, help="its JSON says what the result is made of")
    parser.add_argument("--share", type=float, required=True, help="of the later one, 0 to 1")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    if not 0 <= args.share <= 1:
        parser.error(f"--share must be in [0, 1], got {args.share}")
    earlier, later = load_file(args.earlier), load_file(args.later)
    model = build_segmenter()
    # In float32: a half of float16 has not the digits.
    model.load_state_dict({k: earlier[k].float().lerp(later[k].float(), args.share) for k in later}, strict=True)
    about = json.loads(args.later.with_suffix(".json").read_text("utf-8"))
    about["averaged"] = {
        name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "share": round(share, 6)}
        for name, path, share in (("earlier", args.earlier, 1 - args.share), ("later", args.later, args.share))
    }
    changed = ("sha256", "bytes", "params", "exported", "watched_objects")
    export_weights(model, args.out, {key: value for key, value in about.items() if key not in changed})


if __name__ == "__main__":
    main()
