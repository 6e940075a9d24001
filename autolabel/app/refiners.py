"""The refiners that a configuration names, for the classes of a run, and their part of its fingerprint."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from autolabel.app.build import build_all
from autolabel.app.leaves import leaves
from autolabel.app.overrides import key_of, quoted
from autolabel.app.run_directory import KEPT_CALIBRATION, write_text
from autolabel.core.errors import SettingError, StoreMismatch
from autolabel.core.protocols import ForClasses, Identified, Refiner
from autolabel.core.text import printable
from autolabel.core.types import Category
from autolabel.ops.changes import changed as changes
from autolabel.ops.settings import texts
from autolabel.store.run import RunStore, mapping_of


def build_refiners(config: DictConfig | None, categories: Sequence[Category]) -> list[Refiner]:
    """In the order they are written."""
    found = []
    for name, one in build_all("refine", config).items():
        try:
            found.append(one.for_classes(categories) if isinstance(one, ForClasses) else one)
        except SettingError as error:
            raise error.at(f"refine.{name}") from None
    return found


def refine_entries(config: Any, refiners: Sequence[Refiner]) -> dict[str, str]:
    """Settings as a person would set them, values as text; `refiners` are those of the entries of `config` that are not
    null. A setting of the name of its refiner's `identity` is where a file lies: its content counts instead. Raises
    ConfigError for an identity that does not hold texts."""
    entries = {} if config else {"refine": repr(config)}
    built = iter(refiners)
    contents: dict[str, str] = {}
    for name, settings in (config or {}).items():
        if settings is None:
            entries[f"refine.{name}"] = repr(None)
            continue
        refiner = next(built)
        identity = texts(
            f"refine.{name}: the identity of {settings.get('_target_')}",
            refiner.identity if isinstance(refiner, Identified) else {},
        )
        entries |= {key: repr(value) for key, value in leaves({f"refine.{name}": settings}, identity)}
        contents.update(identity)
    return entries | {f"refine ({key})": value for key, value in contents.items()}


CALIBRATION = "refine (calibration)"
"""The entry of a fingerprint that says which curves the quality is read from."""


def with_kept_calibration(
    refine: Mapping[str, Any], entries: Mapping[str, str], directory: Path
) -> dict[str, Any]:
    """The settings of refiners, the file of a `calibration` copied into the run and named there: the one that was named
    is written anew by the next `evaluate --calibrate`, and the run may move."""
    found = dict(refine)
    for name, entry in refine.items():
        given = entry.get("calibration") if isinstance(entry, dict) else None
        if not isinstance(given, str) or not os.path.isfile(source := os.path.expanduser(given)):  # noqa: PTH111, PTH113 - any text
            continue
        data = Path(source).read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 == entries.get(CALIBRATION):
            kept = directory / KEPT_CALIBRATION.format(sha256[:16])
            if not kept.exists():
                write_text(kept, data.decode())
            found[name] = {**entry, "calibration": str(kept)}
    return found


def at_home(refine: dict[str, Any], directory: Path) -> None:
    """Name a calibration that the run has kept by where the run lies now."""
    for entry in refine.values():
        given = entry.get("calibration") if isinstance(entry, dict) else None
        if isinstance(given, str) and fnmatch(Path(given).name, KEPT_CALIBRATION.format("?" * 16)):
            kept = directory / Path(given).name
            if kept.is_file():
                entry["calibration"] = str(kept)


def require_own_calibration(
    directory: Path, before: Mapping[str, str], now: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Raises StoreMismatch where a run would be judged by other curves than its own, and none were named."""
    named = any(key_of(override) == "refine" or "calibration" in override for override in overrides)
    if not named and CALIBRATION in before.keys() & now.keys() and before[CALIBRATION] != now[CALIBRATION]:
        raise StoreMismatch(
            f"{printable(str(directory))}: the calibration that its quality was read from has changed (sha256 "
            f"{before[CALIBRATION][:12]} -> {now[CALIBRATION][:12]}), so what it keeps might change; give the file with "
            "refine.quality.calibration=PATH, or say refine.quality.calibration=default for the one of this version"
        )


def is_of_refine(key: str) -> bool:
    """Whether an entry of a fingerprint is one of `refine_entries`."""
    return key.split(".")[0] == "refine" or key.startswith("refine (")


def require_same_refining(store: RunStore, fingerprint: Mapping[str, str]) -> None:
    """Raises StoreMismatch, with the commands that help, where a run was labelled with this fingerprint but for what it
    keeps and drops: `autolabel refine` changes that, and undoes it."""
    before = mapping_of(store, "fingerprint")
    changed = sorted(key for key in before.keys() | fingerprint.keys() if before.get(key) != fingerprint.get(key))
    if not store.has_records or not changed or not all(map(is_of_refine, changed)):
        return
    run = printable(shlex.quote(str(store.directory)))
    then, now = (_as_settings(changed, entries) for entries in (before, fingerprint))
    lines = [
        f"{store.directory} keeps and drops with other refine settings (then -> now):",
        *(f"  {key}: {one} -> {other}" for key, (one, other) in changes([before, fingerprint])),
        f"to continue it as it is, label with {then or f'those (they are in {run}/config.yaml)'}; to have the new ones, "
        f"first: autolabel refine {run} {now or 'with the refine settings of this command'}",
    ]
    raise StoreMismatch("\n".join(map(printable, lines)))


def _as_settings(keys: Sequence[str], entries: Mapping[str, str]) -> str | None:
    """`refine.area.min_px=3`, for a shell; None where some are not plain values that are set one by one."""
    found = []
    for key in keys:
        try:
            value = ast.literal_eval(entries[key])
        except (KeyError, ValueError, SyntaxError):
            return None
        if isinstance(value, str):
            text = quoted(value)
        elif value is None or isinstance(value, bool | int | float):
            text = json.dumps(value)
        else:
            return None
        found.append(printable(shlex.quote(f"{key}={text}")))
    return " ".join(found)
