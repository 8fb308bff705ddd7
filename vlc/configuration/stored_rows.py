"""Rows of tasks and data sets as plain data, as a checkpoint stores them, and back. Nothing in them is executed."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.data import kinds
from vlc.data.kinds import Kind
from vlc.data.spec import Column, DatasetSpec, ImageKey
from vlc.objectives.options import OPTIONS
from vlc.tasks import Task

_KINDS = {name: value for name, value in vars(kinds).items() if isinstance(value, Kind)}


def as_plain(value: Any) -> Any:
    """Return a row with dictionaries in place of dataclasses, lists in place of tuples and sets, and the names of kinds."""
    if isinstance(value, Kind):
        name = next((name for name, kind in _KINDS.items() if kind is value), None)
        return name or as_plain(value.classes)
    if is_dataclass(value):
        return {one.name: as_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [as_plain(item) for item in value] if isinstance(value, list | tuple) else value


def as_task(name: str, row: Mapping[str, Any], path: Path) -> Task:
    """Return the task of a plain row. Raises UserError where it needs an objective of a user's file."""
    own = {key: _tuples(value) for key, value in row.items() if key not in ("report", "file")}
    for kind in own["objectives"]:
        if kind not in OPTIONS:
            file = row["file"]
            raise UserError(
                f"{path} has learnt {name} with the objective {kind}, which is code of {file}: pass tasks=[{file}]"
            )
    return Task(**own)


def as_dataset(row: Mapping[str, Any], path: Path) -> DatasetSpec:
    """Return the data set of a plain row. Raises UserError where a column is of a kind of a user's file."""
    own = {key: _tuples(value) for key, value in row.items() if key != "fields"}
    columns = {name: _column(column, path) for name, column in row["fields"].items()}
    own |= {"image_key": ImageKey(**own["image_key"])} if own.get("image_key") else {}
    return DatasetSpec(**own | {"fields": columns, "unlabelled": frozenset(own["unlabelled"])})


def _column(row: Mapping[str, Any], path: Path) -> Column:
    kind = _KINDS[row["kind"]] if isinstance(row["kind"], str) else kinds.one_of(row["kind"])
    if not row["kind"]:
        raise UserError(
            f"{path}: the column {row['name']} is of a kind that a file of yours defines: name it in tasks=[...]"
        )
    fallback = _column(row["fallback"], path) if row["fallback"] else None
    return Column(**dict(row) | {"kind": kind, "fallback": fallback})


def _tuples(value: Any) -> Any:
    """Return a value with tuples in place of lists, at every depth."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
