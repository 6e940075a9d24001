"""Engines agree, end cleanly, and the labeler loses nothing."""

import gc
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autolabel.core.errors import ImageError
from autolabel.core.types import Detections
from autolabel.engine.inline import InlineEngine
from autolabel.engine.stage_times import Spent, StageTimes
from autolabel.engine.threaded import Budget, ThreadedEngine
from autolabel.ops.masks import encode
from autolabel.refine.area import AreaRefiner
from autolabel.store.memory import MemoryStore
from tests.fakes import ColourDetector, DroppingSegmenter, album, draw, labeler, units_of

ENGINES = [
    InlineEngine(),
    *(ThreadedEngine(workers=w, ahead=a, memory_mb=1) for w, a in [(1, 1), (3, 2), (4, 50)]),
]


def run(engine, folder, the_labeler=None):
    store = MemoryStore()
    engine.run(the_labeler or labeler(), units_of(folder), store)
    return list(store.records())


def engine_threads():
    """Models may have threads of their own, which stay with them."""
    return [t for t in threading.enumerate() if t.name.startswith(("autolabel-load", "autolabel-finish"))]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_records_of_the_inline_engine(engine, tmp_path):
    album(tmp_path, 11)
    assert run(engine, tmp_path) == run(InlineEngine(), tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_whatever_raises_no_thread_stays_and_committed_units_stay(engine, tmp_path):
    album(tmp_path, 11)

    class Broken(ColourDetector):
        def detect(self, frames):
            if any("009" in f.ref.image_id for f in frames):
                raise RuntimeError("the model broke")
            return super().detect(frames)

    store = MemoryStore()
    with pytest.raises(RuntimeError, match="the model broke"):
        engine.run(labeler(Broken()), units_of(tmp_path), store)
    assert not engine_threads()
    ids = [ref.image_id for unit in units_of(tmp_path) for ref in unit.refs]
    broken = next(i for i, name in enumerate(ids) if "009" in name)
    assert [r.image_id for r in store.records()] == ids[: broken // 3 * 3]


def test_no_picture_is_decoded_far_ahead_of_its_turn(tmp_path):
    album(tmp_path, 30)
    loaded = []

    class Watched(type(labeler())):
        def load(self, ref):
            loaded.append(ref)
            return super().load(ref)

        def find(self, items):
            assert len(loaded) <= self.done + 2 * (1 + 2), "more than `ahead` batches wait"
            self.done += len(items)
            return super().find(items)

        done = 0

    original = labeler()
    watched = Watched.__new__(Watched)
    watched.__dict__.update(original.__dict__)
    assert len(run(ThreadedEngine(workers=2, ahead=2, memory_mb=100), tmp_path, watched)) == 30


def test_decoded_pictures_that_wait_are_bounded_by_their_bytes(tmp_path):
    for i in range(24):
        draw(tmp_path / f"{i:02}.png", {0: (0, 0, 8, 8)}, (300, 400))
    a_picture, threads, batch = 300 * 400 * 3, 2, 2
    waiting, most = [], []

    class Watched(type(labeler())):
        def load(self, ref):
            waiting.append(ref)
            return super().load(ref)

        def find(self, items):
            time.sleep(0.01)  # decoding is ahead of it
            most.append(len(waiting))
            del waiting[: len(items)]
            return super().find(items)

    watched = Watched.__new__(Watched)
    watched.__dict__.update({**labeler().__dict__, "batch_size": batch})
    assert len(run(ThreadedEngine(workers=threads, ahead=50, memory_mb=1), tmp_path, watched)) == 24
    # A picture in the hands of each thread, the rest of the batch, and one that has just begun to be read.
    assert max(most) <= 2**20 // a_picture + batch + 2 * threads


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_ends_by_pictures_and_by_bytes(engine, tmp_path):
    large = {3, 4, 5, 8}  # 1.1 MB of pixels each
    for i in range(12):
        draw(tmp_path / f"{i:02}.png", {0: (0, 0, 8, 8)}, (600, 640) if i in large else (40, 60))
    seen = []

    class Watched(ColourDetector):
        def detect(self, frames):
            seen.append([int(frame.ref.image_id[:2]) for frame in frames])
            return super().detect(frames)

    store = MemoryStore()
    engine.run(labeler(Watched(), batch_size=3, batch_mb=2), units_of(tmp_path, 7), store)
    # Three pictures; two large ones and more are 2 MB; the end of a unit.
    assert seen == [[0, 1, 2], [3, 4], [5, 6], [7, 8, 9], [10, 11]]
    assert [record.image_id for record in store.records()] == [f"{i:02}.png" for i in range(12)]


def test_large_pictures_are_not_held_by_their_number(tmp_path):
    for i in range(12):
        draw(tmp_path / f"{i:02}.png", {0: (0, 0, 8, 8)}, (600, 640))
    alive, most = [], []

    class Watched(type(labeler())):
        def load(self, ref):
            frame = super().load(ref)
            alive.append(weakref.ref(frame.image_rgb))
            most.append(sum(pixels() is not None for pixels in alive))
            return frame

    watched = Watched.__new__(Watched)
    watched.__dict__.update(labeler(batch_size=12, batch_mb=1).__dict__)
    store = MemoryStore()
    ThreadedEngine(workers=1, ahead=2, memory_mb=1).run(watched, units_of(tmp_path, 12), store)
    assert len(list(store.records())) == 12
    # One is with the models, one waits for room, one may just have been read.
    assert max(most) <= 3


class Gated(AreaRefiner):
    """Nothing is finished before the gate is opened."""

    def __init__(self):
        super().__init__(min_px=0, max_px=None, min_fraction=0.0, max_fraction=1.0)
        self.gate = threading.Event()

    def refine(self, instances, image):
        assert self.gate.wait(60)
        return super().refine(instances, image)


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_models_go_on_while_records_are_made_but_not_without_end(ahead, tmp_path):
    album(tmp_path, 24)
    gated, seen = Gated(), []

    class Watched(ColourDetector):
        def detect(self, frames):
            seen.append(len(frames))
            return super().detect(frames)

    store = MemoryStore()
    the_labeler = labeler(Watched(), refiners=[gated])
    engine = ThreadedEngine(workers=2, ahead=ahead, memory_mb=9)
    running = threading.Thread(target=engine.run, args=(the_labeler, units_of(tmp_path, 2), store))
    running.start()
    while len(seen) <= ahead:
        time.sleep(0.001)  # for ever, if the models wait for the gate
    time.sleep(0.1)
    assert len(seen) == ahead + 1
    assert not list(store.records())
    gated.gate.set()
    running.join(60)
    assert len(list(store.records())) == 24


def test_nothing_holds_pixels_once_the_models_are_done(tmp_path):
    album(tmp_path, 4)
    frame = labeler().load(units_of(tmp_path)[0].refs[0])
    pixels, the_labeler = weakref.ref(frame.image_rgb), labeler()
    finish = the_labeler.find([frame])
    del frame
    assert pixels() is None
    assert [record.image_id for record in finish()] == ["0/picture 000.png"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unit_whose_records_or_commit_fail_is_the_last(engine, tmp_path):
    album(tmp_path, 24)
    units = units_of(tmp_path)

    class Full(MemoryStore):
        def commit(self, unit, records):
            if unit.number == 3:
                raise OSError("no room")
            super().commit(unit, records)

    class Bad(AreaRefiner):
        def refine(self, instances, image):
            if image.size_hw == (41, 60):
                raise RuntimeError("a refiner broke")
            return super().refine(instances, image)

    ids = [ref.image_id for unit in units for ref in unit.refs]
    store = Full()
    with pytest.raises(OSError, match="no room"):
        engine.run(labeler(), units, store)
    assert [r.image_id for r in store.records()] == ids[:9]
    draw(Path(units[2].refs[1].path), {0: (0, 0, 8, 8)}, (41, 60))
    store = MemoryStore()
    bad = Bad(min_px=0, max_px=None, min_fraction=0.0, max_fraction=1.0)
    with pytest.raises(RuntimeError, match="a refiner broke"):
        engine.run(labeler(refiners=[bad]), units, store)
    assert [r.image_id for r in store.records()] == ids[:6]
    assert not engine_threads()


def test_the_slowest_stage_is_the_one_that_holds_the_others_up():
    times = StageTimes()
    assert times.slowest() is None
    times.add({"decode": Spent(8.0, 8), "segment": Spent(2.0, 1), "commit": Spent(0.5, 1)})
    assert times.slowest() == "segment"
    times.add({"decode": Spent(16.0, 8)})
    assert times.slowest() == "decode"
    assert times.seconds() == {"decode": 24.0, "segment": 2.0, "commit": 0.5}


def test_threads_that_are_in_a_stage_at_once_are_counted():
    times, both = StageTimes(), threading.Barrier(2)

    def work():
        with times.of("decode"):
            both.wait(60)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with times.of("commit"):
        pass
    assert {stage: spent.at_once for stage, spent in times.take().items()} == {"decode": 2, "commit": 1}
    assert times.seconds() == {}


def test_the_picture_whose_turn_it_is_needs_no_room():
    budget = Budget(100)
    budget.take(1, 100)  # a later one has filled it
    budget.take(0, 10**9)
    budget.give_back(1)
    budget.take(2, 100)  # there is room again


def test_a_closed_budget_holds_nobody_up():
    budget = Budget(1)
    budget.take(0, 1)
    waiting = threading.Thread(target=budget.take, args=(5, 10))
    waiting.start()
    assert waiting.is_alive()
    budget.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_the_time_of_every_stage_is_known(tmp_path):
    album(tmp_path, 3)
    the_labeler = labeler()
    run(InlineEngine(), tmp_path, the_labeler)
    assert set(the_labeler.times.seconds()) == {"decode", "detect", "segment", "refine"}
    assert all(seconds > 0 for seconds in the_labeler.times.seconds().values())


def test_a_class_never_moves_when_the_middle_mask_is_dropped(tmp_path):
    draw(tmp_path / "a.png", {0: (0, 0, 8, 8), 1: (20, 0, 28, 8), 2: (40, 0, 48, 8)})
    (record,) = run(InlineEngine(), tmp_path, labeler(segmenter=DroppingSegmenter(1)))
    assert [(i.category_id, i.box_xyxy[0]) for i in record.instances] == [(1, 0.0), (3, 40.0)]
    assert [(d.instance.category_id, d.reason.partition(":")[0]) for d in record.dropped] == [(2, "no_mask")]


@pytest.mark.parametrize(
    "bad", [[np.nan, 0, 5, 5], [9, 9, 3, 3], [5, 5, 5, 9], [100, 100, 120, 120], [0, 0, np.inf, 5]]
)
def test_a_bad_box_is_recorded_and_never_reaches_the_model(bad, tmp_path):
    draw(tmp_path / "a.png", {0: (0, 0, 8, 8)})

    class Careless(ColourDetector):
        def detect(self, frames):
            boxes = np.array([bad, [0, 0, 8, 8]], np.float32)
            return [Detections(boxes, np.ones(2, np.float32), np.array([1, 2])) for _ in frames]

    (record,) = run(InlineEngine(), tmp_path, labeler(Careless()))
    assert [i.category_id for i in record.instances] == [2]
    assert [d.reason.partition(":")[0] for d in record.dropped] == ["bad_box"]


def test_a_box_over_the_border_is_clipped_before_the_model_sees_it(tmp_path):
    draw(tmp_path / "a.png", {0: (0, 0, 8, 8)}, (40, 60))
    seen = []

    class Overhanging(ColourDetector):
        def detect(self, frames):
            boxes = np.array([[-5, -5, 100, 10]], np.float32)
            return [Detections(boxes, np.ones(1, np.float32), np.array([1])) for _ in frames]

    class Watching(DroppingSegmenter):
        def segment(self, frames, prompts):
            seen.extend(p.boxes_xyxy.tolist() for p in prompts)
            return super().segment(frames, prompts)

    (record,) = run(InlineEngine(), tmp_path, labeler(Overhanging(), Watching(-1)))
    assert seen == [[[0.0, 0.0, 60.0, 10.0]]]
    assert record.instances[0].box_xyxy == (-5.0, -5.0, 100.0, 10.0)


def test_a_picture_that_spoils_its_batch_fails_alone(tmp_path):
    album(tmp_path, 6)

    class Picky(ColourDetector):
        def detect(self, frames):
            if any("003" in f.ref.image_id for f in frames):
                raise ImageError("size_mismatch", "the label file says 3 x 4")
            return super().detect(frames)

    records = run(InlineEngine(), tmp_path, labeler(Picky(), batch_size=3))
    assert [r.image_id for r in records if r.status == "failed"] == ["0/picture 003.png"]
    assert len(records) == 6


def test_a_batch_without_room_is_let_go_before_its_pictures_are_tried_again(tmp_path):
    album(tmp_path, 4)
    tensors, alive = [], []

    class Tensor:
        pass

    class Small(ColourDetector):
        def detect(self, frames):
            alive.append(sum(tensor() is not None for tensor in tensors))
            on_the_device = Tensor()
            tensors.append(weakref.ref(on_the_device))
            raise ImageError("out_of_memory", "no room")

    gc.disable()
    try:
        records = run(InlineEngine(), tmp_path, labeler(Small(), batch_size=3))
    finally:
        gc.enable()
    assert [record.code for record in records] == ["out_of_memory"] * 4
    assert alive == [0] * 5
    assert not any(tensor() for tensor in tensors)


def test_unreadable_pictures_get_one_failed_record_each(tmp_path):
    album(tmp_path, 3)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("<html>not found</html>")
    whole = (tmp_path / "1" / "picture 001.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    records = run(ThreadedEngine(workers=2, ahead=1, memory_mb=100), tmp_path)
    by_id = {r.image_id: r for r in records}
    assert len(records) == 6
    assert {by_id[i].status for i in ("empty.png", "text.png", "cut.png")} == {"failed"}
    assert all(by_id[i].code and by_id[i].detail for i in ("empty.png", "text.png", "cut.png"))


def test_an_existing_mask_without_a_pixel_is_dropped_with_its_reason(tmp_path):
    draw(tmp_path / "a.png", {0: (0, 0, 8, 8)})

    class Thin(ColourDetector):
        def detect(self, frames):
            masks = (encode(np.zeros((40, 60), np.uint8)),)
            return [replace(super(Thin, self).detect([f])[0], masks=masks) for f in frames]

    (record,) = run(InlineEngine(), tmp_path, labeler(Thin()))
    assert (record.status, len(record.instances)) == ("empty", 0)
    assert record.dropped[0].reason.startswith("empty_mask")


def test_images_without_boxes_never_reach_the_segmenter(tmp_path):
    draw(tmp_path / "bare.png", {})

    class Forbidden(DroppingSegmenter):
        def segment(self, frames, prompts):
            raise AssertionError("asked about a picture without boxes")

    (record,) = run(InlineEngine(), tmp_path, labeler(segmenter=Forbidden(0)))
    assert record.status == "empty"


def test_dropped_by_a_refiner_is_kept_as_a_candidate(tmp_path):
    draw(tmp_path / "a.png", {0: (0, 0, 2, 2), 1: (20, 0, 40, 20)})
    area = AreaRefiner(min_px=100, max_px=None, min_fraction=0.0, max_fraction=1.0)
    (record,) = run(InlineEngine(), tmp_path, labeler(refiners=[area]))
    assert [i.category_id for i in record.instances] == [2]
    assert record.dropped[0].instance.mask is not None
    assert "4" in record.dropped[0].reason
