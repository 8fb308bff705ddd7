"""Values of a command line as settings store them, and checks of their types."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, get_origin

from vlc.common.errors import UserError, require
from vlc.configuration.aliases import FLAT_NAMES

_NAMES = (tuple[str, ...], tuple[str, ...] | None)
_NUMBERS = Mapping[str, float]
_LISTS = Mapping[str, tuple[str, ...]]


def read(value: Any, kind: Any) -> Any:
    """Return plain containers in place of Sacred's, which a checkpoint could not store as plain data.

    A list of names may lack the quotes, which a shell removes: [coco, vg]. Sacred makes a dictionary in a dictionary of a
    name with a dot: where the values are numbers, the names are put together again.
    """
    if kind in _NAMES and isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return tuple(name for part in value[1:-1].split(",") if (name := part.strip(" '\"")))
    if isinstance(value, Mapping) and kind == _LISTS:
        lists = {key: read(item, tuple[str, ...]) for key, item in value.items()}
        return {key: (item,) if isinstance(item, str) else item for key, item in lists.items()}
    if isinstance(value, Mapping):
        return dict(_dotted(value) if kind == _NUMBERS else ((key, read(item, None)) for key, item in value.items()))
    return tuple(value) if isinstance(value, list) else value


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> Any:
    """Return a value with lists in place of tuples, at every depth."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def check_known(names: Iterable[str], known: Iterable[str], kind: str, meant: Mapping[str, str] | None = None) -> None:
    """Raise UserError for an unknown name, with the nearest known ones.

    meant: names that the user may have meant -> what the message shows for them.
    """
    known, meant = tuple(known), meant or {}
    for name in names:
        if name not in known:
            near = get_close_matches(str(name)[:100], {*known, *meant}, n=3, cutoff=0.5)
            shown = dict.fromkeys(meant.get(other, other) for other in near)
            hint = f"Did you mean {', '.join(shown)}? " if shown else ""
            raise UserError(f"Unknown {kind} {name!r}. {hint}Valid: {', '.join(sorted(known))}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


# Type of a field -> (whether a value is of this type, the type in words). Fields of other types are checked by value.
_TYPES: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (is_whole, "a whole number"),
    float: (is_number, "a number"),
    int | float: (is_number, "a number"),
    int | None: (lambda value: value is None or is_whole(value), "a whole number, or None"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    bool | None: (lambda value: value is None or isinstance(value, bool), "True, False or None"),
    float | None: (lambda value: value is None or is_number(value), "a number, or None"),
    tuple[int, ...]: (
        lambda value: isinstance(value, tuple) and all(map(is_whole, value)),
        "a list of whole numbers",
    ),
    tuple[float, ...]: (
        lambda value: isinstance(value, tuple) and all(map(is_number, value)),
        "a list of numbers",
    ),
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
    Mapping: (lambda value: isinstance(value, Mapping), "a dictionary"),  # of any keys and values
    tuple[str, str]: (lambda value: are_texts(value) and len(value) == 2, "two names"),
    tuple[str, ...]: (are_texts, "a list of names, as in ['mae']"),
    tuple[str, ...] | None: (lambda value: value is None or are_texts(value), "a list of names, or None"),
}


def as_text(key: str, value: Any) -> str:
    """Say how to give a number, or another word that Python reads as a value, as a text on a command line."""
    if isinstance(value, str | tuple | list | Mapping):
        return ""
    return f"; for the text {value} write '{key}=\"{value}\"'"


def check_types(values: Any, owner: str = "") -> None:
    """Raise UserError where a field of a dataclass of settings has a value of another type, as Sacred checks none.

    owner: the dictionary of the configuration that has the fields as its keys; empty: they are keys themselves.
    """
    for field in fields(values):
        kind = get_origin(field.type) if get_origin(field.type) is Mapping else field.type
        if kind in _TYPES:
            valid, expected = _TYPES[kind]
            key = FLAT_NAMES.get((owner, field.name), f"{owner}.{field.name}") if owner else field.name
            value = getattr(values, field.name)
            hint = as_text(field.name, value) if expected.startswith("a text") else ""
            require(valid(value), key, value, expected + hint)
