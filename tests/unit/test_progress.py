"""The progress bar."""

import tqdm

from autolabel.app.progress import CountedSink, Progress
from autolabel.core.protocols import Unit
from autolabel.engine.stage_times import Spent, StageTimes
from autolabel.store.memory import MemoryStore


def test_the_bar_names_the_stage_that_holds_the_others_up(monkeypatch):
    told = []

    class Bar(tqdm.tqdm):
        def set_postfix_str(self, s="", refresh=True):
            told.append(s)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    times = StageTimes()
    times.add({"decode": Spent(70.0, 8), "segment": Spent(20.0, 1)})
    with Progress(4) as progress:
        CountedSink(MemoryStore(), progress, times).commit(Unit(0, 0, ()), [])
    assert told == ["0 objects, 0 failed, slowest: segment"]
