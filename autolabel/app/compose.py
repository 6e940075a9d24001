"""Settings from the command line to a configuration, and from a configuration to components. Hydra stays in here."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from autolabel.app.hydra_errors import (
    NAMED,
    key_of_building,
    of_building,
    of_composing,
    of_reading,
    refuse_unfit,
    unreadable,
    values_in,
)
from autolabel.core.configs import HYDRA_TURN, configs_dir
from autolabel.core.errors import AutolabelError, ConfigError, SettingError
from autolabel.ops.names import nearest
from autolabel.ops.storage import is_url

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_GIVEN = "given"
"""A choice that is there for one composition."""
_ALIKE = 0.8
"""Similarity, at most 1 (difflib), from which on a key is taken for another one, misspelt."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command line, taken apart: bare paths, Hydra overrides, and our few flags. `flag` says whether the command's
    own one is there."""

    paths: tuple[str, ...]
    overrides: tuple[str, ...]
    show: bool = False
    flag: bool = False
    config_dir: str | None = None

    @property
    def path(self) -> str | None:
        """The bare path of a command that takes one."""
        return self.paths[0] if self.paths else None


FLAGS = {"-m": "label", "--multirun": "label", "--verify": "export", "--calibrate": "evaluate"}
"""Flags that one command takes, and which."""


_OTHER_PATHS = {
    "label": "; several paths are a text file with a line for each",
    "evaluate": "; ground truth is truth=PATH",
}


def parse(arguments: Sequence[str], command: str, *, several: bool = False) -> Request:
    """Raises ConfigError for a flag that `command` does not take, or for a second bare path where it does not take
    `several`."""
    paths: list[str] = []
    overrides: list[str] = []
    flags: set[str] = set()
    config_dir = None
    rest = iter(arguments)
    for argument in rest:
        if argument == "--cfg" or FLAGS.get(argument) == command:
            flags.add(argument)
        elif argument in FLAGS:
            raise ConfigError(f"{argument} belongs to {FLAGS[argument]}, {command} has no such option")
        elif argument == "--config-dir" or argument.startswith("--config-dir="):
            before, config_dir = config_dir, argument.partition("=")[2] or next(rest, "")
            if not config_dir:
                raise ConfigError("--config-dir needs a folder")
            if before is not None:
                raise ConfigError(
                    f"one --config-dir at a time, got {before!r} and {config_dir!r}; put the files into one folder"
                )
        elif argument.startswith("-"):
            raise ConfigError(f"there is no option {argument!r} (autolabel --help lists them)")
        elif is_override(argument):
            overrides.append(argument)
        else:
            paths.append(argument)
    if len(paths) > 1 and not several:
        raise ConfigError(
            f"one path at a time, got {paths[0]!r} and {paths[1]!r}; settings are KEY=VALUE, in quotes where there is a "
            f"space in one{_OTHER_PATHS.get(command, '')}"
        )
    return Request(
        paths=tuple(paths),
        overrides=tuple(overrides),
        show="--cfg" in flags,
        flag=bool(flags - {"--cfg"}),
        config_dir=config_dir,
    )


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


def compose(name: str, overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The configuration `configs/<name>.yaml` with `overrides`. Leaves no Hydra state behind."""
    return _checked(name, overrides, (config_dir,) if config_dir else ())


@cache
def _usual(name: str) -> DictConfig:
    return _composed(name, (), ())


def compose_from(
    group: str, settings: Mapping[str, Any], name: str, overrides: Sequence[str], config_dir: str | None = None
) -> DictConfig:
    """Like `compose`, with `settings` as what is chosen of `group`, unless an override chooses."""
    if any(key_of(override) == group for override in overrides):
        return compose(name, overrides, config_dir)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / group / f"{_GIVEN}.yaml"
        file.parent.mkdir()
        OmegaConf.save(OmegaConf.create(dict(settings)), file)
        return _checked(name, (f"{group}={_GIVEN}", *overrides), (folder, config_dir) if config_dir else (folder,))


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
        raise ConfigError(unreadable(override)) from error


def _checked(name: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> DictConfig:
    config = _composed(name, overrides, config_dirs)
    for group in NAMED:
        if group not in config and any(key_of(override) == group for override in overrides):
            OmegaConf.update(config, group, {}, force_add=True)  # `refine=[]`, `~refine`
    if any(override.startswith("~") or override.endswith("=[]") for override in overrides):
        _refuse_missing(config, _usual(name))
    # Hydra refuses a key that there is not, but for these and in files, of which ours are tested.
    if config_dirs or any(override.startswith(("+", "hydra.")) for override in overrides):
        _refuse_misspelt(config, _usual(name))
    return config


def _composed(name: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    overrides = _read(name, overrides, config_dirs)
    extra = [f"hydra.searchpath=[{','.join(map(_absolute, config_dirs))}]"] if config_dirs else []
    with _own_hydra_state():
        try:
            with initialize_config_dir(str(configs_dir()), version_base="1.3", job_name="autolabel"):
                return hydra_compose(name, overrides=[*extra, *map(as_hydra, overrides)])
        # The last five: a configuration file of somebody's own that is not YAML, or not a configuration.
        except (
            HydraException,
            OmegaConfBaseException,
            ValueError,
            YAMLError,
            RecursionError,
            TypeError,
            OSError,
        ) as error:
            raise ConfigError(_no_such_name(error, name, overrides, config_dirs) or of_composing(error)) from error


def _read(name: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> list[str]:
    """The overrides but for `experiment=null` and those before it, where nothing is what is chosen anyway. Raises
    ConfigError for what cannot be read, or is not a choice."""
    kept: list[str] = []
    for given in overrides:
        override = parsed(given)
        group = override.key_or_group
        if not override.is_delete() and override.value() is None and group in _optional(name):
            kept = [one for one in kept if key_of(one) != group]
            continue
        refuse_unfit(given, override, _choices(group, config_dirs), sweeps=name == "label")
        kept.append(given)
    return kept


@cache
def _optional(name: str) -> frozenset[str]:
    """The groups of which a primary file chooses nothing."""
    entries = OmegaConf.load(configs_dir() / f"{name}.yaml").get("defaults", [])
    return frozenset(
        str(group)
        for entry in entries
        if isinstance(entry, DictConfig)
        for group, choice in entry.items()
        if choice is None
    )


def _plain_sections(usual: DictConfig) -> list[str]:
    """Sections such as `images`, of which the commands themselves read every value."""
    return [
        str(key)
        for key in usual
        if isinstance(section := usual._get_node(key), DictConfig)
        and not any(isinstance(section._get_node(one), DictConfig) for one in section)
        and "_target_" not in section
    ]


def _refuse_missing(config: DictConfig, usual: DictConfig) -> None:
    """ConfigError for a key of `_plain_sections`, or at the top, that was taken out: something would read it."""
    for section in ["", *_plain_sections(usual)]:
        there, known = (one._get_node(section) if section else one for one in (config, usual))
        if isinstance(there, DictConfig) and isinstance(known, DictConfig):
            for key in known:
                if key not in there:
                    full = f"{section}.{key}" if section else key
                    raise ConfigError(f"{full} cannot be taken out, it is needed; choose another: {full}=...")


def _refuse_misspelt(config: DictConfig, usual: DictConfig) -> None:
    """ConfigError for a key, at the top or in a section of plain values such as `images`, that looks like one of
    the `usual` configuration and is none: nothing would read it. Other keys are a person's own, for `${...}` in
    their files."""
    text = OmegaConf.to_yaml(config, resolve=False)
    for section in ["", *_plain_sections(usual)]:
        there = config._get_node(section) if section else config
        if not isinstance(there, DictConfig):
            continue
        known = list(map(str, usual._get_node(section) if section else usual))
        for key in map(str, there):
            alike = get_close_matches(key.lower(), known, n=1, cutoff=_ALIKE)
            referred_to = re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text)
            if key not in known and alike and not referred_to:
                full = f"{section}.{key}" if section else key
                raise ConfigError(f"{full}: there is no such setting, nothing reads it; did you mean {alike[0]}?")


def _no_such_name(error: Exception, name: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> str | None:
    """One line for a choice or a setting that there is not, with what may have been meant; None for other errors."""
    from hydra.errors import MissingConfigException

    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        said = [
            override
            for override in overrides
            if key_of(override).partition("@")[0] == group and choice in values_in(parsed(override))
        ]
        there = _choices(group, config_dirs)
        if said and there:
            return f"{said[0]}: {group} has no choice {choice!r}; {nearest(choice, there)}"
        return None  # a file asks for it, and Hydra says which
    unknown = re.match(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    if unknown is None:
        return None
    key = unknown[1]
    group, _, package = key.partition("@")
    if package:
        return f"{key}: what is chosen has no {package}"
    others = [override for override in overrides if key_of(override) != key]
    if len(others) == len(overrides):  # it is set in a file, not here
        return None
    known = list(_settings(_composed(name, others, config_dirs)))
    section, _, rest = key.partition(".")
    if section not in known and key in _settings(_usual("label")):
        way = f"autolabel {section} RUN {key}=..." if section in NAMED else "label again, into another run=..."
        return f"{key}: {name} does not change that; {way}"
    component = rest.partition(".")[0]
    if section in NAMED and section in known and component in _choices(section, config_dirs):
        there = [one.partition(".")[2] for one in known if re.fullmatch(rf"{section}\.[^.]+", one)]
        if component not in there:
            return f"{key}: {component} is not chosen; {section}=[{','.join([*there, component])}] has it"
    return f"{key}: there is no such setting; {_meant(key, known)}"


def _choices(group: str, config_dirs: Sequence[str]) -> list[str]:
    folders = [configs_dir(), *(Path(one).expanduser() for one in config_dirs)]
    return [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]


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


def alternatives(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """For each key, in order, one override for every value that was given: one alone where nothing is swept.

    A key that is set twice, however it is written, has what it was set to last. Raises ConfigError for a value that
    cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for given in overrides:
        override = parsed(_as_sweep(given))
        key = override.get_key_element()
        found.pop(key, None)
        # `+a=1,2 a=3` is one run, which still needs the first to have the key: any value of it will do.
        found.update({other: found[other][:1] for other in found if key_of(other) == key_of(key)})
        found[key] = tuple(dict.fromkeys(f"{key}={value}" for value in _swept(override, given))) or (given,)
    return list(found.values())


def _swept(override: Override, given: str) -> Iterator[str]:
    """The values of a sweep as texts; none where there is one value alone."""
    from hydra.core.override_parser.types import ValueType

    if not override.is_sweep_override():
        return
    if not override.is_discrete_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError(
            f"{given}: a sweep takes values one by one, with commas between them, or range(a,b,step)"
        )
    for value in override.sweep_string_iterator():
        # A step of 0.1 leads to 0.30000000000000004, which nobody meant.
        yield f"{float(value):.12g}" if override.is_range_sweep() else value


def _as_sweep(override: str) -> str:
    """Like `as_hydra`, with the values between the commas of what Hydra cannot read quoted one by one."""
    readable = as_hydra(override)
    key, _, value = override.partition("=")
    if readable == override or "," not in value:
        return readable
    values = value.split(",")
    if not all(values):
        raise ConfigError(f"{override}: there is no value before or after a comma")
    return f"{key}={','.join(map(quoted, values))}"


def build(config: DictConfig | Mapping[str, Any], **given: Any) -> Any:
    """The component that `_target_` names; its keywords are the config. Raises ConfigError, which names a wrong one by
    its key in the whole configuration, also where the component stands within another."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    try:
        return instantiate(config, _convert_="all", **given)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, AutolabelError):
            cause = cause.__cause__
        if cause is not None:
            key = key_of_building(error)
            raise (cause.at(key) if key and isinstance(cause, SettingError) else cause) from None
        raise ConfigError(of_building(error, config)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(of_reading(error, config) if isinstance(config, DictConfig) else str(error)) from error


METHODS = {
    "source": "images",
    "labeler": "find",
    "detect": "detect",
    "prompt": "prompt",
    "segment": "segment",
    "refine": "refine",
    "engine": "run",
    "export": "export",
}
"""The method for which a group's components are called (`core/protocols.py`)."""
ATTRIBUTES = {
    "source": ("categories", "ignored", "document"),
    "labeler": ("categories", "identity"),
    "detect": ("categories", "identity"),
    "prompt": ("identity",),
    "segment": ("identity",),
}
"""The attributes by which they describe themselves."""


def build_of(group: str, config: DictConfig, key: str | None = None) -> Any:
    """Like `build`, and ConfigError for what is not a component of this group; `key` is where it is set."""
    return fitting(build(config), group, key or group)


def fitting(component: Any, group: str, key: str) -> Any:
    """The component. Raises ConfigError when it cannot be what its group is called for."""
    if not callable(getattr(component, METHODS[group], None)):
        raise ConfigError(
            f"{key}._target_ must name a class with a method {METHODS[group]}(), as the group {group} has them, "
            f"got a {type(component).__name__}"
        )
    for name in ATTRIBUTES.get(group, ()):
        # Not asked for where the class has it: a property of a source may read files.
        if not hasattr(type(component), name) and not hasattr(component, name):
            raise ConfigError(
                f"{key}._target_: {type(component).__name__} needs `{name}`, as the group {group} has it "
                "(autolabel/core/protocols.py)"
            )
    return component


def build_all(group: str, configs: DictConfig | None) -> dict[str, Any]:
    """The named components of a group in the order they are written; a null entry is switched off. ConfigError for one
    that is not a section, has settings but names no class, or does not fit."""
    built = {}
    for name, config in (configs or {}).items():
        key = f"{group}.{name}"
        if config is None:
            continue
        if not isinstance(config, DictConfig):
            raise ConfigError(
                f"{key} must be a section with _target_, got {config!r}; in a file of {group}, put a name around its "
                f"settings ({group}.NAME._target_)"
            )
        if "_target_" not in config:
            raise ConfigError(
                f"{key} has settings, but nothing that is chosen has such a part: {key}=null leaves it out"
            )
        built[str(name)] = build_of(group, config, key)
    return built


def show(config: DictConfig) -> int:
    """What `--cfg` asks for; the exit code."""
    sys.stdout.write(OmegaConf.to_yaml(config))
    return 0


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as ordinary Python values, interpolations resolved."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(of_reading(error, config)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@cache
def _names() -> tuple[str, ...]:
    """The names of all our configuration files, relative to their folder."""
    return tuple(sorted(str(path.relative_to(configs_dir())) for path in configs_dir().rglob("*.yaml")))


def _absolute(directory: str) -> str:
    path = Path(directory).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {directory}: there is no such folder")
    for name in _names():
        # Ours is read wherever both are: what `detect=nano` says in documents and in runs holds for everybody.
        if (path / name).is_file() and (path / name).read_bytes() != (configs_dir() / name).read_bytes():
            raise ConfigError(
                f"--config-dir {directory}: {name} has the name of one of autolabel's own, which is read in its place; "
                "rename it, for example to mine.yaml, and choose it by that name"
            )
    return f"file://{path}"


@contextmanager
def _own_hydra_state() -> Iterator[None]:
    """A caller's own Hydra application, or a notebook's, is as it was afterwards."""
    from hydra.core.global_hydra import GlobalHydra

    with HYDRA_TURN:
        state = GlobalHydra.instance()
        before = state.hydra
        state.hydra = None
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = before
