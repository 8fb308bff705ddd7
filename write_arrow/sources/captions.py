"""Captions of your own: from a table of paths, from a folder of images with texts beside them, or from WebDataset shards.

With --table FILE (.csv, .tsv, .jsonl, .json or .parquet, below --root or anywhere) each row names an image, below --root or
anywhere, and its captions; rows of the same image are put together. Without it, --root either holds WebDataset shards
(.tar: KEY.jpg with KEY.txt or KEY.json) or images with their captions in a text file of the same name (a line each).

Whatever cannot be used is listed in STEM_0.rejected.jsonl with the reason, and the rest is written.
"""

import itertools
import json
import os
import posixpath
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from vlc.common.errors import UserError
from vlc.data.images import SUFFIXES
from vlc.data.tar_files import Member, Section, members, open_tar, split_name
from write_arrow.machine import delimited
from write_arrow.machine.conversion import CAPTIONS, Conversion
from write_arrow.machine.json_stream import numbered_lines, reason
from write_arrow.machine.plans import Files, Groups, Plans, is_valid_unicode
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.storage import Folder, StoredFile
from write_arrow.machine.writer import PlannedTable

_NO_CAPTION = "no caption"
_READ_TOGETHER = 512  # text files
_LONGEST_TEXT = 2**20  # bytes of a file of captions
_APART = 100_000  # keys of a shard that are remembered to find their other half


def add_options(parser: ArgumentParser) -> None:
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
    delimited.add_arguments(parser)
    parser.add_argument("--stem", default="captions", help="name of the files, before _0.arrow (default: captions)")
    parser.add_argument("--split", default="train", help="value of the column split (default: train)")


def tables(conversion: Conversion) -> list[PlannedTable]:
    """STEM_0, STEM_1, ...: an image with its captions."""
    options = conversion.options
    if options.table:
        plans = _from_table(conversion)
    else:
        _refuse_options(options, "--table", "delimiter", "no_header", "no_quotes", "multiline")
        files = Files(conversion.scratch, conversion.root.walk(""))
        shards = [file for file in files if file.path.endswith(".tar")]
        plans = _from_shards(shards, conversion) if shards else _from_folder(files, conversion)
    return conversion.table(f"{options.stem}_*", CAPTIONS, plans)


def _refuse_options(options: Namespace, wanted: str, *names: str) -> None:
    for name in names:
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is for {wanted} FILE.csv or FILE.tsv: leave it out")


def _append(plans: Plans, file: StoredFile, cells: Iterable[Any], image_id: str, split: str) -> None:
    texts, problems = _texts(cells, image_id)
    for problem in problems:
        plans.reject(image_id, problem)
    if texts:
        plans.append([file], caption=texts, image_id=image_id, split=split)
    elif not problems:
        plans.reject(image_id, _NO_CAPTION)


def _texts(cells: Iterable[Any], image_id: str) -> tuple[list[str], list[str]]:
    """The captions of cells (each a text, a list of texts or None; blank ones are none), and what is wrong with others."""
    texts, problems = [], []
    for cell in cells:
        for item in cell if isinstance(cell, list) else (cell,):
            if not isinstance(item, str):
                if item is not None:
                    shown = repr(item) if isinstance(item, (int, float)) else f"a {type(item).__name__}"
                    problems.append(f"The caption of {image_id} is {shown:.80}, neither a text nor a list of texts")
            elif "\0" in item:
                problems.append(f"A caption of {image_id} holds a NUL, the character of number 0")
            elif not item.isascii() and not is_valid_unicode(item):
                problems.append(f"A caption of {image_id} holds half a character (a lone surrogate)")
            elif item.strip():
                texts.append(item)
    return texts, problems


# -- from a table


def _from_table(conversion: Conversion) -> Plans:
    options, root = conversion.options, conversion.root
    plans, num_rows = conversion.plans(), 0
    captions: Groups[str] = conversion.groups()
    columns = [options.image_column, *options.caption_column]
    cure = "--image-column and --caption-column choose among them"
    for where, path, *cells in table_rows(conversion, plans, columns, cure):
        num_rows += 1
        if not isinstance(path, str) or not path:
            shown = f"{path!r:.80}" if isinstance(path, (str, int, float)) else type(path).__name__
            plans.reject(where, f"column {options.image_column} should hold paths, it has {shown}")
            continue
        path = plain_path(path)
        texts, problems = _texts(cells, path)
        for problem in problems:
            plans.reject(where, problem)
        if texts or not problems:  # an image without any is rejected below
            captions.add(path, texts)
    for path, texts in captions:
        file, problem = located(root, path)
        if file is None:
            plans.reject(path, problem)
            continue
        _append(plans, file, texts, path, options.split)
    conversion.notes.append(f"{plans.num_planned:,} images, {num_rows:,} rows of {options.table}")
    return plans


def located(root: Folder, path: str) -> tuple[StoredFile | None, str]:
    """The file that a cell names, or None and what is wrong with it."""
    try:
        if root.leads_outside(path):
            return None, "it leads outside of --root: --follow-links allows that"
        # Remote files are not looked up one by one: those that do not exist are found when they are read.
        return (root.stat(path) if root.is_local and "://" not in path else StoredFile(path)), ""
    except (OSError, ValueError) as error:  # a name that no system takes
        return None, getattr(error, "strerror", None) or str(error)


def plain_path(path: str) -> str:
    """One spelling for `./a.jpg`, `x//a.jpg` and so on; URLs stay as they are."""
    return path if "://" in path else posixpath.normpath(path)


def table_rows(conversion: Conversion, plans: Plans, columns: list[str], cure: str) -> Iterator[tuple]:
    """Where it stands, and the cells of these columns, of each row; rows that cannot be read are rejected.

    cure: what a user does where a column is missing.
    """
    options, root = conversion.options, conversion.root
    path = conversion.named(options.table)
    kind = os.path.splitext(path)[1].lower()
    if kind not in (".csv", ".tsv"):
        _refuse_options(options, "--table", "delimiter", "encoding", "no_header", "no_quotes", "multiline")
    if kind in (".csv", ".tsv"):
        with root.open(path) as file:
            yield from _delimited_rows(delimited.rows(file, path, options), path, columns, plans, options, cure)
    elif kind == ".jsonl":
        with root.open(path) as file:
            entries = ((f"{path}, line {number}", entry) for number, entry in numbered_lines(file, path, plans.reject))
            yield from _picked(entries, columns, plans)
    elif kind == ".json":
        numbered = enumerate(conversion.entries(path), start=1)
        yield from _picked(((f"{path}, entry {number}", entry) for number, entry in numbered), columns, plans)
    elif kind == ".parquet":
        with root.open(path) as file:
            yield from _parquet_rows(file, path, columns, cure)
    else:
        raise UserError(f"--table {path}: the name should end in .csv, .tsv, .jsonl, .json or .parquet")


def _picked(entries: Iterable[tuple[str, Any]], columns: list[str], plans: Plans) -> Iterator[tuple]:
    for where, entry in entries:
        if not isinstance(entry, dict):
            plans.reject(where, f"a {type(entry).__name__}, and no object with {', '.join(columns)}")
        elif missing := [column for column in columns if column not in entry]:
            plans.reject(where, f"it lacks {', '.join(missing)}")
        else:
            yield where, *(entry[column] for column in columns)


def _delimited_rows(
    rows: Iterator[delimited.Row], path: str, columns: list[str], plans: Plans, options: Namespace, cure: str
) -> Iterator[tuple]:
    first = next(rows, None)
    names = list(first.cells) if first else []
    if options.no_header:
        rows, names = itertools.chain([first] if first else [], rows), [f"f{number}" for number in range(len(names))]
    if missing := set(columns) - set(names):
        _raise_missing(path, missing, names, cure)
    places = [names.index(column) for column in columns]
    for line, cells in rows:
        where = f"{path}, line {line}"
        if len(cells) == len(names):
            yield where, *(cells[place] for place in places)
        else:
            found = f"it cannot be read: Expected {len(names)} columns, got {len(cells)}"
            plans.reject(where, f"{found}; --delimiter, --no-quotes and --multiline tell how cells are divided")


def _parquet_rows(file: BinaryIO, path: str, columns: list[str], cure: str) -> Iterator[tuple]:
    try:
        table = pyarrow.parquet.ParquetFile(file)
        if missing := set(columns) - set(table.schema_arrow.names):
            _raise_missing(path, missing, table.schema_arrow.names, cure)
        number = 0
        for batch in table.iter_batches(1024, columns=columns):
            for cells in zip(*(batch[column].to_pylist() for column in columns), strict=True):
                number += 1
                yield f"{path}, row {number}", *cells
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _raise_missing(path: str, missing: set[str], names: list[str], cure: str) -> None:
    raise UserError(
        f"{path} cannot be read: it has no column {', '.join(sorted(missing))}. It has columns "
        f"{', '.join(names) or '(none)'}; {cure}"
    )


# -- from a folder


def _from_folder(files: Files, conversion: Conversion) -> Plans:
    plans, encoding = conversion.plans(), conversion.options.encoding
    images = (file for file in files if os.path.splitext(file.path)[1].lower() in SUFFIXES)
    while some := list(itertools.islice(images, _READ_TOGETHER)):
        sidecars = [files.get(f"{os.path.splitext(file.path)[0]}.txt") for file in some]
        wanted = [sidecar for sidecar in sidecars if sidecar and (sidecar.size or 0) <= _LONGEST_TEXT]
        contents = dict(zip(wanted, conversion.root.read_many(wanted), strict=True))
        for image, sidecar in zip(some, sidecars, strict=True):
            lines, problem = _lines(contents.get(sidecar, _TOO_LONG), encoding) if sidecar else ([], None)
            if problem:
                plans.reject(image.path, f"{sidecar.name}: {problem}")
            else:
                _append(plans, image, lines, image.path, conversion.options.split)
    counts = f"{files.num_files:,} files, {plans.num_planned:,} of them images with a text file"
    conversion.notes.append(f"{counts}, {plans.num_rejected:,} left out")
    return plans


_TOO_LONG = OSError(f"more than {_LONGEST_TEXT:,} bytes, which is no caption")


def _lines(content: bytes | OSError, encoding: str | None) -> tuple[list[str], str | None]:
    """The lines of a text file, or what is wrong with it."""
    if isinstance(content, OSError):
        return [], content.strerror or str(content)
    try:
        return delimited.decoded(content, encoding).splitlines(), None
    except UnicodeError as error:
        return [], delimited.not_decoded(error, encoding)


# -- from WebDataset shards


class _Member(NamedTuple):
    """A file in a shard.

    sample: what WebDataset takes for the name of its sample.
    stem: its path without suffix.
    place: where its bytes are.
    content: the bytes of a text, or the reason why it is not read; None for other files.
    """

    sample: str
    stem: str
    suffix: str
    place: StoredFile
    content: bytes | OSError | None = None


def _from_shards(shards: list[StoredFile], conversion: Conversion) -> Plans:
    plans, num_apart, num_texts = conversion.plans(), 0, 0
    for shard in shards:
        halves: dict[str, bool] = {}  # stem of a lone image or text -> whether it is an image
        members = _members(shard, conversion, plans)
        for _, sample in itertools.groupby(members, key=lambda member: member.sample):
            # A sample's name ends at its first dot; a name with more dots is that of a sample of its own.
            stems: dict[str, dict[str, _Member]] = {}
            for member in sample:
                stems.setdefault(member.stem, {})[member.suffix] = member
            for stem, parts in stems.items():
                has_text = not parts.keys().isdisjoint(("txt", "json"))
                has_image = _append_sample(plans, f"{shard.path.removesuffix('.tar')}/{stem}", parts, conversion)
                num_texts += has_text and not has_image
                if has_image != has_text:  # one half only
                    if halves.get(stem, has_image) != has_image:
                        num_apart += 1
                    elif len(halves) < _APART:
                        halves[stem] = has_image
    conversion.notes.append(
        f"{len(shards):,} shards, {plans.num_planned:,} images with captions, {plans.num_rejected:,} left out"
        + (f", {num_texts:,} texts without an image" if num_texts else "")
    )
    if num_apart:
        conversion.notes.append(
            f"{num_apart:,} images and their texts lie in one shard, but not side by side: pack it in the order of the "
            "names (tar --sort=name)"
        )
    return plans


def _append_sample(plans: Plans, name: str, parts: dict[str, _Member], conversion: Conversion) -> bool:
    """Append or reject an image with its captions. Returns whether there is an image."""
    image = next((member.place for suffix, member in parts.items() if f".{suffix}" in SUFFIXES), None)
    captions, problem = _shard_captions(parts, conversion)
    if image is None:
        return False
    if problem:
        plans.reject(name, problem)
    else:
        _append(plans, image, captions, name, conversion.options.split)
    return True


def _members(shard: StoredFile, conversion: Conversion, plans: Plans) -> Iterator[_Member]:
    """The files of a shard; links and the like are rejected, hidden files skipped."""
    with (
        conversion.root.open(shard.path) as file,
        open_tar(Section(file), conversion.root.where(shard.path)) as tar,
    ):
        for member in members(tar):
            if not member.is_regular:
                plans.reject(f"{shard.path}/{posixpath.normpath(member.path)}", "a link, or no regular file")
                continue
            sample, stem, suffix = split_name(member.path)
            place = StoredFile(shard.path, member.size, shard.version, member.offset, member.path)
            content = None
            if suffix in ("txt", "json"):
                content = _text(file, member) if member.size <= _LONGEST_TEXT else _TOO_LONG
            yield _Member(sample, stem, suffix, place, content)


def _text(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _shard_captions(parts: dict[str, _Member], conversion: Conversion) -> tuple[list[Any], str | None]:
    """The captions of a sample, or what is wrong with them."""
    if "txt" in parts:
        lines, problem = _lines(parts["txt"].content, conversion.options.encoding)
        return lines, problem and f"its text: {problem}"
    if "json" not in parts:
        return [], None
    content = parts["json"].content
    if isinstance(content, OSError):
        return [], f"its JSON: {content}"
    try:
        described = json.loads(content)
    except (ValueError, RecursionError) as error:
        return [], f"its JSON is no JSON ({reason(error)})"
    if not isinstance(described, dict):
        return [], f"its JSON is a {type(described).__name__}, and no object"
    return [described.get(column) for column in conversion.options.caption_column], None


SOURCES = {
    "captions": RawSource(
        "captions of your own: a table of paths, a folder with text files, or WebDataset shards",
        "images named by --table FILE; or *.jpg with *.txt beside them; or *.tar",
        tables,
        add_options,
        order=RowOrder.SHUFFLED_IF_ASKED,
    )
}
