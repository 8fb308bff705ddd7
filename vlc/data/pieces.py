"""The pieces of a tokenizer by what they mean, so that pieces of different kinds of tokenizers can be compared."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, decoders
from transformers import PreTrainedTokenizerFast

from vlc.common.errors import UserError
from vlc.data.tokens import ROLES, stored_tokenizer
from vlc.data.vocabulary import Vocabulary

_BROKEN = "\ufffd"  # stands for bytes that are no whole letter
_OF_ITS_OWN = "\0"  # begins the meaning of a piece that is no text


def shared_pieces(here: PreTrainedTokenizerFast, theirs: PreTrainedTokenizerFast) -> list[tuple[int, int]]:
    """The ids, in two tokenizers, of each piece that means the same in both, in the order of the first one's ids.

    Signs without letters or digits, and Chinese characters, also mean the same with and without a blank before them:
    BERT's tokenizers make words of them, and others do not.
    """
    own, other = pieces(here), pieces(theirs)
    loose = _without_blanks(own).shared_labels(_without_blanks(other))
    return sorted((dict(loose) | dict(own.shared_labels(other))).items())


def _without_blanks(vocabulary: Vocabulary) -> Vocabulary:
    """The pieces that are no parts of words, without the blanks before them."""
    return Vocabulary(tuple("" if any(map(_joins_words, piece)) else piece.strip() for piece in vocabulary.answers))


def pieces(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """Return the meaning of each piece by its id, "" where an id has no piece.

    The meaning of a piece is its text, behind a blank if it begins a word: BERT's `ing`, XLM-R's `▁ing` and RoBERTa's
    `Ġing` are " ing", and BERT's `##ing` is "ing". Special tokens mean their roles.
    """
    rust, vocabulary = tokenizer.backend_tokenizer, tokenizer.get_vocab()
    roles = {getattr(tokenizer, role): role for role in ROLES}
    meanings = [""] * (max(vocabulary.values()) + 1)
    for piece, text in zip(vocabulary, _texts(rust, vocabulary), strict=True):
        if piece in roles:
            meaning = _OF_ITS_OWN + roles[piece]
        elif _BROKEN in text:
            meaning = _OF_ITS_OWN + piece
        else:
            meaning = text
        meanings[vocabulary[piece]] = meaning
    return Vocabulary(tuple(meanings))


def _texts(rust: Tokenizer, vocabulary: Mapping[str, int]) -> list[str]:
    """The text of each piece as it reads behind a word."""
    if prefix := getattr(rust.model, "continuing_subword_prefix", None):
        rust = Tokenizer.from_str(rust.to_str())
        rust.decoder = decoders.WordPiece(prefix, cleanup=False)  # which would remove blanks before signs
    word = next((number for piece, number in vocabulary.items() if piece.isascii() and piece.isalpha()), 0)
    first = len(rust.decode([word], skip_special_tokens=False))
    decoded = rust.decode_batch([[word, number] for number in vocabulary.values()], skip_special_tokens=False)
    return [text[first:] for text in decoded]


def _joins_words(letter: str) -> bool:
    """Whether a letter is part of a word that goes on behind it. Chinese has no blanks, and BERT puts some."""
    return letter.isalnum() and not "\u4e00" <= letter <= "\u9fff"


def require_same_pieces(stored: Mapping[str, Any] | None, tokenizer: PreTrainedTokenizerFast | None, path: str) -> None:
    """Raise UserError where a checkpoint stores a tokenizer whose pieces have other ids than in the given one."""
    if stored is None or tokenizer is None:
        return
    try:
        theirs = stored_tokenizer(stored, path).get_vocab()
    except UserError:  # it is damaged, and the given one takes its place, as this error advises
        return
    here = tokenizer.get_vocab()
    if theirs != here:
        moved = sum(here.get(piece) != number for piece, number in theirs.items())
        raise UserError(
            f"{path} was trained with another tokenizer than tokenizer={tokenizer.name_or_path!r}: {moved:,} of its "
            f"{len(theirs):,} pieces have other ids, or none. Pass the tokenizer of its training, or train on with "
            "load_path and the new tokenizer, which carries the pieces over"
        )
