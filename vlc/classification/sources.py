"""Labelled images in the forms they come in: a folder for each class, Arrow or Parquet shards, WebDataset tar files.

Every source knows all labels from the start and reads an image's encoded bytes by its number.
"""

import json
import os
import re
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torchvision.datasets.folder import find_classes, make_dataset

from vlc.data.arrow import ArrowSplit
from vlc.data.spec import DatasetSpec
from vlc.errors import MissingFile, UserError

WRITER = "python -m write_arrow imagenet"
_SPEC = DatasetSpec(writer="imagenet", tables={})
_SUFFIXES = tuple(Image.registered_extensions())  # the writer's too
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


def open_split(data_path: str | Path, split: str) -> Source:
    """The images of a split: DATA_PATH/SPLIT/CLASS/*, or the shards DATA_PATH/NAME_SPLIT_*.{arrow,parquet,tar}.

    DATA_PATH/NAME chooses among several data sets in one folder. Raises MissingFile or UserError, naming what was found.
    """
    path = Path(data_path)
    if (path / split).is_dir():
        return FolderImages(path / split)
    shards = find_shards(path, split)
    kinds = {shard.suffix for shard in shards}
    if len(kinds) > 1:
        raise UserError(f"{path}: split {split!r} has shards of several kinds ({', '.join(sorted(kinds))}): keep one")
    return {".arrow": ArrowImages, ".parquet": ParquetImages, ".tar": TarImages}[kinds.pop()](shards)


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
            names, labels = find_classes(str(root))
            samples = make_dataset(str(root), labels, _SUFFIXES, allow_empty=True)
        except FileNotFoundError as error:
            raise MissingFile(f"{root} holds no folder for any class: expected {root}/CLASS/IMAGE.jpg") from error
        self.class_names: tuple[str, ...] | None = tuple(names)
        self.labels = np.array([label for _, label in samples], dtype=np.int64)
        self._paths = pa.array([path for path, _ in samples], pa.string())

    def read(self, number: int) -> pa.Buffer:
        return pa.py_buffer(Path(self._paths[number].as_py()).read_bytes())

    def place(self, number: int) -> Place:
        return Place(self._paths[number].as_py(), 0)


class ArrowImages:
    """Arrow files with columns image (encoded bytes), label (integer) and class_name (string), memory-mapped."""

    def __init__(self, paths: list[Path]):
        self._split = ArrowSplit(paths, _SPEC, "imagenet", {"image", "label", "class_name"}, read_texts=False)
        if not len(self._split):
            raise UserError(f"{paths[0]} has no rows. Write it again with: {WRITER}")
        self.labels = _labels(self._split.column("label"), paths[0])
        self.class_names = _class_names(self._split.column("class_name"), self.labels, paths[0])

    def read(self, number: int) -> pa.Buffer:
        return self._split.image(self._split.locate(number), "image")

    def place(self, number: int) -> Place:
        table, row = self._split.table_and_row(self._split.locate(number))
        return Place(f"{table}.arrow", row)


class ParquetImages:
    """Parquet files with columns image (bytes, or a struct with field "bytes" as on the hub), label and maybe class_name.

    A row group is decoded whole for any of its rows, and the last one is kept: good in order, slow when shuffled.
    """

    def __init__(self, paths: list[Path]):
        self.paths = [str(path) for path in paths]
        labels, names, groups = [], [], []
        for file, path in enumerate(self.paths):
            try:
                metadata = pq.ParquetFile(path)
                columns = metadata.schema_arrow.names
                if missing := {"image", "label"} - set(columns):
                    raise UserError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(columns)}")
                table = metadata.read(columns=[name for name in ("label", "class_name") if name in columns])
            except (pa.ArrowInvalid, OSError) as error:
                raise UserError(f"{path} is damaged or not a Parquet file ({error})") from error
            labels.append(_labels(table["label"], paths[file]))
            names += table["class_name"].chunks if "class_name" in columns else []
            sizes = [metadata.metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            groups += [(file, number, size) for number, size in enumerate(sizes)]
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
        return pa.py_buffer(_row_group(self.paths[file], group)[row].as_py())

    def place(self, number: int) -> Place:
        file, _, _ = self._locate(number)
        first = self._starts[np.flatnonzero(self._groups[:, 0] == file)[0]]
        return Place(self.paths[file], number - int(first))


@lru_cache(maxsize=1)
def _row_group(path: str, group: int) -> pa.ChunkedArray:
    images = pq.ParquetFile(path).read_row_group(group, columns=["image"])["image"].combine_chunks()
    return images.field("bytes") if pa.types.is_struct(images.type) else images


class TarImages:
    """WebDataset tar files: KEY.jpg beside KEY.cls (the label as text), or KEY.json with "label" and maybe "class_name".

    The headers are read once, at the start; images are then read from their places, in any order.
    """

    def __init__(self, paths: list[Path]):
        self.paths = [str(path) for path in paths]
        labels, names, members = [], [], []
        for file, path in enumerate(self.paths):
            for key, parts in _members(path).items():
                image = next((parts[suffix] for suffix in parts if f".{suffix}" in _SUFFIXES), None)
                if image is None:
                    continue
                label, name = _tar_label(path, key, parts)
                labels.append(label)
                names.append(name)
                members.append((file, *image))
        self.labels = np.array(labels, dtype=np.int64)
        self._members = np.array(members, dtype=np.int64).reshape(-1, 3)
        self.class_names = None
        if names and None not in names:
            self.class_names = _class_names(pa.chunked_array([pa.array(names)]), self.labels, paths[0])

    def read(self, number: int) -> pa.Buffer:
        file, offset, size = self._members[number].tolist()
        return pa.py_buffer(_read_at(self.paths[file], offset, size))

    def place(self, number: int) -> Place:
        file = int(self._members[number, 0])
        return Place(self.paths[file], number - int(np.searchsorted(self._members[:, 0], file)))


def _members(path: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Key -> suffix -> (offset, size) of the regular files in a tar file, in its order."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    key, _, suffix = name.partition(".")
                    found.setdefault(f"{folder}/{key}", {})[suffix.lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise UserError(f"{path} is damaged or not an uncompressed tar file ({error})") from error
    return found


def _tar_label(path: str, key: str, parts: dict[str, tuple[int, int]]) -> tuple[int, str | None]:
    try:
        if "cls" in parts:
            label, described = int(_read_at(path, *parts["cls"])), {}
        else:
            described = json.loads(_read_at(path, *parts["json"]))
            label = int(described["label"])
        if "json" in parts and not described:
            described = json.loads(_read_at(path, *parts["json"]))
    except (KeyError, ValueError) as error:
        raise UserError(f'{path}: {key} has no label: expected {key}.cls or "label" in {key}.json') from error
    return label, described.get("class_name")


def _read_at(path: str, offset: int, size: int) -> bytes:
    return os.pread(_descriptor(path), size, offset)


@lru_cache(maxsize=256)
def _descriptor(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def _labels(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UserError(f"{path}: column label holds {column.type} with {column.null_count} nulls, expected integers")
    return column.to_numpy().astype(np.int64)


def _class_names(column: pa.ChunkedArray, labels: np.ndarray, path: Path) -> tuple[str, ...]:
    """Names by label; "" for labels that do not occur. Raises UserError where one label has two names."""
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
