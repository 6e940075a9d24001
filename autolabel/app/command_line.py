"""A command line, taken apart into bare paths, settings and flags. Reads no configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autolabel.app.overrides import is_override
from autolabel.core.errors import ConfigError


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
