"""Tokenizers and the hiding of tokens."""

import numpy as np
import pytest
from transformers import BertTokenizerFast

from vlc.data.tokens import TextEncoder, TokenHider, Tokens, load_tokenizer, masked_text
from vlc.errors import UserError

TEXT = "two dogs and an unbelievable airplane"


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(load_tokenizer("emoji"), max_text_len=12)


def test_embedded_tokenizer_knows_the_scenes_and_ten_languages():
    tokenizer = load_tokenizer("emoji")
    assert tokenizer.tokenize("Two dogs; the airplane?") == ["two", "dogs", ";", "the", "airplane", "?"]
    for text in ("Fußgängerin", "にっこり笑う", "嘿嘿", "दाँत", "вода", "علم"):
        assert tokenizer.unk_token not in tokenizer.tokenize(text), text


def test_local_folder(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    assert TextEncoder(load_tokenizer(str(tmp_path)), 8)("dogs").ids == [2, 5, 6, 3]


def test_unknown_name_is_explained(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no waiting for a connection
    with pytest.raises(UserError, match=r"tokenizer='no/such'.*emoji"):
        load_tokenizer("no/such")


def test_same_ids_as_transformers(encoder):
    tokenizer = load_tokenizer("emoji")
    for text in (TEXT, "a " * 30, ""):
        assert encoder(text).ids == tokenizer(text, truncation=True, max_length=12)["input_ids"]


def test_padding_to_a_multiple_of_eight_but_not_above_the_longest_allowed(encoder):
    batch = encoder.pad([[1, 2, 3], [4]])
    assert batch.ids.shape == (2, 8)
    assert batch.mask.sum(1).tolist() == [3, 1]
    assert batch.num_real == 4
    assert batch.ids[1].tolist() == [4] + [encoder.pad_id] * 7
    assert encoder.pad([list(range(10))]).ids.shape == (1, 12)


def test_words_of_pieces(encoder):
    tokens = encoder("unbelievable dog")
    assert tokens.words[0] == tokens.words[-1] == -1
    assert len(set(tokens.words)) == 3


class TestHiding:
    def _many(self, encoder, whole_words, text=TEXT, probability=0.15):
        hider, tokens = TokenHider(encoder, probability, whole_words), encoder(text)
        return tokens, [hider(tokens, np.random.default_rng(seed)) for seed in range(4000)]

    def test_special_tokens_are_never_hidden(self, encoder):
        for whole_words in (False, True):
            tokens, hidden = self._many(encoder, whole_words)
            assert not {p for row in hidden for p in row.positions} & {0, len(tokens.ids) - 1}

    def test_share_and_replacements(self, encoder):
        tokens, hidden = self._many(encoder, whole_words=False)
        chosen = [(row.ids[p], tokens.ids[p]) for row in hidden for p in row.positions]
        share = len(chosen) / len(hidden) / (len(tokens.ids) - 2)
        assert share == pytest.approx(0.15, abs=0.01)
        masked = sum(new == encoder.mask_id for new, _ in chosen) / len(chosen)
        kept = sum(new == old for new, old in chosen) / len(chosen)
        assert masked == pytest.approx(0.8, abs=0.03)
        assert kept == pytest.approx(0.1, abs=0.03)
        assert all(
            new == old
            for row in hidden
            for p, (new, old) in enumerate(zip(row.ids, tokens.ids, strict=True))
            if p not in row.positions
        )

    def test_whole_words_are_hidden_whole_and_at_least_one(self, encoder):
        tokens, hidden = self._many(encoder, whole_words=True)
        assert len(set(tokens.words)) < len(tokens.words) - 1, "some word has several pieces"
        for row in hidden:
            words = {tokens.words[p] for p in row.positions}
            assert sorted(row.positions) == [p for p, word in enumerate(tokens.words) if word in words]
        budget = max(1, round(0.15 * len(tokens.ids)))
        assert {len(row.positions) for row in hidden} <= set(range(budget + 1))

    def test_an_empty_text_hides_nothing(self, encoder):
        for whole_words in (False, True):
            assert TokenHider(encoder, 0.15, whole_words)(encoder(""), np.random.default_rng(0)).positions == []

    def test_labels_are_the_true_tokens_at_flat_positions(self, encoder):
        rows = [encoder(TEXT), encoder("dog")]
        hidden = [TokenHider(encoder, 0.5, False)(row, np.random.default_rng(3)) for row in rows]
        batch = masked_text(encoder, rows, hidden)
        true = encoder.pad([row.ids for row in rows]).ids.flatten()
        assert len(batch.positions)
        assert true[batch.positions].tolist() == batch.labels.tolist()

    def test_nothing_hidden_gives_empty_labels(self, encoder):
        hidden = [TokenHider(encoder, 0.15, False)(encoder(""), np.random.default_rng(0))]
        assert masked_text(encoder, [Tokens([2, 3], [-1, -1])], hidden).labels.shape == (0,)
