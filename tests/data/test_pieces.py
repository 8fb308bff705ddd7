"""Tokens and pieces of tokenizers of every kind, beside transformers."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests import kinds_of_tokenizers
from vlc.data.pieces import pieces, shared_pieces
from vlc.data.tokens import TextEncoder, load_tokenizer, stored_tokenizer, tokenizer_to_store

TEXTS = ("the red dogs, x", "two Häuser  of the left dog", "Hunde grinning", "x y Ü 中", "")


@pytest.fixture(scope="module", params=kinds_of_tokenizers.KINDS)
def folder(request, tmp_path_factory) -> str:
    return kinds_of_tokenizers.write(request.param, tmp_path_factory.mktemp(request.param))


def test_ids_are_those_of_transformers(folder):
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    stored = stored_tokenizer(tokenizer_to_store(ours), "x.ckpt")
    for text in (*TEXTS, f"the {theirs.mask_token} dog"):
        expected = theirs(text)["input_ids"]
        assert TextEncoder(ours, 40)(text).ids == expected
        assert TextEncoder(stored, 40)(text).ids == expected
    encoder = TextEncoder(ours, 40)
    roles = theirs.pad_token_id, theirs.mask_token_id, theirs.cls_token_id, theirs.sep_token_id
    assert (encoder.pad_id, encoder.mask_id, encoder.cls_id, encoder.sep_id) == roles
    assert encoder.special_ids == {*roles, theirs.unk_token_id}
    assert encoder.pad([[roles[2], roles[3]]]).ids.tolist() == [[roles[2], roles[3]] + [roles[0]] * 6]


def test_sequences_and_words_of_all_kinds(folder):
    encoder = TextEncoder(load_tokenizer(folder), 40)
    tokens = encoder.composed([("red dogs", 0), ("two Häuser", 1)])
    assert tokens.ids.count(encoder.sep_id) == 2
    assert [tokens.words[place] for place, number in enumerate(tokens.ids) if number == encoder.sep_id] == [-1, -1]
    assert {word for word in tokens.words if word >= 0} == {0, 1, 2, 3}
    assert sorted(word for word in tokens.words if word >= 0) == [word for word in tokens.words if word >= 0]
    assert encoder.packed(["red dogs", "two Häuser"]).words[1:-1] == [word for word in tokens.words if word >= 0]


def test_tags_of_words_whose_pieces_begin_with_blanks(folder):
    """Some pieces are nothing but the blank before a word ("▁" before x)."""
    encoder = TextEncoder(load_tokenizer(folder), 40)
    tokens = encoder("the xy dogs x", [1, 2, 3, 4])
    assert tokens.tags == [0 if word < 0 else word + 1 for word in tokens.words]


def test_pieces_mean_the_same_in_all_kinds(folder):
    meanings = set(pieces(load_tokenizer(folder)).answers)
    assert {" dog", " Häuser", " Hund", "ing", "s", "ü", "x", ","} <= meanings
    assert {f"\0{role}_token" for role in ("pad", "cls", "sep", "mask", "unk")} <= meanings
    assert not meanings & {"##ing", "▁dog", "Ġdog", " ing"}


def test_signs_are_shared_wherever_they_stand(tmp_path):
    """BERT's kind makes words of them; where both tokenizers tell the places apart, so do the pairs."""
    bert, xlm_r = (load_tokenizer(kinds_of_tokenizers.write(kind, tmp_path / kind)) for kind in ("bert", "xlm-r"))
    pairs = {
        xlm_r.convert_ids_to_tokens(one): bert.convert_ids_to_tokens(other) for one, other in shared_pieces(xlm_r, bert)
    }
    assert (pairs[","], pairs["x"], pairs["▁dog"], pairs["<s>"]) == ("##,", "##x", "dog", "[CLS]")
    assert "▁" not in pairs
    back = {
        bert.convert_ids_to_tokens(one): xlm_r.convert_ids_to_tokens(other) for one, other in shared_pieces(bert, xlm_r)
    }
    assert (back[","], back["##,"], back["##x"]) == (",", ",", "x")
    assert "x" not in back
    assert shared_pieces(bert, bert) == [(number, number) for number in range(69)]


def test_pieces_without_text_and_ids_without_piece(tmp_path):
    folder = kinds_of_tokenizers.write("roberta", tmp_path)
    tokenizer = load_tokenizer(folder)
    broken = tokenizer.convert_tokens_to_ids("Ã")  # the first byte of ü
    assert pieces(tokenizer).answers[broken] == "\0Ã"
    assert TextEncoder(tokenizer, 8).token_name(broken) == "Ã"
    assert TextEncoder(tokenizer, 8).token_name(tokenizer.convert_tokens_to_ids("Ġdog")) == "dog"
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "dog": 5, "##s": 9}
    rust = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # without a decoder
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = {f"{name[1:-1].lower()}_token": name for name in list(words)[:5]}
    bare = PreTrainedTokenizerFast(tokenizer_object=rust, **roles)
    assert pieces(bare).answers[5:] == (" dog", "", "", "", "s")
