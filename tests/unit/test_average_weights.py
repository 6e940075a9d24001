"""Averages of weights: the share of each, in float32, and what the JSON beside them says."""

import hashlib
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts import average_nano_weights


def weights(folder, name, value, **about):
    path = folder / f"{name}.safetensors"
    save_file({"w": torch.full((2, 3), value, dtype=torch.float16), "seen": torch.tensor([int(value)])}, path)
    facts = {"sha256": "old", "bytes": 1, "metrics": {"ap": 0.5}, "names": ["object"], **about}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def average(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["average", *map(str, arguments)])
    average_nano_weights.main()


def test_shares_are_of_their_sum(tmp_path, monkeypatch):
    a, b, out = (
        weights(tmp_path, "a", 1.0, seed=3),
        weights(tmp_path, "b", 5.0, seed=4),
        tmp_path / "c.safetensors",
    )
    average(monkeypatch, "--weights", a, b, "--shares", 3, 1, "--out", out)
    found = load_file(out)
    assert found["w"].dtype == torch.float16
    assert (found["w"] == 2.0).all()
    assert found["seen"].tolist() == [5]  # a counter is the last's
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert about["bytes"] == out.stat().st_size
    assert about["names"] == ["object"]
    assert "metrics" not in about  # those of one of them
    assert [(part["share"], part["seed"]) for part in about["averaged"]] == [(0.75, 3), (0.25, 4)]


def test_a_half_is_averaged_in_more_than_halves(tmp_path, monkeypatch):
    # 2049 is no float16, and so is no step of a sum in it: (2048 + 2050 + 2052) / 3 must be 2050.
    parts = [weights(tmp_path, name, value) for name, value in (("a", 2048.0), ("b", 2050.0), ("c", 2052.0))]
    average(monkeypatch, "--weights", *parts, "--shares", 1, 1, 1, "--out", tmp_path / "d.safetensors")
    assert (load_file(tmp_path / "d.safetensors")["w"] == 2050.0).all()


@pytest.mark.parametrize("shares", [["1"], ["1", "0"], ["1", "-1"]])
def test_shares_that_are_none_are_refused(tmp_path, monkeypatch, shares, capsys):
    a, b = weights(tmp_path, "a", 1.0), weights(tmp_path, "b", 2.0)
    with pytest.raises(SystemExit):
        average(monkeypatch, "--weights", a, b, "--out", tmp_path / "c.safetensors", "--shares", *shares)
    assert "2 weights need as many shares above 0" in capsys.readouterr().err
    assert not (tmp_path / "c.safetensors").exists()
