"""ImageNet-1K, or any folder with train/CLASS/* and val/CLASS/*, as Arrow shards of encoded images with labels.

--root is such a folder, or one with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which are read where they are.
The validation tar holds no classes: --val-labels names them.
"""

import re
import tarfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
from PIL import Image

from vlc.errors import MissingFile, UserError
from write_arrow.writer import Table

SCHEMA = pa.schema({"image": pa.binary(), "label": pa.int64(), "class_name": pa.string()})
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_SUFFIXES = frozenset(Image.registered_extensions())
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\D.*?\b(n\d{8})")


class Member(NamedTuple):
    """An image's place: a whole file, or `size` bytes from `offset` of a tar file; and its class."""

    path: Path
    class_name: str
    offset: int = 0
    size: int = -1


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, required=True, help="folder with train/ and val/, or with the two tar files"
    )
    parser.add_argument(
        "--val-labels",
        type=Path,
        help="text that names the class of every image of the validation tar: lines such as "
        "'ILSVRC2012_val_00000001.JPEG ... n01751748' (valprep.sh, LOC_val_solution.csv), or one class a line, in order",
    )
    parser.add_argument("--name", default="imagenet", help="the files' first word (default: imagenet)")
    parser.add_argument("--shard-size", type=int, default=10_000, help="images in a file (default: 10000)")


def tables(arguments: Namespace) -> list[Table]:
    if arguments.shard_size < 1:
        raise UserError(f"--shard-size {arguments.shard_size} must be at least 1")
    splits = {"train": list(_train(arguments.root)), "val": list(_val(arguments.root, arguments.val_labels))}
    classes = sorted({member.class_name for member in splits["train"]})
    labels = {name: label for label, name in enumerate(classes)}
    unknown = sorted({member.class_name for member in splits["val"]} - set(classes))
    if unknown:
        raise UserError(f"val has classes that train lacks: {', '.join(unknown[:5])}. Both need the same classes")
    made = []
    for split, members in splits.items():
        for number, first in enumerate(range(0, len(members), arguments.shard_size)):
            part = members[first : first + arguments.shard_size]
            made.append(Table(f"{arguments.name}_{split}_{number}", SCHEMA, _rows(part, labels), len(part)))
    return made


def _rows(members: list[Member], labels: dict[str, int]) -> Iterator[dict[str, Any]]:
    for member in members:
        with open(member.path, "rb") as file:
            file.seek(member.offset)
            image = file.read(member.size)
        yield {"image": image, "label": labels[member.class_name], "class_name": member.class_name}


def _train(root: Path) -> Iterator[Member]:
    if (root / "train").is_dir():
        yield from _folder(root / "train")
    elif (root / TRAIN_TAR).is_file():
        yield from _train_tar(root / TRAIN_TAR)
    else:
        raise MissingFile(f"--root {root} has neither a folder train nor {TRAIN_TAR}")


def _val(root: Path, labels: Path | None) -> Iterator[Member]:
    if (root / "val").is_dir():
        yield from _folder(root / "val")
    elif (root / VAL_TAR).is_file():
        yield from _val_tar(root / VAL_TAR, labels)
    else:
        raise MissingFile(f"--root {root} has neither a folder val nor {VAL_TAR}")


def _folder(folder: Path) -> Iterator[Member]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise UserError(f"{folder} holds no folders of classes: expected {folder}/CLASS/IMAGE.jpg")
    for path in classes:
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
        if not images:
            raise UserError(f"Class folder {path} has no images")
        yield from (Member(image, path.name) for image in images)


def _train_tar(path: Path) -> Iterator[Member]:
    """A tar file of a tar file for each class. Only headers are read: images follow when they are written."""
    for outer, _ in _tar_members(path):
        with open(path, "rb") as file:
            inside = _Section(file, outer.offset_data, outer.size)
            for member, _ in _tar_members(path, inside):
                yield Member(path, Path(outer.name).stem, outer.offset_data + member.offset_data, member.size)


def _val_tar(path: Path, labels: Path | None) -> Iterator[Member]:
    if labels is None:
        raise UserError(
            f"{path} does not tell classes: pass --val-labels FILE (see python -m write_arrow imagenet --help)"
        )
    members = sorted(_tar_members(path), key=lambda found: found[0].name)
    classes = _val_classes(labels, [name for _, name in members])
    for (member, _), class_name in zip(members, classes, strict=True):
        yield Member(path, class_name, member.offset_data, member.size)


def _val_classes(path: Path, names: list[str]) -> list[str]:
    """The class of each validation image, by its number or in order."""
    if not path.is_file():
        raise MissingFile(f"--val-labels {path} does not exist")
    text = path.read_text(encoding="utf-8")
    by_number = {int(number): name for number, name in _VAL_NAME.findall(text)}
    if by_number:
        numbers = [int(re.sub(r"\D", "", name.rpartition("_")[2])) for name in names]
        missing = [name for name, number in zip(names, numbers, strict=True) if number not in by_number]
        if missing:
            raise UserError(f"--val-labels {path} lacks {len(missing)} images, such as {missing[0]}")
        return [by_number[number] for number in numbers]
    lines = text.split()
    if len(lines) != len(names) or not all(re.fullmatch(r"n\d{8}", line) for line in lines):
        raise UserError(
            f"--val-labels {path}: expected {len(names)} lines such as 'n01751748', or lines that name the image too; "
            f"found {len(lines)} words, the first {lines[:1]}"
        )
    return lines


def _tar_members(path: Path, file: IO[bytes] | None = None) -> Iterator[tuple[tarfile.TarInfo, str]]:
    try:
        with tarfile.open(path, "r:", fileobj=file) as archive:
            for member in archive:
                if member.isfile():
                    yield member, member.name
    except tarfile.TarError as error:
        raise UserError(f"{path} is damaged or not a tar file ({error})") from error


class _Section:
    """A part of an open file as a file of its own, for tarfile."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self.file, self.start, self.size, self.position = file, start, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + {0: 0, 1: self.position, 2: self.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(self.size - self.position, 0)
        self.file.seek(self.start + self.position)
        data = self.file.read(left if size < 0 else min(size, left))
        self.position += len(data)
        return data
