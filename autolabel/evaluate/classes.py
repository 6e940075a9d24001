"""Which class of the truth is which class of the run: by name, or all as one. Guesses nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from autolabel.core.errors import ConfigError
from autolabel.core.types import Category

OBJECT = "object"
"""The one class of a class-agnostic evaluation."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes that are judged. `truth` and `run` lead from category ids to their numbers; what is not there
    is left out."""

    names: tuple[str, ...]
    truth: Mapping[int, int]
    run: Mapping[int, int]


def one_class(run: Sequence[Category], truth: Sequence[Category]) -> Classes:
    """Every class of either side is the same one."""
    return Classes((OBJECT,), {c.id: 0 for c in truth}, {c.id: 0 for c in run})


def by_name(
    run: Sequence[Category],
    truth: Sequence[Category],
    *,
    used: Collection[int],
    renamed: Mapping[str, str | None],
    rename_run: bool,
    unknown: str,
) -> Classes:
    """Classes of the same name; `renamed` leads from the truth's names to the run's, None leaves a class out.

    `used` are the truth's category ids that have objects, `rename_run` says that the run carries the truth's own
    names. Raises ConfigError, with suggestions, for names of the truth that the run cannot find, unless `unknown`
    is "ignore", and when no name is shared.
    """
    stray = sorted(set(renamed) - {c.name for c in truth})
    if stray:
        raise ConfigError(f"classes: the ground truth has no class {_listed(stray, [c.name for c in truth])}")
    ours = {c.id: (renamed.get(c.name, c.name) if rename_run else c.name) for c in run}
    theirs = {c.id: renamed.get(c.name, c.name) for c in truth}
    known = {name for name in ours.values() if name is not None}
    if unknown == "error":
        missing = {theirs[c.id]: c.name for c in truth if c.id in used and theirs[c.id] is not None}
        _refuse(sorted(name for name in missing if name is not None and name not in known), known)
    shared = {name for name in theirs.values() if name is not None and name in known}
    if truth and run and not shared:
        raise ConfigError(
            f"the run and the ground truth share no class: the run has {_some(sorted(known))}, the ground truth "
            f"{_some(sorted({c.name for c in truth}))}; {_way_out(known)}"
        )
    names = tuple(dict.fromkeys(name for name in ours.values() if name is not None and name in shared))
    number = {name: i for i, name in enumerate(names)}
    return Classes(
        names,
        {id_: number[name] for id_, name in theirs.items() if name is not None and name in number},
        {id_: number[name] for id_, name in ours.items() if name is not None and name in number},
    )


def _refuse(missing: Sequence[str], known: Collection[str]) -> None:
    if not missing:
        return
    raise ConfigError(
        f"the run has no class {_listed(missing, sorted(known))}; {_way_out(known)}, or unknown=ignore to leave "
        f"out what the run cannot find"
    )


def _way_out(known: Collection[str]) -> str:
    alone = f" (this run has the one class {min(known)!r})" if len(known) == 1 else ""
    return f"say which class of the ground truth is which of the run with classes={{theirs: ours}}, or class_agnostic=true to match without classes{alone}"


def _listed(names: Sequence[str], known: Sequence[str]) -> str:
    def one(name: str) -> str:
        close = get_close_matches(name, known, n=1)
        return f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")

    return _some(names, one)


def _some(names: Sequence[str], show: object = repr) -> str:
    assert callable(show)
    text = ", ".join(show(name) for name in names[:_SHOWN])
    return text + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") or "none"
