"""The progress bar, and the sink that moves it. Decides nothing about what is labelled."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence

from autolabel.core.protocols import Unit
from autolabel.core.text import counted
from autolabel.core.types import ImageRecord, Status
from autolabel.engine.stage_times import StageTimes
from autolabel.store.run import RunStore

LINE_EVERY_S = 60.0
"""Where no terminal shows the bar, a line this often says how far it is, on stderr and in the run's log."""
_LINE = "{desc} {n_fmt} of {total_fmt}{postfix} [{elapsed}, {remaining} left]"

logger = logging.getLogger(__name__)


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
    """The one progress bar, with an ETA; lines where there is no terminal."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total, unit="img", desc="label", disable=None if total else True, dynamic_ncols=True
        )
        self._total = total
        self._objects = self._failed = self._done = 0
        self._began = self._said = time.monotonic()

    def add(self, records: Sequence[ImageRecord], slowest: str | None) -> None:
        self._objects += sum(r.num_kept for r in records)
        self._failed += sum(r.status == "failed" for r in records)
        self._done += len(records)
        state = counted(self._objects, "{} object[|s], {} failed, slowest: {}", self._failed, slowest)
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update(len(records))
        now = time.monotonic()
        if self._bar.disable and self._total and now - self._said >= LINE_EVERY_S:
            self._said = now
            self._say(state, now - self._began)

    def _say(self, state: str, elapsed_s: float) -> None:
        line = self._bar.format_meter(
            self._done, self._total, elapsed_s, prefix="label", postfix=state, bar_format=_LINE
        )
        logger.info("%s", line)
        sys.stderr.write(f"{line}\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
