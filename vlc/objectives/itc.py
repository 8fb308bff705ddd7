"""Image-text contrast: images and texts encoded apart, each found by the other among a batch (Radford et al. 2021, CLIP).

What it learns makes retrieval fast: embeddings of a split are computed once, and `vlc.evaluation.retrieval` lets the full
model re-rank only the best of them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.common.inputs import Text
from vlc.data.batch import Batch
from vlc.data.parts import Part, TextDescribesImage
from vlc.hardware.distributed import gather_features, gather_values
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
from vlc.objectives.irtr import stacked_texts

MAX_SCALE = 100.0  # of the similarities, as in CLIP


class ITC(Objective):
    """Symmetric cross entropy over similarities with a learned temperature; logits (B, batch of all processes).

    The encoder runs on the image alone and on the text alone; the pooled features are projected to unit length. Other
    pairs of the batch of all processes that match too (a text or an image that occurs twice) are no candidates.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"

    @classmethod
    def parts(cls, options: Any) -> tuple[Part, ...]:
        return (TextDescribesImage(),)

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        self.image_projection = nn.Linear(options.width, options.width, bias=False)
        self.text_projection = nn.Linear(options.width, options.width, bias=False)
        self.apply(init_bert_weights)
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / 0.07)]))  # (1,), as FSDP shares out no scalar

    def embed_images(self, encoder: Encoder, image: ImageTokens) -> Tensor:
        """Embedded images -> unit vectors (B, D) float32."""
        return F.normalize(linear_in_float32(self.image_projection, encoder.fuse_pooled(None, image)), dim=-1)

    def embed_texts(self, encoder: Encoder, text: Text) -> Tensor:
        """Texts (B, L) -> unit vectors (B, D) float32."""
        pooled = encoder.fuse_pooled(encoder.embed_text(text), None)
        return F.normalize(linear_in_float32(self.text_projection, pooled), dim=-1)

    def reply(self, passes: Passes, batch: Batch, word: Callable[[int], str]) -> list[Reply]:
        encoder, (images, sizes) = passes.encoder, batch.images.at(0)
        image = self.embed_images(encoder, encoder.embed_images(images, sizes=sizes))
        return [Reply([("near", (image @ self.embed_texts(encoder, batch.text).T).item())], "cosine similarity")]

    @property
    def scale(self) -> Tensor:
        """Inverse temperature."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def embed(self, passes: Passes, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, D) float32 of a batch's images and of its texts."""

        def embedded() -> tuple[Tensor, Tensor]:
            encoder, (images, sizes) = passes.encoder, batch.images.at(0)
            tokens = encoder.embed_images(images, sizes=sizes)
            return self.embed_images(encoder, tokens), self.embed_texts(encoder, batch.text)

        return passes.once("itc", embedded)

    @torch.no_grad()
    def with_hard_negatives(self, passes: Passes, batch: Batch) -> Batch:
        """The batch with wrong images and wrong texts out of itself that are hard to tell from the right ones.

        Wrong images are drawn in proportion to the exponential of their scaled similarity to the text (Li et al. 2021,
        ALBEF), wrong texts are the most similar to the image. Where the batch has none, those of the loader stay.
        """
        with torch.enable_grad():
            images, texts = self.embed(passes, batch)
        describes = batch.parts["text_describes_image"].within
        logits = self._similarities(texts, images).masked_fill(describes, -torch.inf)  # (texts, images)
        changes = {}
        wrong = batch.parts.get("wrong_images")
        if wrong is not None and wrong.rows is not None:
            some = ~describes.all(1, keepdim=True)
            drawn = torch.where(some, logits, 0.0).softmax(1).multinomial(1)[:, 0]
            changes["wrong_images"] = replace(wrong, rows=torch.where(some[:, 0], drawn, wrong.rows))
        texts_of_loader = batch.parts.get("wrong_texts")
        if texts_of_loader is not None:
            count = len(texts_of_loader.ids)
            best, rows = logits.T.topk(count // len(batch))
            harder = Text(batch.text.ids[rows.flatten()], batch.text.mask[rows.flatten()])
            both = stacked_texts(texts_of_loader, harder, self.options.pad_token_id)
            chosen = torch.arange(count, device=rows.device) + count * best.isfinite().flatten()
            changes["wrong_texts"] = Text(both.ids[chosen], both.mask[chosen])
        return batch.with_parts(**changes)

    def forward(self, passes: Passes, batch: Batch) -> Outcome:
        images, texts = self.embed(passes, batch)
        all_images, first = gather_features(images)
        all_texts, _ = gather_features(texts)
        own = first + torch.arange(len(batch), device=images.device)
        of_images, of_texts = (pairs.scatter(1, own[:, None], False) for pairs in _described(batch, first))
        to_texts = self._similarities(images, all_texts).masked_fill(of_images, -torch.inf)
        to_images = self._similarities(texts, all_images).masked_fill(of_texts, -torch.inf)
        loss = (F.cross_entropy(to_texts, own) + F.cross_entropy(to_images, own)) / 2
        found = zip(ranked_accuracy(to_texts, own), ranked_accuracy(to_images, own), strict=True)
        right, count = (sum(parts) for parts in found)
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": (right, count)}, to_texts)

    def _similarities(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Scaled (queries, candidates) float32: in half precision, values up to 100 would lie half a unit apart."""
        with torch.autocast(queries.device.type, enabled=False):
            return self.scale.float() * queries @ candidates.T


def _described(batch: Batch, first: int) -> tuple[Tensor, Tensor]:
    """(B, batch of all processes) bool: which texts belong to each image of the batch, and which images to each text.

    first: where the batch begins among those of all processes.
    """
    descriptions = batch.parts["text_describes_image"]
    identity = descriptions.identity
    if identity is None:  # a batch of one process, made by hand
        return descriptions.within.T, descriptions.within
    others = replace(identity, row=gather_values(identity.row), text=gather_values(identity.text))
    of_images = identity.described_by(others).T
    # Only its own process knows all texts of an image's row: it tells the others.
    everywhere = gather_values(of_images.to(torch.uint8)).bool()
    return of_images, everywhere[:, first : first + len(batch)].T
