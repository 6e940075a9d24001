"""What is run by hand is at least loaded by every test run: benchmarks and scripts break unseen otherwise."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_benchmark_and_script_can_be_imported():
    """In a process of its own: some of them set what ultralytics reads at its import, and import it."""
    files = sorted(file for folder in ("benchmarks", "scripts") for file in (ROOT / folder).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert {"benchmarks.run", "scripts.nano.scoring", "scripts.train_nano_detector"} <= set(names)
    program = "\n".join(f"import {name}" for name in names)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
