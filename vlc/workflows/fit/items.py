"""The examples of a labelled table: rows whose images exist and whose cells can be used, and what is wrong with others."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.workflows.fit.columns import Roles, box_of, texts_of
from vlc.workflows.fit.pictures import Picture
from vlc.workflows.fit.rows import Problem, Row, Table, is_empty

SPLITS = ("train", "val", "test")
_SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test", "eval": "test"}
_MOST_LEFT_OUT = 0.5  # share of the rows


@dataclass(frozen=True)
class Item:
    """An example.

    where: its place in the table.
    images: the paths of its images, one or two.
    text: the question, statement, caption or phrase; empty where the task has none.
    answers: the answers or the label; of questions there may be several.
    box: left, top, right and bottom of what a phrase means, in pixels of the picture.
    split: train, val or test; empty: not known yet.
    identifier: which no other example has.
    """

    where: str
    images: tuple[str, ...]
    text: str = ""
    answers: tuple[str, ...] = ()
    box: tuple[float, ...] | None = None
    split: str = ""
    identifier: str = ""


def items_of(table: Table, roles: Roles, wanted: Iterable[str], root: Path, several: Iterable[str]) -> list[Item]:
    """Return the examples of all rows that can be used; the others are entered as problems of the table.

    wanted: the roles that each row needs.
    several: the roles of which a row may have more than one value.
    """
    items: list[Item] = []
    for row in table.rows:
        made = list(_of_row(row, roles, [*wanted], root, {*several}))
        table.problems += [one for one in made if isinstance(one, Problem)]
        items += [one for one in made if isinstance(one, Item)]
    identifiers = [item.identifier for item in items]
    if "id" not in roles.found or len(set(identifiers)) < len(items):
        items = [replace(item, identifier=str(number)) for number, item in enumerate(items)]
    refuse_many_problems(table, len(items))
    return items


def _of_row(row: Row, roles: Roles, wanted: list[str], root: Path, several: set[str]) -> Iterator[Item | Problem]:
    """Yield the examples of a row, or the first thing that is wrong with it."""
    cells = {role: [cell for cell in roles.cells(role, row.cells) if not is_empty(cell)] for role in roles.found}
    for role in wanted:
        if not cells[role]:
            yield Problem(row.where, f"column {', '.join(roles.found[role].columns)} ({role}) is empty")
            return
    images = [_path(cells[role][0], root) for role in ("image", "image2") if role in wanted]
    if problem := next((image for image in images if isinstance(image, Problem)), None):
        yield problem._replace(where=row.where)
        return
    values = {role: list(texts_of(cells[role])) for role in wanted if role not in ("image", "image2", "box")}
    for role, found in values.items():
        if not found or (len(found) > 1 and role not in several):
            yield Problem(row.where, f"the {role} is {cells[role]!r:.80}, and one text is wanted")
            return
    box = box_of(cells["box"] if len(cells["box"]) == 4 else cells["box"][0]) if "box" in wanted else None
    if "box" in wanted and box is None:
        yield Problem(row.where, f"the box is {cells['box']!r:.80}, and four numbers are wanted")
        return
    split = _split(str(next(iter(cells.get("split", ())), "")), row)
    if isinstance(split, Problem):
        yield split
        return
    known = Item(row.where, tuple(map(str, images)), "", tuple(values.get(roles.answer, ())), box, split)
    identifier = str(next(iter(cells.get("id", ())), ""))
    for number, text in enumerate(values.get(roles.text, [""])):
        yield replace(known, text=text, identifier=identifier if not number else f"{identifier}_{number}")


def _path(cell: Any, root: Path) -> str | Problem:
    if not isinstance(cell, str):
        return Problem("", f"the image is a {type(cell).__name__}, and a path is wanted")
    if "://" in cell:
        return Problem("", f"{cell:.80} is an address: fetch the image, and name its file")
    path = (root / cell).absolute()
    return str(path) if path.is_file() else Problem("", f"{cell:.80} is no file below {root}")


def _split(value: str, row: Row) -> str | Problem:
    name = _SPELLINGS.get(value.strip().lower(), value.strip().lower())
    if name in ("", *SPLITS):
        return name
    return Problem(row.where, f"the split is {value!r:.40}, and {', '.join(SPLITS)} are known")


def refuse_many_problems(table: Table, num_items: int) -> None:
    """Raise UserError where more than half of the rows cannot be used."""
    if len(table.problems) <= _MOST_LEFT_OUT * (len(table.problems) + num_items):
        return
    first = [": ".join(problem) for problem in table.problems[:3]]
    cure = "fit.root=FOLDER names the folder of the images, and fit.columns.ROLE=COLUMN what a column is"
    raise UserError(
        f"{len(table.problems):,} of {len(table.problems) + num_items:,} rows of {table.path} cannot be used: "
        f"{'; '.join(first)}; ... ({cure})"
    )


def with_boxes(items: list[Item], pictures: Mapping[str, Picture], form: str, problems: list[Problem]) -> list[Item]:
    """Return the examples with boxes as left, top, right and bottom in pixels; what lies outside is a problem.

    form: xyxy or xywh; empty: the boxes decide. Numbers up to 1 are shares of width and height.
    Raises UserError where they do not decide.
    """
    shares = all(number <= 1 for item in items for number in item.box or ())
    scaled = [replace(item, box=_scaled(item, pictures) if shares else item.box) for item in items]
    form = form or _form(scaled, pictures)
    made = []
    for item in scaled:
        left, top, third, fourth = item.box or (0.0,) * 4
        box = (left, top, third, fourth) if form == "xyxy" else (left, top, left + third, top + fourth)
        picture = pictures[item.images[0]]
        inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], picture.width), min(box[3], picture.height))
        if inside[0] < inside[2] and inside[1] < inside[3] and _mostly(inside, box):
            made.append(replace(item, box=inside))
        else:
            size = f"a picture of {picture.width}x{picture.height} pixels"
            problems.append(Problem(item.where, f"the box {[*map(float, box)]} does not lie in {size}"))
    return made


def _mostly(inside: tuple[float, ...], box: tuple[float, ...]) -> bool:
    """Whether a box keeps most of its area inside of the picture: annotators draw beyond the edge, but not far."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return 2 * (inside[2] - inside[0]) * (inside[3] - inside[1]) > area


def _scaled(item: Item, pictures: Mapping[str, Picture]) -> tuple[float, ...]:
    picture = pictures[item.images[0]]
    return tuple(n * side for n, side in zip(item.box or (), (picture.width, picture.height) * 2, strict=True))


def _form(items: list[Item], pictures: Mapping[str, Picture]) -> str:
    """The form that all but a few boxes can have."""
    can = Counter[str]()
    for item in items:
        left, top, third, fourth = item.box or (0.0,) * 4
        picture = pictures[item.images[0]]
        can["xyxy"] += left < third <= picture.width + 1 and top < fourth <= picture.height + 1
        can["xywh"] += left + third <= picture.width + 1 and top + fourth <= picture.height + 1
    likely = [form for form, count in can.items() if count > 0.98 * len(items)]
    if len(likely) != 1:
        raise UserError(
            f"The boxes may be {' or '.join(likely) or 'neither xyxy nor xywh'} (left, top, and right, bottom or width, "
            f"height; as the first is {[*(items[0].box or ())]}): fit.boxes=xyxy or fit.boxes=xywh decides"
        )
    return likely[0]
