"""One run of a converter: where it reads, its options, and what converters share."""

import contextlib
import gzip
import os
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from write_arrow.machine import json_stream
from write_arrow.machine.plans import Files, Groups, Key, Plans, Scratch
from write_arrow.machine.storage import Folder, StoredFile
from write_arrow.machine.writer import PlannedTable, numbered

CAPTIONS = pa.schema(
    {"image": pa.binary(), "caption": pa.list_(pa.string()), "image_id": pa.string(), "split": pa.string()}
)


@dataclass
class Conversion:
    """Raw data of one data set that are being converted.

    root: the folder of the raw data.
    out: the folder for the files.
    options: the arguments of the command.
    scratch: the database that keeps what does not fit into memory.
    notes: lines for the user, such as how much was found.
    """

    root: Folder
    out: Folder
    options: Namespace
    scratch: Scratch = field(default_factory=Scratch)
    notes: list[str] = field(default_factory=list)

    @property
    def compat(self) -> bool:
        """Whether to give the published converter's output, defects included."""
        return getattr(self.options, "compat", False)

    def files(self, *folders: str) -> Files:
        """All files below sub-folders of root."""
        return Files(self.scratch, self.root.walk(*folders))

    def groups(self, values: Iterable[tuple[Key, Any]] = ()) -> Groups[Key]:
        """Values by key. More can be added until the first is asked for."""
        groups: Groups[Key] = Groups(self.scratch)
        for key, value in values:
            groups.add(key, value)
        return groups

    def plans(self) -> Plans:
        return Plans(self.scratch)

    def named(self, path: str) -> str:
        """The path of a file that an option names. It may lie below root or anywhere."""
        if self.root.is_local and "://" not in path and not self.root.exists(path):
            return os.path.abspath(path)
        return path

    def entries(self, path: str, key: str | None = None) -> Iterator[Any]:
        """Entries of a JSON list in a file under root (see json_stream.elements)."""
        with self.root.open(path) as file:
            yield from json_stream.elements(file, self.root.where(path), key)

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """Keys and values of the JSON object in a file under root."""
        with self.root.open(path) as file:
            yield from json_stream.items(file, self.root.where(path))

    def lines(self, path: str) -> Iterator[Any]:
        """Entries of a JSON-lines file under root, which is compressed where its name ends in .gz."""
        with self._decompressed(path) as file:
            yield from json_stream.lines(file, self.root.where(path))

    def text_lines(self, path: str) -> Iterator[str]:
        """Lines of a UTF-8 file under root, without line breaks; it is compressed where its name ends in .gz.

        A line ends at a line feed alone, because files that are aligned by line may hold other separators within one.
        Raises UserError for a line that is not UTF-8.
        """
        with self._decompressed(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise UserError(f"{self.root.where(path)}, line {number}, is not UTF-8 ({error})") from error
                yield text.removeprefix("\ufeff").rstrip("\r\n")

    @contextlib.contextmanager
    def _decompressed(self, path: str) -> Iterator[BinaryIO]:
        """A file under root for reading. Raises UserError where it ends in .gz and cannot be decompressed."""
        with self.root.open(path) as stored:
            if not path.endswith(".gz"):
                yield stored
                return
            try:
                with gzip.GzipFile(fileobj=stored) as file:
                    yield cast(BinaryIO, file)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise UserError(f"{self.root.where(path)} cannot be decompressed ({error}): fetch it again") from error

    def pick(self, entry: Any, path: str, *keys: str) -> list[Any]:
        """Values of an annotation. Raises UserError if it lacks one."""
        try:
            return [entry[key] for key in keys]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self.root.where(path)}: an entry lacks {', '.join(keys)}: {str(entry)[:200]!r}"
            ) from error

    def typed(self, entry: Any, path: str, **types: type) -> list[Any]:
        """Values of an annotation by key, each of its type. Raises UserError if it lacks one, or has another type.

        An integer may be spelled as a text: some files have "458752000" where others have 458752000.
        """
        given = zip(self.pick(entry, path, *types), types.values(), strict=True)
        values = [_spelled_integer(value) if expected is int else value for value, expected in given]
        for value, (key, expected) in zip(values, types.items(), strict=True):
            if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
                named = {int: "an integer", str: "a string", list: "a list", dict: "an object", bool: "true or false"}[
                    expected
                ]
                raise UserError(
                    f"{self.root.where(path)}: {key} is {str(value)[:80]!r}, expected {named}, in the entry "
                    f"{str(entry)[:200]!r}"
                )
        return values

    def grouped_rows(
        self,
        annotations: Iterable[tuple[Key, list[Any]]],
        columns: Sequence[str],
        images: Callable[[Key, list[dict]], dict[str, StoredFile | None]],
        values: Callable[[Key], dict[str, Any]],
        *,
        list_missing: bool = True,
        plans: Plans | None = None,
    ) -> Plans:
        """Plans with a row for each key of the annotations, in the order of the keys.

        annotations: `Groups`, or pairs of a key and its annotations. Each annotation is a dictionary with a value for the
            columns that are lists; or None, which counts as one and gives no value. A row with no other annotations is
            left out.
        columns: the columns other than images (see `value_columns`).
        images: takes a key and its annotations; returns the files of the row's images by their paths, None for a path
            without file.
        values: takes a key; returns the values of the columns that are the same for all its annotations.
        list_missing: list a row that lacks a file among the rejected ones; otherwise `num_missing` counts it.
        plans: take the rows; by default new ones. Reading the annotations may have rejected some in them.
        """
        plans = self.plans() if plans is None else plans
        for key, found in annotations:
            files = images(key, found)
            absent = next((path for path, file in files.items() if file is None), None)
            usable = [annotation for annotation in found if annotation is not None]
            if absent is not None and list_missing:
                plans.reject(absent, "no such file")
            elif absent is not None:
                plans.num_missing += 1
            elif usable:
                same = values(key)
                row = {name: same[name] if name in same else [each[name] for each in usable] for name in columns}
                plans.append(files.values(), **row)
        return plans

    def arrange(self, plans: Plans) -> Plans:
        """The same plans, shuffled and limited as the options say."""
        plans.shuffle(getattr(self.options, "seed", None))
        plans.limit(self.options.limit)
        return plans

    def table(self, stem: str, schema: pa.Schema, plans: Plans, **options: Any) -> list[PlannedTable]:
        """The tables of the plans, in the order and number that the options ask for.

        stem: the name of the file; if it ends in "*", numbered files are made.
        options: further arguments of `numbered`, or of `PlannedTable`.
        Raises MissingFile if there are no rows, because no image has a file.
        """
        if not plans.num_planned:
            first = next(iter(plans.rejected()), None)
            left_out = f"; {plans.num_rejected:,} were left out, the first is {': '.join(first)}" if first else ""
            raise MissingFile(f"{stem}: no image with annotations was found under {self.root}{left_out}")
        self.arrange(plans)
        return (
            numbered(stem[:-1], schema, plans, **options)
            if stem.endswith("*")
            else [PlannedTable(stem, schema, plans, **options)]
        )

    def found(self, what: str, files: Files, plans: Plans, num_annotations: int) -> None:
        """Add a note: how many images, annotated images, annotations, and annotated images without file there are."""
        counts = f"{files.num_files:,} images, {plans.num_planned:,} of them annotated, {num_annotations:,} annotations"
        missing = f"; {plans.num_missing:,} annotated images have no file" if plans.num_missing else ""
        self.notes.append(f"{what}: {counts}{missing}")


def _spelled_integer(value: Any) -> Any:
    """The integer that a text spells in the only way it can be spelled; any other value as it is."""
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        and len(value) < 19
        and str(int(value)) == value
    ):
        return int(value)
    return value


def value_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns that are no images."""
    return [field.name for field in schema if not pa.types.is_binary(field.type)]
