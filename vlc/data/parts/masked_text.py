"""The text with tokens hidden for masked language modelling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vlc.common.inputs import Tensors, Text
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import HiddenTokens, TokenHider, Tokens


@dataclass(frozen=True)
class MaskedTokens(Tensors):
    """A text with hidden tokens, and what they were.

    text: with the hidden tokens replaced.
    positions (N,) int64: the predicted tokens, as indices into the flattened (B * L). A label table (B, L) would make the
        device search for them.
    labels (N,) int64: their true ids.
    """

    text: Text
    positions: Tensor
    labels: Tensor


@dataclass(frozen=True)
class MaskedText(Part):
    """`MaskedTokens`, hidden by a `TokenHider` of these options."""

    name: ClassVar[str] = "masked_text"
    probability: float
    whole_words: bool = False
    word_by_word: bool = False
    one_segment: float = 0.0

    def make(self, batch: Sequence[Sample], samples: SampleSet) -> MaskedTokens:
        how = self.probability, self.whole_words, self.word_by_word, self.one_segment
        hide = TokenHider(samples.preparation.encoder, *how)
        hidden = [(sample.tokens, hide(sample.tokens, sample.rng)) for sample in batch]
        return self.collate(hidden, samples)

    def collate(self, cells: list[tuple[Tokens, HiddenTokens]], samples: SampleSet) -> MaskedTokens:
        rows, segments = [hidden.ids for _, hidden in cells], [tokens.segments for tokens, _ in cells]
        text = samples.preparation.encoder.pad(rows, segments)
        length = text.ids.shape[1]
        positions = [row * length + position for row, (_, hidden) in enumerate(cells) for position in hidden.positions]
        labels = [tokens.ids[position] for tokens, hidden in cells for position in hidden.positions]
        return MaskedTokens(text, torch.tensor(positions, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64))
