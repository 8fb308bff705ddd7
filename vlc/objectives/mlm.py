"""Masked language modelling: hidden tokens are read off the other tokens and the image (Devlin et al. 2019)."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import nn

from vlc.data.batch import Batch
from vlc.data.parts import MaskedText, Part, PatchNoise
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    ModelContext,
    Objective,
    Outcome,
    accuracy,
    mean_ratio,
    mlm_transform,
    most_probable,
)
from vlc.objectives.options import MLMOptions

MASKED = Pass(("masked_text", "image"), patch_noise=0)


class MLM(Objective[MLMOptions]):
    """Cross entropy over the vocabulary at the hidden tokens; logits exist for these alone, (N, vocabulary)."""

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    reads_pooled = False
    needs_images = False
    rows_of_pieces = ("decoder.weight", "decoder.bias")

    @classmethod
    def parts(cls, options: MLMOptions) -> tuple[Part, ...]:
        how = options.probability, options.whole_words, options.word_by_word, options.one_segment
        return MaskedText(*how), PatchNoise(0)

    def __init__(self, options: MLMOptions, context: ModelContext):
        super().__init__(options, context)
        self.transform = mlm_transform(context.width)
        self.decoder = nn.Linear(context.width, context.vocab_size)
        self.apply(init_bert_weights)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (self._pass(batch),) if "masked_text" in batch.parts else ()

    @staticmethod
    def _pass(batch: Batch) -> Pass:
        return MASKED if batch.images is not None else Pass(("masked_text",))

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The most probable words for each hidden token."""
        if "masked_text" not in batch.parts:
            return []
        hidden, answers = batch.parts["masked_text"], []
        examples = (hidden.positions // hidden.text.ids.shape[1]).tolist()
        for row, choices in enumerate(most_probable(outcome.logits.float().softmax(1), token_name)):
            about = f"[MASK] {examples[: row + 1].count(examples[row])}"
            answers.append(Answer(choices, about=about, example=examples[row]))
        return answers

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if "masked_text" not in batch.parts:
            return Outcome(None)
        hidden = batch.parts["masked_text"]
        features = encoded[self._pass(batch)]["masked_text"].flatten(0, 1)[hidden.positions]
        logits = self.decoder(self.transform(features))
        count = len(hidden.labels)
        # A sum over no tokens is 0, where their mean would be NaN.
        loss = F.cross_entropy(logits.float(), hidden.labels, reduction="sum") / max(count, 1)
        return Outcome(loss, {"loss": mean_ratio(loss, count), "accuracy": accuracy(logits, hidden.labels)}, logits)
