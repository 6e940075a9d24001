"""The quality score: its file, its fit to truth, and the refiner that sets it."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from autolabel.core.errors import ConfigError
from autolabel.core.types import ImageInfo
from autolabel.evaluate.calibration import FEWEST_OBJECTS, Known, fit, fit_rows, known
from autolabel.ops.quality import SIGNALS, Calibration, Curve, expected_iou, read_calibration, signals, to_json
from autolabel.ops.settings import SMALL_BYTES
from autolabel.refine.quality import QualityRefiner, default_path
from tests.records import ListReader, disc, instance, record, shapes

IMAGE = ImageInfo(160, 120)
NAMES = [signal.name for signal in SIGNALS]
STEPS = Calibration(0.0, (Curve("predicted_iou", 0.0, 1.0, (-2.0, 2.0)),), {})


def rows_of(**columns):
    rows = np.full((len(next(iter(columns.values()))), len(SIGNALS)), np.nan)
    for name, values in columns.items():
        rows[:, NAMES.index(name)] = values
    return rows


def scored(instances, calibration="default", min_quality=None):
    return QualityRefiner(calibration=calibration, min_quality=min_quality).refine(instances, IMAGE)


def objects(count=200, seed=0, says=0.8):
    """Discs whose predicted IoU says something about the IoU; `says` how much."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(count):
        iou = float(random.uniform(0.2, 0.95))
        mask = disc(120, 160, *random.integers(30, 90, 2), int(random.integers(4, 25)))
        guess = float(np.clip(says * iou + (1 - says) * random.uniform(), 0, 1))
        made = instance(mask, i % 4, predicted_iou=guess, stability=float(random.uniform()))
        found.append(Known(f"picture {i // 4}", made, iou))
    return found


def test_every_signal_is_finite_and_within_its_curve_but_for_what_the_model_does_not_give():
    rows = signals([instance(mask, i, predicted_iou=None) for i, mask in enumerate(shapes().values())])
    missing = {"predicted_iou", "stability", "object_score", "agreement"}
    for k, signal in enumerate(SIGNALS):
        if signal.name in missing:
            assert np.isnan(rows[:, k]).all()
        else:
            assert np.isfinite(rows[:, k]).all()
            assert (rows[:, k] >= signal.low).all(), signal.name


def test_the_signals_of_a_square_are_known():
    mask = np.zeros((100, 100), np.uint8)
    mask[20:60, 20:60] = 1
    (row,) = signals([instance(mask, box_xyxy=(20.0, 20.0, 60.0, 100.0))])
    found = dict(zip(NAMES, row, strict=True))
    expected = {"box_fit": 0.5, "outside": 0.0, "fill": 0.5, "loose": 0.0, "parts": 0.0, "holes": 0.0, "hole_share": 0.0,
                "compactness": math.pi / 4, "image_share": math.log10(0.16), "border": 0.0}  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_missing_signal_adds_what_its_curve_says():
    rows = rows_of(predicted_iou=[0.5, math.nan])
    assert expected_iou(rows, STEPS) == [0.5, 0.5]
    assert expected_iou(rows, replace(STEPS, curves=(replace(STEPS.curves[0], missing=-2.0),))) == [0.5, 0.1192]


def test_values_beyond_the_ends_of_a_curve_lead_nowhere_new():
    rows = rows_of(predicted_iou=[-5.0, 0.0, 1.0, 7.0, math.inf])
    assert expected_iou(rows, STEPS) == [0.1192, 0.1192, 0.8808, 0.8808, 0.8808]


def test_masks_without_any_score_are_scored_too():
    bare = [instance(mask, i, predicted_iou=None) for i, mask in enumerate(shapes().values())]
    kept, dropped = scored(bare)
    assert dropped == []
    assert all(0 < one.quality < 1 for one in kept)


def test_nothing_but_the_quality_changes():
    given = [instance(mask, i) for i, mask in enumerate(shapes().values())]
    assert [replace(one, quality=None) for one in scored(given)[0]] == given


def test_masks_below_the_floor_are_dropped_with_both_numbers_and_keep_their_score(tmp_path):
    path = tmp_path / "quality.json"
    path.write_text(to_json(STEPS))
    good, bad = (instance(shapes()["disc"], i, predicted_iou=score) for i, score in enumerate([1.0, 0.0]))
    kept, dropped = scored([good, bad], str(path), 0.5)
    assert [one.quality for one in kept] == [0.8808]
    assert [(d.reason, d.instance.quality) for d in dropped] == [("min_quality: 0.119 < 0.5", 0.1192)]


def test_the_persons_own_masks_are_not_judged():
    own = instance(shapes()["disc"], origin="label")
    assert scored([own], min_quality=1.0) == ([own], [])


def test_an_empty_mask_has_no_quality_at_all():
    kept, _ = scored([instance(np.zeros((120, 160), np.uint8))])
    assert kept[0].quality == 0.0


def test_the_shipped_calibration_says_where_it_is_from_and_ranks_better_than_the_segmenter():
    about = read_calibration(default_path())[0].about
    assert {"data", "objects", "images", "held_out", "predicted_iou"} <= set(about)
    assert about["held_out"]["aurc"] < about["predicted_iou"]["aurc"]


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    found = fit(objects(), data="made up", prior=None)
    path = tmp_path / "quality.json"
    path.write_text(to_json(found))
    again, sha256 = read_calibration(path)
    assert again == found
    assert QualityRefiner(calibration=str(path), min_quality=None).identity == {"calibration": sha256}


def test_a_fit_finds_what_ranks_and_the_same_one_every_time():
    found = fit(objects(400), data="made up", prior=None)
    assert found == fit(objects(400), data="made up", prior=None)
    assert found.about["held_out"]["spearman"] > 0.8
    assert found.about["held_out"]["mean_abs_error"] < 0.1
    assert (found.about["objects"], found.about["images"]) == (400, 100)


def test_what_is_expected_is_right_on_average():
    many = objects(400)
    found = fit(many, data="made up", prior=None)
    expected = expected_iou(signals([one.instance for one in many]), found)
    assert np.mean(expected) == pytest.approx(np.mean([one.iou for one in many]), abs=1e-3)


def test_a_score_of_a_model_never_counts_against_a_mask():
    rows = rows_of(predicted_iou=np.linspace(0, 1, 200), fill=np.linspace(0, 1, 200))
    found = fit_rows(rows, np.linspace(0.9, 0.1, 200), None)
    curves = {curve.signal: curve.adds for curve in found.curves}
    assert "predicted_iou" not in curves  # it would fall, so it stays flat
    assert (np.diff(curves["fill"]) < 0).all()


def test_signals_that_are_missing_or_always_the_same_get_no_curve():
    found = fit(objects(), data="made up", prior=None)
    assert not {"agreement", "object_score", "detector_score", "parts"} & {curve.signal for curve in found.curves}


def test_with_few_objects_a_fit_stays_near_its_prior():
    few, shipped = objects(FEWEST_OBJECTS, says=0.0), read_calibration(default_path())[0]
    rows = signals([one.instance for one in few])
    ious = np.array([one.iou for one in few])
    prior = np.array(expected_iou(rows, shipped))

    def distance(calibration):
        found = np.array(expected_iou(rows, calibration))
        return np.corrcoef(found, prior)[0, 1]

    assert distance(fit_rows(rows, ious, shipped)) > distance(fit_rows(rows, ious, None))


def test_too_few_objects_are_refused_with_their_number():
    with pytest.raises(
        ConfigError, match=f"at least {FEWEST_OBJECTS} found objects with ground truth, there are 7"
    ):
        fit(objects(7), data="made up", prior=None)


def test_the_known_objects_of_a_run_are_those_with_truth_and_a_mask_of_their_own():
    made = [instance(shapes()["disc"], i) for i in range(4)]
    made[2] = replace(made[2], origin="label")
    run = ListReader([record("a.png", made), record("b.png", made[:1])])
    lines = [
        {"image_id": "a.png", "index": 0, "iou": 0.75},
        {"image_id": "a.png", "index": 1, "iou": None},
        {"image_id": "a.png", "index": 2, "iou": 1.0},
        {"image_id": "a.png", "index": None, "iou": None},
        {"image_id": "elsewhere", "index": 0, "iou": 0.5},
    ]
    found = list(known(run, map(json.dumps, lines)))
    assert [(one.image_id, one.instance.index, one.iou) for one in found] == [
        ("a.png", 0, 0.75),
        ("a.png", 1, 0.0),
    ]
    assert list(known(run, map(json.dumps, lines), without={"a.png"})) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", '{"version": 1}', '{"version": 1, "bias": "x", "curves": {}, "about": {}}',
        '{"version": 1, "bias": NaN, "curves": {}, "about": {}}',
        '{"version": 1, "bias": 0, "curves": {"colour": {"low": 0, "high": 1, "adds": [0, 1], "missing": 0}}, "about": {}}',
        '{"version": 1, "bias": 0, "curves": {"fill": {"low": 1, "high": 1, "adds": [0, 1], "missing": 0}}, "about": {}}',
        '{"version": 1, "bias": 0, "curves": {"fill": {"low": 0, "high": 1, "adds": [0], "missing": 0}}, "about": {}}',
        '{"version": 1, "bias": 0, "curves": [], "about": {}}',
        "\x00\xff",
    ],
)  # fmt: skip
def test_a_file_that_is_no_calibration_is_named_in_one_line(text, tmp_path):
    path = tmp_path / "quality.json"
    path.write_text(text, "latin-1")
    with pytest.raises(ConfigError, match=r"calibration: .*quality.json is not a calibration") as caught:
        scored([], str(path))
    assert "\n" not in str(caught.value)


def test_a_calibration_of_another_version_is_refused(tmp_path):
    (tmp_path / "quality.json").write_text('{"version": 2}')
    with pytest.raises(ConfigError, match="has version 2, this program reads 1"):
        scored([], str(tmp_path / "quality.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibration": "nowhere.json"}, "calibration: nowhere.json cannot be read"),
    ],
)
def test_a_setting_out_of_range_names_its_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        scored([], **{"calibration": "default", "min_quality": None, **settings})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_only_a_small_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(SMALL_BYTES + 1)
    for place, why in (
        ("pipe", "not a regular file"),
        ("large", "more than 16 MiB"),
        ("/dev/zero", "not a regular file"),
    ):
        with pytest.raises(ConfigError, match=f"calibration: .* cannot be read .*{why}.*or default"):
            scored([], str(tmp_path / place))
    with pytest.raises(ConfigError, match=r"a\\x1b\[31m cannot be read"):
        scored([], "a\x1b[31m")
