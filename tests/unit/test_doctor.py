"""What the doctor says about packages, imports, weights and the machine, and that it says what to do."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autolabel.app import doctor, probe
from autolabel.app.doctor import Finding
from autolabel.core.errors import ConfigError
from autolabel.weights.access import Access
from autolabel.weights.registry import SHIPPED
from autolabel.weights.verify import Row

GOOD_TORCH = {
    "version": "2.15.0+cu132",
    "cuda": "13.2",
    "devices": [],
    "threads": 2,
    "linear": {"torch": 85.0, "onednn": 80.0},
    "cpu": "AVX2",
}
GOOD = [
    {"step": "pycocotools", "found": {}},
    {"step": "cv2", "found": {"version": "5.0.0"}},
    {"step": "torch", "found": GOOD_TORCH},
    {"step": "torchvision", "found": {"version": "0.29.2"}},
    {"step": "sam2", "found": {}},
]


def states(findings: list[Finding]) -> set[str]:
    return {f.state for f in findings}


def row(state: str, name: str = "yolo26m") -> Row:
    return Row(name, state, Path("x"), 1, None, 1, "AGPL-3.0", (), "why")  # type: ignore[arg-type]


# ---------------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("1.3.8", ">=1.3.2,<1.4", True),
        ("1.4.0rc3", ">=1.3.2,<1.4", False),
        ("1.3.1", ">=1.3.2,<1.4", False),
        ("1.1.0", "==1.1.0", True),
        ("1.1", "==1.1.0", True),
        ("2.13.0+cpu", ">=2.10", True),
        ("2.9.1", ">=2.10", False),
        ("8.3.45", ">=8.0,!=8.3.45", False),
        ("5.0.0.93", ">=4.10", True),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, bounds: str, fits: bool) -> None:
    assert doctor.within(version, bounds) is fits


def test_a_package_that_is_missing_or_too_new_comes_with_the_command_that_mends_it() -> None:
    missing = doctor.judge_package("pycocotools", ">=2.0.8", None)
    assert (missing.state, missing.advice) == ("FAIL", "pip install 'pycocotools>=2.0.8'")
    hydra = doctor.judge_package("hydra-core", ">=1.3.2,<1.4", "1.4.0")
    assert hydra.state == "FAIL"
    assert "pip install 'hydra-core>=1.3.2,<1.4'" in hydra.advice
    assert "sam2" in hydra.advice


@pytest.mark.parametrize("version", doctor.POISONED)
def test_the_poisoned_releases_of_ultralytics_are_called_so(version: str) -> None:
    finding = doctor.judge_package("ultralytics", ">=8.0", version)
    assert finding.state == "FAIL"
    assert "compromised" in finding.advice


def test_the_requirements_are_those_of_the_project() -> None:
    wanted = doctor.required()
    assert wanted["hydra-core"].endswith("<1.4")
    assert "pytest" not in wanted


@pytest.mark.parametrize(
    ("installed", "state"),
    [
        ({"opencv-python": "5.0.0.93"}, "ok"),
        ({"opencv-python-headless": "5.0.0.93"}, "ok"),
        ({"opencv-python": "4.1"}, "FAIL"),
        ({}, "FAIL"),
        ({"opencv-python": "5.0", "opencv-python-headless": "5.0"}, "FAIL"),
    ],
)
def test_exactly_one_opencv_is_well(installed: dict[str, str], state: str) -> None:
    assert states(doctor.opencv(installed, {"opencv-python": ">=4.10"})) == {state}


def test_a_changed_file_changes_the_content_hash_and_a_compiled_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    first = doctor.content_sha256(tmp_path)
    (tmp_path / "a.pyc").write_bytes(b"compiled")
    assert doctor.content_sha256(tmp_path) == first
    (tmp_path / "a.py").write_text("two")
    assert doctor.content_sha256(tmp_path) != first


# ---------------------------------------------------------------------- imports


def test_imports_that_work_are_well() -> None:
    assert states(doctor.imports(GOOD, "")) == {"ok"}


def test_the_mismatch_of_torch_and_torchvision_is_explained() -> None:
    error = "RuntimeError: operator torchvision::nms does not exist"
    lines = [*GOOD[:3], {"step": "torchvision", "error": error}, GOOD[4]]
    (finding,) = (f for f in doctor.imports(lines, "") if f.state == "FAIL")
    assert error in finding.what
    assert "different builds" in finding.advice
    assert "pip install --force-reinstall torch torchvision" in finding.advice


def test_a_library_that_ends_the_process_is_named_and_the_rest_is_not_blamed() -> None:
    code = 'import os, sys; print(\'{"step": "pycocotools", "found": {}}\', flush=True); os.kill(os.getpid(), 11)'
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        findings = doctor.imports(*doctor._collect(child))
    assert [f.state for f in findings] == ["ok", "FAIL"]
    assert "cv2 ended the process (signal 11)" in findings[1].what


def test_a_gpu_is_described_by_what_matters() -> None:
    device = {"name": "H200", "bytes": 139 << 30, "capability": [9, 0]}
    lines = [*GOOD[:2], {"step": "torch", "found": {**GOOD_TORCH, "devices": [device]}}, *GOOD[3:]]
    assert any("H200 (139 GiB, 9.0, bfloat16)" in f.what for f in doctor.imports(lines, ""))


@pytest.mark.parametrize(
    ("speeds", "auto", "advice"),
    [
        (
            {"torch": 108.0, "onednn": 240.0},
            "torch",
            "on this CPU segment.linear=onednn computes them 2.2 times as fast",
        ),
        ({"torch": 108.0, "onednn": 240.0}, "onednn", ""),
        (
            {"torch": 90.0, "onednn": 45.0},
            "onednn",
            "on this CPU segment.linear=torch computes them 2.0 times as fast",
        ),
        ({"torch": 85.0, "onednn": 90.0}, "torch", ""),
        ({"torch": 85.0}, "torch", ""),
    ],
)
def test_a_library_for_linear_layers_is_named_where_auto_is_not_the_faster_one(
    speeds: dict[str, float], auto: str, advice: str
) -> None:
    finding = doctor.linear(speeds, auto)
    assert (finding.state, finding.advice) == ("ok", advice)
    assert f"torch {speeds['torch']:.0f}" in finding.what
    assert f"segment.linear=auto is {auto} here" in finding.what


def test_auto_is_torch_for_a_torch_that_has_no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_faster", lambda capability: True)
    for speeds, auto in (({"torch": 85.0}, "torch"), ({"torch": 85.0, "onednn": 80.0}, "onednn")):
        (_, finding) = doctor._imported("torch", {**GOOD_TORCH, "linear": speeds})
        assert f"segment.linear=auto is {auto} here" in finding.what


def test_the_probe_times_both_libraries() -> None:
    assert all(speed > 0 for speed in probe._linear(torch).values())
    assert "torch" in probe._linear(torch)


def test_every_step_of_the_probe_has_its_remedy() -> None:
    assert set(probe.STEPS) == set(doctor.REINSTALL)


# ---------------------------------------------------------------------- weights and machine


@pytest.mark.parametrize(
    ("state", "shipped", "expected"),
    [
        ("absent", True, "FAIL"),
        ("absent", False, None),
        ("corrupt", True, "FAIL"),
        ("corrupt", False, "FAIL"),
        ("unpinned", False, "warn"),
        ("partial", False, "warn"),
        ("ok", True, "ok"),
        ("present", False, "ok"),
    ],
)
def test_weights_are_judged_by_their_state(state: str, shipped: bool, expected: str | None) -> None:
    finding = doctor.judge_weights(row(state), shipped=shipped)
    assert (finding and finding.state) == expected
    if finding and finding.state != "ok":
        assert finding.advice


def test_damaged_weights_in_the_cache_are_found(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "yolo26n.pt").write_bytes(b"\0" * 5_544_453)
    findings = doctor.weights(Access(tmp_path))
    assert any(f.state == "FAIL" and f.advice == "autolabel weights fetch yolo26n" for f in findings)


def test_offline_without_downloads_points_to_the_models_of_the_package(tmp_path: Path) -> None:
    findings = doctor.weights(Access(tmp_path, offline=True))
    assert any(f.state == "warn" and "experiment=offline" in f.advice for f in findings)
    assert len(findings) == len(SHIPPED) + 1


def test_looking_at_the_cache_creates_nothing(tmp_path: Path) -> None:
    doctor.cache_place(Access(tmp_path / "not" / "yet"))
    assert list(tmp_path.iterdir()) == []


def test_a_cache_below_a_file_does_not_end_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert doctor.cache_place(Access(tmp_path / "file" / "cache"))


def test_a_wrong_environment_variable_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "perhaps")
    (finding,) = doctor.storage()
    assert finding.state == "FAIL"
    assert "AUTOLABEL_OFFLINE" in finding.what


def test_the_password_of_a_proxy_is_not_shown() -> None:
    finding = doctor.network(Access(Path("/c")), {"HTTPS_PROXY": "http://me:secret@proxy.example:3128"})
    assert "proxy.example" in finding.what
    assert "secret" not in finding.what


def test_one_thread_by_mistake_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert all("unset OMP_NUM_THREADS" in f.advice for f in doctor.processor() if f.state == "warn")


def test_wrong_usage_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="autolabel doctor --help"):
        doctor.main(["--what"])


@pytest.mark.slow
def test_the_whole_examination_is_json_on_request_and_its_exit_code_follows_the_findings() -> None:
    out = io.StringIO()
    code = doctor.main(["--json"], out=out)
    findings = json.loads(out.getvalue())
    assert code == any(f["state"] == "FAIL" for f in findings)
    assert all(f["advice"] for f in findings if f["state"] != "ok")
    assert any(f["what"].startswith("torchvision") for f in findings)
