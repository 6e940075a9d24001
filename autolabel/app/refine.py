"""`autolabel refine RUN ...`: judge every candidate of a run again with other thresholds. Loads no model.

The store keeps all that was found with its raw mask and scores; only the verdicts change. What is not named stays as
the run has it, unless `refine=...` chooses anew. The result equals a run that was labelled so from the start.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.app.command_line import Request, parse
from autolabel.app.compose import compose, compose_from, plain, show
from autolabel.app.overrides import about, key_of
from autolabel.app.part import part_text
from autolabel.app.refiners import (
    at_home,
    build_refiners,
    is_of_refine,
    refine_entries,
    require_own_calibration,
    with_kept_calibration,
)
from autolabel.app.run_directory import existing_run, set_aside_evaluation, write_text
from autolabel.app.stored_settings import stored_refiners, stored_settings
from autolabel.app.summary import EVALUATE_AGAIN, next_export, rewrite_counts, summarise
from autolabel.core.text import counted, printable
from autolabel.store.lock import exclusive
from autolabel.store.run import categories_from, mapping_of, open_reader, open_store

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: Sequence[str]) -> int:
    """Recompute keep and drop; exit code 2 when pictures failed as they were labelled, else 0, also when some are not
    labelled yet: the refining is complete."""
    from omegaconf import OmegaConf

    from autolabel.engine.labeler import refined

    request = parse(arguments, "refine")
    where = compose("refine", about("run", request.overrides)).run
    if request.show and request.path is None and where is None:
        return show(compose("refine", request.overrides, request.config_dir))
    directory = existing_run(request.path, where, "refine")
    if request.show:
        with open_reader(directory) as reader:
            settings = stored_settings(reader)
        return show(_with_its_own(directory, settings, request))
    with exclusive(directory):
        started = time.monotonic()
        with open_store(directory) as store:
            # Whatever is damaged says so before anything is changed.
            stored, part, settings = mapping_of(store, "fingerprint"), part_text(store), stored_settings(store)
            config = _with_its_own(directory, settings, request)
            refiners = build_refiners(config.get("refine"), categories_from(store.meta("categories") or "[]"))
            entries = refine_entries(plain(config)["refine"], refiners)
            require_own_calibration(directory, stored, entries, request.overrides)
            settings.refine = with_kept_calibration(plain(config)["refine"] or {}, entries, directory)
            revised = store.revise(
                lambda record: refined(record, refiners),
                fingerprint=json.dumps(with_refine(stored, entries), sort_keys=True),
                config=OmegaConf.to_yaml(settings),
            )
            write_text(directory / "config.yaml", OmegaConf.to_yaml(settings))
        outdated = bool(revised) and set_aside_evaluation(directory)
        seconds = time.monotonic() - started
        with open_reader(directory) as reader:
            summary = summarise(reader)
        rewrite_counts(directory, summary)
    lines = summary.lines()
    lines.append(
        counted(revised, "refined    {} picture[|s] changed, {:.1f} s; exports are as they were", seconds)
    )
    lines += part.splitlines()
    if outdated:
        lines.append(EVALUATE_AGAIN)
    if summary.holds.pending:
        # The settings of the label command that began the run are no longer the run's.
        lines.append(
            counted(
                summary.holds.pending,
                "next       {} picture[ is|s are] not labelled yet: autolabel label with the refine settings as they are "
                "now (in {}) continues the run",
                printable(str(directory / "config.yaml")),
            )
        )
    else:
        lines.append(next_export(directory))
    sys.stdout.write("\n".join(lines) + "\n")
    return 2 if summary.holds.failures else 0


def _with_its_own(directory: Path, settings: DictConfig, request: Request) -> DictConfig:
    """The settings asked for, on those of the run."""
    if any(key_of(override) == "refine" for override in request.overrides):
        return compose("refine", request.overrides, request.config_dir)
    its = stored_refiners(directory, settings, request.overrides, request.config_dir)
    at_home(its, directory)
    # A refiner that the run is without, and that has a setting now, comes as it usually is.
    usual = plain(compose("refine", ()))["refine"]
    keys = [key_of(override).split(".") for override in request.overrides]
    named = {key[1] for key in keys if key[0] == "refine" and len(key) > 2}
    back = {name: usual[name] for name in named & usual.keys() if its.get(name) is None}
    if back:
        its |= back
        its = {name: its[name] for name in (*usual, *its) if name in its}
    _add_new_settings(its, usual, request.overrides)
    return compose_from("refine", its, "refine", request.overrides, request.config_dir)


def _add_new_settings(its: Mapping[str, Any], usual: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """A setting that is named, and that the version had not which made the run, is there to be set."""
    for override in overrides:
        group, *parts = key_of(override).split(".")
        if group != "refine" or len(parts) < 2 or override.startswith("+"):  # which adds it by itself
            continue
        name, setting = parts[:2]
        then, now = its.get(name), usual.get(name, {})
        if isinstance(then, dict) and then.get("_target_") == now.get("_target_") and setting in now:
            then.setdefault(setting, now[setting])


def with_refine(fingerprint: Mapping[str, str], refine: Mapping[str, str]) -> dict[str, str]:
    """The fingerprint of the same run with another `refine` part."""
    return {**{key: value for key, value in fingerprint.items() if not is_of_refine(key)}, **refine}
