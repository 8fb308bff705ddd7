"""The languages of texts, for a model that has an embedding of each."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet


@dataclass(frozen=True)
class Languages(Part):
    """A tensor (B, 2) int64: the numbers of the languages of a sample's text and of the one behind it, as segment 1.

    names: the languages that have a number; others are -1.
    pairs: whether samples are pairs of texts; otherwise the language of the text is that of both.
    """

    name: ClassVar[str] = "languages"
    names: tuple[str, ...]
    pairs: bool = False

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"lang", "second_lang"} if self.pairs else {"lang"})

    def of(self, sample: Sample, samples: SampleSet) -> list[int]:
        first = sample.source.field(sample.where, "lang")
        return self.numbers((first, sample.source.field(sample.where, "second_lang") if self.pairs else first))

    def numbers(self, names: tuple[str, str]) -> list[int]:
        """The numbers of two languages."""
        return [self.names.index(name) if name in self.names else -1 for name in names]

    def collate(self, cells: list[list[int]], samples: SampleSet) -> Tensor:
        return torch.tensor(cells)
