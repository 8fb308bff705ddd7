"""NLVR2: sentences about pairs of images. https://github.com/lil-lab/nlvr (images on request)"""

from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.values import TRUTHS, truth
from write_arrow.machine.conversion import Conversion
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
    files = conversion.files("images/train", "dev", "test1")
    made = []
    for stem, annotations in _TABLES.items():
        path = f"nlvr2/data/{annotations}"
        pairs = conversion.groups()
        for entry in conversion.lines(path):
            identifier, sentence = conversion.typed(entry, path, identifier=str, sentence=str)
            label = _label(*conversion.pick(entry, path, "label"), conversion.root.where(path), identifier)
            pairs.add(identifier.rpartition("-")[0], [sentence, label, entry.get("directory"), identifier])
        plans = conversion.plans()
        for pair, sentences in pairs:
            split = pair.partition("-")[0]
            directory = sentences[0][2]
            if split == "train" and directory is None:
                raise UserError(f"{conversion.root.where(path)}: {pair} has no directory")
            folder = f"images/train/{directory}" if split == "train" else split
            names = [f"{folder}/{pair}-img{number}.png" for number in (0, 1)]
            images = [files.get(name) for name in names]
            if None in images:
                plans.reject(names[images.index(None)], "no such file")
                continue
            plans.append(
                images,
                questions=[sentence for sentence, *_ in sentences],
                answers=[label for _, label, *_ in sentences],
                identifier=pair,
                **({} if conversion.compat else {"identifiers": [identifier for *_, identifier in sentences]}),
            )
        conversion.notes.append(f"{stem}: {plans.num_planned:,} pairs, {pairs.num_values:,} sentences")
        made += conversion.table(stem, SCHEMA if conversion.compat else _OURS, plans)
    return made


def _label(label: Any, path: str, identifier: str) -> str:
    """The published spelling of a label. Raises UserError for one that no spelling is known of."""
    try:
        return ("False", "True")[truth(label)]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: {identifier} has label {label!r}, expected {TRUTHS.expected}") from error
