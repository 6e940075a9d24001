#!/usr/bin/env bash
# Make requirements/*.lock again from pyproject.toml, with hashes. Needs uv (`pip install uv`). Versions that are locked
# already stay; delete a line, or the files, to move on.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=$(mktemp --suffix=.in)
# torch and torchvision must come from one build; the pair below runs with and without a GPU.
printf '%s\n' torch==2.15.0 torchvision==0.29.2 sam2==1.1.0 hatchling editables setuptools wheel >"$pins"
all=$(mktemp)
cat requirements/*.lock >"$all" 2>/dev/null || true # uv prefers what stands in its output
SAM2_BUILD_CUDA=0 uv pip compile pyproject.toml --extra dev "$pins" --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-annotate --no-header -q -o "$all"
python3 - "$all" <<'PY'
import re, sys
from pathlib import Path
blocks = re.split(r"\n(?=\S)", Path(sys.argv[1]).read_text().strip())
sam2 = [b for b in blocks if b.startswith("sam2==")]
rest = [b for b in blocks if not b.startswith("sam2==")]
Path("requirements/development.lock").write_text(
    "# Exact environment for development (Linux x86-64, Python 3.11). Made by scripts/lock.sh; do not edit.\n"
    + "\n".join(rest) + "\n")
Path("requirements/sam2.lock").write_text(
    "# sam2 is a source distribution whose build imports torch: installed second, without build isolation.\n"
    + "\n".join(sam2) + "\n")
PY
