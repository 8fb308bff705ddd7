"""Data sets annotated by a JSON list of [path or URL of an image, text or list of texts]."""

import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.conversion import CAPTIONS, Conversion
from write_arrow.machine.plans import Files, Groups, Plans
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.storage import StoredFile
from write_arrow.machine.writer import PlannedTable


@dataclass(frozen=True)
class Part:
    """A file of annotations.

    annotations: its path.
    folders: those that hold its images.
    stem: the name of what is written.
    split: the value of that column.
    bare: the published converter stored texts as they came, so that strings became a column of strings.
    """

    annotations: str
    folders: tuple[str, ...]
    stem: str
    split: str = "train"
    bare: bool = False


def _part(part: Part, conversion: Conversion) -> list[PlannedTable]:
    texts = conversion.groups()
    by_name = conversion.groups()  # annotated paths by the name they end in
    for entry in conversion.entries(part.annotations):
        path, text = _pair(entry, part, conversion)
        texts.add(os.path.basename(path) if conversion.compat else path, text)
        if not conversion.compat:
            by_name.add(os.path.basename(path), path)
    files = conversion.files(*part.folders)
    if conversion.compat:
        plans, schema = _published(part, conversion, texts, files)
    else:
        plans, schema = _plans(part, conversion, texts, by_name, files), CAPTIONS
    conversion.found(part.stem, files, plans, texts.num_values)
    return conversion.table(part.stem, schema, plans)


def _pair(entry: Any, part: Part, conversion: Conversion) -> tuple[str, str | list[str]]:
    match entry:
        case [str(path), str(text)]:
            return path, text
        case [str(path), [*texts]] if all(isinstance(text, str) for text in texts):
            return path, texts
    where = conversion.root.where(part.annotations)
    raise UserError(f"{where}: an entry is not [path, text] or [path, list of texts]: {str(entry)[:200]}")


def _plans(part: Part, conversion: Conversion, texts: Groups[str], by_name: Groups[str], files: Files) -> Plans:
    plans = conversion.plans()
    for path, found in texts:
        file = _file(path, part, by_name, files)
        if isinstance(file, str):
            plans.reject(path, file)
        elif file is None:
            plans.num_missing += 1
        elif caption := [text for value in found for text in ([value] if isinstance(value, str) else value)]:
            plans.append([file], caption=caption, image_id=file.path, split=part.split)
        else:
            plans.reject(path, "no caption")
    return plans


def _file(path: str, part: Part, by_name: Groups[str], files: Files) -> StoredFile | str | None:
    """The file of an annotated path, None if there is none, or the reason why it cannot be told."""
    for folder in ("", *part.folders):
        if file := files.get(os.path.join(folder, path)):
            return file
    name = os.path.basename(path)  # of a URL, or of a path in another layout
    same_name = files.named(name)
    if len(same_name) > 1:
        return f"{len(same_name)} files have this name, and none this path"
    if same_name and len(set(by_name[name])) > 1:
        return "several annotated paths end in this name, and the file has none of them"
    return same_name[0] if same_name else None


def _published(part: Part, conversion: Conversion, texts: Groups[str], files: Files) -> tuple[Plans, pa.Schema]:
    """As the published converters: files found by name alone, and the text listed last for the name."""
    plans = conversion.plans()
    schema = CAPTIONS
    for file in files:
        name = os.path.basename(file.path)
        if found := texts[name]:
            text = found[-1]
            if part.bare and isinstance(text, str):
                schema = CAPTIONS.set(1, pa.field("caption", pa.string()))
            caption = text if part.bare or not isinstance(text, str) else [text]
            plans.append([file], caption=caption, image_id=name, split=part.split)
    return plans, schema


def _source(summary: str, layout: str, *parts: Part) -> RawSource:
    def tables(conversion: Conversion) -> list[PlannedTable]:
        """Files of captions; each image has all its texts, in the order of the annotations."""
        return [table for part in parts for table in _part(part, conversion)]

    return RawSource(summary, layout, tables, order=RowOrder.SHUFFLED, published=True)


SOURCES = {
    "sbu": _source("SBU captions", "annot.json, images_train/*/*", Part("annot.json", ("images_train",), "sbu_*")),
    "gcc": _source(
        "Conceptual Captions",
        "train_annot.json, val_annot.json, images_train/*/*, images_val/*/*",
        Part("train_annot.json", ("images_train",), "conceptual_caption_train_*"),
        Part("val_annot.json", ("images_val",), "conceptual_caption_val_*", "val"),
    ),
    "openimages": _source(
        "Open Images with narratives",
        "oi_annt.json, images/train/*.jpg",
        Part("oi_annt.json", ("images",), "openimages_*"),
    ),
    "pretrain_flickr30k": _source(
        "Flickr30k, as further captions",
        "flickr30k_annt.json, images/*.jpg",
        Part("flickr30k_annt.json", ("images",), "pretrain_flickr30k_train"),
    ),
    "pretrain_gqa": _source(
        "GQA, as captions", "gqa_annt.json, images/*.jpg", Part("gqa_annt.json", ("images",), "pretrain_gqa_*")
    ),
    "pretrain_vg": _source(
        "Visual Genome QA, as captions",
        "vgqa_annt.json, images/*.jpg",
        Part("vgqa_annt.json", ("images",), "pretrain_vg_*"),
    ),
    "pretrain_vqav2": _source(
        "VQA v2, as captions",
        "vqa_annt.json, train2014/*.jpg, val2014/*.jpg",
        Part("vqa_annt.json", ("train2014", "val2014"), "pretrain_vqa_*", bare=True),
    ),
}
