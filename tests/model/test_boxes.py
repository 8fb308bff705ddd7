"""Overlaps, and non-maximum suppression, beside published numbers."""

import numpy as np
import pytest
import torch

from tests.conftest import GOLDEN
from vlc.model.boxes import different_boxes, enclosing, overlap

BOXES = GOLDEN / "tasks/boxes"


def test_overlaps_of_12in1():
    golden = np.load(BOXES / "iou_plus_one.npz")
    boxes, queries = torch.from_numpy(golden["boxes"]), torch.from_numpy(golden["query"])
    found = overlap(boxes[:, None], queries[None], plus_one=True)
    np.testing.assert_allclose(found, golden["iou"], atol=1e-6)


def test_overlaps_and_accuracies_of_vl_bert():
    golden = np.load(BOXES / "refcoco_test_iou.npz")
    found, meant = torch.from_numpy(golden["pred"]), torch.from_numpy(golden["gt"])
    with_pixel = overlap(found, meant, plus_one=True)
    np.testing.assert_allclose(with_pixel, golden["iou"], atol=1e-6)
    np.testing.assert_allclose(overlap(found, meant), golden["iou_no_plus_one_OWN"], atol=1e-6)
    assert (with_pixel >= 0.5).float().mean() == pytest.approx(float(golden["accuracy_ge"]))
    assert (with_pixel > 0.5).float().mean() == pytest.approx(float(golden["accuracy_gt"]))


@pytest.mark.parametrize("most", [0.3, 0.5, 0.7])
def test_different_boxes_are_those_of_non_maximum_suppression(most):
    golden = np.load(BOXES / "nms_OWN.npz")
    kept = different_boxes(torch.from_numpy(golden["boxes"]), torch.from_numpy(golden["scores"]), most)
    assert sorted(kept.tolist()) == sorted(golden[f"keep_{most}"].tolist())
    scores = torch.from_numpy(golden["scores"])[kept]
    assert torch.equal(scores, scores.sort(descending=True).values)


def test_the_box_around_several_leaves_padding_out():
    boxes = torch.tensor([[[1.0, 2, 3, 4], [2, 0, 9, 3], [0, 0, 0, 0]]])
    around = enclosing(boxes, torch.tensor([[True, True, False]]))
    assert around.tolist() == [[1, 0, 9, 4]]
