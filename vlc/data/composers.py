"""COMPOSERS: how a row becomes the text of a sample, by the names that tasks choose by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_ROUNDS = 3  # of a dialogue, that are shown before a question


class Words(NamedTuple):
    """A sequence of words.

    segment: its number.
    tags: what each word between the blanks names, where any does: box k - 1 by the number k, and nothing by 0.
    """

    text: str
    segment: int = 0
    tags: Sequence[int] = ()


def _no_history(row: Mapping[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True)
class Composer:
    """A way to put the text of a sample together.

    compose: the row's values by name -> the sequences of words that the text consists of. "text" is the sample's text.
    columns: the fields of the catalogue's row that it reads beside the text.
    history: the row's values by name -> sequences of segment 0 that follow, the oldest first. They give way where the text
        is too long.
    keeps_end: a text of one sequence that is too long loses its first words, and not its last ones.
    packs: the texts of the samples that follow are appended until the text has as many tokens as it may have.
    """

    compose: Callable[[Mapping[str, Any]], Sequence[Words]]
    columns: frozenset[str] = frozenset()
    history: Callable[[Mapping[str, Any]], Sequence[str]] = _no_history
    keeps_end: bool = False
    packs: bool = False


def plain(row: Mapping[str, Any]) -> list[Words]:
    """The sample's text alone."""
    return [Words(row["text"])]


def pair(row: Mapping[str, Any]) -> list[Words]:
    """The sample's text and a second one, such as a question and its answer, as BERT's two segments."""
    return [Words(row["text"]), Words(row["second_text"], 1)]


def grounded(row: Mapping[str, Any]) -> list[Words]:
    """The sample's text, whose words name boxes."""
    return [Words(row["text"], 0, row["text_tags"])]


def grounded_answer(row: Mapping[str, Any]) -> list[Words]:
    """A question and a given answer to it, whose words name boxes; 12-in-1 puts [SEP] between them."""
    return [*grounded(row), Words(row["given_answer"], 0, row["given_answer_tags"])]


def earlier_rounds(row: Mapping[str, Any]) -> list[str]:
    """Questions and answers of the last rounds before a question, and the caption, as 12-in-1 reads VisDial."""
    return [*row["history"][-2 * _ROUNDS :], row["caption"]]


def marked_word(row: Mapping[str, Any]) -> list[Words]:
    """The sample's text, of whose words the ambiguous one has tag 1."""
    count = len(row["text"].split(" "))
    return [Words(row["text"], 0, [int(place == row["word_places"]) for place in range(count)])]


def whole_game(row: Mapping[str, Any]) -> list[Words]:
    """All questions of a game with their answers, as 12-in-1 gives them to GuessWhat's guesser."""
    said = (f"answer {words} stop" if place % 2 else f"start {words}" for place, words in enumerate(row["dialogue"]))
    return [Words(" ".join(said))]


COMPOSERS = {
    "plain": Composer(plain),
    "packed": Composer(plain, packs=True),
    "pair": Composer(pair, frozenset({"second_text"})),
    "grounded": Composer(grounded, frozenset({"text_tags"})),
    "grounded_answer": Composer(grounded_answer, frozenset({"text_tags", "given_answer", "given_answer_tags"})),
    "marked_word": Composer(marked_word, frozenset({"word_places"})),
    "dialogue": Composer(plain, frozenset({"history", "caption"}), earlier_rounds),
    "guesser": Composer(whole_game, frozenset({"dialogue"}), keeps_end=True),
}
