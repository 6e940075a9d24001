"""Buckets of many pictures: the masks that each picture has alone, whatever else is in the bucket."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from autolabel.core.errors import ConfigError, ImageError
from autolabel.core.types import Prompts
from autolabel.ops.masks import encode, iou
from autolabel.segment import sam2, sam2_buckets
from autolabel.segment.compiling import bucket_of, padded
from autolabel.segment.sam2_buckets import Threads, Work, flattened
from autolabel.segment.sam2_decoder import MaskDecoder
from tests.records import disc
from tests.unit.test_segment_sam2 import BOXES, frame, segmenter

FRAMES = [frame(0), frame(1, 96, 200), frame(2)]
MANY = np.tile(BOXES, (3, 1))[:7] + np.arange(7, dtype=np.float32)[:, None]
ASKED = [Prompts(boxes_xyxy=BOXES), Prompts(boxes_xyxy=MANY), Prompts(boxes_xyxy=BOXES[:1])]


def nano_of(side: int, folder) -> str:
    """The nano model at another size: the same weights, less work."""
    path = folder / f"nano_{side}.yaml"
    path.write_text(sam2.read_architecture("nano").replace("image_size: 512", f"image_size: {side}"))
    return str(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return nano_of(256, tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return nano_of(128, tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module")
def alone(small):
    return segmenter(small, "nano_segmenter", batching="image")


def in_buckets(small, **settings):
    sizes = {"prompt_chunk": 4, "encode_batch": 2}
    return segmenter(small, "nano_segmenter", **{"batching": "bucket", **sizes, **settings})


@pytest.fixture(scope="module")
def together(small):
    return in_buckets(small)


def assert_same(found, expected):
    """The same prompts answered, with masks and scores that differ by last digits at most."""
    for ours, theirs in zip(found, expected, strict=True):
        assert [answer.prompt for answer in ours] == [answer.prompt for answer in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.mask == b.mask or iou(a.mask, b.mask) > 0.999
            assert np.allclose([a.predicted_iou, a.object_score], [b.predicted_iou, b.object_score], atol=1e-5)


def test_a_picture_in_a_bucket_has_the_masks_it_has_alone(alone, together):
    assert_same(together.segment(FRAMES, ASKED), alone.segment(FRAMES, ASKED))


def test_points_and_boxes_of_many_pictures_keep_their_places(alone, together):
    points = Prompts(
        boxes_xyxy=np.concatenate([BOXES[:2], np.full((1, 4), np.nan, np.float32)]),
        points_xy=np.array([[[50, 60], [0, 0]], [[100, 30], [80, 50]], [[70, 40], [0, 0]]], np.float32),
        point_signs=np.array([[1, -1], [1, 0], [1, -1]], np.int64),
    )
    asked = [points, ASKED[0], points]
    assert_same(together.segment(FRAMES, asked), alone.segment(FRAMES, asked))


def test_what_buckets_cannot_hold_is_asked_picture_by_picture(alone, together):
    asked = [
        ASKED[0],
        replace(ASKED[2], masks=(encode(disc(96, 200, 60, 60, 30)),)),
        Prompts(boxes_xyxy=BOXES[:0]),
    ]
    assert_same(together.segment(FRAMES, asked), alone.segment(FRAMES, asked))


@pytest.mark.parametrize("choice", ["best_iou", "best_box_fit", "most_stable"])
def test_one_of_three_is_the_same_one(small, choice):
    settings = {"masks": choice, "prompt_chunk": 4}
    found = in_buckets(small, **settings).segment(FRAMES[:2], ASKED[:2])
    assert_same(found, segmenter(small, "nano_segmenter", **settings).segment(FRAMES[:2], ASKED[:2]))


def test_the_networks_see_few_sizes_and_pads_have_no_answers(together, monkeypatch):
    sizes = []

    def watched(function, size_of):
        def call(*inputs):
            sizes.append(size_of(*inputs))
            return function(*inputs)

        return call

    buckets = together._buckets
    monkeypatch.setattr(buckets, "_encode", watched(buckets._encode, lambda images: ("images", len(images))))
    monkeypatch.setattr(buckets, "_maps", watched(buckets._maps, lambda side, image, xy, _: ("prompts", len(xy))))
    answers = together.segment(FRAMES, ASKED)
    assert [len(found) for found in answers] == [3, 7, 1]
    # 10 boxes of two pictures, then one of the third.
    assert sizes == [("images", 2), ("prompts", 4), ("prompts", 4), ("prompts", 2), ("images", 1), ("prompts", 1)]


def test_prompts_of_an_only_picture_share_its_places(alone, small, monkeypatch):
    """Rows of their own would be a copy of the whole image side a prompt."""
    segmenter, seen = in_buckets(small, encode_batch=1), []
    decode = MaskDecoder.__call__

    def watched(self, images, image_of_prompt, sparse):
        seen.append((len(images), image_of_prompt))
        return decode(self, images, image_of_prompt, sparse)

    monkeypatch.setattr(MaskDecoder, "__call__", watched)
    found = segmenter.segment(FRAMES, ASKED)
    assert set(seen) == {(1, None)}
    monkeypatch.undo()
    assert_same(found, alone.segment(FRAMES, ASKED))


COUNTS = [(1, 1), (1, 2), (1, 3), (1, 8), (2, 1), (3, 1), (4, 8)]
"""Of pictures, and of prompts a picture."""


def ask_many_counts(segmenter):
    """Of each of COUNTS boxes, and boxes with a click each."""
    for pictures, n in COUNTS:
        boxes = Prompts(boxes_xyxy=np.tile(BOXES, (3, 1))[:n])
        clicks = np.full((n, 1, 2), 60, np.float32), np.ones((n, 1), np.int64)
        for asked in (boxes, replace(boxes, points_xy=clicks[0], point_signs=clicks[1])):
            segmenter.segment([frame(seed) for seed in range(pictures)], [asked] * pictures)


ENCODER_SHAPES = {1, 2, 4}
DECODER_SHAPES = {(4, prompts, points) for prompts in (1, 2, 4, 8, 16) for points in (2, 3)}
"""Pictures, prompts, points of a prompt: however few pictures there are, all four are in the shape."""


def test_what_is_compiled_sees_few_shapes_whatever_it_is_asked(tiny, monkeypatch):
    seen = []

    def as_if_compiled(function, mode, *, shapes, device_kind):
        sizes = set()
        seen.append((shapes, sizes))

        def call(first, *columns):
            sizes.add((len(first), len(columns[0]), columns[1].shape[1]) if columns else len(first))
            return function(first, *columns)

        return call

    for module in (sam2, sam2_buckets):
        monkeypatch.setattr(module, "compiled", as_if_compiled)
    ask_many_counts(in_buckets(tiny, compile_mode="default", encode_batch=4, prompt_chunk=16))
    (encoder_room, encoder), (decoder_room, decoder) = seen
    assert (encoder, decoder) == (ENCODER_SHAPES, DECODER_SHAPES)
    assert (encoder_room, decoder_room) == (3, 5 * sam2_buckets._KINDS_OF_PROMPTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_shape_is_computed_without_having_been_compiled(tiny, monkeypatch):
    """More shapes than torch compiles of itself: it would leave off with a line in the log."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic, **_: compile_(function, backend=counting, dynamic=dynamic)
    )
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=8):
        compiled = in_buckets(tiny, compile_mode="default", encode_batch=4, prompt_chunk=16)
        for _ in range(2):
            ask_many_counts(compiled)
            assert len(graphs) == len(ENCODER_SHAPES) + len(DECODER_SHAPES)


def test_a_size_holds_its_rows_is_never_above_the_largest_and_half_of_one_is_one():
    for largest in (1, 8, 63, 100):
        sizes = [bucket_of(n, largest) for n in range(1, largest + 1)]
        assert all(n <= size <= largest for n, size in enumerate(sizes, 1))
        assert len(set(sizes)) <= largest.bit_length() + 1
    assert bucket_of(4, 8) * 2 == bucket_of(8, 8)


def test_padding_repeats_the_last_row():
    rows = torch.tensor([[1], [2]])
    assert padded(rows, 4).tolist() == [[1], [2], [2], [2]]
    assert padded(rows, 2) is rows


def test_flattened_prompts_know_their_picture_and_row():
    (boxes,) = flattened(ASKED, [(120, 160), (96, 200), (120, 160)], 256)
    assert boxes.image.tolist() == [0] * 3 + [1] * 7 + [2]
    assert boxes.row.tolist() == [*range(3), *range(7), 0]
    assert np.allclose(boxes.xy[3, 0], BOXES[0, :2] / [200, 96] * 256)


def full_above(limit, function, size_of):
    """`function`, on a device that has room for `limit`."""

    def call(*inputs):
        if size_of(*inputs) > limit:
            raise torch.OutOfMemoryError
        return function(*inputs)

    return call


@pytest.mark.parametrize(("part", "limit"), [("_encode", 1), ("_maps", 1)])
def test_out_of_memory_halves_the_bucket_and_loses_nothing(alone, together, monkeypatch, part, limit):
    buckets = together._buckets
    size_of = len if part == "_encode" else lambda side, image, xy, _: len(xy)
    monkeypatch.setattr(buckets, part, full_above(limit, getattr(buckets, part), size_of))
    assert_same(together.segment(FRAMES, ASKED), alone.segment(FRAMES, ASKED))


@pytest.mark.parametrize("part", ["_encode", "_maps"])
def test_one_that_does_not_fit_is_the_pictures_error(together, monkeypatch, part):
    monkeypatch.setattr(together._buckets, part, full_above(0, None, lambda *_: 1))
    with pytest.raises(ImageError, match="out_of_memory"):
        together.segment(FRAMES[:1], ASKED[:1])


def test_prompts_without_room_beside_several_pictures_are_asked_beside_fewer(alone, together, monkeypatch):
    buckets, beside = together._buckets, []

    def room(side, image, *_):
        beside.append(len(side.keys))
        return beside[-1]

    monkeypatch.setattr(buckets, "_maps", full_above(1, buckets._maps, room))
    monkeypatch.setattr(buckets._images, "size", 2)
    prompts = buckets._prompts.size
    found = together.segment(FRAMES, ASKED)
    assert_same(found, alone.segment(FRAMES, ASKED))
    assert [len(answers) for answers in found] == [len(asked) for asked in ASKED], "answered once"
    assert (buckets._images.size, buckets._prompts.size) == (1, prompts)
    assert beside[-1] == 1


def test_an_unanswered_prompt_of_one_picture_shifts_none_of_another(alone, together):
    holed = BOXES.copy()
    holed[1] = np.nan
    asked = [Prompts(boxes_xyxy=holed), ASKED[1], ASKED[2]]
    found = together.segment(FRAMES, asked)
    assert [answer.prompt for answer in found[0]] == [0, 2]
    assert_same(found, alone.segment(FRAMES, asked))


def test_pictures_without_prompts_never_reach_the_encoder(together, monkeypatch):
    monkeypatch.setattr(together._buckets, "_encode", None)
    assert together.segment(FRAMES[:2], [Prompts(boxes_xyxy=BOXES[:0])] * 2) == [[], []]
    assert together.segment([], []) == []


@pytest.mark.parametrize("fails", [True, False])
def test_whatever_work_raises_nothing_of_it_runs_afterwards(fails):
    begun, done = [], []

    def call() -> None:
        begun.append(1)
        time.sleep(0.01)
        if fails and len(begun) > 3:
            raise ZeroDivisionError
        done.append(1)

    work = Work(Threads())
    for _ in range(20):
        work.add(call, 2**26)  # more than may wait
    if fails:
        with pytest.raises(ZeroDivisionError):
            work.wait()
    else:
        work.wait()
        assert len(done) == 20
    then = list(begun), list(done)
    time.sleep(0.05)
    assert (begun, done) == then


def test_work_waits_for_room_of_all_batches_together():
    threads, go = Threads(), threading.Event()
    first, second = Work(threads), Work(threads)
    first.add(go.wait, 2**28)
    adding = threading.Thread(target=second.add, args=(int, 1))
    adding.start()
    adding.join(0.1)
    assert adding.is_alive()
    go.set()
    adding.join(10)
    assert not adding.is_alive()
    first.wait()
    second.wait()


def test_threads_end_with_the_segmenter_that_holds_them():
    threads, seen = Threads(), []
    threads.submit(lambda: seen.append(threading.current_thread()), 1).result()
    (its,) = seen
    assert its.is_alive()
    del threads
    its.join(10)
    assert not its.is_alive()


def test_answers_come_later_and_nothing_that_waits_for_them_holds_pixels(together, alone):
    frames = [frame(seed) for seed in range(2)]
    pixels = [weakref.ref(one.image_rgb) for one in frames]
    later = together.begin(frames, ASKED[:2])
    del frames
    gc.collect()
    assert [one() for one in pixels] == [None, None]
    assert_same(later(), alone.segment([frame(0), frame(1)], ASKED[:2]))


def test_how_it_is_computed_is_part_of_the_identity(alone, together):
    assert alone.identity["batching"] == "image"
    assert {**alone.identity, "batching": "bucket"} == together.identity


@pytest.mark.parametrize("setting", [{"refine_steps": 1}, {"masks": "best_box_fit"}])
def test_what_is_asked_picture_by_picture_needs_no_buckets(small, setting):
    assert in_buckets(small, **setting).identity["batching"] == "image"


def test_without_a_compiler_compiling_is_refused_before_the_first_picture(small, monkeypatch):
    def none_found():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    with pytest.raises(ConfigError, match=r"^compile_mode=default needs a C\+\+ compiler .* compile_mode=none"):
        segmenter(small, "nano_segmenter", compile_mode="default")


def test_picture_by_picture_the_encoder_is_compiled_for_few_sizes(small, monkeypatch):
    plain = segmenter(small, "nano_segmenter", encode_batch=4, batching="image")
    sizes = []

    def as_if_compiled(function, mode, *, shapes, device_kind):
        assert (mode, shapes) == ("default", 3)  # 1, 2, 4

        def call(images):
            sizes.append(len(images))
            return function(images)

        return call

    monkeypatch.setattr(sam2, "compiled", as_if_compiled)
    compiled = segmenter(small, "nano_segmenter", compile_mode="default", encode_batch=4, batching="image")
    for n in (1, 3, 4, 2):
        frames, asked = [frame(seed) for seed in range(n)], [Prompts(boxes_xyxy=BOXES)] * n
        assert_same(compiled.segment(frames, asked), plain.segment(frames, asked))
    assert sizes == [1, 4, 4, 2]


@pytest.mark.parametrize(("compile_mode", "batching"), [("none", "image"), ("default", "bucket")])
def test_left_to_the_device_a_cpu_fills_buckets_where_they_are_compiled(
    small, monkeypatch, compile_mode, batching
):
    for module in (sam2, sam2_buckets):
        monkeypatch.setattr(module, "compiled", lambda function, *_, **__: function)
    found = segmenter(small, "nano_segmenter", compile_mode=compile_mode, batching="auto")
    assert found.identity["batching"] == batching


def test_words_that_there_are_not_are_refused(small):
    for setting in ("batching", "compile_mode"):
        with pytest.raises(ConfigError, match=f"^{setting} "):
            segmenter(small, "nano_segmenter", **{setting: "maybe"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("batching", ["image", "bucket"])
def test_a_compiled_network_gives_the_same_masks(alone, small, batching):
    compiled = in_buckets(small, compile_mode="default", batching=batching)
    assert_same(compiled.segment(FRAMES, ASKED), alone.segment(FRAMES, ASKED))
