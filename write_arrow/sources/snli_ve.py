"""SNLI-VE: does an image entail a sentence? https://github.com/necla-ml/SNLI-VE (images of Flickr30k)

The premise is the image; the caption it was made from is kept as `premises`. Sentences without a gold label are left out
and listed. A sentence that stands twice in a file is written twice.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Plans
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.writer import PlannedTable

LABELS = {"contradiction": 0, "neutral": 1, "entailment": 2}
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "sentences": pa.list_(pa.string()),
        "premises": pa.list_(pa.string()),
        "labels": pa.list_(pa.int64()),
        "pair_id": pa.list_(pa.string()),
        "image_id": pa.string(),
        "split": pa.string(),
    }
)
_NO_LABEL = "-"
_IMAGE_KEYS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")  # spelled differently by release; some rows have none
_FOLDER = "flickr30k-images"


def _values(split: str, image: str) -> dict[str, str]:
    return {"image_id": image, "split": split}


def tables(conversion: Conversion) -> list[PlannedTable]:
    """snli_{train,dev,test}: an image with all its sentences and their labels."""
    files = conversion.files(_FOLDER)
    made = []
    for split in ("train", "dev", "test"):
        plans = conversion.plans()
        sentences = conversion.groups(_sentences(f"snli_ve_{split}.jsonl", plans, conversion))
        num_unlabelled = plans.num_rejected
        conversion.grouped_rows(
            sentences,
            value_columns(SCHEMA),
            lambda image, _: files.lookup(_file(image)),
            partial(_values, split),
            plans=plans,
        )
        counts = f"{plans.num_planned:,} images, {sentences.num_values:,} sentences, {num_unlabelled:,} without label"
        conversion.notes.append(f"snli_{split}: {counts}")
        made += conversion.table(f"snli_{split}", SCHEMA, plans)
    return made


def _sentences(path: str, plans: Plans, conversion: Conversion) -> Iterator[tuple[str, dict]]:
    """Each labelled sentence with the name of its image; the plans list the others."""
    for entry in conversion.lines(path):
        label, premise, sentence, pair = conversion.typed(
            entry, path, gold_label=str, sentence1=str, sentence2=str, pairID=str
        )
        image = _image(entry, path, conversion)
        if label == _NO_LABEL:
            plans.reject(_file(image), f"the sentence {pair} has no gold label")
        elif label in LABELS:
            yield image, {"sentences": sentence, "premises": premise, "labels": LABELS[label], "pair_id": pair}
        else:
            raise UserError(f"{conversion.root.where(path)}: {pair} has label {label!r}, not one of {list(LABELS)}")


def _image(entry: Any, path: str, conversion: Conversion) -> str:
    """The name of an entry's image, without suffix."""
    for key in _IMAGE_KEYS:
        if entry.get(key):
            return str(entry[key]).removesuffix(".jpg")
    return conversion.typed(entry, path, captionID=str)[0].partition("#")[0].removesuffix(".jpg")


def _file(image: str) -> str:
    return f"{_FOLDER}/{image}.jpg"


SOURCES = {
    "snli_ve": RawSource(
        "SNLI-VE",
        "snli_ve_{train,dev,test}.jsonl, flickr30k-images/*.jpg (flickr30k-images.tar of Flickr30k)",
        tables,
        order=RowOrder.SHUFFLED,
    )
}
