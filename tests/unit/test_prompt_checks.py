"""What is looked at before labelling: whether prompts, detector and annotations go together, whoever wrote them."""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from autolabel.app.compose import compose
from autolabel.app.prompts import check_pair, check_prompts
from autolabel.core.errors import ConfigError
from autolabel.core.protocols import About
from autolabel.core.types import Category, ImageRef, Labels
from autolabel.detect.labels import LabelsDetector
from autolabel.detect.none import NoDetector

CLASSES = (Category(1, "block"),)


@dataclass
class Mine:
    """A prompter of somebody's own, about annotations."""

    about: About
    known: tuple[bool, ...] = ()
    box_alone: bool = False
    file: str = "mine.txt"
    names: dict[str, list[str]] = field(default_factory=dict)

    def knows(self, labels, row):
        return self.known[row]

    @property
    def image_ids(self):
        return frozenset(self.names)

    def names_in(self, image_id):
        return self.names[image_id]


def checked(prompter):
    boxes = np.array([[1, 1, 9, 9], [2, 2, 8, 8]], np.float32)
    labels = Labels(boxes, np.ones(2, np.int64), (None, None), (11, 12), (False, False))
    refs = {"a.png": ImageRef("a.png", "a.png", labels)}
    check_prompts(prompter, refs, compose("label", ["detect=labels", "detect.keep_masks=false"]), CLASSES)


@pytest.mark.parametrize(
    ("prompter", "said"),
    [(Mine("masks", (False, False)), "none of the 2 annotations that want a mask has a mask to ask with"),
     (Mine("keypoints", (False, False)), "none of the 2 annotations .* has a visible keypoint .*prompt.file"),
     (Mine("names", names={"b.png": ["1"]}), "picture that prompt.file names is not in the source .*'a.png'"),
     (Mine("names", names={"a.png": ["11", "13"]}), "'mine.txt': 'a.png' has no annotation '13'")],
)  # fmt: skip
def test_a_prompter_of_ones_own_with_nothing_to_ask_with_is_refused_before_labelling(prompter, said):
    with pytest.raises(ConfigError, match=said):
        checked(prompter)


@pytest.mark.parametrize(
    ("prompter", "said"),
    [(Mine("masks", (True, False)), "1 of 2 annotations that want a mask has no mask to ask with: it is dropped"),
     (Mine("masks", (False, False), box_alone=True), "2 of 2 annotations .* asked with their boxes alone"),
     (Mine("keypoints", (True, True)), ""), (Mine("names", names={"a.png": ["12"]}), ""), (Mine("boxes"), "")],
)  # fmt: skip
def test_what_a_prompter_of_ones_own_lacks_is_said(prompter, said, caplog):
    checked(prompter)
    assert len(caplog.messages) == bool(said)
    if said:
        (message,) = caplog.messages
        assert re.search(said, message)


@pytest.mark.parametrize("about", ["masks", "keypoints", "names", "everything"])
def test_a_detector_that_lacks_what_a_prompter_asks_about_is_refused(about):
    with pytest.raises(ConfigError):
        check_pair(object(), Mine(about))
    for has_all in (LabelsDetector(keep_masks=False), NoDetector(category="thing")):
        if (about == "everything") == isinstance(has_all, NoDetector):
            check_pair(has_all, Mine(about))
    check_pair(object(), object())
