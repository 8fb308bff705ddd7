"""Small tokenizers of the kinds that the hub has, made by transformers' own classes: mBERT's, XLM-R's and RoBERTa's."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertTokenizer, RobertaTokenizer, XLMRobertaTokenizer

KINDS = ("bert", "xlm-r", "roberta")
WORDS = "dog cat house bus tree red two the of is left grinning face Hund Häuser".split()  # those of tests.tiny first
_ENDS = ["ing", "s", "e", "ü"]
_LETTERS = sorted({*"".join([*WORDS, *_ENDS]), *"xy,."})


def write(kind: str, folder: Path, words: Sequence[str] = WORDS) -> str:
    """Write a tokenizer into a folder; returns the folder. All kinds know the same words, ends of words, and letters."""
    folder.mkdir(parents=True, exist_ok=True)
    {"bert": _bert, "xlm-r": _xlm_r, "roberta": _roberta}[kind](words).save_pretrained(folder)
    return str(folder)


def _bert(words: Sequence[str]) -> BertTokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *_LETTERS]
    pieces += [f"##{piece}" for piece in [*_ENDS, *_LETTERS]]
    return BertTokenizer(vocab=dict(zip(dict.fromkeys(pieces), range(len(pieces)))), do_lower_case=False)  # noqa: B905


def _xlm_r(words: Sequence[str]) -> XLMRobertaTokenizer:
    pieces = ["▁", *(f"▁{word}" for word in words), *_ENDS, *_LETTERS]
    scored = [(piece, -1.0 - place / 10) for place, piece in enumerate(dict.fromkeys(pieces))]
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizer(vocab=[*special, *scored, ("<mask>", 0.0)])


def _roberta(words: Sequence[str]) -> RobertaTokenizer:
    """The merges build each word from its left, behind a blank ("Ġ")."""
    merges: dict[tuple[str, str], None] = {}
    for text in [*(f" {word}" for word in words), *_ENDS]:
        ((letters, _),) = ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
        merges |= dict.fromkeys((letters[:end], letters[end]) for end in range(1, len(letters)))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<mask>"]
    return RobertaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=list(merges))
