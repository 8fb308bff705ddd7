"""A text that is read, and a text that is to be written about it and the image."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Tensors, Text
from vlc.data.composers import Words
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.sides import exchange_sides
from vlc.data.tokens import TextEncoder, Tokens


@dataclass(frozen=True)
class SourcesAndTargets(Tensors):
    """B texts that are read, and what is to be written.

    source: (B, S), [CLS] text [SEP], and the language of the target with a further [SEP] where languages are told apart.
    target: (B, T), [CLS] and the words to write, of segment 1; each token predicts the next one. None where texts are to be
        generated.
    positions (N,) int64: the tokens that predict, as indices into the flattened (B * T).
    labels (N,) int64: the ids of the predicted tokens. The last one of each text is [SEP].
    """

    source: Text
    target: Text | None = None
    positions: Tensor | None = None
    labels: Tensor | None = None


class _Cell(NamedTuple):
    source: Tokens
    target: Tokens


@dataclass(frozen=True)
class SourceAndTarget(Part):
    """`SourcesAndTargets`.

    target: the field of the text to write, beside the sample's text, which is read; "" for the sample's own text, and then
        none is read.
    languages: the languages that texts are written in; empty: all are of one language, which is not named.
    max_target_len: tokens of a target, without [CLS].
    """

    name: ClassVar[str] = "source_and_target"
    target: str
    languages: tuple[str, ...] = ()
    max_target_len: int = 32

    @property
    def language(self) -> str:
        """The field of the target's language, "" where languages are not told apart."""
        return ("second_lang" if self.target else "lang") if self.languages else ""

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.target, self.language} - {""})

    def prepared(self, samples: SampleSet) -> "SourceAndTarget":
        check_languages(self.languages, samples.preparation.encoder)
        return self

    def of(self, sample: Sample, samples: SampleSet) -> _Cell:
        source, where, encoder = sample.source, sample.where, sample.preparation.encoder
        target = source.field(where, self.target) if self.target else source.text(where)
        # A translation is of the text, whatever the image shows.
        if sample.preparation.exchanges_sides and not self.target:
            target = exchange_sides(target)
        language = source.field(where, self.language) if self.language else ""
        if language and language not in self.languages:
            raise UserError(
                f"split {samples.name!r} has a text in {language!r}, and the head writes {', '.join(self.languages)}: name "
                "all languages of the data in generation.languages"
            )
        # `sample.text` is empty where texts are blank.
        read = source_tokens(sample.text if self.target else "", language, self.max_target_len, encoder)
        return _Cell(read, encoder.within(self.max_target_len + 1)(target))

    def collate(self, cells: list[_Cell], samples: SampleSet) -> SourcesAndTargets:
        encoder = samples.preparation.encoder
        sources = [cell.source for cell in cells]
        source = encoder.pad([one.ids for one in sources], [one.segments for one in sources])
        ids = [cell.target.ids for cell in cells]
        shown = encoder.within(self.max_target_len).pad([own[:-1] for own in ids])
        length = shown.ids.shape[1]
        first = torch.tensor([[len(one.ids)] for one in sources])
        positions = (first + torch.arange(length)).clamp(max=encoder.max_text_len - 1)  # padding goes beyond
        target = Text(
            shown.ids, shown.mask, shown.num_real, torch.ones_like(shown.ids), positions=positions, causal=True
        )
        predicting = [row * length + place for row, own in enumerate(ids) for place in range(len(own) - 1)]
        labels = [number for own in ids for number in own[1:]]
        return SourcesAndTargets(source, target, torch.tensor(predicting), torch.tensor(labels))


def source_tokens(text: str, language: str, max_target_len: int, encoder: TextEncoder) -> Tokens:
    """The text that is read, and the language to write in, cut so that a target has room behind them.

    language: its name stands behind the text as a sequence of segment 1, in as many pieces as the tokenizer makes of it, so
        that any tokenizer names any language; "" for none.
    """
    shorter = encoder.within(encoder.max_text_len - max_target_len)
    return shorter.composed([Words(text), Words(language, 1)] if language else [Words(text)])


def check_languages(languages: tuple[str, ...], encoder: TextEncoder) -> None:
    """Raise UserError where the tokenizer makes the same pieces of the names of two languages."""
    named: dict[tuple[int, ...], str] = {}
    for language in languages:
        if (other := named.setdefault(tuple(encoder(language).ids), language)) != language:
            raise UserError(
                f"The tokenizer does not tell the languages {other!r} and {language!r} of generation.languages apart: pass "
                "a tokenizer whose vocabulary has their letters"
            )
