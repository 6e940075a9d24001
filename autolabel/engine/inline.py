"""One thread, one batch at a time: the reference every other engine must equal."""

from __future__ import annotations

from collections.abc import Iterable

from autolabel.core.protocols import Labeler, RecordSink, Unit
from autolabel.engine.units import batches


class InlineEngine:
    """Everything in the calling thread."""

    def __init__(self) -> None:
        pass

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        for unit in units:
            records = []
            for some in batches(map(labeler.load, unit.refs), labeler.batch_limit):
                records.extend(labeler.find(some)())
            sink.commit(unit, records)
