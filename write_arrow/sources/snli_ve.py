"""SNLI-VE: does an image entail a sentence? https://github.com/necla-ml/SNLI-VE (images of Flickr30k)

The premise is the image; the caption it was made from is kept as `premises`. Rows without a gold label are left out.
"""

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.conversion import Conversion
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
_IMAGE_KEYS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")  # spelled differently by release
_FOLDER = "flickr30k-images"


def tables(conversion: Conversion) -> list[PlannedTable]:
    """snli_{train,dev,test}: an image with all its sentences and their labels."""
    files = conversion.files(_FOLDER)
    made = []
    for split in ("train", "dev", "test"):
        path = f"snli_ve_{split}.jsonl"
        images, unlabelled = conversion.groups(), 0
        for entry in conversion.lines(path):
            label, premise, sentence, pair = conversion.typed(
                entry, path, gold_label=str, sentence1=str, sentence2=str, pairID=str
            )
            if label == _NO_LABEL:
                unlabelled += 1
                continue
            if not isinstance(label, str) or label not in LABELS:
                raise UserError(f"{conversion.root.where(path)}: {pair} has label {label!r}, not one of {list(LABELS)}")
            images.add(_image(entry, path, conversion), [sentence, premise, LABELS[label], pair])
        plans = conversion.plans()
        for image, sentences in images:
            file = files.get(f"{_FOLDER}/{image}.jpg")
            if file is None:
                plans.reject(f"{_FOLDER}/{image}.jpg", "no such file")
                continue
            columns = zip(
                ("sentences", "premises", "labels", "pair_id"), map(list, zip(*sentences, strict=True)), strict=True
            )
            plans.append([file], **dict(columns), image_id=image, split=split)
        conversion.notes.append(
            f"snli_{split}: {plans.num_planned:,} images, {images.num_values:,} sentences, {unlabelled:,} without label"
        )
        made += conversion.table(f"snli_{split}", SCHEMA, plans)
    return made


def _image(entry, path: str, conversion: Conversion) -> str:
    for key in _IMAGE_KEYS:
        if key in entry:
            return str(entry[key]).removesuffix(".jpg")
    return conversion.typed(entry, path, captionID=str)[0].partition("#")[0].removesuffix(".jpg")
