"""The second texts of pairs, each by itself."""

from dataclasses import dataclass
from typing import ClassVar

from vlc.common.inputs import Text
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import Tokens


@dataclass(frozen=True)
class SecondText(Part):
    """A `Text` (B, L): the second text of each sample, such as its translation, without the first one."""

    name: ClassVar[str] = "second_text"

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"second_text"})

    def of(self, sample: Sample, samples: SampleSet) -> Tokens:
        return sample.preparation.plain_tokens(sample.source.field(sample.where, "second_text"))

    def collate(self, cells: list[Tokens], samples: SampleSet) -> Text:
        return samples.preparation.encoder.pad([cell.ids for cell in cells])
