"""A data set of your own, with annotations: a table of paths, texts and values, in the columns that your file names.

--dataset FILE.py names the file with the row `DATASETS = {NAME: DatasetSpec(...)}`, which run.py reads too. It is executed.
--table FILE (.csv, .tsv, .jsonl, .json or .parquet) has a row for each text: the paths of its images below --root, the
text, the values of the fields, and in the column split the name of its split. Texts of the same image become one row.
A value that is a list, such as the boxes that a text means, is a list in JSON; in a CSV the cell holds it as JSON.

docs/your_own_task.md shows an example.
"""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from vlc.configuration.own_tasks import own_dataset
from vlc.data.kinds import BOXES, LABELS, NUMBERS, RELEVANCES, SCORES, TAGS, TAGS_OF_TEXTS, TEXTS, Kind
from vlc.data.spec import DatasetSpec
from write_arrow.machine import delimited
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Groups, Plans
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.writer import PlannedTable
from write_arrow.sources.captions import located, plain_path, table_rows


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="FILE.py", help="your file, or FILE.py:NAME of several")
    parser.add_argument("--table", required=True, metavar="FILE", help=".csv, .tsv, .jsonl, .json or .parquet file")
    parser.add_argument("--split-column", default="split", metavar="NAME", help="column of splits (default: split)")
    delimited.add_arguments(parser)


def tables(conversion: Conversion) -> list[PlannedTable]:
    """A table for each split: an image, or several, with all texts about it and their values."""
    dataset, spec = own_dataset(conversion.options.dataset)
    schema = _schema(dataset, spec)
    rejected = conversion.plans()
    made: list[PlannedTable] = []
    for split, groups in _groups(conversion, spec, rejected).items():
        plans = _plans(conversion, spec, groups)
        if not made:  # what is wrong with lines of the table stands beside the first file
            for where, reason in list(rejected.rejected()):
                plans.reject(where, reason)
        conversion.notes.append(f"{split}: {plans.num_planned:,} images, {groups.num_values:,} texts")
        (stem,) = spec.tables[split]
        made += conversion.table(stem, schema, plans)
    return made


def _schema(dataset: str, spec: DatasetSpec) -> pa.Schema:
    """The columns of the data set. Raises UserError for a row that this writer does not serve."""
    unserved = [c.name for c in spec.fields.values() if c.numbered or c.kind is TAGS_OF_TEXTS]
    if unserved or not spec.images or not all(len(s) == 1 and not s[0].endswith("*") for s in spec.tables.values()):
        lacking = f"not {unserved[0]}" if unserved else "images, and one file for each split"
        raise UserError(f"--dataset: the row {dataset} cannot be written from a table: it should have {lacking}")
    types = {c.name: _type(c.kind) for c in spec.fields.values()}
    values = {c.name: pa.list_(types[c.name]) if c.per_text else types[c.name] for c in spec.fields.values()}
    texts = {} if spec.labelled else {spec.text: pa.list_(pa.string())}
    return pa.schema({name: pa.binary() for name in spec.images} | texts | values)


_TYPES = {kind: pa.int64() for kind in (LABELS, NUMBERS, TAGS)} | {
    SCORES: pa.float64(),
    RELEVANCES: pa.float64(),
    BOXES: pa.list_(pa.float64()),
}


def _type(kind: Kind) -> pa.DataType:
    """The type of a value of a kind; classes without names are numbers."""
    of_one = _TYPES.get(kind, pa.int64() if isinstance(kind.classes, int) else pa.string())
    return pa.list_(of_one) if kind.several else of_one


def _groups(conversion: Conversion, spec: DatasetSpec, rejected: Plans) -> dict[str, Groups]:
    """The texts and their values of each split, by their images."""
    options, fields = conversion.options, list(spec.fields.values())
    texts = () if spec.labelled else (spec.text,)
    kinds = dict.fromkeys([options.split_column, *spec.images, *texts], TEXTS) | {c.name: c.kind for c in fields}
    groups = {split: conversion.groups() for split in spec.tables}
    cure = f"the row in {options.dataset} names the columns, and --split-column that of the splits"
    for where, *cells in table_rows(conversion, rejected, list(kinds), cure):
        row = {name: _value(cell, kinds[name], where, name) for name, cell in zip(kinds, cells, strict=True)}
        split, paths = row[options.split_column], [row[name] for name in spec.images]
        if split not in groups:
            expected = f"one of {', '.join(groups)}, which {options.dataset} has as tables"
            raise UserError(f"{where}: column {options.split_column} holds {split!r}, expected {expected}")
        if empty := next((name for name in (*spec.images, *texts) if row[name] is None), None):
            rejected.reject(where, f"column {empty} is empty")
            continue
        same = {column.name: row[column.name] for column in fields if not column.per_text}
        key = json.dumps([[plain_path(path) for path in paths], same])
        each = (*texts, *(column.name for column in fields if column.per_text))
        groups[split].add(key, {name: row[name] for name in each})
    return groups


def _plans(conversion: Conversion, spec: DatasetSpec, groups: Groups) -> Plans:
    plans = conversion.plans()
    for key, rows in groups:
        paths, same = json.loads(key)
        files, problems = zip(*(located(conversion.root, path) for path in paths), strict=True)
        if None in files:
            lacking = files.index(None)
            plans.reject(paths[lacking], problems[lacking])
        else:
            plans.append(files, **same, **_columns(rows))
    return plans


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _value(cell: Any, kind: Kind, where: str, column: str) -> Any:
    """The cell as a value of its kind; None where it is empty. Raises UserError for a text that is no number or list."""
    if cell is None or not str(cell).strip():
        return None
    if _type(kind) == pa.string():
        return str(cell)
    try:
        return json.loads(cell) if isinstance(cell, str) else cell
    except ValueError as error:
        raise UserError(f"{where}: column {column} holds {cell!r:.80}, expected {kind.expected}, as JSON") from error


SOURCES = {
    "table": RawSource(
        "a data set of your own with annotations: a table, as a file of yours describes it",
        "images named by --table FILE",
        tables,
        add_options,
        order=RowOrder.SHUFFLED_IF_ASKED,
    )
}
