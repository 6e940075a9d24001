"""Checks of settings: what each takes, and what it says of the rest."""

import pytest

from autolabel.core.errors import ConfigError, SettingError
from autolabel.ops.settings import count, flag, fraction, number, one_of, optional, text


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (lambda: count("n", 3), 3),
        (lambda: count("n", -3), -3),
        (lambda: count("n", 1, 1), 1),
        (lambda: count("n", 9, 1, 9), 9),
        (lambda: number("x", 1, 0, 1), 1.0),
        (lambda: number("x", 1, 0, 1, above=True), 1.0),
        (lambda: fraction("x", 0), 0.0),
        (lambda: flag("yes", False), False),
        (lambda: one_of("word", "b", ("a", "b")), "b"),
        (lambda: text("name", "a"), "a"),
        (lambda: optional(count, "n", None, 1), None),
        (lambda: optional(number, "x", 0.5, 0, 1, above=True), 0.5),
    ],
)
def test_what_fits_is_given_back(made, value):
    assert made() == value
    assert type(made()) is type(value)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: count("n", True), "n must be a whole number, got True"),
        (lambda: count("n", 1.0), "n must be a whole number, got 1.0"),
        (lambda: count("n", 0, 1), "n must be a whole number, at least 1, got 0"),
        (lambda: count("n", 10, 1, 9), "n must be a whole number in [1, 9], got 10"),
        (lambda: number("x", True, 0, 1), "x must be in [0, 1], got True"),
        (lambda: number("x", "0.5", 0, 1), "x must be in [0, 1], got '0.5'"),
        (lambda: number("x", float("nan"), 0, 1), "x must be in [0, 1], got nan"),
        (lambda: number("x", float("inf"), 0, 1), "x must be in [0, 1], got inf"),
        (lambda: number("x", 10**400, 0, 1), "x must be in [0, 1], got 1000"),
        (lambda: number("x", 0, 0, 1, above=True), "x must be in (0, 1], got 0"),
        (lambda: fraction("x", 1.5), "x must be in [0, 1], got 1.5"),
        (lambda: flag("yes", 1), "yes must be true or false, got 1"),
        (lambda: one_of("word", ["a"], ("a", "b")), "word must be one of a, b, got ['a']"),
        (lambda: text("name", ""), "name must be a text, got ''"),
        (lambda: text("file", 3, "a path"), "file must be a path, got 3"),
        (lambda: optional(count, "n", 0, 1), "n must be null or a whole number, at least 1, got 0"),
        (lambda: optional(number, "x", 0, 0, 1, above=True), "x must be null or in (0, 1], got 0"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(made, words):
    with pytest.raises(ConfigError) as caught:
        made()
    assert str(caught.value).startswith(words)


def test_a_setting_that_is_named_whole_is_not_placed_twice():
    """Components of one's own may name the whole key in their messages."""
    assert str(SettingError("conf must be in [0, 1]").at("detect.inner")) == "detect.inner.conf must be in [0, 1]"
    assert str(SettingError("detect.conf must be in [0, 1]").at("detect")) == "detect.conf must be in [0, 1]"
