"""How well a tokenizer suits texts: how many pieces it cuts a word into, and what it does not know."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from transformers import PreTrainedTokenizerFast


@dataclass
class Statistics:
    """Counts over texts.

    words: what stands between blanks.
    pieces: without the special tokens around a text.
    letters: characters that are no blanks.
    unknown: characters, of these, inside of unknown tokens.
    """

    texts: int = 0
    words: int = 0
    pieces: int = 0
    letters: int = 0
    unknown: int = 0

    @property
    def pieces_per_word(self) -> float:
        return self.pieces / max(self.words, 1)

    @property
    def unknown_share(self) -> float:
        return self.unknown / max(self.letters, 1)


def measure(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[tuple[str, list[str]]]
) -> tuple[Statistics, dict[str, Statistics]]:
    """Return the statistics of all texts, and those of each language.

    texts: pairs of a language, "" where it is not known, and texts.
    """
    rust, unknown = tokenizer.backend_tokenizer, tokenizer.unk_token_id
    languages: dict[str, Statistics] = defaultdict(Statistics)
    for language, some in texts:
        own = languages[language]
        for text, encoding in zip(some, rust.encode_batch(some, add_special_tokens=False), strict=True):
            spans = zip(encoding.ids, encoding.offsets, strict=True)
            own.texts += 1
            own.words += len(text.split())
            own.pieces += len(encoding.ids)
            own.letters += len("".join(text.split()))
            own.unknown += sum(end - start for number, (start, end) in spans if number == unknown)
    total = Statistics(*(sum(column) for column in zip(*map(astuple, languages.values()), strict=True)))
    return total, dict(languages)
