"""Labelled images in the forms they come in: a folder for each class, Arrow or Parquet shards, WebDataset tar files.

Every source knows all labels from the start and reads an image's encoded bytes by its number.
"""

import json
import logging
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlc.common.errors import MissingFile, UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.checksums import FILE, IMAGE_CHECKSUM, ROW_CHECKSUM, image_checksum, metadata_checksum, row_checksum
from vlc.data.folders import is_hidden, visible_entries
from vlc.data.identity import (
    FileState,
    file_state,
    is_journal,
    mark_of,
    require_finished,
    require_one_conversion,
    require_unchanged,
)
from vlc.data.images import SUFFIXES
from vlc.data.ipc import inflation_limit, inflation_refusal, is_binary, is_list, is_text, refuse_other_kinds
from vlc.data.kinds import MOST_LABELS, are_labels
from vlc.data.spec import DatasetSpec
from vlc.data.tar_files import Section, members, open_tar, split_name
from vlc.data.values import plain

_log = logging.getLogger(__name__)

WRITER = "python -m write_arrow imagenet"
_SPEC = DatasetSpec(writer="imagenet", tables={})
_ALIASES = {"val": ("val", "validation")}


class Place(NamedTuple):
    """Where an image lies, for messages: a folder or file, and the row in it."""

    table: str
    row: int


class Source(Protocol):
    """The images of one split. labels (N,) int64; class_names by label, None where the data do not tell them."""

    labels: np.ndarray
    class_names: tuple[str, ...] | None

    def read(self, number: int) -> pa.Buffer:
        """The encoded image."""

    def place(self, number: int) -> Place:
        """Where it lies."""


def open_split(data_path: str | Path, split: str, *, verify: bool = False) -> Source:
    """The images of a split: DATA_PATH/SPLIT/CLASS/*, or the shards DATA_PATH/NAME_SPLIT_*.{arrow,parquet,tar}.

    DATA_PATH/NAME chooses among several data sets in one folder. verify: compare what is read with the checksums that our
    writer left. Raises MissingFile or UserError, naming what was found.
    """
    path = Path(data_path)
    if (path / split).is_dir():
        return FolderImages(path / split)
    shards = find_shards(path, split)
    kinds = {shard.suffix for shard in shards}
    if len(kinds) > 1:
        raise UserError(f"{path}: split {split!r} has shards of several kinds ({', '.join(sorted(kinds))}): keep one")
    journals = [file for file in shards[0].parent.iterdir() if is_journal(file.name)]
    again = f"Write them again with: {WRITER}"
    require_finished({shard.name for shard in shards}, journals, again)
    require_one_conversion(shards, again)
    return {".arrow": ArrowImages, ".parquet": ParquetImages, ".tar": TarImages}[kinds.pop()](shards, verify=verify)


def find_shards(path: Path, split: str) -> list[Path]:
    """The shards of a split, in numerical order; `path` is a folder, or a folder and a data set's name."""
    folder, wanted = (path, None) if path.is_dir() else (path.parent, path.name)
    names = "|".join(_ALIASES.get(split, (re.escape(split),)))
    pattern = re.compile(rf"(?:(?P<name>.+)[-_])?(?:{names})(?:[-_](?P<number>\d+)(?:-of-\d+)?)?\.(arrow|parquet|tar)")
    found: dict[str, list[tuple[int, Path]]] = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        if match := pattern.fullmatch(file.name):
            found.setdefault(match["name"] or "", []).append((int(match["number"] or 0), file))
    if wanted is not None:
        found = {name: files for name, files in found.items() if name == wanted}
    if not found:
        raise MissingFile(
            f"--data_path {path} has no images of split {split!r}: neither a folder {path / split} with a folder for each "
            f"class, nor shards such as {path if wanted else path / 'imagenet'}_{split}_0.arrow. Write shards: {WRITER}"
        )
    if len(found) > 1:
        raise UserError(f"{folder} holds several data sets: choose one, as --data_path {folder / min(found)}. "
                        f"There are {', '.join(sorted(found))}")  # fmt: skip
    return [file for _, file in sorted(*found.values())]


class FolderImages:
    """A folder for each class, labels in the order of the sorted names (as torchvision and MAE read ImageNet)."""

    def __init__(self, root: Path):
        self.root = root
        try:
            names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
            found = {name: [e for e in visible_entries(root / name) if _is_image(e.name)] for name in names}
        except OSError as error:
            raise UserError(f"{error.filename or root} cannot be listed: {error.strerror}") from error
        if not names:
            raise MissingFile(f"{root} holds no folder for any class: expected {root}/CLASS/IMAGE.jpg")
        self.class_names: tuple[str, ...] | None = tuple(names)
        labels, paths = [], []
        for label, name in enumerate(names):
            labels += [label] * len(found[name])
            paths += [os.fsencode(entry.path) for entry in found[name]]
            if broken := [entry.path for entry in found[name] if not entry.is_file()]:
                raise MissingFile(f"{broken[0]} is a link to a file that does not exist: mend or remove it")
        self.labels = np.array(labels, dtype=np.int64)
        self._paths = pa.array(paths, pa.binary())  # a name need not be UTF-8

    def _path(self, number: int) -> str:
        return os.fsdecode(self._paths[number].as_py())

    def read(self, number: int) -> pa.Buffer:
        try:
            return pa.py_buffer(Path(self._path(number)).read_bytes())
        except OSError as error:
            raise UserError(
                f"{self._path(number)} was there at the start and cannot be read now ({error.strerror}): images are needed "
                "until the end"
            ) from error

    def place(self, number: int) -> Place:
        return Place(self._path(number), 0)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


class ArrowImages:
    """Arrow files with columns image (encoded bytes), label (integer) and class_name (string), memory-mapped."""

    def __init__(self, paths: list[Path], *, verify: bool = False):
        columns = {"image", "label", "class_name"}
        self._split = ArrowSplit(paths, _SPEC, "imagenet", columns, read_texts=False, verify=verify)
        if not len(self._split):
            raise UserError(f"{paths[0]} has no rows. Write it again with: {WRITER}")
        batches = list(self._split.batches())
        self.labels = np.concatenate(
            [_labels(batch.column("label"), partial(self._split.place, number)) for number, batch in batches]
        )
        names = [_names(batch.column("class_name"), self._split.place(number, 0)[0]) for number, batch in batches]
        self.class_names = _class_names(pa.chunked_array(names), self.labels, paths[0])

    def read(self, number: int) -> pa.Buffer:
        return self._split.image(self._split.locate(number), "image")

    def place(self, number: int) -> Place:
        table, row = self._split.table_and_row(self._split.locate(number))
        return Place(f"{table}.arrow", row)


class ParquetImages:
    """Parquet files with columns image (bytes, or a struct with field "bytes" as on the hub), label and maybe class_name.

    A row group is decoded whole for any of its rows, and the last one is kept: good in order, slow when shuffled.
    """

    def __init__(self, paths: list[Path], *, verify: bool = False):
        self.paths, self.verify = [str(path) for path in paths], verify
        self.states = _states(self.paths)
        labels, names, groups = [], [], []
        for file, path in enumerate(self.paths):
            with _blaming(path, "a Parquet file"), _parquet(path, verify) as opened:
                columns = opened.schema_arrow.names
                if missing := {"image", "label"} - set(columns):
                    raise UserError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(columns)}")
                _check_parquet(path, opened)
                table = opened.read(columns=[name for name in ("label", "class_name") if name in columns])
                labels.append(_labels(table["label"].combine_chunks(), partial(Place, path)))
                names += [_names(table["class_name"].combine_chunks(), path)] if "class_name" in columns else []
                sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
            groups += [(file, number, size) for number, size in enumerate(sizes)]
        if verify and (without := [path for path in self.paths if self.states[path].checksum is None]):
            _log.warning("Can be verified only if their writer left checksums of pages: %s", ", ".join(without))
        self.labels = np.concatenate(labels)
        self._groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self._starts = np.concatenate([[0], np.cumsum(self._groups[:, 2])])
        self.class_names = _class_names(pa.chunked_array(names), self.labels, paths[0]) if names else None

    def _locate(self, number: int) -> tuple[int, int, int]:
        """File, row group, and row in the group."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        return *self._groups[group, :2].tolist(), number - int(self._starts[group])

    def read(self, number: int) -> pa.Buffer:
        file, group, row = self._locate(number)
        path = self.paths[file]
        image = _row_group(path, group, self.verify, self.states[path])[row]
        self.states[path] = require_unchanged(Path(path), self.states[path])  # after reading, so that nothing slips in
        return _present(image.as_py(), self.place(number))

    def place(self, number: int) -> Place:
        file, _, _ = self._locate(number)
        first = self._starts[np.flatnonzero(self._groups[:, 0] == file)[0]]
        return Place(self.paths[file], number - int(first))


@contextmanager
def _parquet(path: str, verify: bool) -> Iterator[pq.ParquetFile]:
    """A file, by a name that need not be UTF-8."""
    with pa.memory_map(os.fsencode(path)) as mapped:
        refuse_other_kinds(mapped.read(64))
        mapped.seek(0)
        yield pq.ParquetFile(mapped, page_checksum_verification=verify)


def _check_parquet(path: str, opened: pq.ParquetFile) -> None:
    """Raises UserError where images are no bytes; ValueError where a row group says that it grows out of proportion."""
    kind = opened.schema_arrow.field("image").type
    if pa.types.is_struct(kind):
        kind = next((kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"), pa.int8())
    if not is_binary(kind):
        raise UserError(f"{path}: column image holds {kind}, expected encoded images as bytes, or a struct with bytes")
    size, limit = os.stat(path).st_size, inflation_limit(0)
    for number in range(opened.num_row_groups):
        group = opened.metadata.row_group(number)
        declared = group.total_byte_size
        if declared > max(limit, 16 * size):
            raise ValueError(inflation_refusal(size, declared))


@lru_cache(maxsize=1)
def _row_group(path: str, group: int, verify: bool, state: FileState) -> pa.ChunkedArray:
    """The images of a row group. state: of the file, so that what is kept is of no older one."""
    with _blaming(path, "a Parquet file"), _parquet(path, verify) as opened:
        images = opened.read_row_group(group, columns=["image"])["image"].combine_chunks()
    return images.field("bytes") if pa.types.is_struct(images.type) else images


def _states(paths: list[str]) -> dict[str, FileState]:
    states = {}
    for path in paths:
        with _blaming(path, "a data file"):
            states[path] = file_state(Path(path))
    return states


@contextmanager
def _blaming(path: str, kind: str) -> Iterator[None]:
    """Errors of a damaged file as one that names it."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not {kind} ({error})") from error


def _present(image: bytes | None, place: Place) -> pa.Buffer:
    if image is None:
        raise UserError(
            f"{place.table} has no image in row {place.row} (it is null): remove the row, or write it again"
        )
    return pa.py_buffer(image)


class TarImages:
    """WebDataset tar files: KEY.jpg beside KEY.cls (the label as text), or KEY.json with "label" and maybe "class_name".

    The headers are read once, at the start; images are then read from their places, in any order.
    """

    def __init__(self, paths: list[Path], *, verify: bool = False):
        self.paths = [str(path) for path in paths]
        self.states = _states(self.paths)
        labels, names, members, checksums = [], [], [], []
        for file, path in enumerate(self.paths):
            found = _members(path)
            for key, parts in found.items():
                image = next((parts[suffix] for suffix in parts if f".{suffix}" in SUFFIXES), None)
                if image is None or _is_further_part(key, parts, found):
                    continue
                label, name, checksum = _tar_label(path, self.states[path], key, parts)
                labels.append(label)
                names.append(name)
                members.append((file, *image))
                checksums.append(checksum)
        self.has_checksums = None not in checksums
        self._checksums = np.array(checksums, dtype=np.uint32) if verify and self.has_checksums else None
        if verify and not self.has_checksums:
            _log.warning("Cannot be verified, as another writer left no checksums: %s", ", ".join(self.paths))
        self.labels = np.array(labels, dtype=np.int64)
        self._members = np.array(members, dtype=np.int64).reshape(-1, 3)
        self.class_names = None
        if names and None not in names:
            self.class_names = _class_names(pa.chunked_array([pa.array(names)]), self.labels, paths[0])

    def read(self, number: int) -> pa.Buffer:
        file, offset, size = self._members[number].tolist()
        path = self.paths[file]
        image = _read_at(path, self.states[path], offset, size)
        if self._checksums is not None and image_checksum(image) != self._checksums[number]:
            row = self.place(number).row
            raise UserError(f"{path} is damaged: the image in row {row} does not have the checksum it was written with")
        return pa.py_buffer(image)

    def place(self, number: int) -> Place:
        file = int(self._members[number, 0])
        return Place(self.paths[file], number - int(np.searchsorted(self._members[:, 0], file)))


def _members(path: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Key -> suffix -> (offset, size) of the regular files in a tar file, in its order."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with _blaming(path, "an uncompressed tar file"):
        with open(path, "rb") as opened:
            beginning = opened.read(4 * tarfile.BLOCKSIZE)
        refuse_other_kinds(beginning)
        with open(path, "rb") as opened, open_tar(Section(opened), path) as file:
            for member in members(file):
                if member.is_regular:
                    _, stem, suffix = split_name(member.path)
                    found.setdefault(stem, {})[suffix] = (member.offset, member.size)
            _require_end(path, file)
            if beginning[156:157] == tarfile.XGLTYPE and b"vlc." in beginning:  # typeflag of a header that we wrote
                told = file.pax_headers
                if mark_of(told) is None or told.get(FILE.decode()) != metadata_checksum(told):
                    raise ValueError("its global header is not as it was written")
    return found


def _require_end(path: str, file: tarfile.TarFile) -> None:
    """Raises ValueError where a file does not end as tar files do: tarfile takes a damaged header for the end."""
    with open(path, "rb") as opened:
        opened.seek(file.offset)
        end = opened.read(tarfile.BLOCKSIZE)
        follows = any(end) or any(any(chunk) for chunk in iter(lambda: opened.read(1 << 20), b""))
    if follows or (not end and mark_of(file.pax_headers) is not None):
        raise ValueError(f"no end of the file at byte {file.offset:,}: it is cut short, or a header is damaged")


def _is_further_part(key: str, parts: dict, found: dict[str, dict]) -> bool:
    """Whether an image without label, such as `a.mask.png`, belongs to a labelled one, `a.jpg` with `a.cls`."""
    sample = split_name(f"{key}.").sample
    return (
        parts.keys().isdisjoint(("cls", "json"))
        and key != sample
        and not found.get(sample, {}).keys().isdisjoint(("cls", "json"))
    )


def _tar_label(
    path: str, state: FileState, key: str, parts: dict[str, tuple[int, int]]
) -> tuple[int, str | None, int | None]:
    """Label, class name if told, and the checksum of the image if our writer left one."""
    try:
        described = json.loads(_read_at(path, state, *parts["json"])) if "json" in parts else {}
        label = int(_read_at(path, state, *parts["cls"])) if "cls" in parts else int(described["label"])
        if {ROW_CHECKSUM, IMAGE_CHECKSUM} & set(described) and (
            row_checksum(described) != described.get(ROW_CHECKSUM) or label != described["label"]
        ):
            raise UserError(f"{path} is damaged: {key}.json or {key}.cls is not as it was written")
        return label, described.get("class_name"), described.get(IMAGE_CHECKSUM)
    except UserError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{path}: {key} has no label: expected {key}.cls or "label" in {key}.json') from error


def _read_at(path: str, state: FileState, offset: int, size: int) -> bytes:
    """Bytes of the file that had this state when it was opened."""
    descriptor = _descriptor(path, state)
    data = os.pread(descriptor, size, offset)
    require_unchanged(Path(path), state, os.fstat(descriptor))
    if len(data) != size:
        raise UserError(f"{path} ends before byte {offset + size:,}: it was cut short")
    return data


@lru_cache(maxsize=256)
def _descriptor(path: str, state: FileState) -> int:
    """state: tells a file from one that had this name before."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{path} can no longer be read ({error.strerror}): it is needed until the end") from error


def _labels(column: pa.Array, place: Callable[[int], tuple[Path | str, int]]) -> np.ndarray:
    """Labels (N,) int64. Raises UserError for the first row, told by `place`, that holds none."""
    values = plain(column)
    understood = ~values.is_null().to_numpy(zero_copy_only=False)
    known = are_labels(values.drop_null())
    understood[understood] = False if known is None else known
    if not understood.all():
        row = int(understood.argmin())
        path, number = place(row)
        raise UserError(
            f"Row {number} of {path}: label is {values[row].as_py()!r}, expected a whole number from 0 to "
            f"{MOST_LABELS - 1:,}"
        )
    return values.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)


def _names(column: pa.Array, path: Path | str) -> pa.Array:
    """Class names as strings. Raises UserError where they are of another type."""
    values = plain(column)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or pa.types.is_null(values.type)):
        raise UserError(f"{path}: column class_name is {column.type}, expected strings")
    return values.cast(pa.large_string())


def _class_names(column: pa.ChunkedArray, labels: np.ndarray, path: Path) -> tuple[str, ...]:
    """Names by label; "" for labels that do not occur. Raises UserError where one label has two names, or no text."""
    if not is_text(column.type) or is_list(column.type):
        raise UserError(f"{path}: column class_name holds {column.type}, expected strings")
    pairs = pa.table({"label": labels, "name": column}).group_by(["label", "name"]).aggregate([]).to_pylist()
    names = [""] * (int(labels.max(initial=-1)) + 1)
    for pair in pairs:
        label, name = pair["label"], pair["name"] or ""
        if label < 0 or (names[label] and names[label] != name):
            raise UserError(f"{path}: label {label} has names {names[label]!r} and {name!r}")
        names[label] = name
    return tuple(names)


def check_classes(sources: dict[str, Source], num_classes: int, training: Sequence[str] = ("train",)) -> None:
    """Raise UserError where labels, class names or --nb_classes do not fit each other, or a class has no images.

    sources: by split. A class without images is a mistake in the splits named by `training` only.
    """
    for split, source in sources.items():
        found = max(len(source.class_names or ()), int(source.labels.max(initial=-1)) + 1)
        complete = split in training or isinstance(source, FolderImages)
        if not len(source.labels):
            raise UserError(f"Split {split!r} has no images")
        if source.labels.min() < 0 or found > num_classes or (found < num_classes and complete):
            raise UserError(
                f"Split {split!r} has {found} classes{_examples(source)}, but --nb_classes is {num_classes}: "
                f"pass --nb_classes {found}, or mend the data"
            )
        if split in training:
            empty = np.flatnonzero(np.bincount(source.labels, minlength=num_classes) == 0)
            if len(empty):
                names = [_name(source, label) for label in empty[:5].tolist()]
                raise UserError(f"Split {split!r} has no images of {len(empty)} classes: {', '.join(names)}")
    named = {split: source.class_names for split, source in sources.items() if source.class_names}
    (first, names), *others = named.items() if named else [("", ())]
    for split, other in others:
        differing = [
            (label, a, b) for label, (a, b) in enumerate(zip(names, other, strict=False)) if a and b and a != b
        ]
        if differing:
            label, a, b = differing[0]
            raise UserError(
                f"Class {label} is {a!r} in split {first!r} and {b!r} in split {split!r}: both need the same classes"
            )


def _examples(source: Source) -> str:
    return f" ({', '.join(source.class_names[:3])}, ...)" if source.class_names else ""


def _name(source: Source, label: int) -> Any:
    return source.class_names[label] if source.class_names else f"class {label}"
