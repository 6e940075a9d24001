"""Where a model computes, in which precision, and in pieces of which size."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from autolabel.core.errors import ImageError
from autolabel.ops.device import Chunks, choose_precision, every_digit, runs_bf16, without_denormals


def with_room_for(limit: int, sizes: list[int]):
    """What a device computes that has room for so many items; it notes how many it was given."""

    def run(start: int, stop: int) -> list[int]:
        sizes.append(stop - start)
        if stop - start > limit:
            raise torch.OutOfMemoryError
        return list(range(start, stop))

    return run


def denormals_are_zero() -> bool:
    return bool(torch.full((8,), 1e-30).mul(1e-10).eq(0).all())


def test_denormals_are_zero_within_and_as_before_afterwards():
    assert not denormals_are_zero()
    with without_denormals("cpu"):
        assert denormals_are_zero()
    assert not denormals_are_zero()
    with pytest.raises(KeyError), without_denormals("cpu"):
        raise KeyError
    assert not denormals_are_zero()
    with without_denormals("cuda"):
        assert not denormals_are_zero()
    torch.set_flush_denormal(True)
    try:
        with without_denormals("cpu"):
            pass
        assert denormals_are_zero(), "whoever wanted it so keeps it"
    finally:
        torch.set_flush_denormal(False)


def test_out_of_memory_halves_the_chunk_and_goes_on():
    sizes = []
    assert Chunks(8).run(10, with_room_for(3, sizes)) == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_what_did_not_fit_is_not_tried_again(caplog):
    chunks, sizes = Chunks(8), []
    for _ in range(2):
        assert chunks.run(10, with_room_for(3, sizes)) == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert caplog.messages == [f"{n} at once are out of the device's memory; {n // 2} from now on" for n in (8, 4)]


def test_an_answer_may_have_more_or_less_than_was_asked():
    assert Chunks(2).run(5, lambda start, stop: [start] * (start + 1)) == [0, *[2] * 3, *[4] * 5]
    assert Chunks(2).run(5, lambda start, stop: []) == []


def test_one_item_that_does_not_fit_is_an_error():
    chunks, sizes = Chunks(2), []
    for _ in range(2):
        with pytest.raises(ImageError, match="out_of_memory"):
            chunks.run(3, with_room_for(0, sizes))
    assert sizes == [2, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_whoever_says_that_there_is_no_room_is_believed(error):
    def run(start, stop):
        if stop - start > 1:
            raise error
        return [start]

    assert Chunks(4).run(4, run) == [0, 1, 2, 3]


def test_another_error_of_the_device_stays_itself():
    def run(start, stop):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        Chunks(4).run(4, run)


def test_the_error_about_one_item_holds_nothing_of_the_try():
    def run(start, stop):
        raise torch.OutOfMemoryError

    with pytest.raises(ImageError) as caught:
        Chunks(1).run(1, run)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


TF32_SETTINGS = """
import torch
{asked}
from autolabel.ops.device import every_digit
backends = torch.backends
state = lambda: (backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision, backends.fp32_precision)
before = state()
with every_digit():
    assert state()[:2] == ("ieee", "ieee"), state()
assert state() == before, state()
print(*before)
"""


@pytest.mark.parametrize(
    ("asked", "environment", "before"),
    [
        ("", {}, "none tf32 none"),
        ("", {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}, "tf32 tf32 none"),
        ("torch.set_float32_matmul_precision('high')", {}, "tf32 tf32 none"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", {}, "tf32 tf32 none"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", {}, "tf32 tf32 none"),
        ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", {}, "none ieee none"),
        ("torch.backends.fp32_precision = 'tf32'", {}, "tf32 tf32 tf32"),
    ],
)
def test_float32_has_all_its_digits_whoever_asked_for_less(asked, environment, before):
    # The settings are of a whole process, and some mixtures cannot be undone in it.
    found = subprocess.run(
        [sys.executable, "-c", TF32_SETTINGS.format(asked=asked)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout.strip()) == (0, before), found.stderr


def test_the_settings_come_back_after_an_error():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    with pytest.raises(KeyError), every_digit():
        raise KeyError
    assert conv.fp32_precision == before


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_cpu_is_exact_unless_asked_to_be_fast_and_says_when_it_cannot(monkeypatch, caplog, has_bf16):
    monkeypatch.setattr("autolabel.ops.device.runs_bf16", lambda device: has_bf16)
    chosen = {word: choose_precision(word, "cpu", key="k") for word in ("auto", "float32", "fast", "bfloat16")}
    fast = "bfloat16" if has_bf16 else "float32"
    assert chosen == {"auto": "float32", "float32": "float32", "fast": fast, "bfloat16": "bfloat16"}
    assert len(caplog.messages) == (0 if has_bf16 else 2)
    assert choose_precision("fast", "cuda", key="k") == fast
    assert choose_precision("auto", "cuda", key="k") == "float32"


CURRENT, CAPABILITIES = 0, {0: (7, 5), 1: (9, 0)}


@pytest.fixture
def two_gpus(monkeypatch):
    """An old GPU, which is the current one, and a new one."""

    def capability(device=None):
        number = CURRENT if device is None or torch.device(device).index is None else torch.device(device).index
        return CAPABILITIES[number]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("device", "precision"), [("cuda", "float32"), ("cuda:0", "float32"), ("cuda:1", "bfloat16")]
)
def test_it_is_the_chosen_gpu_that_is_asked_for_bfloat16(device, precision):
    for place in (device, torch.device(device)):
        assert choose_precision("fast", place, key="k") == precision
        assert runs_bf16(place) is (precision == "bfloat16")


@pytest.mark.usefixtures("two_gpus")
def test_a_segmenter_asks_the_gpu_it_was_given(monkeypatch):
    from autolabel.segment.asking import read_asking

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = {"precision": "fast", "prompt_chunk": 0, "encode_batch": 0, "masks": "single", "refine_steps": 0,
             "refine_with": "prompt", "chunk_on_cuda": 128}  # fmt: skip
    chosen = [read_asking(device=f"cuda:{number}", **asked).precision for number in (0, 1)]
    assert chosen == ["float32", "bfloat16"]
