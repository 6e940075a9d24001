"""Label, kill, fill the disk, change the inputs, resume, refine, export: in any order, against a dictionary."""

import json
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes import draw
from tests.reliability.nursery import Nursery
from tests.reliability.plans import COMMAND, Bench

KINDS = ("ok", "empty", "not_an_image")


class AnyOrder(RuleBasedStateMachine):
    """`pictures` is what lies in the folder, `known` what a finished run must hold, with those that were removed: both
    by name, with what each picture must become. Exports and exit codes are about what lies in the folder."""

    nursery: Nursery

    @initialize()
    def begin(self):
        self.bench = Bench(self.nursery, Path(tempfile.mkdtemp(prefix="autolabel-order-")))
        self.pictures: dict[str, str] = {}
        self.known: dict[str, str] = {}
        self.done = False
        self.version = 0
        for number in range(5):
            self.put(number, KINDS[number % 2])

    @rule(number=st.integers(0, 7), kind=st.sampled_from(KINDS))
    def put(self, number, kind):
        """A picture that is new, or another one in the place of an old one."""
        path = self.bench.folder / "in" / f"{number}.png"
        self.version += 1
        if kind == "not_an_image":
            path.write_bytes(b"nothing " * self.version)
        else:
            side = 2 + self.version
            draw(path, {0: (2, 2, side, 9)} if kind == "ok" else {}, (40, 60 + self.version))
        self.pictures[path.name] = kind
        self.done = False

    @precondition(lambda self: len(self.pictures) > 2)
    @rule(number=st.integers(0, 7))
    def remove(self, number):
        (self.bench.folder / "in" / f"{number}.png").unlink(missing_ok=True)
        if self.pictures.pop(f"{number}.png", None) is not None:
            self.done = False

    @rule()
    def label(self):
        ended = self.bench.label("run")
        assert "Traceback" not in ended.text, ended.text
        gone = {name: kind for name, kind in self.rows().items() if name not in self.pictures}
        self.known = {**gone, **self.pictures}
        assert ended.code == self.code(), ended
        self.done = True
        assert self.rows() == self.known

    @rule(delay=st.floats(0, 0.6))
    def kill(self, delay):
        child = self.bench.nursery.start(COMMAND, *self.bench.arguments("run"))
        time.sleep(delay)
        child.signal(9)
        child.wait()
        self.done = False

    @rule(kib=st.integers(1, 60))
    def fill_the_disk(self, kib):
        ended = self.bench.nursery.run(
            "tests.reliability.programs:without_room", kib << 10, *self.bench.arguments("run")
        )
        assert "Traceback" not in ended.text, ended.text
        self.done = False

    @precondition(lambda self: self.done)
    @rule(choice=st.sampled_from(["default", "strict"]))
    def refine(self, choice):
        """And back, because another choice would rightly refuse to be continued."""
        for name in (choice, "default"):
            ended = self.bench.nursery.run(COMMAND, "refine", str(self.bench.folder / "run"), f"refine={name}")
            assert ended.code in (0, 2), ended
        assert self.rows() == self.known

    @precondition(lambda self: self.done)
    @rule()
    def export(self):
        run = self.bench.folder / "run"
        ended = self.bench.nursery.run(COMMAND, "export", str(run), "export=[coco]")
        assert ended.code == self.code(), ended
        names = {i["file_name"] for i in json.loads((run / "export/coco/instances.json").read_text())["images"]}
        assert names == {name for name, kind in self.pictures.items() if kind in ("ok", "empty")}

    def code(self) -> int:
        return 0 if {"ok", "empty"}.issuperset(self.pictures.values()) else 2

    def rows(self) -> dict[str, str]:
        return {name: code or status for name, (status, code) in self.bench.rows("run").items()}

    @invariant()
    def what_is_finished_stays(self):
        if self.done:
            assert self.rows() == self.known

    def teardown(self):
        if hasattr(self, "bench"):
            shutil.rmtree(self.bench.folder)


@pytest.mark.parametrize(("examples", "steps"), [(2, 6), pytest.param(60, 25, marks=pytest.mark.slow)])
def test_any_order_of_labelling_and_faults_keeps_the_promises(examples, steps, nursery):
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (AnyOrder,), {"nursery": nursery})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=examples < 10,
            suppress_health_check=list(HealthCheck),
        ),
    )
