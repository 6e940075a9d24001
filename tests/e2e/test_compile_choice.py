"""`segment.compile_mode=auto`: decided by the number of pictures, once a run, and noted. The models are fakes."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from autolabel.app import compiling
from autolabel.app.compose import compose
from autolabel.app.main import main
from autolabel.segment.compiling import can_compile
from autolabel.store.run import open_reader
from tests.fakes import CompiledSegmenter, album


@pytest.fixture
def with_amx(monkeypatch):
    monkeypatch.setattr(compiling, "ENOUGH", 8)
    monkeypatch.setattr(compiling, "runs_bf16", lambda device: True)
    monkeypatch.setattr(compiling, "has_bf16_without_amx", lambda: False)
    monkeypatch.setattr(compiling, "can_compile", lambda: True)
    CompiledSegmenter.built.clear()


@pytest.fixture
def label(tmp_path):
    folder = tmp_path / "configs"
    target = "tests.fakes.CompiledSegmenter"
    fake = {"_target_": target, "compile_mode": "auto", "precision": "fast", "device": "cpu"}
    choices = {
        "segment/compiled": fake,
        "segment/within": {
            "defaults": [{"/segment@inner": "compiled"}, "_self_"],
            "_target_": "autolabel.segment.guided.GuidedSegmenter",
            "radius": 0.05,
            "eps": 1e-4,
            "min_iou": 0.8,
            "mirror": False,
        },
        "detect/colour": {"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0},
        "engine/elsewhere": {"_target_": "tests.fakes.ElsewhereEngine"},
    }
    for name, node in choices.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(node), folder / f"{name}.yaml")
    album(tmp_path / "in", 8)

    def call(*settings, segment="compiled"):
        given = ["label", str(tmp_path / "in"), "--config-dir", str(folder), "detect=colour", f"segment={segment}"]
        return main([*given, f"run={tmp_path / 'run'}", "unit_size=4", *settings])

    return call


def noted(tmp_path):
    """What the run's configuration and its fingerprint say."""
    with open_reader(tmp_path / "run") as reader:
        fingerprint = json.loads(reader.meta("fingerprint"))
        config = OmegaConf.create(reader.meta("config"))
    return config.segment, {key: value for key, value in fingerprint.items() if "compile_mode" in key}


@pytest.mark.usefixtures("with_amx")
def test_a_long_run_is_compiled(label, tmp_path):
    assert label() == 0
    assert CompiledSegmenter.built == ["default"]
    settings, fingerprint = noted(tmp_path)
    assert settings.compile_mode == "default"
    assert fingerprint == {"segment.compile_mode": "'default'"}


@pytest.mark.usefixtures("with_amx")
def test_a_segmenter_within_another_is_compiled_as_well(label, tmp_path):
    assert label(segment="within") == 0
    assert noted(tmp_path)[1] == {"segment.inner.compile_mode": "'default'"}


@pytest.mark.parametrize(
    "settings",
    [
        ["segment.precision=auto"],
        ["segment.precision=float32"],
        ["part=1/1"],
        ["engine=elsewhere"],
        ["segment.compile_mode=none"],
    ],
)
@pytest.mark.usefixtures("with_amx")
def test_where_it_does_not_pay_or_is_not_known_to_nothing_is_compiled(label, tmp_path, settings):
    assert label(*settings) == 0
    assert set(CompiledSegmenter.built) == {"none"}
    assert noted(tmp_path)[1] == {"segment.compile_mode": "'none'"}


def test_a_processor_without_amx_compiles_nothing(label, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "ENOUGH", 8)
    for bf16, without_amx in ((False, False), (True, True)):
        monkeypatch.setattr(compiling, "runs_bf16", lambda device, bf16=bf16: bf16)
        monkeypatch.setattr(compiling, "has_bf16_without_amx", lambda found=without_amx: found)
        assert label("segment.precision=bfloat16", f"run={tmp_path / str(bf16)}") == 0
        with open_reader(tmp_path / str(bf16)) as reader:
            assert OmegaConf.create(reader.meta("config")).segment.compile_mode == "none"


@pytest.mark.usefixtures("with_amx")
def test_a_picture_too_few_compiles_nothing(label, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "ENOUGH", 9)
    assert label() == 0
    assert CompiledSegmenter.built == ["none"]


@pytest.mark.usefixtures("with_amx")
def test_without_a_compiler_that_works_nothing_is_compiled(label, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "can_compile", can_compile)
    monkeypatch.setattr(torch, "compile", lambda *args, **settings: no_headers)
    assert label() == 0
    assert CompiledSegmenter.built == ["none"]
    assert "compiling does not work here: RuntimeError: no omp.h" in (tmp_path / "run/autolabel.log").read_text()


def no_headers(*rows):
    raise RuntimeError("no omp.h")


@pytest.mark.usefixtures("with_amx")
def test_the_nano_model_needs_more_pictures(label, monkeypatch):
    assert label("+segment.architecture=nano") == 0
    assert CompiledSegmenter.built == ["none"]


@pytest.mark.usefixtures("with_amx")
def test_a_run_keeps_what_was_decided_whatever_becomes_of_its_pictures(label, tmp_path, monkeypatch):
    assert label() == 0
    album(tmp_path / "in" / "more", 2, seed=1)
    monkeypatch.setattr(compiling, "ENOUGH", 100)
    CompiledSegmenter.built.clear()
    assert label() == 0
    assert CompiledSegmenter.built == ["default"]
    assert noted(tmp_path)[0].compile_mode == "default"


def test_few_pictures_stay_uncompiled_when_they_become_many(label, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "runs_bf16", lambda device: True)
    monkeypatch.setattr(compiling, "has_bf16_without_amx", lambda: False)
    assert label() == 0
    monkeypatch.setattr(compiling, "ENOUGH", 8)
    album(tmp_path / "in" / "more", 2, seed=1)
    assert label() == 0
    assert noted(tmp_path)[1] == {"segment.compile_mode": "'none'"}


def test_auto_is_the_default_of_every_sam_2():
    for name in ("nano", "sam2_tiny", "sam2_custom"):
        assert compose("label", ["source.path=x", f"segment={name}"]).segment.compile_mode == "auto"
