"""Label maps, tiles, zoom and models of transformers from the command line, to the labels on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from autolabel.app.demo import sample_folder
from autolabel.app.main import main
from autolabel.store.run import open_reader
from tests import hf_models
from tests.fakes import album, draw


@pytest.fixture
def label(tmp_path, monkeypatch):
    """`autolabel label` in a folder of its own, where `detect=colour` finds blocks of pure red, green and blue."""
    folder = tmp_path / "configs" / "detect"
    folder.mkdir(parents=True)
    OmegaConf.save({"_target_": "tests.fakes.ColourDetector", "delay_s": 0.0}, folder / "colour.yaml")
    monkeypatch.chdir(tmp_path)

    def call(source, *settings, run="run"):
        own = ["--config-dir", str(tmp_path / "configs"), f"run={run}", "export=[coco]"]
        return main(["label", str(Path(source).absolute()), *own, *settings])

    return call


def found(run="run"):
    """Every object of a run: picture, class name, box and mask."""
    with open_reader(Path(run)) as reader:
        names = {c.id: c.name for c in reader.categories}
        return [
            (record.image_id, names[i.category_id], i.box_xyxy, i.mask)
            for record in reader.records()
            for i in record.instances
        ]


def coco(run="run"):
    return json.loads(Path(run, "export", "coco", "instances.json").read_text())


def labelled_boxes(folder):
    """A COCO file of one picture with a box of each class."""
    draw(folder / "a.png", {})
    names = {2: "car", 5: "bus", 9: "dog"}
    rows = [
        {"id": i, "image_id": 1, "category_id": number, "bbox": [5 * i, 5, 10, 10], "area": 100, "iscrowd": 0}
        for i, number in enumerate(names, start=1)
    ]
    file = folder / "instances.json"
    picture = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    categories = [{"id": number, "name": name} for number, name in names.items()]
    file.write_text(json.dumps({"images": [picture], "annotations": rows, "categories": categories}))
    return file


def test_a_label_map_reaches_the_exported_classes_and_ids(label, tmp_path):
    album(tmp_path / "in", 4)
    settings = [
        "detect=colour",
        "segment=box",
        "labels.drop=[owl]",
        "labels.rename={dog: hound}",
        "labels.ids=contiguous",
    ]
    assert label("in", *settings) == 0
    assert [(c["id"], c["name"]) for c in coco()["categories"]] == [(1, "cat"), (2, "hound")]
    assert {name for _, name, *_ in found()} == {"cat", "hound"}


def test_existing_labels_are_mapped_too(label, tmp_path):
    file = labelled_boxes(tmp_path / "in")
    settings = ["detect=labels", "segment=box", "labels.keep=[car, bus]", "labels.merge={vehicle: [car, bus]}"]
    assert label(file, *settings, "labels.ids=contiguous") == 0
    assert [(c["id"], c["name"]) for c in coco()["categories"]] == [(1, "vehicle")]
    assert [a["bbox"] for a in coco()["annotations"]] == [[5, 5, 10, 10], [10, 5, 10, 10]]


def test_a_run_with_another_label_map_is_another_run(label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    assert label("in", "detect=colour", "segment=box") == 0
    assert label("in", "detect=colour", "segment=box", "labels.drop=[owl]") == 1
    assert "labels.drop" in capsys.readouterr().err


def test_a_class_that_is_not_there_is_one_line_with_a_suggestion(label, tmp_path, capsys):
    album(tmp_path / "in", 2)
    assert label("in", "detect=colour", "segment=box", "labels.keep=[dogg]") == 1
    assert "labels.keep: there is no class 'dogg'; did you mean dog?" in capsys.readouterr().err


def test_tiles_find_what_the_detector_finds_at_once(label, tmp_path):
    blocks = {0: (3, 3, 20, 20), 1: (90, 60, 130, 140), 2: (20, 100, 190, 148)}
    draw(tmp_path / "in" / "large.png", blocks, (150, 200))
    tiles = ["detect=tiles", "detect@detect.inner=colour", "detect.size=64", "segment=box"]
    assert label("in", "detect=colour", "segment=box", run="plain") == 0
    assert label("in", *tiles, run="tiles") == 0
    assert sorted(map(str, found("tiles"))) == sorted(map(str, found("plain")))
    assert len(found("tiles")) == 3


def test_zoom_gives_whole_masks_in_their_place(label, tmp_path):
    album(tmp_path / "in", 6)
    assert label("in", "detect=colour", "segment=box", run="plain") == 0
    zoom = ["segment=zoom", "segment@segment.inner=box", "segment.smaller_than=0.2", "segment.fill=0.5"]
    assert label("in", "detect=colour", *zoom, run="zoom") == 0
    assert found("zoom") == found("plain") != []


def test_nano_models_run_with_tiles_zoom_and_a_label_map_without_a_network(label, tmp_path):
    draw(tmp_path / "in" / "a.png", {0: (100, 60, 260, 230)}, (300, 400))
    settings = ["experiment=offline", "detect=tiles", "detect@detect.inner=nano", "detect.size=224", "detect.inner.conf=0.02",
                "segment=zoom", "segment@segment.inner=nano", "labels.rename={object: thing}"]  # fmt: skip
    assert label("in", *settings, run="a") == 0
    assert label("in", *settings, "engine=inline", run="b") == 0
    assert found("a") == found("b")
    assert {c["name"] for c in coco("a")["categories"]} == {"thing"}


@pytest.mark.parametrize(
    ("settings", "limited"),
    [(["detect=nano", "detect.max_det=1", "labels.rename={object: thing}"], 2), (["detect=nano"], 0),
     (["detect=tiles", "detect@detect.inner=nano", "detect.inner.max_det=1"], 2)],
)  # fmt: skip
def test_pictures_with_all_the_boxes_that_a_detector_may_give_are_counted(settings, limited, label, capsys):
    for _ in range(2):  # labelled, and as it stands in the run
        assert label(sample_folder(), *settings, "segment=box") == 0
        assert ("limited    2 pictures" in capsys.readouterr().out) == bool(limited)
        assert json.loads(Path("run", "summary.json").read_text())["limited"] == limited


@pytest.mark.slow
@pytest.mark.parametrize("detect", ["detr_hf", "grounding_dino", "owlv2"])
def test_models_of_transformers_label_from_the_command_line(detect, label, tmp_path):
    hf_models.needs_transformers()
    make = {"detr_hf": hf_models.rt_detr_v2, "grounding_dino": hf_models.grounding_dino, "owlv2": hf_models.owlv2}
    detector = make[detect](tmp_path / "detector")
    segmenter = hf_models.sam1(tmp_path / "segmenter")
    words = [] if detect == "detr_hf" else ["detect.ontology={lift: yellow forklift, person: [person, worker]}"]
    draw(tmp_path / "in" / "a.png", {0: (10, 5, 60, 55)}, (64, 96))
    settings = [f"detect={detect}", f"detect.weights={detector}", "detect.conf=0.001", "detect.max_det=5", *words,
                "segment=sam_hf", f"segment.weights={segmenter}", "offline=true"]  # fmt: skip
    assert label("in", *settings, run="a") == 0
    assert label("in", *settings, run="b") == 0
    with open_reader(Path("a")) as reader:
        (record,) = reader.records()
    assert 0 < len(record.candidates) <= 5
    assert all(np.isfinite(c.detector_score) for c in record.candidates)
    assert found("a") == found("b")


def test_a_model_that_is_not_here_is_one_line_that_says_how_to_bring_it(label, tmp_path, capsys, monkeypatch):
    hf_models.needs_transformers()
    album(tmp_path / "in", 1)
    assert label("in", "detect=rtdetr_v2_hf", "segment=box") == 1
    assert "hf download PekingU/rtdetr_v2_r50vd" in capsys.readouterr().err


def test_words_are_asked_for_where_they_miss(label, tmp_path, capsys):
    album(tmp_path / "in", 1)
    assert label("in", "detect=owlv2", "segment=box") == 1
    assert "detect.ontology: which objects?" in capsys.readouterr().err
