"""Each way to ask, from the command line, with the nano models."""

import json
from pathlib import Path

import numpy as np
import pytest

from autolabel.app.api import AutoLabeler, Result
from autolabel.app.main import main
from autolabel.core.errors import ConfigError
from autolabel.store.run import open_reader
from tests.fakes import draw

BOXES = {11: [10, 10, 50, 70], 12: [80, 30, 60, 60], 13: [130, 5, 20, 90]}


@pytest.fixture
def labels(tmp_path):
    """A picture of three blocks, their boxes, a polygon each, and keypoints of one."""
    draw(
        tmp_path / "a b.png",
        {i: (x, y, x + w, y + h) for i, (x, y, w, h) in enumerate(BOXES.values())},
        (120, 160),
    )
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "iscrowd": 0,
         "segmentation": [[x, y, x + w, y, x + w, y + h]], "keypoints": [x + 5, y + 5, 2, 0, 0, 0]}
        for i, (x, y, w, h) in BOXES.items()
    ]  # fmt: skip
    file = tmp_path / "instances.json"
    image = {"id": 1, "file_name": "a b.png", "width": 160, "height": 120}
    file.write_text(json.dumps(
        {"images": [image], "categories": [{"id": 1, "name": "block"}], "annotations": annotations}))  # fmt: skip
    return file


LABELS = ("detect=labels", "detect.keep_masks=false")


def label(source: Path, run: Path, *settings: str, detect: tuple[str, ...] = LABELS) -> int:
    rest = ["segment=nano", "export=[]", "offline=true", f'run="{run}"', *settings]
    return main(["label", str(source), *detect, *rest])


def only_record(run: Path):
    with open_reader(run) as reader:
        (record,) = reader.records()
    return record


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [["prompt=box_point"], ["prompt=negatives", "prompt.reach=1.0"], ["prompt=jitter"], ["prompt=mask"],
     ["prompt=points"], ["prompt=points", "prompt.box=true"], ["segment.masks=best_box_fit"],
     ["segment.masks=most_stable", "segment.refine_steps=2"], ["segment.refine_steps=1", "segment.refine_with=point"]],
)  # fmt: skip
def test_every_way_to_ask_labels_every_object_and_says_the_same_twice(labels, tmp_path, settings):
    assert label(labels, tmp_path / "one", *settings) == 0
    assert label(labels, tmp_path / "two", *settings) == 0
    record = only_record(tmp_path / "one")
    assert record == only_record(tmp_path / "two")
    assert [c.source_id for c in record.candidates] == list(BOXES)
    assert all(c.mask is not None for c in record.candidates)
    assert all((c.agreement is not None) == (settings == ["prompt=jitter"]) for c in record.candidates)


@pytest.mark.slow
def test_the_masks_of_a_run_can_be_sharpened_and_another_run_is_another_fingerprint(labels, tmp_path, capsys):
    first, again = tmp_path / "first", tmp_path / "again"
    assert label(labels, first) == 0
    sharpen = ["prompt=mask", f'prompt.run="{first}"']
    assert label(labels, again, *sharpen) == 0
    assert label(labels, again, *sharpen) == 0
    assert len(only_record(again).candidates) == 3
    label(labels, tmp_path / "other", "prompt.pad=0.3")
    assert label(labels, again, "prompt=mask", f'prompt.run="{tmp_path / "other"}"') == 1
    assert "prompt (run)" in capsys.readouterr().err


def clicks(tmp_path: Path, *rows: str) -> str:
    file = tmp_path / "clicks.csv"
    file.write_text("\n".join(["image,object,x,y,sign", *rows]) + "\n")
    return f'prompt.file="{file}"'


@pytest.mark.slow
def test_clicks_of_a_file_are_objects_and_a_bad_one_is_refused_with_its_reason(labels, tmp_path, capsys):
    file = clicks(tmp_path, "a b.png,left,30,40,1", "a b.png,left,150,110,0", "a b.png,right,30,40,",
                  "a b.png,far,500,4,1", "ghost.png,1,1,1,1")  # fmt: skip
    assert label(labels, tmp_path / "run", "prompt=points", file, detect=("detect=none",)) == 0
    record = only_record(tmp_path / "run")
    assert [c.category_id for c in record.candidates] == [1, 1, 1]
    reasons = [v.reason for v in record.verdicts]
    assert "has no sign" in reasons[1]
    assert "outside the 160x120 image" in reasons[2]
    assert "1 picture that is not in the source: 'ghost.png'" in capsys.readouterr().err


def test_clicks_of_other_pictures_are_an_error_before_any_model_answers(labels, tmp_path, capsys):
    settings = ["segment=box", "prompt=points", clicks(tmp_path, "ghost.png,1,1,1,1")]
    assert label(labels, tmp_path / "run", *settings) == 1
    assert "the 1 picture that prompt.file names is not in the source" in capsys.readouterr().err


def from_python(source: object, *settings: str) -> list[Result]:
    labeler = AutoLabeler.from_config([*LABELS, "segment=box", "prompt=points", "prompt.box=true", *settings])
    return list(labeler.label(source))


def test_clicks_are_checked_from_python_as_by_the_command(labels, tmp_path, caplog):
    with pytest.raises(ConfigError, match=r"the 1 picture that prompt.file names is not in the source \('ghost"):
        from_python(labels, clicks(tmp_path, "ghost.png,1,1,1,1"))
    with pytest.raises(ConfigError, match=r"'a b\.png' has no annotation '99'; correct the id"):
        from_python(labels, clicks(tmp_path, "a b.png,99,30,40,1"))
    with pytest.raises(
        ConfigError, match=r"none of its clicks would be asked; 1 of its objects has a mask that stays"
    ):
        from_python(labels, clicks(tmp_path, "a b.png,11,30,40,1"), "detect.keep_masks=true")
    (result,) = from_python(labels, clicks(tmp_path, "a b.png,11,30,40,1", "ghost.png,1,1,1,1"))
    assert len(result.record.candidates) == 3
    assert "1 picture that is not in the source: 'ghost.png'" in caplog.text


def test_prompts_change_the_fingerprint_by_what_they_say_and_not_by_where_it_lies(labels, tmp_path, capsys):
    file = clicks(tmp_path, "a b.png,11,30,40,1")
    asked = ["segment=box", "prompt=points", "prompt.box=true"]
    assert label(labels, tmp_path / "run", *asked, file) == 0
    moved = tmp_path / "moved.csv"
    moved.write_bytes((tmp_path / "clicks.csv").read_bytes())
    assert label(labels, tmp_path / "run", *asked, f'prompt.file="{moved}"') == 0
    assert label(labels, tmp_path / "run", *asked, clicks(tmp_path, "a b.png,11,31,40,1")) == 1
    assert "prompt (file sha256)" in capsys.readouterr().err
    assert label(labels, tmp_path / "run2", "segment=box", "prompt=jitter") == 0
    assert label(labels, tmp_path / "run2", "segment=box", "prompt=jitter", "prompt.seed=1") == 1
    assert "prompt.seed" in capsys.readouterr().err


@pytest.mark.slow
def test_everything_in_a_picture_without_a_detector(labels, tmp_path):
    settings = ["prompt=grid", "prompt.points_per_side=6", "prompt.crop_layers=1",
                "prompt.min_predicted_iou=0.3", "prompt.min_stability=0.5", "prompt.mask_iou=0.8"]  # fmt: skip
    assert label(labels, tmp_path / "run", *settings, detect=("detect=none",)) == 0
    record = only_record(tmp_path / "run")
    assert len(record.instances) >= 1
    boxes = np.array([i.box_xyxy for i in record.instances])
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    with open_reader(tmp_path / "run") as reader:
        assert [c.name for c in reader.categories] == ["object"]


def test_a_grid_whose_limits_leave_nothing_says_so(labels, tmp_path, capsys):
    grid = ["prompt=grid", "prompt.points_per_side=1", "prompt.min_stability=1.0", "prompt.min_predicted_iou=1.0"]
    assert label(labels, tmp_path / "run", *grid, detect=("detect=none",)) == 0
    assert "sifted     1 picture without an object: no answer to the grid passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["sifted"] == 1


# what cannot be asked is said before labelling


CLASSES = {11: 1, 12: 2, 13: 2}


@pytest.fixture
def classes(labels):
    """The same, one of the objects a person and two dogs."""
    document = json.loads(labels.read_text())
    document["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    for annotation in document["annotations"]:
        annotation["category_id"] = CLASSES[annotation["id"]]
    labels.write_text(json.dumps(document))
    return labels


EACH = ("a b.png,11,30,40,1", "a b.png,12,100,60,1", "a b.png,13,140,50,1")
ASKED = ("segment=box", "prompt=points", "prompt.box=true")


def refused(capsys, source, run, *settings, detect=LABELS):
    """The one line that it ends with; nothing was labelled."""
    assert label(source, run, *settings, detect=detect) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("autolabel: ")
    return error


def test_a_click_on_an_object_whose_class_is_left_out_gives_no_object_of_another(classes, tmp_path, capsys):
    settings = [*ASKED, clicks(tmp_path, *EACH), "labels.keep=[person]"]
    assert label(classes, tmp_path / "run", *settings) == 0
    assert [c.source_id for c in only_record(tmp_path / "run").candidates] == [11]
    assert "2 are of classes that labels leaves out" in capsys.readouterr().err


@pytest.mark.parametrize("detect", [LABELS, ("detect=nano",)])
def test_new_objects_need_no_detector_however_few_classes_are_left(classes, tmp_path, capsys, detect):
    kept = {"detect=nano": ["labels.keep=[object]", "labels.rename={object: forklift}"]}
    settings = ["segment=box", "prompt=grid", *kept.get(detect[0], ["labels.merge={all: [person, dog]}"])]
    assert "use detect=none" in refused(capsys, classes, tmp_path / "run", *settings, detect=detect)


def test_the_class_of_new_objects_can_be_renamed(labels, tmp_path):
    settings = ["segment=box", "prompt=points", clicks(tmp_path, *EACH), "labels.rename={object: thing}"]
    label(labels, tmp_path / "run", *settings, detect=("detect=none",))
    assert [c.category_id for c in only_record(tmp_path / "run").candidates] == [1, 1, 1]
    with open_reader(tmp_path / "run") as reader:
        assert [c.name for c in reader.categories] == ["thing"]


def test_a_mistyped_id_is_found_before_labelling_with_its_file_and_picture(labels, tmp_path, capsys):
    error = refused(capsys, labels, tmp_path / "run", *ASKED, clicks(tmp_path, *EACH, "a b.png,99,30,40,1"))
    assert all(word in error for word in ("clicks.csv", "'a b.png'", "'99'"))


def test_clicks_on_masks_that_stay_are_refused_and_some_of_them_counted(labels, tmp_path, capsys):
    file = clicks(tmp_path, *EACH)
    stay = ("detect=labels",)
    assert "keep_masks=false" in refused(capsys, labels, tmp_path / "run", *ASKED, file, detect=stay)
    document = json.loads(labels.read_text())
    del document["annotations"][0]["segmentation"]
    labels.write_text(json.dumps(document))
    assert label(labels, tmp_path / "run", *ASKED, file, detect=stay) == 0
    assert "2 of its objects have masks that stay" in capsys.readouterr().err


def test_clicks_on_what_a_detector_finds_are_refused(labels, tmp_path, capsys):
    settings = [*ASKED, clicks(tmp_path, *EACH)]
    error = refused(capsys, labels, tmp_path / "run", *settings, detect=("detect=nano",))
    assert "prompt.file" in error


@pytest.mark.parametrize("way", ["box", "box_point", "negatives", "jitter", "mask", "points"])
def test_without_a_detector_there_is_no_box_to_ask_about(labels, tmp_path, capsys, way):
    settings = ["segment=box", f"prompt={way}"]
    error = refused(capsys, labels, tmp_path / "run", *settings, detect=("detect=none",))
    assert "detect=none finds no box" in error


@pytest.mark.parametrize("detect", [("detect=labels",), ("detect=nano",)])
def test_to_ask_with_masks_there_must_be_some(labels, tmp_path, capsys, detect):
    error = refused(capsys, labels, tmp_path / "run", "segment=box", "prompt=mask", detect=detect)
    assert "prompt.run" in error


def test_a_run_of_other_pictures_has_no_masks_to_ask_with(labels, tmp_path, capsys):
    draw(tmp_path / "elsewhere" / "other.png", {0: (10, 10, 60, 80)}, (120, 160))
    other = json.loads(labels.read_text())
    other["images"][0]["file_name"] = "other.png"
    (tmp_path / "elsewhere" / "instances.json").write_text(json.dumps(other))
    assert label(tmp_path / "elsewhere" / "instances.json", tmp_path / "first", "segment=box") == 0
    settings = ["segment=box", "prompt=mask", f'prompt.run="{tmp_path / "first"}"']
    assert "prompt.run has no mask of any picture" in refused(capsys, labels, tmp_path / "run", *settings)


KEYPOINTS = ("prompt=points", "prompt.box=true")


def test_masks_of_another_file_of_that_name_are_left_out_and_its_objects_asked_for_by_their_boxes(
    labels, tmp_path, capsys
):
    assert label(labels, tmp_path / "first", "segment=box") == 0
    settings = ["segment=box", "prompt=mask", f'prompt.run="{tmp_path / "first"}"']
    assert label(labels, tmp_path / "same", *settings) == 0
    assert "another file" not in capsys.readouterr().err
    draw(tmp_path / "a b.png", {}, (240, 320))
    document = json.loads(labels.read_text())
    document["images"][0] |= {"width": 320, "height": 240}
    labels.write_text(json.dumps(document))
    assert label(labels, tmp_path / "again", *settings) == 0
    assert "prompt.run: 1 picture is another file than in that run" in capsys.readouterr().err
    assert len(only_record(tmp_path / "again").instances) == 3
    assert label(labels, tmp_path / "alone", *settings, "prompt.box=false") == 0
    assert "dropped (no_prompt)" in capsys.readouterr().err
    assert [v.reason.partition(":")[0] for v in only_record(tmp_path / "alone").verdicts] == ["no_prompt"] * 3


MASKS = ("prompt=mask",)
MASKS_ALONE = ("prompt=mask", "prompt.box=false")


def without(file: Path, field: str, *ids: int) -> Path:
    """The label file, its annotations of these ids without a field."""
    data = json.loads(file.read_text())
    for annotation in data["annotations"]:
        if annotation["id"] in ids:
            del annotation[field]
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize(
    ("field", "ask", "said"),
    [("keypoints", KEYPOINTS, "none of the 3 annotations that want a mask has a visible keypoint to ask with"),
     ("segmentation", MASKS_ALONE, "none of the 3 annotations that want a mask has a mask to ask with")],
)  # fmt: skip
def test_annotations_without_what_is_asked_with_are_no_pictures_without_objects(
    labels, tmp_path, capsys, field, ask, said
):
    assert label(without(labels, field, *BOXES), tmp_path / "run", "segment=box", *ask) == 1
    assert f"{said}, so nothing would be labelled; use prompt=box" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "ids", "ask", "said"),
    [("keypoints", [12], KEYPOINTS, "1 of 3 annotations that want a mask has no visible keypoint to ask with: it is dropped"),
     ("segmentation", [11, 13], MASKS, "2 of 3 annotations that want a mask have no mask to ask with: they are asked with"),
     ("segmentation", BOXES, MASKS, "3 of 3 annotations that want a mask have no mask to ask with: they are asked with")],
)  # fmt: skip
def test_annotations_that_lack_what_is_asked_with_are_counted(labels, tmp_path, capsys, field, ids, ask, said):
    assert label(without(labels, field, *ids), tmp_path / "run", "segment=box", *ask) == 0
    assert said in capsys.readouterr().err


def test_keypoints_are_not_missed_where_no_mask_is_wanted(labels, tmp_path, capsys):
    source = without(labels, "keypoints", *BOXES)
    assert label(source, tmp_path / "run", "segment=box", *KEYPOINTS, detect=("detect=labels",)) == 0
    assert "want a mask" not in capsys.readouterr().err


def test_keypoints_of_what_a_model_finds_are_refused(labels, tmp_path, capsys):
    assert label(labels, tmp_path / "run", "segment=box", *KEYPOINTS, detect=("detect=nano",)) == 1
    assert "asks with the keypoints of annotations, and there are none" in capsys.readouterr().err
