"""`autolabel merge RUN RUN ... run=OUT`: the runs of all parts into the one that they are parts of. Loads no model.

The result is the run that `label` makes without `part`, in float32 where a GPU might have decided otherwise: the same
records in the same places, so the same exports; and `label` with the same settings continues it. The same merge again
takes over what has changed in the parts.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from autolabel.app.command_line import parse
from autolabel.app.compose import compose, show
from autolabel.app.refiners import at_home, with_kept_calibration
from autolabel.app.run_directory import existing_run, made_run, run_path, set_aside_evaluation, write_text
from autolabel.app.stored_settings import stored_settings
from autolabel.app.summary import EVALUATE_AGAIN, Cost, Invocation, next_export, read_cost, summarise
from autolabel.core.errors import ConfigError
from autolabel.core.text import counted, printable
from autolabel.store.lock import shared
from autolabel.store.merge import merge
from autolabel.store.run import FILE_NAME, mapping_of, open_reader

_FILES_OF_A_PART = 4
"""Its lock and its database, and what SQLite may open beside that."""


def main(arguments: Sequence[str]) -> int:
    """Exit code as that of `label`."""
    request = parse(arguments, "merge", several=True)
    config = compose("merge", request.overrides, request.config_dir)
    if request.show:
        return show(config)
    if not request.paths or config.run is None:
        raise ConfigError("which runs, and where to? autolabel merge RUN RUN ... run=OUT (autolabel --help)")
    parts = [existing_run(path, None, "merge") for path in request.paths]
    out = run_path(config.run)
    if out.resolve() in [part.resolve() for part in parts]:
        raise ConfigError(f"run={out} is one of the parts; choose another directory")
    _allow_open_files(_FILES_OF_A_PART * len(parts))
    with ExitStack() as held:
        held.enter_context(made_run(out))
        for part in parts:
            held.enter_context(shared(part))
        settings = whole_settings(parts[0], out)
        again = (out / FILE_NAME).exists()
        changed = merge(parts, out, settings)
        outdated = changed and set_aside_evaluation(out)
        write_text(out / "config.yaml", settings["config"])
        with open_reader(out) as reader:
            summary = summarise(reader)
        cost = total_cost(parts)
        replace(summary, invocation=Invocation(cost.pictures, seconds=cost.seconds, stages=cost.stages)).write(out)
    lines = summary.lines()
    taken = ", with what changed in them; exports are as they were" if changed else ", as they were before"
    lines.append(
        counted(len(parts), "merged     {} part[|s] into {}{}", printable(str(out)), taken if again else "")
    )
    if outdated:
        lines.append(EVALUATE_AGAIN)
    lines.append(next_export(out))
    sys.stdout.write("\n".join(lines) + "\n")
    return summary.exit_code


def _allow_open_files(more: int) -> None:
    """All parts are open at once; the usual limit of 1024 files is one that a process may raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def whole_settings(part: Path, out: Path) -> dict[str, str]:
    """What the whole run's settings are, from those of a part: where it lies, and that it is not a part."""
    from omegaconf import OmegaConf

    with open_reader(part) as reader:
        config = stored_settings(reader)
        versions = reader.meta("versions") or "{}"
        refine = OmegaConf.to_container(config, resolve=False).get("refine") or {}
        at_home(refine, part)
        config.refine = with_kept_calibration(refine, mapping_of(reader, "fingerprint"), out)
    config.part, config.run = None, str(out)
    return {"config": OmegaConf.to_yaml(config), "versions": versions, "part": ""}


def total_cost(parts: Iterable[Path]) -> Cost:
    """The total cost of the parts, one after the other."""
    total = Cost(0, 0.0, {})
    for cost in filter(None, map(read_cost, parts)):
        names = dict.fromkeys((*total.stages, *cost.stages))
        stages = {name: total.stages.get(name, 0.0) + cost.stages.get(name, 0.0) for name in names}
        total = Cost(total.pictures + cost.pictures, total.seconds + cost.seconds, stages)
    return total
