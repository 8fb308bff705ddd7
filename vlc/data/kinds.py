"""Kinds of annotations: which spellings of a value are understood, and how values become a batch's field."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlc.data.objects import read_outlines

MOST_LABELS = 2**24  # in a vocabulary: a larger label is a mistake, and a list by label would fill the memory
_TRUTHS = {"true": 1, "1": 1, 1.0: 1, "false": 0, "0": 0, 0.0: 0}


@dataclass(frozen=True)
class Kind:
    """The kind of values in a column.

    expected: a description of valid values, for messages.
    understood: values without nulls -> mask (N,) bool of the valid ones; None: no value of this type is valid.
    collate: valid cells of a batch -> the batch's field, a list or an array that becomes a tensor. Worker processes pickle
        it, so it is no lambda.
    several: whether the cell of a text is a list of values.
    distinct: whether the values of such a list all differ.
    nullable: whether values may be missing.
    classes: the names of the classes, or how many there are, where the values are classes.
    """

    expected: str
    understood: Callable[[pa.Array], np.ndarray | None]
    collate: Callable[[list], Any] = list
    several: bool = False
    distinct: bool = False
    nullable: bool = False
    classes: tuple[str, ...] | int = ()


def truths(cells: list[Any]) -> np.ndarray:
    """Cells of one truth each, in any known spelling -> (B,) int64, 1 = true. Raises KeyError for other spellings."""
    return np.array([truth(cell) for cell in cells], dtype=np.int64)


def truth(value: Any) -> int:
    """1 for true, 0 for false, in any known spelling. Raises KeyError or TypeError for others."""
    if isinstance(value, Decimal):
        value = float(value)
    return _TRUTHS[value.lower() if isinstance(value, str) else value]


def padded_integers(cells: list[list[int]]) -> np.ndarray:
    """Cells of several numbers -> (B, longest) int64, padded with 0. Pair it with padded scores of 0."""
    return _pad(cells, np.int64)


def padded_floats(cells: list[list[float]]) -> np.ndarray:
    """Cells of several numbers -> (B, longest) float32, padded with 0."""
    return _pad(cells, np.float32)


def _pad(cells: list[list], dtype: type) -> np.ndarray:
    padded: np.ndarray = np.zeros((len(cells), max(map(len, cells), default=0)), dtype=dtype)
    for row, cell in zip(padded, cells, strict=True):
        row[: len(cell)] = cell
    return padded


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def as_numbers(values: pa.Array) -> np.ndarray | None:
    """The values (N,) as numbers; None: they are no numbers."""
    if pa.types.is_integer(values.type):
        return values.to_numpy(zero_copy_only=False)
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return None


def _are_truths(values: pa.Array) -> np.ndarray | None:
    if pa.types.is_boolean(values.type):
        return np.ones(len(values), dtype=bool)
    if _is_string(values.type):
        known = pa.array([spelling for spelling in _TRUTHS if isinstance(spelling, str)], values.type)
        return pc.is_in(pc.utf8_lower(values), known).to_numpy(zero_copy_only=False)
    numbers = as_numbers(values)
    return None if numbers is None else (numbers == 0) | (numbers == 1)


def are_labels(values: pa.Array, count: int = MOST_LABELS) -> np.ndarray | None:
    """Mask (N,) of whole numbers from 0 to below `count`, of any type of numbers; None: they are no numbers."""
    numbers = as_numbers(values)
    return None if numbers is None else (numbers >= 0) & (numbers < count) & (numbers == np.floor(numbers))


@dataclass(frozen=True)
class _AreClasses:
    """Mask (N,) of names of classes, or of numbers below their count; a dataclass, so that equal kinds compare equal."""

    classes: tuple[str, ...] | int

    def __call__(self, values: pa.Array) -> np.ndarray | None:
        if isinstance(self.classes, tuple):
            known = pa.array(self.classes, values.type) if _is_string(values.type) else None
            return None if known is None else pc.is_in(values, known).to_numpy(zero_copy_only=False)
        return are_labels(values, self.classes)


@dataclass(frozen=True)
class _ClassNumbers:
    """Cells of one class each, by name or number -> numbers (B,) int64."""

    names: tuple[str, ...]

    def __call__(self, cells: list[Any]) -> np.ndarray:
        return np.array([self.names.index(cell) if self.names else cell for cell in cells], dtype=np.int64)


def one_of(classes: Sequence[str] | int) -> Kind:
    """The kind of a column that holds a class; a batch has its number, (B,) int64.

    classes: the names of the classes, one of which the column holds; or how many there are, if it holds numbers.
    """
    if isinstance(classes, int):
        numbers = f"a whole number from 0 to {classes - 1}"
        return Kind(numbers, _AreClasses(classes), _ClassNumbers(()), classes=classes)
    names = tuple(classes)
    return Kind(f"one of {', '.join(names)}", _AreClasses(names), _ClassNumbers(names), classes=names)


def _are_scores(values: pa.Array) -> np.ndarray | None:
    numbers = as_numbers(values)
    return None if numbers is None else (numbers >= 0) & (numbers <= 1)


def box_edges(values: pa.Array) -> np.ndarray | None:
    """Lists without nulls -> (N, 4) float64, NaN where a list has other than four numbers; None: they are no such lists."""
    if pa.types.is_fixed_size_list(values.type):
        values = values.cast(pa.list_(values.type.value_type))
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return None
    has_four = pc.list_value_length(values).to_numpy(zero_copy_only=False) == 4
    numbers = pc.list_flatten(values.filter(pa.array(has_four)))
    if not (pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type)):
        return None
    edges = np.full((len(values), 4), np.nan)
    edges[has_four] = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, 4)
    return edges


def _are_boxes(values: pa.Array) -> np.ndarray | None:
    edges = box_edges(values)
    if edges is None:
        return None
    left, top, right, bottom = edges.T
    return np.isfinite(edges).all(axis=1) & (left >= 0) & (left < right) & (top >= 0) & (top < bottom)


def _are_tags(values: pa.Array) -> np.ndarray | None:
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return None
    numbers = are_labels(pc.list_flatten(values))
    if numbers is None:
        return None
    valid: np.ndarray = np.ones(len(values), dtype=bool)
    valid[pc.list_parent_indices(values).to_numpy()[~numbers]] = False
    return valid


def _are_outlines(values: pa.Array) -> np.ndarray | None:
    return np.array([_is_outline(one) for one in values.to_pylist()], dtype=bool) if _is_string(values.type) else None


def _is_outline(text: str) -> bool:
    with suppress(ValueError):
        read_outlines(text)
        return True
    return False


def _are_identifiers(values: pa.Array) -> np.ndarray | None:
    if pa.types.is_integer(values.type):
        return np.ones(len(values), dtype=bool)
    return pc.binary_length(values).to_numpy(zero_copy_only=False) > 0 if _is_string(values.type) else None


def _are_texts(values: pa.Array) -> np.ndarray | None:
    return np.ones(len(values), dtype=bool) if _is_string(values.type) else None


TRUTHS = Kind("true or false (in small or capital letters, as a boolean, or as 1 or 0)", _are_truths, truths)
LABELS = Kind(
    f"different whole numbers from 0 to {MOST_LABELS - 1:,}", are_labels, padded_integers, several=True, distinct=True
)
SCORES = Kind("numbers from 0 to 1", _are_scores, padded_floats, several=True)
RELEVANCES = Kind("numbers from 0 to 1", _are_scores, several=True)  # of some texts; those of others are empty
NUMBERS = Kind(f"a whole number from 0 to {MOST_LABELS - 1:,}", are_labels)
ANSWERS = Kind("strings", _are_texts, several=True)
IDENTIFIERS = Kind("an integer, or a string that is not empty", _are_identifiers)
NAMES = Kind("a string", _are_texts, nullable=True)  # such as the type of a question, where it is known
TEXTS = Kind("a string", _are_texts)
# A text's words are grounded by tags: 0 none, k box k - 1. The words stand between single blanks.
TAGS = Kind("numbers of boxes", are_labels, several=True)
TAGS_OF_TEXTS = Kind("lists of numbers of boxes", _are_tags, several=True)
BOXES = Kind("boxes [left, top, right, bottom] of positive size, in pixels of the picture", _are_boxes, several=True)
OUTLINES = Kind("JSON with a list of polygons [[x, y], ...] for each box", _are_outlines)
BOX_IDS = Kind("different integers, or strings that are not empty", _are_identifiers, several=True, distinct=True)
