"""The command line: `autolabel COMMAND [PATH] [settings]`. Starts light; a command's own packages load when it runs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from autolabel.app.choices import choices
from autolabel.app.streams import unheard_is_no_error
from autolabel.core.errors import STOPPED, AutolabelError, ConfigError, exit_code_of, told
from autolabel.core.text import one_line

COMMANDS = {
    "demo": "label the sample photographs with the shipped nano models, offline",
    "label": "pictures in, masks and training labels out",
    "merge": "the runs of all parts (label part=K/N) into one",
    "refine": "recompute what a run keeps and drops, no model loaded",
    "export": "write a format from a finished run, no model loaded",
    "evaluate": "a run against ground truth: AP, IoU, boundaries, errors",
    "compare": "several runs side by side, two of them object by object",
    "report": "one self-contained HTML page of a run, pictures and numbers",
    "weights": "list, fetch or verify model weights",
    "doctor": "what is installed, what does not fit, what to do",
}
CONFIGURED = ("demo", "label", "merge", "refine", "export", "evaluate", "compare", "report")
"""Commands that take settings; the others have a help of their own, and know no settings."""

DEMO = ("experiment=offline", "export=[coco,yolo,overlay]", "run=runs/demo")
"""Settings of the demo, where nothing else is said."""
EXAMPLES = """\
  autolabel demo
  autolabel label photos/                                    boxes by a detector, masks by SAM 2
  autolabel label photos/ experiment=offline                 the same with the models that are in the package
  autolabel label instances.json detect=labels segment=nano  boxes that exist become masks
  autolabel label photos/ detect=yolo26m segment=sam2_small export=[coco,yolo] run=runs/a
  autolabel label -m photos/ detect.conf=0.2,0.4             one run for each value
  autolabel label photos/ part=3/16                          a sixteenth of the units, on any machine
  autolabel merge runs/photos-part-* run=runs/photos         the runs of all parts into one
  autolabel label photos/ engine=ray engine.address=auto     the same run on a Ray cluster
  autolabel refine runs/a refine=strict                      other thresholds on what was found
  autolabel refine runs/a refine.area.min_px=100             one of them
  autolabel evaluate runs/a truth=instances.json             how good the labels are
  autolabel compare runs/a runs/b                            one table, one page, what differs object by object
  autolabel report runs/a                                    everything at a glance, one file for any browser
  autolabel export runs/a export=[yolo]                      another format from the same run
"""
OPTIONS = """\
  --calibrate         with evaluate: fit the quality score of masks to this ground truth
  --verify            with export: write nothing, compare the files and every object with the run
  --cfg               print the composed configuration and stop
  --config-dir DIR    a folder of your own configuration files
  -m, --multirun      with label: one run for each combination of comma-separated values
  --debug             show the traceback of an error
  --help              also of a command: autolabel refine --help
  --version
"""
USAGE = """\
autolabel: pictures in, pixel-accurate training labels out

  autolabel COMMAND [PATH] [setting=value ...]

commands
{commands}

examples
{examples}

choices (group=name)
{groups}

options
{options}

exit code: 0 all pictures labelled, 2 finished but some pictures failed, or a format is not or not wholly written (they
are listed), or with --verify an export differs, 1 could not run, 3 the disk is full, 130 stopped before the end (the same
command continues)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the return value."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    with unheard_is_no_error():
        return _guarded(arguments or ["--help"], debug)


def _run(arguments: list[str]) -> int:
    command, rest = arguments[0], arguments[1:]
    if command in ("-h", "--help", "help"):
        sys.stdout.write(usage(_config_dir(rest)))
        return 0
    if command in CONFIGURED and not {"-h", "--help"}.isdisjoint(rest):
        sys.stdout.write(_usage_of(command, rest))
        return 0
    if command in ("-V", "--version"):
        from autolabel import __version__

        sys.stdout.write(f"autolabel {__version__}\n")
        return 0
    if command not in COMMANDS:
        raise AutolabelError(_unknown(command))
    from autolabel.weights.quiet import quiet_environment

    quiet_environment()
    code: int = import_module(f"autolabel.app.{command}").main(rest)
    return code


def _guarded(arguments: list[str], debug: bool) -> int:
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a disk that is full can still be told
        return code
    except (Exception, KeyboardInterrupt) as error:
        if _is_stop(error):
            return _stopped(arguments[0])
        if debug or not isinstance(error, (AutolabelError, OSError, MemoryError)):
            raise
        if isinstance(error, MemoryError):
            shown = f"not enough memory: {one_line(error)} (--debug shows where)"
        elif isinstance(error, AutolabelError):
            shown = str(error)
        else:
            shown = f"{told(error)} (--debug shows where)"
        sys.stderr.write(f"autolabel: {shown}\n")
        return exit_code_of(error)


def _is_stop(error: BaseException | None) -> bool:
    """Whether it began with a Ctrl-C: what cleans up after one may raise an error of its own, as omegaconf does. A disk
    that fails meanwhile is told."""
    if isinstance(error, AutolabelError | OSError) and not isinstance(error, ConfigError):
        return False
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _stopped(command: str) -> int:
    kept = "; what was committed is kept, the same command continues" if command in ("demo", "label") else ""
    sys.stderr.write(f"autolabel: stopped{kept}\n")
    return STOPPED


def usage(config_dir: str | None = None) -> str:
    """Help for the program; the choices of a person's own folder are among the package's."""
    commands = "\n".join(f"  {name:<9} {what}" for name, what in COMMANDS.items())
    groups = "\n".join(f"  {group:<11} {_wrapped(names)}" for group, names in choices(config_dir).items())
    return USAGE.format(
        commands=commands, groups=groups, examples=EXAMPLES.rstrip("\n"), options=OPTIONS.rstrip("\n")
    )


def _usage_of(command: str, arguments: Sequence[str]) -> str:
    from autolabel.app.command_help import page

    examples = [line for line in EXAMPLES.splitlines() if line.split()[1] == command]
    others = [f"with {name}:" for name in COMMANDS if name != command]
    options = [line for line in OPTIONS.splitlines() if not any(other in line for other in others)]
    if command != "demo":
        return page(command, arguments, examples, options, _config_dir(arguments))
    shown = "\n".join(f"  {setting}" for setting in DEMO)
    return (
        f"autolabel demo: {COMMANDS[command]}\n\n  autolabel demo [setting=value ...]\n\n"
        f"settings: those of autolabel label (autolabel label --help); here\n{shown}\n\nexamples\n{examples[0]}\n"
    )


def _config_dir(arguments: Sequence[str]) -> str | None:
    """What `--config-dir` names. Raises ConfigError where that is not a folder."""
    following = [*arguments, ""][1:]
    named = [
        argument.partition("=")[2] or after
        for argument, after in zip(arguments, following, strict=True)
        if argument == "--config-dir" or argument.startswith("--config-dir=")
    ]
    if named and not os.path.isdir(os.path.expanduser(named[-1])):  # noqa: PTH111, PTH112 - as in `_unknown`
        raise ConfigError(f"--config-dir {named[-1]}: there is no such folder")
    return named[-1] if named else None


def _wrapped(names: list[str]) -> str:
    import textwrap

    return f"\n{'':<14}".join(textwrap.wrap(" ".join(names), width=90))


def _unknown(command: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(command, COMMANDS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    if os.path.exists(command):  # noqa: PTH110 - any text may be given, also one that Path refuses
        hint = f"; did you mean autolabel label {shlex.quote(command)}?"
    return f"there is no command {command!r}{hint} (autolabel --help lists them)"


if __name__ == "__main__":
    sys.exit(main())
