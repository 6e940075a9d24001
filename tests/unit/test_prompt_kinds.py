"""Each way to ask, as questions: which prompts, about which object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autolabel.core.errors import ConfigError
from autolabel.core.types import NO_OBJECT, Detections, Frame, ImageInfo, ImageRef, Labels
from autolabel.detect.labels import LabelsDetector
from autolabel.ops.masks import encode
from autolabel.ops.points import prompt_problem
from autolabel.prompt.box_point import BoxPointPrompter
from autolabel.prompt.grid import GridPrompter
from autolabel.prompt.jitter import JitterPrompter
from autolabel.prompt.mask import MaskPrompter, matches
from autolabel.prompt.negatives import NegativesPrompter
from autolabel.prompt.points import PointsPrompter
from tests.records import disc

SIZE = (120, 160)
INFO = ImageInfo(160, 120)
BOXES = [[10, 10, 60, 60], [40, 20, 100, 80], [12, 12, 30, 30], [110, 10, 150, 50]]


def frame(image_id: str = "a b.jpg", info: ImageInfo = INFO, labels: Labels | None = None) -> Frame:
    return Frame(ImageRef(image_id, image_id, labels), np.zeros((*info.size_hw, 3), np.uint8), info)


def found(rows=BOXES, **columns) -> Detections:
    n = len(rows)
    return Detections(
        np.array(rows, np.float32).reshape(n, 4), np.ones(n, np.float32), np.ones(n, np.int64), **columns
    )


def one(prompter, detections=None, asked=None, picture=None):
    detections = found() if detections is None else detections
    rows = tuple(range(len(detections))) if asked is None else asked
    (prompts,) = prompter.prompt([picture or frame()], [detections], [rows])
    return prompts


# box_point


def test_the_point_is_the_middle_of_the_box_or_the_most_inside_one_of_the_mask():
    masks = (encode(disc(120, 160, 30, 40, 15)), None, None, None)
    detections = found(replaced=masks)
    inside, centre = (one(BoxPointPrompter(point=p, pad=0.0), detections) for p in ("inside", "centre"))
    assert centre.points_xy[:, 0].tolist() == [[35, 35], [70, 50], [21, 21], [130, 30]]
    assert inside.points_xy[0, 0].tolist() == [30.5, 40.5]
    assert (inside.points_xy[1:] == centre.points_xy[1:]).all()
    assert (inside.point_signs == 1).all()


# negatives


def negatives(**changes):
    return NegativesPrompter(**{"reach": 0.0, "max_points": 8, "max_overlap": 0.8, "pad": 0.0, **changes})


def clicks_of(prompts, row):
    return prompts.points_xy[row][prompts.point_signs[row] == 0].tolist()


def test_a_neighbour_in_the_box_is_a_click_outside_and_a_part_is_none():
    detections = found([[0, 0, 100, 100], [80, 80, 130, 119], [5, 5, 20, 20], [60, 10, 130, 50]])
    # The middle of 1 lies outside of 0, 2 is a part of it, the middle of 3 lies inside.
    prompts = one(negatives(), detections)
    assert [clicks_of(prompts, row) for row in range(4)] == [[[95, 30]], [], [], []]
    assert clicks_of(one(negatives(max_overlap=1.0), detections), 0) == [[95, 30], [12.5, 12.5]]
    assert [105, 99.5] in clicks_of(one(negatives(reach=0.1), detections), 0)


def test_only_the_nearest_neighbours_are_clicked_and_those_with_masks_count_too():
    detections = found([[0, 0, 100, 100], [40, 45, 130, 118], [60, 0, 130, 60]],
                       masks=(None, encode(disc(120, 160, 70, 70, 9)), None))  # fmt: skip
    prompts = one(negatives(max_points=1), detections, asked=(0,))
    assert prompts.objects.tolist() == [0]
    assert clicks_of(prompts, 0) == [[70.5, 70.5]]
    assert len(clicks_of(one(negatives(), detections, asked=(0,)), 0)) == 2


def test_boxes_that_no_model_may_see_are_no_neighbours():
    detections = found([[0, 0, 100, 100], [np.nan, 0, 5, 5], [30, 30, 20, 20], [50, 50, 50, 60]])
    assert one(negatives(), detections, asked=(0,)).points_xy is None


# jitter


def jitter(**changes):
    return JitterPrompter(**{"count": 3, "amount": 0.1, "keep": "original", "seed": 0, "pad": 0.0, **changes})


def test_the_box_itself_comes_first_and_the_others_are_near():
    prompts = one(jitter())
    boxes = prompts.boxes_xyxy.reshape(4, 4, 4)
    assert prompts.objects.tolist() == np.repeat(range(4), 4).tolist()
    assert (boxes[:, 0] == np.array(BOXES)).all()
    sides = (boxes[:, :1, 2:] - boxes[:, :1, :2]).repeat(2, 2).reshape(4, 1, 4)[..., [0, 2, 1, 3]]
    assert (np.abs(boxes - boxes[:, :1]) <= 0.1 * sides + 1e-3).all()
    assert not (boxes[:, 1:] == boxes[:, :1]).all()


def test_moves_depend_on_seed_picture_and_number_and_on_nothing_else():
    whole, alone = one(jitter()), one(jitter(), asked=(2,))
    assert (whole.select(range(8, 12)).boxes_xyxy == alone.boxes_xyxy).all()
    together = jitter().prompt([frame("x"), frame()], [found(), found()], [(0,), (2,)])[1]
    assert (together.boxes_xyxy == alone.boxes_xyxy).all()
    for other in (one(jitter(seed=1), asked=(2,)), one(jitter(), asked=(2,), picture=frame("b"))):
        assert not (other.boxes_xyxy == alone.boxes_xyxy).all()


def test_moved_boxes_are_ones_that_a_model_may_see():
    detections = found([[0, 0, 1, 1], [159, 119, 160, 120], [0, 0, 160, 120]])
    prompts = one(jitter(amount=1.0, count=64), detections)
    assert {prompt_problem(prompts, row, SIZE) for row in range(len(prompts))} == {None}


# mask


class Earlier:
    identity: Mapping[str, str] = {"run": "abc"}

    def of(self, image_id, sha256):
        rows = [[40, 20, 100, 82], [0, 0, 5, 5]]
        return np.array(rows, np.float32), (encode(disc(120, 160, 70, 50, 20)), encode(disc(120, 160, 2, 2, 2)))


def mask_prompter(**changes):
    return MaskPrompter(**{"run": None, "earlier": Earlier(), "min_iou": 0.5, "box": True, "pad": 0.0, **changes})


def test_the_mask_of_the_labels_is_asked_with_and_an_object_without_one_by_its_box():
    known = encode(disc(120, 160, 30, 40, 15))
    detections = found(replaced=(None, known, None, None))
    assert one(mask_prompter(), detections).masks == (None, known, None, None)
    bare = one(mask_prompter(box=False), detections)
    assert (bare.objects.tolist(), bare.masks, bare.boxes_xyxy) == ([1], (known,), None)
    assert sorted(bare.refused) == [0, 2, 3]
    assert mask_prompter().identity == {}


def test_the_mask_of_an_earlier_run_goes_to_the_box_it_fits():
    prompts = one(mask_prompter(run="runs/a"))
    assert [mask is not None for mask in prompts.masks] == [False, True, False, False]
    assert mask_prompter(run="runs/a").identity == {"run": "abc"}


def test_each_box_is_matched_once_best_first():
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    b = np.array([[0, 0, 10, 9], [0, 0, 10, 5]], np.float32)
    assert matches(a, b, 0.4) == [(1, 0), (0, 1)]
    assert matches(a, b[:1], 0.4) == [(1, 0)]
    assert matches(a, b[:0], 0.0) == []


# points


def points(file: Path | None = None, **changes):
    return PointsPrompter(
        **{"file": None if file is None else str(file), "hidden_keypoints": False, "box": False, **changes}
    )


CSV = "image,object,x,y,sign\na b.jpg,12,10,20,1\na b.jpg,12,30,40,0\na b.jpg,leaf,50,60,+\nother.jpg,1,1,1,1\n"


def test_the_clicks_of_an_object_are_one_prompt_and_a_name_of_nobodys_is_a_new_object(tmp_path):
    file = tmp_path / "clicks.csv"
    file.write_text(CSV)
    prompts = one(points(file), found(source_ids=(11, 12, None, 13)))
    assert prompts.objects.tolist() == [1, 4]
    assert prompts.points_xy.tolist() == [[[10, 20], [30, 40]], [[50, 60], [0, 0]]]
    assert prompts.point_signs.tolist() == [[1, 0], [1, -1]]
    assert (prompts.added, sorted(prompts.refused)) == (1, [0, 2, 3])


def test_csv_and_json_say_the_same(tmp_path):
    table, tree = tmp_path / "c.csv", tmp_path / "c.JSON"
    table.write_text(CSV)
    tree.write_text(json.dumps({
        "a b.jpg": [{"object": "12", "points": [[10, 20], [30, 40]], "signs": [1, 0]},
                    {"object": "leaf", "points": [[50, 60]], "signs": ["+"]}],
        "other.jpg": [{"points": [[1, 1]], "signs": [1]}]}))  # fmt: skip
    a, b = (one(points(file), found(source_ids=(11, 12, None, 13))) for file in (table, tree))
    assert (a.objects.tolist(), a.points_xy.tolist(), a.point_signs.tolist()) == (
        b.objects.tolist(), b.points_xy.tolist(), b.point_signs.tolist())  # fmt: skip
    assert points(table).image_ids == points(tree).image_ids == {"a b.jpg", "other.jpg"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [("10,20,", "no sign"), ("10,20,2", "no sign"), ("x,20,1", "not finite"), ("nan,20,1", "not finite"),
     ("160,20,1", "outside"), ("10,-1,1", "outside"), ("10,20,0", "every point is outside the object")],
)  # fmt: skip
def test_a_bad_click_refuses_its_object_alone(tmp_path, row, reason):
    file = tmp_path / "clicks.csv"
    file.write_text(f"image,object,x,y,sign\na b.jpg,good,10,20,1\na b.jpg,bad,{row}\n")
    prompts = one(points(file), Detections.none())
    problems = [prompt_problem(prompts, i, SIZE) for i in range(2)]
    assert problems[0] is None
    assert problems[1].startswith("bad_point")
    assert reason in problems[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.csv", "image,x,y\n"), ("c.csv", ""), ("c.csv", "image,x,y,sign\n" + "a" * 200_000), ("c.json", "["), ("c.json", "[]"), ("c.json", '{"a": 1}'),
     ("c.csv", "image,x,y,sign\n"), ("c.csv", "image,x,y,sign\n,1,1,1\n"), ("c.json", "{}"), ("c.json", '{"a": []}'),
     ("c.json", '{"a": [{"points": [[1, 1]]}], "a": [{"points": [[2, 2]]}]}'),
     ("c.json", '{"a": [{"points": [[1, 1]], "points": [[2, 2]]}]}'), ("c.json", '{"a": [1]}'), ("c.json", '{"a": [{"points": [[1]]}]}')],
)  # fmt: skip
def test_a_file_that_is_none_of_clicks_is_refused_in_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=r"^file") as caught:
        points(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_objects_without_a_name_are_not_one(tmp_path):
    (tmp_path / "c.json").write_text(
        '{"a b.jpg": [{"object": null, "points": [[1, 1]], "signs": [1]}, {"object": null, "points": [[2, 2]], "signs": [1]}]}'
    )
    prompts = one(points(tmp_path / "c.json"), Detections.none())
    assert (prompts.added, prompts.points_xy.tolist()) == (2, [[[1, 1]], [[2, 2]]])


def test_no_name_is_that_of_an_object_without_one(tmp_path):
    (tmp_path / "c.json").write_text(
        '{"a b.jpg": [{"object": "#1", "points": [[1, 1]], "signs": [1]}, {"points": [[2, 2]], "signs": [1]},'
        ' {"object": "#1", "points": [[3, 3]], "signs": [0]}]}'
    )
    prompts = one(points(tmp_path / "c.json"), Detections.none())
    assert (prompts.added, prompts.points_xy.tolist()) == (2, [[[1, 1], [3, 3]], [[2, 2], [0, 0]]])


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="cannot be read"):
        points(Path("nowhere.csv"))


def test_keypoints_that_are_seen_are_clicks_inside():
    extras = ('{"keypoints": [10, 20, 2, 30, 40, 1, 0, 0, 0]}', "", '{"keypoints": "none"}', '{"a": 1}')
    prompts = one(points(), found(extras=extras))
    assert (prompts.objects.tolist(), prompts.points_xy.tolist()) == ([0], [[[10, 20]]])
    assert sorted(prompts.refused) == [1, 2, 3]
    hidden = one(points(hidden_keypoints=True, box=True), found(extras=extras))
    assert hidden.points_xy.tolist() == [[[10, 20], [30, 40]]]
    assert hidden.boxes_xyxy.tolist() == [BOXES[0]]


def test_keypoints_turn_with_a_picture_that_was_labelled_as_stored():
    info = ImageInfo(120, 160, orientation=6)
    labels = Labels(
        np.zeros((1, 4), np.float32),
        np.ones(1, np.int64),
        (None,),
        (None,),
        (False,),
        size_hw=(120, 160),
        extras=('{"keypoints": [10, 20, 2]}',),
    )
    picture = frame(info=info, labels=labels)
    (detections,) = LabelsDetector(keep_masks=False).detect([picture])
    assert one(points(), detections, picture=picture).points_xy.tolist() == [[[100, 10]]]


def test_other_clicks_are_another_identity(tmp_path):
    file = tmp_path / "clicks.csv"
    file.write_text(CSV)
    before = points(file).identity
    file.write_text(CSV + "other.jpg,1,2,2,1\n")
    assert before != points(file).identity != {}


# grid


def grid(**changes):
    plain = {"points_per_side": 4, "crop_layers": 0, "crop_overlap": 512 / 1500, "crop_points_downscale": 1,
             "three_masks": True, "min_predicted_iou": 0.8, "min_stability": 0.95, "min_area_px": 1,
             "max_area_fraction": 1.0, "box_iou": 0.7, "crop_iou": 0.7, "mask_iou": None}  # fmt: skip
    return GridPrompter(**{**plain, **changes})


def test_a_grid_asks_for_whatever_is_there():
    prompts = one(grid(), Detections.none())
    assert (prompts.objects == NO_OBJECT).all()
    assert prompts.points_xy[:5, 0].tolist() == [[20, 15], [60, 15], [100, 15], [140, 15], [20, 45]]
    assert prompts.windows_xyxy is None


def test_crops_have_grids_of_their_own():
    prompts = one(grid(crop_layers=2, crop_points_downscale=2), Detections.none())
    windows, counts = np.unique(prompts.windows_xyxy, axis=0, return_counts=True)
    assert sorted(counts.tolist()) == [1] * 16 + [4] * 4 + [16]
    x0, y0, x1, y1 = prompts.windows_xyxy.T
    x, y = prompts.points_xy[:, 0].T
    assert ((x0 < x) & (x < x1) & (y0 < y) & (y < y1)).all()
    assert windows.max() == 160


# settings


def test_a_place_for_the_point_must_be_one_of_two():
    with pytest.raises(ConfigError, match=r"^point "):
        BoxPointPrompter(point="corner", pad=0.0)


def test_every_prompter_is_asked_about_nothing_without_harm():
    nothing = replace(found(), boxes_xyxy=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32),
                      category_ids=np.zeros(0, np.int64), masks=(), polygons=(), source_ids=(), crowd=(), extras=(),
                      replaced=())  # fmt: skip
    for make in (jitter, negatives, mask_prompter, points, lambda: BoxPointPrompter(point="inside", pad=0.0)):
        assert len(one(make(), nothing)) == 0
