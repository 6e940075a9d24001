"""What goes from pictures to records, the choice `labeler=`: the pipeline of stages, or one model that needs none."""

from __future__ import annotations

from omegaconf import DictConfig

from autolabel.app.compose import build, compose
from autolabel.core.errors import ConfigError
from autolabel.core.protocols import InstanceModel

STAGES = ("detect", "prompt", "segment")
"""The groups that a model of one step has no use for."""


class Pipeline:
    """Detect, prompt and segment, as their own groups say."""

    def __init__(self) -> None:
        pass


def one_step_model(config: DictConfig) -> InstanceModel | None:
    """The model that `labeler` names; None for the pipeline. Raises ConfigError for settings of stages that then
    have no part in it: they would be ignored in silence."""
    if config.labeler is None:
        raise ConfigError("labeler must be a choice such as pipeline, got null")
    if config.labeler.get("_target_") != f"{Pipeline.__module__}.{Pipeline.__name__}":
        _refuse_settings_of_stages(config)
    chosen = build(config.labeler)
    if isinstance(chosen, Pipeline):
        return None
    model: InstanceModel = chosen
    return model


def _refuse_settings_of_stages(config: DictConfig) -> None:
    default = compose("label", [])
    changed = [stage for stage in STAGES if config[stage] != default[stage]]
    if changed:
        raise ConfigError(
            f"this labeler finds objects and masks in one step; take out what sets {' and '.join(changed)} "
            "(an experiment does too), or use labeler=pipeline"
        )
