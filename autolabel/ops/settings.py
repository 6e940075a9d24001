"""Checks of single settings, with messages that begin with their name. Knows no component.

`key` is a keyword of a component's constructor, or the whole key where the application itself reads a setting.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from autolabel.core.errors import ConfigError, SettingError
from autolabel.core.text import printable

T = TypeVar("T")

SMALL_BYTES = 16 << 20
"""The most that a file of numbers has."""


_YES = {"1", "true", "yes", "on"}
_NO = {"", "0", "false", "no", "off"}


def environment_flag(name: str, environment: Mapping[str, str]) -> bool:
    """Whether an environment variable says yes; no where it is not set."""
    value = environment.get(name, "").strip().lower()
    if value not in _YES | _NO:
        raise ConfigError(f"{name} must be 1 or 0, got {environment[name]!r}")
    return value in _YES


def fraction(key: str, value: object) -> float:
    """A number in [0, 1]."""
    return number(key, value, 0, 1)


def number(key: str, value: object, low: float, high: float, *, above: bool = False) -> float:
    """A finite number in [low, high]; with `above`, in (low, high]."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and low <= value <= high) or (above and value == low):  # type: ignore[operator]
        raise SettingError(f"{key} must be in {'(' if above else '['}{low:g}, {high:g}], got {value!r}")
    return float(value)  # type: ignore[arg-type]


def count(key: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """A whole number in [low, high]; None: no such limit."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        within = "" if low is None else f", at least {low}" if high is None else f" in [{low}, {high}]"
        raise SettingError(f"{key} must be a whole number{within}, got {value!r}")
    return value


def flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SettingError(f"{key} must be true or false, got {value!r}")
    return value


def one_of(key: str, value: object, choices: Sequence[str]) -> str:
    """One of the words of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise SettingError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return value


def text(key: str, value: object, what: str = "a text") -> str:
    """A text that is not empty; `what` it is."""
    if not isinstance(value, str) or not value:
        raise SettingError(f"{key} must be {what}, got {value!r}")
    return value


def optional(check: Callable[..., T], key: str, value: object, *limits: Any, **more: Any) -> T | None:
    """None for null; anything else as `check` has it."""
    if value is None:
        return None
    try:
        return check(key, value, *limits, **more)
    except SettingError as error:
        raise SettingError(str(error).replace(" must be ", " must be null or ", 1)) from None


def texts(key: str, value: object) -> Mapping[str, str]:
    """Texts by name."""
    if not isinstance(value, Mapping):
        raise SettingError(f"{key} must be a mapping of texts, got {value!r:.100}")
    for name, one in value.items():
        if not (isinstance(name, str) and isinstance(one, str)):
            raise SettingError(f"{key} must hold texts by name, got {name!r}: {one!r:.100}; give str(...) of it")
    return value


def read_fitted(
    path: Path, made: Callable[[Any], T], *, key: str, version: int, kind: str, instead: str
) -> tuple[T, str]:
    """What `made` makes of a JSON file of fitted numbers that a setting names, and the sha256 of its bytes. `kind` says
    what such a file is, `instead` what else to give.

    Raises SettingError for a file that cannot be read, has another `version`, or that `made` refuses by an error of
    values."""
    data, shown = _small_file(path, key=key, instead=instead), printable(str(path))
    try:
        document = json.loads(data)
        if document["version"] != version:
            raise SettingError(f"{key}: {shown} has version {document['version']!r}, this program reads {version}")
        return made(document), hashlib.sha256(data).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise SettingError(f"{key}: {shown} is not a {kind} ({error!r})") from error


def finite(value: object) -> float:
    """A number of such a file. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _small_file(path: Path, *, key: str, instead: str) -> bytes:
    """Maybe it is a stranger's setting: nothing that waits or never ends is read for it."""

    def refused(why: str | None) -> SettingError:
        return SettingError(f"{key}: {printable(str(path))} cannot be read ({why}); give {instead}")

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe waits for its writer then
            raise refused("it is not a regular file")
        with path.open("rb") as file:
            data = file.read(SMALL_BYTES + 1)
    except OSError as error:
        raise refused(error.strerror) from error
    except ValueError as error:  # a path that no file can have
        raise refused(str(error)) from error
    if len(data) > SMALL_BYTES:
        raise refused(f"it has more than {SMALL_BYTES >> 20} MiB")
    return data
