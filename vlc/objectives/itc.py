"""Image-text contrast: images and texts encoded apart, each found by the other among a batch (Radford et al. 2021, CLIP).

It makes retrieval fast: the embeddings of a split are computed once, and in `vlc.evaluation.ranking` the full model
re-ranks only the nearest candidates.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Part, TextDescribesImage
from vlc.hardware.distributed import gather_features, gather_values
from vlc.model.embed import init_bert_weights
from vlc.model.inputs import stacked_texts
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    ModelContext,
    Objective,
    Outcome,
    linear_in_float32,
    mean_ratio,
    ranked_accuracy,
)
from vlc.objectives.options import ITCOptions

MAX_SCALE = 100.0  # the inverse temperature is clamped to it, as in CLIP
IMAGES, TEXTS = Pass(("image",), pooled_only=True), Pass(("text",), pooled_only=True)


class ITC(Objective[ITCOptions]):
    """Symmetric cross entropy over similarities with a learned temperature; logits (B, batch of all processes).

    Without supervision: the similarity of each text to its image, (B, 1).

    The encoder runs on the image alone and on the text alone, and the pooled features are projected to unit length. Other
    pairs of the batch that match too, because a text or an image occurs twice, are no candidates.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"

    @classmethod
    def parts(cls, options: ITCOptions) -> tuple[Part, ...]:
        return (TextDescribesImage(),)

    def __init__(self, options: ITCOptions, context: ModelContext):
        super().__init__(options, context)
        self.image_projection = nn.Linear(context.width, context.width, bias=False)
        self.text_projection = nn.Linear(context.width, context.width, bias=False)
        self.apply(init_bert_weights)
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / 0.07)]))  # (1,), as FSDP shares out no scalar

    def image_vectors(self, pooled: Tensor) -> Tensor:
        """Pooled features (B, D) of images alone -> unit vectors (B, D) float32."""
        return F.normalize(linear_in_float32(self.image_projection, pooled), dim=-1)

    def text_vectors(self, pooled: Tensor) -> Tensor:
        """Pooled features (B, D) of texts alone -> unit vectors (B, D) float32."""
        return F.normalize(linear_in_float32(self.text_projection, pooled), dim=-1)

    @property
    def hard_negatives(self) -> bool:
        return self.options.hard_negatives

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return IMAGES, TEXTS

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """How near each text is to its image. A supervised batch has none: its logits are about all pairs in it."""
        values = [] if outcome.loss is not None else outcome.logits[:, 0].tolist()
        return [Answer([("near", value)], "cosine similarity", example=number) for number, value in enumerate(values)]

    @property
    def scale(self) -> Tensor:
        """Inverse temperature."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def _vectors(self, encoded: Mapping[Pass, Encoded]) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, D) float32 of a batch's images and of its texts."""
        return self.image_vectors(encoded[IMAGES].pooled), self.text_vectors(encoded[TEXTS].pooled)

    @torch.no_grad()
    def with_hard_negatives(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Batch:
        """Return the batch with wrong images and texts of its own that are hard to distinguish from the right ones.

        Wrong images are drawn in proportion to the exponential of their scaled similarity to the text (Li et al. 2021,
        ALBEF). Wrong texts are the texts most similar to the image. Where the batch has none, the loader's choice stays.
        """
        images, texts = self._vectors(encoded)
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
            assert batch.text is not None
            harder = batch.text.at(rows.flatten())
            both = stacked_texts(texts_of_loader, harder, self.context.pad_token_id)
            chosen = torch.arange(count, device=rows.device) + count * best.isfinite().flatten()
            changes["wrong_texts"] = both.at(chosen)
        return batch.with_parts(**changes)

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        images, texts = self._vectors(encoded)
        if "text_describes_image" not in batch.parts:
            return Outcome(None, {}, torch.linalg.vecdot(images, texts)[:, None])
        all_images, first = gather_features(images)
        all_texts, _ = gather_features(texts)
        own = first + torch.arange(len(batch), device=images.device)
        of_images, of_texts = (pairs.scatter(1, own[:, None], False) for pairs in _described(batch, first))
        to_texts = self._similarities(images, all_texts).masked_fill(of_images, -torch.inf)
        to_images = self._similarities(texts, all_images).masked_fill(of_texts, -torch.inf)
        loss = (F.cross_entropy(to_texts, own) + F.cross_entropy(to_images, own)) / 2
        (right_texts, num_texts), (right_images, num_images) = (
            ranked_accuracy(scores, own) for scores in (to_texts, to_images)
        )
        accuracy = (right_texts + right_images, num_texts + num_images)
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": accuracy}, to_texts)

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
    # Only its own process knows all texts of an image's row, and shares them with the others.
    everywhere = gather_values(of_images.to(torch.uint8)).bool()
    return of_images, everywhere[:, first : first + len(batch)].T
