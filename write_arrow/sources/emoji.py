"""The embedded emoji images as caption tables, in the held-out and in the compositional split.

Training rows carry the short name and, as a second text, the keywords; the other rows the name alone, so that each of
their images has one text in each language.
"""

import io
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa
from PIL import Image

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table

LANGUAGES = ("en", "de", "fr", "cs", "es", "ja", "zh", "ar", "hi", "ru")
SPLITS = ("train", "val", "test")
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "caption": pa.list_(pa.string()),
        "lang": pa.list_(pa.string()),
        "image_id": pa.string(),
        "emoji": pa.string(),
        "group": pa.string(),
        "duplicate_of": pa.string(),
        "split": pa.string(),
    }
)


@cache
def packaged() -> pa.Table:
    """The packaged table: 3,781 images with names and keywords in ten languages."""
    return pa.ipc.open_file(str(files("vlc") / "data/assets/emoji/emoji.arrow")).read_all()


def open_sprite(data: bytes) -> Image.Image:
    """A packaged image, RGBA 64x64."""
    return Image.open(io.BytesIO(data)).convert("RGBA")


def png(image: Image.Image) -> bytes:
    """An image as PNG; the lowest compression level is several times faster and hardly larger."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def on_white(sprite: Image.Image) -> Image.Image:
    background = Image.new("RGBA", sprite.size, "white")
    return Image.alpha_composite(background, sprite).convert("RGB")


def clean(text: str) -> str:
    """Text with plain spaces: French and Czech names have no-break spaces in several widths."""
    return " ".join(text.split())


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--languages", nargs="+", choices=LANGUAGES, default=["en"], help="languages of the captions (default: en)"
    )


def tables(arguments: Namespace) -> list[Table]:
    made = []
    for prefix, column in (("emoji", "split"), ("emoji_compositional", "compositional_split")):
        of_row = packaged()[column].to_pylist()
        for split in SPLITS:
            numbers = [number for number, value in enumerate(of_row) if value == split]
            made.append(Table(f"{prefix}_{split}", SCHEMA, _rows(numbers, split, arguments.languages), len(numbers)))
    return made


def _rows(numbers: list[int], split: str, languages: list[str]) -> Iterator[dict[str, Any]]:
    for row in packaged().take(numbers).to_pylist():
        texts = [
            (clean(text), language)
            for language in languages
            for text in [*row[f"caption_{language}"], *keywords(row, language, split)]
        ]
        yield {
            "image": png(on_white(open_sprite(row["image"]))),
            "caption": [text for text, _ in texts],
            "lang": [language for _, language in texts],
            "image_id": row["image_id"],
            "emoji": row["emoji"],
            "group": row["group"],
            "duplicate_of": row["duplicate_of"],
            "split": split,
        }


def keywords(row: dict[str, Any], language: str, split: str) -> list[str]:
    """The keywords of a row as one text; none outside of training."""
    words = row[f"keywords_{language}"]
    return [", ".join(words)] if split == "train" and words else []


SOURCES = {
    "emoji": EmbeddedSource("3,781 emoji with names and keywords in ten languages (embedded)", tables, add_options)
}
