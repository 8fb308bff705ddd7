"""Texts that an example chooses among, out of the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Tensors, Text
from vlc.data.composers import Words
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.sides import exchange_sides
from vlc.data.tokens import PAD_MULTIPLE, TextEncoder, Tokens


@dataclass(frozen=True)
class CandidateTexts(Tensors):
    """The texts that each of B examples chooses among, N for each.

    text: (B * N, L), grouped by example; or (B, L) with a branch for each candidate, behind the trunk.
    words: the candidates as the data have them, N strings for each example.
    right (B,) int64: the place of the right one among them; None where it is not known.
    trunk: (B, L), the texts that the candidates of an example share, where these are branches.
    starts (B * N,) int64: the first token of each branch, as an index into the flattened text.
    """

    text: Text
    words: list[list[str]]
    right: Tensor | None = None
    trunk: Text | None = None
    starts: Tensor | None = None


class _Cell(NamedTuple):
    """trunk: what the candidates share, where they are branches, which tokens then has."""

    trunk: Tokens | None
    tokens: list[Tokens]
    words: Sequence[str]
    right: int | None


@dataclass(frozen=True)
class Candidates(Part):
    """`CandidateTexts`, such as the options for an answer; each is put behind the sample's text as segment 1.

    field: the candidates of a text.
    label: the field with the place of the right one; the split withholds it where no other part reads it.
    drawn: in training the right one comes first, and is followed by others at random, so many in all; 0: all are shown in
        their order, as in evaluation.
    tags: the field with the boxes that the words of each candidate name, where they name any.
    branches: whether the candidates of an example are branches behind its text, instead of texts of their own.
    """

    name: ClassVar[str] = "candidates"
    field: str
    label: str
    drawn: int = 0
    tags: str = ""
    branches: bool = False

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.field, self.tags} - {""})

    def of(self, sample: Sample, samples: SampleSet) -> _Cell:
        words: Sequence[str] = sample.source.field(sample.where, self.field)
        tags = sample.source.field(sample.where, self.tags) if self.tags else [()] * len(words)
        right = sample.source.field(sample.where, self.label) if self.label in samples.kinds else None
        if samples.training and self.drawn:
            others = [place for place in sample.rng.permutation(len(words)).tolist() if place != right]
            drawn = (right, *others[: self.drawn - 1])
            words, tags, right = [words[place] for place in drawn], [tags[place] for place in drawn], 0
        row = sample.preparation.row(sample.source, sample.where)
        if self.branches:
            made = sample.preparation
            shown = [exchange_sides(text) if made.exchanges_sides else text for text in words]
            branching = branched(shown, made.encoder, lambda encoder: replace(made, text_encoder=encoder).tokens(row))
            return _Cell(*branching, words, right)
        candidates = [Words(text, 1, own) for text, own in zip(words, tags, strict=True)]
        return _Cell(None, [sample.preparation.tokens(row, one) for one in candidates], words, right)

    def collate(self, cells: list[_Cell], samples: SampleSet) -> CandidateTexts:
        if len(counts := sorted({len(cell.words) for cell in cells})) > 1:
            raise UserError(
                f"split {samples.name!r} has texts with {counts[0]} and with {counts[-1]} {self.field}: all need as many"
            )
        right = None if cells[0].right is None else torch.tensor([cell.right for cell in cells])
        encoder, words = samples.preparation.encoder, [list(cell.words) for cell in cells]
        if self.branches:
            trunks = [cell.trunk for cell in cells if cell.trunk is not None]
            return collated_branches(trunks, [cell.tokens for cell in cells], words, right, encoder)
        tokens = [one for cell in cells for one in cell.tokens]
        columns = [one.ids for one in tokens], [one.segments for one in tokens], [one.tags for one in tokens]
        return CandidateTexts(encoder.pad(*columns), words, right)


def branched(
    words: Sequence[str], encoder: TextEncoder, trunk: Callable[[TextEncoder], Tokens]
) -> tuple[Tokens, list[Tokens]]:
    """The trunk, cut so that each candidate has room behind it, and the candidates, each with [CLS] and [SEP].

    trunk: returns the trunk by an encoder. A candidate keeps at most half of all tokens.
    """
    branches = [encoder.within(encoder.max_text_len // 2)(text) for text in words]
    room = max(len(one.ids) for one in branches) - 1  # without [CLS]
    return trunk(encoder.within(encoder.max_text_len - room)), branches


def collated_branches(
    trunks: Sequence[Tokens],
    branches: Sequence[Sequence[Tokens]],
    words: list[list[str]],
    right: Tensor | None,
    encoder: TextEncoder,
) -> CandidateTexts:
    """The candidates of B examples as branches.

    The [CLS] of a branch is embedded as the one of the trunk, and the positions behind it continue those of the trunk. So a
    model that was trained on whole texts finds its branches nearly as it knows them.
    """
    trunk = encoder.pad([one.ids for one in trunks], [one.segments for one in trunks])
    ids = [[number for one in own for number in one.ids] for own in branches]
    text = encoder.within(max(map(len, ids)) + PAD_MULTIPLE).pad(ids)
    length = text.ids.shape[1]
    numbers, positions = torch.zeros_like(text.ids), torch.zeros_like(text.ids)
    starts = []
    for row, (shared, own) in enumerate(zip(trunks, branches, strict=True)):
        sizes = torch.tensor([len(one.ids) for one in own])
        first = sizes.cumsum(0) - sizes
        numbers[row, : len(ids[row])] = torch.arange(1, 1 + len(own)).repeat_interleave(sizes)
        within = torch.arange(len(ids[row])) - first.repeat_interleave(sizes)
        positions[row, : len(ids[row])] = (len(shared.ids) + within - 1) * (within > 0)
        starts.append(row * length + first)
    text = replace(text, segments=(positions > 0).long(), positions=positions, branches=numbers)
    return CandidateTexts(text, words, right, trunk, torch.cat(starts))
