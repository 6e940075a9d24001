"""Detectors of transformers: the boxes of the library's own post-processing, and phrases that stand for classes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autolabel.core.errors import ConfigError, ImageError, MissingExtra, WeightsError, WeightsMissing
from autolabel.core.types import Frame, ImageInfo, ImageRef
from autolabel.detect.detr_hf import DetrHfDetector
from autolabel.detect.hf_network import Raw
from autolabel.detect.ontology import best_detections
from autolabel.detect.phrases_hf import GroundingDinoDetector, Owlv2Detector
from autolabel.engine.labeler import one_by_one_on_error
from autolabel.ops.ontology import read_ontology
from autolabel.weights.hub import Hosted
from tests import hf_models

hf_models.needs_transformers()

ONTOLOGY = {"lift": "yellow forklift", "person": ["person", "Worker"], "car": None}


pytestmark = pytest.mark.usefixtures("one_thread")


def frame(height: int, width: int, seed: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    image = np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[:height, :width])
    return Frame(ImageRef("a", "a"), image, ImageInfo(width, height))


FRAMES = [frame(60, 90), frame(50, 50, 1), frame(60, 90, 2), frame(3, 40)]


def settings(folder, **changed):
    return {
        "weights": folder,
        "conf": 0.02,
        "max_det": 300,
        "batch": 0,
        "device": "cpu",
        "precision": "float32",
        **changed,
    }


def worded(folder, **changed):
    return {**settings(folder), "ontology": ONTOLOGY, "iou": 1.0, **changed}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model by its name; each is built once."""
    root = tmp_path_factory.mktemp("models")

    def of(name: str) -> str:
        return str(root / name) if (root / name).is_dir() else getattr(hf_models, name)(root / name)

    return of


DETECTORS = {
    "rt_detr_v2": lambda f, **c: DetrHfDetector(**settings(f, **c)),
    "detr": lambda f, **c: DetrHfDetector(**settings(f, **c)),
    "grounding_dino": lambda f, **c: GroundingDinoDetector(**worded(f, **c)),
    "owlv2": lambda f, **c: Owlv2Detector(**worded(f, **c)),
}


@pytest.mark.parametrize("name", ["rt_detr_v2", "detr"])
def test_boxes_are_those_of_the_library(folder, name):
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    processor = AutoImageProcessor.from_pretrained(folder(name))
    model = AutoModelForObjectDetection.from_pretrained(folder(name)).eval()
    for picture, found in zip(FRAMES, DETECTORS[name](folder(name)).detect(FRAMES), strict=True):
        inputs = processor(images=picture.image_rgb, input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            output = model(**inputs)
        (expected,) = processor.post_process_object_detection(output, 0.02, [picture.info.size_hw])
        kept = [i for i, label in enumerate(expected["labels"].tolist()) if label != 1]  # N/A
        assert len(found) == len(kept) > 0
        assert found.scores.tolist() == pytest.approx(
            sorted(expected["scores"][kept].tolist(), reverse=True), abs=1e-6
        )
        h, w = picture.info.size_hw
        clipped = np.clip(expected["boxes"][kept].numpy(), 0, [w, h, w, h])
        assert np.allclose(np.sort(found.boxes_xyxy, axis=0), np.sort(clipped, axis=0), atol=1e-3)


def test_no_number_of_the_library_s_own_limits_the_boxes(folder, tmp_path):
    """Deformable DETR's post-processing keeps 100 by itself."""
    from transformers import DeformableDetrImageProcessor

    where = str(shutil.copytree(folder("rt_detr_v2"), tmp_path / "deformable"))
    DeformableDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(where)
    detector = DETECTORS["rt_detr_v2"](where, conf=0.0)
    logits, boxes = torch.full((1, 150, 4), -200.0), torch.full((1, 150, 4), 0.5)
    logits[..., 2] = torch.linspace(3, 1, 150)
    found = detector._found(Raw(logits, boxes), FRAMES[0])
    assert found.scores.tolist() == pytest.approx(logits[0, :, 2].sigmoid().tolist())


def test_gaps_among_the_classes_are_no_class(folder):
    detector = DETECTORS["rt_detr_v2"](folder("rt_detr_v2"))
    assert [(c.id, c.name) for c in detector.categories] == [(1, "person"), (3, "car"), (4, "dog")]
    assert set(np.concatenate([d.category_ids for d in detector.detect(FRAMES)])) <= {1, 3, 4}


def test_grounding_dino_takes_the_likeliest_phrase(folder):
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    where = folder("grounding_dino")
    processor = AutoProcessor.from_pretrained(where)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(where).eval()
    tokens = processor.tokenizer
    inputs = processor(
        images=FRAMES[0].image_rgb, text="yellow forklift. person. worker. car.", return_tensors="pt"
    )
    with torch.inference_mode():
        output = model(**inputs)
    ids = inputs["input_ids"][0].tolist()
    at = [[ids.index(tokens.convert_tokens_to_ids(word)) for word in words] for words in (("yellow", "forklift"), ("person", "worker"), ("car",))]  # fmt: skip
    probabilities = output.logits[0].sigmoid()
    scores = torch.stack([probabilities[:, some].max(dim=1).values for some in at], dim=1)
    (found,) = DETECTORS["grounding_dino"](where).detect(FRAMES[:1])
    best, number = scores.max(dim=1)
    kept = best > 0.02
    assert len(found) == int(kept.sum()) > 0
    order = torch.argsort(-best[kept], stable=True)
    assert np.allclose(found.scores, best[kept][order].numpy(), atol=1e-5)
    assert sorted(found.category_ids.tolist()) == sorted((number[kept] + 1).tolist())


def test_owlv2_gives_the_library_s_boxes(folder):
    from transformers import AutoProcessor, Owlv2ForObjectDetection

    where = folder("owlv2")
    processor, model = AutoProcessor.from_pretrained(where), Owlv2ForObjectDetection.from_pretrained(where).eval()
    inputs = processor(images=FRAMES[0].image_rgb, text=[["person", "car"]], padding="max_length", max_length=16, return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        output = model(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(output, 0.02, [FRAMES[0].info.size_hw])
    (found,) = DETECTORS["owlv2"](where, ontology={"person": None, "car": None}).detect(FRAMES[:1])
    clipped = np.clip(expected["boxes"].numpy(), 0, [90, 60, 90, 60])
    inside = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(axis=1)
    assert len(found) == inside.sum() > 0
    assert np.allclose(np.sort(found.boxes_xyxy, axis=0), np.sort(clipped[inside], axis=0), atol=1e-3)
    assert sorted(found.category_ids.tolist()) == sorted((expected["labels"].numpy()[inside] + 1).tolist())


@pytest.mark.parametrize("name", DETECTORS)
def test_a_picture_s_boxes_do_not_depend_on_its_neighbours(folder, name):
    detector = DETECTORS[name](folder(name))
    for picture, together in zip(FRAMES, detector.detect(FRAMES), strict=True):
        (alone,) = detector.detect([picture])
        assert np.array_equal(alone.boxes_xyxy, together.boxes_xyxy)
        assert np.array_equal(alone.scores, together.scores)
    assert detector.detect([]) == []


@pytest.mark.parametrize("name", DETECTORS)
def test_scores_that_are_no_numbers_fail_the_picture_and_not_in_silence(folder, name):
    detector = DETECTORS[name](folder(name))
    convolution = next(part for part in detector._network._model.parameters() if part.dim() == 4)
    with torch.no_grad():
        convolution.flatten()[0] = torch.nan
    with pytest.raises(ImageError, match=r"not_finite: .*detect.precision=float32"):
        detector.detect(FRAMES[:1])


@pytest.mark.parametrize("name", ["detr", "grounding_dino"])
@pytest.mark.parametrize("size_hw", [(1, 5000), (5000, 2)])
def test_a_picture_of_which_the_model_s_size_leaves_nothing_fails_alone(folder, name, size_hw):
    detector = DETECTORS[name](folder(name))
    height, width = size_hw
    found = one_by_one_on_error(detector.detect, [FRAMES[0], frame(height, width), FRAMES[1]])
    assert isinstance(found[1], ImageError)
    assert found[1].code == "too_elongated"
    assert f"{width}x{height} px" in found[1].detail
    for ours, alone in zip((found[0], found[2]), detector.detect(FRAMES[:2]), strict=True):
        assert np.array_equal(ours.boxes_xyxy, alone.boxes_xyxy)


def test_other_errors_of_an_image_processor_are_no_fault_of_the_picture():
    def broken(**inputs):
        raise ValueError("mean must have 3 elements")

    with pytest.raises(ValueError, match="3 elements"):
        Hosted(None, broken, None, {}).seen(FRAMES[0].image_rgb)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_pictures_of_one_size_go_through_together_with_the_same_boxes(folder, name):
    one, several = (DETECTORS[name](folder(name), batch=batch) for batch in (1, 4))
    for a, b in zip(one.detect(FRAMES), several.detect(FRAMES), strict=True):
        assert a.scores.tolist() == pytest.approx(b.scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("name", DETECTORS)
def test_at_most_max_det_boxes_come_out_best_first(folder, name):
    for found in DETECTORS[name](folder(name), max_det=3, conf=0.0).detect(FRAMES[:2]):
        assert len(found) == 3
        assert found.notes == ("max_det",)
        assert (np.diff(found.scores) <= 0).all()
    assert not DETECTORS[name](folder(name), max_det=1, conf=1.0).detect(FRAMES[:1])[0].notes


def test_weights_and_files_beside_them_are_in_the_identity(folder, tmp_path):
    before = DETECTORS["owlv2"](folder("owlv2")).identity
    copy = shutil.copytree(folder("owlv2"), tmp_path / "copy")
    assert DETECTORS["owlv2"](str(copy)).identity == before
    hf_models.edit_config(str(copy), remark="other")
    assert DETECTORS["owlv2"](str(copy)).identity["architecture"] != before["architecture"]


def test_what_cannot_be_loaded_is_one_line_that_says_why(folder, tmp_path, monkeypatch):
    def refused(path, error, words):
        with pytest.raises(error, match=words) as caught:
            DETECTORS["rt_detr_v2"](str(path))
        assert "\n" not in str(caught.value)

    def changed(name):
        return shutil.copytree(folder("rt_detr_v2"), tmp_path / name)

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    refused("someone/some-model", WeightsMissing, "hf download someone/some-model")
    refused("no such/folder/here", WeightsMissing, "there is no folder")
    refused(folder("owlv2"), WeightsError, "owlv2 model; what fits here is .*rt_detr_v2")
    pickled = changed("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(pickled, WeightsError, "pickled weights")
    deeper = changed("deeper")
    hf_models.edit_config(str(deeper), decoder_layers=3)
    refused(deeper, WeightsError, "missing")
    cut = changed("cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    refused(cut, WeightsError, "cannot be loaded")
    refused(cut / "config.json", WeightsError, "is a file")
    (cut / "config.json").unlink()
    refused(cut, WeightsError, "cannot be loaded")


def test_code_that_comes_with_a_model_is_never_run(folder, tmp_path):
    where = shutil.copytree(folder("rt_detr_v2"), tmp_path / "with code")
    trap = tmp_path / "it ran"
    (where / "own.py").write_text(f"import pathlib; pathlib.Path({str(trap)!r}).touch()\nclass Own: pass\n")
    hf_models.edit_config(str(where), model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForObjectDetection": "own.Own"})  # fmt: skip
    with pytest.raises(WeightsError):
        DETECTORS["rt_detr_v2"](str(where))
    assert not trap.exists()


def test_without_the_extra_the_error_names_it(folder, monkeypatch):
    where = folder("rt_detr_v2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"\[hf\]"):
        DETECTORS["rt_detr_v2"](where)


def test_phrases_too_long_for_the_model_are_refused(folder):
    with pytest.raises(ConfigError, match="tokens"):
        DETECTORS["owlv2"](folder("owlv2"), ontology={"a": "a very long phrase indeed"}).detect(FRAMES[:1])
    with pytest.raises(ConfigError, match="tokens"):
        DETECTORS["grounding_dino"](folder("grounding_dino"), ontology={"a": "red " * 40}).detect(FRAMES[:1])


@pytest.mark.parametrize(
    ("ontology", "words"),
    [(None, "which objects"), ({}, "which objects"), (["person"], "which objects"), ({"a": []}, "'a'"), ({"a": 3}, "'a'"),
     ({"a": "x", "b": ["x"]}, "'a' and for 'b'"), ({"a": "mr. x"}, "cannot read")],
)  # fmt: skip
def test_an_ontology_that_makes_no_sense_is_refused(ontology, words):
    with pytest.raises(ConfigError, match=words):
        read_ontology(ontology, forbidden=".")


def test_classes_of_an_ontology_are_numbered_in_the_order_given():
    ontology = read_ontology(ONTOLOGY)
    assert [(c.id, c.name) for c in ontology.categories] == [(1, "lift"), (2, "person"), (3, "car")]
    assert ontology.phrases == ("yellow forklift", "person", "worker", "car")
    assert ontology.of_classes(np.array([[0.1, 0.2, 0.7, 0.3]])).tolist() == [pytest.approx([0.1, 0.7, 0.3])]


def test_of_boxes_of_one_class_that_overlap_one_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 10], [50, 0, 60, 10]], np.float32)
    scores = np.array([[0.5, 0.1], [0.6, 0.1], [0.1, 0.4], [0.9, 0.0]], np.float32)
    found = best_detections(boxes, scores, (20, 50), conf=0.2, iou=0.5, max_det=10)
    assert found.scores.tolist() == [pytest.approx(0.6), pytest.approx(0.4)]
    assert found.category_ids.tolist() == [1, 2]


def test_a_box_that_is_not_finite_is_passed_on():
    boxes = np.array([[0, 0, 10, np.nan], [0, 0, 10, 10]], np.float32)
    found = best_detections(boxes, np.array([[0.5], [0.6]], np.float32), (20, 50), conf=0.2, iou=0.5, max_det=10)
    assert np.isnan(found.boxes_xyxy[1]).any()


def test_the_cache_is_looked_into_and_nothing_is_fetched(folder, tmp_path, monkeypatch):
    """A snapshot as `hf download` lays it down."""
    import huggingface_hub.constants

    snapshot = tmp_path / "models--someone--small" / "snapshots" / "abc"
    shutil.copytree(folder("rt_detr_v2"), snapshot)
    (tmp_path / "models--someone--small" / "refs").mkdir()
    (tmp_path / "models--someone--small" / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = DETECTORS["rt_detr_v2"]("someone/small").detect(FRAMES[:1])
    expected = DETECTORS["rt_detr_v2"](folder("rt_detr_v2")).detect(FRAMES[:1])
    assert np.array_equal(found[0].boxes_xyxy, expected[0].boxes_xyxy)
    assert Path(snapshot).is_dir()
