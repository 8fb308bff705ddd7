"""12-in-1's caption files of COCO and Flickr30k: its training captions, and the 1,000 test images of its retrieval figures.

The files come from "12-in-1: Multi-Task Vision and Language Representation Learning" (Lu et al. 2020). It validates on
its test file, as there is no other. Here validation images are Karpathy's, and none of them is trained on or tested.
"""

import os
from typing import Any

from vlc.common.errors import UserError
from write_arrow.machine.conversion import CAPTIONS, Conversion
from write_arrow.machine.plans import Files, Plans
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.writer import PlannedTable

_TRAIN, _TEST = (f"retrieval/all_data_final_{name}_2014.jsonline" for name in ("train", "test_set0"))


def _tables(conversion: Conversion, annotations: str, folders: tuple[str, ...], stem: str) -> list[PlannedTable]:
    files, validated = conversion.files(*folders), conversion.groups()
    plans = {split: conversion.plans() for split in ("train", "val", "test")}
    for entry in conversion.entries(annotations, "images"):
        name, split, sentences = conversion.typed(entry, annotations, filename=str, split=str, sentences=list)
        if split == "val":
            (folder,) = conversion.typed({"filepath": folders[0]} | entry, annotations, filepath=str)
            captions = [conversion.typed(sentence, annotations, raw=str)[0] for sentence in sentences]
            validated.add(name, True)
            _append(plans["val"], files, (os.path.join(folder, name),), captions, split)
    for split, path in (("train", _TRAIN), ("test", _TEST)):
        for entry in conversion.lines(path):
            image, captions = conversion.typed(entry, path, img_path=str, sentences=list)
            if not all(isinstance(caption, str) for caption in captions):
                raise UserError(f"{conversion.root.where(path)}: sentences of {image} are not all texts")
            if validated[os.path.basename(image)]:
                plans[split].reject(image, "an image of Karpathy's validation split")
            else:
                _append(plans[split], files, (image, os.path.join(folders[0], image)), captions, split)
    for split, own in plans.items():
        left_out = f"; {own.num_rejected:,} were left out" if own.num_rejected else ""
        conversion.notes.append(f"{stem}_{split}: {own.num_planned:,} images{left_out}")
    return [table for split, own in plans.items() for table in conversion.table(f"{stem}_{split}", CAPTIONS, own)]


def _append(plans: Plans, files: Files, paths: tuple[str, ...], captions: list[Any], split: str) -> None:
    """Plan an image that lies at one of these paths; without file or captions it is listed as rejected."""
    file = next((file for path in paths if (file := files.get(path))), None)
    if file is None or not captions:
        plans.reject(paths[0], "no caption" if file else "no such file")
    else:
        plans.append([file], caption=captions, image_id=os.path.basename(file.path), split=split)


def _source(title: str, data_set: str, folders: tuple[str, ...], stem: str) -> RawSource:
    annotations = f"karpathy/dataset_{data_set}.json"

    def tables(conversion: Conversion) -> list[PlannedTable]:
        return _tables(conversion, annotations, folders, stem)

    layout = ", ".join([_TRAIN, _TEST, annotations, *(f"{folder}/*.jpg" for folder in folders)])
    return RawSource(f"{title} captions for retrieval, 12-in-1's files", layout, tables, order=RowOrder.SHUFFLED)


SOURCES = {
    "coco_retrieval": _source("COCO", "coco", ("train2014", "val2014"), "coco_retrieval"),
    "f30k_retrieval": _source("Flickr30k", "flickr30k", ("flickr30k-images",), "f30k_retrieval"),
}
