"""From sections of a configuration to components. What is wrong with one is said under its key there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from autolabel.app.hydra_errors import key_of_building, of_building, of_reading
from autolabel.core.errors import AutolabelError, ConfigError, SettingError


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
    return as_component(build(config), group, key or group)


def as_component(component: Any, group: str, key: str) -> Any:
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
