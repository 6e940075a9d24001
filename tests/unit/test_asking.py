"""From questions to one answer an object: nothing bad reaches the model, windows come back to their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autolabel.core.errors import ComponentError, ConfigError
from autolabel.core.types import (
    NO_OBJECT,
    Category,
    Detections,
    Frame,
    ImageInfo,
    ImageRef,
    PromptedMask,
    Prompts,
    Sieve,
)
from autolabel.detect.none import NoDetector
from autolabel.engine.asking import ask, kept
from autolabel.engine.inline import InlineEngine
from autolabel.engine.sifting import sifted
from autolabel.ops.duplicates import box_nms, mask_nms
from autolabel.ops.masks import area_px, decode, encode
from autolabel.ops.points import grid_xy, most_inside_xy
from autolabel.ops.windows import crop_windows, cut, paste
from autolabel.prompt.jitter import JitterPrompter
from autolabel.segment.box import BoxSegmenter, box_rle
from autolabel.segment.zoom import ZoomSegmenter
from autolabel.store.memory import MemoryStore
from tests.fakes import ColourDetector, album, draw, labeler
from tests.records import disc
from tests.unit.test_engine import run, units_of

SIZE = (40, 60)
IMAGE = ImageInfo(60, 40)


def frame() -> Frame:
    return Frame(ImageRef("a", "a"), np.zeros((*SIZE, 3), np.uint8), IMAGE)


class Watching(BoxSegmenter):
    """The filled box; remembers what it was asked."""

    def __init__(self):
        self.frames, self.asked = [], []

    def segment(self, frames, prompts):
        self.frames += frames
        self.asked += prompts
        return super().segment(frames, prompts)


def boxes(*rows, **columns):
    return Prompts(boxes_xyxy=np.array(rows, np.float32).reshape(-1, 4), **columns)


@pytest.mark.parametrize(
    ("bad", "word"),
    [([np.nan, 0, 5, 5], "bad_box"), ([9, 9, 3, 3], "bad_box"), ([5, 5, 5, 9], "bad_box"), ([60, 40, 70, 70], "bad_box"),
     ([np.nan] * 4, "bad_prompt")],
)  # fmt: skip
def test_a_bad_prompt_is_refused_with_a_reason_and_the_others_are_answered(bad, word):
    segmenter = Watching()
    (answers,) = ask(segmenter, [frame()], [boxes([0, 0, 5, 5], bad, [5, 5, 9, 9])])()
    assert sorted(answers.by_object) == [0, 2]
    assert answers.reasons[1].startswith(word)
    assert [len(asked) for asked in segmenter.asked] == [2]


@pytest.mark.parametrize(
    ("window", "said"),
    [([-20, -20, 70, 50], "not a part"), ([-1, 0, 60, 40], "not a part"), ([0, 0, 60, 41], "not a part"),
     ([0, 0, 61, 40], "not a part"), ([9, 9, 3, 3], "not a part"), ([5, 5, 5, 9], "not a part"), ([30, 20, 60, 40], "box is not in"),
     ([5, 0, 60, 40], "box is not in"), ([4, 4, 60, 40], None), ([0, 0, 60, 40], None)],
)  # fmt: skip
def test_a_window_must_be_a_part_of_the_picture_and_meet_the_box(window, said):
    segmenter = Watching()
    both = boxes([0, 0, 5, 5], [0, 0, 5, 5], windows_xyxy=np.array([window, [0, 0, 10, 10]]))
    (answers,) = ask(segmenter, [frame()], [both])()
    assert sorted(answers.by_object) == [0, 1][said is not None :]
    if said is not None:
        assert answers.reasons[0].startswith("bad_window: ")
        assert said in answers.reasons[0]
        assert len(segmenter.frames) == 1


def test_a_prompt_with_a_mask_of_another_picture_or_without_a_pixel_is_refused():
    masks = (encode(np.ones((4, 4), np.uint8)), encode(np.zeros(SIZE, np.uint8)), encode(np.ones(SIZE, np.uint8)))
    (answers,) = ask(Watching(), [frame()], [boxes(*[[0, 0, 5, 5]] * 3, masks=masks)])()
    assert [answers.reasons[i].partition(":")[0] for i in (0, 1)] == ["bad_mask", "bad_mask"]
    assert sorted(answers.by_object) == [2]


def test_an_object_with_one_sound_prompt_is_answered():
    both = boxes([9, 9, 3, 3], [0, 0, 5, 5], objects=np.array([7, 7]))
    (answers,) = ask(Watching(), [frame()], [both])()
    assert (sorted(answers.by_object), answers.reasons) == ([7], {})


def test_the_first_answer_stays_or_the_one_that_agrees_best_and_agreement_is_its_mean_iou():
    asked = boxes([0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 8], objects=np.array([0, 0, 0]))
    (first,) = ask(BoxSegmenter(), [frame()], [asked])()
    (medoid,) = ask(BoxSegmenter(), [frame()], [replace(asked, keep="medoid")])()
    assert (area_px(first.by_object[0].mask), first.by_object[0].agreement) == (100, pytest.approx(0.8))
    assert (area_px(medoid.by_object[0].mask), medoid.by_object[0].agreement) == (80, pytest.approx(0.9))


def test_one_answer_alone_agrees_with_nobody():
    (answers,) = ask(BoxSegmenter(), [frame()], [boxes([0, 0, 10, 10])])()
    assert answers.by_object[0].agreement is None


def test_agreement_of_jittered_boxes_reaches_the_record(tmp_path):
    draw(tmp_path / "a.png", {0: (5, 5, 35, 35), 2: (40, 10, 55, 30)})
    jitter = labeler()
    jitter.prompter = JitterPrompter(count=3, amount=0.2, keep="original", seed=0, pad=0.0)
    (record,), (plain,) = run(InlineEngine(), tmp_path, jitter), run(InlineEngine(), tmp_path)
    assert [i.mask for i in record.instances] == [i.mask for i in plain.instances]
    assert all(0.3 < i.agreement < 1 for i in record.instances)


def test_jittered_labels_are_those_of_a_run_that_was_never_interrupted(tmp_path):
    album(tmp_path, 9)

    def records(numbers):
        ours, store = labeler(), MemoryStore()
        ours.prompter = JitterPrompter(count=2, amount=0.3, keep="medoid", seed=5, pad=0.0)
        InlineEngine().run(ours, [units_of(tmp_path)[n] for n in numbers], store)
        return list(store.records())

    assert records([0]) + records([1, 2]) == records([0, 1, 2]) == records([2, 0, 1])


def test_a_window_is_asked_as_a_picture_and_its_mask_comes_back_to_its_place():
    segmenter = Watching()
    asked = boxes([10, 10, 20, 30], [0, 0, 5, 5], windows_xyxy=np.array([[8, 4, 50, 40], [0, 0, 60, 40]]))
    (answers,) = ask(segmenter, [frame()], [asked])()
    assert [f.image_rgb.shape[:2] for f in segmenter.frames] == [(36, 42), (40, 60)]
    assert segmenter.asked[0].boxes_xyxy.tolist() == [[2, 6, 12, 26]]
    assert answers.by_object[0].mask == box_rle(np.array([10, 10, 20, 30]), SIZE)
    assert answers.by_object[1].mask == box_rle(np.array([0, 0, 5, 5]), SIZE)


@given(
    mask=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)),
    at=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    more=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_a_mask_pasted_is_the_mask_at_its_place(mask, at, more):
    (h, w), (y, x) = mask.shape, at
    whole = np.zeros((y + h + more[0], x + w + more[1]), np.uint8)
    whole[y : y + h, x : x + w] = mask
    window = (x, y, x + w, y + h)
    pasted = paste(encode(mask), window, whole.shape)
    assert pasted == encode(whole)
    assert cut(pasted, window) == encode(mask)


# what a segmenter gives back


class Numbered(BoxSegmenter):
    """The filled box, its answers numbered anew."""

    def __init__(self, number):
        self.number = number

    def segment(self, frames, prompts):
        return [
            [replace(a, prompt=self.number(a.prompt)) for a in some] for some in super().segment(frames, prompts)
        ]


class Later(Numbered):
    def begin(self, frames, prompts):
        return lambda: self.segment(frames, prompts)


def zoomed(segmenter):
    return ZoomSegmenter(inner=segmenter, smaller_than=0.5, fill=0.9, share=0.9, min_crop=4)


@pytest.mark.parametrize("kind", [Numbered, Later])
@pytest.mark.parametrize("around", [lambda segmenter: segmenter, zoomed])
@pytest.mark.parametrize(
    ("number", "said"),
    [(lambda i: i - 1, "it answered prompt -1 of 2 prompts"), (lambda i: i + 1, "it answered prompt 2 of 2 prompts"),
     (str, "must be an int, got a str")],
)  # fmt: skip
def test_an_answer_to_no_prompt_names_the_segmenter(kind, around, number, said):
    with pytest.raises(ComponentError, match=rf"segment.*test_asking.{kind.__name__}\): 'a': .*{said}"):
        ask(around(kind(number)), [frame()], [boxes([0, 0, 5, 5], [1, 1, 6, 6])])()


@pytest.mark.parametrize(
    ("answers", "said"),
    [([], "asked about 1 picture and gave a list of 0"), (None, "must give a list"), ([None], "must give a list"),
     ([[3]], "must be PromptedMasks, got a int")],
)  # fmt: skip
def test_answers_that_are_not_one_list_a_picture_name_the_segmenter(answers, said):
    segmenter = BoxSegmenter()
    segmenter.segment = lambda frames, prompts: answers
    with pytest.raises(ComponentError, match=rf"segment \(.*BoxSegmenter\): .*{said}"):
        ask(segmenter, [frame()], [boxes([0, 0, 5, 5])])()


# duplicates


@settings(max_examples=50)  # the first example imports torchvision
@given(
    corners=arrays(np.float32, (12, 2, 2), elements=st.integers(0, 30).map(float)),
    scores=arrays(np.float32, 12, elements=st.sampled_from([0.1, 0.5, 0.5, 0.9])),
    limit=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_boxes_stay_as_torchvisions_nms_has_it(corners, scores, limit):
    import torch
    from torchvision.ops import nms

    found = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    expected = nms(torch.from_numpy(found), torch.from_numpy(scores), limit).tolist()
    assert box_nms(found, scores, limit).tolist() == expected


def test_masks_that_share_little_in_the_same_box_both_stay():
    ring = disc(60, 60, 30, 30, 25) - disc(60, 60, 30, 30, 15)
    masks = [encode(m) for m in (ring, disc(60, 60, 30, 30, 25), disc(60, 60, 30, 30, 24))]
    same = np.array([[5, 5, 56, 56]] * 3, np.float32)
    scores = np.array([0.5, 0.6, 0.9], np.float32)
    assert mask_nms(masks, same, scores, 0.8).tolist() == [2, 0]
    assert box_nms(same, scores, 0.8).tolist() == [2]


# automatic masks

SIEVE = Sieve(True, 0.5, 0.9, 1, 1.0, 0.7, 0.7, None)


def answer(box, score=0.9, stability=0.95):
    return PromptedMask(0, box_rle(np.array(box, np.float32), SIZE), score, None, stability)


def boxes_of(answers):
    found = [decode(a.mask).nonzero() for a in answers]
    return [[int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1] for y, x in found]


def test_a_sieve_keeps_the_best_of_doubles_and_what_is_sure_stable_and_of_a_size():
    some = [answer([0, 0, 10, 10], 0.8), answer([0, 0, 10, 11], 0.9), answer([20, 0, 30, 10], 0.5),
            answer([20, 20, 30, 30], 0.9, 0.89), answer([40, 0, 41, 1], 0.7)]  # fmt: skip
    assert boxes_of(sifted([(None, a) for a in some], SIEVE, IMAGE)) == [[0, 0, 10, 11], [40, 0, 41, 1]]
    sized = replace(SIEVE, min_area_px=2, max_area_fraction=100 / 2400)
    assert boxes_of(sifted([(None, a) for a in some], sized, IMAGE)) == [[0, 0, 10, 10]]


def test_what_a_window_cuts_off_goes_and_the_smaller_window_wins():
    whole, part = (0, 0, 60, 40), (0, 0, 45, 40)
    seen = [
        (whole, answer([2, 2, 12, 12], 0.99)),
        (part, answer([2, 2, 12, 13], 0.6)),
        (part, answer([2, 2, 40, 30])),
    ]
    assert boxes_of(sifted(seen, SIEVE, IMAGE)) == [[2, 2, 12, 13]]


def test_masks_of_one_thing_in_different_boxes_are_one_with_mask_iou():
    a, b = answer([0, 0, 20, 20], 0.9), answer([0, 0, 20, 12], 0.8)
    assert len(sifted([(None, a), (None, b)], SIEVE, IMAGE)) == 2
    assert len(sifted([(None, a), (None, b)], replace(SIEVE, mask_iou=0.5), IMAGE)) == 1


@pytest.mark.parametrize(("layers", "overlap"), [(0, 0.3), (1, 512 / 1500), (2, 0.0), (3, 0.5)])
@pytest.mark.parametrize("size_hw", [(40, 60), (427, 641), (1, 9)])
def test_crops_and_points_are_those_of_sam2(size_hw, layers, overlap):
    from autolabel.segment.sam2 import hydra_left_alone

    with hydra_left_alone():
        from sam2.utils.amg import build_point_grid, generate_crop_boxes

    crops, numbers = generate_crop_boxes(size_hw, layers, overlap)
    assert crop_windows(size_hw, layers, overlap) == list(zip(numbers, map(tuple, crops), strict=True))
    assert (grid_xy(7) == build_point_grid(7)).all()


class Blocks(BoxSegmenter):
    """Answers a click with the block of colour around it, three times."""

    def segment(self, frames, prompts):
        return [self._one(f.image_rgb, p) for f, p in zip(frames, prompts, strict=True)]

    def _one(self, image, prompts):
        found = []
        for number, ((x, y),) in enumerate(prompts.points_xy.astype(int)):
            same = (image == image[y, x]).all(axis=2)
            if image[y, x].max() > 200:
                found += [PromptedMask(number, encode(same), score, None, 1.0) for score in (0.9, 0.8, 0.3)]
        return found


def everything(tmp_path, prompter, detector=None):
    draw(tmp_path / "a.png", {0: (2, 2, 20, 20), 1: (30, 5, 50, 35)})
    draw(tmp_path / "b.png", {})
    ours = labeler(detector or NoDetector(category="thing"), Blocks())
    ours.prompter = prompter
    store = MemoryStore()
    InlineEngine().run(ours, units_of(tmp_path), store)
    return list(store.records())


class Grid:
    identity: Mapping[str, str] = {}

    def prompt(self, frames, detections, asked):
        points = (grid_xy(6) * (60, 40)).astype(np.float32)[:, None]
        signs, objects = np.ones((36, 1), np.int64), np.full(36, NO_OBJECT)
        return [Prompts(points_xy=points, point_signs=signs, objects=objects, sieve=SIEVE) for _ in frames]


def test_what_only_a_grid_finds_becomes_objects_of_the_one_class(tmp_path):
    first, second = everything(tmp_path, Grid())
    assert {i.box_xyxy for i in first.instances} == {(2, 2, 20, 20), (30, 5, 50, 35)}
    assert [(i.index, i.category_id, i.detector_score) for i in first.instances] == [
        (n, 1, pytest.approx(0.9)) for n in range(2)
    ]
    assert (first.status, second.status, second.candidates) == ("ok", "empty", ())


class Clicks(Grid):
    """Three new objects: one answered, one not, one that cannot be asked for."""

    def prompt(self, frames, detections, asked):
        points = np.array([[[5, 5]], [[25, 25]], [[99, 5]]], np.float32)
        signs = np.ones((3, 1), np.int64)
        return [
            Prompts(points_xy=points, point_signs=signs, added=3, objects=len(d) + np.arange(3))
            for d in detections
        ]


def test_a_new_object_that_gets_no_mask_is_a_candidate_with_a_reason(tmp_path):
    first, _ = everything(tmp_path, Clicks())
    assert [i.box_xyxy for i in first.instances] == [(2, 2, 20, 20)]
    assert [d.reason.partition(":")[0] for d in first.dropped] == ["no_mask", "bad_point"]
    assert len(first.candidates) == 3


def test_detections_that_nothing_is_asked_about_say_so_and_new_objects_need_one_class(tmp_path):
    with pytest.raises(ConfigError, match="use detect=none"):
        everything(tmp_path, Grid(), ColourDetector())

    class Mute(Grid):
        def prompt(self, frames, detections, asked):
            return [boxes() for _ in frames]

    first, _ = everything(tmp_path, Mute(), ColourDetector())
    assert {d.reason.partition(":")[0] for d in first.dropped} == {"no_prompt"}


class Person(ColourDetector):
    """With one class, as one that leaves out all others."""

    categories = (Category(1, "person"),)


def test_new_objects_do_not_get_the_only_class_of_a_detector(tmp_path):
    with pytest.raises(ConfigError, match="use detect=none"):
        everything(tmp_path, Grid(), Person())
    with pytest.raises(ConfigError, match="use detect=none"):
        everything(tmp_path, Clicks(), Person())


def test_names_of_no_detection_are_not_asked_about_where_new_objects_have_no_class(tmp_path):
    class Names(Clicks):
        about = "names"

    first, second = everything(tmp_path, Names(), Person())
    assert [len(record.candidates) for record in (first, second)] == [2, 0]


def test_the_most_inside_point_is_far_from_every_border():
    assert most_inside_xy(encode(disc(120, 160, 60, 50, 20))) == (60.5, 50.5)
    assert most_inside_xy(encode(np.ones((9, 21), np.uint8)))[1] == 4.5
    assert most_inside_xy(encode(np.zeros((4, 4), np.uint8))) is None


def test_columns_of_prompts_stay_together():
    with pytest.raises(ValueError, match="rows"):
        boxes([0, 0, 5, 5], objects=np.array([0, 1]))
    some = boxes([0, 0, 5, 5], [1, 1, 6, 6], masks=(None, encode(np.ones(SIZE, np.uint8))))
    picked = some.select([1])
    assert (picked.object_numbers.tolist(), picked.masks) == ([1], some.masks[1:])


def test_the_kept_answer_of_several_is_deterministic_in_ties():
    same = [replace(answer([0, 0, 10, 10]), prompt=n) for n in (2, 0, 1)]
    assert [kept(same, keep).prompt for keep in ("first", "medoid")] == [0, 0]


def test_no_detector_finds_nothing_and_has_one_class():
    none = NoDetector(category="thing")
    assert [len(d) for d in none.detect([frame()])] == [0]
    assert [c.name for c in none.categories] == ["thing"]
    assert isinstance(none.detect([frame()])[0], Detections)
    with pytest.raises(ConfigError, match=r"^category must be a name"):
        NoDetector(category="")
