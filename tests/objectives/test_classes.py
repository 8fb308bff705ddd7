"""Classes: both losses, and what the records of a tested split hold."""

import json

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.configuration.task_settings import make_options
from vlc.data.batch import Batch
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import ModelContext, Outcome
from vlc.objectives.classes import Classes
from vlc.tasks import TASKS

HEAD = json.loads((GOLDEN / "tasks/statements/expected/numbers.json").read_text())["snli_ve_head"]
OPTIONS = TASKS["snli_ve"].options["classes"]


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
