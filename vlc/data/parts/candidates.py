"""Texts that an example chooses among, out of the data."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Tensors, Text
from vlc.data.composers import Words
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import Tokens


@dataclass(frozen=True)
class CandidateTexts(Tensors):
    """The texts that each of B examples chooses among, N for each.

    text: (B * N, L), grouped by example.
    words: the candidates as the data have them, N strings for each example.
    right (B,) int64: the place of the right one among them; None where it is not known.
    """

    text: Text
    words: list[list[str]]
    right: Tensor | None = None


class _Cell(NamedTuple):
    tokens: list[Tokens]
    words: list[str]
    right: int | None


@dataclass(frozen=True)
class Candidates(Part):
    """`CandidateTexts`, such as the options for an answer; each is put behind the sample's text as segment 1.

    field: the candidates of a text.
    label: the field with the place of the right one; the split withholds it where no other part reads it.
    drawn: in training the right one comes first, and is followed by others at random, so many in all; 0: all are shown in
        their order, as in evaluation.
    tags: the field with the boxes that the words of each candidate name, where they name any.
    """

    name: ClassVar[str] = "candidates"
    field: str
    label: str
    drawn: int = 0
    tags: str = ""

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.field, self.tags} - {""})

    def of(self, sample: Sample, samples: SampleSet) -> _Cell:
        words: list[str] = sample.source.field(sample.where, self.field)
        tags = sample.source.field(sample.where, self.tags) if self.tags else [()] * len(words)
        right = sample.source.field(sample.where, self.label) if self.label in samples.kinds else None
        if samples.training and self.drawn:
            others = [place for place in sample.rng.permutation(len(words)).tolist() if place != right]
            shown = (right, *others[: self.drawn - 1])
            words, tags, right = [words[place] for place in shown], [tags[place] for place in shown], 0
        row = sample.preparation.row(sample.source, sample.where)
        candidates = [Words(text, 1, own) for text, own in zip(words, tags, strict=True)]
        return _Cell([sample.preparation.tokens(row, one) for one in candidates], words, right)

    def collate(self, cells: list[_Cell], samples: SampleSet) -> CandidateTexts:
        if len(counts := sorted({len(cell.words) for cell in cells})) > 1:
            raise UserError(
                f"split {samples.name!r} has texts with {counts[0]} and with {counts[-1]} {self.field}: all need as many"
            )
        tokens = [one for cell in cells for one in cell.tokens]
        columns = [one.ids for one in tokens], [one.segments for one in tokens], [one.tags for one in tokens]
        text = samples.preparation.encoder.pad(*columns)
        right = None if cells[0].right is None else torch.tensor([cell.right for cell in cells])
        return CandidateTexts(text, [cell.words for cell in cells], right)
