"""What the speed benchmarks decide and write, without a clock: pages, verdicts, exit codes, what is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autolabel.core.types import Frame, ImageInfo, ImageRef, PromptedMask
from autolabel.ops.masks import encode
from benchmarks import page, pipeline, run
from benchmarks.contestants import (
    REFERENCE,
    Contestant,
    Setup,
    absent,
    answers_of,
    by_prompt,
    contestants,
    our_own,
    save,
    saved,
)
from benchmarks.fixed_boxes import FixedBoxes
from benchmarks.fresh import children, cpu_seconds, environment
from benchmarks.parity import Answer, Parity
from benchmarks.pictures import Picture
from benchmarks.programs import ANNOTATE, LOOP, OURS, Mark, Measured, Progress
from tests.fakes import CATEGORIES, ColourDetector

# -- pages ----------------------------------------------------------------------------------------


def test_a_page_never_takes_the_place_of_an_earlier_one(tmp_path):
    paths = [page.write_page(tmp_path / "new", "cpu_x", text) for text in ("a", "b", "c")]
    assert [path.read_text() for path in paths] == ["a", "b", "c"]
    assert paths[1].name == f"{paths[0].stem}-2.md"
    assert paths[2].name == f"{paths[0].stem}-3.md"


def test_every_benchmark_leaves_the_name_of_its_page_to_it():
    modules = Path(page.__file__).parent.glob("*.py")
    assert [path.name for path in modules if '.md"' in path.read_text()] == ["page.py"]


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], check=True
    )


def test_a_page_tells_the_commit_and_whether_files_were_changed(tmp_path):
    assert page.commit(tmp_path) == "no commit"
    (tmp_path / "autolabel").mkdir()
    (tmp_path / "autolabel" / "a.py").write_text("a")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "a")
    assert page.commit(tmp_path).startswith("commit ")
    assert "changes" not in page.commit(tmp_path)
    (tmp_path / "notes.txt").write_text("not of the code")
    assert "changes" not in page.commit(tmp_path)
    (tmp_path / "autolabel" / "a.py").write_text("b")
    assert page.commit(tmp_path).endswith("changes that are not committed")


def test_no_commit_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert page.commit() == "no commit"


def test_a_page_names_no_folder_of_the_machine():
    told = page.told("benchmarks.run", ["--out", "/home/somebody/out", "--skip", "ultralytics SAM"])
    assert told == "python -m benchmarks.run --out out --skip 'ultralytics SAM'"


def test_a_table_has_its_columns_in_the_order_of_the_first_row():
    assert page.table([]) == []
    assert page.table([{"a": "1", "b": "2"}, {"b": "4", "a": "3"}]) == [
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
        "| 3 | 4 |",
    ]


# -- benchmarks.run -------------------------------------------------------------------------------


def test_large_pictures_are_fewer_unless_a_number_is_given():
    assert run.effort((1080, 1920), None, None) == run.Effort(4, 5)
    assert run.effort((3000, 4000), None, None) == run.Effort(2, 3)
    assert run.effort((3000, 4000), 7, 9) == run.Effort(7, 9)


def test_one_thread_on_a_cpu_unless_a_number_is_given():
    threads = [run.parsed(given).threads for given in ([], ["--device", "cuda"], ["--threads", "0"])]
    assert threads == [1, 0, 0]


@pytest.mark.parametrize(("beyond", "code"), [([], 0), (["nano, 1080p, 10 boxes: autolabel"], 1)])
def test_the_exit_code_says_whether_masks_are_near_enough(beyond, code, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["run", "--out", str(tmp_path)])
    monkeypatch.setattr(run, "tail_table", lambda repeats: [])
    monkeypatch.setattr(run, "model_table", lambda *_: (["| a |"], beyond))
    monkeypatch.setattr(run.fresh, "prepare", lambda threads: None)
    assert run.main() == code
    said = [line for line in capsys.readouterr().err.splitlines() if "limits" in line]
    assert said == [f"not known to be within their limits: {one}" for one in beyond]
    assert len(list(tmp_path.iterdir())) == 1


def fake(name, masks, **more):
    """A contestant and its call, which gives these masks for every picture."""
    answers = None if masks is None else [Answer(mask, 0.5) for mask in masks]

    def label(paths, boxes, out):
        sum(range(100_000))  # some seconds to divide by
        return None if answers is None else [answers for _ in paths]

    return Contestant(name, lambda *_: label, **more), label


def cell(tmp_path, *others):
    masks = [encode(np.eye(9, dtype=np.uint8))]
    pictures = [Picture(tmp_path / "a.jpg", np.array([[0, 0, 9, 9]], np.float32))]
    options = run.parsed(["--no-fresh"])
    calls = [fake(REFERENCE, masks), *others]
    return run.compared({"picture": "tiny"}, calls, pictures, run.Effort(1, 2), Setup("nano", "cpu"), options)


def test_one_of_ours_whose_flips_nobody_counted_is_beyond_its_limits(tmp_path):
    found = cell(tmp_path, fake("autolabel", [encode(np.eye(9, dtype=np.uint8))], ours=True, judged=True))
    assert found.beyond == ["autolabel"]
    assert found.rows[1]["within its limits"] == "**unknown**"


def test_one_of_ours_without_masks_is_beyond_its_limits(tmp_path):
    assert cell(tmp_path, fake("autolabel", None, ours=True, judged=True)).beyond == ["autolabel"]


def test_a_stranger_and_what_only_informs_fail_nothing(tmp_path):
    other = [encode(np.ones((9, 9), np.uint8))]
    found = cell(tmp_path, fake("polygons", None), fake("stranger", other), fake("autolabel, b", other, ours=True))
    assert found.beyond == []
    assert [row["within its limits"] for row in found.rows[1:]] == ["", "**no**", "**no** (only informs)"]


def failing(name, **more):
    def label(*_):
        raise ValueError("no such\nkernel")

    return Contestant(name, lambda *_: label, **more), label


def test_a_stranger_that_fails_is_left_out_with_what_it_said(tmp_path):
    found = cell(tmp_path, failing("stranger"))
    assert found.failed == {"stranger, tiny": "ValueError: no such kernel"}
    assert [row["contestant"] for row in found.rows] == [REFERENCE]


def test_what_one_of_ours_raises_is_raised(tmp_path):
    with pytest.raises(ValueError, match="kernel"):
        cell(tmp_path, failing("autolabel", ours=True))


# -- contestants ----------------------------------------------------------------------------------


@pytest.fixture
def units(monkeypatch):
    """Whether the processor has bfloat16 units."""

    def have(there: bool) -> None:
        monkeypatch.setattr("benchmarks.contestants.runs_bf16", lambda device: there)

    return have


@pytest.mark.parametrize(
    ("setup", "there", "judged"),
    [
        (Setup("nano", "cpu"), True, None),  # its YAML says float32
        (Setup("nano", "cpu", bf16=True), True, False),
        (Setup("sam2_tiny", "cpu"), False, None),
        (Setup("sam2_tiny", "cpu", bf16=True), False, False),
        (Setup("sam2_tiny", "cpu"), True, True),
        (Setup("sam2_tiny", "cpu", random=True), True, False),
    ],
)
def test_bfloat16_is_judged_where_somebody_would_choose_it(setup, there, judged, units):
    units(there)
    found = {one.name: one for one in contestants(setup)}
    assert (found["autolabel, bfloat16"].judged if "autolabel, bfloat16" in found else None) is judged
    assert found["autolabel"].judged
    assert found["autolabel, buckets"].judged
    assert next(iter(found)) == REFERENCE
    assert not found[REFERENCE].judged


def test_compiled_networks_take_part_where_they_are_wanted(units):
    units(True)
    wanted = {one.name for one in contestants(Setup("nano", "cpu", bf16=True, compiled=True))}
    assert wanted - {one.name for one in contestants(Setup("nano", "cpu", bf16=True))} == {
        "predictor, set_image_batch, compiled",
        "autolabel, compiled",
        "autolabel, bfloat16, compiled",
    }
    assert "compiled networks" not in "; ".join(absent(Setup("nano", "cpu", compiled=True)))


def test_who_is_missing_is_named_with_the_reason(units):
    units(False)
    told = "; ".join(absent(Setup("nano", "cpu")))
    for name in ("torchao", "auto_annotate", "Ray", "ultralytics SAM", "compiled networks", "bfloat16"):
        assert name in told
    assert "ultralytics SAM" not in "; ".join(absent(Setup("sam2_tiny", "cpu")))


def test_the_arithmetic_of_ours_is_what_it_is_set_to():
    assert our_own("a", "precision=bfloat16").arithmetic == "bfloat16"
    assert our_own("a", "precision=float32").arithmetic == "float32"


def test_an_answer_stands_at_its_prompt():
    mask = encode(np.eye(3, dtype=np.uint8))
    found = by_prompt([PromptedMask(2, mask, 0.5), PromptedMask(0, mask, 0.25)], 4)
    assert [None if one is None else one.score for one in found] == [0.25, None, 0.5, None]


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 1, 4, 5)])
def test_the_predictors_masks_come_with_their_scores(shape):
    masks = np.zeros(shape, np.float32)
    scores = np.arange(shape[0], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 3))
    assert [one.score for one in answers_of(masks, scores)] == list(range(shape[0]))


def test_saved_answers_are_read_back(tmp_path):
    some = [Answer(encode(np.eye(3, dtype=np.uint8)), 0.5), None]
    save(tmp_path, Path("a b.jpg"), some)
    assert saved(tmp_path, "a b.jpg") == some


# -- processes ------------------------------------------------------------------------------------


def test_a_process_is_found_with_its_cpu_seconds_while_it_runs_and_after():
    before = cpu_seconds()
    work = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert process.pid in children()
    assert cpu_seconds() - before > 0.15
    process.communicate(b"\n")
    assert process.pid not in children()
    assert cpu_seconds() - before > 0.15


def test_threads_of_a_process_are_those_given(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment(3)["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in environment(0)


# -- benchmarks.pipeline --------------------------------------------------------------------------


def test_the_detector_is_asked_and_its_boxes_are_replaced(tmp_path):
    boxes = {"a.jpg": [[0, 0, 5, 5], [1, 2, 3, 4]], "b c.jpg": []}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    inner = ColourDetector()
    detector = FixedBoxes(inner=inner, file=str(tmp_path / "boxes.json"))
    names = ["b c.jpg", "a.jpg"]
    found = detector.detect([Frame(ImageRef(n, n), np.zeros((9, 9, 3), np.uint8), ImageInfo(9, 9)) for n in names])
    assert inner.calls == 2
    assert [one.boxes_xyxy.tolist() for one in found] == [boxes[name] for name in names]
    assert detector.categories == CATEGORIES
    assert set(found[1].category_ids) == {CATEGORIES[0].id}


def measured(*marks):
    return Measured(Progress([Mark(*mark) for mark in marks], "float32"), 0.0, 100.0, 50.0, 1.0, 0.0, None)


def test_warm_begins_after_the_first_pictures_of_many_and_a_quarter_of_few():
    assert pipeline.warm_after(4096) == 32
    assert pipeline.warm_after(8) == 2
    assert pipeline.warm_after(1) == 1


def test_the_warm_rate_leaves_out_the_start():
    unit_by_unit = measured((10.0, 32, 5.0), (12.0, 64, 6.0), (18.0, 256, 13.0))
    assert pipeline.rates([unit_by_unit]) == [(256 - 32) / 8]
    assert pipeline.costs([unit_by_unit]) == [8 / 224]


def test_one_mark_has_no_warm_rate():
    assert pipeline.rates([measured((10.0, 32, 5.0))]) == []
    assert pipeline.spread([]) == "too few pictures"


def near(**changed):
    exact = Parity(10, 1.0, 1.0, 1.0, 10, 0, 0, 0.0, 0.0)
    return replace(exact, **changed)


def test_ours_fails_the_benchmark_of_the_command_beyond_its_limits_or_unknown():
    assert pipeline.miss(near(), "float32", random=False) == ""
    assert "see the page" in pipeline.miss(near(mean=0.9), "float32", random=True)
    assert "flips are not known" in pipeline.miss(near(flipped=None), "bfloat16", random=False)
    assert pipeline.miss(None, "float32", random=False)
    # Random weights say nothing about what bfloat16 does to trained ones.
    assert pipeline.miss(near(mean=0.9), "bfloat16", random=True) == ""


def test_programs_that_cannot_take_part_are_named_with_the_reason(tmp_path):
    options = pipeline.parsed(["unit_size=2", "--skip", OURS])
    tasks, absent = pipeline.tasks_of(options, tmp_path, tmp_path / "boxes.json")
    assert {OURS, LOOP} <= set(tasks)
    assert ANNOTATE in absent
    assert tasks[OURS].settings == ["unit_size=2"]
    assert tasks[LOOP].pictures != tasks[OURS].pictures


def test_random_weights_are_set_for_all_but_the_nano_detector():
    nano, yolo = (
        pipeline.detector(pipeline.parsed(["--random", "--detect", name])) for name in ("nano", "yolo11n")
    )
    assert nano == ["detect=nano", "detect.device=cpu"]
    assert "detect.architecture=yolo11n.yaml" in yolo
