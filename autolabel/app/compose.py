"""Settings from the command line to a configuration, and from a configuration to components. Hydra stays in here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from autolabel.core.configs import configs_dir
from autolabel.core.errors import AutolabelError, ConfigError


@dataclass(frozen=True, slots=True)
class Request:
    """A command line, taken apart: at most one bare path, Hydra overrides, and our few flags."""

    path: str | None
    overrides: tuple[str, ...]
    multirun: bool = False
    show: bool = False
    verify: bool = False
    config_dir: str | None = None


def parse(arguments: Sequence[str]) -> Request:
    """Raises ConfigError for an unknown flag or a second bare path."""
    paths: list[str] = []
    overrides: list[str] = []
    flags: set[str] = set()
    config_dir = None
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-m", "--multirun", "--cfg", "--verify"):
            flags.add(argument)
        elif argument == "--config-dir" or argument.startswith("--config-dir="):
            config_dir = argument.partition("=")[2] or next(rest, "")
            if not config_dir:
                raise ConfigError("--config-dir needs a folder")
        elif argument.startswith("-"):
            raise ConfigError(f"there is no option {argument!r} (autolabel --help lists them)")
        elif is_override(argument):
            overrides.append(argument)
        else:
            paths.append(argument)
    if len(paths) > 1:
        raise ConfigError(
            f"one path at a time, got {paths[0]!r} and {paths[1]!r}; a text list of paths is a source too"
        )
    return Request(
        path=paths[0] if paths else None,
        overrides=tuple(overrides),
        multirun=bool(flags & {"-m", "--multirun"}),
        show="--cfg" in flags,
        verify="--verify" in flags,
        config_dir=config_dir,
    )


def is_override(argument: str) -> bool:
    """`key=value` with a key as Hydra writes it; anything else is a path, even when it holds a `=`."""
    if os.path.exists(argument):  # noqa: PTH110 - any string may be given, also one that Path refuses
        return False
    key = argument.lstrip("+~").partition("=")[0]
    return (
        "=" in argument
        and bool(key)
        and all(part.replace("_", "a").isalnum() for part in key.replace("@", ".").replace("/", ".").split("."))
    )


def compose(name: str, overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The configuration `configs/<name>.yaml` with `overrides`. Leaves no Hydra state behind."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    extra = [f"hydra.searchpath=[{_absolute(config_dir)}]"] if config_dir else []
    with _own_hydra_state():
        try:
            with initialize_config_dir(str(configs_dir()), version_base="1.3", job_name="autolabel"):
                return hydra_compose(name, overrides=[*extra, *map(as_hydra, overrides)])
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: `detect=null`
            raise ConfigError(_readable(error)) from error


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


def expand(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of comma-separated values, in the order Hydra's own sweeper takes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides([as_hydra(o) for o in overrides])
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise ConfigError(_readable(error)) from error
    return [tuple(job) for batch in batches for job in batch]


def build(config: DictConfig | Mapping[str, Any], **given: Any) -> Any:
    """The component that `_target_` names; its keywords are the config."""
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
            raise cause from None
        raise ConfigError(_readable(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error)) from error


def build_all(configs: DictConfig | None) -> dict[str, Any]:
    """Named components in the order they are written; a null entry is switched off."""
    return {str(name): build(config) for name, config in (configs or {}).items() if config is not None}


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as ordinary Python values, interpolations resolved."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_readable(error)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """`a.b.c`, value as text, for every leaf."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(f"{prefix}.{key}", inner)
    else:
        yield prefix, repr(value)


def _readable(error: Exception) -> str:
    """Hydra's and OmegaConf's messages, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(
        line for line in lines if not line.startswith(("Set the environment variable HYDRA", "See https"))
    )


def _absolute(directory: str) -> str:
    from pathlib import Path

    path = Path(directory).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {directory}: there is no such folder")
    return f"file://{path}"


@contextmanager
def _own_hydra_state() -> Iterator[None]:
    """A caller's own Hydra application, or a notebook's, is as it was afterwards."""
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance()
    before = state.hydra
    state.hydra = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before
