"""Regress: the loss beside an independent computation, and boxes in pixels of the picture."""

import numpy as np
import pytest
import torch

from tests import tiny
from tests.conftest import GOLDEN
from vlc.configuration.task_settings import make_options
from vlc.data.batch import Batch
from vlc.data.geometry import Placement
from vlc.data.parts.regions import padded_regions, placed_boxes
from vlc.model.segments import Encoded, Segment
from vlc.objectives.base import ModelContext
from vlc.objectives.regress import PASS, Regress, box_loss, centred, cornered

HALVED = Placement(np.array([[0.5, 0, 0], [0, 0.5, 0]]), (64, 32))


def test_the_loss_is_5_l1_and_2_giou():
    golden = np.load(GOLDEN / "tasks/boxes/box_regression.npz")
    found = box_loss(torch.from_numpy(golden["pred"]), torch.from_numpy(golden["target"]))
    np.testing.assert_allclose(found, 5 * golden["l1"] + 2 * (1 - golden["giou"]), rtol=1e-5, atol=1e-6)
    assert found.mean().item() == pytest.approx(float(golden["loss_mean"]), rel=1e-5)


def test_corners_and_centres():
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.4]])
    torch.testing.assert_close(cornered(centred(boxes)), boxes)


def _outcome(logits, **parts):
    head = Regress(make_options("regress", {"ids": ["ref_id"]}), ModelContext(32, 20, 4, tiny.SMALL))
    head._logits = lambda image, sizes: logits
    batch = Batch(index=torch.arange(len(logits)), split="val", parts=parts)
    image = Segment("image", torch.zeros(len(logits), 5, 32), grid=(2, 2))
    outcome = head({PASS: Encoded(torch.zeros(len(logits), 32), (image,))}, batch)
    return outcome, head.answers(outcome, batch)


@pytest.mark.parametrize("placement", [HALVED, HALVED.mirror()])
def test_boxes_are_given_in_pixels_of_the_picture(placement):
    """Also where the image that is shown is smaller, or mirrored."""
    target = padded_regions([placed_boxes("target_boxes", [[10, 20, 50, 40]], placement)])
    whole = padded_regions([placed_boxes("whole_image", None, placement)])
    logits = torch.logit(centred(target.boxes[:, 0] / torch.tensor([64.0, 32, 64, 32])))
    outcome, (answer,) = _outcome(logits, targets=target, whole_image=whole, ref_id=[3])
    assert outcome.loss.item() == pytest.approx(0, abs=1e-5)
    assert outcome.metrics["accuracy"] == (1, 1)
    assert answer.boxes[0] == pytest.approx((10, 20, 50, 40), abs=1e-3)
    assert answer.record["ref_id"] == 3
    assert answer.record["right"]
    assert answer.record["overlap"] == pytest.approx(1, abs=1e-4)


def test_without_labels_there_is_a_box_and_no_loss():
    whole = padded_regions([placed_boxes("whole_image", None, HALVED)])
    outcome, (answer,) = _outcome(torch.zeros(1, 4), whole_image=whole, ref_id=[3])
    assert outcome.loss is None
    assert answer.boxes[0] == pytest.approx((32, 16, 96, 48))
    assert set(answer.record) == {"ref_id", "box"}


@pytest.mark.parametrize("order", [None, [3, 0, 1, 2]])
def test_the_box_lies_where_the_query_looks(order):
    """Whatever order patches are in, and padding is not looked at."""
    head = Regress(make_options("regress", {}), ModelContext(32, 20, 4, tiny.SMALL))
    tokens = torch.zeros(1, 5, 32)
    tokens[0, 1:, 0] = torch.tensor([0.0, 0, 50, 90])[order or slice(None)]  # of cells 0 to 3; the last one is padding
    mask = torch.tensor([[1, *torch.tensor([1, 1, 1, 0])[order or slice(None)].tolist()]])
    with torch.no_grad():
        head.query.weight[:] = torch.eye(1, 32)
        for layer in (head.box[0], head.box[2]):
            layer.weight.zero_()
    indices = None if order is None else torch.tensor([order])
    image = Segment("image", tokens, mask, grid=(2, 2), patch_indices=indices)
    logits = head._logits(image, torch.tensor([[32.0, 32.0]]))
    torch.testing.assert_close(logits.sigmoid(), torch.tensor([[0.25, 0.75, 0.5, 0.5]]))


def test_half_precision_moves_no_box():
    """At 511 pixels bfloat16 counts in steps of two."""
    head = Regress(make_options("regress", {}), ModelContext(32, 20, 4, tiny.SMALL))
    whole = padded_regions([placed_boxes("whole_image", None, Placement.of_crop((0, 0, 511, 511), (512, 512)))])
    image = Segment("image", torch.randn(1, 1025, 32), grid=(32, 32))
    with torch.no_grad():
        expected = head._logits(image, whole.sizes)
        with torch.autocast("cpu", torch.bfloat16):
            found = head._logits(image, whole.sizes)
            boxes = head.boxes(expected, whole)
    assert (found.sigmoid() - expected.sigmoid()).abs().max() * 512 < 0.5
    torch.testing.assert_close(boxes, head.boxes(expected, whole), rtol=0, atol=1e-3)
