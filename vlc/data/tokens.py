"""Tokenizers by name or folder, and the hiding of tokens for masked language modelling."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import WordPiece
from tokenizers.processors import TemplateProcessing
from transformers import (  # type: ignore[attr-defined]  # it makes BertTokenizerFast on demand
    AutoTokenizer,
    BertTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from vlc.common.errors import UserError, first_line
from vlc.common.inputs import Text
from vlc.data import packaged_tokenizers
from vlc.data.composers import Words
from vlc.data.packaged_tokenizers import packaged_tokenizer

EMBEDDED = {"emoji": "data/assets/emoji/tokenizer"}
_JOINED = re.compile(r"(?<=\w) [-/'’] (?=\w)| [:;)]|\( ")
MASK = "[MASK]"  # what a user writes for a hidden word, whatever the tokenizer calls it
PAD_MULTIPLE = 8  # lengths are rounded up to it: few distinct shapes, and aligned matrices


def load_tokenizer(name: str, *, stored: bool = False) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a hub name, a local folder (a vocab.txt alone will do), or "emoji" (embedded).

    A hub name is looked up in this machine's cache of the hub, then in `packaged_tokenizers`, and then at the hub.

    stored: the name comes out of a checkpoint, so the hub is not asked for it.

    No code that comes with a tokenizer is run. A tokenizer that has [CLS] and [SEP] but does not put them around a text is
    made to do so. Raises UserError if no tokenizer is found, or if it lacks a token that the suite needs.
    """
    embedded = name in EMBEDDED
    folder = Path(str(files("vlc") / EMBEDDED[name])) if embedded else Path(name)
    if folder.is_dir():
        tokenizer = _from_folder(name, folder)
    elif folder.is_file():
        raise UserError(f"tokenizer={name!r} is a file: name the folder that it lies in")
    else:
        tokenizer = _from_hub(name, stored)
    return _checked(name, tokenizer)


def tokenizer_to_store(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """A tokenizer as plain values, for a checkpoint."""
    special = {role: getattr(tokenizer, role) for role in ROLES}
    return {
        "json": tokenizer.backend_tokenizer.to_str(),
        "special": {t: s for t, s in special.items() if s is not None},
    }


def stored_tokenizer(stored: Mapping[str, Any], path: str) -> PreTrainedTokenizerFast:
    """The tokenizer that a checkpoint holds, made without network or foreign code. Raises UserError where it is damaged."""
    try:
        special = {role: stored["special"].get(role) for role in ROLES}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(stored["json"]), **special)
        return _checked(path, tokenizer)
    except Exception as error:  # tokenizers raises no narrower class for damaged text
        raise UserError(
            f"{path} is damaged: no tokenizer can be made of what it holds ({first_line(error)}). Pass tokenizer=NAME or "
            "tokenizer=FOLDER"
        ) from error


def _checked(name: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer with [CLS] and [SEP] around a text. Raises UserError where it lacks what the suite needs."""
    lacking = [t for t in _SPECIAL if getattr(tokenizer, t, None) is None]
    if lacking or not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"tokenizer={name!r} lacks {', '.join(lacking) or 'a fast implementation'}: pass a tokenizer that has all of "
            f"{', '.join(_SPECIAL)}, as BERT's, XLM-R's and RoBERTa's have, or train one (python -m vlc.tokenizer train). "
            'Where its vocabulary has such a token, name it in tokenizer_config.json ("mask_token": "<mask>")'
        )
    ids = [getattr(tokenizer, f"{t}_id") for t in _SPECIAL]
    if None in ids or len(set(ids)) < len(ids) or tokenizer.unk_token_id in ids:
        tokens = ", ".join(f"{t} {getattr(tokenizer, t)!r}" for t in _SPECIAL)
        raise UserError(f"tokenizer={name!r} has no entries of their own in its vocabulary for {tokens}")
    if special_ids(tokenizer).issuperset(tokenizer.get_vocab().values()):
        raise UserError(f"tokenizer={name!r} has nothing but special tokens in its vocabulary")
    _put_ends(tokenizer)
    return tokenizer


_SPECIAL = ("pad_token", "cls_token", "sep_token", "mask_token")
ROLES = (*_SPECIAL, "unk_token")
_LOCAL = {"use_fast": True, "trust_remote_code": False, "local_files_only": True}
_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt")  # each tokenizer of the hub has one of them


def _from_folder(name: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        if (folder / "vocab.txt").is_file() and not _tells_its_kind(folder):
            words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            lower = _is_lower_case(words)
            options = {"do_lower_case": lower, "strip_accents": lower and not any(map(_has_accent, words))}
            if (folder / "tokenizer_config.json").is_file():
                options = {}
            return BertTokenizerFast.from_pretrained(str(folder), local_files_only=True, **options)
        return AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
    except Exception as error:  # tokenizers raises no narrower class for damaged files
        raise UserError(
            f"tokenizer={name!r}: no tokenizer can be read from this folder ({first_line(error)}). It should hold "
            "tokenizer.json or BERT's vocab.txt, as `hf download NAME --local-dir FOLDER` fetches them: fetch it again, or "
            "pass another tokenizer"
        ) from error


def _tells_its_kind(folder: Path) -> bool:
    """Whether a folder says what kind of tokenizer its vocabulary is for; BERT's own releases do not."""
    if any((folder / name).is_file() for name in ("tokenizer.json", "config.json")):
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and not {"tokenizer_class", "auto_map"}.isdisjoint(
        json.loads(path.read_text(encoding="utf-8"))
    )


def _is_lower_case(words: list[str]) -> bool:
    return all(word == word.lower() for word in words if not word.startswith("["))


def _has_accent(word: str) -> bool:
    """Whether BERT's removal of accents would change a word."""
    return any(unicodedata.category(sign) == "Mn" for sign in unicodedata.normalize("NFD", word))


def _from_hub(name: str, stored: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in this machine's cache of the hub, else an installed package's, else the hub's.

    The hub is asked once whether it answers.
    """
    local = None
    if (folder := _cached(name)) is not None:
        try:
            tokenizer = _from_folder(name, folder)
            tokenizer.name_or_path = name  # messages show it
            return tokenizer
        except UserError as error:  # most often the download was not complete
            local = error
    if (packaged := packaged_tokenizer(name)) is not None:
        return packaged
    package = f" {packaged_tokenizers.INSTALL} brings this vocabulary." if name in packaged_tokenizers.NAMES else ""
    if stored:
        raise UserError(
            f"The checkpoint was made with tokenizer={name!r}, which is no folder here and is not in the cache of this "
            "machine. Names out of checkpoints are not looked up elsewhere: pass tokenizer=NAME or tokenizer=FOLDER."
            f"{package}"
        ) from local
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable(constants.ENDPOINT)
    if reason is None:
        try:
            return AutoTokenizer.from_pretrained(name, **(_LOCAL | {"local_files_only": False}))
        except Exception as error:  # transformers raises no narrower class
            reason = first_line(error)
    raise UserError(
        f"tokenizer={name!r} is neither an embedded tokenizer ({', '.join(EMBEDDED)}), nor a folder, nor in this machine's "
        f"cache of the model hub, nor to be had from there ({reason}). Fetch it where there is a network (hf download "
        f"{name} --local-dir FOLDER) and pass tokenizer=FOLDER; a folder with BERT's vocab.txt alone will do.{package}"
    ) from local


def _cached(name: str) -> Path | None:
    """The folder of a hub name in this machine's cache.

    The name is looked up among files, because loading by name opens connections even with local_files_only:
    huggingface_hub asks how its requests should describe this machine.
    """
    try:
        found = (try_to_load_from_cache(name, file) for file in _FILES)
        return next((Path(path).parent for path in found if isinstance(path, str)), None)
    except HFValidationError:  # no name of the hub at all
        return None


def _unreachable(address: str) -> str | None:
    """The reason why nothing answers there, or None. We ask once; transformers would try again for most of a minute."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=5).close()
    except HTTPError:
        return None  # it answers
    except OSError as error:
        return f"{address} does not answer: {getattr(error, 'reason', error)}"
    return None


def _put_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    """Have [CLS] and [SEP] around a text, where the tokenizer's own settings leave one of them out."""
    rust = tokenizer.backend_tokenizer
    rust.no_truncation()
    rust.no_padding()
    found = rust.encode("a").ids
    if found[:1] != [tokenizer.cls_token_id] or found[-1:] != [tokenizer.sep_token_id]:
        ends = [(tokenizer.cls_token, tokenizer.cls_token_id), (tokenizer.sep_token, tokenizer.sep_token_id)]
        rust.post_processor = TemplateProcessing(single=[ends[0][0], "$A", ends[1][0]], special_tokens=ends)


def vocabulary_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the largest id. Where ids have gaps, there are fewer tokens."""
    return max(tokenizer.get_vocab().values()) + 1


def special_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """The ids of tokens that stand for no text: those with a role, and those that the tokenizer marks as special."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return frozenset(tokenizer.all_special_ids) | {number for number, token in added.items() if token.special}


def vocabulary(tokenizer: PreTrainedTokenizerFast | None, vocab_size: int | None) -> tuple[int, int]:
    """Padding id and vocabulary size: the tokenizer's size, or a larger `vocab_size`.

    Raises UserError where vocab_size is smaller than the tokenizer's.
    """
    if tokenizer is None:
        return 0, vocab_size or 1
    size = vocabulary_size(tokenizer)
    if vocab_size is not None and vocab_size < size:
        raise UserError(
            f"vocab_size={vocab_size} is smaller than the vocabulary of tokenizer={tokenizer.name_or_path} ({size}): leave "
            "vocab_size out (or pass vocab_size=None), it follows"
        )
    return tokenizer.pad_token_id, vocab_size or size


@dataclass(frozen=True)
class Tokens:
    """One tokenised text.

    ids: with [CLS] and [SEP].
    words: number of the word of each token, -1 for special tokens.
    segments: number of the segment of each token; None: the text is one sequence.
    tags: number of the box that each token names, from 1, and 0 for other tokens; None: the text has no tags.
    """

    ids: list[int]
    words: list[int]
    segments: list[int] | None = None
    tags: list[int] | None = None


class TextEncoder:
    """Texts -> tokens, cut to max_text_len tokens ([CLS] and [SEP] included); picklable for worker processes."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_text_len: int):
        self.max_text_len = max_text_len
        self.pad_id, self.mask_id = tokenizer.pad_token_id, tokenizer.mask_token_id
        self.cls_id, self.sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.mask_token, self.special_ids = tokenizer.mask_token, special_ids(tokenizer)
        self.vocab_size = vocabulary_size(tokenizer)
        self._rust = tokenizer.backend_tokenizer
        self._rust.no_truncation()
        self._rust.no_padding()

    def __call__(self, text: str, tags: Sequence[int] = (), *, keeps_end: bool = False) -> Tokens:
        tokens = self._whole(text, tags)
        excess = max(len(tokens.ids) - self.max_text_len, 0)
        first = 1 if keeps_end else len(tokens.ids) - 1 - excess
        for column in (tokens.ids, tokens.words, tokens.tags or []):
            del column[first : first + excess]
        return tokens

    def _whole(self, text: str, tags: Sequence[int] = ()) -> Tokens:
        encoding = self._rust.encode(text)
        words = [-1 if word is None else word for word in encoding.word_ids]
        return Tokens(encoding.ids, words, tags=_tags_of_tokens(encoding, text, tags) if tags else None)

    def to_json(self) -> str:
        """Return the tokenizer as the content of a tokenizer.json."""
        return self._rust.to_str()

    def within(self, max_text_len: int) -> "TextEncoder":
        """Return the same encoder for texts of at most so many tokens."""
        shorter = copy(self)
        shorter.max_text_len = max_text_len
        return shorter

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text that tokens stand for, without special ones, as the tokenizer's decoder joins them.

        WordPiece does not know where blanks were. Its decoder leaves them out before some punctuation. Around hyphens,
        slashes and apostrophes, and within brackets, most texts have none either.
        """
        text = self._rust.decode(ids, skip_special_tokens=True)
        return _JOINED.sub(lambda found: found[0].strip(), text) if isinstance(self._rust.decoder, WordPiece) else text

    def token_name(self, number: int) -> str:
        """Return the token with this number in the vocabulary as text; as it is stored where it is no whole text."""
        text = self._rust.decode([number], skip_special_tokens=False).strip()
        return text if text and "\ufffd" not in text else self._rust.id_to_token(number) or ""

    def composed(
        self, sequences: Sequence[tuple[str, int] | Words], history: Sequence[str] = (), *, keeps_end: bool = False
    ) -> Tokens:
        """Words, each sequence with its segment, and a history as one text: [CLS] first [SEP] second [SEP] history [SEP].

        Where they are too long together, the history loses its first tokens, and then the longest sequence its last words.

        history: sequences of segment 0.
        keeps_end: a single sequence loses its first words.
        """
        given = [Words(*sequence) for sequence in sequences]
        if len(given) == 1 and not history:
            return self(given[0].text, given[0].tags, keeps_end=keeps_end)
        parts = [*(self(one.text, one.tags) for one in given), *map(self._whole, history)]
        # Every sequence with the [SEP] at its end; the first one keeps [CLS].
        kept = [list(range(number > 0, len(part.ids))) for number, part in enumerate(parts)]
        excess = sum(map(len, kept)) - self.max_text_len
        for places in kept[len(given) :]:
            given_up = places[: max(excess, 0)]
            del places[: len(given_up)]
            excess -= len(given_up)
        for _ in range(excess):
            del max(kept, key=len)[-2]
        segments = [*(one.segment for one in given), *(0 for _ in history)]
        ids, words_of_tokens, segments_of_tokens, tags, first_word = [], [], [], [], 0
        for part, places, segment in zip(parts, kept, segments, strict=True):
            ids += [part.ids[place] for place in places]
            words_of_tokens += [part.words[place] + first_word * (part.words[place] >= 0) for place in places]
            segments_of_tokens += [segment] * len(places)
            tags += [part.tags[place] if part.tags else 0 for place in places]
            first_word += max(part.words) + 1
        return Tokens(ids, words_of_tokens, segments_of_tokens, tags if any(one.tags for one in given) else None)

    def packed(self, texts: Iterable[str]) -> Tokens:
        """Texts, one behind the other, as one sequence: [CLS] first second third [SEP], cut to max_text_len tokens.

        Texts are read until the sequence is full. VL-BERT (Su et al. 2020) packs lines of a corpus into 64 pieces of words.
        """
        room = self.max_text_len - 2
        ids: list[int] = []
        words: list[int] = []
        first_word = 0
        for text in texts:
            part = self._whole(text)
            ids += part.ids[1:-1]
            words += [first_word + word for word in part.words[1:-1]]
            first_word += max(part.words) + 1
            if len(ids) >= room:
                break
        return Tokens([self.cls_id, *ids[:room], self.sep_id], [-1, *words[:room], -1])

    def pad(
        self,
        rows: list[list[int]],
        segments: Sequence[list[int] | None] = (),
        tags: Sequence[list[int] | None] = (),
    ) -> Text:
        """Token ids of B texts as one batch, as long as the longest, rounded up to a multiple of 8.

        segments: the segments of each row, as in `Tokens`. Where all are None, the batch has none.
        tags: likewise.
        """
        longest = max(len(row) for row in rows)
        length = min(-(-longest // PAD_MULTIPLE) * PAD_MULTIPLE, self.max_text_len)
        ids = np.full((len(rows), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        further = _padded(segments, length), _padded(tags, length)
        return Text(torch.from_numpy(ids), torch.from_numpy(mask), sum(map(len, rows)), *further)


def _tags_of_tokens(encoding: Encoding, text: str, tags: Sequence[int]) -> list[int]:
    """The tag of each token's word. Raises UserError where the text has another number of words between its blanks."""
    words = text.split(" ")
    if len(words) != len(tags):
        raise UserError(f"A text has {len(words)} words and {len(tags)} tags of words: {text[:80]!r}")
    # A token may begin with the blank before its word, or be nothing but this blank.
    by_letter = [tag for word, tag in zip(words, tags, strict=True) for _ in range(len(word) + 1)][1:]
    places = zip(encoding.word_ids, encoding.offsets, strict=True)
    return [0 if word is None else by_letter[start] for word, (start, _) in places]


def _padded(rows: Sequence[list[int] | None], length: int) -> torch.Tensor | None:
    """(B, length) int64, 0 at padding; None where no row has numbers."""
    if not any(rows):
        return None
    padded = torch.zeros(len(rows), length, dtype=torch.int64)
    for row, numbers in zip(padded, rows, strict=True):
        row[: len(numbers or ())] = torch.tensor(numbers or ())
    return padded


@dataclass(frozen=True)
class HiddenTokens:
    """ids: the tokens with some replaced; positions: which ones are to be predicted."""

    ids: list[int]
    positions: list[int]


class TokenHider:
    """Hides tokens for masked language modelling, as BERT does (Devlin et al. 2019, section 3.1).

    probability: the probability with which a token is chosen. Of the chosen tokens 80 % become [MASK], 10 % become a random
        token that is not special, and 10 % stay.
    whole_words: choose whole words, as the published code does. It draws words from the text padded to max_text_len, in
        which every [PAD] counts as a word, until `probability` of the padded length is reached, and then drops the padding.
        So a word is hidden about as often in a short text as in a long one. Where the published code would hide nothing,
        we hide one random word.
    word_by_word: choose each word by itself with `probability`, as VL-BERT does (Su et al. 2020). All tokens of a chosen
        word become [MASK], or each becomes a random token, or all stay. It may be that no word is chosen.
    one_segment: the probability with which a text of two segments, such as a sentence and its translation, has tokens
        hidden in one of them alone, which is drawn. Tokens that were chosen in the other one are shown as they are.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        probability: float,
        whole_words: bool = False,
        word_by_word: bool = False,
        one_segment: float = 0.0,
    ):
        self.mask_id, self.vocab_size, self.special_ids = encoder.mask_id, encoder.vocab_size, encoder.special_ids
        self.probability, self.whole_words, self.word_by_word = probability, whole_words, word_by_word
        self.one_segment, self.padded_length = one_segment, encoder.max_text_len

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> HiddenTokens:
        hidden = self._hidden(tokens, rng)
        if not self.one_segment or not tokens.segments or rng.random() >= self.one_segment:
            return hidden
        kept, ids = int(rng.integers(2)), list(tokens.ids)
        positions = [position for position in hidden.positions if tokens.segments[position] == kept]
        for position in positions:
            ids[position] = hidden.ids[position]
        return HiddenTokens(ids, positions)

    def _hidden(self, tokens: Tokens, rng: np.random.Generator) -> HiddenTokens:
        """Hide tokens of all segments."""
        if self.word_by_word:
            return self._word_by_word(tokens, rng)
        choose = self._choose_words if self.whole_words else self._choose_tokens
        positions = choose(tokens, rng)
        ids = list(tokens.ids)
        for position, draw in zip(positions, rng.random(len(positions)), strict=True):
            if draw < 0.8:
                ids[position] = self.mask_id
            elif draw < 0.9:
                ids[position] = self._random_token(rng)
        return HiddenTokens(ids, positions)

    def _random_token(self, rng: np.random.Generator) -> int:
        """Draw a token that stands for text. A special one is drawn again, which leaves all later draws as they were."""
        drawn = int(rng.integers(self.vocab_size))
        if drawn in self.special_ids:
            (again,) = rng.spawn(1)
            while drawn in self.special_ids:
                drawn = int(again.integers(self.vocab_size))
        return drawn

    def _choose_tokens(self, tokens: Tokens, rng: np.random.Generator) -> list[int]:
        draws = rng.random(len(tokens.ids))
        return [i for i, word in enumerate(tokens.words) if word >= 0 and draws[i] < self.probability]

    def _word_by_word(self, tokens: Tokens, rng: np.random.Generator) -> HiddenTokens:
        ids, chosen = list(tokens.ids), []
        for positions in _positions_of_words(tokens):
            draw = rng.random() / self.probability
            if draw >= 1:
                continue
            chosen += positions
            for position in positions:
                if draw < 0.8:
                    ids[position] = self.mask_id
                elif draw < 0.9:
                    ids[position] = self._random_token(rng)
        return HiddenTokens(ids, chosen)

    def _choose_words(self, tokens: Tokens, rng: np.random.Generator) -> list[int]:
        groups = _positions_of_words(tokens)
        if not groups:
            return []
        sizes = [len(group) for group in groups] + [1] * (self.padded_length - len(tokens.ids))
        budget = max(1, round(self.padded_length * self.probability))
        chosen: list[int] = []
        for number in rng.permutation(len(sizes)).tolist():
            if sizes[number] <= budget:
                budget -= sizes[number]
                if number < len(groups):
                    chosen += groups[number]
                if budget == 0:
                    break
        return sorted(chosen) or groups[int(rng.integers(len(groups)))]


def _positions_of_words(tokens: Tokens) -> list[list[int]]:
    """The positions of the tokens of each word, in the order of the words."""
    words: dict[int, list[int]] = {}
    for position, word in enumerate(tokens.words):
        if word >= 0:
            words.setdefault(word, []).append(position)
    return list(words.values())
