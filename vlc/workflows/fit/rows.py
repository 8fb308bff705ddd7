"""The rows of a labelled table in any of the forms that people keep one in.

Images that a table holds as bytes are written to files, so that all that follows knows images by their paths alone.
"""

import hashlib
import itertools
import json
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vlc.common.errors import MissingFile, UserError
from vlc.configuration.command_settings import FitSettings
from vlc.data.images import FORMATS, SUFFIXES
from vlc.data.tar_files import Section, members, open_tar, split_name
from write_arrow.machine import delimited, json_stream

SPLIT = "split"  # column that a form with folders of splits adds
_DELIMITERS = ",;\t|"
_STARTS = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"GIF8": "GIF", b"BM": "BMP"}  # of files of images
_TEXT_SUFFIXES = {"txt": "text", "cls": "label"}  # of members of WebDataset shards, and what their columns are called


class Row(NamedTuple):
    """where: its place in the table, for messages. cells: by column."""

    where: str
    cells: dict[str, Any]


class Problem(NamedTuple):
    """A row that is left out, and the reason."""

    where: str
    reason: str


@dataclass
class Table:
    """A labelled table.

    columns: in their order.
    problems: the rows that cannot be read.
    """

    path: Path
    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def values(self, column: str) -> list[Any]:
        """The cells of a column, without empty ones."""
        cells = (row.cells.get(column) for row in self.rows)
        return [cell for cell in cells if not is_empty(cell)]


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, list) and not cell)


def read_table(path: Path, settings: FitSettings, images: Path) -> Table:
    """Read a table, or a folder of one.

    images: the folder for images that the table holds as bytes.
    Raises UserError where it is no table of a known form, or cannot be read.
    """
    table, read = Table(path), _reader(path)
    try:
        for where, cells in read(path, settings, table.problems):
            row = Row(where, {name: _without_bytes(cell, images) for name, cell in cells.items()})
            table.rows.append(row)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    table.columns = list(dict.fromkeys(name for row in table.rows for name in row.cells))
    if not table.rows:
        found = f"; the first problem: {': '.join(table.problems[0])}" if table.problems else ""
        raise UserError(f"{path} has no rows{found}")
    return table


_Read = Callable[[Path, FitSettings, list[Problem]], Iterator[tuple[str, dict[str, Any]]]]


def _reader(path: Path) -> _Read:
    """The function that reads a form. Raises UserError for an unknown one."""
    if not path.exists():
        raise MissingFile(f"table={path} does not exist")
    if path.is_dir():
        return _folder
    if path.suffix.lower() not in _READERS:
        raise UserError(f"table={path}: the name should end in {', '.join(_READERS)}; or name a folder")
    return _READERS[path.suffix.lower()]


def _folder(path: Path, settings: FitSettings, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a data set of the library `datasets`, of WebDataset shards, or of several tables in a folder."""
    if (path / "dataset_dict.json").is_file():
        for split in _json(path / "dataset_dict.json")["splits"]:
            for where, cells in _saved(path / split):
                yield where, {**cells, SPLIT: split}
    elif (path / "state.json").is_file():
        yield from _saved(path)
    else:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _READERS)
        if len({file.suffix.lower() for file in files}) != 1:
            raise UserError(
                f"table={path} is a folder, and should hold files of one form ({', '.join(_READERS)}), or be a data set "
                f"that save_to_disk of datasets wrote; it has {', '.join(file.name for file in files[:5]) or 'none'}"
            )
        for file in files:
            yield from _READERS[file.suffix.lower()](file, settings, problems)


def _saved(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a data set that `save_to_disk` of the library datasets wrote."""
    state = _json(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise UserError(f"{folder} holds a selection of rows: save it again after flatten_indices()")
    for file in state["_data_files"]:
        path = folder / file["filename"]
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            yield from _batches(reader, reader.schema, path)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): save the data set again") from error


def _parquet(path: Path, settings: FitSettings, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    file = pq.ParquetFile(path)
    yield from _batches(file.iter_batches(256), file.schema_arrow, path)


def _batches(batches: Any, schema: pa.Schema, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of record batches, with the names of classes that the schema lists in place of their numbers."""
    names = _class_names(schema)
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    for number, cells in enumerate(rows, start=1):
        named = {
            column: own[cells[column]]
            for column, own in names.items()
            if cells.get(column) is not None and 0 <= cells[column] < len(own)
        }
        yield f"{path}, row {number}", {**cells, **named}


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """The names of classes by column, as the library datasets keeps them in a schema."""
    stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = stored.get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _delimited(path: Path, settings: FitSettings, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a CSV or TSV, whose first line has the names of the columns."""
    options = Namespace(encoding=settings.encoding or None, no_quotes=False, multiline=False)
    options.delimiter = settings.delimiter or _delimiter(path)
    with path.open("rb") as file:
        try:
            rows = delimited.rows(file, str(path), options)
            header = next(rows, None)
            names = [name.strip() for name in header.cells] if header else []
            if repeated := [name for name, count in Counter(names).items() if name and count > 1]:
                raise UserError(f"{path}: its first line names the column {repeated[0]!r} more than once: rename one")
            for line, cells in rows:
                where = f"{path}, line {line}"
                if len(cells) == len(names):
                    yield where, {name: cell for name, cell in zip(names, cells, strict=True) if name}
                else:
                    found = f"it has {len(cells)} cells, and the first line {len(names)}"
                    problems.append(Problem(where, f"{found}: quote cells that hold {options.delimiter!r}"))
        except UserError as error:
            raise UserError(_with_our_keys(str(error))) from error


def _with_our_keys(message: str) -> str:
    """The message about a delimited table, with the keys of this command in place of the writer's options."""
    message = message.replace("--encoding NAME names another encoding, such as latin-1", "pass fit.encoding=latin-1")
    before, _, after = message.partition("Pass --no-quotes")
    return f"{before}Mend it, or save the table as JSON lines" if after else message


def _delimiter(path: Path) -> str:
    """The delimiter that the first line has most often."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open("rb") as file:
        first = file.readline(2**16).decode("utf-8", "replace")
    return max(_DELIMITERS, key=first.count)


def _json_lines(path: Path, settings: FitSettings, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    def reject(where: str, reason: str) -> None:
        problems.append(Problem(where, reason))

    with path.open("rb") as file:
        lines = json_stream.numbered_lines(file, str(path), reject)
        yield from _objects(((f"{path}, line {number}", entry) for number, entry in lines), problems)


def _json_list(path: Path, settings: FitSettings, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        entries = enumerate(json_stream.elements(file, str(path)), start=1)
        yield from _objects(((f"{path}, entry {number}", entry) for number, entry in entries), problems)


def _objects(entries: Iterator[tuple[str, Any]], problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, entry in entries:
        if isinstance(entry, dict):
            yield where, entry
        else:
            problems.append(Problem(where, f"a {type(entry).__name__}, and no object with a value for each column"))


def _shards(path: Path, settings: FitSettings, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples of a WebDataset shard: each has an image, and texts, a class or JSON of the same name."""
    with path.open("rb") as file, open_tar(Section(file), str(path)) as tar:
        regular = (member for member in members(tar) if member.is_regular)
        for sample, parts in itertools.groupby(regular, key=lambda member: split_name(member.path).sample):
            where, cells = f"{path}, sample {sample}", dict[str, Any]()
            for member in parts:
                file.seek(member.offset)
                extension = member.path[member.path.rfind("/") + 1 :].partition(".")[2].lower()
                try:
                    cells |= _of_member(extension, file.read(member.size))
                except ValueError as error:
                    problems.append(Problem(where, f"its .{extension} cannot be read ({error})"))
                    break
            else:
                yield where, cells


def _of_member(extension: str, content: bytes) -> dict[str, Any]:
    """The columns of a member. Raises ValueError where it is damaged."""
    name, _, suffix = extension.rpartition(".")
    if f".{suffix}" in SUFFIXES:
        return {name or "image": content}
    if suffix == "json":
        entry = json.loads(content)
        return entry if isinstance(entry, dict) else {name or "json": entry}
    return {name or _TEXT_SUFFIXES[suffix]: content.decode()} if suffix in _TEXT_SUFFIXES else {}


def _without_bytes(cell: Any, folder: Path) -> Any:
    """The cell, or the path of a file with its bytes. Images of the library datasets have bytes, or a path."""
    if isinstance(cell, dict) and cell.keys() <= {"bytes", "path"}:
        cell = cell.get("bytes") or cell.get("path")
    if not isinstance(cell, bytes):
        return cell
    suffix = next((FORMATS[kind][0] for start, kind in _STARTS.items() if cell.startswith(start)), ".image")
    path = folder.absolute() / f"{hashlib.sha256(cell).hexdigest()[:20]}{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(cell)
        partial.replace(path)
    return str(path)


_READERS: dict[str, _Read] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".parquet": _parquet,
    ".tar": _shards,
}
