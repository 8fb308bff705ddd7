"""A data set of your own, with annotations: a table of paths, texts and values, in the columns that your file names.

--dataset FILE.py names the file with the row `DATASETS = {NAME: DatasetSpec(...)}`, which run.py reads too. It is executed.
--table FILE (.csv, .tsv, .jsonl, .json or .parquet) has a row for each text: the paths of its images below --root, the
text, the values of the fields, and in the column split the name of its split. Texts of the same image become one row.

docs/your_own_task.md shows an example.
"""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from vlc.configuration.own_tasks import own_dataset
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
    several = [column.name for column in spec.fields.values() if column.kind.several or column.numbered]
    if several or not spec.images or not all(len(s) == 1 and not s[0].endswith("*") for s in spec.tables.values()):
        lacking = f"not {several[0]}, which has lists of values" if several else "images, and one file for each split"
        raise UserError(f"--dataset: the row {dataset} cannot be written from a table: it should have {lacking}")
    texts = pa.list_(pa.string())
    values = {c.name: texts if c.per_text else pa.string() for c in spec.fields.values()}
    return pa.schema({name: pa.binary() for name in spec.images} | {spec.text: texts} | values)


def _groups(conversion: Conversion, spec: DatasetSpec, rejected: Plans) -> dict[str, Groups]:
    """The texts and their values of each split, by their images."""
    options, fields = conversion.options, list(spec.fields.values())
    columns = list(dict.fromkeys([options.split_column, *spec.images, spec.text, *(c.name for c in fields)]))
    groups = {split: conversion.groups() for split in spec.tables}
    cure = f"the row in {options.dataset} names the columns, and --split-column that of the splits"
    for where, *cells in table_rows(conversion, rejected, columns, cure):
        row = {name: _text(cell) for name, cell in zip(columns, cells, strict=True)}
        split, paths = row[options.split_column], [row[name] for name in spec.images]
        if split not in groups:
            expected = f"one of {', '.join(groups)}, which {options.dataset} has as tables"
            raise UserError(f"{where}: column {options.split_column} holds {split!r}, expected {expected}")
        if not all(paths) or row[spec.text] is None:
            empty = next(name for name in (*spec.images, spec.text) if row[name] is None)
            rejected.reject(where, f"column {empty} is empty")
            continue
        same = {column.name: row[column.name] for column in fields if not column.per_text}
        key = json.dumps([[plain_path(path) for path in paths], same])
        each = (spec.text, *(column.name for column in fields if column.per_text))
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


def _text(cell: Any) -> str | None:
    """The cell as a text; None where it is empty."""
    return None if cell is None or not str(cell).strip() else str(cell)


SOURCES = {
    "table": RawSource(
        "a data set of your own with annotations: a table, as a file of yours describes it",
        "images named by --table FILE",
        tables,
        add_options,
        order=RowOrder.SHUFFLED_IF_ASKED,
    )
}
