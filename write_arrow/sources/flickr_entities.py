"""Flickr30k Entities: phrases of Flickr30k's captions with boxes. https://github.com/BryanPlummer/flickr30k_entities

A row is an image with the phrases of its captions that have boxes. All boxes of a phrase's chain are its `target_boxes`,
and all boxes of the image are the candidates (`boxes`). Phrases without a box are counted.

The XML files count pixels from 1. Here they are counted from 0: 1 is subtracted from all four edges, as in the published
readers. Boxes are cut to their image. A phrase whose boxes have no size is left out and listed, and so is an image of
another size than its XML file states. XML files that declare a document type are refused, because entities of theirs could
be expanded endlessly.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree import ElementTree

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.boxes import Cutter
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Files, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable

_TEXTS = pa.list_(pa.string())
_BOXES = pa.list_(pa.list_(pa.float64()))
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "phrases": _TEXTS,
        "phrase_id": _TEXTS,  # IMAGE-CAPTION-PHRASE, both counted from 0
        "chain_id": _TEXTS,  # what is meant; several phrases may mean the same
        "phrase_types": _TEXTS,  # such as people, or clothing/other
        "target_boxes": pa.list_(_BOXES),
        "boxes": _BOXES,
        "width": pa.int64(),
        "height": pa.int64(),
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)
_SPLITS = ("train", "val", "test")
_WITH_BOX = "with boxes"
_IMAGES = "flickr30k-images"
_PHRASE = re.compile(r"\[/EN#(?P<chain>[^/\s\]]+)/(?P<types>\S+) (?P<words>[^\[\]]*)\]")
_NOT_VISUAL = "0"  # the chain of phrases that name nothing


class _Phrase(NamedTuple):
    """A marked phrase of a caption. types: joined by a slash."""

    text: str
    chain: str
    types: str


@dataclass
class _Annotation:
    """An XML file.

    boxes: of all objects, in the order of the file, each cut to the image.
    chains: for each chain the places of its boxes.
    others: for each chain without box the reason. A chain with boxes may have a reason too.
    unusable: the chains that have a box without size in the image.
    """

    width: int
    height: int
    boxes: list[list[float]] = field(default_factory=list)
    chains: dict[str, list[int]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)

    def reason(self, chain: str) -> str:
        """Why a chain has no box."""
        return "not visual" if chain == _NOT_VISUAL else self.others.get(chain, "not in the XML file")


def tables(conversion: Conversion) -> list[PlannedTable]:
    """flickr_entities_{train,val,test}: an image with its phrases, their boxes, and all boxes of the image."""
    files, made, cutter = conversion.files(_IMAGES), [], Cutter()
    for split in _SPLITS:
        plans, counts = conversion.plans(), Counter[str]()
        for image in _images(split, conversion):
            counts += _plan(image, split, files, plans, cutter, conversion)
        num_phrases = counts.pop(_WITH_BOX, 0)
        others = "".join(f", {count:,} {reason}" for reason, count in sorted(counts.items()))
        told = f"{plans.num_planned:,} images; phrases: {num_phrases:,} {_WITH_BOX}{others}"
        conversion.notes.append(f"flickr_entities_{split}: {told}")
        made += conversion.table(f"flickr_entities_{split}", SCHEMA, plans)
    conversion.notes.append(cutter.note("Boxes"))
    return made


def _images(split: str, conversion: Conversion) -> Iterator[str]:
    """The numbers of a split's images."""
    path = f"entities/{split}.txt"
    with conversion.root.open(path) as file:
        for line in file:
            if name := line.strip().decode("utf-8", "replace"):
                if not (name.isascii() and name.isdecimal()):
                    raise UserError(f"{conversion.root.where(path)}: {name!r:.80} should be the number of an image")
                yield name


def _plan(image: str, split: str, files: Files, plans: Plans, cutter: Cutter, conversion: Conversion) -> Counter[str]:
    """Plan an image's row. Returns the numbers of its phrases with boxes, and of those without by the reason."""
    path, counts = f"{_IMAGES}/{image}.jpg", Counter[str]()
    file = files.get(path)
    if file is None:
        plans.reject(path, "no such file")
        return counts
    annotation = _annotation(f"entities/Annotations/{image}.xml", cutter, conversion)
    values: dict[str, list] = {
        name: [] for name in ("phrases", "phrase_id", "chain_id", "phrase_types", "target_boxes")
    }
    for caption, line in enumerate(_text(f"entities/Sentences/{image}.txt", conversion).split("\n")):
        phrases = [_Phrase(match["words"], match["chain"], match["types"]) for match in _PHRASE.finditer(line)]
        if len(phrases) != line.count("[/EN#"):
            plans.reject(path, f"caption {caption} has a mark that is not [/EN#CHAIN/TYPE WORDS]: {line[:200]!r}")
        for number, phrase in enumerate(phrases):
            name = f"{image}-{caption}-{number}"
            places = annotation.chains.get(phrase.chain, [])
            if places and phrase.text.strip():
                found = (phrase.text, name, phrase.chain, phrase.types, [annotation.boxes[place] for place in places])
                for column, value in zip(values.values(), found, strict=True):
                    column.append(value)
            elif places:
                plans.reject(path, f"the phrase {name} has no text")
            elif phrase.chain in annotation.unusable:
                plans.reject(path, f"the phrase {name} has no box of positive size in the image")
            else:
                counts[annotation.reason(phrase.chain)] += 1
    if values["phrases"]:
        same = {"boxes": annotation.boxes, "width": annotation.width, "height": annotation.height}
        plans.append([file], **values, **same, image_id=int(image), split=split)
    counts[_WITH_BOX] += len(values["phrases"])
    return counts


def _text(path: str, conversion: Conversion) -> str:
    try:
        with conversion.root.open(path) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{conversion.root.where(path)} is not UTF-8 ({error}): fetch it again") from error


def _annotation(path: str, cutter: Cutter, conversion: Conversion) -> _Annotation:
    """The boxes of an XML file. Raises UserError where it lacks something, is damaged, or declares a document type."""
    text, where = _text(path, conversion), conversion.root.where(path)
    if "<!DOCTYPE" in text:
        raise UserError(
            f"{where} declares a document type, which a file of Flickr30k Entities does not: fetch it again"
        )
    try:
        root = ElementTree.fromstring(text)
        found = _Annotation(int(root.findtext("size/width", "")), int(root.findtext("size/height", "")))
        for element in root.iterfind("object"):
            names, box = [name.text or "" for name in element.iterfind("name")], element.find("bndbox")
            if box is None:
                reason = "of the scene" if element.findtext("scene") == "1" else "without box"
                found.others.update(dict.fromkeys(names, reason))
                continue
            edges = [float(box.findtext(edge, "")) - 1 for edge in ("xmin", "ymin", "xmax", "ymax")]
            cut = cutter.cut(edges, found.width, found.height)
            if cut is None:
                found.unusable.update(names)
                continue
            for name in dict.fromkeys(names):
                found.chains.setdefault(name, []).append(len(found.boxes))
            found.boxes.append(cut)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{where} is no annotation of Flickr30k Entities ({error}): fetch it again") from error
    return found


SOURCES = {
    "flickr_entities": RawSource(
        "Flickr30k Entities: phrases of captions with boxes",
        "entities/Annotations/ID.xml, entities/Sentences/ID.txt, entities/{train,val,test}.txt, flickr30k-images/*.jpg",
        tables,
    )
}
