"""What crosses from data to model, and what an objective may ask of the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vlc.common.inputs import Sizes, Tensors, Text


@dataclass(frozen=True)
class MaskedText(Tensors):
    """Text with tokens hidden for masked language modelling.

    positions (N,) int64: the predicted tokens, as indices into the flattened (B * L); labels (N,) int64: their ids.
    Positions are given rather than a (B, L) label table, so that no device has to search for them.
    """

    text: Text
    positions: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Identity(Tensors):
    """Which rows and texts a batch's B examples are of, as numbers that mean the same in every process.

    row (B,) int64: of the data set. text (B,) int64: hashes of the texts. row_texts (B, T) int64: hashes of all texts that
    the rows have.
    """

    row: Tensor
    text: Tensor
    row_texts: Tensor

    def shows(self, others: "Identity") -> Tensor:
        """(N, B) bool: whether this batch's image of the column has the text of the row, one of N others'."""
        shown = others.row[:, None] == self.row
        for texts in self.row_texts.T:
            shown = shown | (others.text[:, None] == texts)
        return shown


@dataclass(frozen=True)
class CorruptImage:
    """An image that could not be decoded, and gave way to another sample in a training batch."""

    table: str
    row: int
    reason: str


@dataclass(frozen=True)
class Batch(Tensors):
    """One batch of B examples. Parts that nobody asked for are None.

    images (B, K, 3, H, W): uint8 from the loader, normalised float32 in the model; K images per example.
    sizes (B, K): of images of several shapes, which are padded to the largest height and width; None: nothing is padding.
    index (B,) int64: the samples' numbers in their split; split: its name.
    noise (B, V, P) float32 in [0, 1): one row of patch noise for each of V masked passes.
    negative (B,) int64: for each example the batch row of another image, its own row where there is none.
    negative_images (B, 1, 3, H, W): an image of another row of the data set, like `images`; negative_sizes (B, 1): its.
    false_text (B * N, L): N texts of other images for each example, grouped by example.
    shows (B, B) bool: whether the image of the column has the text of the row; its own always. identity: what tells it of
    pairs of other processes too.
    match_draw (B,) float32 in [0, 1): decides which examples keep their image in image-text matching.
    fields: supervision and ids by name, as the catalogue's columns collate them.
    again: an evaluated batch that counts elsewhere (see `EvalSampler`).
    """

    images: Tensor
    index: Tensor
    split: str
    text: Text | None = None
    masked_text: MaskedText | None = None
    noise: Tensor | None = None
    negative: Tensor | None = None
    negative_images: Tensor | None = None
    shows: Tensor | None = None
    identity: Identity | None = None
    match_draw: Tensor | None = None
    false_text: Text | None = None
    sizes: Sizes | None = None
    negative_sizes: Sizes | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    corrupt: tuple[CorruptImage, ...] = ()  # replaced by other samples; in training only
    again: bool = False

    def __len__(self) -> int:
        return len(self.index)

    def sizes_of(self, image: int) -> Sizes | None:
        """Sizes (B,) of the image-th images."""
        return None if self.sizes is None else self.sizes[:, image]


@dataclass(frozen=True)
class Needs:
    """What an objective wants in its batches. The data module serves the union of all needs.

    fields: supervision, absent on unlabelled splits. ids: present on every split. optional: read where provided.
    noise: number of masked passes with patch noise of their own. matching: wrong images for image-text matching.
    images: how many images belong to an example. false_texts: texts of other images, for retrieval. shows: which texts
    of the batch belong to which of its images.
    """

    fields: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    masked_text: bool = False
    noise: int = 0
    matching: bool = False
    images: int = 1
    false_texts: bool = False
    shows: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            self.fields | other.fields,
            self.ids | other.ids,
            self.optional | other.optional,
            self.masked_text or other.masked_text,
            max(self.noise, other.noise),
            self.matching or other.matching,
            max(self.images, other.images),
            self.false_texts or other.false_texts,
            self.shows or other.shows,
        )
