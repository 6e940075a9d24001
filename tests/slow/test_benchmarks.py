"""The speed benchmarks run from end to end, offline, and find our masks to be the reference's. No time is judged."""

import subprocess
import sys

import pytest

from benchmarks.fresh import ROOT, environment

pytestmark = pytest.mark.slow


def page(module, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, "--out", str(folder), "--threads", "1", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(1),
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if line.startswith("|")]


def test_the_segmenter_beside_others(tmp_path):
    few = ["--images", "2", "--repeats", "1", "--sizes", "640x480", "--boxes", "3"]
    *_, reference, ours, buckets = page(
        "benchmarks.run", tmp_path, *few, "--skip", "predictor, one call a box", "predictor, set_image_batch"
    )
    assert [row[2] for row in (reference, ours, buckets)] == [
        "SAM2ImagePredictor",
        "autolabel",
        "autolabel, buckets",
    ]
    assert [row[-1] for row in (reference, ours, buckets)] == ["yes"] * 3


def test_the_whole_command_beside_others(tmp_path):
    few = ["--images", "8", "--others", "2", "--size", "640x480", "--boxes", "3", "unit_size=2"]
    rows = {row[0]: row for row in page("benchmarks.pipeline", tmp_path, *few)}
    assert rows["autolabel label"][1] == "8"
    assert rows["SAM2ImagePredictor in a loop"][1] == "2"
    assert [rows[name][-1] for name in ("autolabel label", "SAM2ImagePredictor in a loop")] == ["yes"] * 2
    assert "too few pictures" not in rows["autolabel label"]
