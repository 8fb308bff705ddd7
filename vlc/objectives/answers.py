"""Visual question answering as classification over a fixed answer vocabulary, with soft targets (VQA v2)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.common.errors import UserError
from vlc.data.batch import Batch
from vlc.data.parts import Field, MaskedAnswer, Part
from vlc.data.vocabulary import UNKNOWN
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    POOLED,
    Answer,
    ModelContext,
    Objective,
    Outcome,
    Ratio,
    Truth,
    classifier,
    mean_ratio,
    mlm_transform,
    most_probable,
    with_records,
)
from vlc.objectives.options import AnswersOptions


def soft_targets(labels: Tensor, scores: Tensor, num_answers: int) -> Tensor:
    """Answer labels and scores (B, n), padded with label 0 and score 0 -> dense targets (B, num_answers) float32."""
    targets = torch.zeros(len(labels), num_answers, device=labels.device)
    return targets.scatter_add_(1, labels, scores)


def vqa_score(logits: Tensor, targets: Tensor) -> Ratio:
    """Sum of the target values at the best answers, and the number of questions."""
    return targets.gather(1, logits.argmax(1, keepdim=True)).sum(), len(targets)


_ASKED = Pass(("masked_answer", "image"))  # the question with [MASK] behind it


class Answers(Objective[AnswersOptions]):
    """Logits (B, answers), and their loss, averaged over the batch.

    It is binary cross entropy, summed over the answers, or cross entropy with the target scores, which is 0 for a question
    that no answer fits.

    The answer is classified from the pooled feature, or with pool=mask from the state of a [MASK] behind the question. The
    layers before the last one then start from the layers of masked language modelling (Su et al. 2020, VL-BERT).
    """

    metrics = ("loss", "score")
    headline = "score"
    task_head = True
    writes_records = True
    answers_from_vocabulary = True
    starts_from: Mapping[str, str] = {
        f"transform.{name}": f"mlm.transform.{name}"
        for name in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")
    }
    own_labels: Tensor | None

    @classmethod
    def parts(cls, options: AnswersOptions) -> tuple[Part, ...]:
        described = (Field(name, "where_provided") for name in options.described_by)
        masked = (MaskedAnswer(),) if options.pool == "mask" else ()
        return Field("answer_labels"), Field("answer_scores"), Field("question_id", "always"), *described, *masked

    def __init__(self, options: AnswersOptions, context: ModelContext):
        super().__init__(options, context)
        if (count := len(context.vocabulary)) > options.num_answers:
            raise UserError(
                f"The data have {count} answers, vqav2_label_size={options.num_answers} is too small: "
                f"pass vqav2_label_size={count}, or TASK.answers.num_answers={count} for a task that `tasks` names"
            )
        labels = context.vocabulary.translation
        self.register_buffer("own_labels", torch.tensor(labels) if labels else None, persistent=False)
        self.reads_pooled = options.pool == "cls"
        if self.reads_pooled:
            self.classifier = classifier(context.width, 2 * context.width, options.num_answers)
        else:
            self.transform, self.dropout = mlm_transform(context.width), nn.Dropout(0.1)
            self.decoder = nn.Linear(context.width, options.num_answers)
            self.apply(init_bert_weights)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (POOLED if self.reads_pooled else _ASKED,)

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        logits = self._logits(encoded, batch)
        if "answer_labels" not in batch.parts:
            return Outcome(None, {}, logits)
        targets = self._targets(batch)
        if self.options.loss == "cross_entropy":
            loss = F.cross_entropy(logits.float(), targets)
        else:
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets) * targets.shape[1]
        ratios = {"loss": mean_ratio(loss, len(batch)), "score": vqa_score(logits, targets)}
        right = targets.sum() if targets.ndim > 1 else len(targets)
        return Outcome(loss, ratios, logits, chance=(right / logits.shape[1], len(batch)))

    def _logits(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Tensor:
        if self.reads_pooled:
            return self.classifier(encoded[POOLED].pooled)
        states = encoded[_ASKED]["masked_answer"].flatten(0, 1)[batch.parts["masked_answer"].positions]
        return self.decoder(self.dropout(self.transform(states)))

    def _targets(self, batch: Batch) -> Tensor:
        """Dense targets (B, answers) by the head's own labels; answers that it does not know have none."""
        labels, scores = batch.parts["answer_labels"], batch.parts["answer_scores"]
        if self.own_labels is not None:
            labels = self.own_labels[labels]
            labels, scores = labels.clamp(min=0), scores.masked_fill(labels == UNKNOWN, 0)
        return soft_targets(labels, scores, self.options.num_answers)

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The most probable answers; with bce each has a probability of its own, as it was trained.

        Records have question_id and answer; on labelled splits the score and, where the data have it, what describes the
        question.
        """
        name, logits = self.context.vocabulary.name, outcome.logits.float()
        choices = most_probable(logits.sigmoid() if self.options.loss == "bce" else logits.softmax(1), name)
        if "question_id" not in batch.parts:
            return with_records(choices, None)
        best = outcome.logits.argmax(1)
        columns = {"question_id": batch.parts["question_id"], "answer": [name(label) for label in best.tolist()]}
        if outcome.loss is not None:
            columns["score"] = self._targets(batch).gather(1, best[:, None])[:, 0].tolist()
        described = {name: batch.parts[name] for name in self.options.described_by if name in batch.parts}
        columns |= {
            name: values.tolist() if isinstance(values, Tensor) else values for name, values in described.items()
        }
        return with_records(choices, columns)

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The answer with the highest target; empty for a question that no answer of the head fits."""
        if outcome.loss is None:
            return []
        targets = self._targets(batch)
        scores = targets.gather(1, outcome.logits.argmax(1, keepdim=True))[:, 0].tolist()
        values, labels = (column.tolist() for column in targets.max(1))
        names = [
            self.context.vocabulary.name(label) if value else "" for value, label in zip(values, labels, strict=True)
        ]
        return list(map(Truth, names, scores))
