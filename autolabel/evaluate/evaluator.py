"""A run against ground truth: every picture once, every number of `evaluation.json`. Opens no picture, loads no model.

Pictures that failed or are not labelled yet are left out, and so are pictures without truth and classes that one
side does not know; each is said in `notes`. Memory grows by the masks' run lengths, never by dense masks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autolabel.core.errors import ConfigError, ImageError
from autolabel.core.protocols import RecordReader
from autolabel.core.text import counted
from autolabel.core.types import UNLABELLED, Category, ImageRecord, ImageRef, Labels, Problem
from autolabel.evaluate.boundary import BoundaryScores, boundary_scores
from autolabel.evaluate.classes import Classes, by_name, one_class
from autolabel.evaluate.coco import MOST_FOUND, CocoData, CocoScores
from autolabel.evaluate.counterparts import file_name
from autolabel.evaluate.join import Joined, join
from autolabel.evaluate.matching import Judgement, by_annotation, by_iou, by_prompt
from autolabel.evaluate.oracle import pairs_of
from autolabel.evaluate.panoptic import PanopticTally
from autolabel.evaluate.ranking import Ranking, ranking
from autolabel.evaluate.result import ClassRow, Confusion, Evaluation, Matching, Panoptic, SizeRow
from autolabel.evaluate.scene import SCORES, Measure, Scene, scene
from autolabel.evaluate.tally import SIZES, Tally
from autolabel.ops.settings import flag, number, one_of

RANKS = {"detector": "detector_score", "quality": "quality", "predicted_iou": "predicted_iou"}
PAIRINGS = ("auto", "iou")
PENDING = "[is|are] not labelled yet"
_SAID = {UNLABELLED: "had no labels to be taken"}


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth: `path` as it was given, a digest of its content, its classes and its pictures with labels."""

    path: str
    sha256: str
    categories: tuple[Category, ...]
    refs: tuple[ImageRef, ...]


Write = Callable[[str], object]
"""Takes the lines of `objects.jsonl`, without their ends."""


class Evaluator:
    """See configs/evaluate.yaml for the settings."""

    def __init__(
        self,
        *,
        iou: float,
        also_at: Sequence[float],
        score: str,
        box: str,
        classes: Mapping[str, str | None] | None,
        class_agnostic: bool,
        unknown: str,
        pairing: str,
    ) -> None:
        self._iou = number("iou", iou, 0, 1, above=True)
        if not isinstance(also_at, list | tuple):
            raise ConfigError(f"also_at must be a list of IoUs, got {also_at!r}")
        self._also_at = tuple(number("also_at", value, 0, 1, above=True) for value in also_at)
        self._score = one_of("score", score, tuple(RANKS))
        self._box = one_of("box", box, ("mask", "prompt"))
        self._renamed = _names("classes", classes)
        self._class_agnostic = flag("class_agnostic", class_agnostic)
        self._unknown = one_of("unknown", unknown, ("error", "ignore"))
        self._pairing = one_of("pairing", pairing, PAIRINGS)

    def evaluate(
        self,
        run: RecordReader,
        truth: Truth,
        *,
        on_labels: bool,
        pending: Collection[str] = (),
        write: Write | None = None,
    ) -> Evaluation:
        """`on_labels` says that the run's boxes are existing labels; where they are the truth's own, objects are
        paired by annotation. `pending` are image ids of the run that have no record yet. `write` takes
        `objects.jsonl` line by line.

        Raises ConfigError, SourceError and StoreError where run and truth do not fit together. Where no picture could
        be judged, the first of the notes says why.
        """
        listed = _Listed(run, pending)
        joined = join(listed.image_ids, truth.refs)
        used = {int(c) for ref in joined.refs.values() if ref.labels for c in ref.labels.category_ids}
        classes = self._classes(run.categories, truth.categories, used, rename_run=on_labels)
        self._check_scores(listed)
        paired = on_labels and self._pairing == "auto"
        asked, disagreement = _asked(run, joined, classes) if paired else (frozenset[int](), None)
        if self._class_agnostic and paired and disagreement is None:
            classes = _without_unasked(classes, truth.categories, run.categories, asked)
        measure: Measure = "segm" if _has_masks(joined, classes) else "bbox"
        pass_ = _Pass(
            self,
            classes=classes,
            names=({c.id: c.name for c in truth.categories}, {c.id: c.name for c in run.categories}),
            measure=measure,
            paired=paired and disagreement is None,
            write=write,
        )
        numbers = _image_numbers(joined)
        for record in run.records():
            if record.image_id in joined.refs:
                pass_.add(record, joined.refs[record.image_id], numbers[record.image_id])
        notes = [
            *pass_.unusable(joined),
            *listed.notes(joined, truth),
            *_class_notes(run.categories, truth.categories, classes, used, pass_),
        ]
        if disagreement is not None:
            notes.append(
                f"the run's boxes are labels, but not those of this ground truth: {disagreement}; matched by IoU"
            )
        return pass_.evaluation(truth, listed, joined, notes)

    def _classes(
        self, run: Sequence[Category], truth: Sequence[Category], used: set[int], *, rename_run: bool
    ) -> Classes:
        if self._class_agnostic:
            return one_class(run, truth)
        return by_name(run, truth, used=used, renamed=self._renamed, rename_run=rename_run, unknown=self._unknown)

    def _check_scores(self, listed: _Listed) -> None:
        if self._score != "detector" and listed.without[RANKS[self._score]]:
            raise ConfigError(
                f"score={self._score}: {listed.without[RANKS[self._score]]} of {listed.instances} objects of the "
                f"run have none; score=detector sorts by the detector's score"
            )


def _why(record: ImageRecord) -> str:
    """What a picture did that is not judged."""
    return _SAID.get(record.code, "[was|were] skipped ({})") if record.status == "skipped" else record.status


class _Listed:
    """What a first look at the run says: its pictures, and which scores are there."""

    def __init__(self, run: RecordReader, pending: Collection[str]) -> None:
        self.image_ids: list[str] = []
        self.left_out: dict[tuple[str, str], list[str]] = {(PENDING, ""): list(pending)} if pending else {}
        self.without: Counter[str] = Counter()
        self.instances = 0
        self.own = 0
        for record in run.records():
            if record.status not in ("ok", "empty") or record.info is None:
                self.left_out.setdefault((_why(record), record.code), []).append(record.image_id)
                continue
            self.image_ids.append(record.image_id)
            for one in (i for i in record.instances if not i.crowd):
                self.instances += 1
                self.own += one.origin == "label"
                self.without.update(name for name in SCORES if getattr(one, name) is None)

    def notes(self, joined: Joined, truth: Truth) -> list[str]:
        notes = [
            counted(len(ids), f"{{}} picture[|s] of the run {why} and [is|are] not counted", code)
            for (why, code), ids in self.left_out.items()
        ]
        if joined.by_name:
            notes.append("pictures are matched by file name: the image ids of run and ground truth differ")
        if joined.absent:
            notes.append(
                counted(
                    joined.absent, "{} picture[|s] of the run [is|are] not in the ground truth and not counted"
                )
            )
        if joined.unlabelled:
            notes.append(
                counted(
                    joined.unlabelled,
                    "{} picture[|s] of the run [has|have] no labels in the ground truth, not even an empty label file, "
                    "and [is|are] not counted",
                )
            )
        unused = joined.unused - self._left_out_of(joined, truth)
        if unused:
            notes.append(
                counted(unused, "{} picture[|s] of the ground truth [is|are] not in the run and not counted")
            )
        if self.own:
            notes.append(
                counted(
                    self.own,
                    "{} of {} masks [is|are] the source's own; label with detect.keep_masks=false to segment those "
                    "objects again",
                    self.instances,
                )
            )
        return notes

    def _left_out_of(self, joined: Joined, truth: Truth) -> int:
        """Pictures with truth that are in the run, but failed or are not labelled yet."""
        name = file_name if joined.by_name else str
        left_out = {name(image_id) for ids in self.left_out.values() for image_id in ids}
        labelled = (ref for ref in truth.refs if ref.problem is None and ref.labels is not None)
        return sum(name(ref.image_id) in left_out for ref in labelled)


class _Pass:
    """The way through the pictures: each becomes a scene, and every measure takes its share of it."""

    def __init__(
        self,
        settings: Evaluator,
        *,
        classes: Classes,
        names: tuple[dict[int, str], dict[int, str]],
        measure: Measure,
        paired: bool,
        write: Write | None,
    ) -> None:
        self._settings = settings
        self._classes, self._names, self._measure, self._paired = classes, names, measure, paired
        self._write = write
        n = len(classes.names)
        self._tally = Tally(thresholds=settings._also_at, iou=settings._iou, failures_count=paired)
        self._coco, self._panoptic = CocoData(classes.names), PanopticTally(n)
        self._scored: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SCORES}
        self._ranks: set[float] = set()
        self.broken: list[Problem] = []
        self.images = 0
        self.foreign: Counter[int] = Counter()
        self.maskless = 0
        self.half_masked: list[str] = []

    def add(self, record: ImageRecord, ref: ImageRef, number: int) -> None:
        assert record.info is not None
        assert ref.labels is not None
        try:
            one = scene(
                record,
                record.info,
                ref.labels,
                classes=self._classes,
                truth_names=self._names[0],
                run_names=self._names[1],
                measure=self._measure,
                score=RANKS[self._settings._score],
                box=self._settings._box,
            )
        except ImageError as error:
            self.broken.append(Problem(error.code, f"{record.image_id}: {error.detail}"))
            return
        self.images += 1
        self.foreign.update(
            i.category_id for i in record.instances if i.category_id not in self._classes.run and not i.crowd
        )
        if self._measure == "segm":
            maskless = sum(
                shape is None and not crowd
                for shape, crowd in zip(ref.labels.shapes, ref.labels.crowd, strict=True)
            )
            self.maskless += maskless
            self.half_masked += [record.image_id] * (maskless > 0)
        pairs = pairs_of(record, ref.labels, self._classes).kept(one) if self._paired else None
        judgements = (
            by_iou(one, self._settings._iou) if pairs is None else by_annotation(one, pairs, self._settings._iou)
        )
        boundaries = self._boundaries(one, judgements)
        self._tally.add(one, judgements, boundaries, masks=self._measure == "segm")
        self._coco.add(one, number)
        self._ranks.update(f.rank for f in one.found[:2])
        if self._measure == "segm":
            self._panoptic.add(one)
            self._rank(one, by_prompt(one, self._settings._iou) if pairs is None else pairs)
        if self._write is not None:
            for position, judgement in enumerate(judgements):
                self._write(_line(one, judgement, boundaries.get(position)))

    def _boundaries(self, one: Scene, judgements: Sequence[Judgement]) -> dict[int, BoundaryScores]:
        if self._measure == "bbox":
            return {}
        found = {}
        for position, judgement in enumerate(judgements):
            if judgement.found is not None and judgement.truth is not None and judgement.kind != "duplicate":
                a, b = one.found[judgement.found].mask, one.truth[judgement.truth].mask
                assert a is not None
                assert b is not None
                found[position] = boundary_scores(a, b)
        return found

    def _rank(self, one: Scene, pairs: Mapping[int, int]) -> None:
        for i, t in pairs.items():
            for name, value in zip(SCORES, one.found[i].scores, strict=True):
                if value is not None and not one.truth[t].ignored:
                    self._scored[name][0].append(min(max(value, 0.0), 1.0))
                    self._scored[name][1].append(float(one.ious[i, t]))

    def evaluation(self, truth: Truth, listed: _Listed, joined: Joined, notes: list[str]) -> Evaluation:
        settings, masks = self._settings, self._measure == "segm"
        coco = {m: self._coco.scores(m) for m in (("segm", "bbox") if masks else ("bbox",))}
        return Evaluation(
            truth=truth.path,
            truth_sha256=truth.sha256,
            matching=Matching(
                iou=settings._iou,
                by_class=not settings._class_agnostic,
                score=settings._score,
                measure=self._measure,
                pairing="annotation" if self._paired else "iou",
            ),
            images=self.images,
            images_without_truth=len(listed.image_ids) - len(joined.refs),
            ignored=self._tally.ignored,
            absorbed=self._tally.absorbed,
            all=self._tally.overall(),
            matched_alone=self._tally.matched_alone(),
            mean_iou_of_truth=self._tally.mean_iou_of_truth,
            segm=coco["segm"].lines if masks else None,
            bbox=coco["bbox"].lines,
            thresholds=self._tally.thresholds(),
            per_class=self._per_class(coco[self._measure]),
            per_size={name: SizeRow.of(self._tally.of_size(k)) for k, name in enumerate(SIZES)},
            confusion=self._confusion(),
            errors=dict(self._tally.errors),
            panoptic=Panoptic.of(self._classes.names, self._panoptic) if masks else None,
            ranking=self._rankings(),
            separation=self._tally.separation if masks and not self._paired else None,
            notes=(*notes, *self._notes()),
            half_masked=frozenset(self.half_masked),
        )

    def _per_class(self, coco: CocoScores) -> tuple[ClassRow, ...]:
        return tuple(
            ClassRow.of(name, self._tally.of_class(k), *coco.per_class[k])
            for k, name in enumerate(self._classes.names)
        )

    def _confusion(self) -> tuple[Confusion, ...]:
        names = (*self._classes.names, None)
        last = len(self._classes.names)
        counts = {
            (last if t is None else t, last if f is None else f): n for (t, f), n in self._tally.confusion.items()
        }
        return tuple(Confusion(names[t], names[f], n) for (t, f), n in sorted(counts.items()))

    def _rankings(self) -> dict[str, Ranking]:
        return {name: ranking(scores, ious) for name, (scores, ious) in self._scored.items() if scores}

    def unusable(self, joined: Joined) -> Iterator[str]:
        broken = [*joined.broken, *self.broken]
        if broken:
            yield counted(
                len(broken), "the ground truth of {} picture[|s] cannot be used, the first: {}", broken[0].detail
            )

    def _notes(self) -> Iterator[str]:
        if self._measure == "bbox" and self.images:
            yield "the ground truth has boxes and no masks: only boxes are evaluated"
        if self.maskless:
            yield counted(
                self.maskless,
                "{} ground-truth object[ has|s have] a box and no mask: [it counts as an ignored region|they count as "
                "ignored regions]",
            )
        if self._tally.absorbed:
            yield counted(
                self._tally.absorbed,
                "{} found object[ lies in an ignored region and is|s lie in ignored regions and are] not evaluated",
            )
        if len(self._ranks) == 1 and self._tally.overall().found > 1:
            others = " or ".join(f"score={name}" for name in RANKS if name != self._settings._score)
            same = RANKS[self._settings._score].replace("_", " ")
            yield f"all objects have the same {same}, so AP has nothing to rank; use {others}"
        if self._coco.most_found > MOST_FOUND:
            yield f"a picture has {self._coco.most_found} objects of a class; AP counts the first {MOST_FOUND}"


def _line(one: Scene, judgement: Judgement, boundary: BoundaryScores | None) -> str:
    found = None if judgement.found is None else one.found[judgement.found]
    truth = None if judgement.truth is None else one.truth[judgement.truth]
    scores = dict(zip(SCORES, found.scores, strict=True)) if found else dict.fromkeys(SCORES)
    return json.dumps(
        {
            "image_id": one.image_id,
            "kind": judgement.kind,
            "index": found.index if found else None,
            "truth_index": truth.index if truth else None,
            "class_found": found.class_name if found else None,
            "class_truth": truth.class_name if truth else None,
            "iou": judgement.iou,
            "boundary_iou": boundary.iou if boundary else None,
            "detector_score": scores["detector_score"],
            "predicted_iou": scores["predicted_iou"],
            "quality": scores["quality"],
        },
        allow_nan=False,
    )


def _class_notes(
    run: Sequence[Category], truth: Sequence[Category], classes: Classes, used: set[int], pass_: _Pass
) -> Iterator[str]:
    left_out = sorted(c.name for c in truth if c.id in used and c.id not in classes.truth)
    if left_out:
        yield f"classes of the ground truth that are left out: {', '.join(left_out)}"
    names = {c.id: c.name for c in run}
    foreign = ", ".join(f"{n} {names[id_]}" for id_, n in pass_.foreign.most_common(8))
    if foreign:
        more = " and others" if len(pass_.foreign) > 8 else ""
        yield f"found objects of classes that the ground truth does not have are not evaluated: {foreign}{more}"


def _has_masks(joined: Joined, classes: Classes) -> bool:
    def masks(labels: Labels) -> bool:
        return any(
            shape is not None and int(category) in classes.truth and not crowd
            for shape, category, crowd in zip(labels.shapes, labels.category_ids, labels.crowd, strict=True)
        )

    rows = [ref.labels for ref in joined.refs.values() if ref.labels]
    # Where the truth has no object at all, found masks are compared with nothing, as masks.
    return any(masks(labels) for labels in rows) or not any(len(labels) for labels in rows)


def _asked(run: RecordReader, joined: Joined, classes: Classes) -> tuple[Collection[int], str | None]:
    """Category ids of the annotations that the run's candidates are; and why a candidate is none, where one is not."""
    asked: set[int] = set()
    for record in run.records():
        ref = joined.refs.get(record.image_id)
        if ref is not None and ref.labels is not None and record.info is not None:
            try:
                pairs = pairs_of(record, ref.labels, classes)
            except ImageError:
                continue  # said where the picture is judged
            if pairs.problem is not None:
                return asked, f"{record.image_id}: {pairs.problem}"
            asked.update(int(ref.labels.category_ids[row]) for row in pairs.rows.values())
    return asked, None


def _without_unasked(
    classes: Classes, truth: Sequence[Category], run: Sequence[Category], asked: Collection[int]
) -> Classes:
    """Without classes of the truth that `labels` left out: the run has no such name and none of their annotations."""
    known = {c.name for c in run}
    left_out = {c.id for c in truth if c.name not in known and c.id not in asked}
    return replace(classes, truth={id_: n for id_, n in classes.truth.items() if id_ not in left_out})


def _image_numbers(joined: Joined) -> dict[str, int]:
    """Those of the truth, which decide the order among equal scores in pycocotools; else by position."""
    own = {image_id: ref.source_id for image_id, ref in joined.refs.items()}
    if len(set(own.values())) == len(own) and None not in own.values():
        return {image_id: number for image_id, number in own.items() if number is not None}
    return {image_id: number for number, image_id in enumerate(own, 1)}


def _names(key: str, value: Mapping[str, str | None] | None) -> dict[str, str | None]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(v is None or isinstance(v, str) for v in value.values()):
        raise ConfigError(f"{key} must map names of the ground truth to names of the run, got {value!r}")
    return {str(name): ours for name, ours in value.items()}
