"""Values as Sacred and a command line give them, and as settings keep them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from vlc.common.errors import UserError, require
from vlc.configuration.aliases import FLAT_NAMES

_NAMES = (tuple[str, ...], tuple[str, ...] | None)


def read(value: Any, kind: Any) -> Any:
    """Plain containers instead of Sacred's, which a checkpoint would need code to load.

    A list of names may come without the quotes that a shell takes away: [coco, vg].
    """
    if kind in _NAMES and isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return tuple(name for part in value[1:-1].split(",") if (name := part.strip(" '\"")))
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(value) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A value with lists in place of tuples, at every depth."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def check_known(names: Iterable[str], known: Iterable[str], kind: str) -> None:
    """Raise UserError for a name that is not known, with the nearest ones."""
    known = tuple(known)
    for name in names:
        if name not in known:
            near = get_close_matches(str(name)[:100], known, n=3, cutoff=0.5)
            hint = f"Did you mean {', '.join(near)}? " if near else ""
            raise UserError(f"Unknown {kind} {name!r}. {hint}Valid: {', '.join(sorted(known))}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


# Type of a field -> (what its values must fulfil, how to say it). Fields of other types are checked by value alone.
_TYPES: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (is_whole, "a whole number"),
    float: (is_number, "a number"),
    int | float: (is_number, "a number"),
    int | None: (lambda value: value is None or is_whole(value), "a whole number, or None"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    str: (lambda value: isinstance(value, str), "a text"),
    str | None: (lambda value: value is None or isinstance(value, str), "a text, or None"),
    str | tuple[str, ...] | None: (
        lambda value: value is None or isinstance(value, str) or are_texts(value),
        "a text, or a list of texts",
    ),
    tuple[float, ...] | None: (
        lambda value: value is None or (isinstance(value, tuple) and all(map(is_number, value))),
        "a list of numbers, or None",
    ),
    tuple[str, ...]: (are_texts, "a list of names, as in ['mae']"),
    tuple[str, ...] | None: (lambda value: value is None or are_texts(value), "a list of names, or None"),
}


def as_text(key: str, value: Any) -> str:
    """How a number, or another word that Python reads as a value, is given as a text on a command line."""
    return (
        "" if isinstance(value, str | tuple | list | Mapping) else f"; for the text {value} write '{key}=\"{value}\"'"
    )


def check_types(values: Any, owner: str = "") -> None:
    """Raise UserError where a field of a dataclass of settings has a value of another type.

    Sacred passes on whatever stands behind the equals sign. owner: the dictionary of the configuration that has the fields
    as its keys.
    """
    for field in fields(values):
        if field.type in _TYPES:
            valid, expected = _TYPES[field.type]
            key = FLAT_NAMES.get((owner, field.name), f"{owner}.{field.name}") if owner else field.name
            value = getattr(values, field.name)
            hint = as_text(field.name, value) if expected.startswith("a text") else ""
            require(valid(value), key, value, expected + hint)
