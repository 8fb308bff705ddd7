"""Multi30k: descriptions of images in several languages. https://github.com/multi30k/dataset (images of Flickr30k and COCO)

Task 1 has a description of each image in English and its translations (Elliott et al. 2016, 2017; Barrault et al. 2018).
Task 2 has five descriptions of each image in English, and five in German that do not translate them; it may be missing. A
row is an image with all its texts: `lang` is the language of each, `kind` is "translation" or "caption", and texts of kind
"translation" with the same `sent_idx` translate each other.

Line N of every file of a split is about the image in line N of the split's list, and rows have this order. Other languages
than those of the authors are read as well, from files that are named in the same way.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Files, Groups, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "caption": pa.list_(pa.string()),
        "lang": pa.list_(pa.string()),
        "kind": pa.list_(pa.string()),
        "sent_idx": pa.list_(pa.int64()),
        "image_id": pa.string(),
        "split": pa.string(),
    }
)
CAPTIONS = 5  # of an image in each language of task 2
_LANGUAGE = r"\.(?P<language>[a-z]{2,3})(?:\.gz)?"


@dataclass(frozen=True)
class Split:
    """A split and where its images are.

    folders: of the images. The names of COCO's images have the name of their folder.
    captions: the name of the split in task 2, None where task 2 does not have it.
    """

    name: str
    folders: tuple[str, ...] = ("flickr30k-images",)
    captions: str | None = None

    @property
    def images(self) -> str:
        """The list of the split's images."""
        return f"data/task1/image_splits/{self.name}.txt"

    def lacks(self, conversion: Conversion) -> str:
        """What is missing for this split, "" where it can be written."""
        if not conversion.root.exists(self.images):
            return f"{conversion.root.where(self.images)} does not exist"
        if not any(map(conversion.root.exists, self.folders)):
            return f"{conversion.root.where(self.folders[0])}, where its images should be, does not exist"
        return ""

    def files(self, conversion: Conversion) -> Files:
        """The files of the images."""
        return conversion.files(*filter(conversion.root.exists, self.folders))

    def path(self, image: str) -> str:
        """The path of an image's file."""
        return f"{next((folder for folder in self.folders if folder in image), self.folders[0])}/{image}"


SPLITS = (
    Split("train", captions="train"),
    Split("val", captions="val"),
    Split("test_2016_flickr", captions="test_2016"),
    Split("test_2017_flickr", ("images/test_2017_flickr",)),
    Split("test_2017_mscoco", ("train2014", "val2014")),
    Split("test_2018_flickr", ("images/test_2018_flickr",)),
)
LAYOUT = (
    "data/task1/image_splits/SPLIT.txt, flickr30k-images/*.jpg; for the later test sets, which may be missing, "
    "images/test_2017_flickr/*.jpg, images/test_2018_flickr/*.jpg, train2014/*.jpg and val2014/*.jpg (of COCO)"
)


def image_name(line: str) -> str:
    """The file name in a line of a list of images, which may be followed by "#" and the number of a caption."""
    return line.partition("#")[0].strip()


def written_splits(data_set: str, conversion: Conversion) -> list[Split]:
    """The splits that can be written; a note says what the others lack. Raises MissingFile if there are none."""
    lacking = {split: split.lacks(conversion) for split in SPLITS}
    notes = [f"{data_set}_{split.name} is not written: {reason}" for split, reason in lacking.items() if reason]
    if len(notes) == len(SPLITS):
        raise MissingFile("; ".join(notes))
    conversion.notes += notes
    return [split for split, reason in lacking.items() if not reason]


def tables(conversion: Conversion) -> list[PlannedTable]:
    """multi30k_SPLIT: an image with its descriptions in all languages."""
    texts = [path for task in ("task1", "task2") for path in _text_files(f"data/{task}/raw", conversion)]
    return [table for split in written_splits("multi30k", conversion) for table in _tables_of(split, texts, conversion)]


def _tables_of(split: Split, texts: Sequence[str], conversion: Conversion) -> list[PlannedTable]:
    """The table of a split. texts: all files of both tasks."""
    files, plans, counts = split.files(conversion), conversion.plans(), Counter[str]()
    found: Groups[str] = conversion.groups()
    for image, text in _sentences(split, texts, plans, conversion):
        found.add(image, text)
        counts[f"{text['kind']}s in {text['lang']}"] += 1
    conversion.grouped_rows(
        _listed_once(found, split, conversion),
        value_columns(SCHEMA),
        lambda image, _: files.lookup(split.path(image)),
        lambda image: {"image_id": image, "split": split.name},
        plans=plans,
    )
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    conversion.notes.append(f"multi30k_{split.name}: {plans.num_planned:,} images; {told}")
    return conversion.table(f"multi30k_{split.name}", SCHEMA, plans)


def _sentences(
    split: Split, texts: Sequence[str], plans: Plans, conversion: Conversion
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each text of a split with the name of its image; the plans list empty lines."""
    translated = _of_stem(f"data/task1/raw/{split.name}", texts)
    if not translated:
        raise MissingFile(
            f"{conversion.root}: data/task1/raw has no file {split.name}.LANGUAGE or {split.name}.LANGUAGE.gz"
        )
    yield from _lines(split.images, translated, "translation", 0, plans, conversion)
    numbered = {
        number: paths
        for number in range(CAPTIONS)
        if split.captions and (paths := _of_stem(f"data/task2/raw/{split.captions}.{number + 1}", texts))
    }
    for number, paths in numbered.items():
        yield from _lines(
            f"data/task2/image_splits/{split.captions}_images.txt", paths, "caption", number, plans, conversion
        )
    if split.captions and not numbered:
        conversion.notes.append(f"multi30k_{split.name}: task 2 has no files of it, so that it has translations alone")


def _lines(
    images: str, paths: dict[str, str], kind: str, number: int, plans: Plans, conversion: Conversion
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each text of aligned files with the name of its image.

    images: the list of the images.
    paths: the files by their languages.
    """
    for line, (image, *texts) in enumerate(_aligned([images, *paths.values()], conversion), start=1):
        for (language, path), text in zip(paths.items(), map(str.strip, texts), strict=True):
            if text:
                yield image_name(image), {"caption": text, "lang": language, "kind": kind, "sent_idx": number}
            else:
                plans.reject(f"{path}, line {line}", "an empty line")


def _listed_once(
    found: Groups[str], split: Split, conversion: Conversion
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The texts by image. Raises UserError where a list has an image twice, whose texts cannot be told apart."""
    for image, texts in found:
        if len({(text["lang"], text["kind"], text["sent_idx"]) for text in texts}) < len(texts):
            raise UserError(f"{conversion.root.where(split.images)}, or the list of task 2, has {image} more than once")
        yield image, texts


def _text_files(folder: str, conversion: Conversion) -> list[str]:
    """The files of a folder, English ones first; of a file that is there twice, the one that is not compressed."""
    if not conversion.root.exists(folder):
        return []
    paths: dict[str, str] = {}
    for file in conversion.files(folder):
        paths.setdefault(file.path.removesuffix(".gz"), file.path)
    return sorted(paths.values(), key=lambda path: not path.removesuffix(".gz").endswith(".en"))


def _of_stem(stem: str, paths: Sequence[str]) -> dict[str, str]:
    """The files STEM.LANGUAGE and STEM.LANGUAGE.gz by their languages."""
    named = ((re.fullmatch(re.escape(stem) + _LANGUAGE, path), path) for path in paths)
    return {match["language"]: path for match, path in named if match}


def _aligned(paths: Sequence[str], conversion: Conversion) -> Iterator[tuple[str, ...]]:
    """The lines of files side by side. Raises UserError where one has more lines than another."""
    first, *others = ((conversion.root.where(path), sum(1 for _ in conversion.text_lines(path))) for path in paths)
    for other in others:
        if other[1] != first[1]:
            (path, count), (longer, longer_count) = sorted((first, other), key=lambda counted: counted[1])
            raise UserError(
                f"{path} has {count:,} lines, but {longer} has {longer_count:,}: line {count + 1:,} of the latter is "
                "about no line of the former. Fetch both again"
            )
    return zip(*map(conversion.text_lines, paths), strict=True)


SOURCES = {
    "multi30k": RawSource(
        "Multi30k: descriptions of images and their translations",
        "data/task1/raw/SPLIT.LANGUAGE.gz, data/task2/raw/SPLIT.NUMBER.LANGUAGE.gz and data/task2/image_splits/*.txt "
        f"(task 2 may be missing), {LAYOUT}",
        tables,
    )
}
