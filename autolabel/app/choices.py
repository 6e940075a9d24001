"""The choices of each group of the configuration: names of files in our folder and a person's. Reads none of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autolabel.core.configs import configs_dir

NAMED = ("refine", "export")
"""Groups of any number of components, each under a name of its own: also none."""


def choices(config_dir: str | None = None) -> dict[str, list[str]]:
    """Every group of the configuration tree, and of a person's own, and the names in it."""
    folders = folders_of(config_dir)
    groups = sorted({p.name for folder in folders for p in folder.iterdir() if p.is_dir()})
    return {group: names for group in groups if group[0] not in "_." and (names := names_of(group, folders))}


def folders_of(*config_dirs: str | None) -> list[Path]:
    """Where files of choices are: the package's own folder, then a person's."""
    return [configs_dir(), *(Path(one).expanduser() for one in config_dirs if one)]


def names_of(group: str, folders: Sequence[Path]) -> list[str]:
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
