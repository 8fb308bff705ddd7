"""The embedded emoji images with their nine groups as classes, divided by base (as the `emoji` captions are)."""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from write_arrow.machine.shards import FILE_FORMATS
from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources.emoji import SPLITS, on_white, open_sprite, packaged, png
from write_arrow.sources.imagenet import SCHEMA, add_format


def tables(arguments: Namespace) -> list[Table]:
    of_row = packaged()["split"].to_pylist()
    numbers = {split: [row for row, value in enumerate(of_row) if value == split] for split in SPLITS}
    form = FILE_FORMATS[arguments.format]
    return [
        Table(f"emoji_groups_{split}", SCHEMA, _rows(rows), len(rows), form=form) for split, rows in numbers.items()
    ]


def _rows(numbers: list[int]) -> Iterator[dict[str, Any]]:
    classes = sorted(set(packaged()["group"].to_pylist()))
    for row in packaged().select(["image", "group"]).take(numbers).to_pylist():
        image = png(on_white(open_sprite(row["image"])))
        yield {"image": image, "label": classes.index(row["group"]), "class_name": row["group"]}


SOURCES = {"emoji_groups": EmbeddedSource("the emoji with their nine groups as classes (embedded)", tables, add_format)}
