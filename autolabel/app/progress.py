"""The progress bar, and the sink that moves it. Decides nothing about what is labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autolabel.core.protocols import Unit
from autolabel.core.text import counted
from autolabel.core.types import ImageRecord, Status
from autolabel.engine.stage_times import StageTimes
from autolabel.store.run import RunStore


class CountedSink:
    """A RecordSink that tells the progress bar, also which stage is the slowest. `done` counts records by status."""

    def __init__(self, store: RunStore, progress: Progress, times: StageTimes) -> None:
        self._store = store
        self._progress = progress
        self._times = times
        self.done: Counter[Status] = Counter()

    def commit(self, unit: Unit, records: Sequence[ImageRecord]) -> None:
        with self._times.of("commit"):
            self._store.commit(unit, records)
        self.done.update(record.status for record in records)
        self._progress.add(records, self._times.slowest())


class Progress:
    """The one progress bar, with an ETA; silent where nobody looks."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total, unit="img", desc="label", disable=None if total else True, dynamic_ncols=True
        )
        self._objects = 0
        self._failed = 0

    def add(self, records: Sequence[ImageRecord], slowest: str | None) -> None:
        self._objects += sum(r.num_kept for r in records)
        self._failed += sum(r.status == "failed" for r in records)
        self._bar.set_postfix_str(
            counted(self._objects, "{} object[|s], {} failed, slowest: {}", self._failed, slowest), refresh=False
        )
        self._bar.update(len(records))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
