"""FOIL-COCO: does a caption fit its image, or is one word of it wrong? https://foilunitn.github.io (images of COCO 2014)

Shekhar et al. 2017, "FOIL it! Find One mismatch between Image and Language caption". An original caption and its foils have
the same `id`: `caption_ids` adds the number of the annotation in its file. The data set has no validation split, so a part
of the training images becomes one.
"""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator

import pyarrow as pa

from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Files, Plans
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.writer import PlannedTable

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "captions": pa.list_(pa.string()),
        "labels": pa.list_(pa.int64()),  # 0 correct, 1 foil
        "caption_ids": pa.list_(pa.string()),
        "foil_words": pa.list_(pa.string()),  # the wrong word; ORIG in correct captions
        "target_words": pa.list_(pa.string()),  # the word that stood in its place; ORIG in correct captions
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)
VAL_SHARE = 0.05


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--val-share",
        type=_share,
        default=VAL_SHARE,
        metavar="SHARE",
        help="share of the training images that foil_val holds instead of foil_train (default: %(default)s)",
    )


def _share(word: str) -> float:
    share = float(word)
    if not 0 < share < 1:
        raise ArgumentTypeError("should be above 0 and below 1")
    return share


def tables(conversion: Conversion) -> list[PlannedTable]:
    """foil_{train,val,test}: an image with all its captions, the correct ones and the foils."""
    files = conversion.files("train2014", "val2014")
    train, val = _divide(_plans("train", "train2014", files, conversion), conversion)
    made = {"train": train, "val": val, "test": _plans("test", "val2014", files, conversion)}
    return [table for split, plans in made.items() for table in conversion.table(f"foil_{split}", SCHEMA, plans)]


def _plans(split: str, folder: str, files: Files, conversion: Conversion) -> Plans:
    captions = conversion.groups(_captions(f"foilv1.0_{split}_2017.json", conversion))
    plans = conversion.grouped_rows(
        captions,
        value_columns(SCHEMA),
        lambda number, _: files.lookup(f"{folder}/COCO_{folder}_{number:012d}.jpg"),
        lambda number: {"image_id": number, "split": split},
    )
    conversion.found(f"foil {split}", files, plans, captions.num_values)
    return plans


def _captions(path: str, conversion: Conversion) -> Iterator[tuple[int, dict]]:
    """Each caption with the number of its image."""
    for place, entry in enumerate(conversion.entries(path, "annotations")):
        image, number, caption, is_foil, foil_word, target_word = conversion.typed(
            entry, path, image_id=int, id=int, caption=str, foil=bool, foil_word=str, target_word=str
        )
        words = {"foil_words": foil_word, "target_words": target_word}
        yield image, {"captions": caption, "labels": int(is_foil), "caption_ids": f"{number}-{place}"} | words


def _divide(plans: Plans, conversion: Conversion) -> tuple[Plans, Plans]:
    """The training images in an order that the seed fixes, without the first of them, which become validation."""
    train, val = conversion.plans(), conversion.plans()
    num_val = max(1, round(conversion.options.val_share * len(plans)))
    plans.shuffle(conversion.options.seed)
    for position, plan in enumerate(plans.read(0, len(plans))):
        if position < num_val:
            val.append(plan.images, **plan.values | {"split": "val"})
        else:
            train.append(plan.images, **plan.values)
    for path, reason in plans.rejected():
        train.reject(path, reason)
    return train, val


SOURCES = {
    "foil": RawSource(
        "FOIL-COCO",
        "foilv1.0_{train,test}_2017.json, train2014/*.jpg, val2014/*.jpg",
        tables,
        add_options,
        order=RowOrder.SHUFFLED,
    )
}
