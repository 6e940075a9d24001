"""`autolabel COMMAND --help`: what it does, its settings with their defaults, examples. The settings are read from the
files of `configs/`, comments included, so that the page says what a run has. Loads no configuration library."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autolabel.app.choices import folders_of, names_of
from autolabel.core.configs import configs_dir
from autolabel.core.errors import ConfigError

_ENTRY = re.compile(
    r"(?P<indent> *)(?P<item>- )?(?:override )?(?P<key>[^\s:#]+)(?:: *(?P<value>.*?))?(?: +# *(?P<meaning>.*))?"
)
_WIDTH = 118
_KEYS = 40
"""Columns for a setting with its default; the meaning of a longer one begins on the next line."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`key=default` as it is written on the command line, and what it is for: empty where the file does not say."""

    key: str
    default: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """A file of `configs/`: what its first comment says, what it is made of, and its settings."""

    what: str
    choices: tuple[Setting, ...]
    settings: tuple[Setting, ...]


def page(
    command: str,
    arguments: Sequence[str],
    examples: Sequence[str],
    options: Sequence[str],
    config_dir: str | None = None,
) -> str:
    """Help for the command of `configs/<command>.yaml`, and for choices among the `arguments`: `prompt=grid`."""
    folders = folders_of(config_dir)
    file = described((configs_dir() / f"{command}.yaml").read_text("utf-8"), "")
    groups = [one for one in file.choices if one.key != "_self_"]
    usage, _, what = file.what.partition(": ")
    lines = [f"autolabel {command}: {what}", "", f"  {usage} [setting=value ...]", ""]
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    alone = len(groups) == 1
    if groups:
        lines.append(f"choices (GROUP=NAME; autolabel {command} GROUP=NAME --help lists the settings of one)")
        for one in groups:
            lines += _row(one)
            group = one.key.partition("@")[0]
            names = names_of(group, folders)
            if alone:
                rows = [Setting(name, "", _file(group, name, folders).what) for name in names]
                lines += [f"    {row.key:<{max(map(len, names))}}  {row.meaning}" for row in rows]
            else:
                lines += textwrap.wrap(" ".join(names), _WIDTH, initial_indent="    ", subsequent_indent="    ")
        lines.append("")
    if file.settings:
        lines += ["settings", *_rows(file.settings), ""]
    for one in groups:
        group, _, package = one.key.partition("@")
        usual = one.default if alone else ""
        for name in re.findall(r"[\w.-]+", named.get(one.key, usual)):
            settings = of_choice(group, name, package or group, folders)
            if settings:
                lines += [f"settings of {one.key}={name}", *_rows(settings), ""]
    lines += ["options", *options, "", "examples", *examples]
    if len(groups) > 1:
        lines += ["", f"autolabel {command} PATH --cfg prints every setting of what is chosen, and stops."]
    return "\n".join(lines) + "\n"


def of_choice(group: str, name: str, package: str, folders: Sequence[Path]) -> list[Setting]:
    """The settings of a choice with those of the files that it is made from, whose defaults it may change. Raises
    ConfigError where there is no such file."""
    file = _file(group, name, folders, package)
    found: dict[str, Setting] = {}
    for one in file.choices:
        key = one.key.removeprefix("/")
        if not one.default and one.key != "_self_":  # a file beside this one, of which this is a variant
            found |= {setting.key: setting for setting in of_choice(group, one.key, package, folders)}
        elif one.key.startswith("/"):
            inner_group, _, inner = key.partition("@")
            where = f"{inner_group}@{package}.{inner}" if inner else inner_group
            found[where] = Setting(where, one.default, "a choice within this one" if inner else "")
    for setting in file.settings:
        before = found.get(setting.key)
        # A variant says why its value is another one; what the setting is for, the file that it varies.
        found[setting.key] = replace(before, default=setting.default) if before and before.meaning else setting
    # Without a value and a word it is the path that is given bare.
    return [setting for setting in found.values() if setting.default != "???" or setting.meaning]


def described(text: str, package: str) -> Described:
    """The text of a file, taken apart. `package` is where its settings go: `detect`, or nothing for the top."""
    what, choices, settings = "", [], []
    parents: list[str] = []
    for line in text.splitlines():
        if not what and line.startswith("# ") and not line.startswith("# @"):
            what = line[2:]
        code, _, meaning = line.partition(" #")
        entry = _ENTRY.fullmatch(code.rstrip())
        if entry is None or line.startswith("#"):
            continue
        key, value, meaning = entry["key"], entry["value"] or "", meaning.strip()
        if entry["item"]:
            choices.append(Setting(key, value, meaning))
            continue
        parents = [*parents[: len(entry["indent"]) // 2], key]
        if value and key != "_target_":
            settings.append(Setting(".".join([package, *parents] if package else parents), value, meaning))
    return Described(what, tuple(choices), tuple(settings))


def _file(group: str, name: str, folders: Sequence[Path], package: str = "") -> Described:
    for folder in reversed(folders):  # a person's own file goes first
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            text = path.read_text("utf-8", errors="replace")
            return described(text, "" if text.startswith("# @package _global_") else package)
    raise ConfigError(f"{group} has no choice {name!r} (autolabel --help lists them)")


def _rows(settings: Sequence[Setting]) -> Iterator[str]:
    for setting in settings:
        yield from _row(setting)


def _row(setting: Setting) -> list[str]:
    head = f"  {setting.key}={setting.default}"
    if len(head) > _KEYS - 2 and setting.meaning:
        return [head, *_wrapped(setting.meaning, " " * _KEYS)]
    return _wrapped(setting.meaning, f"{head:<{_KEYS}}") or [head]


def _wrapped(text: str, head: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
