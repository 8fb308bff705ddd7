"""Captions of your own: from a table of paths, from a folder of images with texts beside them, or from WebDataset shards.

With --table FILE (.csv, .tsv, .jsonl, .json or .parquet, below --root or anywhere) each row names an image, below --root or
anywhere, and its captions; rows of the same image are put together. Without it, --root either holds WebDataset shards
(.tar: KEY.jpg with KEY.txt or KEY.json) or images with their captions in a text file of the same name (a line each).
"""

import csv
import io
import itertools
import json
import os
import tarfile
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from vlc.errors import UserError
from write_arrow.conversion import CAPTIONS, Conversion
from write_arrow.json_stream import lines
from write_arrow.plans import Files, Plans
from write_arrow.storage import StoredFile
from write_arrow.writer import PlannedTable

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_NO_CAPTION = "no caption"
_READ_TOGETHER = 512  # text files
_CSV_BLOCK = 4 * 2**20  # bytes; no row may be longer


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--table", metavar="FILE", help=".csv, .tsv, .jsonl, .json or .parquet file of paths and captions"
    )
    parser.add_argument("--image-column", default="image", metavar="NAME", help="column of paths (default: image)")
    parser.add_argument(
        "--caption-column",
        nargs="+",
        default=["caption"],
        metavar="NAME",
        help="columns of captions, or keys in the shards' JSON; a cell may be a list (default: caption)",
    )
    parser.add_argument("--no-header", action="store_true", help="the CSV has no header: its columns are f0, f1, ...")
    parser.add_argument("--no-quotes", action="store_true", help='a " in the CSV is a letter, not a quote')
    parser.add_argument("--stem", default="captions", help="name of the files, before _0.arrow (default: captions)")
    parser.add_argument("--split", default="train", help="value of the column split (default: train)")


def tables(conversion: Conversion) -> list[PlannedTable]:
    """STEM_0, STEM_1, ...: an image with its captions."""
    if conversion.options.table:
        plans = _from_table(conversion)
    else:
        files = Files(conversion.scratch, conversion.root.walk(""))
        shards = [file for file in files if file.path.endswith(".tar")]
        plans = _from_shards(shards, conversion) if shards else _from_folder(files, conversion)
    return conversion.table(f"{conversion.options.stem}_*", CAPTIONS, plans)


def _append(plans: Plans, file: StoredFile, captions: Iterable[Any], image_id: str, split: str) -> None:
    texts = [text for caption in captions for text in _texts(caption, image_id)]
    if texts:
        plans.append([file], caption=texts, image_id=image_id, split=split)
    else:
        plans.reject(image_id, _NO_CAPTION)


def _texts(cell: Any, image_id: str) -> Iterator[str]:
    """The captions of a cell: a string, a list of them, or nothing."""
    if isinstance(cell, list):
        for item in cell:
            yield from _texts(item, image_id)
    elif isinstance(cell, str):
        if cell.strip():
            yield cell
    elif cell is not None:
        raise UserError(f"The caption of {image_id} is {cell!r}, neither a text nor a list of texts")


# -- from a table


def _from_table(conversion: Conversion) -> Plans:
    options = conversion.options
    captions = conversion.groups()
    for path, *cells in _table_rows(conversion):
        if not isinstance(path, str):
            raise UserError(f"{options.table}: column {options.image_column} should hold paths, it has {path!r:.80}")
        captions.add(path, cells)
    plans = conversion.plans()
    for path, cells in captions:
        # Remote files are not looked up one by one: those that do not exist are found when they are read.
        file = conversion.root.stat(path) if conversion.root.is_local and "://" not in path else StoredFile(path)
        _append(plans, file, cells, path, options.split)
    conversion.notes.append(f"{plans.num_planned:,} images, {captions.num_values:,} rows of {options.table}")
    return plans


def _table_rows(conversion: Conversion) -> Iterator[tuple]:
    """The image cell and the caption cells of each row."""
    options, root = conversion.options, conversion.root
    path = conversion.named(options.table)
    columns = [options.image_column, *options.caption_column]
    kind = os.path.splitext(path)[1].lower()
    if kind == ".jsonl":
        with root.open(path) as file:
            yield from (conversion.pick(entry, path, *columns) for entry in lines(file, path))
    elif kind == ".json":
        yield from (conversion.pick(entry, path, *columns) for entry in conversion.entries(path))
    elif kind in (".csv", ".tsv", ".parquet"):
        with root.open(path) as file:
            try:
                batches = (
                    pyarrow.parquet.ParquetFile(file).iter_batches(1024, columns=columns)
                    if kind == ".parquet"
                    else _csv_batches(file, kind, columns, options)
                )
                for batch in batches:
                    if missing := set(columns) - set(batch.schema.names):
                        raise KeyError(f"it has no column {', '.join(sorted(missing))}")
                    yield from zip(*(batch[column].to_pylist() for column in columns), strict=True)
            except (pa.ArrowInvalid, KeyError) as error:
                reason = error.args[0] if error.args else error
                raise UserError(
                    f"{path} cannot be read: {reason}. It has columns {', '.join(_column_names(file, kind))}; "
                    "--image-column and --caption-column choose among them"
                ) from error
    else:
        raise UserError(f"--table {path}: the name should end in .csv, .tsv, .jsonl, .json or .parquet")


def _csv_batches(file, kind: str, columns: list[str], options) -> Iterable[pa.RecordBatch]:
    return pyarrow.csv.open_csv(
        file,
        pyarrow.csv.ReadOptions(autogenerate_column_names=options.no_header, block_size=_CSV_BLOCK),
        pyarrow.csv.ParseOptions(
            delimiter="\t" if kind == ".tsv" else ",",
            quote_char=False if options.no_quotes else '"',
            newlines_in_values=not options.no_quotes,
        ),
        pyarrow.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string())),
    )


def _column_names(file, kind: str) -> list[str]:
    file.seek(0)
    if kind == ".parquet":
        try:
            return pyarrow.parquet.ParquetFile(file).schema_arrow.names
        except pa.ArrowInvalid:
            return ["(none)"]
    text = io.TextIOWrapper(file, "utf-8", errors="replace", newline="")
    return next(csv.reader(text, delimiter="\t" if kind == ".tsv" else ","), ["(none)"])


# -- from a folder


def _from_folder(files: Files, conversion: Conversion) -> Plans:
    plans = conversion.plans()
    images = (file for file in files if os.path.splitext(file.path)[1].lower() in IMAGES)
    while some := list(itertools.islice(images, _READ_TOGETHER)):
        sidecars = [files.get(f"{os.path.splitext(file.path)[0]}.txt") for file in some]
        contents = iter(conversion.root.read_many([sidecar for sidecar in sidecars if sidecar]))
        for image, sidecar in zip(some, sidecars, strict=True):
            text = _decoded(next(contents), sidecar.path) if sidecar else ""
            _append(plans, image, text.splitlines(), image.path, conversion.options.split)
    conversion.notes.append(f"{files.num_files:,} files, {plans.num_planned:,} of them images with a text file")
    return plans


def _decoded(content: bytes | OSError, path: str) -> str:
    if isinstance(content, OSError):
        raise UserError(f"{path}: {content.strerror or content}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error})") from error


# -- from WebDataset shards


def _from_shards(shards: list[StoredFile], conversion: Conversion) -> Plans:
    plans = conversion.plans()
    for shard in shards:
        for key, members in itertools.groupby(_members(shard, conversion), key=lambda member: member[0]):
            parts = {extension: (file, content) for _, extension, file, content in members}
            image = next((file for extension, (file, _) in parts.items() if f".{extension}" in IMAGES), None)
            name = f"{shard.path.removesuffix('.tar')}/{key}"
            if image is not None:
                _append(plans, image, _shard_captions(parts, name, conversion), name, conversion.options.split)
    conversion.notes.append(f"{len(shards):,} shards, {plans.num_planned:,} images with captions")
    return plans


def _members(shard: StoredFile, conversion: Conversion) -> Iterator[tuple[str, str, StoredFile, bytes | None]]:
    """Key, extension, place and, of small text members, content."""
    where = conversion.root.where(shard.path)
    with conversion.root.open(shard.path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not member.isfile() or member.issparse():
                        continue
                    folder, name = os.path.split(member.name)
                    key, _, extension = name.partition(".")  # a key ends at the first dot
                    extension = extension.lower()
                    place = StoredFile(shard.path, member.size, shard.version, member.offset_data, member.name)
                    content = tar.extractfile(member).read() if extension in ("txt", "json") else None
                    yield os.path.join(folder, key), extension, place, content
        except tarfile.TarError as error:
            raise UserError(f"{where} is cut short or not an uncompressed tar ({error})") from error


def _shard_captions(parts: dict[str, tuple], name: str, conversion: Conversion) -> list[Any]:
    if "txt" in parts:
        return _decoded(parts["txt"][1], f"{name}.txt").splitlines()
    if "json" not in parts:
        return []
    try:
        described = json.loads(parts["json"][1])
    except ValueError as error:
        raise UserError(f"{name}.json is not JSON ({error})") from error
    return [described.get(column) for column in conversion.options.caption_column]
