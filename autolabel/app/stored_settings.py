"""The settings that a run holds. They are data, maybe a stranger's: none of them is resolved, and the classes that they
name are built only where this package or a person brings them too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from autolabel.app.overrides import key_of, value_of
from autolabel.app.run_directory import NOTHING_LABELLED
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, SourceError, StoreCorrupt, StoreError
from autolabel.core.text import printable
from autolabel.source.yaml_file import parse_yaml
from autolabel.store.run import RunReader, RunStore

if TYPE_CHECKING:
    from omegaconf import DictConfig


def plain_settings(run: RunStore | RunReader) -> dict[str, Any]:
    """The configuration that a run was labelled with, as plain values. Raises StoreError where that is nothing yet,
    StoreCorrupt for a text that is none."""
    text = run.meta("config")
    if text is None or run.meta("fingerprint") is None:
        raise StoreError(NOTHING_LABELLED.format(printable(str(run.directory))))
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it holds YAML aliases")  # a short text of them can stand for a long one
        found = parse_yaml("config", text)
        if not isinstance(found, dict):
            raise ValueError("it is not a mapping")
    except (yaml.YAMLError, SourceError, ValueError, RecursionError) as error:
        raise _damaged(run, error) from error
    return {str(key): value for key, value in found.items()}


def stored_settings(run: RunStore | RunReader) -> DictConfig:
    """Like `plain_settings`, to compose from."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.create(plain_settings(run))
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise _damaged(run, error) from error


def _damaged(run: RunStore | RunReader, error: Exception) -> StoreCorrupt:
    why = printable(" ".join(str(error).split()))
    return StoreCorrupt(
        f"{printable(str(run.directory))}: its stored configuration cannot be read ({why}); label again"
    )


def stored_refiners(
    directory: Path, settings: DictConfig, overrides: Sequence[str], config_dir: str | None
) -> dict[str, Any]:
    """The `refine` section of a run's settings, null where one of the `overrides` has another value. StoreCorrupt where
    there is none; ConfigError for a reference, and for a class that neither this package nor `config_dir` has in its
    own `refine` section."""
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(settings, resolve=False)
    assert isinstance(content, dict), "a DictConfig is a mapping"
    its = content.get("refine")
    if not isinstance(its, dict):  # a run without refiners has an empty one
        raise StoreCorrupt(
            f"{directory}: its stored configuration has no section refine; choose one: refine=default"
        )
    if "defaults" in its:
        raise ConfigError(
            "the run used refine.defaults, a name that Hydra reserves; choose other refiners with refine=..."
        )
    for override in overrides:
        _take_out(its, override)
    known = _classes_of(configs_dir()) | (_classes_of(Path(config_dir).expanduser()) if config_dir else set())
    for name, entry in its.items():
        if entry is not None and not isinstance(entry, dict):
            raise ConfigError(_refused(name, "which is not a section"))
        for key, value in _leaves(entry):
            if isinstance(value, str) and "${" in value:
                raise ConfigError(_refused(name, f"with a reference, {value!r}, which is not looked up for a run"))
            if key == "_target_" and value is not None and repr(value) not in known:
                way = f"give its --config-dir, or, if you know it, its class with refine.{name}._target_=..."
                raise ConfigError(_refused(name, f"which is not of this package ({value!r}): {way}"))
    return its


def _refused(name: object, why: str) -> str:
    return printable(f"the run used refine.{name}, {why}; or leave it out with refine.{name}=null")


def _take_out(its: dict[str, Any], override: str) -> None:
    """Empty what `override` sets anew or takes out, so that nobody is asked about a value that has no part in what
    follows. A section that it sets stays, as what is set is merged into it."""
    group, *parts = key_of(override).split(".")
    if group != "refine" or not parts:
        return
    section: Any = {group: its}
    for part in (group, *parts[:-1]):
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or parts[-1] not in section:
        return
    if override.startswith("~"):
        if "=" not in override:  # with a value, Hydra takes out what has that one
            section[parts[-1]] = {}  # Hydra takes out what is there, and null is not
    elif override.endswith("=null"):
        section[parts[-1]] = None
    else:
        section[parts[-1]] = _without(section[parts[-1]], value_of(override))


def _without(there: Any, new: Any) -> Any:
    """The part of `there` that stays when `new` is merged into it, null where `new` has a value."""
    if not isinstance(there, dict):
        return None
    if not isinstance(new, Mapping):
        return there
    return {key: _without(value, new[key]) if key in new else value for key, value in there.items()}


def _classes_of(folder: Path) -> set[str]:
    """Every class that a file of the `refine` group in `folder` names, as repr has it."""
    found: set[str] = set()
    for path in sorted((folder / "refine").glob("**/*.yaml")):
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        found |= {repr(value) for key, value in _leaves(content) if key == "_target_"}
    return found


def _leaves(value: Any, key: object = "") -> Iterator[tuple[object, Any]]:
    """Every value that is not a container, with the last key on the way to it; `_target_` with whatever it has."""
    if isinstance(value, Mapping) and key != "_target_":
        for inner_key, inner in value.items():
            yield from _leaves(inner, inner_key)
    elif isinstance(value, (list, tuple)) and key != "_target_":
        for inner in value:
            yield from _leaves(inner)
    else:
        yield key, value
