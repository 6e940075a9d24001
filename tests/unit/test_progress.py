"""The progress bar."""

import tqdm

from autolabel.app import progress as progress_module
from autolabel.app.progress import CountedSink, Progress
from autolabel.core.protocols import Unit
from autolabel.engine.stage_times import Spent, StageTimes
from autolabel.store.memory import MemoryStore
from tests.records import record


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


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(monkeypatch, capsys, caplog):
    moments = iter([0.0, 59.0, 61.0, 62.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(moments))
    caplog.set_level("INFO", "autolabel")
    with Progress(300) as progress:
        for _ in range(3):
            progress.add([record(f"{i}.jpg", []) for i in range(2)], "decode")
    line = "label 4 of 300, 0 objects, 0 failed, slowest: decode [01:01, 1:15:14 left]"
    assert capsys.readouterr().err == line + "\n"
    assert caplog.messages == [line]
