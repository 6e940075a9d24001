"""`autolabel COMMAND --help` says what the files of `configs/` say: every setting, its default, and what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from autolabel.app.choices import names_of
from autolabel.app.command_help import Setting, described, of_choice
from autolabel.app.main import COMMANDS, CONFIGURED, main
from autolabel.core.configs import configs_dir

WITH_FILE = [command for command in CONFIGURED if command != "demo"]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, f"{key}{name}.")
        elif name not in ("_target_", "defaults"):
            yield f"{key}{name}", inner


@pytest.mark.parametrize("path", sorted(configs_dir().rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_is_read_as_yaml_reads_it(path: Path) -> None:
    text = path.read_text("utf-8")
    there = yaml.safe_load(text)
    if "sam2_arch" in path.parts or path.parent.name == "experiment" or not there:
        return  # no file of settings; flow mappings are shown as they are written
    found = described(text, "")
    assert {one.key: yaml.safe_load(one.default) for one in found.settings} == dict(leaves(there))
    assert found.what


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", WITH_FILE)
def test_the_page_of_a_command_has_all_its_settings(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, command)
    file = described((configs_dir() / f"{command}.yaml").read_text("utf-8"), "")
    groups = [one for one in file.choices if one.key != "_self_"]
    settings = [*file.settings, *groups]
    if len(groups) == 1 and not groups[0].default.startswith("["):
        group, _, package = groups[0].key.partition("@")
        settings += of_choice(group, groups[0].default, package or group, [configs_dir()])
    for one in settings:
        assert one.meaning, f"configs/{command}.yaml: what is {one.key} for?"
        assert f"{one.key}={one.default} {' '.join(one.meaning.split())}" in page
    for one in groups:
        assert " ".join(names_of(one.key.partition("@")[0], [configs_dir()])) in page or len(groups) == 1
    assert page.startswith(f"autolabel {command}: ")
    assert f"examples autolabel {command} " in page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):  # argparse ends the program
        assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"autolabel {command}" in text
    assert "doctor" not in text or command == "doctor"


def test_the_settings_of_a_choice_are_listed_where_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "detect").mkdir()
    (tmp_path / "detect" / "mine.yaml").write_text(
        "# My own.\ndefaults: \n  - yolo\n\nconf: 0.125\nown: 3 # mine\n"
    )
    page = shown(capsys, "label", "detect=mine", "prompt=grid", "export=[coco]", "--config-dir", str(tmp_path))
    for said in (
        "detect.conf=0.125 lowest score of a box",  # the default of the variant, the meaning of what it varies
        "detect.own=3 mine",
        "prompt.points_per_side=32 so many",
        "export.coco.ids=source",
        " mine nano ",
    ):
        assert said in page
    assert main(["--help", "--config-dir", str(tmp_path)]) == 0
    assert " mine nano " in capsys.readouterr().out
    assert main(["label", "detect=yours", "--help"]) == 1
    assert "detect has no choice 'yours'" in capsys.readouterr().err
    assert main(["--help", "--config-dir", str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_what_is_no_setting_is_left_out() -> None:
    text = "# What.\n_target_: a.B\na:\n  _target_: c.D\n  b: [1, 2] # two\nc: {d: 1}\n"
    assert described(text, "x").settings == (Setting("x.a.b", "[1, 2]", "two"), Setting("x.c", "{d: 1}"))
