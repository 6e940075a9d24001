"""The sections on what was labelled, in numbers: classes, sizes, scores, and what was dropped and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autolabel.core.text import counted
from autolabel.report.page import (
    Card,
    Child,
    Column,
    Html,
    Section,
    figure,
    figures,
    gallery,
    histogram_svg,
    joined,
    meter_svg,
    note,
    number,
    subsection,
    table,
    tiles,
)
from autolabel.report.tally import LARGE_PX, SIZE_EDGES, SMALL_PX, Scores, Tally

CLASSES_SHOWN = 500
_BINS = 20
_MOST_OBJECTS = 20

SCORE_TEXTS = {
    "quality": ("Quality", "expected IoU with the ground truth"),
    "predicted_iou": ("Predicted IoU", "the segmenter's own estimate for its mask"),
    "detector_score": ("Detector score", "the detector's confidence in its box"),
    "stability": ("Stability", "of the mask under a shifted threshold"),
    "object_score": ("Object score", "the segmenter's confidence that there is an object"),
    "agreement": ("Agreement", "IoU with the masks of other prompts, or of the mirrored picture"),
}
"""A title and what it means."""


def score_name(score: str) -> str:
    """Within a sentence: `predicted IoU`."""
    title = SCORE_TEXTS[score][0]
    return title[:1].lower() + title[1:]


def key_figures(tally: Tally, pending: int) -> Html:
    """What a reader wants first."""
    labelled = tally.status["ok"] + tally.status["empty"]
    failed = tally.status["failed"] + tally.status["skipped"]
    rest = [f"{n:,} {what}" for n, what in ((failed, "failed or skipped"), (pending, "to do")) if n]
    dropped = sum(tally.dropped.values())
    figures_: list[tuple[str, Child, str]] = [
        ("Pictures", number(tally.images + pending), ", ".join(rest) or "all labelled"),
        ("Objects", number(tally.kept), f"{tally.kept / labelled:.1f} a picture" if labelled else ""),
        ("Classes", number(sum(c.kept > 0 for c in tally.classes.values())), "with an object"),
        (
            "Dropped",
            number(dropped),
            f"{dropped / (dropped + tally.kept):.1%} of what was found" if dropped else "",
        ),
    ]
    ranked = tally.ranked_by
    if ranked is not None:
        scores = tally.scores[ranked]
        tenth = scores.quantile(0.1)
        figures_.append((f"Mean {score_name(ranked)}", scores.mean, f"lowest tenth below {number(tenth, 2)}"))
    return tiles(figures_)


def classes_section(tally: Tally, names: Mapping[int, str]) -> Section:
    """Every class that was found, the most frequent first."""
    found = sorted(tally.classes.items(), key=lambda item: (-item[1].kept, -item[1].dropped, item[0]))
    scores = [s for s in SCORE_TEXTS if tally.scores[s].says_something and s != "object_score"]
    columns = [
        Column("Class", "wide"),
        Column("Objects", "number"),
        Column("Share", "wide"),
        Column("Pictures", "number"),
        Column("Dropped", "number"),
        Column("Mean area, px", "number", 0),
        *[Column(f"Mean {score_name(s)}", "number") for s in scores[:3]],
    ]
    rows: list[list[Child]] = []
    for category_id, one in found[:CLASSES_SHOWN]:
        share = one.kept / tally.kept if tally.kept else 0.0
        rows.append(
            [
                names.get(category_id, f"class {category_id}"),
                one.kept,
                meter_svg(share, f"{share:.1%}"),
                one.pictures,
                one.dropped,
                one.area_px / one.kept if one.kept else None,
                *[one.mean(s) for s in scores[:3]],
            ]
        )
    parts = [table(columns, rows) if rows else note("Nothing was found.")]
    if len(found) > CLASSES_SHOWN:
        parts.append(note(counted(len(found) - CLASSES_SHOWN, "{:,} more class[ is|es are] not listed.")))
    unused = sorted(name for i, name in names.items() if i not in tally.classes)
    if unused:
        some = ", ".join(name[:60] for name in unused[:30]) + (", …" if len(unused) > 30 else "")
        parts.append(note(f"{counted(len(unused), '{:,} class[|es]')} without any object: {some}"))
    return Section("classes", "Classes", joined(parts))


def sizes_section(tally: Tally) -> Section:
    """How large objects are, and how many there are in a picture."""
    sides = histogram_svg(
        tally.sizes,
        SIZE_EDGES,
        label="Objects by the square root of their area",
        x_label="side of a square of the same area, px (log scale)",
        ticks=[(i, f"{edge:g}") for i, edge in enumerate(SIZE_EDGES) if i % 4 == 0],
    )
    counts, edges = _objects_per_picture(tally)
    crowd = histogram_svg(counts, edges, label="Pictures by number of objects", x_label="objects in a picture",
                          ticks=_count_ticks(len(counts)))  # fmt: skip
    shares = ", ".join(f"{tally.by_size[name]:,} {name}" for name in ("small", "medium", "large"))
    limits = f"COCO's limits: {int(SMALL_PX**0.5)}² and {int(LARGE_PX**0.5)}² px."
    body = figures(
        [
            figure(sides, "Object size", f"{shares}. {limits}"),
            figure(crowd, "Objects in a picture", counted(sum(counts), "of {:,} labelled picture[|s]")),
        ]
    )
    return Section("sizes", "Sizes", body)


def scores_section(tally: Tally) -> Section:
    """A histogram for each score that there is."""
    charts = [
        _score_figure(*SCORE_TEXTS[name], scores) for name, scores in tally.scores.items() if scores.says_something
    ]
    if tally.replaced.count:
        charts.append(_score_figure("Replaced masks", "IoU with the mask of the source", tally.replaced))
    body = figures(charts) if charts else note("No object has a score.")
    return Section("scores", "Scores", body, lead="Of the objects that were kept.")


def drops_section(tally: Tally, examples: Mapping[str, Sequence[Card]]) -> Section:
    """What was found and not kept: counts, and some of each reason by lot."""
    total = sum(tally.dropped.values())
    if not total:
        return Section("dropped", "Dropped", note("Everything that was found was kept."))
    rows: list[list[Child]] = [
        [reason, n, meter_svg(n / total, f"{n / total:.1%}")] for reason, n in tally.dropped.most_common(100)
    ]
    columns = [Column("Reason"), Column("Objects", "number"), Column("Share", "wide")]
    parts = [table(columns, rows)]
    parts += [subsection(reason, gallery(cards)) for reason, cards in examples.items() if cards]
    lead = counted(
        total,
        "{:,} of {:,} objects that were found [is|are] not in the labels. Random examples; the box shown is the prompt.",
        total + tally.kept,
    )
    return Section("dropped", "Dropped", joined(parts), lead=lead)


def score_summary(scores: Scores) -> str:
    return (
        f"{counted(scores.count, '{:,} object[|s]')}, mean {number(scores.mean)}, median {number(scores.quantile(0.5))}, "
        f"lowest tenth below {number(scores.quantile(0.1))}"
    )


def score_chart(scores: Scores, label: str) -> Html:
    edges = [i / _BINS for i in range(_BINS + 1)]
    return histogram_svg(scores.bins(_BINS), edges, label=label)


def _score_figure(title: str, meaning: str, scores: Scores) -> Html:
    chart = score_chart(scores, f"{title}: {meaning}")
    return figure(chart, title, f"{meaning[:1].upper()}{meaning[1:]}. {score_summary(scores)}.")


def _objects_per_picture(tally: Tally) -> tuple[list[int], list[float]]:
    """From none on; the last bin holds all pictures with more."""
    most = min(max(tally.objects_per_picture, default=0), _MOST_OBJECTS)
    counts = [tally.objects_per_picture[i] for i in range(most)]
    counts.append(sum(n for i, n in tally.objects_per_picture.items() if i >= most))
    return counts, [float(i) for i in range(len(counts) + 1)]


def _count_ticks(bins: int) -> list[tuple[float, str]]:
    every = 1 if bins <= 12 else 5
    last = bins - 1
    return [(i + 0.5, f"{i}+" if i == last == _MOST_OBJECTS else str(i)) for i in range(0, bins, every)]
