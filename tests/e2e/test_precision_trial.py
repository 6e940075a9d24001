"""`segment.precision=auto` where bfloat16 would be faster: decided by masks, once a run, and noted. The models are fakes."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from autolabel.app import precision
from autolabel.app.main import main
from autolabel.app.precision import Trial, nearness
from autolabel.core.types import PromptedMask
from autolabel.ops.masks import encode
from autolabel.store.run import open_reader
from tests.fakes import RoundingSegmenter, album

ALL, NONE = 0, 1000
"""`wider_than`: of boxes that bfloat16 moves."""


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(precision, "pays", lambda device: True)
    monkeypatch.setattr(precision, "ONE_OF", 2)
    monkeypatch.setattr(precision, "FEWEST_MASKS", 5)
    RoundingSegmenter.built.clear()


@pytest.fixture
def label(tmp_path):
    folder = tmp_path / "configs"
    colour = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    rounding = {
        "_target_": "tests.fakes.RoundingSegmenter",
        "precision": "auto",
        "device": "cpu",
        "wider_than": NONE,
    }
    guided = {"defaults": [{"/segment@inner": "rounding"}, "_self_"], "_target_": "autolabel.segment.guided.GuidedSegmenter",
              "radius": 0.05, "eps": 1e-4, "min_iou": 0.8, "mirror": False}  # fmt: skip
    elsewhere = {"_target_": "tests.fakes.ElsewhereEngine"}
    choices = {
        "detect/colour": colour,
        "segment/rounding": rounding,
        "segment/within": guided,
        "engine/elsewhere": elsewhere,
    }
    for name, node in choices.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(node), folder / f"{name}.yaml")
    album(tmp_path / "in", 40)

    def call(*settings, segment="rounding"):
        given = ["label", str(tmp_path / "in"), "--config-dir", str(folder), "detect=colour", f"segment={segment}"]
        return main([*given, f"run={tmp_path / 'run'}", "unit_size=4", "batch_size=2", *settings])

    return call


def noted(tmp_path):
    """The run's configuration, what its fingerprint says of precision, and its summary."""
    with open_reader(tmp_path / "run") as reader:
        found = {k: v for k, v in json.loads(reader.meta("fingerprint")).items() if "precision" in k}
        found = {k: v.strip("'") for k, v in found.items()}
        config = OmegaConf.create(reader.meta("config"))
    return config, found, json.loads((tmp_path / "run" / "summary.json").read_text())["precision"]


@pytest.mark.parametrize(("wider_than", "decided"), [(NONE, "bfloat16"), (ALL, "float32")])
@pytest.mark.usefixtures("on_a_gpu")
def test_masks_decide_and_the_run_notes_it(label, tmp_path, capsys, wider_than, decided):
    assert label(f"segment.wider_than={wider_than}") == 0
    config, fingerprint, summary = noted(tmp_path)
    assert config.segment.precision == decided
    assert fingerprint == {"segment.precision": decided, "segment (precision)": decided}
    assert summary.startswith(f"{decided}: 31 masks of 20 pictures, asked in bfloat16 too: mean IoU ")
    assert f"precision  {summary}" in capsys.readouterr().out
    assert RoundingSegmenter.built == ["auto", "bfloat16", decided]


@pytest.mark.usefixtures("on_a_gpu")
def test_a_run_keeps_what_was_decided_whatever_a_trial_would_say_now(label, tmp_path, monkeypatch):
    assert label() == 0
    album(tmp_path / "in" / "more", 8, seed=1)
    monkeypatch.setattr(precision, "LEAST_MEAN", 2.0)
    RoundingSegmenter.built.clear()
    assert label() == 0
    assert RoundingSegmenter.built == ["bfloat16"]
    config, _, summary = noted(tmp_path)
    assert config.segment.precision == "bfloat16"
    assert summary.startswith("bfloat16: 31 masks")


@pytest.mark.usefixtures("on_a_gpu")
def test_a_word_of_the_person_is_not_tried_and_differs_from_what_was_decided(label, tmp_path, capsys):
    assert label("segment.precision=float32") == 0
    assert RoundingSegmenter.built == ["float32"]
    assert noted(tmp_path)[2] == ""
    assert label("segment.precision=bfloat16") == 1
    assert "segment.precision: 'float32' -> 'bfloat16'" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "one_of"), [(("part=1/2",), 2), ((), 41)])
@pytest.mark.usefixtures("on_a_gpu")
def test_parts_and_a_handful_of_pictures_are_float32(label, tmp_path, monkeypatch, settings, one_of):
    monkeypatch.setattr(precision, "ONE_OF", one_of)
    assert label(*settings) == 0
    config, _, summary = noted(tmp_path)
    assert config.segment.precision == "float32"
    assert summary == f"float32: bfloat16 is tried on one of {one_of} pictures, and not on a part of a run"
    assert RoundingSegmenter.built == ["float32"]


@pytest.mark.usefixtures("on_a_gpu")
def test_too_few_masks_are_float32(label, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "FEWEST_MASKS", 32)
    assert label() == 0
    config, _, summary = noted(tmp_path)
    assert config.segment.precision == "float32"
    assert summary == (
        "float32: 31 masks of 20 pictures, asked in bfloat16 too, are too few to tell (32 would do)"
    )


@pytest.mark.usefixtures("on_a_gpu")
def test_a_trial_ends_when_it_knows_enough(label, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "ENOUGH_MASKS", 6)
    assert label() == 0
    assert noted(tmp_path)[2].startswith("bfloat16: 6 masks of 6 pictures")


@pytest.mark.usefixtures("on_a_gpu")
def test_a_segmenter_within_another_is_decided_as_well(label, tmp_path):
    assert label(segment="within") == 0
    config, fingerprint, _ = noted(tmp_path)
    assert config.segment.inner.precision == "bfloat16"
    assert fingerprint["segment.inner.precision"] == "bfloat16"


@pytest.mark.usefixtures("on_a_gpu")
def test_where_others_compute_they_try_and_the_run_notes_it(label, tmp_path):
    assert label("engine=elsewhere") == 0
    config, fingerprint, summary = noted(tmp_path)
    assert config.segment.precision == "bfloat16"
    assert fingerprint == {"segment.precision": "bfloat16", "segment (precision)": "bfloat16"}
    assert summary.startswith("bfloat16: 31 masks of 20 pictures")
    assert RoundingSegmenter.built == ["auto", "bfloat16", "bfloat16", "bfloat16"]


@pytest.mark.usefixtures("on_a_gpu")
def test_networks_that_do_not_fit_side_by_side_are_float32(label, tmp_path, monkeypatch, capsys):
    def no_room(self, prompts):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(RoundingSegmenter, "_rounded", no_room)
    assert label() == 0
    assert noted(tmp_path)[0].segment.precision == "float32"
    assert "do not fit on the device together" in capsys.readouterr().err


def test_on_a_cpu_nothing_is_tried(label, tmp_path):
    RoundingSegmenter.built.clear()
    assert label() == 0
    config, fingerprint, summary = noted(tmp_path)
    assert RoundingSegmenter.built == ["auto"]
    assert config.segment.precision == "auto"
    assert fingerprint == {"segment.precision": "auto", "segment (precision)": "float32"}
    assert summary == ""


@pytest.mark.parametrize(
    ("masks", "mean", "apart", "decided"),
    [
        (200, 0.995, 1, "bfloat16"),
        (400, 0.995, 2, "bfloat16"),
        (199, 1.0, 0, "float32"),
        (200, 0.9949, 0, "float32"),
        (399, 0.999, 2, "float32"),
    ],
)
def test_the_limits_are_those_of_the_parity_protocol(masks, mean, apart, decided):
    assert Trial(20, masks, mean, apart).decides == decided


def test_masks_are_compared_by_their_prompts_and_a_missing_one_counts():
    def answer(prompt, width):
        return PromptedMask(prompt, encode(np.tile(np.arange(40) < width, (10, 1)).astype(np.uint8)), 0.9)

    assert list(nearness([answer(0, 20), answer(1, 30)], [answer(1, 30), answer(0, 10)])) == [0.5, 1.0]
    assert list(nearness([answer(0, 20)], [answer(1, 20)])) == [0.0, 0.0]
    assert list(nearness([answer(0, 20), answer(0, 10)], [answer(0, 20)])) == [1.0, 0.0]
    assert list(nearness([], [])) == []
