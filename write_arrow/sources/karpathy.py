"""COCO and Flickr30k captions in Karpathy's splits.

The splits, with the captions, are those of "Deep Visual-Semantic Alignments" (Karpathy and Fei-Fei, 2015).
"""

import os

from vlc.common.errors import UserError
from write_arrow.machine.conversion import CAPTIONS, Conversion
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.writer import PlannedTable


def coco(conversion: Conversion) -> list[PlannedTable]:
    """coco_caption_karpathy_{train,restval,val,test}"""
    return _tables(conversion, "coco", ("train2014", "val2014"), ("train", "restval", "val", "test"))


def f30k(conversion: Conversion) -> list[PlannedTable]:
    """f30k_caption_karpathy_{train,val,test}"""
    return _tables(conversion, "flickr30k", ("flickr30k-images",), ("train", "val", "test"))


def _tables(
    conversion: Conversion, data_set: str, folders: tuple[str, ...], splits: tuple[str, ...]
) -> list[PlannedTable]:
    annotations = f"karpathy/dataset_{data_set}.json"
    entries = conversion.entries(annotations, "images")
    files = conversion.files(*folders)
    plans = {split: conversion.plans() for split in splits}
    num_captions = dict.fromkeys(splits, 0)
    for entry in entries:
        name, split = conversion.typed(entry, annotations, filename=str, split=str)
        (sentences,) = conversion.typed(entry, annotations, sentences=list)
        if split not in plans:
            raise UserError(f"{conversion.root.where(annotations)}: {name} is of split {split!r}, not of {splits}")
        (folder,) = conversion.typed({"filepath": folders[0]} | entry, annotations, filepath=str)
        file = files.get(os.path.join(folder, name))
        if file is None:
            plans[split].num_missing += 1
            continue
        captions = [conversion.typed(sentence, annotations, raw=str)[0] for sentence in sentences]
        plans[split].append([file], caption=captions, image_id=name, split=split)
        num_captions[split] += len(captions)
    short = {"coco": "coco", "flickr30k": "f30k"}[data_set]
    for split in splits:
        conversion.found(f"{short} {split}", files, plans[split], num_captions[split])
    return [
        table
        for split in splits
        for table in conversion.table(f"{short}_caption_karpathy_{split}", CAPTIONS, plans[split])
    ]


SOURCES = {
    "coco": RawSource(
        "COCO captions, Karpathy's splits",
        "karpathy/dataset_coco.json, train2014/*.jpg, val2014/*.jpg",
        coco,
        order=RowOrder.SHUFFLED,
        published=True,
    ),
    "f30k": RawSource(
        "Flickr30k captions, Karpathy's splits",
        "karpathy/dataset_flickr30k.json, flickr30k-images/*.jpg",
        f30k,
        order=RowOrder.SHUFFLED,
        published=True,
    ),
}
