"""A wrong value of any setting is refused by one line that begins with the key that a person typed, before anything is
loaded."""

import copy
import math
import pickle
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from autolabel import AutoLabeler
from autolabel.app.build import METHODS, build, build_all, build_of
from autolabel.app.choices import choices
from autolabel.app.compose import compose
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError, SettingError
from autolabel.export.overlay import OverlayExporter

WRONG = {
    bool: (1, "yes", math.nan),
    int: (True, 1.5, "many", math.nan, -(10**9), [1]),
    float: (True, "half", math.nan, math.inf, -1.0, [0.5]),
    str: (5, True, ["a"]),
    list: (5, "a", True, {"a": 1}),
    dict: (5, "a", True, ["a"]),
}
"""By the kind of a setting: values of another kind, and some that are out of every range."""
ANY_NUMBER = {"seed", "ignore", "background"}
"""Settings that may be negative."""
CHEAP = {"detect": "none", "segment": "box"}
"""What stands within another component in place of what would load a model."""


def own_components(group: str) -> list[str]:
    """The choices of a group whose files name a class; the others give values for those of another file."""
    return [
        n for n in choices()[group] if "_target_: autolabel" in (configs_dir() / group / f"{n}.yaml").read_text()
    ]


PLACES = [
    *(
        ("label", group, name)
        for group in sorted(choices())
        if group != "experiment"
        for name in own_components(group)
    ),
    ("label", "segment", "nano_guided"),
    *(("evaluate", "truth", name) for name in own_components("source")),
    ("report", "report", ""),
]


def composed(command: str, group: str, name: str) -> DictConfig:
    """The choice alone, below its group; what has to be given is a text."""
    chosen = {"export": f"export=[{name}]", "truth": f"source@truth={name}"}.get(group, f"{group}={name}")
    config = OmegaConf.create({group: compose(command, [chosen] if name else [])[group]})
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "x")
    for key in ("detect.ontology", "labeler.classes"):
        if group in key and OmegaConf.select(config, key, default=0) is None:
            OmegaConf.update(config, key, {"cat": None})
    return config


def components(config: object, key: str) -> Iterator[tuple[str, DictConfig]]:
    """Every section that names a class, and its key."""
    if isinstance(config, DictConfig):
        if "_target_" in config:
            yield key, config
        for name in config:
            yield from components(config._get_node(name), f"{key}.{name}")


def wrong_values(name: str, hint: Any) -> list[Any]:
    """What no setting of this type takes."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    wrong = [] if NoneType in kinds else [None]
    if get_origin(kinds[0]) is Literal:
        return [*wrong, "nothing such", 5, True]
    wrong += WRONG.get(get_origin(kinds[0]) or kinds[0], ())
    return [value for value in wrong if not (name in ANY_NUMBER and value == -(10**9))]


def built(group: str, config: DictConfig) -> object:
    if group in ("refine", "export"):
        return build_all(group, config[group])
    kind = "source" if group == "truth" else group
    return build_of(kind, config[group], group) if kind in METHODS and kind != "labeler" else build(config[group])


def said(group: str, config: DictConfig) -> str:
    """The error of building it; what an error of another kind says is not what a person should read."""
    try:
        built(group, config)
    except ConfigError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a constructor makes of it
        return repr(error)
    return "nothing"


@pytest.mark.parametrize(("command", "group", "name"), PLACES)
def test_a_wrong_value_of_a_setting_is_refused_under_the_key_that_was_typed(command, group, name):
    unclear = []
    chosen = composed(command, group, name)
    for section, _ in components(chosen, ""):
        config = copy.deepcopy(chosen)
        component = OmegaConf.select(config, section[1:])
        if "inner" in component:  # it is built first, and would load a model
            component.inner = composed("label", group, CHEAP[group])[group]
        hints = get_type_hints(get_class(component._target_).__init__)
        for setting in component:
            if setting in ("_target_", "inner", "earlier") or OmegaConf.is_interpolation(component, setting):
                continue
            key, before = f"{section[1:]}.{setting}", component[setting]
            for value in wrong_values(setting, hints[setting]):
                component[setting] = value
                line = said(group, config)
                if "\n" in line or not line.startswith((f"{key} ", f"{key}:")):
                    unclear.append(f"{key}={value!r}: {line[:200]}")
            component[setting] = before
    assert not unclear, "\n".join(unclear)


@pytest.mark.parametrize(
    ("command", "overrides", "line"),
    [
        (
            "label",
            ["experiment=offline", "segment.inner.inner.masks=x"],
            "segment.inner.inner.masks must be one of",
        ),
        (
            "label",
            ["detect=tiles", "detect@detect.inner=nano", "detect.inner.conf=2"],
            "detect.inner.conf must be in",
        ),
        ("label", ["segment=zoom", "segment@segment.inner=box", "segment.fill=0.01"], "segment.fill x share = 0."),
        ("label", ["labels.rename={cat: 3}"], "labels.rename.cat must be the new name, got 3"),
        ("label", ["prompt=jitter", "prompt.count=0"], "prompt.count must be a whole number in [1, 64], got 0"),
        ("refine", ["refine.area.min_px=-1"], "refine.area.min_px must be null or a whole number, at least 0"),
        ("export", ["export=[mine]", "export.mine.max_side=3"], "export.mine.max_side must be a whole number"),
        ("evaluate", ["source@truth=png_masks", "truth.path=x", "truth.kind=x"], "truth.kind must be one of"),
        ("report", ["report.gallery=-1"], "report.gallery must be a whole number in [0, 200], got -1"),
    ],
)
def test_a_setting_is_named_by_the_place_where_its_component_stands(command, overrides, line, tmp_path):
    of_somebody = tmp_path / "export" / "mine.yaml"
    of_somebody.parent.mkdir()
    ours = (configs_dir() / "export" / "overlay.yaml").read_text()
    of_somebody.write_text(ours.replace("overlay:", "mine:"))
    given = ["refine=default"] if command == "refine" else []
    config = compose(command, [*given, *overrides], str(tmp_path))
    group = overrides[-1].partition(".")[0]
    assert said(group, config).startswith(line)


def test_a_component_that_is_built_by_hand_names_its_keyword():
    with pytest.raises(SettingError, match=r"^max_side must be a whole number, at least 64, got 3$"):
        OverlayExporter(max_images=None, max_side=3, alpha=0.5, labels=True, jpeg_quality=90)
    settings = {"max_images": None, "max_side": 3, "alpha": 0.5, "labels": True, "jpeg_quality": 90}
    with pytest.raises(ConfigError, match=r"^max_side must be a whole number, at least 64, got 3$"):
        build({"_target_": "autolabel.export.overlay.OverlayExporter", **settings})


def test_from_python_a_setting_has_the_same_name():
    wrong = ["detect=tiles", "detect@detect.inner=nano", "detect.inner.conf=2"]
    with pytest.raises(ConfigError, match=r"^detect\.inner\.conf must be in \[0, 1\], got 2$"):
        AutoLabeler.from_config(overrides=wrong)


def test_an_error_of_a_setting_comes_back_from_another_process():
    assert str(pickle.loads(pickle.dumps(SettingError("conf must be"))).at("detect")) == "detect.conf must be"
