"""Training of a tokenizer: WordPiece as BERT's, Unigram as XLM-R's, or BPE of bytes as RoBERTa's.

The same texts give the same tokenizer. The trainers of the library `tokenizers` go through words in an order that changes
from run to run, so their input and output are put into a fixed order here.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from vlc.common.errors import UserError

BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
XLM_R_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
_MIN_FREQUENCY = 2  # of two pieces side by side that become one
Texts: TypeAlias = Callable[[], Iterable[str]]  # a pass over the texts


@dataclass(frozen=True)
class Kind:
    """A kind of tokenizer.

    special: its special tokens by role, in the order of their ids.
    normalizer: returns the normaliser that keeps accents, and capital letters unless it is given True.
    model: makes an untrained model.
    train: trains a tokenizer with this model; receives a pass over texts, the set of their words, and a size.
    """

    special: dict[str, str]
    normalizer: Callable[[bool], normalizers.Normalizer]
    pre_tokenizer: pre_tokenizers.PreTokenizer
    decoder: decoders.Decoder
    model: Callable[[], models.Model]
    train: Callable[[Tokenizer, Texts, set[str], int], models.Model]


def train(kind: str, texts: Texts, size: int, *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """Train a tokenizer with at most `size` pieces, special tokens included. It has fewer where the texts yield no more.

    Raises UserError where there are no texts, or where `size` has no room for their letters.

    texts: returns an iterator over all texts; it is called twice.
    lowercase: whether capital letters become small ones. Accents always stay.
    """
    own = KINDS[kind]
    untrained, tokenizer = (Tokenizer(own.model()) for _ in range(2))
    for one in (untrained, tokenizer):
        one.normalizer, one.pre_tokenizer = own.normalizer(lowercase), own.pre_tokenizer
    words = {word for text in texts() for word in _words(untrained, text)}
    if not words:
        raise UserError("There are no texts to train on: the text columns of the files are empty")
    tokenizer.model = own.train(untrained, texts, words, size)
    mask = own.special["mask"]
    tokens = [AddedToken(t, lstrip=t == mask == "<mask>", normalized=False) for t in own.special.values()]
    tokenizer.add_special_tokens(tokens)
    first, end = own.special["cls"], own.special["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[first, "$A", end],
        pair=[first, "$A", end, "$B:1", f"{end}:1"],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, end)],
    )
    tokenizer.decoder = own.decoder
    roles: dict[str, Any] = {f"{role}_token": token for role, token in own.special.items()}
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **roles)


def _words(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    normal = tokenizer.normalizer.normalize_str(text)
    return (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))


def _wordpiece(tokenizer: Tokenizer, texts: Texts, words: set[str], size: int) -> models.Model:
    special = list(BERT_TOKENS.values())
    letters = sorted({letter for word in words for letter in word})
    letters += sorted({f"##{letter}" for word in words for letter in word[1:]})
    _require_room(size, special, letters, "letters, counted at the beginning of a word and inside it")
    # Letters given as special tokens get ids in this order, which decides between pairs that are equally frequent.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*special, *letters],
        min_frequency=_MIN_FREQUENCY,
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return models.WordPiece(_trained(tokenizer)["vocab"], unk_token=BERT_TOKENS["unk"])


def _unigram(tokenizer: Tokenizer, texts: Texts, words: set[str], size: int) -> models.Model:
    special = list(XLM_R_TOKENS.values())
    letters = {letter for word in words for letter in word}
    _require_room(size, special, letters, "letters")
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token=XLM_R_TOKENS["unk"], show_progress=sys.stderr.isatty()
    )
    tokenizer.train_from_iterator(texts(), trainer)
    # The last digits of the scores depend on the order in which the trainer adds up. Letters that are too rare for a score
    # of their own get the lowest score plus 0, 0.0001, 0.0002 ... in any order; here they get the lowest.
    scores = {piece: round(score, 4) for piece, score in _trained(tokenizer)["vocab"] if piece not in special}
    lowest = min(scores.values())
    rare = lowest + 0.0001 * len(letters)
    scores = {piece: lowest if piece in letters and score < rare else score for piece, score in scores.items()}
    pieces = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return models.Unigram([*((token, 0.0) for token in special), *pieces], unk_id=special.index(XLM_R_TOKENS["unk"]))


def _bpe(tokenizer: Tokenizer, texts: Texts, words: set[str], size: int) -> models.Model:
    special, letters = list(XLM_R_TOKENS.values()), pre_tokenizers.ByteLevel.alphabet()
    _require_room(size, special, letters, "bytes")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        min_frequency=_MIN_FREQUENCY,
        initial_alphabet=letters,
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(texts(), trainer)
    trained = _trained(tokenizer)
    return models.BPE(trained["vocab"], [(first, second) for first, second in trained["merges"]])


def _trained(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())["model"]


def _require_room(size: int, special: list[str], letters: Iterable[str], what: str) -> None:
    count = len(list(letters))
    if size < len(special) + count:
        raise UserError(
            f"--size {size} is too small: the texts have {count:,} {what}, and there are {len(special)} special tokens. "
            f"Pass --size {len(special) + count} or more, or --kind bpe, which splits rare letters into bytes"
        )


def _lowered(normalizer: normalizers.Normalizer) -> Callable[[bool], normalizers.Normalizer]:
    return lambda lowercase: normalizers.Sequence([normalizer, normalizers.Lowercase()]) if lowercase else normalizer


KINDS = {
    "wordpiece": Kind(
        BERT_TOKENS,
        lambda lowercase: normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False),
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(),
        lambda: models.WordPiece(unk_token=BERT_TOKENS["unk"]),
        _wordpiece,
    ),
    "unigram": Kind(
        XLM_R_TOKENS,
        _lowered(normalizers.NFKC()),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        decoders.Metaspace(),
        models.Unigram,
        _unigram,
    ),
    "bpe": Kind(
        XLM_R_TOKENS, _lowered(normalizers.NFC()), pre_tokenizers.ByteLevel(), decoders.ByteLevel(), models.BPE, _bpe
    ),
}
