"""From settings to a configuration. What Hydra passes over in silence is refused here."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from autolabel.app.choices import NAMED, folders_of, names_of
from autolabel.app.hydra_errors import (
    no_such_choice,
    no_such_setting,
    of_composing,
    of_reading,
    refuse_unfit,
    refused_key,
)
from autolabel.app.overrides import as_hydra, key_of, parsed
from autolabel.core.configs import HYDRA_TURN, configs_dir
from autolabel.core.errors import ConfigError

_GIVEN = "given"
"""A choice that is there for one composition."""
_ALIKE = 0.8
"""Similarity, at most 1 (difflib), from which on a key is taken for another one, misspelt."""


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
        refuse_unfit(given, override, names_of(group, folders_of(*config_dirs)), sweeps=name == "label")
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
    """One line for a choice or a setting that there is not, with what may have been meant; None for other errors, and
    where the name is in a file, not here."""
    from hydra.errors import MissingConfigException

    folders = folders_of(*config_dirs)
    if isinstance(error, MissingConfigException):
        return no_such_choice(error.missing_cfg_file or "", overrides, folders)
    key = refused_key(error)
    others = [override for override in overrides if key_of(override) != key]
    if key is None or len(others) == len(overrides):
        return None
    return no_such_setting(key, name, _composed(name, others, config_dirs), _usual("label"), folders)


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
