"""Text-text contrast: a text and its translation, encoded apart, find each other among a batch.

It makes one space of several languages, as in LaBSE (Feng et al. 2022) and CCLM (Zeng et al. 2023), so that what is learnt
of images in one language holds in the others.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Part, SecondText, TextDescribesImage
from vlc.hardware.distributed import gather_features, gather_values
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import ModelContext, Objective, Outcome, mean_ratio, ranked_accuracy
from vlc.objectives.itc import MAX_SCALE, TEXTS
from vlc.objectives.options import TTCOptions

_SECOND = Pass(("second_text",), pooled_only=True)


class TTC(Objective[TTCOptions]):
    """Symmetric cross entropy over cosine similarities with a learned temperature; logits (B, batch of all processes).

    The pooled features themselves are compared, without a projection: heads that read them, such as image-text contrast,
    then find a text where they find its translation. Other texts of the same row are no candidates.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    needs_images = False

    @classmethod
    def parts(cls, options: TTCOptions) -> tuple[Part, ...]:
        return SecondText(), TextDescribesImage()

    @classmethod
    def num_images(cls, options: TTCOptions) -> int:
        return 0

    def __init__(self, options: TTCOptions, context: ModelContext):
        super().__init__(options, context)
        self.log_scale = nn.Parameter(
            torch.tensor([-math.log(options.temperature)])
        )  # (1,), as FSDP shares out no scalar

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (TEXTS, _SECOND) if "second_text" in batch.parts else ()

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if "second_text" not in batch.parts:
            return Outcome(None)
        texts, others = (F.normalize(encoded[one].pooled.float(), dim=-1) for one in (TEXTS, _SECOND))
        (all_texts, first), (all_others, _) = gather_features(texts), gather_features(others)
        own = first + torch.arange(len(batch), device=texts.device)
        row = batch.parts["text_describes_image"].identity.row
        same = (row[:, None] == gather_values(row)).scatter(1, own[:, None], False)
        to_others, to_texts = (
            self._similarities(queries, found).masked_fill(same, -torch.inf)
            for queries, found in ((texts, all_others), (others, all_texts))
        )
        loss = (F.cross_entropy(to_others, own) + F.cross_entropy(to_texts, own)) / 2
        found = [ranked_accuracy(scores, own) for scores in (to_others, to_texts)]
        right, count = (sum(values) for values in zip(*found, strict=True))
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": (right, count)}, to_others)

    def _similarities(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Scaled (queries, candidates) float32, as in image-text contrast."""
        with torch.autocast(queries.device.type, enabled=False):
            return self.log_scale.float().exp().clamp(max=MAX_SCALE) * queries @ candidates.T
