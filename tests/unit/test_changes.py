from __future__ import annotations

import pytest

from autolabel.app.compose import compose
from autolabel.app.repeat import choice_names
from autolabel.ops.changes import NOT_SET, changed

GUIDED = {
    "segment._target_": "'a.Guided'",
    "segment.inner._target_": "'a.Sam2'",
    "segment.inner.batch": "1",
    "segment.radius": "0.05",
    "segment (weights sha256)": "abc",
    "prompt._target_": "'a.Box'",
    "prompt.pad": "0.0",
}
PLAIN = {
    "segment._target_": "'a.Sam2'",
    "segment.batch": "1",
    "segment (weights sha256)": "def",
    "prompt._target_": "'a.Box'",
    "prompt.pad": "0.1",
}
PAD = ("prompt.pad", ["0.0", "0.1"])


def test_a_choice_that_is_another_one_stands_for_all_that_comes_with_it() -> None:
    choices = [{"segment": "guided", "prompt": "box"}, {"segment": "plain", "prompt": "box"}]
    assert changed([GUIDED, PLAIN], choices) == [("segment", ["guided", "plain"]), PAD]


def test_without_the_names_of_choices_a_component_is_told_by_its_class() -> None:
    weights = ("segment (weights sha256)", ["abc", "def"])
    assert changed([GUIDED, PLAIN]) == [("segment", ["Guided", "Sam2"]), weights, PAD]
    # A name that one alone has says nothing of the other.
    assert changed([GUIDED, PLAIN], [{}, {"segment": "plain"}]) == changed([GUIDED, PLAIN])


def test_a_component_that_vanishes_is_one_line_and_what_stays_is_told_leaf_by_leaf() -> None:
    whole = {"refine.area._target_": "'a.Area'", "refine.area.min_px": "1", "refine.score.least": "0.1"}
    rest = {"refine.score.least": "0.2", "refine": "{}"}
    assert changed([whole, rest, whole]) == [
        ("refine.area", ["Area", NOT_SET, "Area"]),
        ("refine.score.least", ["0.1", "0.2", "0.1"]),
        ("refine", [NOT_SET, "{}", NOT_SET]),
    ]
    assert changed([whole, whole]) == []


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], {"detect": "yolo26m", "segment": "sam2_small", "refine": "default"}),
        (["detect=nano", "segment=nano_guided"], {"detect": "nano", "segment": "nano_guided"}),
        (["segment=nano"], {"segment": "nano"}),
        (["detect=yolo11n", "detect.conf=0.5", "refine=strict"], {"detect": "yolo11n", "refine": "strict"}),
        (["refine=none"], {"refine": "none"}),
        (
            ["detect=yolo", "detect.weights=mine.pt"],
            {"detect": None},
        ),  # no choice of the package has these weights
        (["detect._target_=mine.Detector"], {"detect": None}),
    ],
)
def test_the_choices_of_a_configuration_are_found_or_left_open(
    overrides: list[str], names: dict[str, str | None]
) -> None:
    from omegaconf import OmegaConf

    found = choice_names(OmegaConf.to_container(compose("label", overrides), resolve=False))
    assert {group: found.get(group) for group in names} == names
