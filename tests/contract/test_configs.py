"""Every configuration file fits the class it names, and every choice composes."""

import inspect
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from autolabel.app.build import build, build_all, build_of
from autolabel.app.choices import choices
from autolabel.app.command_line import parse
from autolabel.app.compose import compose, plain
from autolabel.app.main import COMMANDS
from autolabel.app.overrides import is_override
from autolabel.app.sweep import jobs
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError

GROUPS = {group: names for group, names in choices().items() if group != "experiment"}
CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]
REQUIRED = {"source": ["source.path=x"]}


def composed(group: str, name: str) -> DictConfig:
    value = f"[{name}]" if group == "export" else name
    return compose("label", [f"{group}={value}", *REQUIRED["source"]])


def targets(config: object) -> list[dict[str, object]]:
    """Every node that names a class, nested ones too."""
    if isinstance(config, DictConfig):
        return targets(OmegaConf.to_container(config))
    if not isinstance(config, dict):
        return []
    inner = [t for value in config.values() for t in targets(value)]
    return [config, *inner] if "_target_" in config else inner


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_the_keys_of_a_choice_are_the_keywords_of_its_class(group, name):
    nodes = targets(composed(group, name)[group])
    assert nodes or name == "none", f"{group}/{name} names no class"
    for node in nodes:
        signature = inspect.signature(get_class(node["_target_"]).__init__)
        keywords = {n for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
        assert set(node) - {"_target_"} == keywords, f"{group}/{name}: {node['_target_']}"


@pytest.mark.parametrize("name", choices()["experiment"])
def test_every_experiment_composes(name):
    config = compose("label", [f"experiment={name}", "source.path=x"])
    assert targets(config.detect)
    assert targets(config.segment)


def test_the_default_pair_is_the_balanced_one():
    default = compose("label", ["source.path=x"])
    balanced = compose("label", ["source.path=x", "experiment=balanced"])
    assert (default.detect, default.segment) == (balanced.detect, balanced.segment)


def test_every_yaml_of_the_tree_is_used_by_a_group_or_a_command():
    stray = [
        path
        for path in configs_dir().rglob("*.yaml")
        if path.relative_to(configs_dir()).parts[0] not in {*choices(), *(f"{c}.yaml" for c in COMMANDS)}
    ]
    assert stray == []


@pytest.mark.parametrize(
    "override", ["detect.confidence=0.5", "detect=nothing", "source.path=[", "nonsense.key=1", "export=[tiff]"]
)
def test_a_wrong_setting_is_one_clear_line(override):
    with pytest.raises(ConfigError) as caught:
        compose("label", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["detect=nanoo"], "detect=nanoo: detect has no choice 'nanoo'; did you mean nano?"),
        (
            ["experiment=x"],
            "experiment=x: experiment has no choice 'x'; there are balanced, convert, convert_offline",
        ),
        (["export=[coco,yol]"], "export=[coco,yol]: export has no choice 'yol'; did you mean yolo"),
        (["segment=zoom", "segment@segment.inner=nanoo"], "segment@segment.inner=nanoo: segment has no choice"),
        (["segment@segment.inner=nano"], "segment@segment.inner: what is chosen has no segment.inner"),
        (["detec=nano"], "detec: there is no such setting; did you mean detect?"),
        (["segment.weigts=a"], "segment.weigts: there is no such setting; did you mean weights?"),
        (["segment.foo=a"], "segment.foo: there is no such setting; there are architecture, batching"),
        (["detct.conf=0.3"], "detct.conf: there is no such setting; did you mean detect?"),
        (
            ["export.voc.imags=copy"],
            "export.voc.imags: voc is not chosen; export=[coco,yolo,voc] has it",
        ),
        (
            ["refine.bleed=null", "refine.bleed.clip=true"],
            "refine.bleed.clip: there is no such setting; refine.bleed is",
        ),
        (
            ["segment=guided", "segment.weights=x"],
            "segment.weights: there is no such setting; did you mean segment.inner.w",
        ),
        (
            ["segment.weights=${oc.env:UNSET_}", "detec=nano"],
            "detec: there is no such setting; did you mean detect?",
        ),
        (["hydra.foo=1"], "hydra.foo: there is no such setting"),
    ],
)
def test_a_mistyped_name_is_told_with_the_right_one(overrides, line):
    with pytest.raises(ConfigError) as caught:
        compose("label", ["source.path=x", *overrides])
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("name", "override", "line"),
    [
        ("label", "detect=nan", "detect=nan: detect has no choice 'nan'; did you mean nano?"),
        ("label", "detect=true", "detect=true: detect has no choice 'true'; there are "),
        ("label", "detect={a: 1}", "detect={a: 1}: detect has no choice '{a: 1}'; there are "),
        ("label", "detect==nano", "detect==nano: detect has no choice '=nano'; did you mean nano?"),
        (
            "label",
            "detect=nano segment=nano",
            "detect=nano segment=nano: detect has no choice 'nano segment=nano'",
        ),
        ("label", "engine=null", "engine=null: null is not a choice of engine; there are inline, ray, threaded"),
        ("label", "export=null", "export=null: null is not a choice of export; for none of them, export=[]"),
        ("label", "export=[coco,5]", "export=[coco,5]: export has no choice '5'; there are coco"),
        ("label", "export=[coco", "export=[coco: cannot be read; a list is [a,b], a map {a: b}"),
        ("label", "small/", "'small/' is not a setting; settings are KEY=VALUE, such as detect=nano"),
        (
            "label",
            "export=cvat,voc",
            "export=cvat,voc: several of them are a list: export=[cvat,voc]; for one run each: label -m",
        ),
        ("export", "export=cvat,voc", "export=cvat,voc: several of them are a list: export=[cvat,voc]"),
        (
            "label",
            "detect.classes=a,b",
            "detect.classes=a,b: a list is detect.classes=[a,b]; one text is 'detect.classes=\"a,b\"'; for one run each",
        ),
        (
            "label",
            "detect=nano,yolo",
            "detect=nano,yolo: there is one choice at a time; for one run each: label -m",
        ),
        (
            "label",
            "detect=[nano,yolo]",
            "detect=[nano,yolo]: there is one choice of detect at a time; for one run each: label -m detect=nano,yolo",
        ),
        (
            "label",
            "experiment=[offline,fast]",
            "experiment=[offline,fast]: there is one choice of experiment at a time",
        ),
        (
            "evaluate",
            "source@truth=[coco,yolo]",
            "source@truth=[coco,yolo]: there is one choice of source at a time",
        ),
        ("label", "detect.conf=choice(1,2)", "detect.conf=choice(1,2): for one run each: label -m"),
        (
            "label",
            "+refine=strict",
            "+refine=strict: refine has a choice already; in its place: refine=strict, or",
        ),
        ("label", "~refine.foo", "refine.foo: there is no such setting; there are area, "),
        ("label", "~detect.conf=0.9", "the value of 'detect.conf' is 0.25 and not 0.9."),
        (
            "export",
            "~refine.area",
            "refine.area: export does not change that; autolabel refine RUN refine.area=...",
        ),
        (
            "refine",
            "detect.conf=0.4",
            "detect.conf: refine does not change that; label again, into another run=...",
        ),
        ("evaluate", "detect=nano", "detect: evaluate does not change that; label again, into another run=..."),
        ("evaluate", "refin.x=3", "refin.x: there is no such setting; there are "),
    ],
)
def test_what_hydra_refuses_is_told_in_our_words(name, override, line):
    with pytest.raises(ConfigError) as caught:
        compose(name, [override])
    assert str(caught.value).startswith(line)


def test_no_experiment_is_a_choice_too():
    usual = compose("label", ["source.path=x"])
    assert compose("label", ["source.path=x", "experiment=offline", "experiment=null"]) == usual
    assert compose("label", ["source.path=x", "experiment=null", "experiment=offline"]).offline


def test_every_setting_that_a_choice_leaves_open_is_told_with_what_it_takes():
    with pytest.raises(ConfigError) as caught:
        plain(compose("label", ["source.path=x", "segment=sam2_custom"]))
    assert str(caught.value) == (
        "segment.architecture is not set, and what is chosen needs it: segment.architecture=... (a YAML of sam2's own "
        "(sam2.1/sam2.1_hiera_t.yaml), the path of yours, or nano); segment.weights is not set, and what is chosen needs "
        "it: segment.weights=... (a name (`autolabel weights list`), a path to .pt or .safetensors, or random:SEED)"
    )
    with pytest.raises(
        ConfigError, match=r"^detect\.weights is not set, and what is chosen needs it: detect\.weights="
    ):
        build(compose("label", ["source.path=x", "detect=yolo"]).detect)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("${foo}", "detect.conf: Interpolation key 'foo' not found"),
        ("${oc.env:NO_SUCH_}", "detect.conf: Environment variable 'NO_SUCH_' not found"),
    ],
)
def test_a_reference_to_nothing_is_told_with_its_setting(value, line):
    with pytest.raises(ConfigError) as caught:
        plain(compose("label", ["source.path=x", f"detect.conf={value}"]))
    assert str(caught.value) == line


LATER = {
    "export/coco.coco": ["warn_iou"], "export/label_studio.label_studio": ["warn_iou"], "export/labelme.labelme": ["warn_iou"],
    "export/yolo.yolo": ["warn_iou"], "engine/threaded": ["memory_mb"], "refine/default.islands": ["max_fraction"],
    "refine/default.holes": ["max_fraction"], "refine/default.smooth": ["radius_fraction"], "detect/yolo": ["shrink", "pad", "box_voting"],
    "segment/sam2_custom": ["masks", "refine_steps", "refine_with", "batching", "compile_mode", "box_prior"],
}  # fmt: skip
"""Settings that a component got after people could have copied its file."""


@pytest.mark.parametrize("place", LATER)
def test_a_copied_file_of_an_earlier_version_means_what_it_meant(place):
    name, _, part = place.partition(".")
    config = OmegaConf.load(configs_dir() / f"{name}.yaml")
    node = config[part] if part else config
    parameters = inspect.signature(get_class(node._target_)).parameters
    packaged = {key: node[key] for key in LATER[place]}
    # 0 and null both switch a limit off.
    assert {key: parameters[key].default or None for key in packaged} == {
        k: v or None for k, v in packaged.items()
    }


@pytest.mark.parametrize("name", GROUPS["source"])
def test_a_source_without_settings_has_those_of_its_file(name):
    settings = OmegaConf.to_container(OmegaConf.load(configs_dir() / "source" / f"{name}.yaml"))
    parameters = inspect.signature(get_class(settings.pop("_target_"))).parameters
    assert {key: one.default for key, one in parameters.items()} == settings | {"path": inspect.Parameter.empty}


OWN = """
import {imported}

class Mine:
    def __init__(self, *, conf):
        raise RuntimeError("nothing\\nworks")
"""


@pytest.mark.parametrize(
    ("imported", "settings", "line"),
    [
        ("not_there_", {"conf": 1}, "detect: {}.Mine cannot be loaded: ModuleNotFoundError: No module named 'not_there_' (--d"),
        ("json", {"conf": 1}, "detect: {}.Mine cannot be built: RuntimeError: works (--debug shows where)"),
        ("json", {"cnf": 1, "conf": 1}, "detect.cnf: there is no such setting; did you mean conf?"),
        ("json", {}, "detect: {}.Mine needs settings that are not there: 'conf'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_class_of_ones_own_is_told(tmp_path, monkeypatch, imported, settings, line):
    module = f"own_{hash((imported, *settings)) & 0xFFFF}"
    (tmp_path / f"{module}.py").write_text(OWN.format(imported=imported))
    monkeypatch.syspath_prepend(tmp_path)
    config = OmegaConf.create({"detect": {"_target_": f"{module}.Mine", **settings}})
    with pytest.raises(ConfigError) as caught:
        build_of("detect", config.detect)
    assert str(caught.value).startswith(line.format(module))


def test_a_class_that_is_nowhere_says_what_to_do():
    config = OmegaConf.create({"detect": {"_target_": "nowhere_.Mine"}})
    with pytest.raises(ConfigError, match=r"a package of your own must be installed, or on PYTHONPATH\)$"):
        build_of("detect", config.detect)


def test_what_a_persons_own_file_misspells_is_told_with_the_file(tmp_path):
    (tmp_path / "segment").mkdir()
    (tmp_path / "segment" / "mine.yaml").write_text("defaults:\n  - nanoo\n")
    with pytest.raises(ConfigError, match=r"^In 'segment/mine': .*'segment/nanoo'") as caught:
        compose("label", ["source.path=x", "segment=mine"], str(tmp_path))
    assert "search path" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("unit_siz: 3", "unit_siz: there is no such setting, nothing reads it; did you mean unit_size?"),
        ("promt: {pad: 0.1}", "promt: there is no such setting, nothing reads it; did you mean prompt"),
        (
            "images: {max_pixel: 9}",
            "images.max_pixel: there is no such setting, nothing reads it; did you mean max_pixels?",
        ),
    ],
)
def test_a_setting_in_a_persons_own_file_that_nothing_reads_is_refused(tmp_path, text, line):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        compose("label", ["source.path=x", "experiment=mine"], str(tmp_path))
    assert str(caught.value).startswith(line)


def test_an_added_setting_that_nothing_reads_is_refused():
    with pytest.raises(ConfigError, match=r"^unit_siz: there is no such setting"):
        compose("label", ["source.path=x", "+unit_siz=3"])


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("roots: {models: /data/models}\nsegment:\n  weights: ${roots.models}/tiny.pt", []),
        ("roots: {models: /data/models}\nsegment:\n  weights: ${ roots.models }/x.pt", ["segment.weights=y.pt"]),
        ("segmen: {weights: a.pt}\nsegment:\n  weights: ${..segmen.weights}", []),
        ("author: me", []),
    ],
)
def test_a_persons_own_settings_are_theirs(tmp_path, text, overrides):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    config = compose("label", ["source.path=x", "experiment=mine", *overrides], str(tmp_path))
    assert config.segment.weights


def test_the_first_wrong_name_is_told_also_beside_an_own_setting():
    with pytest.raises(ConfigError, match=r"^segmnt: there is no such setting; did you mean segment"):
        compose("label", ["source.path=x", "+unit_siz=/m", "segmnt=${unit_siz}"])


def test_what_an_experiment_sets_at_the_top_holds_and_the_command_line_is_above_it(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nunit_size: 5\nimages: {min_side: 7}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    config = compose("label", ["source.path=x", "experiment=mine"], str(tmp_path))
    assert (config.unit_size, config.images.min_side) == (5, 7)
    assert config.images.max_pixels == compose("label", ["source.path=x"]).images.max_pixels
    assert compose("label", ["source.path=x", "experiment=mine", "unit_size=6"], str(tmp_path)).unit_size == 6


@pytest.mark.parametrize("experiment", ["offline", "convert_offline"])
def test_an_experiment_without_a_network_is_offline(experiment):
    assert compose("label", ["source.path=x", f"experiment={experiment}"]).offline
    assert not compose("label", ["source.path=x", f"experiment={experiment}", "offline=false"]).offline


def test_settings_of_a_part_that_is_not_chosen_are_refused():
    config = compose("label", ["source.path=x", "experiment=offline", "refine=none"])
    with pytest.raises(ConfigError, match=r"^refine\.bleed has settings, .* refine\.bleed=null leaves it out"):
        build_all("refine", config.refine)


def test_composing_leaves_no_hydra_state():
    from hydra.core.global_hydra import GlobalHydra

    # Hydra puts another instance in the place of this one; a test before may have imported sam2, which initialises it.
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        compose("label", ["source.path=x"])
        assert not GlobalHydra.instance().is_initialized()
    finally:
        GlobalHydra.instance().hydra = before


def test_threads_compose_and_import_sam2_at_the_same_time_and_leave_no_hydra_state():
    from hydra.core.global_hydra import GlobalHydra

    from autolabel.segment.sam2 import hydra_left_alone

    def work(number):
        with hydra_left_alone():
            time.sleep(0.001)
        return compose("label", ["source.path=x", "detect=nano", f"detect.max_det={number}"]).detect.max_det

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(work, range(1, 13))) == list(range(1, 13))
        assert not GlobalHydra.instance().is_initialized()
    finally:
        GlobalHydra.instance().hydra = before


def test_a_persons_own_configuration_folder_is_searched(tmp_path):
    folder = tmp_path / "detect"
    folder.mkdir()
    OmegaConf.save({"_target_": "their.package.Detector", "conf": 0.3}, folder / "mine.yaml")
    config = compose("label", ["detect=mine", "source.path=x"], str(tmp_path))
    assert config.detect == {"_target_": "their.package.Detector", "conf": 0.3}


@pytest.mark.parametrize(
    "name", ["detect/nano.yaml", "refine/default.yaml", "label.yaml", "experiment/offline.yaml"]
)
def test_a_file_of_ones_own_that_is_called_as_one_of_ours_is_refused_and_a_copy_is_not(name, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    shutil.copy(configs_dir() / name, file)
    assert compose("label", ["detect=nano"], str(tmp_path)) == compose("label", ["detect=nano"])
    file.write_text(file.read_text().replace(":", ": 1 #", 1))
    with pytest.raises(
        ConfigError, match=rf"^--config-dir .*: {name} has the name of one of autolabel's own.* rename"
    ):
        compose("label", ["detect=nano"], str(tmp_path))


def test_a_second_configuration_folder_is_refused():
    for second in (["--config-dir", "b"], ["--config-dir=b"]):
        with pytest.raises(ConfigError, match=r"^one --config-dir at a time, got 'a' and 'b'"):
            parse(["--config-dir=a", *second], "label")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("detect=nano", True), ("detect.conf=0.4", True), ("+x.y=1", True), ("~refine.area=", True),
     ("~refine.area", True), ("~export.coco", True), ("~/photos", False), ("~somebody/photos", False), ("~", False), ("hydra/x@y=1", True),
     ("photos/", False), ("a=b/c d.json=", True), ("im(1)=2.jpg", False), ("=x", False), ("photo.jpg", False)],
)  # fmt: skip
def test_settings_are_told_from_paths(argument, expected):
    assert is_override(argument) is expected


def test_a_path_that_exists_is_a_path_even_with_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("detect=nano").mkdir()
    assert parse(["detect=nano"], "label").path == "detect=nano"


def test_two_paths_or_an_unknown_flag_are_refused():
    with pytest.raises(
        ConfigError, match=r"^one path at a time, got 'a' and 'b\]'; settings are KEY=VALUE, in quotes where"
    ):
        parse(["a", "export=[coco,", "b]"], "label")
    with pytest.raises(ConfigError, match=r"ground truth is truth=PATH$"):
        parse(["a", "b.json"], "evaluate")
    with pytest.raises(ConfigError, match="--fast"):
        parse(["--fast"], "label")


def test_a_sweep_is_every_combination():
    found = jobs(["detect.conf=0.2,0.4", "segment=nano,box", "run=x"])
    assert [job.overrides for job in found] == [
        ("detect.conf=" + c, "segment=" + s, "run=x") for c in ("0.2", "0.4") for s in ("nano", "box")
    ]


def test_a_tilde_takes_a_component_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse(["~refine.area", "in"], "label").overrides == ("~refine.area",)
    config = compose("label", ["source.path=x", "~refine.area", "~export.coco"])
    assert "area" not in config.refine
    assert list(config.export) == ["yolo"]
    Path("~kept").mkdir()
    assert parse(["~kept"], "label").path == "~kept"


@pytest.mark.parametrize("override", ["refine=[]", "~refine", "refine=none"])
def test_no_refiner_at_all_can_be_said_in_several_ways(override):
    assert compose("label", ["source.path=x", override]).refine == {}
    assert compose("refine", [override]).refine == {}


@pytest.mark.parametrize(("override", "key"), [("~detect", "detect"), ("detect=[]", "detect"), ("~unit_size", "unit_size"),
                                               ("~images.min_side", "images.min_side")])  # fmt: skip
def test_what_is_needed_cannot_be_taken_out(override, key):
    with pytest.raises(ConfigError, match=rf"^{key} cannot be taken out"):
        compose("label", ["source.path=x", override])


@pytest.mark.parametrize("group", ["refine", "export"])
def test_components_without_a_name_around_them_are_one_line(group, tmp_path):
    (tmp_path / group).mkdir()
    OmegaConf.save({"_target_": "their.package.Component", "x": 1}, tmp_path / group / "mine.yaml")
    config = compose("label", ["source.path=x", f"{group}=mine"], str(tmp_path))
    with pytest.raises(
        ConfigError, match=rf"^{group}\._target_ must be a section .* put a name around its settings"
    ):
        build_all(group, config[group])


@pytest.mark.parametrize("group", ["source", "labeler", "detect", "prompt", "segment", "engine"])
def test_a_class_that_is_no_component_of_its_group_is_one_line(group):
    with pytest.raises(
        ConfigError, match=rf"^{group}\._target_ must name a class with a method .*, got a Fraction"
    ):
        build_of(group, OmegaConf.create({"_target_": "fractions.Fraction"}))


@pytest.mark.parametrize("group", ["refine", "export"])
def test_so_is_one_of_several(group):
    config = OmegaConf.create({"mine": {"_target_": "fractions.Fraction"}})
    with pytest.raises(
        ConfigError, match=rf"^{group}\.mine\._target_ must name a class with a method {group}\(\)"
    ):
        build_all(group, config)
