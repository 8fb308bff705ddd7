"""Losses and metrics of the objectives, on numbers worked out by hand."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from vlc.common.errors import UserError
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.wrong_images import WrongImageChoice
from vlc.data.vocabulary import Vocabulary
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives.answers import Answers, soft_targets, vqa_score
from vlc.objectives.base import ModelContext, Objective, Outcome
from vlc.objectives.itm import ITM
from vlc.objectives.mlm import MLM
from vlc.objectives.options import AnswersOptions, ITMOptions, MLMOptions
from vlc.tasks import TASKS


def _context(*answers: str) -> ModelContext:
    return ModelContext(width=32, vocab_size=20, num_patches=4, size=tiny.SMALL, vocabulary=Vocabulary(answers))


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(tiny.SMALL, 32, vocab_size=20, max_text_len=8).eval()


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (4, 6), generator=generator)
    text = Text(ids, torch.ones_like(ids))
    return Batch(
        images=Images(torch.rand(4, 1, 3, 32, 32, generator=generator)),
        index=torch.arange(4),
        split="val",
        text=text,
        parts={
            "masked_text": MaskedTokens(text, torch.tensor([1, 8, 22]), torch.tensor([3, 4, 5])),
            "wrong_images": WrongImageChoice(torch.tensor([0.9, 0.1, 0.8, 0.2]), torch.tensor([1, 2, 3, 0])),
            "answer_labels": torch.tensor([[0, 2], [1, 0], [2, 0], [1, 2]]),
            "answer_scores": torch.tensor([[1.0, 0.3], [0.6, 0.0], [1.0, 0.0], [0.3, 0.9]]),
            "question_id": [10, 11, 12, 13],
            "question_type": ["count", "where", "count", "where"],
        },
    )


def _outcome(objective: Objective, encoder: Encoder, batch: Batch) -> Outcome:
    return objective(encode_passes(encoder, batch, objective.passes(batch)), batch)


def test_mlm_loss_is_the_mean_over_hidden_tokens(encoder, batch):
    objective = MLM(MLMOptions(), _context()).eval()
    outcome = _outcome(objective, encoder, batch)
    assert outcome.logits.shape == (3, 20)
    expected = F.cross_entropy(outcome.logits, batch.parts["masked_text"].labels)
    torch.testing.assert_close(outcome.loss, expected)
    total, count = outcome.metrics["accuracy"]
    assert (int(total), count) == (int((outcome.logits.argmax(1) == batch.parts["masked_text"].labels).sum()), 3)


def test_mlm_without_a_hidden_token_costs_nothing_and_has_a_gradient(encoder, batch):
    none = torch.empty(0, dtype=torch.int64)
    batch = batch.with_parts(masked_text=MaskedTokens(batch.text, none, none))
    objective = MLM(MLMOptions(), _context())
    outcome = _outcome(objective, encoder, batch)
    assert outcome.loss == 0
    outcome.loss.backward()
    assert outcome.metrics["accuracy"][1] == 0


def test_itm_adds_alignment_with_its_weight(encoder, batch):
    objectives = {weight: ITM(ITMOptions(weight), _context()).eval() for weight in (0, 0.1, 0.5)}
    for objective in objectives.values():
        objective.load_state_dict(objectives[0].state_dict())
    outcomes = {weight: _outcome(objective, encoder, batch) for weight, objective in objectives.items()}
    assert "wpa_loss" not in outcomes[0].metrics
    small, large = (outcomes[weight].loss - outcomes[0].loss for weight in (0.1, 0.5))
    torch.testing.assert_close(large, 5 * small, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(outcomes[0.1].metrics["wpa_loss"][0], 4 * small, rtol=1e-3, atol=1e-6)


def test_soft_targets():
    targets = soft_targets(torch.tensor([[1, 2], [0, 0]]), torch.tensor([[1.0, 0.3], [0.6, 0.0]]), 4)
    torch.testing.assert_close(targets, torch.tensor([[0, 1.0, 0.3, 0], [0.6, 0, 0, 0]]))


def test_vqa_score_of_the_published_metric(golden):
    stored = torch.load(golden / "eval/metrics.pt", weights_only=True)
    sums, counts = [], []
    for number in (1, 2):
        total, count = vqa_score(stored[f"vqa_logits_{number}"], stored[f"vqa_targets_{number}"])
        assert float(total) / count == pytest.approx(float(stored[f"vqa_score_batch_{number}"]), rel=1e-6)
        sums.append(float(total))
        counts.append(count)
    assert sum(sums) / sum(counts) == pytest.approx(float(stored["vqa_score_total"]), rel=1e-6)
    loss = F.binary_cross_entropy_with_logits(stored["vqa_logits_1"], stored["vqa_targets_1"])
    assert float(loss) * stored["vqa_logits_1"].shape[1] == pytest.approx(float(stored["vqa_loss_1"]), rel=1e-5)


def test_vqa_predictions(batch):
    objective = Answers(AnswersOptions(3), _context("no", "yes", ""))
    logits = torch.tensor([[2.0, 0, 1], [0, 2, 1], [0, 1, 2], [2, 1, 0]])
    records = [answer.record for answer in objective.answers(Outcome(torch.zeros(()), {}, logits), batch)]
    assert records[0] == {"question_id": 10, "answer": "no", "score": 1.0, "question_type": "count"}
    assert [record["answer"] for record in records] == ["no", "yes", "unknown", "no"]
    assert [record["score"] for record in records] == pytest.approx([1.0, 0.6, 1.0, 0.0])
    report = TASKS["vqa"].report
    assert report.summary(records) == pytest.approx({"score/count": 1.0, "score/where": 0.3})
    kind, text = report.submission(records)
    assert (kind, json.loads(text)[1]) == ("json", {"question_id": 11, "answer": "yes"})


def test_answers_that_compete(encoder, batch):
    """Cross entropy with the target scores; a question that no answer fits costs nothing."""
    objective = Answers(AnswersOptions(3, "cross_entropy"), _context("no", "yes", "cat")).eval()
    outcome = _outcome(objective, encoder, batch)
    labels, scores = batch.parts["answer_labels"], batch.parts["answer_scores"]
    targets = soft_targets(labels, scores, 3)
    expected = -(targets * outcome.logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(outcome.loss, expected)
    (first, *_) = objective.answers(outcome, batch)
    assert sum(value for _, value in first.choices) == pytest.approx(1)
    nothing = batch.with_parts(answer_scores=torch.zeros_like(scores))
    assert _outcome(objective, encoder, nothing).loss == 0


def test_vqa_without_labels_predicts_and_scores_nothing(encoder, batch):
    batch = replace(batch, parts={"question_id": batch.parts["question_id"]})
    objective = Answers(AnswersOptions(3), _context())
    outcome = _outcome(objective, encoder, batch)
    assert outcome.loss is None
    assert not outcome.metrics
    assert set(objective.answers(outcome, batch)[0].record) == {"question_id", "answer"}


def test_vqa_refuses_more_answers_than_it_has_labels():
    with pytest.raises(UserError, match="The data have 4 answers, vqav2_label_size=3 is too small"):
        Answers(AnswersOptions(3), _context("a", "b", "c", "d"))
