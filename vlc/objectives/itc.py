"""Image-text contrast: images and texts encoded apart, each found by the other among a batch (Radford et al. 2021, CLIP).

What it learns makes retrieval fast: embeddings of a split are computed once, and `vlc.retrieval` lets the full model
re-rank only the best of them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch, Text
from vlc.distributed import gather_features, process_number
from vlc.model.embed import init_bert_weights
from vlc.model.encoder import Encoder, ImageTokens
from vlc.objectives.base import HeadOptions, Objective, Outcome, Passes, Reply, accuracy, mean_ratio

MAX_SCALE = 100.0  # of the similarities, as in CLIP


class ITC(Objective):
    """Symmetric cross entropy over similarities with a learned temperature; logits (B, batch of all processes).

    The encoder runs on the image alone and on the text alone; the pooled features are projected to unit length.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        self.image_projection = nn.Linear(options.width, options.width, bias=False)
        self.text_projection = nn.Linear(options.width, options.width, bias=False)
        self.apply(init_bert_weights)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_images(self, encoder: Encoder, image: ImageTokens) -> Tensor:
        """Embedded images -> unit vectors (B, D)."""
        return F.normalize(self.image_projection(encoder.fuse(None, None, image).pooled), dim=-1)

    def embed_texts(self, encoder: Encoder, text: Text) -> Tensor:
        """Texts (B, L) -> unit vectors (B, D)."""
        return F.normalize(
            self.text_projection(encoder.fuse(encoder.embed_text(text.ids), text.mask, None).pooled), dim=-1
        )

    def reply(self, passes: Passes, batch: Batch, word: Callable[[int], str]) -> list[Reply]:
        encoder = passes.encoder
        image = self.embed_images(encoder, encoder.embed_images(batch.images[:, 0]))
        return [Reply([("near", (image @ self.embed_texts(encoder, batch.text).T).item())], "cosine similarity")]

    def forward(self, passes: Passes, batch: Batch) -> Outcome:
        encoder = passes.encoder
        images = self.embed_images(encoder, encoder.embed_images(batch.images[:, 0])).float()
        texts = self.embed_texts(encoder, batch.text).float()
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        to_texts, to_images = scale * images @ gather_features(texts).T, scale * texts @ gather_features(images).T
        rank, _ = process_number()
        own = torch.arange(len(batch), device=images.device) + rank * len(batch)
        loss = (F.cross_entropy(to_texts, own) + F.cross_entropy(to_images, own)) / 2
        right, count = (sum(parts) for parts in zip(accuracy(to_texts, own), accuracy(to_images, own), strict=True))
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": (right, count)}, to_texts)
