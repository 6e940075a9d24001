"""Where a model computes, in which precision, and in pieces of which size."""

from __future__ import annotations

import pytest
import torch

from autolabel.core.errors import ImageError
from autolabel.ops.device import Chunks, choose_precision, runs_bf16


def with_room_for(limit: int, sizes: list[int]):
    """What a device computes that has room for so many items; it notes how many it was given."""

    def run(start: int, stop: int) -> list[int]:
        sizes.append(stop - start)
        if stop - start > limit:
            raise torch.OutOfMemoryError
        return list(range(start, stop))

    return run


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
