"""Sweeps and comparisons as people use them. No model: the stages are fakes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autolabel.app.main import main
from autolabel.app.sweep import LONGEST_NAME, folder_name, jobs
from autolabel.core.errors import ConfigError
from autolabel.store.run import open_reader, open_store
from tests.fakes import album, draw

ROOT = Path(__file__).resolve().parents[2]


def settings(folder, detect="colour"):
    return ["--config-dir", str(folder), f"detect={detect}", "segment=box", "export=[]", "decode.isolated=false"]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A person's own configuration folder: detectors that need no model."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "detect").mkdir()
    for name, target, delay in (
        ("colour", "ColourDetector", 0.0),
        ("slow", "ColourDetector", 0.02),
        ("interrupted", "InterruptedDetector", 0.0),
    ):
        node = {"_target_": f"tests.fakes.{target}", "delay_s": delay}
        OmegaConf.save(node, folder / "detect" / f"{name}.yaml")
    return folder


@pytest.fixture
def label(configs, tmp_path, monkeypatch):
    """`autolabel label` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, detect="colour": main(["label", *map(str, arguments), *settings(configs, detect)])


@pytest.fixture(scope="module")
def made(configs, tmp_path_factory):
    """A run, and the same with stricter refining."""
    folder = tmp_path_factory.mktemp("made")
    album(folder / "in", 8)
    for run, more in (("a", []), ("b", ["refine.area.min_px=60", "refine.score.min_detector_score=0.6"])):
        assert main(["label", str(folder / "in"), f"run={folder / run}", *more, *settings(configs)]) == 0
    return folder


@pytest.fixture
def two_runs(made, tmp_path, monkeypatch):
    """The two in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    for run in ("a", "b"):
        shutil.copytree(made / run, run)
    Path("in").symlink_to(made / "in")
    return tmp_path


def records(run):
    with open_reader(Path(run)) as reader:
        return list(reader.records())


def result(out):
    return json.loads((Path(out) / "comparison.json").read_text())


def lines(out):
    return [json.loads(line) for line in (Path(out) / "differences.jsonl").read_text().splitlines()]


# -- comparisons ------------------------------------------------------------------------------------------------


def test_a_run_does_not_differ_from_itself(two_runs, capsys):
    assert main(["compare", "a", "a", "out=c"]) == 0
    assert lines("c") == []
    found = result("c")
    kept = sum(len(record.instances) for record in records("a"))
    assert found["differences"]["objects"]["identical"] == kept
    assert found["settings"] == {}
    same = f"objects    {kept} identical, 0 alike (IoU of 0.8 or more), no other difference"
    assert same in capsys.readouterr().out


def test_what_refining_drops_is_what_differs(two_runs):
    main(["compare", "a", "b", "out=c"])
    dropped = {(r.image_id, d.instance.index): d.reason for r in records("b") for d in r.dropped}
    assert {(row["image_id"], row["index_before"]): row["reason"] for row in lines("c")} == dropped
    assert {row["kind"] for row in lines("c")} == {"now_dropped"}
    assert result("c")["differences"]["objects"]["now_dropped"] == len(dropped) > 0


def test_swapped_runs_swap_kept_and_dropped(two_runs):
    main(["compare", "a", "b", "out=c"])
    main(["compare", "b", "a", "out=d"])
    assert {row["kind"] for row in lines("d")} == {"now_kept"}
    assert [row["index_before"] for row in lines("c")] == [row["index_after"] for row in lines("d")]


def test_only_settings_that_differ_are_listed(two_runs):
    main(["compare", "a", "b", "out=c"])
    assert result("c")["settings"] == {
        "refine.score.min_detector_score": {"a": "null", "b": "0.6"},
        "refine.area.min_px": {"a": "1", "b": "60"},
    }


def test_the_folder_says_on_screen_where_it_is_and_is_replaced_whole(two_runs, capsys):
    assert main(["compare", "a", "b"]) == 0
    assert "runs/compare-a-b: index.html, comparison.json, differences.jsonl" in capsys.readouterr().out
    before = {p.name: p.read_bytes() for p in Path("runs/compare-a-b").iterdir()}
    assert main(["compare", "a", "b"]) == 0
    assert {p.name: p.read_bytes() for p in Path("runs/compare-a-b").iterdir()} == before


def test_a_place_that_cannot_be_written_is_said_before_the_runs_are_read(two_runs, capsys, monkeypatch):
    monkeypatch.setattr("autolabel.app.measured.run_figures", lambda reader: pytest.fail("read"))
    Path("file").touch()
    assert main(["compare", "a", "b", "out=file/below/c"]) == 1
    assert (
        "file/below/c cannot be written: Not a directory; choose another with out=..." in capsys.readouterr().err
    )


def test_a_folder_with_other_things_in_it_is_left_alone(two_runs, capsys):
    Path("notes").mkdir()
    Path("notes/diary.txt").write_text("mine")
    assert main(["compare", "a", "b", "out=notes"]) == 1
    assert "notes holds files" in capsys.readouterr().err
    assert [p.name for p in Path("notes").iterdir()] == ["diary.txt"]
    assert main(["compare", "a", "b", "out=a"]) == 1
    assert (two_runs / "a" / "run.sqlite").is_file()


def compared_with_others(two_runs, label, capsys, *names):
    """What is said of run `a` beside a run of other pictures, into the folder `c`."""
    for name in names:
        draw(two_runs / "other" / name, {1: (3, 3, 30, 30)})
    label(two_runs / "other", "run=o")
    capsys.readouterr()
    assert main(["compare", "a", "o", "out=c"]) == 0
    return capsys.readouterr().out


def test_runs_of_different_pictures_are_said_so(two_runs, label, capsys):
    out = compared_with_others(two_runs, label, capsys, "0/picture 000.png", "new.png")
    assert "Made from different pictures: a holds 8 of" in out
    assert "No Pareto front" in out
    kinds = {row["image_id"]: row["kind"] for row in lines("c")}
    assert kinds["new.png"] == "only_after"
    assert kinds["0/picture 000.png"] == "other_picture"
    assert kinds["1/picture 001.png"] == "only_before"
    assert set(kinds.values()) == {"only_before", "only_after", "other_picture"}


def test_pictures_that_two_sources_name_differently_are_the_same_pictures(two_runs, label, capsys):
    Path("outer").mkdir()
    Path("outer/in").symlink_to((two_runs / "in").resolve())
    Path("outer/list.txt").write_text(
        "".join(f"{p.relative_to('outer')}\n" for p in Path("outer/in").rglob("*.png"))
    )
    label(two_runs / "outer" / "list.txt", "run=listed")
    assert {r.image_id for r in records("a")}.isdisjoint(r.image_id for r in records("listed"))
    capsys.readouterr()
    assert main(["compare", "a", "listed", "out=c"]) == 0
    out = capsys.readouterr().out
    assert "8 pictures have different image ids in the two runs" in out
    assert "different pictures" not in out
    assert "(a -> listed, 8 pictures compared)" in out
    kept = sum(len(record.instances) for record in records("a"))
    assert result("c")["differences"]["objects"]["identical"] == kept > 0


def test_where_nothing_was_compared_no_equality_is_claimed(two_runs, label, capsys):
    out = compared_with_others(two_runs, label, capsys, "new.png")
    assert "objects    nothing was compared" in out
    assert "no other difference" not in out


def test_runs_of_the_same_names_elsewhere_are_compared_in_a_folder_of_their_own(two_runs, capsys):
    for place in ("x", "y"):
        for run in "ab":
            shutil.copytree(run, f"{place}/{run}")
    for place in ("x", "y", "x", "y"):
        assert main(["compare", f"{place}/a", f"{place}/b"]) == 0
    first, second = sorted(Path("runs").iterdir())
    assert (first.name, second.name.startswith("compare-a-b-")) == ("compare-a-b", True)
    held = [[run["directory"] for run in result(folder)["runs"]] for folder in (first, second)]
    assert held == [["x/a", "x/b"], ["y/a", "y/b"]]


def evaluation(run, ap, sha256="t"):
    figures = {
        "segm": {"AP": ap, "AP50": ap},
        "matched": {"mean_iou": 0.9, "boundary_iou": None},
        "panoptic": {"pq": 0.5},
    }
    judged = {
        "version": 2,
        "truth": "t.json",
        "truth_sha256": sha256,
        "matching": {},
        "images": 8,
        "images_without_truth": 0,
    }
    (Path(run) / "evaluate").mkdir(exist_ok=True)
    (Path(run) / "evaluate" / "evaluation.json").write_text(json.dumps({**figures, **judged}))


def test_runs_are_ranked_by_what_truth_says(two_runs, capsys):
    evaluation("a", 0.5)
    evaluation("b", 0.6)
    main(["compare", "a", "b", "out=c"])
    found = result("c")
    assert found["pareto"]["measure"] == "mask AP"
    assert "b" in found["pareto"]["front"]
    assert [run["quality"]["mask AP"] for run in found["runs"]] == [0.5, 0.6]
    assert "mask AP" in capsys.readouterr().out


def test_evaluations_by_two_truths_rank_nothing(two_runs, capsys):
    evaluation("a", 0.5, "one")
    evaluation("b", 0.6, "two")
    main(["compare", "a", "b", "out=c"])
    assert result("c")["pareto"]["measure"] != "mask AP"
    assert "against different ground truth" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b'{"segm":', b"[" * 100_000, b'{"\xff": 1}', b"[]", b'{"version": 99}', b'{"version": 2}'])  # fmt: skip
def test_an_evaluation_that_is_damaged_is_one_line(content, two_runs, capsys):
    evaluation("a", 0.5)
    (two_runs / "a/evaluate/evaluation.json").write_bytes(content)
    assert main(["compare", "a", "b"]) == 1
    assert "evaluation.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("value", ['"x"', "true", "[1]", "1" * 400, "NaN"])
def test_a_figure_that_is_no_number_is_not_there(value, two_runs):
    for run in "ab":
        evaluation(run, 0.5)
    path = two_runs / "a/evaluate/evaluation.json"
    path.write_text(path.read_text().replace('"AP": 0.5', f'"AP": {value}'))
    assert main(["compare", "a", "b", "out=c"]) == 0
    assert [run["quality"]["mask AP"] for run in result("c")["runs"]] == [None, 0.5]


def test_guesses_of_two_segmenters_rank_nothing(two_runs, label, capsys):
    label(two_runs / "in", "run=other", "segment._target_=tests.fakes.BoxSegmenter")
    main(["compare", "a", "other", "out=c"])
    assert result("c")["pareto"] == {"measure": None, "front": []}
    assert "each segmenter's own estimate" in capsys.readouterr().out


def test_three_runs_have_a_table_and_no_objects(two_runs, label, capsys):
    label(two_runs / "in", "run=d", "prompt.pad=0.1")
    assert main(["compare", "a", "b", "d", "out=c"]) == 0
    assert result("c")["differences"] is None
    assert not Path("c/differences.jsonl").exists()
    assert len(result("c")["runs"]) == 3
    assert "autolabel compare a b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "two runs or more"), (["a"], "two runs or more"), (["a", "nowhere"], "nowhere"), (["a", "in"], "not a run"),
        (["a", "b", "-m"], "-m"), (["a", "b", "match_iou=2"], "match_iou"), (["a", "b", "examples=no"], "examples"),
        (["a", "b", "out=5"], "out must be a path"), (["a", "b", "moved_iou=0.3"], "moved_iou"), (["a", "b", "x=1"], "x"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(arguments, text, two_runs, capsys):
    capsys.readouterr()
    assert main(["compare", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error
    assert not Path("runs").exists()


def test_a_run_where_labelling_never_began_is_left_out_of_its_folder(two_runs, capsys):
    Path("c").mkdir()
    with open_store(Path("c")):
        pass
    capsys.readouterr()
    assert main(["compare", ".", "out=out"]) == 0
    said = "c holds nothing that was labelled yet; delete it, or label again: autolabel label PATH run=...\n"
    assert capsys.readouterr().err == f"left out: {said}"
    assert [run["name"] for run in result("out")["runs"]] == ["a", "b"]
    assert main(["compare", "a", "c", "out=out"]) == 1
    assert capsys.readouterr().err.endswith(f"got 1; left out: {said}")


def test_what_a_glob_names_beside_runs_is_left_out_with_a_line(two_runs, capsys):
    assert main(["compare", "a", "b", "out=compare-a-b"]) == 0
    Path("notes.txt").write_text("mine")
    shutil.copytree("a", "sweep/1")
    capsys.readouterr()
    # As the shell has it of `*`; of a folder that holds runs, these.
    assert main(["compare", "a", "b", "compare-a-b", "in", "notes.txt", "sweep", "out=out"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "left out: compare-a-b is a comparison",
        "left out: in is not a run directory (no run.sqlite)",
        "left out: notes.txt is not a run directory (no run.sqlite)",
    ]
    assert [run["name"] for run in result("out")["runs"]] == ["a", "b", "sweep/1"]
    assert main(["compare", "a", "b", "nowhere"]) == 1


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("config", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        ("config", "a: ["),
        ("config", "a: !!bool x"),
        ("config", "word"),
        ("fingerprint", "[]"),
        ("versions", "[" * 100_000),
    ],
)
def test_what_a_run_says_of_itself_is_refused_where_it_is_damaged(key, text, two_runs, capsys):
    with open_store(two_runs / "b") as store:
        store.set_meta(**{key: text})
    assert main(["compare", "a", "b"]) == 1
    error = capsys.readouterr().err
    assert f"b: its stored {key if key != 'config' else 'configuration'} cannot be read" in error
    assert error.count("\n") == 1


def test_no_run_is_changed(two_runs):
    before = {p: p.read_bytes() for p in sorted(two_runs.glob("[ab]/*"))}
    main(["compare", "a", "b", "out=c"])
    assert {p: p.read_bytes() for p in sorted(two_runs.glob("[ab]/*"))} == before


def test_no_model_library_is_loaded(two_runs):
    program = (
        "import sys; from autolabel.app.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'ultralytics', 'sam2'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "compare", "a", "b"]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


# -- sweeps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["a=1,2", "b=x"], ["a=1", "a=2"]),
        (["a=0.20", "b=x,y", "c=1,2"], ["b=x,c=1", "b=x,c=2", "b=y,c=1", "b=y,c=2"]),
        (["a=1"], [""]),
        (["a=0.2,0.20"], [""]),
        (["a=range(0.1,0.4,0.1)"], ["a=0.1", "a=0.2", "a=0.3", "a=0.4"]),
        (["a=1,2", "a=3"], [""]),
        (["a=1,2", "++a=3"], [""]),
        (["++a=1,2", "a=3,4"], ["a=3", "a=4"]),
        (["a=null,x"], ["a=null", "a=x"]),
    ],
)
def test_a_run_is_named_by_what_is_swept_alone(overrides, names):
    assert [job.folder for job in jobs(overrides)] == names


def test_of_a_setting_that_is_written_in_several_ways_the_last_value_holds():
    assert [job.overrides for job in jobs(["a=1,2", "++a=3", "a=4"])] == [("++a=3", "a=4")]
    # Without the first there would be no key to be set.
    assert [job.overrides for job in jobs(["+a=1,2", "a=3"])] == [("+a=1", "a=3")]


@pytest.mark.parametrize(
    "override",
    ["a=[x,y],[z]", "a=[[1,2],[3]],[4]", "a='x,y',z", "a=\"it's\",'a \"b\"'", "a=/d/x.pt,_d_x.pt,d/x.pt", "a=x/y,x_y",
     "a=~/x,~/y", "a=/d/im(1).jpg,/d/im(2).jpg", "a={b:1},{b:2}", "a=ä,ö", "a=s3://b/k,c", "a=c:\\d,c:/d", "a=' ',x"],
)  # fmt: skip
def test_hard_values_give_distinct_names_that_a_shell_leaves_alone(override):
    found = jobs([override])
    assert len(found) > 1
    names = [job.folder for job in found]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name
        assert name.isascii() is override.isascii()
        assert not name.isascii() or shlex.quote(name) in (name, f"'{name}'")
        assert not set(name) & set(" '\"\\[](){}*?$&;|<>`!~\n")


def test_a_name_does_not_depend_on_the_other_runs_and_is_not_too_long():
    assert jobs(["a=/x,/y"])[0].folder == jobs(["a=/z,/x"])[1].folder
    long = jobs([f"a={'x' * 300},{'x' * 301}"])
    assert len({job.folder for job in long}) == 2
    assert all(len(job.folder) < LONGEST_NAME + 10 for job in long)
    assert folder_name(["a=1"]) == "a=1"


@pytest.mark.parametrize("override", ["a=glob(*)", "a=interval(0,1)", "a=~/x,", "a=[1,2"])
def test_values_that_cannot_be_swept_are_one_clear_line(override):
    with pytest.raises(ConfigError) as caught:
        jobs([override])
    assert "\n" not in str(caught.value)


def test_lists_and_choices_are_swept_each_in_its_own_run(label, tmp_path, capsys):
    album(tmp_path / "in", 3)
    assert label("-m", tmp_path / "in", "prompt.pad=0.0,0.1", "refine=default,strict", "run=s") == 0
    found = {p.name: OmegaConf.load(p / "config.yaml") for p in (tmp_path / "s").iterdir()}
    assert {name: (c.prompt.pad, c.refine.area.min_px) for name, c in found.items()} == {
        "prompt.pad=0.0,refine=default": (0.0, 1),
        "prompt.pad=0.0,refine=strict": (0.0, 64),
        "prompt.pad=0.1,refine=default": (0.1, 1),
        "prompt.pad=0.1,refine=strict": (0.1, 64),
    }


def test_each_run_of_a_sweep_is_the_run_of_that_setting_alone(label, tmp_path):
    album(tmp_path / "in", 6)
    label("-m", tmp_path / "in", "prompt.pad=0.0,0.3", "run=s")
    label(tmp_path / "in", "prompt.pad=0.3", "run=alone")
    assert records(tmp_path / "s" / "prompt.pad=0.3") == records(tmp_path / "alone")
    assert records(tmp_path / "s" / "prompt.pad=0.0") != records(tmp_path / "alone")


def test_a_sweep_over_sources_with_odd_names_labels_each(label, tmp_path):
    for name in ("a b", "it's", "x,y"):
        draw(tmp_path / name / "1.png", {0: (2, 2, 20, 20)})
    assert label("-m", f"source.path='{tmp_path}/a b',\"{tmp_path}/it's\",'{tmp_path}/x,y'", "run=s") == 0
    assert len(list((tmp_path / "s").glob("*/run.sqlite"))) == 3


def test_a_sweep_ends_with_the_command_that_compares(label, tmp_path, capsys):
    album(tmp_path / "in", 3)
    assert label("-m", tmp_path / "in", "prompt.pad=0.0,0.1", "run='my sweep'") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next       autolabel compare ")
    command = shlex.split(last.removeprefix("next       autolabel "))
    assert main(command) == 0
    assert len(result("runs/compare-prompt.pad=0.0-prompt.pad=0.1")["runs"]) == 2


def test_the_command_names_the_runs_where_the_folder_holds_others(label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    label("-m", tmp_path / "in", "prompt.pad=0.2,0.3", "run=s")
    label("-m", tmp_path / "in", "prompt.pad=0.0,0.1", "run=s")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "next       autolabel compare s/prompt.pad=0.0 s/prompt.pad=0.1"
    )


def test_a_run_that_cannot_be_does_not_stop_the_others(label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "prompt.pad=0.2").write_text("a file is in the way")
    assert label("-m", tmp_path / "in", "prompt.pad=3,0.2,0.0,0.1", "run=s") == 1
    shown = capsys.readouterr()
    assert shown.err.count("autolabel: ") == 2
    assert "sweep      2 of 4 runs are complete" in shown.out
    assert "could not run: prompt.pad=3" in shown.out
    assert shown.out.splitlines()[-1] == "next       autolabel compare s"


def test_a_sweep_that_is_stopped_says_so_even_after_a_failure(label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    assert label("-m", tmp_path / "in", "prompt.pad=3,0.0,0.1", "run=s", detect="interrupted") == 130
    assert capsys.readouterr().out.splitlines()[-1].endswith("the same command continues where this one stopped")


@pytest.mark.slow
def test_a_sweep_that_was_killed_is_continued_by_the_same_command(label, configs, tmp_path, capsys):
    album(tmp_path / "in", 60)
    command = [
        sys.executable, "-m", "autolabel.app.main", "label", "-m", str(tmp_path / "in"), *settings(configs, "slow"),
        "unit_size=4", "batch_size=2", "prompt.pad=0.0,0.1", "run=s",
    ]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    second = tmp_path / "s" / "prompt.pad=0.1"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and committed(second) == 0:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert 0 < committed(second) < 60
    assert (
        label("-m", tmp_path / "in", "unit_size=4", "batch_size=2", "prompt.pad=0.0,0.1", "run=s") == 1
    )  # detect=colour
    assert main(command[3:]) == 0
    assert "nothing to do" in capsys.readouterr().out
    main([*command[3:-1], "run=whole"])
    for name in ("prompt.pad=0.0", "prompt.pad=0.1"):
        assert records(tmp_path / "s" / name) == records(tmp_path / "whole" / name)


def committed(run):
    try:
        with open_reader(run) as reader:
            return sum(n for status, n in reader.counts().items() if status != "pending")
    except Exception:  # noqa: BLE001 - not created yet
        return 0


def test_the_cost_of_a_run_outlives_a_second_look_at_it(label, tmp_path):
    album(tmp_path / "in", 4)
    label(tmp_path / "in", "run=r")
    first = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert first["cost"]["pictures"] == first["labelled"] == 4
    assert first["cost"]["stages"] == first["stages"]
    assert set(first["stages"]) == {"decode", "detect", "segment", "refine", "commit"}
    label(tmp_path / "in", "run=r")
    second = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert second["labelled"] == 0
    assert second["cost"] == first["cost"]
    draw(tmp_path / "in" / "new.png", {})
    label(tmp_path / "in", "run=r")
    third = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert third["cost"]["pictures"] == 5
    assert third["cost"]["seconds"] > first["cost"]["seconds"]
