"""`labeler=sam3` from the command line, with a small random SAM 3 in a folder: words in, labels on disk out."""

import json
from pathlib import Path

import pytest

from autolabel import AutoLabeler
from autolabel.app.main import main
from autolabel.engine.inline import InlineEngine
from autolabel.store.run import open_reader
from tests import hf_models
from tests.e2e.test_runs import tree
from tests.fakes import album, draw

WORDS = "labeler.classes={lift: yellow forklift, person: [person, worker]}"


class OneUnitEngine(InlineEngine):
    """Somebody presses Ctrl-C when the first unit is committed."""

    def run(self, labeler, units, sink):
        super().run(labeler, list(units)[:1], sink)
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    hf_models.needs_transformers()
    return hf_models.sam3(tmp_path_factory.mktemp("sam 3"))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`autolabel label` of an album, with a model that has no weights yet."""
    album(tmp_path / "in", 5)
    engines = tmp_path / "configs" / "engine"
    engines.mkdir(parents=True)
    (engines / "stopped.yaml").write_text(f"_target_: {__name__}.{OneUnitEngine.__name__}\n")
    monkeypatch.chdir(tmp_path)

    def call(run, *settings):
        own = [
            "--config-dir",
            str(tmp_path / "configs"),
            f"run={run}",
            "offline=true",
            "unit_size=2",
            "batch_size=2",
        ]
        model = ["labeler=sam3", "labeler.conf=0.2", "labeler.max_det=9", WORDS]
        return main(["label", "in", *own, *model, "refine=none", *settings])

    return call


@pytest.fixture
def label(command, weights):
    return lambda run, *settings: command(run, f"labeler.weights={weights}", *settings)


def records(run):
    with open_reader(Path(run)) as reader:
        return list(reader.records())


@pytest.mark.slow
def test_words_become_labels_the_same_twice_by_every_engine_and_when_continued(label):
    assert label("one") == 0
    assert label("inline", "engine=inline") == 0
    assert label("stopped", "engine=stopped") == 130
    assert 0 < sum(r is not None for r in records("stopped")) < 5
    assert label("stopped") == 0
    assert records("one") == records("inline") == records("stopped")
    assert tree(Path("one/export")) == tree(Path("inline/export")) == tree(Path("stopped/export"))
    coco = json.loads(Path("one/export/coco/instances.json").read_text())
    assert [(c["id"], c["name"]) for c in coco["categories"]] == [(1, "lift"), (2, "person")]
    assert {a["category_id"] for a in coco["annotations"]} == {1, 2}
    assert len(coco["annotations"]) == sum(len(r.instances) for r in records("one")) > 10


@pytest.mark.slow
def test_a_finished_run_is_refined_evaluated_and_reported_like_any_other(label, tmp_path):
    assert label("run", "refine=default") == 0
    assert main(["refine", "run", "refine=strict"]) == 0
    assert main(["evaluate", "run", f"truth={tmp_path / 'run/export/coco/instances.json'}"]) == 0
    assert main(["report", "run"]) == 0


@pytest.mark.slow
def test_classes_are_mapped_and_other_words_or_weights_are_another_run(label, tmp_path, capsys):
    assert label("run", "labels.drop=[lift]", "labels.rename={person: human}") == 0
    coco = json.loads(Path("run/export/coco/instances.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["human"]
    capsys.readouterr()
    assert label("run", "labels.drop=[lift]", "labels.rename={person: human}", "labeler.iou=0.5") == 1
    assert "labeler.iou" in capsys.readouterr().err
    other = hf_models.sam3_video(tmp_path / "other")
    assert label("run", "labels.drop=[lift]", "labels.rename={person: human}", f"labeler.weights={other}") == 1
    assert "labeler (weights)" in capsys.readouterr().err


@pytest.mark.slow
def test_the_python_interface_takes_words_too(label, weights, tmp_path):
    settings = ["labeler=sam3", f"labeler.weights={weights}", "labeler.conf=0.2", WORDS, "refine=none"]
    labeler = AutoLabeler.from_config(settings)
    assert [c.name for c in labeler.categories] == ["lift", "person"]
    (result,) = labeler.label(draw(tmp_path / "a.png", {0: (3, 3, 30, 30)}))
    assert set(result.classes) == {"lift", "person"}
    assert result.masks.shape == (len(result.classes), 40, 60)


@pytest.mark.parametrize(
    ("settings", "words"),
    [(["detect=nano"], "take out what sets detect"), (["segment=zoom", "segment@segment.inner=nano"], "segment"),
     (["prompt=grid"], "prompt"), (["experiment=offline"], "detect and segment"), (["labeler.classes=null"], "which objects?")],
)  # fmt: skip
def test_what_has_no_part_in_it_is_refused_in_one_clear_line(command, capsys, settings, words):
    assert command("run", *settings) == 1
    kind, line = capsys.readouterr().err.splitlines()
    assert kind.startswith("source: ")
    assert words in line


@pytest.mark.slow
def test_weights_that_are_not_here_are_one_line_with_the_licence_and_the_way(command, capsys):
    hf_models.needs_transformers()
    assert command("run") == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert "accept its licence on huggingface.co" in line
    assert "hf download facebook/sam3 --include" in line
