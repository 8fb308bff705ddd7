"""NLVR2: sentences about pairs of images. https://github.com/lil-lab/nlvr (images on request)"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.kinds import TRUTHS, truth
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Files
from write_arrow.machine.source import RawSource
from write_arrow.machine.storage import StoredFile
from write_arrow.machine.writer import PlannedTable

SCHEMA = pa.schema(
    {
        "image_0": pa.binary(),
        "image_1": pa.binary(),
        "questions": pa.list_(pa.string()),
        "answers": pa.list_(pa.string()),
        "identifier": pa.string(),
    }
)
_OURS = SCHEMA.append(pa.field("identifiers", pa.list_(pa.string())))  # the whole name of each sentence, for the scorer
_TABLES = {
    "nlvr2_train": "train.json",
    "nlvr2_dev": "dev.json",
    "nlvr2_test1": "test1.json",
    "nlvr2_balanced_dev": "balanced/balanced_dev.json",
    "nlvr2_balanced_test1": "balanced/balanced_test1.json",
    "nlvr2_unbalanced_dev": "unbalanced/unbalanced_dev.json",
    "nlvr2_unbalanced_test1": "unbalanced/unbalanced_test1.json",
}


def tables(conversion: Conversion) -> list[PlannedTable]:
    """nlvr2_*: a pair of images (left first) with all its sentences and their labels, "True" or "False"."""
    files, schema = conversion.files("images/train", "dev", "test1"), SCHEMA if conversion.compat else _OURS
    made = []
    for stem, annotations in _TABLES.items():
        path = f"nlvr2/data/{annotations}"
        pairs = conversion.groups(_sentences(path, conversion))
        images = partial(_images, files, conversion.root.where(path))
        plans = conversion.grouped_rows(pairs, value_columns(schema), images, lambda pair: {"identifier": pair})
        conversion.notes.append(f"{stem}: {plans.num_planned:,} pairs, {pairs.num_values:,} sentences")
        made += conversion.table(stem, schema, plans)
    return made


def _sentences(path: str, conversion: Conversion) -> Iterator[tuple[str, dict]]:
    """Each sentence with the pair of images that it is about."""
    for entry in conversion.lines(path):
        identifier, sentence = conversion.typed(entry, path, identifier=str, sentence=str)
        (spelling,) = conversion.pick(entry, path, "label")
        label = _label(spelling, conversion.root.where(path), identifier)
        columns = {"questions": sentence, "answers": label, "identifiers": identifier}
        yield identifier.rpartition("-")[0], columns | {"directory": entry.get("directory")}


def _images(files: Files, path: str, pair: str, sentences: list[dict]) -> dict[str, StoredFile | None]:
    """The files of a pair. Raises UserError where a training pair does not name its folder."""
    folder, directory = pair.partition("-")[0], sentences[0]["directory"]
    if folder == "train":
        if directory is None:
            raise UserError(f"{path}: {pair} has no directory")
        folder = f"images/train/{directory}"
    return files.lookup(*(f"{folder}/{pair}-img{number}.png" for number in (0, 1)))


def _label(label: Any, path: str, identifier: str) -> str:
    """The published spelling of a label. Raises UserError for an unknown spelling."""
    try:
        return ("False", "True")[truth(label)]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: {identifier} has label {label!r}, expected {TRUTHS.expected}") from error


SOURCES = {
    "nlvr2": RawSource(
        "NLVR2",
        "nlvr2/data/{train,dev,test1}.json, nlvr2/data/{balanced,unbalanced}/*.json, images/train/*/*.png, dev/*.png, "
        "test1/*.png",
        tables,
        published=True,
    )
}
