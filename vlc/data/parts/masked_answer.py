"""The text with [MASK] in the place of its answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vlc.common.inputs import Tensors, Text
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import TextEncoder, Tokens


@dataclass(frozen=True)
class MaskedAnswers(Tensors):
    """B texts, each followed by one [MASK].

    text: [CLS] text [SEP] [MASK] [SEP], of which the last two tokens are of segment 1.
    positions (B,) int64: these [MASK], as indices into the flattened (B * L).
    """

    text: Text
    positions: Tensor


@dataclass(frozen=True)
class MaskedAnswer(Part):
    """`MaskedAnswers`: the answer to each question is read where it is missing (Su et al. 2020, VL-BERT)."""

    name: ClassVar[str] = "masked_answer"

    def of(self, sample: Sample, samples: SampleSet) -> Tokens:
        return sample.tokens

    def collate(self, cells: list[Tokens], samples: SampleSet) -> MaskedAnswers:
        return masked_answers(cells, samples.preparation.encoder)


def masked_answers(texts: Iterable[Tokens], encoder: TextEncoder) -> MaskedAnswers:
    """Put [MASK] [SEP] behind each text. A text that gets too long by that loses its last tokens, never the [MASK]."""
    ids, segments = [], []
    for tokens in texts:
        *kept, end = tokens.ids
        kept = kept[: encoder.max_text_len - 3]
        own = tokens.segments or [0] * len(tokens.ids)
        ids.append([*kept, end, encoder.mask_id, end])
        segments.append([*own[: len(kept)], own[-1], 1, 1])
    text = encoder.pad(ids, segments)
    positions = [row * text.ids.shape[1] + len(own) - 2 for row, own in enumerate(ids)]
    return MaskedAnswers(text, torch.tensor(positions, dtype=torch.int64))
