"""Translations of other sentences, for translation retrieval."""

from dataclasses import dataclass, field
from typing import ClassVar

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.parts.wrong_texts import ATTEMPTS, WrongTexts
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import Tokens


@dataclass(frozen=True)
class WrongTranslations(WrongTexts):
    """A `Text` (B * count, L): for each example, its own text with `count` wrong second texts, grouped by example.

    The second texts are of other samples and in the language of the right one. The composer puts each behind the own text.
    """

    name: ClassVar[str] = "wrong_translations"
    within: str = field(default="second_lang", kw_only=True)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.within, "second_text"})

    def of(self, sample: Sample, samples: SampleSet) -> list[Tokens]:
        """Second texts that differ from the sample's, and whose first texts do, drawn without regard to each other."""
        right, found = sample.source.field(sample.where, "second_text"), list[Tokens]()
        row = sample.preparation.row(sample.source, sample.where)
        for _ in range(ATTEMPTS * self.count):
            source, where = self._draw(sample, samples)
            if source.field(where, "second_text") != right and source.text(where) != sample.text:
                other = sample.preparation.row(source, where)
                found.append(sample.preparation.tokens(row | {"second_text": other["second_text"]}))
                if len(found) == self.count:
                    return found
        raise UserError(
            f"No wrong translations found for {sample.text!r}: split {samples.name!r} has too few texts in the language of "
            "its translation"
        )

    def collate(self, cells: list[list[Tokens]], samples: SampleSet) -> Text:
        tokens = [one for cell in cells for one in cell]
        return samples.preparation.encoder.pad([one.ids for one in tokens], [one.segments for one in tokens])
