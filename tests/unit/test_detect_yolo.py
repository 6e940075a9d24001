"""Ultralytics detectors: the boxes of `YOLO.predict`, and nothing else of ultralytics."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.errors import ConfigError, ImageError, WeightsError
from autolabel.core.types import Frame, ImageInfo, ImageRef
from autolabel.detect.yolo import YoloDetector, above, letterbox, load_detector, voted
from autolabel.weights.quiet import ultralytics_at_bay
from autolabel.weights.registry import SHIPPED

SIZES_HW = [(96, 160), (160, 90), (128, 128), (41, 30)]


def detector(weights: str, **changed) -> YoloDetector:
    plain = {
        "architecture": None,
        "conf": 0.05,
        "iou": 0.7,
        "max_det": 50,
        "image_size": 128,
        "batch": 0,
        "device": "cpu",
        "precision": "float32",
        "classes": None,
        "agnostic_nms": False,
    }
    return YoloDetector(weights=weights, **{**plain, **changed})


def frame(height: int, width: int, seed: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    image = np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[:height, :width])
    return Frame(ImageRef("a", "a"), image, ImageInfo(width, height))


FRAMES = [frame(h, w, seed) for seed, (h, w) in enumerate(SIZES_HW)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Paths of checkpoints that find many objects: random weights whose activations and scores spread."""
    folder = tmp_path_factory.mktemp("some checkpoints")

    def make(architecture: str) -> str:
        path = folder / f"{architecture.removesuffix('.yaml')}.pt"
        if not path.exists():
            with ultralytics_at_bay():
                torch.save({"model": lively(load_detector("random:0", architecture).model)}, path)
        return str(path)

    return make


def lively(model):
    torch.manual_seed(0)
    head = model.model[-1]
    # As ultralytics writes them, which reads them again in `predict`.
    model.task = {"Segment": "segment", "Pose": "pose"}.get(type(head).__name__.removesuffix("26"), "detect")
    model.kpt_shape = getattr(head, "kpt_shape", None)
    with torch.no_grad():
        if hasattr(head, "cv2"):
            norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            for norm in norms:
                norm.momentum = 1.0
            squares = np.stack([letterbox(f.image_rgb, 128, stretch=False).image_rgb for f in FRAMES])
            model.train()(torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255)
            branches = [
                n for n in ("cv2", "cv3", "one2one_cv2", "one2one_cv3") if getattr(head, n, None) is not None
            ]
            last = {name: [level[-1] for level in getattr(head, name)] for name in branches}
        else:
            last = {"cv3": [*head.dec_score_head, head.enc_score_head]}
        for name, layers in last.items():
            for layer in layers:
                layer.weight.normal_(0, 0.1)
                if name.endswith("cv3"):
                    layer.bias.fill_(-4)
    return model.eval()


def rows(found):
    return np.column_stack([found.boxes_xyxy, found.scores, found.category_ids])


def same_as_ultralytics(path: str, ours: YoloDetector) -> None:
    from ultralytics import RTDETR, YOLO

    theirs = (RTDETR if "rtdetr" in path else YOLO)(path)
    settings_ = {"conf": 0.05, "iou": 0.7, "max_det": 50, "imgsz": 128, "rect": False, "verbose": False}
    for picture, found in zip(FRAMES, ours.detect(FRAMES), strict=True):
        (result,) = theirs.predict(picture.image_rgb[..., ::-1].copy(), device="cpu", save=False, **settings_)
        expected = result.boxes.data.numpy()
        expected = expected[np.argsort(-expected[:, 4], kind="stable")] + np.array([0, 0, 0, 0, 0, 1], np.float32)
        assert len(found) == len(expected) > 0
        assert np.allclose(found.scores, expected[:, 4], atol=1e-3)
        # Scores nearer than float32 tells apart come in either order: which one is a matter of the processor.
        same = np.abs(rows(found)[:, None] - expected[None]).max(axis=2).argmin(axis=0)
        assert sorted(same) == list(range(len(found)))
        assert np.allclose(rows(found)[same], expected, atol=1e-2)


@pytest.mark.parametrize(
    "architecture",
    [
        "yolo11n.yaml",
        "yolov8n.yaml",
        "yolo26n.yaml",
        "yolo11n-seg.yaml",
        "yolo26n-seg.yaml",
        "yolo11n-pose.yaml",
        "yolo26n-pose.yaml",
    ],
)
def test_boxes_are_those_of_predict(checkpoint, architecture):
    path = checkpoint(architecture)
    same_as_ultralytics(path, detector(path))


@pytest.mark.slow
def test_boxes_of_rtdetr_are_those_of_predict(checkpoint):
    path = checkpoint("rtdetr-l.yaml")
    same_as_ultralytics(path, detector(path))


def test_boxes_do_not_depend_on_the_neighbours(checkpoint):
    ours = detector(checkpoint("yolo11n.yaml"))
    together = ours.detect(FRAMES)
    for alone, found in zip(FRAMES, together, strict=True):
        assert np.array_equal(rows(ours.detect([alone])[0]), rows(found))


def test_a_batch_moves_boxes_by_less_than_a_hundredth_of_a_pixel(checkpoint):
    path = checkpoint("yolov8n.yaml")
    for one, many in zip(detector(path).detect(FRAMES), detector(path, batch=4).detect(FRAMES), strict=True):
        assert np.allclose(rows(one), rows(many), atol=1e-2)


def test_boxes_are_sorted_by_score_and_inside_the_picture(checkpoint):
    for picture, found in zip(FRAMES, detector(checkpoint("yolo11n.yaml")).detect(FRAMES), strict=True):
        height, width = picture.image_rgb.shape[:2]
        assert (np.diff(found.scores) <= 0).all()
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= [width, height, width, height]).all()
        assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32


def test_no_pictures_and_nothing_found(checkpoint):
    strict = detector(checkpoint("yolo11n.yaml"), conf=1.0)
    assert strict.detect([]) == []
    assert [len(found) for found in strict.detect(FRAMES)] == [0] * 4
    assert strict.detect(FRAMES[:1])[0].boxes_xyxy.shape == (0, 4)


def test_red_is_not_blue(checkpoint):
    ours = detector(checkpoint("yolo11n.yaml"))
    swapped = Frame(FRAMES[0].ref, FRAMES[0].image_rgb[..., ::-1], FRAMES[0].info)
    assert not np.array_equal(rows(ours.detect([swapped])[0])[:5], rows(ours.detect(FRAMES[:1])[0])[:5])


def test_classes_are_chosen_by_name_and_keep_their_ids(checkpoint):
    path = checkpoint("yolo11n.yaml")
    everything = detector(path)
    wanted = sorted({int(i) for found in everything.detect(FRAMES) for i in found.category_ids})[:2]
    names = [category.name for category in everything.categories if category.id in wanted]
    chosen = detector(path, classes=names)
    assert [category.id for category in chosen.categories] == wanted
    assert {int(i) for found in chosen.detect(FRAMES) for i in found.category_ids} == set(wanted)


def test_an_unknown_class_names_those_like_it(tmp_path):
    make_safetensors(tmp_path / "pets.safetensors", names=["cat", "dog", "horse"])
    with pytest.raises(ConfigError, match=r"classes: the model has no class 'hors'; did you mean horse\?"):
        detector(str(tmp_path / "pets.safetensors"), classes=["dog", "hors"])


def make_safetensors(path, *, names, drop: str | None = None) -> None:
    from safetensors.torch import save_file
    from ultralytics.nn.tasks import DetectionModel

    with ultralytics_at_bay():
        state = DetectionModel("yolo11n.yaml", nc=len(names), verbose=False).state_dict()
    save_file({key: tensor for key, tensor in state.items() if key != drop}, path)
    card = {"architecture": "yolo11n.yaml", "nc": len(names), "names": names}
    path.with_suffix(".json").write_text(json.dumps(card))


def test_safetensors_take_architecture_and_names_from_the_card_beside(tmp_path):
    make_safetensors(tmp_path / "pets.safetensors", names=["cat", "dog"])
    ours = detector(str(tmp_path / "pets.safetensors"))
    assert [(category.id, category.name) for category in ours.categories] == [(1, "cat"), (2, "dog")]
    assert len(ours.identity["weights"]) == 64


def test_weights_that_do_not_fit_are_refused_with_their_keys(tmp_path):
    make_safetensors(tmp_path / "pets.safetensors", names=["cat"], drop="model.0.conv.weight")
    with pytest.raises(WeightsError, match=r"does not fit its architecture: 1 missing: model\.0\.conv\.weight$"):
        detector(str(tmp_path / "pets.safetensors"))


class _RunsCode:
    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


def test_a_checkpoint_with_code_is_refused_and_does_not_run_it(tmp_path, capsys):
    torch.save({"model": _RunsCode()}, tmp_path / "hostile.pt")
    with pytest.raises(WeightsError, match=r"hostile\.pt cannot be loaded without running code"):
        detector(str(tmp_path / "hostile.pt"))
    assert "ran" not in capsys.readouterr().out


def test_an_unknown_architecture_names_those_like_it():
    with pytest.raises(ConfigError, match=r"architecture 'yolo11q\.yaml' is not a file"):
        detector("random:0", architecture="yolo11q.yaml")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("image_size", 100), ("device", "tpu"), ("weights", "random:x"), ("classes", []), ("box_voting", 0)],
)
def test_what_a_model_or_a_device_cannot_have_is_refused(setting, value):
    given_ = {"weights": "random:0", "architecture": "yolo11n.yaml", setting: value}
    with pytest.raises(ConfigError, match=rf"^{setting}\b"):
        detector(**given_)


@settings(max_examples=40)
@given(height=st.integers(1, 400), width=st.integers(1, 400), side=st.sampled_from([32, 64, 160]))
def test_the_letterbox_is_that_of_ultralytics(height, width, side):
    from ultralytics.data.augment import LetterBox

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for stretch in (False, True):
        expected = LetterBox((side, side), scale_fill=stretch)(image=image)
        assert np.array_equal(letterbox(image, side, stretch=stretch).image_rgb, expected)
    expected = LetterBox((side, side), auto=True, stride=32)(image=image)
    assert np.array_equal(letterbox(image, side, stretch=False, stride=32).image_rgb, expected)


def test_a_picture_that_is_made_smaller_by_area_keeps_all_its_pixels():
    board = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
    plain, mean = (letterbox(board, 64, stretch=False, shrink=how) for how in ("bilinear", "area"))
    assert (plain.scale_xy, plain.offset_xy) == (mean.scale_xy, mean.offset_xy)
    means = board.reshape(32, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.abs(mean.image_rgb[16:48] - means).max() <= 0.5
    assert np.abs(plain.image_rgb[16:48] - means).max() > 50
    for small in (board[:20, :30], board[:64, :64]):  # nothing to lose
        equal = [letterbox(small, 64, stretch=False, shrink=how).image_rgb for how in ("bilinear", "area")]
        assert np.array_equal(*equal)


def test_pictures_of_several_sizes_are_answered_in_their_order(checkpoint):
    ours = detector(checkpoint("yolo11n.yaml"), pad="stride", batch=8, conf=0.0)
    frames = [*FRAMES, frame(60, 160, 7), *FRAMES]
    together = ours.detect(frames)
    for one, found in zip(frames, together, strict=True):
        (alone,) = ours.detect([one])
        np.testing.assert_allclose(found.boxes_xyxy, alone.boxes_xyxy, atol=0.5)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-3)


def test_the_way_to_shrink_reaches_the_network(checkpoint):
    weights = checkpoint("yolo11n.yaml")
    seen = {}
    for how in ("bilinear", "area"):
        ours = detector(weights, shrink=how)
        (fit,) = ours._fitted([FRAMES[0].image_rgb])
        seen[how] = fit.image_rgb
    assert not np.array_equal(seen["bilinear"], seen["area"])


@pytest.mark.parametrize("architecture", ["yolo11n.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml"])
@pytest.mark.parametrize("changed", [{}, {"classes": ["0", "2"]}, {"agnostic_nms": True}, {"conf": 0.0}])
def test_duplicates_among_the_proposals_above_conf_are_those_among_all(
    checkpoint, monkeypatch, architecture, changed
):
    found = detector(checkpoint(architecture), **changed)
    expected = found.detect(FRAMES)
    monkeypatch.setattr(found, "_proposed", found._above)
    given = found.detect(FRAMES)
    assert sum(len(some) for some in expected) > 0
    for ours, theirs in zip(given, expected, strict=True):
        for name in ("boxes_xyxy", "scores", "category_ids"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_any_number_of_proposals_is_a_number_of_proposals(checkpoint):
    """ultralytics looks at the last dimension and takes six for boxes without duplicates."""
    found, counts = detector(checkpoint("yolo11n.yaml")), range(14)
    output = torch.zeros(len(counts), 84, 40)
    output[:, :4] = torch.tensor([50.0, 50, 20, 20])[:, None]
    for picture, count in enumerate(counts):
        places = torch.randperm(40, generator=torch.Generator().manual_seed(picture))[:count]
        output[picture, 0, places] = torch.arange(count) % 2 * 50.0 + 20  # all but two are duplicates
        output[picture, 4 + 3, places] = torch.linspace(0.9, 0.1, count)
    expected = [found._select(one) for one in output.clone().split(1)]
    given = [found._select(one) for one in above(output, 0.05, 80)]
    assert [len(rows) for rows in given] == [min(count, 2) for count in counts]
    for ours, theirs in zip(given, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_voting_moves_boxes_and_nothing_else(checkpoint):
    path = checkpoint("yolo11n.yaml")
    for plain, moved in zip(
        detector(path).detect(FRAMES), detector(path, box_voting=0.6).detect(FRAMES), strict=True
    ):
        assert np.array_equal(plain.scores, moved.scores)
        assert np.array_equal(plain.category_ids, moved.category_ids)
        assert not np.array_equal(plain.boxes_xyxy, moved.boxes_xyxy)
    with_itself = detector(path, box_voting=1.0).detect(FRAMES)
    for plain, same in zip(detector(path).detect(FRAMES), with_itself, strict=True):
        assert np.allclose(plain.boxes_xyxy, same.boxes_xyxy, atol=1e-3)


def test_a_box_is_the_mean_of_those_of_its_class_that_overlap_it():
    # Two classes, four proposals as centre and size: two that overlap, a third of the other class, one far away.
    proposed = torch.tensor(
        [
            [10.0, 11.0, 10.0, 80.0],
            [10.0, 10.0, 10.0, 80.0],
            [10.0, 10.0, 10.0, 10.0],
            [10.0, 10.0, 10.0, 10.0],
            [0.8, 0.4, 0.0, 0.9],
            [0.0, 0.0, 0.9, 0.0],
        ]
    )
    kept = torch.tensor([[5.0, 5.0, 15.0, 15.0, 0.8, 0.0], [75.0, 75.0, 85.0, 85.0, 0.9, 0.0]])
    found = voted(kept, proposed, 0.5)
    to_the_right = 0.4**2 / (0.8**2 + 0.4**2)
    expected = [5 + to_the_right, 5, 15 + to_the_right, 15]
    assert torch.allclose(found[0], torch.tensor([*expected, 0.8, 0.0]))
    assert torch.allclose(found[1], kept[1])
    assert torch.equal(voted(kept, proposed * torch.tensor([[1.0]] * 4 + [[0.0]] * 2), 0.5), kept)
    assert voted(kept[:0], proposed, 0.5).shape == (0, 6)


def test_a_proposal_that_is_no_number_has_no_vote():
    proposed = torch.tensor([[10.0, 11.0], [10.0, float("nan")], [10.0, float("inf")], [10.0, 10.0], [0.8, 0.4]])
    kept = torch.tensor([[5.0, 5.0, 15.0, 15.0, 0.8, 0.0]])
    assert torch.allclose(voted(kept, proposed, 0.5), kept)


@pytest.mark.parametrize("way", ["all", "above", "nms_free"])
def test_scores_that_are_no_numbers_fail_the_picture_and_not_in_silence(checkpoint, tmp_path, monkeypatch, way):
    free = way == "nms_free"
    found = detector(with_nms_free_head(tmp_path / "free.pt", alone=True) if free else checkpoint("yolo11n.yaml"))
    if way == "above":
        monkeypatch.setattr(found, "_proposed", found._above)
    found.detect(FRAMES)
    with torch.no_grad():
        next(found._model.parameters()).flatten()[0] = torch.nan
    with pytest.raises(ImageError, match=r"not_finite: .*detect.precision=float32"):
        found.detect(FRAMES[:1])


def with_nms_free_head(path, *, alone: bool, architecture: str = "yolo26n.yaml") -> str:
    with ultralytics_at_bay():
        model = lively(load_detector("random:0", architecture).model)
        model.end2end = True
        torch.save({"model": model.fuse(verbose=False) if alone else model}, path)
    return str(path)


def test_of_two_heads_the_one_with_nms_is_asked(tmp_path):
    path = with_nms_free_head(tmp_path / "both.pt", alone=False)
    same_as_ultralytics(path, detector(path))
    assert len(detector(path, box_voting=0.5).detect(FRAMES)) == len(FRAMES)


@pytest.mark.parametrize("architecture", ["yolo26n.yaml", "yolo26n-seg.yaml", "yolo26n-pose.yaml"])
def test_boxes_of_a_head_without_nms_are_those_of_predict(tmp_path, architecture):
    path = with_nms_free_head(tmp_path / "alone.pt", alone=True, architecture=architecture)
    same_as_ultralytics(path, detector(path))


def test_a_model_without_nms_has_no_voting(tmp_path):
    alone = with_nms_free_head(tmp_path / "alone.pt", alone=True)
    for weights, architecture in ((alone, None), ("random:0", "rtdetr-l.yaml")):
        with pytest.raises(ConfigError, match=rf"box_voting needs a model with NMS, {weights} has none"):
            detector(weights, architecture=architecture, box_voting=0.5)


def test_the_process_is_as_it_was(checkpoint):
    before = (PIL.Image.open, torch.save, torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"))
    detector(checkpoint("yolo11n.yaml")).detect(FRAMES)
    assert (PIL.Image.open, torch.save, torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")) == before


_IN_A_FRESH_PROCESS = """
import os, socket, subprocess
def refuse(*args, **kwargs):
    raise AssertionError(f"asked for {args}")
class NoPip(subprocess.Popen):
    def __init__(self, command, *args, **kwargs):
        assert "pip" not in str(command), command
        super().__init__(command, *args, **kwargs)
socket.socket.connect = socket.getaddrinfo = refuse
subprocess.Popen = NoPip
import PIL.Image, torch
before = PIL.Image.open, torch.save, torch.get_num_threads()
from autolabel.detect.yolo import YoloDetector
YoloDetector(weights="random:0", architecture="yolo11n.yaml", conf=0.1, iou=0.7, max_det=10, image_size=64, batch=0,
             device="cpu", precision="float32", classes=None, agnostic_nms=False)
assert (PIL.Image.open, torch.save, torch.get_num_threads()) == before
assert "OMP_NUM_THREADS" not in os.environ
"""


@pytest.mark.slow
def test_a_fresh_process_asks_nobody_and_writes_only_into_our_cache(tmp_path):
    home, work, cache = (tmp_path / name for name in ("home", "work", "cache"))
    home.mkdir()
    work.mkdir()
    ours = ("OMP_NUM_THREADS", "YOLO_", "ULTRALYTICS_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment |= {"HOME": str(home), "AUTOLABEL_CACHE": str(cache)}
    command = [sys.executable, "-W", "error", "-c", _IN_A_FRESH_PROCESS]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []
    assert list(work.iterdir()) == []
    assert [path.name for path in cache.rglob("*.json")] == ["settings.json"]


def test_the_nano_detector_runs_on_a_plain_picture():
    entry = next(entry for entry in SHIPPED if entry.name == "nano_detector")
    ours = detector("nano_detector")
    assert [category.name for category in ours.categories] == json.loads(entry.card.read_text("utf-8"))["names"]
    assert len(ours.detect(FRAMES)) == len(FRAMES)
