"""What SAM must never be asked: dropped with a reason whatever the way to ask, and the rest of the picture labelled."""

from collections.abc import Mapping

import numpy as np
import pytest

from autolabel.app.main import main
from autolabel.core.types import Category, Detections, PromptedMask
from autolabel.ops.masks import encode
from autolabel.ops.points import prompt_problem
from autolabel.store.run import open_reader
from tests import hf_models
from tests.fakes import draw

NAN = float("nan")
GOOD = [10, 10, 40, 30]
BAD = {
    "bad_box: not finite": [NAN, 5, 9, 14],
    "bad_box: corners reversed": [30, 5, 21, 14],
    "bad_box: zero area": [5, 5, 5, 14],
    "bad_box: outside the 80x60 image": [90, 5, 99, 14],
}
WAYS = {
    "box": ["prompt=box"],
    "box_point": ["prompt=box_point"],
    "negatives": ["prompt=negatives", "prompt.reach=1.0"],
    "jitter": ["prompt=jitter"],
    "mask": ["prompt=mask"],
    "points": ["prompt=points", "prompt.box=true"],
}


class BadBoxes:
    """A good box and every bad one, each with a mask to be made anew and a click inside the good one."""

    categories = (Category(1, "block"),)
    identity: Mapping[str, str] = {"weights": "none"}
    hands_on = frozenset({"masks", "keypoints"})

    def detect(self, frames):
        boxes = np.array([GOOD, *BAD.values()], np.float32)
        n = len(boxes)
        mask = np.zeros((60, 80), bool)
        mask[10:30, 10:40] = True
        found = Detections(
            boxes,
            np.full(n, 0.9, np.float32),
            np.ones(n, np.int64),
            extras=('{"keypoints": [20, 20, 2]}',) * n,
            replaced=(encode(mask),) * n,
        )
        return [found for _ in frames]


class WatchedSegmenter:
    """Fails where it is asked what it must not be, and answers the rest with one corner of the picture."""

    identity: Mapping[str, str] = {"weights": "none"}

    def segment(self, frames, prompts):
        answers = []
        for frame, some in zip(frames, prompts, strict=True):
            problems = [prompt_problem(some, row, frame.info.size_hw) for row in range(len(some))]
            assert problems == [None] * len(some), "this reached the model"
            mask = np.zeros(frame.info.size_hw, bool)
            mask[:9, :9] = True
            answers.append([PromptedMask(row, encode(mask), 0.9) for row in range(len(some))])
        return answers


@pytest.fixture
def label(tmp_path, monkeypatch):
    """`autolabel label` with `segment=watched`; the records of the run."""
    for group, name, kind in (("segment", "watched", WatchedSegmenter), ("detect", "bad", BadBoxes)):
        folder = tmp_path / "configs" / group
        folder.mkdir(parents=True)
        (folder / f"{name}.yaml").write_text(f"_target_: {__name__}.{kind.__name__}\n")
    monkeypatch.chdir(tmp_path)

    def call(source, *settings):
        own = ["--config-dir", str(tmp_path / "configs"), "run=run", "refine=none", "export=[]", "offline=true"]
        assert main(["label", str(source), *own, *settings]) == 0
        with open_reader(tmp_path / "run") as reader:
            return list(reader.records())

    return call


@pytest.fixture
def picture(tmp_path):
    draw(tmp_path / "in" / "a.png", {0: (10, 10, 40, 30)}, (60, 80))
    return tmp_path / "in"


def reasons(record):
    return [str(verdict.reason).split(" [")[0] for verdict in record.verdicts]


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_box_is_refused_with_its_reason_whatever_the_way_to_ask(way, label, picture):
    (record,) = label(picture, "detect=bad", "segment=watched", *WAYS[way])
    assert reasons(record) == ["None", *BAD]
    assert [i.index for i in record.instances] == [0]


@pytest.mark.parametrize(
    ("click", "reason"),
    [("20,20,", "has no sign"), ("nan,5,1", "not finite"), ("300,5,1", "outside the 80x60 image"),
     ("20,20,0", "every point is outside the object")],
)  # fmt: skip
def test_a_bad_click_is_refused_and_the_others_are_asked(click, reason, label, picture, tmp_path):
    clicks = tmp_path / "clicks.csv"
    clicks.write_text(f"image,object,x,y,sign\na.png,good,20,20,1\na.png,bad,{click}\n")
    (record,) = label(picture, "detect=none", "segment=watched", "prompt=points", f'prompt.file="{clicks}"')
    good, bad = record.verdicts
    assert good.reason is None
    assert bad.reason.startswith("bad_point: ")
    assert reason in bad.reason


@pytest.mark.slow
@pytest.mark.parametrize("way", ["box", "jitter", "mask", "points"])
def test_models_of_transformers_are_not_asked_either(way, label, picture, tmp_path):
    hf_models.needs_transformers()
    weights = hf_models.sam1(tmp_path / "sam")
    (record,) = label(picture, "detect=bad", "segment=sam_hf", f"segment.weights={weights}", *WAYS[way])
    assert reasons(record)[1:] == list(BAD)
    assert record.candidates[0].mask is not None
    assert all(candidate.mask is None for candidate in record.candidates[1:])
