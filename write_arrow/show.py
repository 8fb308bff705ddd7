"""Prints rows of an Arrow file, and makes a picture of their images (a contact sheet)."""

import argparse
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console

from vlc.common.errors import UserError
from vlc.common.terminal import cell
from vlc.data.images import open_image, opened, to_pil
from vlc.data.ipc import open_batches
from write_arrow.machine.storage import Folder
from write_arrow.machine.workers import problem_of

TILE = 200  # pixels
_LINE, _LINES = 14, 3  # pixels of a line of text, lines below an image
_LETTERS = 33  # in a line
_TEXTS = ("caption", "questions", "sentences", "text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="arrow file, by path or URL")
    parser.add_argument("--rows", type=int, default=12, metavar="N", help="how many (default: 12)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first (default: 0)")
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help="the picture (default: STEM.png in the current folder)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print rows and write the picture. Raises UserError if the file cannot be read."""
    stem = os.path.basename(arguments.file).removesuffix(".arrow")
    console = Console(highlight=False, soft_wrap=True)
    num_rows, schema, rows = read(arguments.file, arguments.first, arguments.rows)
    console.print(cell(f"{arguments.file}: {num_rows:,} rows"))
    for field in schema:
        console.print(cell(f"  {field.name}: {field.type}"))
    for number, row in enumerate(rows, start=arguments.first):
        console.print(f"[bold]row {number}[/]")
        for name, value in row.items():
            console.print(cell(f"  {name}: {_shown(value)}"))
    tiles = [
        (value, f"{number}: {_first_text(row)}")
        for number, row in enumerate(rows, start=arguments.first)
        for value in row.values()
        if isinstance(value, bytes)
    ]
    if tiles:
        path = arguments.sheet or Path(f"{stem}.png")
        contact_sheet(tiles).save(path)
        console.print(cell(f"picture of these images: {path}"))


def read(path: str, first: int, num_rows: int) -> tuple[int, pa.Schema, list[dict[str, Any]]]:
    """Number of rows in the file, its schema, and the rows [first, first + num_rows). Raises UserError."""
    folder, name = os.path.split(path)
    with Folder(folder or ".").open_mapped(name) as file:
        try:
            schema, num_batches, get_batch = open_batches(file)
            total = sum(get_batch(number).num_rows for number in range(num_batches))
            rows = list(itertools.islice(_rows(map(get_batch, range(num_batches)), first), num_rows))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{path} is damaged or not an Arrow IPC file ({error})") from error
    return total, schema, rows


def _rows(batches: Iterable[pa.RecordBatch], first: int) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for row in range(min(first, batch.num_rows), batch.num_rows):
            yield batch.slice(row, 1).to_pylist()[0]
        first = max(first - batch.num_rows, 0)


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        problem = problem_of(value)
        if problem:
            return f"{len(value):,} bytes, {problem}"
        with opened(io.BytesIO(value)) as image:
            return f"{len(value):,} bytes, {image.format} {image.width}x{image.height} {image.mode}"
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _first_text(row: dict[str, Any]) -> str:
    value = next((row[name] for name in _TEXTS if row.get(name)), "")
    return value[0] if isinstance(value, list) else value


def contact_sheet(tiles: list[tuple[bytes, str]]) -> Image.Image:
    """Encoded images in a grid, each with the beginning of its text; what cannot be decoded is a grey tile that says so."""
    across = min(len(tiles), max(1, math.ceil(math.sqrt(len(tiles)) * 1.2)))
    height = TILE + _LINES * _LINE + 8
    down = math.ceil(len(tiles) / across)
    sheet = Image.new("RGB", (across * (TILE + 8), down * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (data, text) in enumerate(tiles):
        left, top = number % across * (TILE + 8) + 4, number // across * height + 4
        sheet.paste(_tile(data), (left, top))
        for line in range(_LINES):
            part = " ".join(text.split())[line * _LETTERS : (line + 1) * _LETTERS]
            draw.text((left, top + TILE + 2 + line * _LINE), part, "black", font)
    return sheet


def _tile(data: bytes) -> Image.Image:
    problem = problem_of(data)
    if problem:
        tile = Image.new("RGB", (TILE, TILE), "lightgrey")
        ImageDraw.Draw(tile).text((8, 8), "cannot be decoded", "red")
        return tile
    return ImageOps.pad(to_pil(open_image(pa.py_buffer(data))), (TILE, TILE), color="whitesmoke")
