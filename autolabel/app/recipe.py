"""A labeler that other processes build: settings and classes travel there, models never do.

The process that holds the run loads no model then. It asks one of the others what they compute with, which is what the
run is claimed with; each of them checks that its own answer is the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from autolabel.app.build import build_of
from autolabel.app.labelers import NO_CLASSES, build_labeler, no_classes
from autolabel.app.precision import Trial, tried
from autolabel.app.refiners import build_refiners
from autolabel.app.run_directory import root_of
from autolabel.core.errors import ConfigError
from autolabel.core.protocols import BatchLimit, Finish, Prompter, Refiner
from autolabel.core.text import printable
from autolabel.core.types import Category, Frame, ImageRecord, ImageRef
from autolabel.engine.stage_times import StageTimes

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from autolabel.engine.labeler import FrameLabeler

T = TypeVar("T")
Identities = Mapping[str, Mapping[str, str]]


@runtime_checkable
class RemoteEngine(Protocol):
    """An engine that labels in other processes."""

    def on_gpus(self) -> bool:
        """Whether they are given GPUs. May start what `close` ends, as `ask` does."""

    def ask(self, question: Callable[[], T]) -> T:
        """One worker's answer to the question; both are pickled."""

    def close(self) -> None:
        """End what `ask` started."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the labeler of a configuration is made of: the settings as YAML, the source's classes, the folder that
    relative paths count from, and the source's path (empty: it is not a file or folder)."""

    config: str
    categories: tuple[Category, ...]
    folder: str
    root: str
    offline: str

    def build(self) -> tuple[FrameLabeler, tuple[Category, ...]]:
        """In a process of its own: it is moved to the folder. Raises ConfigError where the pictures are not."""
        from omegaconf import OmegaConf

        from autolabel.weights.quiet import quiet_environment

        for place in (self.folder, self.root):
            if place and self.root and not os.path.exists(place):  # noqa: PTH110 - any bytes
                raise ConfigError(
                    f"{printable(place)} is not on {socket.gethostname()}: every node must have the pictures under the "
                    "same path, or the source must be a URL"
                )
        if os.path.isdir(self.folder):  # noqa: PTH112
            os.chdir(self.folder)
        if self.offline:
            os.environ["AUTOLABEL_OFFLINE"] = self.offline
        quiet_environment()
        return build_labeler(OmegaConf.create(self.config), self.categories)

    def told(self) -> tuple[dict[str, dict[str, str]], tuple[Category, ...]]:
        """What the labeler computes with here, and its classes."""
        labeler, categories = self.build()
        return {group: dict(its) for group, its in labeler.identities.items()}, categories

    def tried(self, refs: Sequence[ImageRef]) -> Trial | None:
        """What `precision.tried` says here."""
        from omegaconf import OmegaConf

        return tried(OmegaConf.create(self.config), lambda: self.build()[0], refs)


class RemoteLabeler:
    """The labeler of a recipe, as the process that holds the run has it. Pickled, it becomes the recipe; unpickled, the
    labeler itself."""

    def __init__(
        self,
        recipe: Recipe,
        identities: Identities,
        *,
        batch_limit: BatchLimit,
        refiners: Sequence[Refiner],
        prompter: Prompter | None = None,
    ) -> None:
        self._recipe = recipe
        self.identities = identities
        self.batch_limit = batch_limit
        self.refiners = refiners
        self.prompter = prompter
        self.times = StageTimes()

    def __reduce__(self) -> tuple[Callable[[Recipe, Identities], FrameLabeler], tuple[Recipe, Identities]]:
        return built, (self._recipe, self.identities)

    @cached_property
    def _here(self) -> FrameLabeler:
        return built(self._recipe, self.identities)

    def load(self, ref: ImageRef) -> Frame | ImageRecord:
        return self._here.load(ref)

    def find(self, loaded: Sequence[Frame | ImageRecord]) -> Finish:
        return self._here.find(loaded)


def built(recipe: Recipe, identities: Identities) -> FrameLabeler:
    """The labeler. Raises ConfigError when this process computes with something else than the run."""
    labeler, _ = recipe.build()
    for group, expected in identities.items():
        found = labeler.identities[group]
        for key in expected.keys() | found.keys():
            if expected.get(key) != found.get(key):
                raise ConfigError(
                    f"{group} ({key}) is {found.get(key)} on {socket.gethostname()}, but {expected.get(key)} in the rest "
                    "of the run; give every actor the same (engine.gpus_per_actor, the same weights on every node)"
                )
    return labeler


def recipe_of(config: DictConfig, categories: Sequence[Category]) -> Recipe:
    from omegaconf import OmegaConf

    root = root_of({"source": OmegaConf.to_container(config.source)})
    return Recipe(
        config=OmegaConf.to_yaml(config, resolve=True),
        categories=tuple(categories),
        folder=os.getcwd(),  # noqa: PTH109
        root=root if os.path.exists(root) else "",  # noqa: PTH110 - else a URL or a pattern, nothing to look for
        offline=os.environ.get("AUTOLABEL_OFFLINE", ""),
    )


def remote_labeler(
    engine: RemoteEngine, config: DictConfig, categories: Sequence[Category], refs: Mapping[str, ImageRef]
) -> tuple[RemoteLabeler, tuple[Category, ...]]:
    """The labeler that `config` describes, for an engine that builds it elsewhere, and the classes it labels."""
    recipe = recipe_of(config, categories)
    try:
        identities, found = engine.ask(recipe.told)
    except ConfigError as error:
        if str(error) == NO_CLASSES:  # which is all that can be said without the pictures
            raise no_classes(refs.values()) from None
        raise
    prompter: Prompter | None = build_of("prompt", config.prompt) if "prompt" in identities else None
    refiners = build_refiners(config.refine, found)
    limit = BatchLimit(config.batch_size, config.batch_mb)
    return RemoteLabeler(recipe, identities, batch_limit=limit, refiners=refiners, prompter=prompter), found
