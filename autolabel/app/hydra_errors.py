"""What Hydra and OmegaConf refuse, in our words: which setting, what is wrong with it, what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from autolabel.app.choices import NAMED, names_of
from autolabel.app.overrides import key_of, parsed
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError
from autolabel.core.text import one_line
from autolabel.ops.names import nearest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException


# -- overrides, before anything is composed ------------------------------------------------------------------


def refuse_unfit(given: str, override: Override, choices: Collection[str], *, sweeps: bool) -> None:
    """ConfigError for several values in place of one, and for what is not a choice of a group: of one that has any,
    `choices` are its own. `sweeps`: the command takes -m."""
    key = override.key_or_group
    if override.is_sweep_override():
        raise ConfigError(f"{given}: {_one_value(given, override, bool(choices), sweeps=sweeps)}")
    if not choices or override.is_delete():
        return
    value = override.value()
    if value is None:
        instead = f"for none of them, {key}=[]" if key in NAMED else nearest("null", choices)
        raise ConfigError(f"{given}: null is not a choice of {key}; {instead}")
    if isinstance(value, list) and len(value) > 1 and key not in NAMED:  # Hydra would mix their settings
        each = f"; for one run each: label -m {key}={','.join(map(str, value))}" if sweeps else ""
        raise ConfigError(f"{given}: there is one choice of {key} at a time{each}")
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str):  # nan is a number, true a truth value
            text = str(one) if isinstance(value, list) else given.partition("=")[2]
            raise ConfigError(f"{given}: {key} has no choice {text!r}; {nearest(text, choices)}")


def _one_value(given: str, override: Override, is_group: bool, *, sweeps: bool) -> str:
    """What to write in place of values with commas between them."""
    key, _, text = given.partition("=")
    ways = []
    if not override.is_discrete_sweep() or not text or "(" in text:
        pass  # choice(a,b), range(1,9)
    elif not is_group:
        ways += [f"a list is {key}=[{text}]", f"one text is '{key}=\"{text}\"'"]
    elif override.key_or_group in NAMED:
        ways.append(f"several of them are a list: {key}=[{text}]")
    else:
        ways.append("there is one choice at a time")
    if sweeps:
        ways.append("for one run each: label -m")
    return "; ".join(ways) or "a sweep is for label -m"


# -- errors --------------------------------------------------------------------------------------------------


def no_such_choice(file: str, overrides: Sequence[str], folders: Sequence[Path]) -> str | None:
    """Error text for the missing `file`, such as `detect/nanoo`, with what may have been meant; None where none of the
    `overrides` names it but another file, as Hydra says."""
    group, _, choice = file.rpartition("/")
    said = [
        override
        for override in overrides
        if key_of(override).partition("@")[0] == group and choice in _named(parsed(override))
    ]
    there = names_of(group, folders)
    return f"{said[0]}: {group} has no choice {choice!r}; {nearest(choice, there)}" if said and there else None


def refused_key(error: Exception) -> str | None:
    """The setting that there is not, where that is the error."""
    unknown = re.match(r"Could not (?:override|delete from config\.) '([^'@]+)'", str(error))
    return unknown[1] if unknown else None


def no_such_setting(
    key: str, command: str, config: DictConfig, of_label: DictConfig, folders: Sequence[Path]
) -> str:
    """Error text for a `key` that the `config` of a command has not, with what may have been meant. `of_label`: the
    configuration of `label`, whose settings other commands do not change."""
    known = list(_settings(config))
    section, _, rest = key.partition(".")
    if section not in known and key in _settings(of_label):
        way = f"autolabel {section} RUN {key}=..." if section in NAMED else "label again, into another run=..."
        return f"{key}: {command} does not change that; {way}"
    component = rest.partition(".")[0]
    if section in NAMED and section in known and component in names_of(section, folders):
        there = [one.partition(".")[2] for one in known if re.fullmatch(rf"{section}\.[^.]+", one)]
        if component not in there:
            return f"{key}: {component} is not chosen; {section}=[{','.join([*there, component])}] has it"
    return f"{key}: there is no such setting; {_meant(key, known)}"


def _named(override: Override) -> list[str]:
    """The choices that it names."""
    value = override.value()
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def _meant(key: str, known: Sequence[str]) -> str:
    """The part of `key` that is not among the `known` settings, and what there is in its place."""
    parts = key.split(".")
    depth = next(i for i in range(len(parts)) if ".".join(parts[: i + 1]) not in known)
    section, part = ".".join(parts[:depth]), parts[depth]
    deeper = [one for one in known if one.startswith(f"{parts[0]}.") and one.endswith(f".{parts[-1]}")]
    if deeper:
        return f"did you mean {' or '.join(deeper[:3])}?"
    beside = [one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == section]
    within = f"{section} has no {part!r}: " if depth < len(parts) - 1 and section else ""
    return within + (nearest(part, beside) if beside else f"{section} is switched off or has no settings")


def _settings(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key that a person sets, sections too: `segment`, `segment.weights`; not Hydra's `_target_`. Nothing is
    resolved: what an interpolation asks for may not be there."""
    for key in map(str, config):
        if key.startswith("_"):
            continue
        yield f"{prefix}{key}"
        below = config._get_node(key)
        if isinstance(below, DictConfig) and not (
            below._is_none() or below._is_missing() or below._is_interpolation()
        ):
            yield from _settings(below, f"{prefix}{key}.")


def of_composing(error: Exception) -> str:
    """Hydra's message, on one line."""
    text = str(error)
    several = re.match(r"Multiple values for ([^. ]+)\. .*'override [^:]+: (.*)'", text)
    if several is not None:
        group, choice = several.groups()
        both = f", or with others {group}=[...,{choice}]" if group in NAMED else ""
        return f"+{group}={choice}: {group} has a choice already; in its place: {group}={choice}{both}"
    package = re.match(r"Could not override '([^'@]+@([^']+))'", text)
    if package is not None:
        return f"{package[1]}: what is chosen has no {package[2]}"
    return _one_line(text.replace("Could not delete from config. The value", "the value"))


def of_reading(error: OmegaConfBaseException, config: DictConfig) -> str:
    """Error text for a value that is not there, or refers to what is not."""
    if isinstance(error, MissingMandatoryValue):
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            return "; ".join(_missing(config, key) for key in missing)
    said = str(error).splitlines()[0]
    said = re.sub(r"^\w+ raised while resolving interpolation: ", "", said).strip('"')
    return f"{error.full_key}: {said}" if error.full_key else said


def key_of_building(error: InstantiationException) -> str:
    """Where the component that failed stands, such as `detect.inner`; empty for one from a plain mapping."""
    place = re.search(r"full_key: (\S+)", str(error))
    return place[1] if place else ""


def of_building(error: InstantiationException, config: object) -> str:
    """Error text for a class that cannot be loaded, does not take a setting, or fails."""
    text = str(error)
    key = key_of_building(error)
    dot, colon = (f"{key}.", f"{key}: ") if key else ("", "")
    target = re.search(r"target '([^']+)'", text)
    cause = error.__cause__
    if target is None or cause is None:
        return colon + _one_line(re.sub(r"\s*full_key: \S+", "", text))
    if text.startswith("Error locating target"):
        while cause.__cause__ is not None:  # Hydra's own words are around it
            cause = cause.__cause__
        return (
            f"{colon}{target[1]} cannot be loaded: {one_line(cause)} (--debug shows where; a package of your own must be "
            "installed, or on PYTHONPATH)"
        )
    called = re.escape(f"{target[1].rpartition('.')[2]}.__init__()")
    if unknown := re.fullmatch(rf"{called} got an unexpected keyword argument '(.*)'", str(cause)):
        known = _settings_at(config, key) - {unknown[1]}
        return f"{dot}{unknown[1]}: there is no such setting; {nearest(unknown[1], known)}"
    if lacking := re.fullmatch(rf"{called} missing \d+ required keyword-only arguments?: (.*)", str(cause)):
        return f"{colon}{target[1]} needs settings that are not there: {lacking[1]}"
    return f"{colon}{target[1]} cannot be built: {one_line(cause)} (--debug shows where)"


def _settings_at(config: object, key: str) -> set[str]:
    if not isinstance(config, DictConfig):
        return set()
    there = OmegaConf.select(config._get_root(), key) if key else config
    return {str(one) for one in there if not str(one).startswith("_")} if isinstance(there, DictConfig) else set()


def _missing(config: DictConfig, key: str) -> str:
    """A line about a setting without a value; what it takes is said where its file says it."""
    section, _, name = key.rpartition(".")
    there = OmegaConf.select(config._get_root(), section) if section else None
    target = there.get("_target_") if isinstance(there, DictConfig) else None
    takes = next(_comments(section.partition(".")[0], str(target), name), "")
    return f"{key} is not set, and what is chosen needs it: {key}=..." + (f" ({takes})" if takes else "")


def _comments(group: str, target: str, name: str) -> Iterator[str]:
    """What files of a group whose class is `target` say about a setting that they leave open."""
    for file in sorted((configs_dir() / group).glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        said = re.search(rf"^{re.escape(name)}: \?\?\? +# (.*)$", text, re.MULTILINE)
        if said is not None and f"_target_: {target}\n" in text:
            yield said[1]


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "Config search path:" in lines:
        lines = lines[: lines.index("Config search path:")]
    return "; ".join(
        line for line in lines if not line.startswith(("Set the environment variable HYDRA", "See https"))
    )
