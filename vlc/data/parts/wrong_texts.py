"""Texts of other images, for retrieval."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.arrow import ArrowSplit
from vlc.data.keys import Location
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet, Source
from vlc.data.selection import values_of_samples
from vlc.data.tokens import Tokens

ATTEMPTS = 100  # for each text


@dataclass(frozen=True)
class WrongTexts(Part):
    """A `Text` (B * count, L): `count` texts of other images for each example, grouped by example.

    within: a field whose value they have in common with the example's own text, such as its language; empty: any texts.
    alike: the numbers of the samples by this value, once they are known.
    """

    name: ClassVar[str] = "wrong_texts"
    count: int
    within: str = field(default="", kw_only=True)
    alike: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False, kw_only=True)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.within} - {""})

    def prepared(self, samples: SampleSet) -> "WrongTexts":
        if not self.within:
            return self
        sources = [source for source in samples.sources if isinstance(source, ArrowSplit)]  # others have no texts
        values = np.concatenate([values_of_samples(source, self.within) for source in sources])
        return replace(self, alike={value: np.flatnonzero(values == value) for value in np.unique(values).tolist()})

    def of(self, sample: Sample, samples: SampleSet) -> list[Tokens]:
        """Texts that the sample's image does not have, drawn without regard to each other."""
        own = set(sample.source.texts(sample.where))
        found: list[Tokens] = []
        for _ in range(ATTEMPTS * self.count):
            source, where = self._draw(sample, samples)
            text = source.text(where)
            if text not in own:
                found.append(sample.preparation.plain_tokens(text))
                if len(found) == self.count:
                    return found
        among = f" with this {self.within}" if self.within else ""
        raise UserError(
            f"No texts of other images found for {sample.text!r}: split {samples.name!r} has too few{among} that its own "
            "image lacks"
        )

    def _draw(self, sample: Sample, samples: SampleSet) -> tuple[Source, Location]:
        """A random sample, with the value of `within` that the example has."""
        if not self.within:
            return samples.draw(sample.rng)
        numbers = self.alike[sample.source.field(sample.where, self.within)]
        return samples.locate(int(numbers[sample.rng.integers(len(numbers))]))

    def collate(self, cells: list[list[Tokens]], samples: SampleSet) -> Text:
        return samples.preparation.encoder.pad([tokens.ids for cell in cells for tokens in cell])
