"""Which texts of a batch describe which images of it, for contrast."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

import torch
from torch import Tensor

from vlc.common.inputs import Tensors
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet


@dataclass(frozen=True)
class Identity(Tensors):
    """Which rows and texts a batch's B examples are of, as numbers that mean the same in every process.

    row (B,) int64: the row of the data set.
    text (B,) int64: hashes of the texts.
    row_texts (B, T) int64: hashes of all texts that the rows have.
    """

    row: Tensor
    text: Tensor
    row_texts: Tensor

    def described_by(self, others: "Identity") -> Tensor:
        """(N, B) bool: whether the text of the row, one of N others', describes this batch's image of the column."""
        described = others.row[:, None] == self.row
        for texts in self.row_texts.T:
            described = described | (others.text[:, None] == texts)
        return described


@dataclass(frozen=True)
class Descriptions(Tensors):
    """Which texts describe which images.

    within (B, B) bool: whether the text of the row describes the image of the column; its own always does.
    identity: decides it for pairs of other processes too; None for a batch made by hand, of one process.
    """

    within: Tensor
    identity: Identity | None = None


@dataclass(frozen=True)
class TextDescribesImage(Part):
    """`Descriptions` of the batch: a text describes every image whose row has it."""

    name: ClassVar[str] = "text_describes_image"

    def make(self, batch: Sequence[Sample], samples: SampleSet) -> Descriptions:
        numbers = {id(source): number for number, source in enumerate(samples.sources)}
        rows, texts, of_row = [], [], {}
        for sample in batch:
            row = (numbers[id(sample.source)] << 55) + (sample.where.batch << 31) + sample.where.row
            rows.append(row)
            texts.append(text_hash(sample.text))
            if row not in of_row:
                of_row[row] = [text_hash(text) for text in sample.source.texts(sample.where)]
        longest = max(map(len, of_row.values()))
        padded = [of_row[row] + [text] * (longest - len(of_row[row])) for row, text in zip(rows, texts, strict=True)]
        identity = Identity(torch.tensor(rows), torch.tensor(texts), torch.tensor(padded))
        return Descriptions(identity.described_by(identity), identity)


def text_hash(text: str) -> int:
    """A number of 64 bits that stands for a text, the same one in every process."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little", signed=True)
