"""Pointing: losses, which candidate is right, and what records hold."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny
from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.configuration.task_settings import make_options
from vlc.data.batch import Batch
from vlc.data.geometry import Placement
from vlc.data.parts.regions import padded_regions, placed_boxes
from vlc.model.boxes import overlap
from vlc.model.segments import Encoded, Segment
from vlc.objectives.base import ModelContext
from vlc.objectives.options import Surroundings
from vlc.objectives.pointing import PASSES, Pointing, meant_boxes

WIDTH = 32
WHERE = Placement(np.array([[1.0, 0, 0], [0, 1, 0]]), (500, 500))
ENTITIES = json.loads((GOLDEN / "tasks/boxes/entities_rules_OWN.json").read_text())


def regions(*rows):
    return padded_regions([placed_boxes("boxes", row, WHERE) for row in rows])


def objective(scores=None, **options) -> Pointing:
    """A head whose scores are given, in place of those of its layers."""
    made = Pointing(make_options("pointing", options), ModelContext(WIDTH, 20, 4, tiny.SMALL))
    if scores is not None:
        made._scores = lambda encoded, regions: scores
    return made


def outcome(head, batch):
    image = Segment("image", torch.zeros(len(batch), 17, WIDTH), grid=(4, 4))
    return head({PASSES["late"]: Encoded(torch.zeros(len(batch), WIDTH), (image,))}, batch)


def batch(**parts) -> Batch:
    return Batch(index=torch.arange(len(parts["regions"].boxes)), split="val", parts=parts)


def test_binary_cross_entropy_is_that_of_vl_bert():
    golden = np.load(GOLDEN / "tasks/boxes/refcoco_loss.npz")
    logits, labels, mask = (torch.from_numpy(golden[f"refcoco_{name}"]) for name in ("logits", "labels", "mask"))
    boxes = regions(*[[[0, 0, 8, 8]] * 6] * 3)
    head = objective(logits, loss="bce")
    head.overlaps = lambda batch: labels  # either 0 or 1
    found = outcome(head, batch(regions=replace(boxes, mask=mask)))
    assert found.loss.item() == pytest.approx(float(golden["refcoco_loss"]), rel=1e-6)


def test_cross_entropy_counts_all_right_candidates_together():
    scores = torch.tensor([[1.0, 2.0, 0.5], [1.0, 3.0, 9.0]])
    given = regions([[0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]], [[0, 0, 10, 10], [30, 0, 40, 10]])
    found = outcome(objective(scores), batch(regions=given, targets=regions([[0, 0, 10, 10]], [[0, 0, 10, 9]])))
    probabilities = scores[0].softmax(0), scores[1, :2].softmax(0)
    expected = -(probabilities[0][:2].sum().log() + probabilities[1][0].log()) / 2
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert {name: (int(total), count) for name, (total, count) in found.metrics.items() if name != "loss"} == {
        "accuracy": (1, 2),
        "coverage": (2, 2),
    }


def test_an_example_without_a_right_candidate_counts_as_wrong_and_does_not_train():
    given = regions([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    scores = torch.tensor([[1.0], [2.0]], requires_grad=True)
    found = outcome(objective(scores), batch(regions=given, targets=regions([[50, 50, 60, 60]], [[0, 0, 10, 10]])))
    assert found.metrics["accuracy"] == (1, 2)
    assert found.metrics["coverage"] == (1, 2)
    assert found.loss.item() == 0, "and the other one has no other candidate"
    alone = outcome(objective(scores[:1]), batch(regions=regions([[0, 0, 9, 9]]), targets=regions([[50, 50, 60, 60]])))
    alone.loss.backward()
    assert alone.loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(2, 1))


def test_an_overlap_of_half_is_right_unless_it_has_to_be_more():
    given, meant = regions([[0, 0, 20, 10]]), regions([[0, 0, 20, 20]])
    assert outcome(objective(torch.zeros(1, 1)), batch(regions=given, targets=meant)).metrics["accuracy"][0] == 1
    above = objective(torch.zeros(1, 1), above=True)
    assert outcome(above, batch(regions=given, targets=meant)).metrics["accuracy"][0] == 0
    with_pixel = objective(torch.zeros(1, 1), above=True, iou_plus_one=True)  # 231 / 441
    assert outcome(with_pixel, batch(regions=given, targets=meant)).metrics["accuracy"][0] == 1


def test_by_index_a_candidate_of_the_same_place_is_another_one():
    given = regions([[0, 0, 10, 10], [0, 0, 10, 10]])
    head = objective(torch.tensor([[2.0, 1.0]]), judged_by="index")
    found = outcome(head, batch(regions=given, answer_index=[1]))
    assert found.metrics["accuracy"] == (0, 1)
    assert found.loss.item() == pytest.approx(-torch.tensor([2.0, 1.0]).log_softmax(0)[1].item())


def test_soft_targets_are_the_overlaps_of_right_candidates():
    scores = torch.zeros(1, 3)
    given, meant = regions([[0, 0, 20, 15], [0, 0, 20, 20], [0, 0, 20, 4]]), regions([[0, 0, 20, 20]])
    found = outcome(objective(scores, loss="bce", soft_targets=True), batch(regions=given, targets=meant))
    targets = torch.tensor([[0.75, 1.0, 0.0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets)
    assert found.loss.item() == pytest.approx(expected.item())


def test_labels_of_vl_bert():
    """RefCOCO+ with boxes of the annotation, of a detector, and of both, at the size of the picture."""
    published = {"above": True, "iou_plus_one": True, "loss": "bce"}
    for entries in json.loads((GOLDEN / "tasks/boxes/refcoco_plus_labels.json").read_text()).values():
        for entry in entries:
            # VL-BERT's whole image ends at the last pixel.
            examples = batch(regions=regions(entry["boxes"]), targets=regions([entry["gt_box"]]))
            head = objective(**published)
            right = head._right(head.overlaps(examples), examples)
            assert right[0].int().tolist() == entry["label"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_soft_targets_of_12in1(split):
    """Overlaps of 12-in-1's regions with what is meant; in training, those below a half are 0."""
    golden = np.load(GOLDEN / "tasks/boxes/refcoco_soft_targets.npz")
    boxes, meant, target, mask = (golden[f"{split}_{name}"] for name in ("boxes", "meant", "target", "mask"))
    examples = batch(regions=regions(*boxes), targets=regions(*meant[:, None]))
    examples = replace(
        examples,
        parts={**examples.parts, "regions": replace(examples.parts["regions"], mask=torch.from_numpy(mask > 0))},
    )
    head = objective(iou_plus_one=True, loss="bce", soft_targets=True)
    overlaps = head.overlaps(examples)
    found = overlaps * head._right(overlaps, examples) if split == "train" else overlaps * torch.from_numpy(mask)
    np.testing.assert_allclose(found, target, atol=2e-6)


@pytest.mark.parametrize("merged", ["union", "any", "first"])
@pytest.mark.parametrize("plus_one", [False, True])
def test_several_boxes_of_a_phrase(merged, plus_one):
    """As computed for the chains of Flickr30k Entities."""
    for row in ENTITIES["rows"]:
        meant, found = meant_boxes(regions(row["boxes"]), merged), torch.tensor([row["pred"]], dtype=torch.float32)
        best = overlap(found[:, None], meant.stored, plus_one=plus_one).masked_fill(~meant.mask, 0).amax().item()
        assert best == pytest.approx(row[f"{merged}_{'plus_one' if plus_one else 'plain'}"], abs=1e-6)


def test_records_have_the_box_its_name_and_whether_it_is_right():
    scores = torch.tensor([[0.0, 3.0, 2.0], [0.0, 1.0, 9.0]])
    given = regions([[0, 0, 10, 10], [20, 0, 30, 10], [21, 0, 30, 10]], [[0, 0, 8, 8], [30, 0, 40, 10]])
    parts = {"regions": given, "answer_index": [1, 0], "qa_id": [7, 8], "box_ids": [[70, 71, 72], [80, 81]]}
    head = objective(scores, judged_by="index", ids=("qa_id",), box_ids="box_ids")
    answers = head.answers(outcome(head, batch(**parts)), batch(**parts))
    assert [answer.boxes for answer in answers] == [[(20, 0, 30, 10), (0, 0, 10, 10)], [(30, 0, 40, 10), (0, 0, 8, 8)]]
    assert answers[0].choices[0] == ("[20, 0, 30, 10]", pytest.approx(scores[0].softmax(0)[1].item()))
    first, second = (answer.record for answer in answers)
    assert first == {
        "qa_id": 7,
        "box": [20, 0, 30, 10],
        "box_id": 71,
        "overlap": 1,
        "right": True,
        "has_right_candidate": True,
    }
    assert (second["box_id"], second["overlap"], second["right"]) == (81, 0, False)


def test_scores_of_boxes_as_tokens_are_read_from_their_own_states():
    head, given = objective(placement="tokens"), regions([[0, 0, 10, 10], [20, 0, 30, 10]])
    states = torch.randn(1, 2, WIDTH)
    encoded = Encoded(torch.zeros(1, WIDTH), (Segment("boxes", states),))
    examples = batch(regions=given)
    assert head.passes(examples) == (PASSES["tokens"],)
    assert Pointing.num_box_tags(head.options) == 0
    found = head({PASSES["tokens"]: encoded}, examples)
    torch.testing.assert_close(found.logits, head.scorer(states)[..., 0])
    assert found.loss is None


def test_half_precision_leaves_no_ties():
    """Candidates with nearly equal features would get equal scores, and the first one would be the answer."""
    head, given = objective(placement="tokens"), regions([[0, 0, 10, 10], [20, 0, 30, 10]])
    states = torch.randn(1, 1, WIDTH) + torch.tensor([0.0, 1e-2])[:, None]
    encoded = {PASSES["tokens"]: Encoded(torch.zeros(1, WIDTH), (Segment("boxes", states),))}
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(encoded, batch(regions=given)).logits
    assert scores.dtype == torch.float32
    assert not torch.equal(scores.bfloat16().float(), scores), "bfloat16 would round them"


def test_options_that_contradict_each_other():
    others = Surroundings(("pointing",), 1.0, False, 0.0, 4, 20, -1)
    with pytest.raises(UserError, match=r"pointing.judged_by=index names a candidate .* pass gt"):
        make_options("pointing", {"judged_by": "index", "candidates": "grid"}).check(others)
    with pytest.raises(UserError, match="reads all patches under a box, and max_image_len=200 drops some"):
        make_options("pointing", {}).check(replace(others, max_image_len=200))
    with pytest.raises(UserError, match="pointing.soft_targets=True needs pointing.loss=bce"):
        make_options("pointing", {"soft_targets": True}).check(others)
    with pytest.raises(UserError, match="pointing.candidates='detector' is not valid"):
        make_options("pointing", {"candidates": "detector"}).check_values()
