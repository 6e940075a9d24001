"""An evaluation as text for the screen: short, aligned, every number with its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from autolabel.core.text import counted, printable
from autolabel.evaluate.coco import KEYS
from autolabel.evaluate.result import ClassRow, Evaluation

MOST_CLASSES = 20
"""Classes with a line of their own; the rest is in the file."""
MOST_CONFUSIONS = 5


def text(found: Evaluation) -> str:
    """The table of one run."""
    lines = [_what(found), *_coco(found), *_matched(found), *_errors(found), *_ranking(found)]
    lines += _sizes(found) + _classes(found) + _confusions(found)
    lines += [f"note       {printable(note)}" for note in found.notes]
    return "\n".join(lines) + "\n"


def beside(detector: Evaluation, oracle: Evaluation) -> str:
    """Two runs of the same pictures: with the detector's boxes, and with those of the ground truth."""
    head = ("", "with detector boxes", "with ground-truth boxes")
    rows = [head, *((name, _f(read(detector)), _f(read(oracle))) for name, read in _COMPARED)]
    lines = [f"           {a:<22}{b:>26}{c:>26}" for a, b, c in rows]
    if detector.images != oracle.images:
        lines.append(f"note       {detector.images} and {oracle.images} pictures: not the same ones")
    return "\n".join(lines) + "\n"


_COMPARED: tuple[tuple[str, Callable[[Evaluation], float | None]], ...] = (
    ("mask AP", lambda e: None if e.segm is None else e.segm["AP"]),
    ("mask AP50", lambda e: None if e.segm is None else e.segm["AP50"]),
    ("mask AP75", lambda e: None if e.segm is None else e.segm["AP75"]),
    ("box AP", lambda e: e.bbox["AP"]),
    ("recall", lambda e: e.all.recall),
    ("IoU, all ground truth", lambda e: e.mean_iou_of_truth),
    ("IoU, matched objects", lambda e: e.matched_alone.mean_iou),
    ("their boundary IoU", lambda e: e.matched_alone.boundary_iou),
    ("their boundary F", lambda e: e.matched_alone.boundary_f),
    ("panoptic quality", lambda e: None if e.panoptic is None else e.panoptic.overall.pq),
)


def _what(e: Evaluation) -> str:
    ignored = f", {e.ignored} ignored" if e.ignored else ""
    return (
        f"evaluated  {counted(e.images, '{} picture[|s]')}, {counted(e.all.truth, '{} ground-truth object[|s]')}{ignored}, "
        f"{e.all.found} found"
    )


def _coco(e: Evaluation) -> Iterator[str]:
    yield "COCO       " + "".join(f"{key:>7}" for key in KEYS)
    for name, values in (("mask", e.segm), ("box", e.bbox)):
        if values is not None:
            yield f"{name:<11}" + "".join(f"{_f(values[key]):>7}" for key in KEYS)


def _matched(e: Evaluation) -> Iterator[str]:
    row, m = e.all, e.matching
    kind = "mask" if m.measure == "segm" else "box"
    blind = "" if m.by_class else ", class-agnostic"
    if m.pairing == "annotation":
        yield f"matched    by annotation id (boxes come from the ground truth); failed objects count as IoU 0{blind}"
    else:
        yield f"matched    {row.matched} at {kind} IoU {m.iou:g} or more{blind}, greedily by {m.score} score"
    yield (
        f"           mean IoU {_f(row.mean_iou)}  median {_f(row.median_iou)}  "
        f"boundary IoU {_f(row.boundary_iou)}  boundary F {_f(row.boundary_f)}"
    )
    rows = [
        (m.iou, row.precision, row.recall, row.f1),
        *((t.iou, t.precision, t.recall, t.f1) for t in e.thresholds),
    ]
    for iou, precision, recall, f1 in rows:
        yield f"at {iou:<8.3g}precision {_f(precision)}  recall {_f(recall)}  F1 {_f(f1)}"
    if e.panoptic is not None:
        q = e.panoptic.overall
        yield f"panoptic   PQ {_f(q.pq)}  SQ {_f(q.sq)}  RQ {_f(q.rq)}"


def _errors(e: Evaluation) -> Iterator[str]:
    shown = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in e.errors.items())
    yield f"errors     {shown}"
    if e.separation is not None and e.separation.truth:
        s = e.separation
        yield (
            f"of {s.truth:<8}ground-truth objects: {s.no_box} without a matching box (detector), {s.poor_mask} with a box but a "
            f"poor mask (segmenter), {s.good} right; class-agnostic"
        )


def _ranking(e: Evaluation) -> Iterator[str]:
    for name, r in e.ranking.items():
        if r.spearman is None:
            continue  # a score that is the same everywhere ranks nothing
        yield (
            f"{name:<14} AURC {_f(r.aurc)} (best {_f(r.aurc_best)}, random {_f(r.aurc_random)})  "
            f"Spearman {_f(r.spearman)}  of {r.count}"
        )


def _sizes(e: Evaluation) -> list[str]:
    head = ["size", "truth", "found", "matched", "IoU", "prec", "recall", "b.IoU"]
    rows = [
        [name, str(s.truth), str(s.found), str(s.matched), *map(_f, (s.mean_iou, s.precision, s.recall, s.boundary_iou))]
        for name, s in e.per_size.items()
    ]  # fmt: skip
    return _table([head, *rows])


def _classes(e: Evaluation) -> list[str]:
    rows = sorted((c for c in e.per_class if c.truth or c.found), key=lambda c: (-c.truth, -c.found, c.name))
    head = ["class", "truth", "found", "matched", "AP", "AP50", "IoU", "prec", "recall", "F1", "b.IoU", "b.F"]
    lines = _table([head, *map(_class_cells, rows[:MOST_CLASSES])])
    if len(rows) > MOST_CLASSES:
        lines.append(counted(len(rows) - MOST_CLASSES, "... and {} more class[|es] in evaluation.json"))
    return lines


def _class_cells(c: ClassRow) -> list[str]:
    numbers = (c.AP, c.AP50, c.mean_iou, c.precision, c.recall, c.f1, c.boundary_iou, c.boundary_f)
    return [printable(c.name), str(c.truth), str(c.found), str(c.matched), *map(_f, numbers)]


def _confusions(e: Evaluation) -> list[str]:
    pairs = [(c.objects, c.truth, c.found) for c in e.confusion if c.truth and c.found and c.truth != c.found]
    worst = sorted(pairs, key=lambda p: (-p[0], p[1], p[2]))[:MOST_CONFUSIONS]
    shown = ", ".join(f"{n} {printable(t)} as {printable(f)}" for n, t, f in worst)
    return [f"confused   {shown}"] if shown else []


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned first column, right-aligned others."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    widths = [max(widths[0], 10), *(max(w, 6) for w in widths[1:])]
    return [
        " ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip


def _f(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
