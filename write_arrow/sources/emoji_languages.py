"""The embedded emoji with their names in sixteen languages, in the form of Multi30k.

Every row has the name of an emoji in each language, as sentence 0. Training rows also have the keywords in ten of them, as
sentence 1. All texts are of the kind "caption". The emoji are divided as in `emoji_compositional`.
"""

from argparse import Namespace
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources import multi30k
from write_arrow.sources.emoji import LANGUAGES, SPLITS, clean, keywords, on_white, open_sprite, packaged, png


def further_names() -> pa.Table:
    """The names in six languages that the packaged table lacks, in its order; `scripts/make_emoji_names.py` made them."""
    return pa.ipc.open_file(str(files("vlc") / "data/assets/emoji/names.arrow")).read_all()


def tables(arguments: Namespace) -> list[Table]:
    of_row = packaged()["compositional_split"].to_pylist()
    numbers = {split: [number for number, value in enumerate(of_row) if value == split] for split in SPLITS}
    return [
        Table(f"emoji_languages_{split}", multi30k.SCHEMA, _rows(rows, split), len(rows))
        for split, rows in numbers.items()
    ]


def _rows(numbers: list[int], split: str) -> Iterator[dict[str, Any]]:
    names = further_names().drop_columns("image_id").take(numbers).to_pylist()
    for row, further in zip(packaged().take(numbers).to_pylist(), names, strict=True):
        texts = [
            (clean(text), language, number)
            for language in LANGUAGES
            for number, text in enumerate([*row[f"caption_{language}"], *keywords(row, language, split)])
        ]
        texts += [(clean(name), language, 0) for language, name in further.items() if name]
        yield {
            "image": png(on_white(open_sprite(row["image"]))),
            "caption": [text for text, _, _ in texts],
            "lang": [language for _, language, _ in texts],
            "kind": ["caption" for _ in texts],
            "sent_idx": [number for _, _, number in texts],
            "image_id": row["image_id"],
            "split": split,
        }


SOURCES = {"emoji_languages": EmbeddedSource("the emoji with their names in sixteen languages (embedded)", tables)}
