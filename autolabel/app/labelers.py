"""What goes from pictures to records, the choice `labeler=`: the pipeline of stages, or one model that needs none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from autolabel.app.build import as_component, build, build_of
from autolabel.app.compose import compose
from autolabel.app.prompts import check_pair
from autolabel.app.refiners import build_refiners
from autolabel.core.errors import AutolabelError, ConfigError, SourceError
from autolabel.core.protocols import Detector, InstanceModel, Prompter, Segmenter
from autolabel.core.text import counted
from autolabel.core.types import Category, Frame, ImageRef
from autolabel.ops.settings import flag, number

if TYPE_CHECKING:
    from autolabel.detect.label_map import LabelMap
    from autolabel.engine.labeler import FrameLabeler

NO_CLASSES = (
    "detect=labels, or a detector of your own without categories, needs a source with annotations (COCO, YOLO, Pascal VOC, LabelMe, CVAT, Label Studio, PNG masks, Parquet); "
    "for bare pictures choose a detector, for example detect=nano"
)

STAGES = ("detect", "prompt", "segment")
"""The groups that a model of one step has no use for."""


class Pipeline:
    """Detect, prompt and segment, as their own groups say."""

    def __init__(self) -> None:
        pass


def build_labeler(
    config: DictConfig, source_categories: Sequence[Category] | None, refs: Iterable[ImageRef] = ()
) -> tuple[FrameLabeler, tuple[Category, ...]]:
    """The labeler that `config` describes, and the classes it labels: the model's, else the source's (None: not
    known yet, then they are empty). Fetches weights that are missing, unless `offline_if` forbids it meanwhile."""
    from autolabel.app.weights import Bar
    from autolabel.engine.labeler import PipelineLabeler
    from autolabel.engine.one_step import OneStepLabeler
    from autolabel.ops.returned import require_categories
    from autolabel.weights import progress_to

    if config.images is None:
        raise ConfigError("images must hold max_pixels and min_side, got null")
    with Bar() as bar, progress_to(bar):
        model = one_step_model(config)
        if model is not None:
            require_categories("labeler", model)
            model, categories = relabelled_model(model, build(config.labels))
            return OneStepLabeler(model=model, **of_all_labelers(config, categories)), categories
        detector: Detector = build_of("detect", config.detect)
        require_categories("detect", detector)
        categories = tuple(source_categories or ()) if detector.categories is None else detector.categories
        if not categories and source_categories is not None:
            raise no_classes(refs)
        prompter: Prompter = build_of("prompt", config.prompt)
        check_pair(detector, prompter)
        detector, categories = relabelled(detector, build(config.labels), categories)
        segmenter: Segmenter = build_of("segment", config.segment)
    labeler = PipelineLabeler(
        detector=detector,
        prompter=prompter,
        segmenter=segmenter,
        **of_all_labelers(config, categories),
    )
    return labeler, categories


def of_all_labelers(config: DictConfig, categories: Sequence[Category]) -> dict[str, Any]:
    """The parts that any FrameLabeler is made of."""
    return {
        "refiners": build_refiners(config.refine, categories),
        "batch_size": config.batch_size,
        "batch_mb": config.batch_mb,
        "max_pixels": config.images.max_pixels,
        "min_side": config.images.min_side,
        "read_frame": frame_reader(config),
        "categories": categories,
    }


def frame_reader(config: DictConfig) -> Callable[[ImageRef], Frame] | None:
    """What decodes pictures in other processes; None when this one is to do it."""
    from autolabel.ops.isolation import isolated_frame

    isolated = flag("decode.isolated", config.decode.isolated)
    timeout_s = number("decode.timeout_s", config.decode.timeout_s, 0, 1e6, above=True)
    bounds = {"max_pixels": config.images.max_pixels, "min_side": config.images.min_side}
    return partial(isolated_frame, **bounds, timeout_s=timeout_s) if isolated else None


def relabelled(
    detector: Detector, labels: LabelMap, categories: tuple[Category, ...]
) -> tuple[Detector, tuple[Category, ...]]:
    """The detector with its classes mapped, and the classes of the run."""
    from autolabel.detect.label_map import MappedDetector

    if labels.changes_nothing:
        return detector, categories
    if not categories:
        raise ConfigError(
            "labels: the classes come with the pictures; this interface needs a detector with its own"
        )
    mapped = MappedDetector(detector, labels, categories)
    return mapped, mapped.categories


def relabelled_model(model: InstanceModel, labels: LabelMap) -> tuple[InstanceModel, tuple[Category, ...]]:
    """The same for a model that finds objects and masks in one step."""
    from autolabel.detect.label_map import MappedModel

    mapped = model if labels.changes_nothing else MappedModel(model, labels)
    return mapped, mapped.categories


def no_classes(refs: Iterable[ImageRef]) -> AutolabelError:
    """Why there is nothing to label: broken label files, or none at all."""
    bad = [ref.problem for ref in refs if ref.problem is not None and ref.problem.code == "bad_label"]
    if bad:
        return SourceError(
            counted(len(bad), "no classes: {} label file[|s] cannot be read, the first: {}", bad[0].detail)
        )
    return ConfigError(NO_CLASSES)


def one_step_model(config: DictConfig) -> InstanceModel | None:
    """The model that `labeler` names; None for the pipeline. Raises ConfigError for settings of stages that then
    have no part in it: they would be ignored in silence."""
    if config.labeler is None:
        raise ConfigError("labeler must be a choice such as pipeline, got null")
    if not has_stages(config):
        _refuse_settings_of_stages(config)
    chosen = build(config.labeler)
    if isinstance(chosen, Pipeline):
        return None
    model: InstanceModel = as_component(chosen, "labeler", "labeler")
    return model


def has_stages(config: DictConfig) -> bool:
    """Whether it is boxes, then prompts, then masks."""
    return bool(config.labeler.get("_target_") == f"{Pipeline.__module__}.{Pipeline.__name__}")


def segmenters(config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The settings of a labeler's segmenter, and of those within it, with their place (`segment.inner`)."""
    waiting = [("segment", config.segment)] if has_stages(config) else []
    while waiting:
        path, settings = waiting.pop()
        if isinstance(settings, DictConfig):
            yield path, settings
            waiting += [(f"{path}.{key}", inner) for key, inner in settings.items()]


def _refuse_settings_of_stages(config: DictConfig) -> None:
    default = compose("label", [])
    changed = [stage for stage in STAGES if config[stage] != default[stage]]
    if changed:
        raise ConfigError(
            f"this labeler finds objects and masks in one step; take out what sets {' and '.join(changed)} "
            "(an experiment does too), or use labeler=pipeline"
        )


class _Offline:
    """While anybody in this process is within, it is offline: the threads that do the work have no setting of their
    own, and components read the process's. It is as it was once the last one has left."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._inside = 0
        self._before: str | None = None

    def __enter__(self) -> None:
        with self._turn:
            if not self._inside:
                self._before = os.environ.get("AUTOLABEL_OFFLINE")
            self._inside += 1
            # Read by autolabel.weights wherever a component asks for a name, and by ops.storage for every address.
            os.environ["AUTOLABEL_OFFLINE"] = "1"

    def __exit__(self, *exception: object) -> None:
        with self._turn:
            self._inside -= 1
            if self._inside:
                return
            if self._before is None:
                os.environ.pop("AUTOLABEL_OFFLINE", None)
            else:
                os.environ["AUTOLABEL_OFFLINE"] = self._before


_OFFLINE = _Offline()


def offline_if(offline: object) -> AbstractContextManager[None]:
    """The network is not touched meanwhile, whichever thread asks; see `_Offline`. Raises ConfigError."""
    return _OFFLINE if flag("offline", offline) else nullcontext()
