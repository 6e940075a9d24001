"""Two runs object by object: every difference as a line of a file, counts and the strongest ones for the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from autolabel.core.types import ImageRecord, Instance
from autolabel.evaluate.counterparts import Named, counterparts
from autolabel.evaluate.differences import (
    KINDS,
    Compared,
    Difference,
    DifferenceTally,
    Meeting,
    Rules,
    compare_pictures,
    compare_runs,
)
from autolabel.report.compare import Changed, Changes
from autolabel.store.run import RunReader

IDS_SHOWN = 50
"""Pictures that were not compared: ids on the page, for each reason."""
ELSEWHERE: dict[Meeting, str] = {
    "only_before": "only in {before}",
    "only_after": "only in {after}",
    "other_picture": "different files under the same image id",
    "other_status": "labelled in only one of the runs",
}


class Counting:
    """The comparison of two runs while its lines are written; afterwards `changes` has the counts, and `renamed`
    says how many pictures have other image ids in the two."""

    def __init__(self, before: RunReader, after: RunReader, by: Rules, *, examples: int) -> None:
        self._readers = before, after
        self._by = by
        self._tally = DifferenceTally(by, examples)
        self._elsewhere: dict[Meeting, list[str]] = {}
        self.renamed = 0

    def lines(self) -> Iterator[bytes]:
        """JSON lines: one for each object that differs and each picture that was not compared, by image id; then the
        same of pictures whose image id is in one run alone."""
        before, after = self._readers
        ours: list[Named] = []
        theirs: list[Named] = []
        for picture in compare_runs(before.records_by_id(), after.records_by_id(), self._by):
            if picture.before is None or picture.after is None:
                # The id and the digest alone: the records of a whole run may wait here.
                record = picture.record
                (theirs if picture.before is None else ours).append(
                    Named(record.image_id, record.info.sha256 if record.info else "")
                )
            else:
                yield from self._counted(picture)
        pairs = dict(counterparts(ours, theirs))
        self.renamed = len(pairs)
        for one in ours:
            other = pairs.get(one.image_id)
            yield from self._met(before.record(one.image_id), None if other is None else after.record(other))
        met = set(pairs.values())
        for left in theirs:
            if left.image_id not in met:
                yield from self._met(None, after.record(left.image_id))

    def _met(self, before: ImageRecord | None, after: ImageRecord | None) -> Iterator[bytes]:
        return self._counted(compare_pictures(before, after, self._by))

    def _counted(self, picture: Compared) -> Iterator[bytes]:
        self._tally.add(picture)
        if picture.meeting != "compared":
            ids = self._elsewhere.setdefault(picture.meeting, [])
            if len(ids) < IDS_SHOWN:
                ids.append(picture.record.image_id)
            yield _line(_picture_row(picture))
        for one in picture.differences:
            yield _line(_object_row(picture, one, self._by))

    def changes(self, names: Sequence[str]) -> Changes:
        before, after = names
        tally, by = self._tally, self._by
        return Changes(
            before=before,
            after=after,
            match_iou=by.match_iou,
            moved_iou=by.moved_iou,
            compared=tally.meetings["compared"],
            identical=tally.identical,
            close=tally.close,
            counts={kind: tally.kinds[kind] for kind in KINDS},
            classes={
                name: {kind: counts[kind] for kind in KINDS} for name, counts in sorted(tally.classes.items())
            },
            renamed=[(one, other, count) for (one, other), count in tally.renamed.most_common()],
            examples={kind: [_changed(p, d, by) for p, d in tally.strongest(kind)] for kind in KINDS},
            elsewhere=[
                (what.format(before=before, after=after), tally.meetings[meeting], self._elsewhere[meeting])
                for meeting, what in ELSEWHERE.items()
                if tally.meetings[meeting]
            ],
        )


def _changed(picture: Compared, one: Difference, by: Rules) -> Changed:
    return Changed(
        record=picture.record,
        before=one.before,
        after=one.after,
        class_before=by.name(before=one.before),
        class_after=by.name(after=one.after),
        iou=one.iou,
        share=one.share,
        reason=one.reason,
    )


def _picture_row(picture: Compared) -> dict[str, Any]:
    status = [None if record is None else record.status for record in (picture.before, picture.after)]
    return {
        **_ids(picture),
        "kind": picture.meeting,
        "status_before": status[0],
        "status_after": status[1],
    }


def _object_row(picture: Compared, one: Difference, by: Rules) -> dict[str, Any]:
    return {
        **_ids(picture),
        "kind": one.kind,
        "index_before": _index(one.before),
        "index_after": _index(one.after),
        "class_before": by.name(before=one.before) or None,
        "class_after": by.name(after=one.after) or None,
        "iou": None if one.iou is None else round(one.iou, 6),
        "share": round(one.share, 6),
        "reason": one.reason or None,
    }


def _ids(picture: Compared) -> dict[str, str | None]:
    """The picture's, and what the second run calls it."""
    return {
        "image_id": picture.record.image_id,
        "image_id_after": None if picture.after is None else picture.after.image_id,
    }


def _index(one: Instance | None) -> int | None:
    return None if one is None else one.index


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"
