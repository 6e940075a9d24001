"""What the nano detector's training asks of each level of strides."""

import pytest
import torch

from scripts.train_nano_detector import PartlyLabelledLoss, build_model

SIDE = 256


@pytest.fixture(scope="module")
def assigned():
    """Of an untrained network: (picture, anchor) whether it is to find the object, and the anchors' strides."""
    torch.manual_seed(0)
    model = build_model("yolo11n.yaml").train()
    criterion = PartlyLabelledLoss(model)
    widths = (24, 80, 220)  # px
    batch = {
        "batch_idx": torch.arange(3.0),
        "cls": torch.zeros(3),
        "bboxes": torch.tensor([[0.5, 0.5, width / SIDE, width / SIDE] for width in widths]),
        "weights": torch.ones(3, SIDE, SIDE),
    }
    seen = []
    assign = criterion.assigner.forward

    def spied(*given):
        seen.append(assign(*given))
        return seen[-1]

    criterion.assigner.forward = spied
    criterion(model(torch.rand(3, 3, SIDE, SIDE)), batch)
    ((_, _, scores, _, _),) = seen
    return scores[..., 0] > 0, criterion.assigner.anchor_strides


def test_every_level_learns_from_objects_of_its_size(assigned):
    """Untrained boxes of ultralytics are 480 px at stride 32, and the assigner gave it nothing in a picture of 256."""
    wanted, strides = assigned
    assert strides.unique().tolist() == [8, 16, 32]
    assert wanted[0].any()
    assert (strides[wanted[0]] == 8).all()
    assert set(strides[wanted[1]].tolist()) <= {16, 32}
    assert wanted[2].any()
    assert (strides[wanted[2]] == 32).all()


def test_boxes_begin_smaller_than_a_picture():
    model = build_model("yolo11n.yaml")
    for head, stride in zip(model.model[-1].cv2, model.stride, strict=True):
        shares = head[-1].bias.view(4, -1).softmax(1)
        side = 2 * stride * (shares * torch.arange(shares.shape[1])).sum(1)
        assert ((side > stride) & (side < 6 * stride)).all()
