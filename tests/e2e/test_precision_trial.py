"""`segment.precision=auto` where bfloat16 would be faster: decided by masks, once a run, and noted. The models are
fakes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from autolabel.app import precision
from autolabel.app.compose import compose
from autolabel.app.label import label as label_config
from autolabel.app.main import main
from autolabel.app.precision import Trial, nearness, sample, undecided
from autolabel.core.types import ImageRef, Verdict
from autolabel.store.run import open_reader, open_store
from benchmarks.parity import LIMITS
from tests.fakes import RoundingSegmenter, album
from tests.records import instance, record

ALL, NONE = 0, 1000
"""`wider_than`: of boxes that bfloat16 moves."""


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(precision, "pays", lambda device: True)
    monkeypatch.setattr(precision, "ONE_OF", 2)
    monkeypatch.setattr(precision, "FEWEST", 5)
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
    assert summary.startswith(f"{decided}: 29 objects of 20 pictures, labelled in bfloat16 too: mean IoU ")
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
    assert summary.startswith("bfloat16: 29 objects")


@pytest.mark.usefixtures("on_a_gpu")
def test_what_a_start_without_labels_had_decided_is_not_told_of_the_next(label, tmp_path):
    (tmp_path / "run").mkdir()
    with open_store(tmp_path / "run", rollback=False) as store:
        store.set_meta(precision="bfloat16: 500 objects")
    assert label("segment.precision=float32") == 0
    assert noted(tmp_path)[2] == ""


@pytest.mark.usefixtures("on_a_gpu")
def test_a_word_of_the_person_is_not_tried_and_differs_from_what_was_decided(label, tmp_path, capsys):
    assert label("segment.precision=float32") == 0
    assert RoundingSegmenter.built == ["float32"]
    assert noted(tmp_path)[2] == ""
    assert label("segment.precision=bfloat16") == 1
    assert "segment.precision: 'float32' -> 'bfloat16'" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "one_of"), [(("part=1/2",), 2), ((), 41)])
@pytest.mark.usefixtures("on_a_gpu")
def test_parts_and_a_handful_of_pictures_are_float32_without_a_trial(
    label, tmp_path, monkeypatch, settings, one_of
):
    monkeypatch.setattr(precision, "ONE_OF", one_of)
    assert label(*settings) == 0
    _, fingerprint, summary = noted(tmp_path)
    assert fingerprint == {"segment.precision": "auto", "segment (precision)": "float32"}
    assert summary == ""
    assert RoundingSegmenter.built == ["auto"]


@pytest.mark.usefixtures("on_a_gpu")
def test_too_few_masks_are_float32(label, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "FEWEST", 30)
    assert label() == 0
    config, _, summary = noted(tmp_path)
    assert config.segment.precision == "float32"
    assert summary == (
        "float32: 29 objects of 20 pictures, labelled in bfloat16 too, too few to tell (30 would do)"
    )


@pytest.mark.usefixtures("on_a_gpu")
def test_a_trial_ends_when_it_knows_enough(label, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "ENOUGH", 6)
    assert label() == 0
    assert noted(tmp_path)[2].startswith("bfloat16: 9 objects of 4 pictures")


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
    assert summary.startswith("bfloat16: 29 objects of 20 pictures")
    assert RoundingSegmenter.built == ["auto", "bfloat16", "bfloat16", "bfloat16"]


@pytest.mark.parametrize("engine", ["threaded", "elsewhere"])
@pytest.mark.parametrize("where", ["__init__", "_rounded"])
@pytest.mark.usefixtures("on_a_gpu")
def test_whatever_breaks_in_bfloat16_alone_the_run_is_float32(label, tmp_path, monkeypatch, engine, where):
    whole = getattr(RoundingSegmenter, where)

    def no_room(self, *arguments, **settings):
        if where == "_rounded" or settings["precision"] == "bfloat16":
            raise torch.OutOfMemoryError("no room for two networks")
        whole(self, **settings)

    monkeypatch.setattr(RoundingSegmenter, where, no_room)
    assert label(f"engine={engine}") == 0
    config, _, summary = noted(tmp_path)
    assert config.segment.precision == "float32"
    assert summary.startswith("float32: bfloat16 was tried and ended with ")
    assert "no room for two networks" in summary


@pytest.mark.parametrize("engine", ["threaded", "elsewhere"])
@pytest.mark.usefixtures("on_a_gpu")
def test_what_is_wrong_in_float32_too_is_said_as_ever(label, capsys, engine):
    assert label("segment.device=gpu", f"engine={engine}", segment="nano") == 1
    assert "segment.device must be auto, cpu, cuda or cuda:N, got 'gpu'" in capsys.readouterr().err


def test_only_the_device_of_a_setting_says_whether_it_is_open(monkeypatch):
    monkeypatch.setattr(precision, "pays", lambda device: device == torch.device("cpu"))
    monkeypatch.setattr(precision, "choose_device", lambda device, key: torch.device(device))
    of = {"precision": "auto", "device": "cpu"}
    config = compose("label", ["source.path=x"])
    config.segment = {
        **of,
        "inner": {**of, "device": "meta"},
        "other": {**of, "precision": "float32"},
        "third": of,
    }
    assert undecided(config) == ["segment.precision", "segment.third.precision"]
    assert undecided(compose("label", ["source.path=x", "labeler=sam3"])) == []


def test_pictures_are_drawn_from_the_whole_run_in_any_prefix():
    refs = {str(n): ImageRef(str(n), "x") for n in range(40_000)}
    drawn = [int(ref.image_id) for ref in sample(refs)]
    assert len(set(drawn)) == 500
    assert all(10_000 < np.mean(drawn[:k]) < 30_000 for k in (8, 16, 64, 500))
    assert drawn == [int(ref.image_id) for ref in sample(refs)]
    assert sample(dict(list(refs.items())[:799])) == []  # room for 390 objects, where 400 decide
    assert len(sample(dict(list(refs.items())[:800]))) == 40


@pytest.mark.parametrize("engine", ["threaded", "elsewhere"])
@pytest.mark.usefixtures("on_a_gpu")
def test_an_interrupted_trial_is_made_again_and_a_deadly_one_is_not(label, tmp_path, monkeypatch, engine):
    def stop(self, prompts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RoundingSegmenter, "_rounded", stop)
        assert label(f"engine={engine}") == 130
    with open_store(tmp_path / "run", rollback=False) as store:
        assert store.meta("precision") == ""
        store.set_meta(precision=precision.TRYING)  # as a killed process leaves it
    RoundingSegmenter.built.clear()
    assert label(f"engine={engine}") == 0
    assert "bfloat16" not in RoundingSegmenter.built
    assert noted(tmp_path)[2] == "float32: bfloat16 was tried, and the process ended in it"


@pytest.mark.usefixtures("on_a_gpu")
def test_what_one_run_decides_is_no_setting_of_the_next(label, tmp_path):
    config = compose("label", ["source.path=x"])
    config.segment = {
        "_target_": "tests.fakes.RoundingSegmenter",
        "precision": "auto",
        "device": "cpu",
        "wider_than": NONE,
    }
    config.detect = {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}
    config.source.path, config.run = str(tmp_path / "in"), str(tmp_path / "run")
    label_config(config)
    assert noted(tmp_path)[0].segment.precision == "bfloat16"
    assert config.segment.precision == "auto"


def test_on_a_cpu_nothing_is_tried(label, tmp_path):
    RoundingSegmenter.built.clear()
    assert label() == 0
    config, fingerprint, summary = noted(tmp_path)
    assert RoundingSegmenter.built == ["auto"]
    assert config.segment.precision == "auto"
    assert fingerprint == {"segment.precision": "auto", "segment (precision)": "float32"}
    assert summary == ""


@pytest.mark.parametrize(
    ("objects", "mean", "apart", "decided"),
    [
        (400, 0.995, 2, "bfloat16"),
        (1000, 0.995, 5, "bfloat16"),
        (399, 1.0, 0, "float32"),
        (400, 0.9949, 0, "float32"),
        (599, 0.999, 3, "float32"),
    ],
)
def test_objects_have_to_be_enough_and_near(objects, mean, apart, decided):
    assert Trial((), 20, objects, mean, apart).decides == decided
    assert Trial((), 20, objects, mean, apart, "an error").decides == "float32"


def test_the_limits_are_those_of_the_parity_protocol():
    limits = LIMITS["bfloat16"]
    assert (limits.mean, limits.percentile_1, limits.flips) == (
        precision.LEAST_MEAN,
        precision.NEAR,
        precision.MOST_APART,
    )


def test_objects_are_compared_as_labels():
    def labelled(*widths, **changes):
        masks = [np.tile(np.arange(40) < width, (10, 1)).astype(np.uint8) for width in widths]
        return record("a", [instance(mask, i, **changes) for i, mask in enumerate(masks)], size_hw=(10, 40))

    assert nearness(labelled(20, 30), labelled(20, 15)) == [1.0, 0.5]
    assert nearness(labelled(20, 30), labelled(30, 20)) == [1.0, 1.0]  # found by prompts, in another order
    assert nearness(labelled(20), labelled()) == [0.0]
    assert nearness(labelled(), labelled(20)) == [0.0]
    assert nearness(labelled(20), labelled(20, 10)) == [1.0, 0.0]
    first, second = labelled(20, 10), labelled(20, 10)
    only = [
        replace(r, verdicts=tuple(Verdict("low" if i == k else None) for i in range(2)))
        for k, r in enumerate((first, second))
    ]
    assert nearness(*only) == [0.0, 0.0]  # each keeps another one
    assert nearness(labelled(20, origin="label"), labelled(10, origin="label")) == []
    assert nearness(labelled(), labelled()) == []
    assert nearness(labelled(*range(1, 36)), labelled(*range(1, 36))) == [1.0] * 10
    assert nearness(labelled(*range(1, 12)), labelled(*range(1, 12))) == [1.0] * 10
