"""Pairs of texts for text-text matching: half of them are no translations of each other."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Tensors, Text
from vlc.data.arrow import ArrowSplit
from vlc.data.keys import Location
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet, Source
from vlc.data.selection import by_language
from vlc.data.spec import DIRECTION
from vlc.data.tokens import Tokens

_ATTEMPTS = 100


@dataclass(frozen=True)
class MatchedTexts(Tensors):
    """B texts, each followed by a second one as segment 1.

    text: the first text is an example's own.
    labels (B,) int64: 1 = the second one is its translation.
    """

    text: Text
    labels: Tensor


class _Cell(NamedTuple):
    tokens: Tokens
    label: int


@dataclass(frozen=True)
class MatchedTranslations(Part):
    """`MatchedTexts`: each sample keeps its translation with a probability of 1/2.

    Otherwise a text of another row stands in its place, in the same language, drawn out of the second texts of all samples.

    by_language: the places of samples of each source by the language of their second texts, once the sources are open.
    """

    name: ClassVar[str] = "matched_texts"
    by_language: dict[str, list[tuple[Source, np.ndarray]]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"second_text", "second_lang"})

    def prepared(self, samples: SampleSet) -> "MatchedTranslations":
        found: dict[str, list[tuple[Source, np.ndarray]]] = {}
        for source in samples.sources:
            assert isinstance(source, ArrowSplit)  # others have no texts
            for direction, places in by_language(source).items():
                parts = DIRECTION.fullmatch(direction)
                assert parts is not None  # these samples are pairs
                found.setdefault(parts[2], []).append((source, places))
        return replace(self, by_language=found)

    def of(self, sample: Sample, samples: SampleSet) -> _Cell:
        if sample.rng.random() < 0.5:
            return _Cell(sample.tokens, 1)
        source, where = self._of_another_row(sample)
        row = sample.preparation.row(sample.source, sample.where)
        row["second_text"] = sample.preparation.row(source, where)["second_text"]
        return _Cell(sample.preparation.tokens(row), 0)

    def _of_another_row(self, sample: Sample) -> tuple[Source, Location]:
        """Where a second text lies that is of the same language as the sample's, and that its row does not have."""
        own, language = sample.source.texts(sample.where), sample.source.field(sample.where, "second_lang")
        sources = self.by_language[language]
        ends = np.cumsum([len(places) for _, places in sources])
        for number in sample.rng.integers(int(ends[-1]), size=_ATTEMPTS).tolist():
            place = int(np.searchsorted(ends, number, side="right"))
            source, places = sources[place]
            where = Location(*places[number - int(ends[place])].tolist())
            if source.field(where, "second_text") not in own:
                return source, where
        raise UserError(
            f"No wrong translation found for {sample.text!r} in {_ATTEMPTS} draws: too few other rows have texts in "
            f"{language!r}"
        )

    def collate(self, cells: list[_Cell], samples: SampleSet) -> MatchedTexts:
        columns = [cell.tokens.ids for cell in cells], [cell.tokens.segments for cell in cells]
        text = samples.preparation.encoder.pad(*columns)
        return MatchedTexts(text, torch.tensor([cell.label for cell in cells]))
