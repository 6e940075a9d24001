"""Linear layers by oneDNN: the numbers of float32, and one line where that cannot be."""

import numpy as np
import pytest
import torch

from autolabel.core.errors import ConfigError
from autolabel.core.types import Prompts
from autolabel.ops.masks import iou
from autolabel.segment import linear
from autolabel.segment.linear import FEWEST_ROWS, MOST_ERROR, by_onednn, check, choose_linear, use_onednn
from tests.unit.test_segment_sam2 import BOXES, frame, segmenter

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


def two_layers():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(96, 384), torch.nn.GELU(), torch.nn.Linear(384, 96, bias=False)
    ).eval()


@pytest.mark.parametrize("shape", [(4, 50, 96), (FEWEST_ROWS, 96), (FEWEST_ROWS - 1, 96), (96,), (0, 96)])
def test_a_model_gives_the_same_numbers_but_for_last_digits(shape):
    model, rows = two_layers(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(rows)
        use_onednn(model)
        found = model(rows)
    assert [type(layer) is by_onednn() for layer in model] == [True, False, True]
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_that_are_not_together_in_memory_are_taken_too():
    model, rows = two_layers(), torch.randn(96, 300).T
    expected = model(rows)
    use_onednn(model)
    torch.testing.assert_close(model(rows), expected, rtol=1e-5, atol=1e-5)


def test_the_masks_of_sam2_stay():
    plain, other = segmenter(), segmenter(linear="onednn")
    assert any(type(layer) is by_onednn() for layer in other._model.modules())
    assert not any(type(layer) is by_onednn() for layer in plain._model.modules())
    asked = [Prompts(boxes_xyxy=BOXES)]
    (expected,), (found,) = plain.segment([frame()], asked), other.segment([frame()], asked)
    assert min(iou(a.mask, b.mask) for a, b in zip(expected, found, strict=True)) > 0.999
    np.testing.assert_allclose([a.predicted_iou for a in found], [a.predicted_iou for a in expected], atol=1e-4)


def test_the_one_that_computes_is_in_the_identity_but_for_torch_which_runs_of_before_do_not_name(monkeypatch):
    plain = segmenter().identity
    assert segmenter(linear="onednn").identity == {**plain, "linear": "onednn"}
    for faster in (False, True):
        monkeypatch.setattr(linear, "is_faster", lambda capability, faster=faster: faster)
        assert segmenter(linear="auto").identity == ({**plain, "linear": "onednn"} if faster else plain)
    monkeypatch.setattr(linear, "by_onednn", absent)
    assert segmenter(linear="auto").identity == plain


def test_numbers_of_another_precision_are_refused(monkeypatch):
    model = two_layers()
    use_onednn(model)
    assert check(model[0]) <= MOST_ERROR
    monkeypatch.setattr(linear, "check", lambda layer: 3e-3)
    with pytest.raises(ConfigError, match=r"linear=onednn: its numbers differ by 3e-03 .* set linear=torch"):
        use_onednn(two_layers())


def test_the_check_sees_bfloat16():
    layer = two_layers()[0]
    layer.forward = lambda rows: torch.nn.functional.linear(
        rows.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()
    )
    assert check(layer) > MOST_ERROR


def absent():
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def of_another_form():
    class Refuses(torch.nn.Linear):
        def forward(self, rows):
            raise RuntimeError("mkldnn::_linear_pointwise() is missing value for argument 'algorithm'")

    return Refuses


@pytest.mark.parametrize("found", [absent, of_another_form])
def test_a_torch_without_it_is_one_line(monkeypatch, found):
    monkeypatch.setattr(linear, "by_onednn", found)
    with pytest.raises(ConfigError, match=r"linear=onednn: this torch has no such .* set linear=torch"):
        use_onednn(two_layers())


def test_it_is_for_float32_alone():
    with pytest.raises(ConfigError, match=r"linear=onednn is for float32 on a CPU, this is bfloat16 on cpu"):
        segmenter(linear="onednn", precision="bfloat16")
    with pytest.raises(ConfigError, match=r"linear must be one of auto, torch, onednn, got 'mkl'"):
        segmenter(linear="mkl")


def kinds(model):
    return {type(layer) for layer in model if type(layer) is not torch.nn.GELU}


def chosen(way, device_kind="cpu", precision="float32"):
    model = two_layers()
    library = choose_linear(model, way, device_kind=device_kind, precision=precision)
    assert (library == "onednn") == (by_onednn() in kinds(model))
    return kinds(model)


AMD, INTEL = "vendor_id\t: AuthenticAMD\n", "vendor_id\t: GenuineIntel\n"


@pytest.mark.parametrize(
    ("maker", "capability", "faster"),
    [(AMD, "AVX512", True), (AMD, "AVX2", False), (INTEL, "AVX512", False), ("", "DEFAULT", False)],
)
def test_auto_is_onednn_where_that_is_known_to_be_faster(tmp_path, monkeypatch, maker, capability, faster):
    (tmp_path / "cpuinfo").write_text(maker)
    monkeypatch.setattr(linear, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert chosen("auto") == ({by_onednn()} if faster else {torch.nn.Linear})


def test_a_processor_without_cpuinfo_says_its_maker_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "_CPUINFO", tmp_path / "absent")
    for says, faster in (
        ("AMD64 Family 25 Model 97, AuthenticAMD", True),
        ("Intel64 Family 6, GenuineIntel", False),
    ):
        monkeypatch.setattr(linear.platform, "processor", lambda says=says: says)
        assert linear.is_faster("AVX512") is faster


def test_auto_leaves_a_gpu_and_bfloat16_alone(monkeypatch):
    monkeypatch.setattr(linear, "is_faster", lambda capability: True)
    assert chosen("auto", device_kind="cuda") == chosen("auto", precision="bfloat16") == {torch.nn.Linear}
    assert chosen("torch") == {torch.nn.Linear}


@pytest.mark.parametrize("found", [absent, of_another_form])
def test_auto_is_torch_where_onednn_fails(monkeypatch, found):
    monkeypatch.setattr(linear, "is_faster", lambda capability: True)
    monkeypatch.setattr(linear, "by_onednn", found)
    assert chosen("auto") == {torch.nn.Linear}
