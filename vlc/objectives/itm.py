"""Image-text matching, with word-patch alignment beside it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.matching import match_labels
from vlc.data.parts import Part, PatchNoise, WrongImages
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    POOLED,
    Answer,
    ModelContext,
    Objective,
    Outcome,
    accuracy,
    linear_in_float32,
    mean_ratio,
)
from vlc.objectives.options import ITMOptions
from vlc.objectives.wpa import Iteration, inner_words, iteration, transport_distance

_PAIRS = Pass(("text", "matched_images"), patch_noise=1)  # the masked-language pass uses row 0 of the noise


class ITM(Objective[ITMOptions]):
    """Does the image belong to the text? Logits (B, 2), class 1 = match.

    Half of the examples get another image (`vlc.data.matching`). The loss of word-patch alignment (distances of true
    pairs minus those of false ones, over B) is added with the option alignment_weight as its weight.
    """

    metrics = ("loss", "accuracy", "wpa_loss")
    headline = "accuracy"

    @classmethod
    def parts(cls, options: ITMOptions) -> tuple[Part, ...]:
        # Row 0 is drawn even where no other objective reads it: the draws after it do not depend on the others.
        return PatchNoise(0), PatchNoise(1), WrongImages(options.source)

    def __init__(self, options: ITMOptions, context: ModelContext):
        super().__init__(options, context)
        self.fc = nn.Linear(context.width, 2)
        self.apply(init_bert_weights)
        self._iterate: Iteration = iteration

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (_PAIRS if "wrong_images" in batch.parts else POOLED,)

    def compile_parts(self, **options: Any) -> None:
        self._iterate = torch.compile(iteration, dynamic=True, **options)

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, D) of text-image pairs -> log odds (N,) float32 of a match, to rank without fine-tuning."""
        logits = linear_in_float32(self.fc, pooled)
        return logits[:, 1] - logits[:, 0]

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The probability that image and text belong together."""
        values = (outcome.logits[:, 1] - outcome.logits[:, 0]).sigmoid().tolist()
        return [Answer([("match", value)], example=number) for number, value in enumerate(values)]

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if "wrong_images" not in batch.parts:
            return Outcome(None, {}, linear_in_float32(self.fc, encoded[POOLED].pooled))
        labels, pairs = match_labels(batch), encoded[_PAIRS]
        logits = linear_in_float32(self.fc, pairs.pooled)
        loss = F.cross_entropy(logits, labels)
        metrics = {"loss": mean_ratio(loss, len(labels)), "accuracy": accuracy(logits, labels)}
        if self.options.alignment_weight:
            assert batch.text is not None
            alignment = self.options.alignment_weight * self._alignment(pairs, batch.text.mask, labels)
            metrics["wpa_loss"] = mean_ratio(alignment, len(labels))
            loss = loss + alignment
        return Outcome(loss, metrics, logits)

    def _alignment(self, pairs: Encoded, text_mask: Tensor, labels: Tensor) -> Tensor:
        image = pairs.segment("matched_images")
        patches = torch.ones(image.tokens.shape[:2], dtype=torch.bool, device=labels.device)
        if image.mask is not None:
            patches &= image.mask
        patches[:, 0] = False  # the class token
        with torch.autocast(labels.device.type, enabled=False):
            words = inner_words(text_mask)
            distance = transport_distance(pairs["text"], image.tokens, words, patches, self._iterate)
        return (distance * (2 * labels - 1)).sum() / len(labels)
