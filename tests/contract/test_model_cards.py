"""A model card speaks of the weights that are shipped."""

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["detector", "segmenter"])
def test_the_card_names_the_sha256_of_the_shipped_weights(name):
    weights = ROOT / "autolabel" / "weights" / "nano" / f"{name}.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert json.loads(weights.with_suffix(".json").read_text("utf-8"))["sha256"] == sha256
    assert sha256 in (ROOT / "docs" / "models" / f"nano-{name}.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("key", "setting"),
    [("imgsz", "image_size"), ("conf", "conf"), ("iou", "iou"), ("box_voting", "box_voting")],
)
def test_the_detector_is_used_as_its_file_recommends(key, setting):
    import yaml

    about = json.loads((ROOT / "autolabel" / "weights" / "nano" / "detector.json").read_text("utf-8"))
    config = yaml.safe_load((ROOT / "configs" / "detect" / "nano.yaml").read_text("utf-8"))
    assert config[setting] == about[key]
