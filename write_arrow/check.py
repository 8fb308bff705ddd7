"""Checks a folder of Arrow files: their schemas, counts, images, ids and checksums.

The catalogue says which columns a file needs. Every image is decoded, and an id must occur once. Shards of labelled images
in Parquet or tar files are opened and read too. The command exits with status 1 if anything is wrong.
"""

import argparse
import itertools
import multiprocessing
import re
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from vlc.common.errors import UserError
from vlc.common.terminal import cell
from vlc.data.catalog import CATALOG
from vlc.data.checksums import DamagedData, verify_file
from vlc.data.folders import is_hidden
from vlc.data.identity import require_one_conversion
from vlc.data.ipc import in_plain_layout, is_binary, is_text, open_batches, record_batches
from vlc.data.labelled.tables import ParquetImages
from vlc.data.labelled.tar import TarImages
from vlc.data.values import flat_values, num_texts, text_problems, value_problems
from write_arrow.machine.readers import Reader, is_shard, readers_of
from write_arrow.machine.storage import Folder
from write_arrow.machine.workers import num_cores, problem_of, size_problem_of

IDS = ("image_id", "identifier", "question_id", "pair_id", "sent_id", "phrase_id", "qa_id", "annot_id")
_PART_ROWS = 2000  # that a worker looks into at a time
_LABELLED = re.compile(r"(^|[-_])(train|val|validation|test)([-_]\d+(-of-\d+)?)?\.(parquet|tar)$")
_SHOWN = 5  # of the problems of one kind in one file


@dataclass
class Report:
    """What was found in a file.

    readers: the data sets and splits that read it.
    size: bytes.
    verified: the file has checksums, and they fit its contents.
    problems: a line for each.
    """

    stem: str
    readers: list[str]
    num_rows: int = 0
    num_texts: int = 0
    size: int = 0
    verified: bool = False
    problems: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="ARROWS", help="folder of arrow files, by path or URL")
    parser.add_argument("--images", type=int, metavar="N", help="decode N images of each file (default: all)")
    parser.add_argument(
        "--workers", type=int, metavar="N", default=num_cores(), help="processes (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print a table of the files. Raises UserError for a folder without files, and exits with 1 if a problem is found."""
    reports, general = check(Folder(arguments.folder).require(), arguments.images, arguments.workers)
    console = Console(highlight=False)
    table = Table(
        Column("file", overflow="fold"),
        "read by",
        *(Column(name, justify="right") for name in ("rows", "texts", "size", "problems")),
    )
    for report in reports:
        numbers = (f"{report.num_rows:,}", f"{report.num_texts:,}", decimal(report.size))
        problems = f"[red]{len(report.problems)}[/]" if report.problems else "-"
        table.add_row(cell(report.stem), ", ".join(report.readers) or "(not in the catalogue)", *numbers, problems)
    console.print(table)
    told = [f"{report.stem}: {problem}" for report in reports for problem in report.problems] + general
    for problem in told:
        console.print(cell(problem, "red"), soft_wrap=True)
    if without := [report.stem for report in reports if not report.verified and not report.problems]:
        told_without = ", ".join(without[:_SHOWN]) + (
            f" and {len(without) - _SHOWN:,} more" if without[_SHOWN:] else ""
        )
        console.print(
            cell(
                f"{told_without}: written without checksums, so that damage which leaves a file readable cannot be found"
            ),
            soft_wrap=True,
        )
    if told:
        sys.exit(1)
    console.print(f"{len(reports)} files, no problems")


def check(folder: Folder, num_images: int | None = None, num_workers: int = 1) -> tuple[list[Report], list[str]]:
    """Check all files of a folder. Returns a report of each, and the problems of the folder as a whole.

    num_images: how many images of each file are decoded; None decodes all.
    num_workers: how many processes decode them.
    Raises UserError if the folder holds no files to check.
    """
    names = folder.names()
    stems = sorted((name.removesuffix(".arrow") for name in names if name.endswith(".arrow")), key=_natural)
    stems = [stem for stem in stems if not stem.startswith(".")]
    labelled = sorted(name for name in names if _LABELLED.search(name) and not is_hidden(name))
    if not stems and not labelled:
        raise UserError(f"{folder} holds no arrow files")
    general = [
        f"{name}: left by an interrupted run; the same command finishes it"
        for name in sorted(names)
        if name.startswith(".") and name.endswith((".partial", ".unfinished.json"))
    ]
    readers = {stem: list(readers_of(stem)) for stem in stems}
    general += _missing(stems, readers)
    if folder.is_local:
        general += _mixed([Path(folder.path) / name for name in (*(f"{stem}.arrow" for stem in stems), *labelled)])
    seen = _Ids()
    if num_workers == 1:
        reports = [_check(folder, stem, readers[stem], num_images, seen, map) for stem in stems]
    else:
        with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            reports = [_check(folder, stem, readers[stem], num_images, seen, pool.map) for stem in stems]
    for stem, column, count, example in seen.repeated(folder):
        problem = f"{count:,} values of {column} repeat earlier ones, such as {example!r}"
        next(report for report in reports if report.stem == stem).problems.append(problem)
    if folder.is_local:
        reports += [_check_labelled(folder, name, num_images) for name in labelled]
    return reports, general


def _mixed(paths: list[Path]) -> list[str]:
    """Whether files were written by different conversions, though they belong together."""
    try:
        require_one_conversion(paths, "Write them again with the same command")
    except UserError as error:
        return [str(error)]
    return []


def _check_labelled(folder: Folder, name: str, num_images: int | None) -> Report:
    """A shard of labelled images that is no Arrow file."""
    report = Report(name, ["main_finetune"], size=folder.stat(name).size or 0)
    path = Path(folder.path) / name
    try:
        if path.suffix == ".parquet":
            with open(path, "rb") as file:
                report.verified = verify_file(file, report.size)
        source = (ParquetImages if path.suffix == ".parquet" else TarImages)([path], verify=True)
        report.verified |= isinstance(source, TarImages) and source.has_checksums
        report.num_rows = len(source.labels)
        problems = []
        for number in range(report.num_rows)[:num_images]:
            if problem := problem_of(source.read(number).to_pybytes()):
                problems.append(f"row {number}: image cannot be decoded: {problem}")
        more = [f"and {len(problems) - _SHOWN:,} more rows"] if len(problems) > _SHOWN else []
        report.problems += problems[:_SHOWN] + more
    except (DamagedData, OSError, UserError) as error:
        report.problems.append(f"cannot be read ({error}): write it again")
    return report


def _natural(stem: str) -> list:
    """A key that sorts sbu_10 after sbu_9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", stem)]


def _missing(stems: list[str], readers: dict[str, list[Reader]]) -> list[str]:
    """Files that the data sets of the folder need and do not have."""
    problems = []
    present = {(reader.dataset, reader.split) for found in readers.values() for reader in found}
    for dataset in dict.fromkeys(dataset for dataset, _ in present):
        spec = CATALOG[dataset]
        needed = [split for split in spec.tables if split not in spec.optional or (dataset, split) in present]
        for pattern in dict.fromkeys(itertools.chain(*(spec.tables[split] for split in needed))):
            if not pattern.endswith("*"):
                absent = [] if pattern in stems else [pattern]
            else:
                numbers = {int(stem[len(pattern) - 1 :]) for stem in stems if is_shard(stem, pattern)}
                absent = [f"{pattern[:-1]}{number}" for number in range(max(numbers, default=0) + 1)]
                absent = [stem for stem in absent if stem not in stems]
            problems += [
                f"{stem}: missing, {dataset} reads it; python -m write_arrow {spec.writer} writes it" for stem in absent
            ]
    return problems


def _check(folder: Folder, stem: str, readers: list[Reader], num_images: int | None, seen: "_Ids", run_all) -> Report:
    report = Report(stem, [f"{reader.dataset} {reader.split}" for reader in readers])
    report.size = folder.stat(f"{stem}.arrow").size or 0
    try:
        with folder.open_mapped(f"{stem}.arrow") as file:
            schema, num_batches, get_batch = open_batches(file)
            parts = [part for number in range(num_batches) for part in _parts(get_batch(number), number, folder)]
        with folder.open(f"{stem}.arrow") as file:
            report.verified = verify_file(file, report.size)
        if folder.is_local and not report.verified:
            record_batches(Path(folder.path) / f"{stem}.arrow")  # structure that footer and contents agree on
        texts = _text_column(schema, readers)
        report.problems += _schema_problems(schema, readers)
        images = [field.name for field in schema if is_binary(field.type) and not pa.types.is_null(field.type)]
        check_batch = partial(_check_batch, folder, stem, images, texts, readers)
        wanted = [None if num_images is None else -(-num_images // len(parts)) for _ in parts]
        problems = []
        for found in run_all(check_batch, parts, wanted):
            problems += [f"row {report.num_rows + row}: {problem}" for row, problem in found.problems]
            report.num_rows += found.num_rows
            report.num_texts += found.num_texts
            for column, hashes in found.ids.items():
                seen.add(stem, readers[0] if readers else None, column, hashes)
        more = [f"and {len(problems) - _SHOWN:,} more rows"] if len(problems) > _SHOWN else []
        report.problems += problems[:_SHOWN] + more
    except (pa.ArrowException, OSError, ValueError) as error:
        report.problems.append(f"cannot be read ({error}): write it again")
    return report


class _Part(NamedTuple):
    """A stretch of a record batch: published files have up to 100,000 rows in one."""

    batch: int
    start: int
    num_rows: int


def _parts(batch: pa.RecordBatch, number: int, folder: Folder) -> list[_Part]:
    num_rows = batch.num_rows
    step = _PART_ROWS if folder.is_local else num_rows  # a remote batch is fetched whole each time
    return [_Part(number, start, min(step, num_rows - start)) for start in range(0, num_rows, max(step, 1))]


def _text_column(schema: pa.Schema, readers: list[Reader]) -> str | None:
    names = [reader.spec.text for reader in readers] or ["caption", "questions", "sentences", "text"]
    return next((name for name in names if name in schema.names), None)


def _schema_problems(schema: pa.Schema, readers: list[Reader]) -> list[str]:
    problems = []
    for reader in readers:
        missing = reader.columns - set(schema.names)
        if missing:
            problems.append(f"lacks column {', '.join(sorted(missing))}, which {reader.dataset} reads")
        for column in reader.columns - missing:
            kind = schema.field(column).type
            if column in reader.spec.images and not is_binary(kind):
                problems.append(f"column {column} is {kind}, not binary")
            if column == reader.spec.text and not is_text(kind):
                problems.append(f"column {column} is {kind}, not strings")
    return list(dict.fromkeys(problems))


@dataclass
class _Found:
    num_rows: int
    num_texts: int
    problems: list[tuple[int, str]]
    ids: dict[str, np.ndarray]


def _check_batch(
    folder: Folder,
    stem: str,
    images: list[str],
    texts: str | None,
    readers: list[Reader],
    part: "_Part",
    num_images: int | None,
) -> _Found:
    """Look into a part of a record batch. A worker process runs this."""
    with folder.open_mapped(f"{stem}.arrow") as file:
        batch = open_batches(file)[2](part.batch).slice(part.start, part.num_rows)
    batch.validate(full=True)
    batch = pa.RecordBatch.from_pydict({name: in_plain_layout(batch.column(name)) for name in batch.schema.names})
    problems: list[tuple[int, str]] = []
    sizes = _stated_sizes(batch, readers)
    for name in images:
        for row, image in enumerate(batch.column(name)[:num_images]):
            problem = "no image" if not image.is_valid else problem_of(image.as_py())
            if problem:
                problems.append((row, f"{name} cannot be decoded: {problem}"))
            elif sizes is not None and (problem := size_problem_of(image.as_py(), sizes[row])):
                problems.append((row, f"{name} does not fit its annotation: {problem}"))
    counts = np.ones(batch.num_rows, dtype=np.int64) if texts is None else num_texts(batch.column(texts))
    if texts is not None:
        problems += [(row, f"no {texts}") for row in np.flatnonzero(counts == 0).tolist()]
        problems += text_problems(batch.column(texts), texts)
    for reader in readers:  # each counts its own texts: one file may hold captions and questions
        problems += value_problems(batch, reader.spec, reader.fields, withheld=True)
    problems = sorted(dict.fromkeys(problems), key=lambda problem: problem[0])  # each once
    ids = {name: _hashes(batch.column(name)) for name in IDS if name in batch.schema.names}
    return _Found(batch.num_rows, int(counts.sum()), problems, ids)


def _stated_sizes(batch: pa.RecordBatch, readers: list[Reader]) -> list[tuple[int, int]] | None:
    """The sizes of the pictures as their annotations state them; None in files that a data set without boxes reads."""
    columns = {"width", "height"}
    if not any(columns <= reader.fields for reader in readers) or not columns <= set(batch.schema.names):
        return None
    return list(zip(batch.column("width").to_pylist(), batch.column("height").to_pylist(), strict=True))


def _hashes(column: pa.Array) -> np.ndarray:
    """64-bit hashes of ids: ten million take 80 MB. Numbers and texts hash alike in all processes."""
    values = flat_values(column)
    if pa.types.is_integer(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.int64)
    encoded = [str(value).encode() for value in values.to_pylist()]
    pairs = np.array([(zlib.crc32(text), zlib.adler32(text[::-1])) for text in encoded], dtype=np.uint64).reshape(-1, 2)
    return (pairs[:, 0] << np.uint64(32) | pairs[:, 1]).view(np.int64)


class _Ids:
    """Ids seen so far, by the split they belong to."""

    def __init__(self):
        self.seen: dict[tuple, list[tuple[str, np.ndarray]]] = {}

    def add(self, stem: str, reader: Reader | None, column: str, hashes: np.ndarray) -> None:
        group = (reader.dataset, reader.split) if reader else (re.sub(r"\d+$", "", stem),)
        self.seen.setdefault((*group, column), []).append((stem, hashes))

    def repeated(self, folder: Folder) -> Iterator[tuple[str, str, int, str]]:
        """Yield stem, column, number of repeated values and an example, for each column with repeated ids."""
        for (*_, column), parts in self.seen.items():
            hashes = np.concatenate([part for _, part in parts])
            values, counts = np.unique(hashes, return_counts=True)
            if not (counts > 1).any():
                continue
            stem, example = self._example(folder, column, parts, set(values[counts > 1].tolist()))
            yield stem, column, int((counts - 1).sum()), example

    def _example(self, folder: Folder, column: str, parts: list, repeated: set[int]) -> tuple[str, str]:
        for stem in dict.fromkeys(stem for stem, _ in parts):
            with folder.open_mapped(f"{stem}.arrow") as file:
                _, num_batches, get_batch = open_batches(file)
                for number in range(num_batches):
                    cells = in_plain_layout(get_batch(number).column(column))
                    for value, hashed in zip(flat_values(cells).to_pylist(), _hashes(cells).tolist(), strict=True):
                        if hashed in repeated:
                            return stem, str(value)
        raise AssertionError("repeated ids were read from these files")
