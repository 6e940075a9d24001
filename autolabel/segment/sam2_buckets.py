"""SAM 2 for devices that want much work at once: pictures and prompts of many pictures in buckets; in few sizes, where
they are compiled.

The device does not wait for masks: the maps of a bucket travel into pinned memory while the next one is computed,
and threads make them into run lengths. Computes the same on a CPU, where it pays only compiled. Refuses prompts with
masks, sieves and refine steps: `sam2.py` asks those picture by picture. Imports no model.

Letters in shapes: I pictures of one encoder call, N prompts, P points, R the model's image side, h and w the
low-resolution mask.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolabel.core.errors import ImageError
from autolabel.core.protocols import Later
from autolabel.core.types import Float32, Frame, Int64, PromptedMask, Prompts, UInt8
from autolabel.ops.box_prior import BoxPrior
from autolabel.ops.device import Chunks, upload
from autolabel.segment.answers import Canvas, prompted, stability
from autolabel.segment.compiling import bucket_of, compiled, num_buckets, padded
from autolabel.segment.inputs import by_shape, to_model_xy
from autolabel.segment.sam2_decoder import ImageSide, MaskDecoder

CHOICES = ("single", "best_iou", "most_stable")
"""Ways to one mask that look at the maps alone, and so need not leave the device."""
_WAITING_BYTES = 256 * 2**20
"""Most bytes of maps that wait for a thread."""
_PIECE = 16
"""Maps that a thread makes into masks at once."""
_KINDS_OF_PROMPTS = 16
"""A run may have: a box alone, with one point, two points, and so on."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Prompts with one number of points, of several pictures: `image` (N,) and `row` (N,) say whose and which they
    are; `xy` (N, P, 2) is in pixels of the model's square, with `labels` (N, P). `boxes_xyxy` (N, 4), in pixels of the
    picture, are those that a prior may go by, NaN where there is none."""

    image: Int64
    row: Int64
    xy: Float32
    labels: Int64
    boxes_xyxy: Float32

    def __len__(self) -> int:
        return len(self.row)

    def part(self, start: int, stop: int) -> Asked:
        index = slice(start, stop)
        return Asked(*(getattr(self, name)[index] for name in Asked.__slots__))


def flattened(prompts: Sequence[Prompts], sizes_hw: Sequence[tuple[int, int]], side: int) -> list[Asked]:
    """All prompts of the pictures, those with as many points (a box is two) together, in the pictures' order."""
    found: dict[int, list[Asked]] = defaultdict(list)
    for image, (one, size_hw) in enumerate(zip(prompts, sizes_hw, strict=True)):
        for inputs in by_shape(one):
            assert inputs.xy is not None, "a prompt of a mask alone is not for buckets"
            assert inputs.labels is not None
            xy = to_model_xy(inputs.xy, size_hw, side)
            whose = np.full(len(inputs), image, np.int64)
            found[xy.shape[1]].append(Asked(whose, inputs.rows, xy, inputs.labels, inputs.boxes_for_prior()))
    return [_joined(parts) for parts in found.values()]


def _joined(parts: Sequence[Asked]) -> Asked:
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in Asked.__slots__)
    return Asked(*columns)


class BucketSegmenter:
    """Boxes and points of many pictures to masks, with the network of a SAM2Base (`model`).

    `encode(images)` gives of (I, 3, R, R) the embedding and the features of strides 4 and 8, compiled already. Pictures
    and prompts are computed in the chunks of `images` and `prompts`; `choice` is one of CHOICES. `within()` is what
    every computation runs in. `compile_mode` is one of torch.compile's, or `none`. Masks of boxes are made with the
    `prior`.
    """

    def __init__(
        self,
        model: Any,
        *,
        to_input: Callable[[UInt8], Any],
        encode: Callable[[Any], tuple[Any, tuple[Any, Any]]],
        within: Callable[[], AbstractContextManager[Any]],
        images: Chunks,
        prompts: Chunks,
        choice: str,
        compile_mode: str,
        fused: bool | None,
        prior: BoxPrior | None = None,
    ) -> None:
        self._model = model
        self._decoder = MaskDecoder(model)
        self._to_input = to_input
        self._device = next(model.parameters()).device
        kind, shapes = self._device.type, num_buckets(prompts.size) * _KINDS_OF_PROMPTS
        self._encode = encode
        self._maps = compiled(self._maps_of, compile_mode, shapes=shapes, device_kind=kind)
        self._within = within
        self._images, self._prompts, self._choice = images, prompts, choice
        self._fused, self._prior = fused, prior
        self._compiles = compile_mode != "none"
        self._scores_objects = bool(model.pred_obj_scores)
        self._copies = Copies(self._device)
        self._threads = Threads()

    def begin(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> Later:
        """Answers in the order of the prompts, once the device and the threads are done with them. Every picture is
        encoded, so leave out those without prompts.

        Raises ImageError `out_of_memory` when a single image or prompt does not fit on the device.
        """
        canvases = [Canvas(frame.info.size_hw, self._fused, self._prior) for frame in frames]
        work = Work(self._threads)

        def run(start: int, stop: int) -> list[list[PromptedMask]]:
            # Of this try alone: one without room is begun anew, while threads may still fill its lists.
            answers: list[list[PromptedMask]] = [[] for _ in range(start, stop)]
            images = self._side([frame.image_rgb for frame in frames[start:stop]])
            sizes_hw = [canvas.size_hw for canvas in canvases[start:stop]]
            for asked in flattened(prompts[start:stop], sizes_hw, self._model.image_size):
                self._ask(images, asked, canvases[start:stop], answers, work)
            return answers

        try:
            answers = self._images.run(len(frames), run)
        except BaseException:
            work.give_up()
            raise

        def later() -> list[list[PromptedMask]]:
            work.wait()
            return [sorted(some, key=lambda answer: answer.prompt) for some in answers]

        return later

    def _side(self, images_rgb: Sequence[UInt8]) -> ImageSide:
        import torch

        with self._within():
            inputs = torch.stack([self._to_input(image) for image in images_rgb])
            n, largest = len(inputs), self._images.size
            inputs = padded(inputs, bucket_of(n, largest)) if self._compiles else inputs
            embedding, (stride_4, stride_8) = self._encode(inputs)
            # The padding goes before anything is computed for prompts. Where that is compiled once a shape, it always
            # has as many pictures instead, and so as many shapes as there are buckets of prompts.
            rows = max(largest, n) if self._compiles else n
            levels = [padded(level[:rows], rows) for level in (embedding, stride_4, stride_8)]
            return self._decoder.image_side(levels[0], (levels[1], levels[2]))

    def _ask(
        self,
        images: ImageSide,
        asked: Asked,
        canvases: Sequence[Canvas],
        answers: Sequence[list[PromptedMask]],
        work: Work,
    ) -> None:
        """Every prompt in buckets; what they answer is put into `answers` by threads.

        Raises torch.OutOfMemoryError where a single prompt has no room beside several pictures."""
        import torch

        def run(start: int, stop: int) -> list[None]:
            part = asked.part(start, stop)
            with self._within():
                maps = self._bucket(images, part)
                waiting = self._copies.to_host(maps)
            for first in range(0, len(part), _PIECE):
                piece = slice(first, first + _PIECE)

                def make(piece: slice = piece) -> None:
                    for image, answer in self._masks(part, waiting, piece, canvases):
                        answers[image].append(answer)

                work.add(make, waiting.num_bytes * _PIECE // max(len(part), 1))
            return [None] * len(part)

        at_once = self._prompts.size
        try:
            self._prompts.run(len(asked), run)
        except ImageError:
            # The pictures take the room, not the number of prompts: next time there are fewer of them, or others.
            self._prompts.size = at_once
            if len(canvases) == 1:
                raise
        else:
            return
        raise torch.OutOfMemoryError("a prompt has no room beside so many pictures")

    def _bucket(self, images: ImageSide, asked: Asked) -> tuple[Any, ...]:
        """The maps (N, h, w) of the prompts and their scores (N, 3). Only what is compiled pays for few sizes."""
        columns = [upload(a, self._device) for a in (asked.xy, asked.labels, asked.image)]
        if self._compiles:
            columns = [padded(column, bucket_of(len(asked), self._prompts.size)) for column in columns]
        xy, labels, image = columns
        # The decoder reads the places of an only picture once for all of its prompts.
        maps = self._maps(images, None if len(images) == 1 else image, xy, labels)
        return tuple(values[: len(asked)] for values in maps)

    def _maps_of(self, images: ImageSide, image: Any, xy: Any, labels: Any) -> tuple[Any, Any]:
        sparse, _ = self._decoder.embed((xy, labels), None)
        three = self._choice != "single"
        answer = self._decoder.answer(self._decoder(images, image, sparse), three)
        if three:
            ranked = answer.iou if self._choice == "best_iou" else stability(answer.logits)
            answer = answer.only(ranked.argmax(dim=1))
        return answer.logits[:, 0], answer.scored()

    def _masks(
        self, asked: Asked, waiting: Waiting, piece: slice, canvases: Sequence[Canvas]
    ) -> Iterator[tuple[int, PromptedMask]]:
        """The finite answers of some rows of a bucket, each with its picture."""
        maps, scores = (values[piece] for values in waiting.values())
        images, rows, boxes = asked.image[piece].tolist(), asked.row[piece].tolist(), asked.boxes_xyxy[piece]
        for i in np.flatnonzero(np.isfinite(scores).all(axis=1)).tolist():  # a NaN in the map shows in its scores
            canvas = canvases[images[i]]
            yield images[i], prompted(rows[i], maps[i], scores[i], canvas, self._scores_objects, boxes[i])


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Tensors on their way to the host; `arrived` is None when they are there."""

    host: tuple[Any, ...]
    arrived: Any | None

    @property
    def num_bytes(self) -> int:
        return sum(one.numel() * one.element_size() for one in self.host)

    def values(self) -> tuple[Float32, ...]:
        """Waits for them. Safe from any thread."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return tuple(one.numpy() for one in self.host)


class Copies:
    """From the device to pinned memory, beside what is computed next."""

    def __init__(self, device: Any) -> None:
        import torch

        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def to_host(self, values: tuple[Any, ...]) -> Waiting:
        import torch

        if self._stream is None:
            return Waiting(values, None)
        host = tuple(torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in values)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            for there, one in zip(host, values, strict=True):
                there.copy_(one, non_blocking=True)
            arrived = torch.cuda.Event(blocking=True)  # who waits for it leaves its core to others
            arrived.record(self._stream)
        for one in values:
            one.record_stream(self._stream)  # its memory may be used again only when the copy is done
        return Waiting(host, arrived)


class Threads:
    """For what follows the device: one a core, eight at the most. What waits for them is bounded by bytes, over all
    batches. They end with the one who holds them; to begin them anew for each batch takes as long as some masks do."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0))), thread_name_prefix="autolabel-masks")
        self._held = 0
        self._room = threading.Condition()

    def submit(self, call: Callable[[], None], num_bytes: int) -> Future[None]:
        """Run the call in a thread, as soon as there is room for it."""
        with self._room:
            self._room.wait_for(lambda: not self._held or self._held + num_bytes <= _WAITING_BYTES)
            self._held += num_bytes
        future = self._pool.submit(call)
        future.add_done_callback(lambda _: self._give_back(num_bytes))
        return future

    def _give_back(self, num_bytes: int) -> None:
        with self._room:
            self._held -= num_bytes
            self._room.notify_all()


class Work:
    """What threads do for one batch. Whatever is raised, afterwards nothing of it runs or is going to."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._futures: list[Future[None]] = []

    def add(self, call: Callable[[], None], num_bytes: int) -> None:
        self._futures.append(self._threads.submit(call, num_bytes))

    def wait(self) -> None:
        """Until all is done. Raises what one of them raised."""
        try:
            for future in self._futures:
                future.result()
        finally:
            self.give_up()

    def give_up(self) -> None:
        wait([future for future in self._futures if not future.cancel()])
