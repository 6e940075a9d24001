"""Pictures that a person names to the trainer and the evaluation of the nano detector."""

import json
import sys

import cv2
import numpy as np
import pytest

from scripts import evaluate_nano_detector, train_nano_detector


def evaluate(_folder, _picture):
    evaluate_nano_detector.main()


def train(tmp_path, picture):
    options = ["--cache-dir", str(tmp_path), "--out-dir", str(tmp_path), "--watch", str(picture)]
    train_nano_detector.Trainer(train_nano_detector.parse_args(options))


@pytest.mark.parametrize("command", [evaluate, train])
def test_a_picture_that_cannot_be_read_is_named_before_anything_is_computed(tmp_path, monkeypatch, command):
    picture = tmp_path / "a.jpg"
    picture.write_text("no picture")
    (tmp_path / "detector.json").write_text(json.dumps({}))
    options = ["evaluate", "--weights-dir", str(tmp_path), "--cache-dir", str(tmp_path), "--image", str(picture)]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit, match=rf"^{picture}: not_an_image: "):
        command(tmp_path, picture)


def test_a_picture_is_seen_as_it_is_labelled(tmp_path):
    image_rgb = np.arange(300).astype(np.uint8).reshape(10, 10, 3)
    cv2.imwrite(str(tmp_path / "a.png"), image_rgb[..., ::-1])
    assert (evaluate_nano_detector.read_rgb(tmp_path / "a.png") == image_rgb).all()
