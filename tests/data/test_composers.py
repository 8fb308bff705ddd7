"""Texts of several sequences: their segments, and what is cut off where they are too long."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.data.made import ENCODER, captions, keys, preparation
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import TEXTS
from vlc.data.parts import MaskedText
from vlc.data.samples import Samples
from vlc.data.spec import Column
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.model.encoder import Encoder
from vlc.training.run import build_data

VISDIAL = Path(__file__).parents[1] / "golden/tasks/visdial"
GAMES = VISDIAL.parent / "pointing"
SPEC = replace(CATALOG["coco"], fields={"second_text": Column("answers", TEXTS)})


def _samples(path, parts=(), composer="pair") -> Samples:
    columns = captions(["a dog", "one cat"], ["two"]) | {"answers": [["red", "a tree"], ["the house of two dogs"]]}
    source = ArrowSplit([tiny.write_table(path / "t.arrow", columns)], SPEC, "coco", {"image", "caption", "answers"})
    prepared = replace(preparation(), composer=COMPOSERS[composer])
    return Samples("train", [source], parts, prepared, training=True, seed=5)


def test_a_pair_is_two_segments_of_one_text(tmp_path):
    text = _samples(tmp_path)[keys(0, 1, 2)].text
    for row, words in enumerate((("a dog", "red"), ("one cat", "a tree"), ("two", "the house of two dogs"))):
        first, second = (ENCODER(part).ids for part in words)
        count = len(first) + len(second) - 1
        assert text.ids[row, :count].tolist() == first + second[1:]
        assert text.segments[row, :count].tolist() == [0] * len(first) + [1] * (len(second) - 1)
        assert not text.segments[row, count:].any()
        assert text.mask[row].sum() == count


def test_a_plain_text_has_no_segments_and_is_what_it_was(tmp_path):
    plain = _samples(tmp_path, composer="plain")[keys(0, 2)].text
    assert plain.segments is None
    assert plain.ids[0, :4].tolist() == ENCODER("a dog").ids


def test_the_longest_sequence_is_cut_first():
    long, short = " ".join(["dog"] * 30), "red cat"
    tokens = ENCODER.composed([(long, 0), (short, 1)])
    assert len(tokens.ids) == ENCODER.max_text_len
    assert tokens.ids[-4:] == [tokens.ids[-1], *ENCODER(short).ids[1:]]
    assert tokens.segments == [0] * 9 + [1] * 3
    tokens = ENCODER.composed([(short, 0), (long, 1)])
    assert tokens.ids[:4] == ENCODER(short).ids
    assert tokens.ids[-1] == ENCODER(short).ids[-1]
    assert len(tokens.ids) == ENCODER.max_text_len


def test_words_are_numbered_through_all_sequences():
    tokens = ENCODER.composed([("a dog", 0), ("red cat", 1)])
    words = [word for word in tokens.words if word >= 0]
    assert words == sorted(words)
    assert max(words) == max(ENCODER("a dog").words) + max(ENCODER("red cat").words) + 1
    assert [word < 0 for word in tokens.words] == [id in (tokens.ids[0], tokens.ids[-1]) for id in tokens.ids]


def test_hidden_tokens_keep_their_segments(tmp_path):
    batch = _samples(tmp_path, {MaskedText(0.5)})[keys(0, 1, 2)]
    masked = batch.parts["masked_text"]
    assert torch.equal(masked.text.segments, batch.text.segments)
    assert batch.text.ids.flatten()[masked.positions].tolist() == masked.labels.tolist()


@torch.no_grad()
def test_the_encoder_reads_segments(tmp_path):
    torch.manual_seed(0)
    text = _samples(tmp_path)[keys(0, 1)].text
    encoder = Encoder(tiny.SMALL, 32, vocab_size=ENCODER.vocab_size, max_text_len=12).eval()
    with_segments, without = encoder.embed_text(text).tokens, encoder.embed_text(replace(text, segments=None)).tokens
    second = text.segments.bool()
    assert torch.equal(with_segments[~second], without[~second])
    assert not np.isclose(with_segments[second], without[second]).all(-1).any()


def test_a_data_set_without_the_composers_fields_is_refused(arrows, small_vit):
    settings = tiny.settings(datasets=["coco"], data_root=str(arrows), vit=small_vit)
    pairs = replace(settings, tasks=(replace(settings.tasks[0], composer="pair"),))
    with pytest.raises(UserError, match="'second_text', which data set 'coco' does not provide"):
        build_data(pairs)


def test_a_history_loses_its_first_tokens():
    dog, end = ENCODER("dog").ids[1:]
    tokens = ENCODER.composed([("red", 0), ("cat", 1)], ["dog dog dog", "dog dog dog dog"])
    assert tokens.ids == ENCODER("red").ids + ENCODER("cat").ids[1:] + [dog, end, dog, dog, dog, dog, end]
    tokens = ENCODER.composed([("red", 0), ("cat", 1)], ["dog dog dog", "two dog dog dog dog dog dog dog"])
    assert len(tokens.ids) == ENCODER.max_text_len
    assert tokens.ids[5:] == [dog] * 6 + [end]
    assert tokens.segments == [0] * 3 + [1] * 2 + [0] * 7


def test_a_history_gives_way_before_other_sequences_do():
    long = " ".join(["dog"] * 30)
    assert ENCODER.composed([(long, 0)], ["a cat", "two"]).ids == ENCODER(long).ids


@pytest.mark.parametrize("split", ["train", "val"])
def test_dialogues_are_the_published_loaders_token_for_token(split):
    raw = json.loads((VISDIAL / f"visdial_1.0_{split}.json").read_text())["data"]
    questions, answers = raw["questions"], raw["answers"]
    expected = np.load(VISDIAL / f"loader_{split}.npz")
    encoder, composer = TextEncoder(load_tokenizer(str(VISDIAL / "tokenizer")), 50), COMPOSERS["dialogue"]
    for number, dialogue in enumerate(raw["dialogs"]):
        row = {"caption": dialogue["caption"], "history": []}
        for place, turn in enumerate(dialogue["dialog"]):
            row["text"] = questions[turn["question"]]
            wrong = expected["permutations"][10 * number + place].tolist()
            wrong.remove(turn["gt_index"])
            for option, column in enumerate((turn["gt_index"], *wrong[:3])):
                answer = answers[turn["answer_options"][column]]
                tokens = encoder.composed([*composer.compose(row), (answer, 1)], composer.history(row))
                text = encoder.pad([tokens.ids], [tokens.segments])
                length = int(text.mask.sum())
                for name, values in (("tokens", text.ids), ("segment_ids", text.segments), ("input_mask", text.mask)):
                    found = values[0, :length].tolist()
                    assert found + [0] * (50 - length) == expected[name][number, place, option].tolist()
            row["history"] += [row["text"], answers[turn["answer"]]]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_games_are_the_published_loaders_token_for_token(split):
    """The published loader cuts a long dialogue at its end, where we cut its beginning."""
    encoder, composer = TextEncoder(load_tokenizer(str(VISDIAL / "tokenizer")), 256), COMPOSERS["guesser"]
    expected = np.load(GAMES / f"expected/guesswhat_pointing_{split}.npz")
    lines = gzip.decompress((GAMES / f"guesswhat/list_release/guesswhat.{split}.jsonl.gz").read_bytes()).splitlines()
    for line, ids, mask in zip(lines, expected["tokens"], expected["input_mask"], strict=True):
        rounds = json.loads(line)["qas"]
        row = {"text": "", "dialogue": [words for one in rounds for words in (one["question"], one["answer"])]}
        (sequence,) = composer.compose(row)
        tokens, published = encoder.composed([sequence], keeps_end=composer.keeps_end).ids, ids[mask == 1].tolist()
        if len(tokens) < 256:
            assert tokens == published
        else:
            assert TextEncoder(load_tokenizer(str(VISDIAL / "tokenizer")), 256).composed([sequence]).ids == published
            assert tokens[1:] == encoder(f"question {sequence[0]}", keeps_end=True).ids[1:]
            assert len(tokens) == 256


def test_a_text_that_is_too_long_can_keep_its_end(tmp_path):
    words = ["dog"] * 9 + ["cat", "red"]
    tokens = ENCODER(" ".join(words), keeps_end=True)
    assert tokens.ids == ENCODER.composed([(" ".join(words[1:]), 0)]).ids
    assert tokens.words == [-1, *range(1, 11), -1]
    assert ENCODER("a dog", keeps_end=True) == ENCODER("a dog")
