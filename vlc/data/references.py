"""References: texts whose words name objects of an image by number, as VCR annotates them (Zellers et al. 2019)."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

# First names that do not tell the gender.
NAMES = (
    *("Alex", "Andy", "Ariel", "Ashley", "Aubrey", "Avery", "Bailey", "Blake", "Bobbie", "Brook"),
    *("Cameron", "Casey", "Charlie", "Chris", "Corey", "Dakota", "Dana", "Devon", "Eden", "Elliot"),
    *("Emerson", "Finley", "Frankie", "Harley", "Hayden", "Jackie", "Jaime", "Jamie", "Jesse", "Jody"),
    *("Jordan", "Kai", "Kelly", "Kendall", "Kerry", "Kim", "Lee", "Leslie", "Logan", "Marion"),
    *("Morgan", "Noel", "Parker", "Peyton", "Quinn", "Reese", "Riley", "Robin", "Rory", "Rowan"),
    *("Sam", "Sasha", "Shannon", "Sidney", "Skyler", "Stevie", "Taylor", "Terry", "Toby", "Tracy"),
)
_REFERENCE = re.compile(r"\[\s*(\d{1,4}(?:\s*,\s*\d{1,4})*)\s*\]")


class BadReference(Exception):
    """The reason why a text cannot be shown."""


def called_by(annot_id: str, objects: Sequence[str]) -> list[str]:
    """What the objects of an image are called in one annotation: persons by a name each, which annot_id draws."""
    order = sorted(NAMES, key=lambda name: hashlib.sha256(f"{annot_id} {name}".encode()).digest())
    persons, called = 0, []
    for category in objects:
        if category != "person":
            called.append(category)
            continue
        again, place = divmod(persons, len(order))
        called.append(order[place] + (str(again + 1) if again else ""))
        persons += 1
    return called


def rendered(tokens: Any, called: Sequence[str], tags: Sequence[int]) -> tuple[str, list[int]]:
    """The words of a text, joined by blanks, and a tag for each; of objects that are named together, "and" joins two.

    tokens: words, and lists of numbers of objects.
    called: what each object is called.
    tags: the tag of each object.
    Raises BadReference for tokens of another kind, for objects that there are not, and for a text without words.
    """
    words: list[tuple[str, int]] = []
    for token in tokens:
        if isinstance(token, str):
            words += [(word, 0) for word in token.split()]
        elif isinstance(token, list) and all(type(one) is int and 0 <= one < len(called) for one in token):
            for place, number in enumerate(token):
                words += [("and", 0)] * (place > 0) + [(word, tags[number]) for word in called[number].split()]
        else:
            raise BadReference(
                f"a text holds {str(token)[:80]}, expected a word or numbers of its {len(called)} objects"
            )
    if not words:
        raise BadReference("a text without words")
    return " ".join(word for word, _ in words), [tag for _, tag in words]


def has_references(text: str) -> bool:
    """Whether a text names objects by number, as in "what is [0] doing"."""
    return _REFERENCE.search(text) is not None


def parsed(text: str) -> list[str | list[int]]:
    """Return a text as `rendered` takes it: "why is [0, 2] here" names the first and the third object."""
    parts = _REFERENCE.split(text)  # every second one is what stands between brackets
    return [[int(one) for one in part.split(",")] if place % 2 else part for place, part in enumerate(parts)]
