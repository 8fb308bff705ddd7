"""Texts of other images, for retrieval."""

from dataclasses import dataclass
from typing import ClassVar

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import Tokens

ATTEMPTS = 100  # for each text


@dataclass(frozen=True)
class WrongTexts(Part):
    """A `Text` (B * count, L): `count` texts of other images for each example, grouped by example."""

    name: ClassVar[str] = "wrong_texts"
    count: int

    def of(self, sample: Sample, samples: SampleSet) -> list[Tokens]:
        """Texts that the sample's image does not have, drawn without regard to each other."""
        own = set(sample.source.texts(sample.where))
        found: list[Tokens] = []
        for _ in range(ATTEMPTS * self.count):
            source, where = samples.draw(sample.rng)
            text = source.text(where)
            if text not in own:
                found.append(sample.preparation.plain_tokens(text))
                if len(found) == self.count:
                    return found
        raise UserError(
            f"No texts of other images found for {sample.text!r}: split {samples.name!r} has too few that its own image "
            "lacks"
        )

    def collate(self, cells: list[list[Tokens]], samples: SampleSet) -> Text:
        return samples.preparation.encoder.pad([tokens.ids for cell in cells for tokens in cell])
