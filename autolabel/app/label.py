"""`autolabel label`: the main job, from a path to a labelled, exported, resumable run."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.app.build import build_all, build_of
from autolabel.app.command_line import Request, parse
from autolabel.app.compiling import settle_compiling
from autolabel.app.compose import compose, plain, show
from autolabel.app.fingerprint import fingerprint
from autolabel.app.labelers import build_labeler, offline_if
from autolabel.app.overrides import about, quoted
from autolabel.app.part import PartSource, claim_part, part_of
from autolabel.app.precision import Attempt, as_before, automatic, settle, tried, undecided
from autolabel.app.progress import CountedSink, Progress
from autolabel.app.prompts import check_prompts, say_others
from autolabel.app.publish import address_of, exported, format_settings, outdated
from autolabel.app.recipe import RemoteEngine, RemoteLabeler, recipe_of, remote_labeler
from autolabel.app.refiners import require_same_refining, with_kept_calibration
from autolabel.app.repeat import choice_names
from autolabel.app.run_directory import (
    default_run,
    made_run,
    require_readable,
    require_room,
    root_of,
    run_path,
    runs_below,
    set_aside_evaluation,
    write_text,
)
from autolabel.app.run_log import run_log
from autolabel.app.stopping import Stop, stop_on_signals
from autolabel.app.stored_settings import plain_settings
from autolabel.app.summary import Invocation, Summary, kinds, mark_begun, summarise
from autolabel.app.sweep import Job, jobs
from autolabel.core.errors import (
    STOPPED,
    AutolabelError,
    ConfigError,
    SourceError,
    StoreError,
    StoreFull,
    exit_code_of,
    told,
)
from autolabel.core.protocols import ClassChecker, Engine, Exporter, Inferred, Source
from autolabel.core.text import counted, printable
from autolabel.core.types import Category, ImageRef, Status
from autolabel.ops.settings import count, one_of
from autolabel.store.listing import Listing
from autolabel.store.manifest import entries
from autolabel.store.run import FILE_NAME, RunReader, RunStore, Synced, categories_to, open_reader, open_store

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from autolabel.engine.labeler import FrameLabeler

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """One run, or with `-m` one run for each combination of values."""
    request = parse(arguments, "label")
    return sweep(request) if request.flag else one_run(request, request.overrides)


def sweep(request: Request) -> int:
    """One run after the other. A run that cannot be does not stop the others; the worst exit code is the answer."""
    todo, base = jobs(request.overrides), sweep_directory(request)
    codes: dict[Job, int] = {}
    for job in todo:
        sys.stdout.write(f"[{len(codes) + 1}/{len(todo)}] {job.text}\n")
        codes[job] = attempt(request, (*job.overrides, f"run={quoted(str(base / job.folder))}"))
        if codes[job] in (STOPPED, StoreFull.exit_code):  # the next one would find the same disk
            break
    if not request.show:
        sys.stdout.write(sweep_text(base, codes, len(todo)))
    return next((code for code in (STOPPED, StoreFull.exit_code, 1, 2) if code in codes.values()), 0)


def sweep_text(base: Path, codes: Mapping[Job, int], count: int) -> str:
    """What became of the runs, and the command that sets them side by side."""
    good = [base / job.folder for job, code in codes.items() if code in (0, 2)]
    lines = [counted(len(good), "sweep      {} of {} runs [is|are] complete", count)]
    lines += [f"           could not run: {job.text}" for job, code in codes.items() if code == 1]
    if {STOPPED, StoreFull.exit_code} & {*codes.values()}:
        lines.append("next       the same command continues where this one stopped")
    elif len(good) > 1:
        # The folder stands for its runs, where they are all of them.
        named = [base] if runs_below(base) == sorted(good) else good
        lines.append(f"next       autolabel compare {' '.join(printable(shlex.quote(str(run))) for run in named)}")
    return "\n".join(lines) + "\n"


def sweep_directory(request: Request) -> Path:
    """What holds the runs of a sweep: `run=...`, or a name from the source."""
    fixed = about("run", request.overrides)
    if len(jobs(fixed)) > 1:
        raise ConfigError(f"{fixed[-1]}: one directory holds all runs of a sweep, each in a folder of its own")
    run = compose("label", fixed).run
    return default_run(request.path or "sweep") if run is None else run_path(run)


def attempt(request: Request, overrides: Sequence[str]) -> int:
    """One run of a sweep; what one value makes impossible, the next may not."""
    try:
        return one_run(request, overrides)
    except (AutolabelError, OSError) as error:  # of the system: a disk that is full, a name that is too long
        sys.stderr.write(f"autolabel: {told(error)}\n")
        return exit_code_of(error)


def one_run(request: Request, overrides: Sequence[str]) -> int:
    """Compose, label, export, say what happened."""
    from omegaconf import OmegaConf

    config = compose("label", overrides, request.config_dir)
    if request.path is not None:
        if "${" in request.path:
            raise ConfigError(f"{request.path!r}: a path cannot hold `${{`, which settings take for a reference")
        config.source.path = request.path
    if config.run is None:
        path = "" if OmegaConf.is_missing(config.source, "path") else str(config.source.get("path", ""))
        run, part = default_run(path or "run"), part_of(config.get("part"))
        config.run = str(run if part is None else run.with_name(f"{run.name}-part-{part.number}-of-{part.of}"))
    if request.show:
        return show(config)
    if OmegaConf.is_missing(config.source, "path"):
        raise ConfigError("which pictures? autolabel label PATH [settings] (autolabel --help)")
    summary = label(config)
    sys.stdout.write(summary.text())
    return summary.exit_code


def label(config: DictConfig) -> Summary:
    """Label what `config` names into its run directory and export it; continues what is already there. `config` stays
    as it is."""
    with offline_if(config.offline):
        return _label(config.copy())


def _label(config: DictConfig) -> Summary:
    """Like `label`; writes into `config` what `precision=auto` and `compile_mode=auto` became."""
    from autolabel.engine.labeler import PipelineLabeler

    values = plain(config)
    unit_size = count("unit_size", values["unit_size"], 1)
    directory, root = run_path(values["run"]), root_of(values)
    if str(directory.resolve()) == root:
        raise ConfigError(f"run={directory} is the folder of pictures itself; choose another directory")
    exporters, address = build_all("export", config.get("export")), address_of(values["export_to"])
    engine: Engine = build_of("engine", config.engine)
    source: Source = build_of("source", config.source)
    if (part := part_of(values["part"])) is not None:
        source = PartSource(source, part, unit_size)
    started = time.monotonic()
    with (
        made_run(directory),
        run_log(directory),
        stop_on_signals() as stop,
        listed(source, directory) as refs,
        ended(engine),
    ):
        say_kind(source, len(refs))
        say_run(root)
        require_readable(refs)
        require_room(directory, len(refs), len(exporters))
        with open_store(directory, rollback=rollback_journal(values)) as store:
            settle_precision(engine, config, source.categories, refs, store)
            here = part is None and not isinstance(engine, RemoteEngine)
            settle_compiling(config, store, pictures=len(refs), here=here)
            labeler, categories = labeler_for(engine, config, source.categories, refs)
            check_formats(exporters, categories)
            prompter = labeler.prompter if isinstance(labeler, PipelineLabeler | RemoteLabeler) else None
            if prompter is not None:
                check_prompts(prompter, refs, config, source.categories)
            synced = claim_run(store, config, source, refs, labeler, categories)
            done = label_pending(engine, labeler, store, refs, stop)
        if (done or synced.others) and set_aside_evaluation(directory):
            logger.warning(
                "records or pictures changed: evaluate again; the old figures are in evaluate/*.outdated"
            )
        invocation = Invocation(
            labelled=done["ok"] + done["empty"],
            committed=done.total(),
            seconds=time.monotonic() - started,
            stages=labeler.times.seconds(),
            ignored=dict(source.ignored),
            stopped=stop.asked,
        )
        with open_reader(directory) as reader:
            say_others(prompter, reader)
            summary = concluded(reader, invocation, exporters, format_settings(values), address)
        summary.write(directory)
        logger.info("%s", summary.text())
    return summary


def claim_run(
    store: RunStore,
    config: DictConfig,
    source: Source,
    refs: Listing,
    labeler: FrameLabeler | RemoteLabeler,
    categories: Sequence[Category],
) -> Synced:
    """Make the run one of these pictures and settings, which it keeps, and tell how the pictures changed since it was
    one. Raises StoreMismatch where it is another one."""
    values, directory = plain(config), store.directory
    entries = fingerprint(values, labeler.identities, labeler.refiners, categories)
    require_same_refining(store, entries)
    store.claim(entries, partial(then_and_now, store, config))
    claim_part(store, source)
    synced = store.sync(refs, root=root_of(values), unit_size=values["unit_size"])
    say_changes(synced)
    store.set_meta(categories=categories_to(categories), document=source.document)
    text = yaml_text(recorded(config, entries, directory))
    store.set_meta(config=text, versions=versions())
    write_text(directory / "config.yaml", text)
    mark_begun(directory, store.pending_images())
    return synced


def concluded(
    reader: RunReader,
    invocation: Invocation,
    exporters: Mapping[str, Exporter],
    settings: Mapping[str, Mapping[str, object]],
    address: str | None,
) -> Summary:
    """The run written in every format, with the `settings` of each, and what there is to say; of one that was stopped,
    nothing is written."""
    if invocation.stopped:
        return summarise(reader, invocation)
    outcomes = dict(exported(reader, exporters, settings, reader.directory, address))
    return summarise(reader, invocation, outcomes, outdated(reader, outcomes))


def then_and_now(store: RunStore, config: DictConfig) -> list[dict[str, str]]:
    """The choices that a run was labelled with, and those of `config`; none where they cannot be read."""
    from omegaconf import OmegaConf

    try:
        before = plain_settings(store)
    except StoreError:
        return []
    return [choice_names(one) for one in (before, OmegaConf.to_container(config, resolve=False))]


def say_changes(synced: Synced) -> None:
    for what, pictures in (("new", synced.added), ("changed", synced.changed)):
        if pictures:
            logger.warning(counted(pictures, "{} {} picture[|s] since the run was started", what))
    if synced.vanished:
        logger.warning(
            counted(synced.vanished, "{} picture[ is|s are] no longer in the source; [its|their] labels are kept")
        )
    if synced.away:
        logger.warning(
            counted(synced.away, "{} labelled picture[|s] cannot be read now; [its|their] labels are kept")
        )


def label_pending(
    engine: Engine,
    labeler: FrameLabeler | RemoteLabeler,
    store: RunStore,
    refs: Mapping[str, ImageRef],
    stop: Stop,
) -> Counter[Status]:
    """Label the units that are not committed yet; how many pictures that was, by status."""
    todo = store.pending_images()
    logger.info("%s: %d of %d pictures to label", store.directory, todo, len(refs))
    with Progress(todo) as progress:
        sink = CountedSink(store, progress, labeler.times)
        stop.gentle = True
        engine.run(labeler, stop.until(store.pending(refs)), sink)
        stop.gentle = stop.asked  # a summary is still worth waiting for, an export begins anew
    return sink.done


def settle_precision(
    engine: Engine,
    config: DictConfig,
    categories: Sequence[Category],
    refs: Mapping[str, ImageRef],
    store: RunStore,
) -> None:
    """A word for each `precision=auto`, into `config`, where the engine computes on GPUs."""
    if store.has_records:
        as_before(config, store)
    else:
        settle(config, store, refs, attempt_of(engine, config, categories, refs))


def attempt_of(
    engine: Engine, config: DictConfig, categories: Sequence[Category], refs: Mapping[str, ImageRef]
) -> Attempt | None:
    """How bfloat16 is tried where the engine computes; None where there is nothing to try it for. Raises ConfigError
    for a device that is not there."""
    if config.part is not None:
        return None  # parts that decided differently, each for its own pictures, could not be merged
    if isinstance(engine, RemoteEngine):
        if not (automatic(config) and engine.on_gpus()):
            return None
        recipe = recipe_of(config, categories)
        return lambda some: engine.ask(partial(recipe.tried, some))
    if not undecided(config):
        return None
    return lambda some: tried(config, lambda: build_labeler(config, categories, refs.values())[0], some)


def labeler_for(
    engine: Engine, config: DictConfig, source_categories: Sequence[Category], refs: Mapping[str, ImageRef]
) -> tuple[FrameLabeler | RemoteLabeler, tuple[Category, ...]]:
    """Like `build_labeler`; for an engine that labels in other processes, one that they build."""
    if isinstance(engine, RemoteEngine):
        return remote_labeler(engine, config, source_categories, refs)
    return build_labeler(config, source_categories, refs.values())


@contextmanager
def ended(engine: Engine) -> Iterator[None]:
    """Whatever happens, an engine that started something of its own ends it."""
    try:
        yield
    finally:
        if isinstance(engine, RemoteEngine):
            engine.close()


def listed(source: Source, directory: Path | None = None) -> Listing:
    """Every picture by its id, in a scratch file in `directory`; to be closed. Raises SourceError when there is none,
    saying what was seen instead."""
    refs = Listing(entries(source.images()), directory)
    if not refs:
        refs.close()
        ignored = f"ignored: {kinds(source.ignored)}" if source.ignored else ""
        reason = source.reason if isinstance(source, Inferred) else ""
        seen = "; ".join(filter(None, (reason, ignored)))
        raise SourceError(f"there is no picture in the source{f' ({seen})' if seen else ''}")
    return refs


def say_kind(source: Source, count: int) -> None:
    """One line about what a bare path was taken for."""
    if isinstance(source, Inferred) and source.kind:
        sys.stderr.write(counted(count, "source: {1} ({2}), {0} picture[|s]\n", source.kind, source.reason))


def say_run(root: str) -> None:
    """One line where the pictures are those that a run exported: it is rarely meant, and may be."""
    place = Path(root)
    around = (folder for folder in place.parents if folder / "export" in place.parents)
    run = next((folder for folder in around if os.path.isfile(folder / FILE_NAME)), None)  # noqa: PTH113 - never raises
    if root and run is not None:
        shown = printable(shlex.quote(str(run)))
        sys.stderr.write(
            f"source: {printable(root)} is in the run directory {shown} of autolabel: labelling its exported pictures as a new run "
            f"(to look at that one: autolabel report {shown})\n"
        )


def check_formats(exporters: Mapping[str, Exporter], categories: Sequence[Category]) -> None:
    """Raises ExportError for a format that cannot hold the classes: now, and not after hours of labelling."""
    for exporter in exporters.values():
        if isinstance(exporter, ClassChecker):
            exporter.check_classes(categories)


def rollback_journal(values: Mapping[str, Any]) -> bool:
    return one_of("store.journal", values["store"]["journal"], ("wal", "rollback")) == "rollback"


def recorded(config: DictConfig, entries: Mapping[str, str], directory: Path) -> DictConfig:
    """What the run keeps of it: refining it again looks no reference up, so that none is left there, and reads no file
    that is not the run's. `entries` are those of its fingerprint."""
    found = config.copy()
    found.refine = with_kept_calibration(plain(config)["refine"] or {}, entries, directory)
    return found


def yaml_text(config: DictConfig) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(config)


def versions() -> str:
    import json
    from importlib.metadata import version

    names = (
        "autolabel-sam2",
        "torch",
        "torchvision",
        "ultralytics",
        "sam2",
        "numpy",
        "opencv-python",
        "pycocotools",
    )
    return json.dumps({name: version(name) for name in names})
