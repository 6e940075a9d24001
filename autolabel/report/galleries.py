"""The sections of pictures: worst, best and random objects, masks that do not fit their boxes, pictures that are there
more than once. What to show is chosen first, the pictures are read together, and then the sections are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autolabel.core.text import counted
from autolabel.core.types import ImageRecord, Instance
from autolabel.report.labels import SCORE_TEXTS, score_chart, score_name, score_summary
from autolabel.report.page import (
    Card,
    Child,
    Html,
    Section,
    element,
    figure,
    figures,
    gallery,
    joined,
    note,
    number,
    subsection,
)
from autolabel.report.shots import Shot, Shots, close_up, whole
from autolabel.report.similar import Search
from autolabel.report.tally import Copy, Found, Tally, bare

GROUPS_SHOWN = 8
GROUP_PICTURES = 4
NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Planned:
    """A card whose picture was asked for under `number`."""

    number: int
    title: str
    lines: tuple[Child, ...]


class Plan:
    """Names what is to be shown, and makes cards of it once the pictures were taken."""

    def __init__(self, shots: Shots, names: Mapping[int, str]) -> None:
        self._shots = shots
        self._names = names

    def objects(self, found: Sequence[Found], score: str | None) -> list[Planned]:
        """Close-ups, with the score that chose them."""
        return [self._object(one, _score_line(one, score)) for one in found]

    def misfits(self, found: Sequence[Found]) -> list[Planned]:
        return [self._object(one, f"IoU of the boxes {number(one.value)}", boxes=True) for one in found]

    def dropped(self, found: Sequence[Found]) -> list[Planned]:
        return [self._object(one, one.reason, boxes=True) for one in found]

    def judged(self, one: Found, line: str) -> Planned:
        """A close-up with a line of its own."""
        return self._object(one, line)

    def pictures(self, records: Sequence[ImageRecord]) -> list[Planned]:
        """Whole pictures with everything that was kept."""
        return [Planned(self._shots.add(whole(r)), r.image_id, (self._contents(r.instances),)) for r in records]

    def plain(self, record: ImageRecord, lines: Sequence[Child] = ()) -> Planned:
        """A picture without masks."""
        return Planned(self._shots.add(Shot(bare(record), ())), record.image_id, tuple(lines))

    def cards(self, planned: Sequence[Planned]) -> list[Card]:
        return [Card(self._shots[one.number], one.title, one.lines) for one in planned]

    def _object(self, found: Found, line: str, *, boxes: bool = False) -> Planned:
        instance = found.instance
        name = self._names.get(instance.category_id, f"class {instance.category_id}")
        where = f"{found.record.image_id}, object {instance.index}"
        return Planned(self._shots.add(close_up(found.record, instance, boxes=boxes)), name, (line, where))

    def _contents(self, instances: Sequence[Instance]) -> str:
        counts: dict[str, int] = {}
        for instance in instances:
            name = self._names.get(instance.category_id, f"class {instance.category_id}")
            counts[name] = counts.get(name, 0) + 1
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        text = ", ".join(f"{name[:40]}: {n:,}" for name, n in common[:4])
        return (text or "no object") + (", …" if len(common) > 4 else "")


def galleries_section(tally: Tally, worst: Sequence[Card], best: Sequence[Card], some: Sequence[Card]) -> Section:
    """Worst first: that is where the work is."""
    ranked = tally.ranked_by
    by = "" if ranked is None else f", by {score_name(ranked)}"
    parts = [
        subsection(f"Worst objects{by}", gallery(worst)),
        subsection(f"Best objects{by}", gallery(best)),
        subsection("Random pictures", gallery(some)),
    ]
    lead = "At most one object per picture. The key m hides and shows the masks on all pictures; a click enlarges a picture."
    return Section("pictures", "Pictures", joined(parts), lead=lead)


def fit_section(tally: Tally, misfits: Sequence[Card]) -> Section | None:
    """None for a run in which no mask was asked for by a box."""
    if not tally.fit.count:
        return None
    chart = score_chart(tally.fit, "IoU of the prompt box with the tight box of the mask")
    parts: list[Html] = [figures([figure(chart, "Box fit", f"{score_summary(tally.fit)}.")])]
    parts.append(gallery(misfits, empty="Every mask fits its box."))
    lead = "A mask that does not fill its box may be of something else. The white box is the prompt."
    return Section("box-fit", "Box fit", joined(parts), lead=lead)


def plan_copies(plan: Plan, copies: Sequence[Copy]) -> list[tuple[Copy, list[Planned]]]:
    return [(copy, [plan.plain(copy.record)]) for copy in copies[:GROUPS_SHOWN]]


def plan_alike(plan: Plan, search: Search) -> list[list[Planned]]:
    return [
        [
            plan.plain(record, [record.split or ""][: bool(record.split)])
            for record in group.records[:GROUP_PICTURES]
        ]
        for group in search.groups[:GROUPS_SHOWN]
    ]


def copies_section(
    plan: Plan,
    copies: Sequence[Copy],
    planned_copies: Sequence[tuple[Copy, list[Planned]]],
    search: Search,
    planned_alike: Sequence[list[Planned]],
    *,
    of: int,
    max_bits: int,
) -> Section:
    """Equal files, and pictures that look alike among `search.compared` of the run's `of` different ones."""
    spare = sum(len(copy.image_ids) - 1 for copy in copies)
    parts = [
        _heading(
            "Equal files",
            f"{counted(spare, '{:,} cop[y|ies]')} in {counted(len(copies), '{:,} group[|s]')}"
            if copies
            else "none",
        )
    ]
    for copy, cards in planned_copies:
        text = _names_of(copy.image_ids)
        parts.append(_group(f"{len(copy.image_ids)} times{_mixed(copy.splits)}: {text}", plan.cards(cards)))
    parts.append(_more(len(copies)))
    alike = len(search.groups)
    pictures = sum(len(group.records) for group in search.groups)
    parts.append(
        _heading(
            "Similar pictures",
            f"{counted(pictures, '{:,} picture[|s]')} in {counted(alike, '{:,} group[|s]')}" if alike else "none",
        )
    )
    for group, cards in zip(search.groups, planned_alike, strict=False):
        text = f"{counted(len(group.records), '{:,} picture[|s]')}{_mixed(group.splits)}"
        parts.append(_group(text, plan.cards(cards)))
    parts.append(_more(alike))
    parts.append(note(*_how(search, of, max_bits)))
    return Section("copies", "Duplicates", joined(parts))


def _how(search: Search, of: int, max_bits: int) -> Iterator[str]:
    yield (
        f"Equal files are found by their sha256, among all pictures. {search.compared:,} of {of:,} different ones were "
        f"compared by two perceptual hashes, dHash and pHash (64 bits each, of which {max_bits} may differ)"
    )
    yield ", in random blocks of neighbours" if search.compared + search.flat + search.unread < of else ""
    left_out = [
        f"{n:,} {why}"
        for n, why in ((search.flat, "too flat"), (search.unread, "gone, changed or of a rare format"))
        if n
    ]
    yield f"; left out: {', '.join(left_out)}." if left_out else "."


def _heading(title: str, text: str) -> Html:
    return element("h3", f"{title}: {text}")


def _group(text: str, cards: Sequence[Card]) -> Html:
    return element("div", element("h4", text), gallery(cards), class_="group")


def _more(count: int) -> Html:
    return (
        note(counted(count - GROUPS_SHOWN, "{:,} more group[ is|s are] not shown."))
        if count > GROUPS_SHOWN
        else Html("")
    )


def _mixed(splits: frozenset[str]) -> str:
    """A copy on both sides of a split makes validation say too much."""
    named = sorted(s for s in splits if s)
    return f", in several splits ({', '.join(named)})" if len(named) > 1 else ""


def _names_of(image_ids: Sequence[str]) -> str:
    shown = ", ".join(i if len(i) <= 60 else f"…{i[-59:]}" for i in image_ids[:NAMES_SHOWN])
    return shown + (", …" if len(image_ids) > NAMES_SHOWN else "")


def _score_line(found: Found, score: str | None) -> str:
    return "" if score is None else f"{SCORE_TEXTS[score][0]} {number(found.value)}"
