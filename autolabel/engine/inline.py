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
            for refs in batches(unit.refs, labeler.batch_size):
                records.extend(labeler.find([labeler.load(ref) for ref in refs])())
            sink.commit(unit, records)
