"""What the columns of a labelled table are: as the user names them, or by usual names, or by what they hold."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from vlc.common.errors import UserError
from vlc.common.terminal import cell
from vlc.configuration.values import check_known
from vlc.data.images import SUFFIXES
from vlc.workflows.fit.rows import Table

# The roles of columns. A text is called by what it is; so is the answer or label that belongs to it.
TEXTS = ("text", "question", "statement", "caption", "phrase")
ANSWERS = ("answer", "label")
_USUAL = {
    "image": "image img imagepath imagefile imagefilename imgpath picture photo file filename filepath path",
    "image2": "image2 secondimage otherimage",
    "question": "question questions query",
    "statement": "statement hypothesis claim sentence",
    "caption": "caption captions description",
    "phrase": "phrase expression referringexpression refexp",
    "text": "text texts",
    "answer": "answer answers",
    "label": "label labels class classname category target truth goldlabel verdict",
    "box": "box bbox boundingbox targetbox",
    "split": "split subset partition",
    "id": "id identifier uid questionid sentenceid annotationid",
}
_PAIRS = (("image0", "image1"), ("image1", "image2"), ("leftimage", "rightimage"), ("imageleft", "imageright"))
# Four columns of a box, and what their numbers are (`FitSettings.boxes`).
_EDGES = {
    ("left", "top", "right", "bottom"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("x", "y", "w", "h"): "xywh",
    ("x", "y", "width", "height"): "xywh",
    ("left", "top", "width", "height"): "xywh",
}
_LOOKED_AT = 200  # cells of a column
_MOST_LABELS = 50
_SHOWN = 60  # letters of an example


@dataclass(frozen=True)
class Found:
    """The columns of a role, and why they are taken for it."""

    columns: tuple[str, ...]
    why: str


@dataclass
class Roles:
    """What the columns are.

    found: by role; a text and its answer stand under what they are called, such as question and label.
    boxes: what the numbers of a box are, where the names of its columns say so.
    unused: the other columns.
    """

    found: dict[str, Found] = field(default_factory=dict)
    boxes: str = ""
    unused: list[str] = field(default_factory=list)

    def of(self, names: Sequence[str]) -> str:
        """The one of the roles that the table has; empty where it has none."""
        return next((name for name in names if name in self.found), "")

    @property
    def text(self) -> str:
        return self.of(TEXTS)

    @property
    def answer(self) -> str:
        return self.of(ANSWERS)

    def cells(self, role: str, cells: Mapping[str, Any]) -> list[Any]:
        """The cells of a role in a row."""
        return [cells.get(column) for column in self.found[role].columns] if role in self.found else []


def understood(table: Table, given: Mapping[str, Sequence[str]], root: Path) -> Roles:
    """Find the roles of the columns.

    given: names of columns by role, as the user states them.
    root: the folder that paths of images start from.
    Raises UserError for unknown names, and where several columns may have one role.
    """
    check_known(given, [*_USUAL], "role in fit.columns")
    for role, names in given.items():
        check_known(names, table.columns, f"column in fit.columns.{role} (table={table.path})")
    roles = Roles({role: Found(tuple(names), f"fit.columns.{role}") for role, names in given.items()})
    _by_name(table, roles, root)
    _by_content(table, roles, root)
    taken = {column for one in roles.found.values() for column in one.columns}
    roles.unused = [column for column in table.columns if column not in taken]
    for several in (TEXTS, ANSWERS):
        if len(names := [name for name in several if name in roles.found]) > 1:
            both = " and ".join(f"{', '.join(roles.found[name].columns)} ({name})" for name in names)
            raise UserError(f"{table.path} has {both}, and one is wanted: {_cure(names, roles)}")
    return roles


def _cure(names: Sequence[str], roles: Roles) -> str:
    return " or ".join(f"fit.columns.{name}={roles.found[name].columns[0]}" for name in names) + " decides"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_name(table: Table, roles: Roles, root: Path) -> None:
    """Enter the columns with usual names, for roles that the user does not name."""
    given = set(roles.found)
    taken = {column for one in roles.found.values() for column in one.columns}
    free = {_plain(column): column for column in reversed(table.columns) if column not in taken}
    for first, second in _PAIRS:
        if {first, second} <= free.keys() and not {"image", "image2"} & given:
            roles.found |= {"image": _named(free.pop(first)), "image2": _named(free.pop(second))}
    if "box" not in given:
        for edges, kind in _EDGES.items():
            if set(edges) <= free.keys() and "box" not in roles.found:
                roles.found["box"] = Found(tuple(free.pop(edge) for edge in edges), "their names")
                roles.boxes = kind
    for role, usual in _USUAL.items():
        if role in roles.found or any(role in same and given & {*same} for same in (TEXTS, ANSWERS)):
            continue
        columns = [free[name] for name in usual.split() if name in free]
        if role == "image" and len(columns) > 1:  # a name of a file beside the image itself, for example
            columns = [column for column in columns if holds_images(table.values(column), root)] or columns
        if role == "caption":
            numbered = [column for name, column in free.items() if re.fullmatch(r"(caption|sentence|text)\d+", name)]
            columns = columns or sorted(numbered)
        elif len(columns) > 1:
            named = ", ".join(columns)
            raise UserError(f"{table.path}: {named} may each be the {role}: fit.columns.{role}={columns[0]} decides")
        if columns:
            roles.found[role] = Found(tuple(columns), "its name" if len(columns) == 1 else "their names")


def _named(column: str) -> Found:
    return Found((column,), "its name")


def _by_content(table: Table, roles: Roles, root: Path) -> None:
    """Enter columns by what they hold, where they have the only values that a role can have."""
    taken = {column for one in roles.found.values() for column in one.columns}
    free = {column: table.values(column)[:_LOOKED_AT] for column in table.columns if column not in taken}

    def enter(role: str, fits: Callable[[list[Any]], bool], why: str) -> None:
        columns = [column for column, values in free.items() if values and fits(values)]
        if len(columns) > 1:
            raise UserError(
                f"{table.path}: {', '.join(columns)} hold {why}, and each may be the {role}: fit.columns.{role}="
                f"{columns[0]} decides"
            )
        for column in columns:
            roles.found[role] = Found((column,), why)
            del free[column]

    if "image" not in roles.found:
        enter("image", lambda values: holds_images(values, root), "names of images that exist")
    for column in [column for column, values in free.items() if values and holds_images(values, root)]:
        del free[column]  # such as previews
    if "box" not in roles.found and not roles.answer and roles.text in ("", "text", "phrase"):
        enter("box", holds_boxes, "four numbers each")
    if not roles.text and "box" in roles.found:
        enter("phrase", holds_texts, "texts of several words")
    elif not roles.text:
        enter("text", holds_texts, "texts of several words")
    if not roles.answer and "box" not in roles.found and roles.text not in ("caption", "phrase"):
        known_text = roles.text in ("question", "statement")
        enter("answer" if roles.text == "question" else "label", _may_be_labels(known_text), "few different values")


def _may_be_labels(short_texts: bool) -> Callable[[list[Any]], bool]:
    """Return what tells whether values may be labels; short_texts: texts of one word or two are labels, too."""
    return lambda values: (
        holds_labels(values)
        or (short_texts and _are_texts(values) and len({str(value) for value in values}) < len(values))
    )


def holds_images(values: Collection[Any], root: Path) -> bool:
    """Whether at least half of the first values are paths of images that exist."""
    first = list(values)[:_LOOKED_AT]
    paths = [value for value in first if isinstance(value, str) and Path(value).suffix.lower() in SUFFIXES]
    return (
        bool(first)
        and 2 * len(paths) >= len(first)
        and 2 * sum((root / path).is_file() for path in paths) >= len(paths)
    )


def holds_boxes(values: Sequence[Any]) -> bool:
    return all(box_of(value) is not None for value in values)


def holds_texts(values: Sequence[Any]) -> bool:
    """Whether values are texts, or lists of texts, of two words and more on average, and many of them differ."""
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    words = sum(len(str(text).split()) for text in texts)
    return bool(texts) and _are_texts(texts) and words >= 2 * len(texts) and len(set(texts)) > min(10, len(texts) / 2)


def holds_labels(values: Sequence[Any]) -> bool:
    """Whether values are few and repeat."""
    if not all(isinstance(value, str | bool | int) for value in values):
        return False
    different = len({str(value) for value in values})
    return 1 < different <= min(_MOST_LABELS, len(values) / 2)


def _are_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)


def box_of(value: Any) -> tuple[float, ...] | None:
    """The four numbers of a cell, or None."""
    if isinstance(value, str):
        rest = _NUMBER.sub("", value)
        value = [float(number) for number in _NUMBER.findall(value)] if not set(rest) - set(" ,;[]()\t") else None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, list) and len(value) == 4 and all(_is_number(one) for one in value):
        return tuple(float(one) for one in value)
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_grid(table: Table, roles: Roles) -> Grid:
    """What was understood, as a table for the terminal."""
    grid = Grid("column", "is the", "because of", "example", box=None)
    for role, found in roles.found.items():
        for column in found.columns:
            example = next(iter(table.values(column)), "")
            grid.add_row(cell(column), role, found.why, cell(_shortened(example)))
    for column in roles.unused:
        grid.add_row(cell(column, "dim"), cell("(not used)", "dim"), "", cell(_shortened(_first(table, column)), "dim"))
    return grid


def _first(table: Table, column: str) -> Any:
    return next(iter(table.values(column)), "")


def _shortened(value: Any) -> str:
    return f"{str(value)[: _SHOWN - 3]}..." if len(str(value)) > _SHOWN else str(value)


def texts_of(cells: Sequence[Any]) -> Iterator[str]:
    """The texts of cells; each cell is a text or a list of texts, or holds nothing."""
    for value in cells:
        for text in value if isinstance(value, list) else [value]:
            if text is not None and str(text).strip():
                yield " ".join(str(text).split())
