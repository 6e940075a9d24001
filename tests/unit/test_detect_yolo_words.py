"""YOLO-World and YOLOE asked in words: the boxes of ultralytics, with the classes of an ontology."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from autolabel.core.errors import ConfigError, WeightsError
from autolabel.core.types import Frame, ImageInfo, ImageRef
from autolabel.detect.yolo_words import YoloWordsDetector, phrase_vectors, teach
from tests import hf_models, yolo_words

PHRASES = ("yellow forklift", "person", "worker")
ONTOLOGY = {"lift": "yellow forklift", "person": ["person", "worker"]}
ARCHITECTURES = ["yolov8s-worldv2.yaml", "yoloe-11s.yaml", "yoloe-11s-seg.yaml"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return yolo_words.vectors(tmp_path_factory.mktemp("words") / "phrases.safetensors", (*PHRASES, "car"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The file of a model; each is built once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(architecture: str) -> str:
        path = folder / architecture.replace(".yaml", ".pt")
        return str(path) if path.exists() else yolo_words.checkpoint(path, architecture)

    return make


def settings(**changed):
    return {"architecture": None, "ontology": ONTOLOGY, "conf": 0.3, "iou": 0.7, "max_det": 50, "image_size": 64,
            "batch": 0, "device": "cpu", "precision": "float32", **changed}  # fmt: skip


def frame(height: int, width: int, seed: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    image = np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[:height, :width])
    return Frame(ImageRef("a", "a"), image, ImageInfo(width, height))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_phrase_a_class_gives_the_boxes_of_ultralytics(architecture, checkpoint, text):
    from ultralytics import YOLO

    path, picture = checkpoint(architecture), frame(50, 70)
    ours = YoloWordsDetector(weights=path, text=text, **settings(ontology=dict.fromkeys(PHRASES), iou=1.0))
    theirs = YOLO(path)
    teach(theirs.model, PHRASES, phrase_vectors(text, PHRASES)[0])
    (result,) = theirs.predict(
        picture.image_rgb[..., ::-1].copy(), device="cpu", save=False, conf=0.3, iou=1.0, max_det=50, imgsz=64, rect=False,
        verbose=False,
    )  # fmt: skip
    expected = result.boxes.data.numpy()
    (found,) = ours.detect([picture])
    assert len(found) == len(expected) > 0
    assert np.allclose(found.scores, np.sort(expected[:, 4])[::-1], atol=1e-4)
    assert np.allclose(np.sort(found.boxes_xyxy, axis=0), np.sort(expected[:, :4], axis=0), atol=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_phrases_of_one_class_are_one_class(architecture, checkpoint, text):
    detector = YoloWordsDetector(weights=checkpoint(architecture), text=text, **settings())
    assert [(c.id, c.name) for c in detector.categories] == [(1, "lift"), (2, "person")]
    (found,) = detector.detect([frame(50, 70)])
    assert set(found.category_ids.tolist()) <= {1, 2}
    assert (np.diff(found.scores) <= 0).all()
    assert detector.identity["text"] == phrase_vectors(text, PHRASES)[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_proposal_of_the_last_phrase_alone_is_looked_at(architecture, checkpoint, text):
    """As on a GPU, where proposals are chosen before phrases become classes."""
    detector = YoloWordsDetector(weights=checkpoint(architecture), text=text, **settings())
    output = torch.zeros(1, 4 + len(PHRASES), 40)
    output[:, :4] = torch.tensor([30.0, 30, 20, 20])[:, None]
    output[0, 4 + PHRASES.index("worker"), 7] = 0.9
    (rows,) = [detector._select(one) for one in detector._above(output)]
    assert rows.tolist() == [[20, 20, 40, 40, pytest.approx(0.9), 1]]


@pytest.mark.parametrize("architecture", ["yoloe-26n.yaml", "yoloe-26n-seg.yaml"])
def test_a_head_that_chooses_its_boxes_gives_as_many_as_asked_for_though_phrases_find_them_twice(
    text, tmp_path, architecture
):
    path = yolo_words.checkpoint(tmp_path / "words.pt", architecture, chooses_itself=True)
    everything, some = (
        YoloWordsDetector(
            weights=path, text=text, **settings(max_det=max_det, conf=0.1, iou=0.01, image_size=256)
        ).detect([frame(50, 70)])[0]
        for max_det in (1000, 50)
    )
    assert len(everything) > 50
    assert everything.notes == ()
    assert some.scores.tolist() == everything.scores[:50].tolist()
    assert some.notes == ("max_det",)


def test_other_words_find_other_things(checkpoint, text):
    path = checkpoint(ARCHITECTURES[0])
    (one,), (other,) = (
        YoloWordsDetector(weights=path, text=text, **settings(ontology={phrase: None})).detect([frame(50, 70)])
        for phrase in ("person", "car")
    )
    assert one.scores.tolist() != other.scores.tolist()


def test_vectors_may_come_from_clip(tmp_path):
    hf_models.needs_transformers()
    folder = hf_models.clip(tmp_path / "clip")
    vectors, _ = phrase_vectors(folder, PHRASES)
    alone = [phrase_vectors(folder, [phrase])[0][0] for phrase in PHRASES]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors, alone, atol=1e-5)
    assert len({tuple(row.round(4)) for row in vectors}) == 3


def test_words_that_cannot_be_had_are_one_line(checkpoint, text, tmp_path):
    path = checkpoint(ARCHITECTURES[0])
    with pytest.raises(ConfigError, match="no vector for 'persons'; did you mean person"):
        YoloWordsDetector(weights=path, text=text, **settings(ontology={"persons": None}))
    with pytest.raises(ConfigError, match="which objects"):
        YoloWordsDetector(weights=path, text=text, **settings(ontology=None))
    short = tmp_path / "short.safetensors"
    save_file({"person": np.ones(7, np.float32)}, short)
    with pytest.raises(ConfigError, match="vectors of 7 numbers, this model reads 512"):
        YoloWordsDetector(weights=path, text=str(short), **settings(ontology={"person": None}))
    with pytest.raises(ConfigError, match="neither YOLO-World nor YOLOE"):
        YoloWordsDetector(weights="nano_detector", text=text, **settings())
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"no vectors")
    with pytest.raises(WeightsError, match="cannot be read"):
        phrase_vectors(str(torn), PHRASES)
    zero = tmp_path / "zero.safetensors"
    save_file({"person": np.zeros(512, np.float32)}, zero)
    with pytest.raises(WeightsError, match="without a length"):
        phrase_vectors(str(zero), ["person"])
