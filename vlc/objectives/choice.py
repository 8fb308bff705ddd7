"""Choice: an image ranks its own text above others, as in image/text retrieval (Kim et al. 2021, ViLT)."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Part, WrongTexts
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    POOLED,
    Answer,
    ModelContext,
    Objective,
    Outcome,
    linear_in_float32,
    mean_ratio,
    ranked_accuracy,
)
from vlc.objectives.options import ChoiceOptions

_CANDIDATES = Pass(("candidate_texts", "image"), pooled_only=True)


class Choice(Objective[ChoiceOptions]):
    """Cross entropy of the own text's score among the scores of wrong_texts other texts; logits (B, 1 + N), the own first.

    The image is embedded once for all its texts. The head starts as the match row of image-text matching, where a
    checkpoint has it and no ranking head. Whole splits are ranked by `vlc.evaluation.ranking`.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    starts_from: ClassVar[Mapping[str, str]] = {
        "rank_output.weight": "itm.fc.weight",
        "rank_output.bias": "itm.fc.bias",
    }

    @classmethod
    def parts(cls, options: ChoiceOptions) -> tuple[Part, ...]:
        return (WrongTexts(options.wrong_texts),)

    def __init__(self, options: ChoiceOptions, context: ModelContext):
        super().__init__(options, context)
        self.rank_output = nn.Linear(context.width, 1)
        self.apply(init_bert_weights)

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, D) of text-image pairs -> scores (N,) float32, higher = better match."""
        return linear_in_float32(self.rank_output, pooled)[:, 0]

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (_CANDIDATES if "wrong_texts" in batch.parts else POOLED,)

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        (own,) = self.passes(batch)
        scores = self.score(encoded[own].pooled).unflatten(0, (len(batch), -1))
        if "wrong_texts" not in batch.parts:
            return Outcome(None, {}, scores)
        first = torch.zeros(len(batch), dtype=torch.int64, device=scores.device)
        loss = F.cross_entropy(scores, first)
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": ranked_accuracy(scores, first)}, scores)

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The score of each example's own text."""
        scores = outcome.logits[:, 0].tolist()
        return [Answer([("ranks", value)], "score", example=number) for number, value in enumerate(scores)]
