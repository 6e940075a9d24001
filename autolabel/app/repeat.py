"""A command that makes a run's configuration again, found from the configuration alone.

A run holds what was composed, not what was typed. So of each group the choice whose file says most nearly the same is
taken, what is left over is set key by key, and the result is composed to see that nothing is missing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from autolabel.app.choices import choices
from autolabel.app.compose import compose
from autolabel.app.leaves import leaves
from autolabel.app.overrides import is_override, quoted
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError

_LEFT_OUT = ("run", "source.path")
"""Where the run lies says nothing about it; the path is an argument of its own."""
_BARE = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = frozenset({"null", "true", "false", "nan", "inf"})

Leaves = Mapping[str, Any]
"""Settings by their dotted key."""


def repeat_command(config: Mapping[str, Any]) -> tuple[str, bool]:
    """`autolabel label PATH ...`, and whether it gives exactly this configuration."""
    if not config:
        return "autolabel label PATH", False
    wanted = dict(leaves(config))
    path = wanted.get("source.path")
    start = ["autolabel", "label"] + ([] if path is None else _path_argument(str(path)))
    overrides = _choices_of(config, wanted)
    exact = False
    try:
        overrides += _set_one_by_one(wanted, _composed(overrides))
        exact = not _differences(wanted, _composed(overrides))
    except ConfigError:  # keys or choices that this version does not have
        pass
    return shlex.join([*start, *overrides]), exact


def _choices_of(config: Mapping[str, Any], wanted: Leaves) -> list[str]:
    """`group=name` wherever it is not the name that label.yaml has anyway."""
    usual = _usual_choices()
    found = []
    for group, names in choices().items():
        if group == "export":
            exports = [str(name) for name in config.get(group) or {}]
            if exports != usual.get(group) and set(exports) <= set(names):
                found.append(f"export=[{','.join(exports)}]")
        elif group in usual and group in config:
            of_group = {key: value for key, value in wanted.items() if key.split(".")[0] == group}
            name = _closest(group, [usual[group], *names], of_group)
            if name != usual[group]:
                found.append(f"{group}={name}")
    return found


def choice_names(config: object) -> dict[str, str]:
    """What a configuration has chosen of each group that decides labels: `segment`: `nano`. Without the groups of which
    no choice of the package has the same classes and weights."""
    found: dict[str, str] = {}
    if not isinstance(config, Mapping):
        return found
    usual, groups = _usual_choices(), choices()
    for group in ("labeler", "detect", "labels", "prompt", "segment", "refine"):
        if not isinstance(config.get(group), Mapping):
            continue
        of_group = dict(leaves({group: config[group]}))
        name = _closest(group, [usual[group], *groups[group]], of_group)
        if _identity(of_group) == _identity(dict(leaves({group: _raw(group, name)}))):
            found[group] = name
    return found


def _identity(leaves: Leaves) -> Leaves:
    """What makes a choice that one: the classes that it names itself, and the weights; not what is within it."""
    of_choice = re.compile(r"(?!refine)\w+\.(?:_target_|weights)|refine\.\w+\._target_")
    return {key: value for key, value in leaves.items() if of_choice.fullmatch(key)}


def _usual_choices() -> dict[str, Any]:
    defaults = _yaml("label.yaml").get("defaults", [])
    named = {group: name for entry in defaults if isinstance(entry, dict) for group, name in entry.items()}
    return {group: name for group, name in named.items() if name is not None}


def _closest(group: str, names: Sequence[str], wanted: Leaves) -> str:
    """The first of those whose file says most nearly this; composing them all would take seconds."""

    def left_over(name: str) -> int:
        offered = dict(leaves({group: _raw(group, name)}))
        return sum(key in wanted for key in _differences(wanted, offered))

    return min(names, key=left_over)


def _raw(group: str, name: str) -> dict[str, Any]:
    """A file of the tree with those of the same group that it builds on."""
    content = dict(_yaml(f"{group}/{name}.yaml"))
    merged: dict[str, Any] = {}
    for parent in content.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            merged |= _raw(group, parent)
    return merged | content


@cache
def _yaml(path: str) -> Mapping[str, Any]:
    import yaml  # type: ignore[import-untyped]

    return yaml.safe_load((configs_dir() / path).read_text(encoding="utf-8")) or {}


def _set_one_by_one(wanted: Leaves, base: Leaves) -> list[str]:
    """Keys that this version knows and the run does not are left as they are: nobody can have set them."""
    return [
        f"{'' if any(k == key or k.startswith(f'{key}.') for k in base) else '+'}{key}={_written(wanted[key])}"
        for key in _differences(wanted, base)
        if key in wanted
    ]


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_written(k)}:{_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str) and (value.lower() in _WORDS or not _BARE.fullmatch(value)):
        return quoted(value)
    return str(value)


def _composed(overrides: Sequence[str]) -> Leaves:
    from omegaconf import OmegaConf

    composed = OmegaConf.to_container(compose("label", overrides), resolve=False)
    assert isinstance(composed, dict), "label.yaml is a mapping"
    return dict(leaves(composed))


def _differences(a: Leaves, b: Leaves) -> list[str]:
    return [
        key
        for key in dict.fromkeys((*a, *b))
        if key not in _LEFT_OUT and not (key in a and key in b and _equal(a[key], b[key]))
    ]


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _path_argument(path: str) -> list[str]:
    return [f"source.path={quoted(path)}"] if is_override(path) or path.startswith("-") else [path]
