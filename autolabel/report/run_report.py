"""The report of one run: one pass over the records for the numbers, then the few pictures that are shown.

The page is a function of the run, its picture files and the settings: no clock, no chance but the seed's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autolabel.core.protocols import RecordReader
from autolabel.ops.settings import count, number
from autolabel.report.about import (
    About,
    fingerprint_digest,
    inputs_section,
    repeat_section,
    timing_section,
)
from autolabel.report.evaluation import Evaluated
from autolabel.report.galleries import (
    Plan,
    Planned,
    copies_section,
    fit_section,
    galleries_section,
    plan_alike,
    plan_copies,
)
from autolabel.report.judged import error_line, evaluation_section, headline
from autolabel.report.labels import (
    classes_section,
    drops_section,
    key_figures,
    scores_section,
    sizes_section,
)
from autolabel.report.page import Section, page
from autolabel.report.shots import Shots
from autolabel.report.similar import Search, find_alike
from autolabel.report.tally import Limits, Tally, tally

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many were done just now, and how many there are (0: not known)."""


@dataclass(frozen=True, slots=True)
class Built:
    """The page, and what a person may want to know of it: pictures shown, those that `max_megabytes` left out, and
    files that could not be read."""

    html: str
    images: int
    pictures: int
    beyond_budget: int
    unread: int


class RunReport:
    """`gallery` pictures a gallery, `examples` of each drop reason and error, at most `max_failures` failures listed.

    Pictures have `max_side` px at most and take `max_megabytes` of the page together; what does not fit is left
    out with a note. `similar_images` pictures (0: none) are searched for ones whose hashes differ in `similar_bits`
    at most. `seed` decides what is chosen by lot.
    """

    def __init__(
        self,
        *,
        seed: int,
        gallery: int,
        examples: int,
        max_failures: int,
        max_side: int,
        max_megabytes: float,
        similar_images: int,
        similar_bits: int,
    ) -> None:
        count("seed", seed, 0, 2**63)
        count("gallery", gallery, 0, 200)
        count("examples", examples, 0, 50)
        count("max_failures", max_failures, 0, 10_000)
        count("max_side", max_side, 32, 2048)
        count("similar_images", similar_images, 0, 1_000_000)
        count("similar_bits", similar_bits, 0, 16)
        number("max_megabytes", max_megabytes, 0, 500)
        self.seed = seed
        self.examples = examples
        self._limits = Limits(gallery, examples, max_failures, hashed=similar_images, seed=seed)
        self._max_side = max_side
        self._max_bytes = int(max_megabytes * 1_000_000)
        self._similar_bits = similar_bits

    def build(
        self,
        run: RecordReader,
        about: About,
        evaluated: Evaluated | None = None,
        progress: Progress = lambda what, done, of: None,
    ) -> Built:
        """The whole page. Reads the records once, the chosen pictures once, and nothing else."""
        names = {category.id: category.name for category in run.categories}
        counted = tally(_told(run, progress), self._limits, _wanted(evaluated))
        chosen = counted.copies.chosen()
        search = find_alike(chosen, self._similar_bits, lambda n: progress("comparing", n, len(chosen)))
        shots = Shots(self._max_bytes, self._max_side)
        sections = _Sections(counted, names, about, evaluated, search, self._similar_bits, Plan(shots, names))
        shots.take(lambda n: progress("drawing", n, len(shots)))
        html = page(
            about.name,
            sections.written(),
            eyebrow="autolabel report",
            lead=f"{about.directory} · fingerprint {fingerprint_digest(about.fingerprint)}",
            top=key_figures(counted, about.pending),
            data=_numbers(counted, names, about, evaluated),
        )
        return Built(html, counted.images, shots.shown, shots.beyond_budget, shots.unread)


class _Sections:
    """Asks for pictures when it is made, writes when they were taken."""

    def __init__(
        self,
        counted: Tally,
        names: Mapping[int, str],
        about: About,
        evaluated: Evaluated | None,
        search: Search,
        similar_bits: int,
        plan: Plan,
    ) -> None:
        self._counted, self._names, self._about = counted, names, about
        self._evaluated, self._search, self._bits, self._plan = evaluated, search, similar_bits, plan
        # In the order in which they matter: the budget of bytes ends with the last ones.
        self._worst = plan.objects(counted.worst(), counted.ranked_by)
        self._random = plan.pictures(counted.random())
        self._best = plan.objects(counted.best(), counted.ranked_by)
        self._misfits = plan.misfits(counted.misfits())
        self._dropped = {
            reason: plan.dropped(counted.examples(reason)) for reason, _ in counted.dropped.most_common()
        }
        self._errors = _errors(plan, counted, evaluated)
        self._groups = counted.copies.groups()
        self._copies = plan_copies(plan, self._groups)
        self._alike = plan_alike(plan, search)

    def written(self) -> list[Section]:
        counted, about, cards = self._counted, self._about, self._plan.cards
        sections = [
            None if self._evaluated is None else evaluation_section(self._evaluated, self._cards_of(self._errors)),
            galleries_section(counted, cards(self._worst), cards(self._best), cards(self._random)),
            inputs_section(counted, about),
            classes_section(counted, self._names),
            sizes_section(counted),
            scores_section(counted),
            drops_section(counted, self._cards_of(self._dropped)),
            fit_section(counted, cards(self._misfits)),
            copies_section(
                self._plan, self._groups, self._copies, self._search, self._alike,
                of=counted.copies.different, max_bits=self._bits,
            ),
            timing_section(about),
            repeat_section(about),
        ]  # fmt: skip
        return [section for section in sections if section is not None]

    def _cards_of(self, planned: Mapping[str, list[Planned]]) -> dict[str, Any]:
        return {key: self._plan.cards(some) for key, some in planned.items()}


def _errors(plan: Plan, counted: Tally, evaluated: Evaluated | None) -> dict[str, list[Planned]]:
    found: defaultdict[str, list[Planned]] = defaultdict(list)
    for error in () if evaluated is None else evaluated.errors:
        one = counted.found.get((error.image_id, error.index))
        if one is not None:
            found[error.kind].append(plan.judged(one, error_line(error)))
    return dict(found)


def _wanted(evaluated: Evaluated | None) -> dict[str, list[int]]:
    wanted: defaultdict[str, list[int]] = defaultdict(list)
    for error in () if evaluated is None else evaluated.errors:
        wanted[error.image_id].append(error.index)
    return dict(wanted)


def _told(run: RecordReader, progress: Progress) -> Any:
    for record in run.records():
        progress("counting", 1, 0)
        yield record


def _numbers(
    counted: Tally, names: Mapping[int, str], about: About, evaluated: Evaluated | None
) -> dict[str, Any]:
    """What programs may want to read from the page."""
    return {
        "images": counted.images,
        "pending": about.pending,
        "status": dict(counted.status),
        "codes": dict(counted.codes),
        "objects": counted.kept,
        "dropped": dict(counted.dropped),
        "classes": {names.get(i, str(i)): c.kept for i, c in sorted(counted.classes.items())},
        "scores": {name: {"count": s.count, "mean": s.mean} for name, s in counted.scores.items() if s.count},
        "box_fit": counted.fit.mean,
        "evaluation": None if evaluated is None else dict(headline(evaluated)),
    }
