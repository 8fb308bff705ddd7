"""Text-text matching: is the second of two texts a translation of the first one?"""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import MatchedTranslations, Part, PatchNoise
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import Answer, ModelContext, Objective, Outcome, accuracy, linear_in_float32, mean_ratio
from vlc.objectives.options import TTMOptions


class TTM(Objective[TTMOptions]):
    """Cross entropy of two classes, logits (B, 2), class 1 = it is a translation.

    Half of the texts have another text of the same language in the place of their translation. It is next sentence
    prediction (Devlin et al. 2019) on translations. The image beside the texts is the own one of the first text.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    needs_images = False

    @classmethod
    def parts(cls, options: TTMOptions) -> tuple[Part, ...]:
        return MatchedTranslations(), PatchNoise(1)

    def __init__(self, options: TTMOptions, context: ModelContext):
        super().__init__(options, context)
        self.fc = nn.Linear(context.width, 2)
        self.apply(init_bert_weights)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (self._pass(batch),)

    def _pass(self, batch: Batch) -> Pass:
        name = "matched_texts" if "matched_texts" in batch.parts else "text"
        if self.options.image and batch.images is not None:
            return Pass((name, "image"), patch_noise=1, pooled_only=True)  # image-text matching drops the same patches
        return Pass((name,), pooled_only=True)

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, D) of pairs of texts -> log odds (N,) float32 that they are translations."""
        logits = linear_in_float32(self.fc, pooled)
        return logits[:, 1] - logits[:, 0]

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        logits = linear_in_float32(self.fc, encoded[self._pass(batch)].pooled)
        if "matched_texts" not in batch.parts:
            return Outcome(None, {}, logits)
        labels = batch.parts["matched_texts"].labels
        loss = F.cross_entropy(logits, labels)
        metrics = {"loss": mean_ratio(loss, len(labels)), "accuracy": accuracy(logits, labels)}
        return Outcome(loss, metrics, logits, chance=(len(labels) / 2, len(labels)))

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The probability that the two texts of each example are translations; none for texts of one segment."""
        if batch.text is None or batch.text.segments is None:
            return []
        values = outcome.logits.float().softmax(1)[:, 1].tolist()
        return [Answer([("translation", value)], example=number) for number, value in enumerate(values)]
