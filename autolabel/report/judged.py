"""The sections on how good the labels are against ground truth, from what `autolabel evaluate` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autolabel.core.text import counted
from autolabel.ops.evaluation_file import Document
from autolabel.report.evaluation import Error, Evaluated
from autolabel.report.labels import SCORE_TEXTS, score_name
from autolabel.report.page import (
    Bin,
    Card,
    Child,
    Column,
    Html,
    Section,
    calibration_svg,
    columns_of,
    element,
    figure,
    figures,
    gallery,
    joined,
    meter_svg,
    note,
    number,
    subsection,
    table,
    tiles,
)

AP_TEXTS = {
    "AP": "mean of IoU 0.50 to 0.95", "AP50": "IoU 0.50", "AP75": "IoU 0.75", "APs": "small objects",
    "APm": "medium objects", "APl": "large objects", "AR1": "recall, 1 object a picture", "AR10": "recall, 10",
    "AR100": "recall, 100", "ARs": "recall, small", "ARm": "recall, medium", "ARl": "recall, large",
}  # fmt: skip
ERROR_TEXTS = {
    "missed": "ground-truth objects that were not found",
    "false": "found where there is no object",
    "wrong_class": "the right object, with another class",
    "poor_mask": "the right object, with a mask below the IoU threshold",
    "duplicate": "a second match for an object that is already matched",
}
CLASSES_SHOWN = 500
CONFUSIONS_SHOWN = 15


def evaluation_section(found: Evaluated, errors: Mapping[str, Sequence[Card]]) -> Section:
    """Figures, tables, errors with examples, and how well the scores predict the IoU."""
    if found.problem:
        return Section("evaluation", "Evaluation", note(found.problem))
    e = found.document
    parts = [
        _key_figures(e),
        element(
            "div",
            subsection("Average precision", _coco(e)),
            subsection("Matched objects", columns_of(_matching(e))),
            class_="split part",
        ),
        subsection(
            "Errors", _errors(e), *[_error_gallery(kind, cards) for kind, cards in errors.items() if cards]
        ),
        subsection("By size", _sizes(e)),
        subsection("By class", _classes(e)),
        _confusions(e),
        _panoptic(e),
        _ranking(e),
        *[note(text) for text in e.texts("notes")[:20]],
    ]
    lead = f"Against {e.text('truth') or 'ground truth'}; {counted(e.whole('images') or 0, '{:,} picture[|s]')} evaluated."
    return Section("evaluation", "Evaluation", joined(parts), lead=lead)


def error_line(error: Error) -> str:
    """What is wrong with an object, in one line."""
    if error.kind == "wrong_class":
        return f"found {error.class_found}, is {error.class_truth}, IoU {number(error.iou)}"
    return f"IoU {number(error.iou)}"


def headline(found: Evaluated) -> Mapping[str, float | None]:
    """For the page's numbers."""
    e = found.document
    return {
        "mask_AP": e.at("segm").number("AP"),
        "box_AP": e.at("bbox").number("AP"),
        "mean_iou": e.at("matched").number("mean_iou"),
        "boundary_iou": e.at("matched").number("boundary_iou"),
        "panoptic_quality": e.at("panoptic").number("pq"),
    }


def _key_figures(e: Document) -> Html:
    matched, objects = e.at("matched"), e.at("objects")
    return tiles(
        [
            ("Mask AP", number(e.at("segm").number("AP")), f"AP50 {number(e.at('segm').number('AP50'))}"),
            ("Box AP", number(e.at("bbox").number("AP")), f"AP50 {number(e.at('bbox').number('AP50'))}"),
            ("Mean IoU", number(matched.number("mean_iou")), "of matched objects"),
            ("Boundary IoU", number(matched.number("boundary_iou")), "of matched objects"),
            ("Precision", number(matched.number("precision")), f"{number(objects.whole('found'))} found"),
            ("Recall", number(matched.number("recall")), f"{number(objects.whole('truth'))} in the ground truth"),
        ]
    )


def _coco(e: Document) -> Html:
    rows: list[list[Child]] = [
        [key, text, e.at("segm").number(key), e.at("bbox").number(key)] for key, text in AP_TEXTS.items()
    ]
    columns = [Column("COCO"), Column("Meaning", "wide"), Column("Masks", "number"), Column("Boxes", "number")]
    return table(columns, rows)


def _matching(e: Document) -> list[tuple[str, str]]:
    matched, objects, how = e.at("matched"), e.at("objects"), e.at("matching")
    classes = "of one class" if how.fields.get("by_class") is True else "of any class"
    return [
        ("Counts", f"{number(objects.whole('matched'))} of {number(objects.whole('truth'))} ground-truth objects, "
                   f"{number(objects.whole('found'))} found"),
        ("Matched", f"{classes}, at an IoU of {number(how.number('iou'), 2)} or more, by {how.text('score') or 'score'}"),
        ("Mean IoU", number(matched.number("mean_iou"))),
        ("Median IoU", number(matched.number("median_iou"))),
        ("F1", number(matched.number("f1"))),
        ("Boundary IoU", number(matched.number("boundary_iou"))),
        ("Boundary F", number(matched.number("boundary_f"))),
    ]  # fmt: skip


def _errors(e: Document) -> Html:
    counts = {kind: e.at("errors").whole(kind) or 0 for kind in ERROR_TEXTS}
    most = max(counts.values()) or 1
    rows: list[list[Child]] = [
        [kind.replace("_", " "), text, counts[kind], meter_svg(counts[kind] / most, f"{counts[kind]:,}")]
        for kind, text in ERROR_TEXTS.items()
    ]
    return table(
        [Column("Kind"), Column("Meaning", "wide"), Column("Objects", "number"), Column("", "wide")], rows
    )


def _error_gallery(kind: str, cards: Sequence[Card]) -> Html:
    title = f"{kind.replace('_', ' ').capitalize()}, random examples"
    return subsection(title, gallery(cards))


def _sizes(e: Document) -> Html:
    keys = ("mean_iou", "precision", "recall", "boundary_iou")
    rows: list[list[Child]] = [
        [name, row.whole("truth"), row.whole("found"), row.whole("matched"), *[row.number(k) for k in keys]]
        for name, row in e.at("per_size").items()
    ]
    heads = ("Ground truth", "Found", "Matched", "Mean IoU", "Precision", "Recall", "Boundary IoU")
    return table([Column("Size"), *[Column(head, "number") for head in heads]], rows)


def _classes(e: Document) -> Html:
    keys = ("AP", "AP50", "mean_iou", "precision", "recall", "f1", "boundary_iou")
    rows: list[list[Child]] = [
        [row.text("name"), row.whole("truth"), row.whole("found"), *[row.number(k) for k in keys]]
        for row in e.rows("per_class")
    ]
    heads = ("Ground truth", "Found", "AP", "AP50", "Mean IoU", "Precision", "Recall", "F1", "Boundary IoU")
    rows.sort(key=lambda row: -(row[1] or 0) if isinstance(row[1], int) else 0)
    shown = table([Column("Class", "wide"), *[Column(head, "number") for head in heads]], rows[:CLASSES_SHOWN])
    left_out = len(rows) - CLASSES_SHOWN
    if left_out <= 0:
        return shown
    said = counted(
        left_out, "{} class[|es] with no more ground-truth objects than the last one [is|are] left out here."
    )
    return joined([shown, note(said)])


def _confusions(e: Document) -> Html:
    """The pairs that are mixed up most; a matrix of many classes cannot be read. What has one class alone is missed
    or false, and stands among the errors."""
    if e.rows("per_class") and not isinstance(e.fields.get("confusion"), list):
        return note(
            "Which classes are mixed up is not read from an evaluation of an earlier autolabel: evaluate again."
        )
    pairs: list[tuple[int, str, str]] = []
    for row in e.rows("confusion"):
        count, truth, found = row.whole("objects") or 0, row.text("truth"), row.text("found")
        if count > 0 and truth and found and truth != found:
            pairs.append((count, truth, found))
    if not pairs:
        return Html("")
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows: list[list[Child]] = [[truth, found, count] for count, truth, found in pairs[:CONFUSIONS_SHOWN]]
    columns = [Column("Ground-truth class", "wide"), Column("Found as", "wide"), Column("Objects", "number")]
    return subsection("Confusions", table(columns, rows))


def _panoptic(e: Document) -> Html:
    quality = e.at("panoptic")
    if quality.number("pq") is None:
        return Html("")
    names = {"pq": "Panoptic quality", "sq": "Segmentation quality", "rq": "Recognition quality"}
    return subsection("Panoptic", columns_of((text, number(quality.number(key))) for key, text in names.items()))


def _ranking(e: Document) -> Html:
    charts = []
    for name, score in e.at("ranking").items():
        title, meaning = SCORE_TEXTS.get(name, (name, "a score"))
        bins = [
            Bin(expected, mean_iou, row.whole("count") or 0)
            for row in score.rows("bins")
            if (expected := row.number("mean_score")) is not None
            and (mean_iou := row.number("mean_iou")) is not None
        ]
        text = (
            f"Area under the risk-coverage curve {number(score.number('aurc'), 4)} (lower is better), "
            f"rank correlation {number(score.number('spearman'))}."
        )
        label = f"{title}: {meaning}, against the measured IoU"
        charts.append(
            figure(
                calibration_svg(
                    bins,
                    label=label,
                    x_label=score_name(name) if name in SCORE_TEXTS else name,
                    y_label="measured IoU",
                ),
                title,
                text,
            )
        )
    if not charts:
        return Html("")
    lead = note(
        "Does a score predict the IoU with the ground truth? On the dashed line it does so exactly; larger dots stand for more objects."
    )
    return subsection("Calibration", lead, figures(charts))
