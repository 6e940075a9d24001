"""One override, `key=value` in Hydra's grammar: told from a path, taken apart, written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from autolabel.core.errors import ConfigError
from autolabel.ops.storage import is_url

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def is_override(argument: str) -> bool:
    """`key=value` with a key as Hydra writes it, or `~key`, which takes it out; anything else is a path, even when it
    holds a `=`. `~/photos` and `~somebody/photos` are paths: no key that is taken out has a slash."""
    if is_url(argument) or os.path.exists(argument):  # noqa: PTH110 - any string may be given, also one that Path refuses
        return False
    key = key_of(argument)
    return (
        ("=" in argument or (argument.startswith("~") and "/" not in argument))
        and bool(key)
        and all(part.replace("_", "a").isalnum() for part in key.replace("@", ".").replace("/", ".").split("."))
    )


def key_of(override: str) -> str:
    """`a.b` of `a.b=c`, `+a.b=c` and `~a.b`."""
    return override.lstrip("+~").partition("=")[0]


def about(key: str, arguments: Iterable[str]) -> list[str]:
    """The overrides among the arguments that set or take out `key`, in order: the last one is what holds."""
    return [argument for argument in arguments if key_of(argument) == key and is_override(argument)]


def value_of(override: str) -> Any:
    """What an override sets, as plain values; None where it cannot be read, which is said as it is composed."""
    try:
        return parsed(override).value()
    except ConfigError:
        return None


def parsed(override: str) -> Override:
    """Raises ConfigError where Hydra's grammar cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(as_hydra(override))
    except HydraException as error:
        raise ConfigError(_unreadable(override)) from error


def as_hydra(override: str) -> str:
    """The override, its value quoted where Hydra's grammar cannot read it: `run=runs/ä`, `run=~/out(1)`.

    What starts like a list, a quoted text or an interpolation is left as it is, with its own error.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = override.partition("=")
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        if value and value[0] not in "[{'\"$":
            return f"{key}={quoted(value)}"
    return override


def quoted(text: str) -> str:
    """A value that Hydra's override grammar takes as it is."""
    # Hydra reads backslashes literally, except in front of a quote and at the end.
    escaped = re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ("\\" if m[2] else "") + m[2], text)
    return f'"{escaped}"'


def _unreadable(override: str) -> str:
    """Error text for an override that Hydra's grammar cannot read."""
    if "=" not in override and not override.startswith("~"):
        return f"{override!r} is not a setting; settings are KEY=VALUE, such as detect=nano"
    return (
        f"{override}: cannot be read; a list is [a,b], a map {{a: b}}, and a text with brackets, commas or quotes "
        "stands in quotes of its own: 'KEY=\"TEXT\"'"
    )
