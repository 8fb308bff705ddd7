"""Classes: both losses, and what the records of a tested split hold."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.configuration.task_settings import make_options
from vlc.data.batch import Batch
from vlc.data.geometry import Placement
from vlc.data.parts import Boxes
from vlc.data.parts.regions import padded_regions, placed_boxes
from vlc.model.passes import Pass
from vlc.model.segments import Encoded, Segment
from vlc.objectives.base import ModelContext, Outcome
from vlc.objectives.classes import Classes
from vlc.objectives.options import Surroundings
from vlc.tasks import TASKS

HEAD = json.loads((GOLDEN / "tasks/statements/expected/numbers.json").read_text())["snli_ve_head"]
OPTIONS = TASKS["snli_ve"].options["classes"]
WHERE = Placement(np.array([[1.0, 0, 0], [0, 1, 0]]), (64, 64))


def _objective(**options) -> Classes:
    return Classes(make_options("classes", {**OPTIONS, **options}), ModelContext(32, 20, 4, tiny.SMALL))


def _outcome(objective: Classes, logits: torch.Tensor, labels: torch.Tensor) -> Outcome:
    """The outcome of a batch whose logits are given, in place of those of the layers."""
    objective.classifier = torch.nn.Identity()
    batch = Batch(index=torch.arange(len(labels)), split="dev", parts={"label": labels})
    return objective({Pass(("text", "image"), pooled_only=True): Encoded(logits)}, batch)


def test_binary_cross_entropy_is_that_of_the_published_head():
    """Its batch has a row without gold label, which it gives a target of zeros: we have no such rows."""
    logits, target = torch.tensor(HEAD["logits"]), torch.tensor(HEAD["target"])
    labelled = target.any(1)
    outcome = _outcome(_objective(loss="bce"), logits[labelled], target[labelled].argmax(1))
    unlabelled = F.binary_cross_entropy_with_logits(logits[~labelled], target[~labelled], reduction="sum")
    assert outcome.loss * labelled.sum() * 3 + unlabelled == pytest.approx(HEAD["loss"] * target.numel(), rel=1e-6)
    assert outcome.metrics["accuracy"] == (HEAD["score"], int(labelled.sum()))


def test_cross_entropy_is_the_default():
    logits, labels = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), torch.tensor([1, 0])
    assert torch.equal(_outcome(_objective(), logits, labels).loss, F.cross_entropy(logits, labels))
    with pytest.raises(UserError, match="classes.loss='hinge' is not valid: expected cross_entropy or bce"):
        make_options("classes", OPTIONS | {"loss": "hinge"}).check_values()


def test_records_have_the_probabilities_and_on_labelled_splits_the_true_class():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    parts = {"label": torch.tensor([0, 1]), "pair_id": ["a", "b"], "statement_type": ["place", "alike"]}
    batch = Batch(index=torch.arange(2), split="dev", parts=parts)
    records = [answer.record for answer in _objective().answers(Outcome(torch.zeros(()), {}, logits), batch)]
    assert [record.pop("probabilities") for record in records] == logits.softmax(1).tolist()
    assert records == [
        {"pair_id": "a", "answer": "contradiction", "right": True, "gold": "contradiction", "statement_type": "place"},
        {"pair_id": "b", "answer": "entailment", "right": False, "gold": "neutral", "statement_type": "alike"},
    ]
    batch = Batch(index=torch.arange(2), split="test", parts={"pair_id": ["a", "b"]})
    records = [answer.record for answer in _objective().answers(Outcome(None, {}, logits), batch)]
    assert [set(record) for record in records] == [{"pair_id", "answer", "probabilities"}] * 2


def _box_batch(*boxes: list[float]) -> Batch:
    cells = [placed_boxes("boxes", [box], WHERE) for box in boxes]
    parts = {"box": padded_regions(cells), "label": torch.zeros(len(boxes), dtype=torch.int64)}
    return Batch(index=torch.arange(len(boxes)), split="dev", parts=parts)


def _encoded(batch: Batch) -> dict[Pass, Encoded]:
    """Patches of an image whose left half differs from its right half, with the same pooled feature everywhere."""
    tokens = torch.zeros(len(batch), 17, 32)
    tokens[:, 1:].unflatten(1, (4, 4))[:, :, :2] = 1
    return {Pass(("text", "image")): Encoded(torch.zeros(len(batch), 32), (Segment("image", tokens, grid=(4, 4)),))}


@torch.no_grad()
def test_the_box_that_a_text_is_about_is_classified_too():
    objective = _objective(box="target_boxes")
    objective.pooler.location.weight.zero_()
    batch = _box_batch([0, 0, 16, 64], [48, 0, 64, 64], [0, 32, 16, 64])
    assert objective.passes(batch) == (Pass(("text", "image")),)
    logits = objective(_encoded(batch), batch).logits
    assert torch.allclose(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])
    assert Boxes("box", ("target_boxes",), given=True) in objective.parts(objective.options)


@torch.no_grad()
def test_a_box_that_is_not_shown_says_nothing_and_without_boxes_there_is_no_answer():
    objective = _objective(box="target_boxes")
    batch = _box_batch([100, 0, 120, 10], [300, 300, 310, 310])
    assert not batch.parts["box"].mask.any()
    logits = objective(_encoded(batch), batch).logits
    assert torch.equal(logits[0], logits[1])
    asked = Batch(index=torch.arange(2), split="predict")
    assert objective.passes(asked) == ()
    assert objective.answers(objective({}, asked), asked) == []


def test_a_box_needs_one_image_and_all_its_patches():
    with pytest.raises(UserError, match="classes.images=2 is not valid: expected 1 beside classes.box=target_boxes"):
        make_options("classes", OPTIONS | {"box": "target_boxes", "images": 2}).check_values()
    others = Surroundings(("classes",), 1.0, False, 0.0, 4, 20, 200)
    make_options("classes", OPTIONS).check(others)
    with pytest.raises(UserError, match="classes.box=target_boxes reads all patches .* pass max_image_len=-1"):
        make_options("classes", OPTIONS | {"box": "target_boxes"}).check(others)
