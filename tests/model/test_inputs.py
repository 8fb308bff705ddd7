"""Texts of several batches side by side."""

from dataclasses import replace

import torch

from vlc.common.inputs import Text
from vlc.model.inputs import candidate_texts, stacked_texts

OWN = Text(torch.tensor([[1, 2, 0], [3, 0, 0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]), 3)
WRONG = Text(torch.arange(4, 20).view(4, 4), torch.ones(4, 4, dtype=torch.int64), 16)


def test_each_own_text_stands_before_the_others():
    text = candidate_texts(OWN, WRONG, len(OWN.ids), 0)
    assert text.ids[:, 0].tolist() == [1, 4, 8, 3, 12, 16]
    assert text.ids[0].tolist() == [1, 2, 0, 0]
    assert text.num_real == text.mask.sum() == 19


def test_a_number_of_tokens_that_only_a_device_knows_stays_unknown():
    assert stacked_texts(OWN, Text(WRONG.ids, WRONG.mask), 0).num_real is None


def test_tags_go_with_their_texts():
    tagged = replace(WRONG, tags=torch.arange(16).view(4, 4))
    text = candidate_texts(OWN, tagged, len(OWN.ids), 0)
    assert text.tags[[1, 5]].tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert not text.tags[[0, 3]].any(), "texts without tags name no box"
    assert torch.equal(text.at(slice(1, 2)).tags, text.tags[1:2])
    assert text.segments is None


def test_segments_go_with_their_texts():
    segments = torch.tensor([[0, 1, 0], [1, 0, 0]])
    text = candidate_texts(replace(OWN, segments=segments), WRONG, len(OWN.ids), 0)
    assert text.segments[[0, 3]].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert not text.segments[[1, 2, 4, 5]].any(), "texts without segments are of segment 0"
    assert candidate_texts(OWN, WRONG, len(OWN.ids), 0).segments is None
