"""ImageNet-1K, or images of your own in a folder for each class, as shards of encoded images with labels.

--root holds the folders train/CLASS and val/CLASS, or ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which are read
where they are. The validation tar does not tell classes: --val-labels does. A class's label is its place among the sorted
names of the training classes, whatever is left out or limited.
"""

import re
from argparse import ArgumentParser
from collections.abc import Iterator
from os.path import splitext
from pathlib import PurePath

import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from vlc.data.images import SUFFIXES
from vlc.data.tar_files import Section, members, open_tar
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.shards import FILE_FORMATS
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.storage import Folder, StoredFile
from write_arrow.machine.writer import PlannedTable

SCHEMA = pa.schema({"image": pa.binary(), "label": pa.int64(), "class_name": pa.string()})
TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
SHARD_ROWS = 10_000
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\D.*?\b(n\d{8})")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--val-labels",
        metavar="FILE",
        help="text, below --root or anywhere, that names the class of every image of the validation tar: lines such as "
        "'ILSVRC2012_val_00000001.JPEG ... n01751748' (valprep.sh, LOC_val_solution.csv), or one class a line, in order",
    )
    parser.add_argument(
        "--stem", default="imagenet", help="name of the files, before _train_0 and _val_0 (default: imagenet)"
    )
    parser.add_argument(
        "--shard-size", type=int, default=SHARD_ROWS, metavar="N", help="images in a file (default: %(default)s)"
    )
    add_format(parser)


def add_format(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=FILE_FORMATS, default="arrow", help="kind of the files (default: arrow)")


def tables(conversion: Conversion) -> list[PlannedTable]:
    """STEM_train_0, ..., STEM_val_0, ...: an image with its label and the name of its class."""
    options = conversion.options
    if options.shard_size < 1:
        raise UserError(f"--shard-size {options.shard_size} must be at least 1")
    labels = {name: label for label, name in enumerate(_classes(conversion.root))}
    made = []
    for split in TARS:
        plans, without = conversion.plans(), set(labels)
        for class_name, image in _images(conversion, split):
            if class_name not in labels:
                raise UserError(f"{split} has class {class_name}, which train lacks. Both need the same classes")
            plans.append([image], label=labels[class_name], class_name=class_name)
            without.discard(class_name)
        if without and split == "train":
            raise UserError(f"train has no images of {len(without)} classes: {', '.join(sorted(without)[:5])}")
        conversion.notes.append(f"{split}: {plans.num_planned:,} images of {len(labels) - len(without):,} classes")
        stem, form = f"{options.stem}_{split}_*", FILE_FORMATS[options.format]
        made += conversion.table(stem, SCHEMA, plans, num_rows=options.shard_size, form=form)
    return made


def _classes(root: Folder) -> list[str]:
    """The names of the training classes, sorted."""
    if _is_folder(root, "train"):
        names = root.folders("train")
    else:
        names = sorted(PurePath(of_class.member).stem for of_class in _tar_members(root, root.stat(TARS["train"])))
    if not names:
        raise UserError(f"{root.where('train')} holds no folders of classes: expected train/CLASS/IMAGE.jpg")
    return names


def _is_folder(root: Folder, split: str) -> bool:
    """Whether a split is a folder or a tar file. Raises MissingFile where it is neither."""
    if split in root.folders(""):
        return True
    if not root.exists(TARS[split]):
        raise MissingFile(f"{root} has neither a folder {split} nor {TARS[split]}")
    return False


def _images(conversion: Conversion, split: str) -> Iterator[tuple[str, StoredFile]]:
    """Class and place of each image of a split."""
    root, val_labels = conversion.root, conversion.options.val_labels
    if _is_folder(root, split):
        if val_labels and split == "val":
            raise UserError(f"--val-labels is for {TARS['val']}: the classes of {root.where('val')} are its folders")
        yield from _folder_images(conversion, split)
    elif split == "train":
        for of_class in _tar_members(root, root.stat(TARS["train"])):
            class_name = PurePath(of_class.member).stem
            yield from ((class_name, image) for image in _tar_members(root, of_class))
    else:
        if not val_labels:
            raise UserError(
                f"{root.where(TARS['val'])} does not tell classes: pass --val-labels FILE (see python -m write_arrow "
                "imagenet --help)"
            )
        images = sorted(_tar_members(root, root.stat(TARS["val"])), key=lambda image: image.member)  # 50,000
        yield from zip(_val_classes(conversion, [image.member for image in images]), images, strict=True)


def _folder_images(conversion: Conversion, split: str) -> Iterator[tuple[str, StoredFile]]:
    for file in conversion.files(split):
        _, class_name, *below = PurePath(file.path).parts
        if below and splitext(file.path)[1].lower() in SUFFIXES:
            yield class_name, file


def _val_classes(conversion: Conversion, names: list[str]) -> list[str]:
    """The class of each validation image, by its number or in order."""
    path = conversion.options.val_labels
    try:
        text = conversion.root.read_text(conversion.named(path))
    except UnicodeDecodeError as error:
        raise UserError(f"--val-labels {path} is not a text in UTF-8 ({error})") from error
    if text is None:
        raise MissingFile(f"--val-labels {path} does not exist")
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


def _tar_members(root: Folder, tar: StoredFile) -> Iterator[StoredFile]:
    """The places of a tar file's regular members; the tar may be a member of another. Images are read when written."""
    with (
        root.open(tar.path) as file,
        open_tar(Section(file, tar.offset or 0, tar.size), root.where(tar.name)) as archive,
    ):
        for member in members(archive):
            if member.is_regular:
                name = member.path if tar.member is None else f"{tar.member}/{member.path}"
                yield StoredFile(tar.path, member.size, tar.version, member.offset, name)


SOURCES = {
    "imagenet": RawSource(
        "ImageNet-1K, or images of your own in a folder for each class, as shards with labels",
        "train/CLASS/*, val/CLASS/*; or ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar",
        tables,
        add_options,
        order=RowOrder.SHUFFLED_IF_ASKED,
    )
}
