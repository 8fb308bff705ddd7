"""Image/text retrieval: an image ranks its own text above others (Kim et al. 2021, ViLT)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.common.inputs import Text
from vlc.data.batch import Batch
from vlc.data.parts import Part, WrongTexts
from vlc.model.embed import init_bert_weights
from vlc.model.embedded import ImageTokens
from vlc.model.encoder import Encoder
from vlc.objectives.base import (
    HeadOptions,
    Objective,
    Outcome,
    Passes,
    Reply,
    linear_in_float32,
    mean_ratio,
    ranked_accuracy,
)


def stacked_texts(first: Text, second: Text, pad_token_id: int) -> Text:
    """Two batches of texts, (A, L) and (B, M) -> (A + B, max(L, M)), the first one's rows first."""
    length = max(first.ids.shape[1], second.ids.shape[1])

    def joined(parts: tuple[Tensor, Tensor], fill: int) -> Tensor:
        return torch.cat([F.pad(part, (0, length - part.shape[1]), value=fill) for part in parts])

    known = first.num_real is not None and second.num_real is not None
    num_real = first.num_real + second.num_real if known else None
    return Text(joined((first.ids, second.ids), pad_token_id), joined((first.mask, second.mask), 0), num_real)


def interleave(own: Text, wrong: Text, pad_token_id: int) -> Text:
    """B texts and N others for each (B * N, grouped by example) -> (B * (1 + N), L), each example's own text first."""
    count = len(own.ids)
    both = stacked_texts(own, wrong, pad_token_id)
    order = torch.arange(len(both.ids), device=both.ids.device)
    order = torch.cat([order[:count, None], order[count:].unflatten(0, (count, -1))], dim=1).flatten()
    return Text(both.ids[order], both.mask[order], both.num_real)


class IRTR(Objective):
    """Cross entropy of the own text's score among those of draw_false_text others; logits (B, 1 + N), the own first.

    The image is embedded once for all its texts. The head starts as the match row of image-text matching, where a
    checkpoint has it and no ranking head. Whole splits are ranked by `vlc.evaluation.retrieval`.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"

    @classmethod
    def parts(cls, options: Any) -> tuple[Part, ...]:
        return (WrongTexts(options.draw_false_text),)

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        self.rank_output = nn.Linear(options.width, 1)
        self.apply(init_bert_weights)

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, D) of text-image pairs -> scores (N,) float32, higher = better match."""
        return linear_in_float32(self.rank_output, pooled)[:, 0]

    def reply(self, passes: Passes, batch: Batch, word: Callable[[int], str]) -> list[Reply]:
        return [Reply([("ranks", self.score(passes().pooled).item())], "score")]

    def forward(self, passes: Passes, batch: Batch) -> Outcome:
        text = interleave(batch.text, batch.parts["wrong_texts"], self.options.pad_token_id)
        images, sizes = batch.images.at(0)
        image = passes.encoder.embed_images(images, sizes=sizes)
        pooled = encode_pairs(passes.encoder, text, image, len(text.ids) // len(batch))
        scores = self.score(pooled).unflatten(0, (len(batch), -1))
        own = torch.zeros(len(batch), dtype=torch.int64, device=scores.device)
        loss = F.cross_entropy(scores, own)
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": ranked_accuracy(scores, own)}, scores)


def encode_pairs(encoder: Encoder, text: Text, image: ImageTokens, texts_per_image: int) -> Tensor:
    """Pooled features (B * n, D) of B embedded images with n texts each; text (B * n, L), grouped by image."""
    rows = torch.arange(len(image.tokens), device=image.tokens.device).repeat_interleave(texts_per_image)
    return encoder.fuse_pooled(encoder.embed_text(text), image[rows])
