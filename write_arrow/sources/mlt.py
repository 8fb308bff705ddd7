"""Multimodal lexical translation (MLT): an English word, and its translation in a sentence about an image.

https://github.com/sheffieldnlp/mlt (Lala and Specia 2018), with the images and splits of Multi30k. A row is an image with
sentences, each with an ambiguous word (`words`, and in `word_places` its place among the words between blanks, from 0), the
language to translate it into, and its `translation`. `candidates` are the translations of this word in training, the most
frequent one first, which `most_frequent` holds; both are empty for a word that training does not have. `acceptable` are all
translations that count as right. Sentences are lower-cased and tokenised, as the authors distribute them.

The authors' training file has lines about all splits: here train and val hold the lines whose image is in this split of
Multi30k alone. Lines that cannot be used are listed.
"""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from vlc.data.lexical_translation import normalized, translations
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Groups, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable
from write_arrow.sources import multi30k

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "caption": _TEXTS,
        "lang": _TEXTS,
        "words": _TEXTS,
        "word_places": pa.list_(pa.int64()),
        "target_lang": _TEXTS,
        "translation": _TEXTS,
        "acceptable": pa.list_(_TEXTS),
        "candidates": pa.list_(_TEXTS),
        "most_frequent": _TEXTS,
        "image_id": pa.string(),
        "split": pa.string(),
    }
)
_LANGUAGES = ("de", "fr")
_TESTS = {
    "test_2016_flickr": "test_sets/en{}_test2016.txt",
    "test_2017_flickr": "test_sets/en{}_test2017flickr.txt",
    "test_2017_mscoco": "test_sets/en{}_test2017mscoco.txt",
    "test_2018_flickr": "test_sets/MLTtest2018en{}.txt",
}
_SEVERAL = "test_2018_flickr"  # its lines list several translations, those of other splits have one
_MARKS = re.compile(r"^\W+|\W+$")


class _Line(NamedTuple):
    """A line of a file: where it stands, the name of its image, and the values of its text."""

    where: str
    image: str
    text: dict[str, Any]


class _Frequencies:
    """How often training translates each word of a language in each way."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, text: dict[str, Any]) -> None:
        self._counts[text["target_lang"], text["words"]][text["translation"]] += 1

    def of(self, text: dict[str, Any]) -> dict[str, Any]:
        """The columns that say how training translates the word of a text."""
        ranked = [one for one, _ in self._counts[text["target_lang"], text["words"]].most_common()]
        return {"candidates": ranked, "most_frequent": ranked[0] if ranked else ""}


def tables(conversion: Conversion) -> list[PlannedTable]:
    """mlt_SPLIT: an image with its sentences, the word to translate in each, and its translations."""
    written, listed = multi30k.written_splits("mlt", conversion), _listed(conversion)
    plans = {split.name: conversion.plans() for split in multi30k.SPLITS}
    texts: dict[str, Groups[str]] = {split.name: conversion.groups() for split in multi30k.SPLITS}
    frequencies = _Frequencies()
    for language in _LANGUAGES:
        for name, line in _training_lines(language, listed, plans["train"], conversion):
            texts[name].add(line.image, line.text)
            if name == "train":
                frequencies.add(line.text)
        for name, path in _TESTS.items():
            for line in _lines(path.format(language), language, name, plans[name], conversion):
                if name in listed[line.image]:
                    texts[name].add(line.image, line.text)
                else:
                    plans[name].reject(line.where, f"its image, {line.image}, is not in Multi30k's list of this split")
    return [
        table
        for split in written
        for table in _tables_of(split, texts[split.name], frequencies, plans[split.name], conversion)
    ]


def _tables_of(
    split: multi30k.Split, texts: Groups[str], frequencies: _Frequencies, plans: Plans, conversion: Conversion
) -> list[PlannedTable]:
    files = split.files(conversion)
    conversion.grouped_rows(
        ((image, [text | frequencies.of(text) for text in found]) for image, found in texts),
        value_columns(SCHEMA),
        lambda image, _: files.lookup(split.path(image)),
        lambda image: {"image_id": image, "split": split.name},
        plans=plans,
    )
    counts = (
        f"{plans.num_planned:,} images, {texts.num_values:,} words, {plans.num_rejected:,} lines or images left out"
    )
    conversion.notes.append(f"mlt_{split.name}: {counts}")
    return conversion.table(f"mlt_{split.name}", SCHEMA, plans)


def _listed(conversion: Conversion) -> Groups[str]:
    """The splits of each image of Multi30k."""
    splits: Groups[str] = conversion.groups()
    for split in multi30k.SPLITS:
        for line in conversion.text_lines(split.images) if conversion.root.exists(split.images) else ():
            splits.add(multi30k.image_name(line), split.name)
    return splits


def _training_lines(
    language: str, listed: Groups[str], plans: Plans, conversion: Conversion
) -> Iterator[tuple[str, _Line]]:
    """Each line of the training file whose image is in train or in val alone, with this split."""
    path, num_tested = f"EN{language.upper()}_MLTD_formatted.txt", 0
    for line in _lines(path, language, "train", plans, conversion):
        splits = listed[line.image]
        if splits in (["train"], ["val"]):
            yield splits[0], line
        elif splits:
            num_tested += 1
        else:
            plans.reject(line.where, f"its image, {line.image}, is in no split of Multi30k")
    conversion.notes.append(f"{path}: {num_tested:,} lines are about images of test splits, which are not trained on")


def _lines(path: str, language: str, split: str, plans: Plans, conversion: Conversion) -> Iterator[_Line]:
    """The lines of a file that can be used; the plans list the others."""
    fields = 4 if split == "train" else 5  # the test sets have the translated sentence before the image
    for number, line in enumerate(conversion.text_lines(path), start=1):
        where, cells = f"{path}, line {number}", [cell.strip() for cell in line.split("|")]
        if len(cells) != fields:
            plans.reject(where, f"it has {len(cells)} fields between bars, expected {fields}")
            continue
        word, sentence, forms = normalized(cells[0]), html.unescape(cells[2]), translations(cells[1])
        place = _place(word, sentence)
        if not forms:
            plans.reject(where, f"no translation of {word!r:.80}")
        elif place is None:
            plans.reject(where, f"its sentence does not have the word {word!r:.80}")
        else:
            acceptable = forms if split == _SEVERAL else [" ".join(forms)]
            text = {"caption": sentence, "lang": "en", "words": word, "word_places": place, "target_lang": language}
            yield _Line(where, cells[-1], text | {"translation": acceptable[0], "acceptable": acceptable})


def _place(word: str, sentence: str) -> int | None:
    """The place of a word, or of the first word of a phrase, among the words of a sentence; None where it is not there."""
    words, wanted = [_MARKS.sub("", normalized(one)) for one in sentence.split()], word.split()
    starts = range(len(words) - len(wanted) + 1) if wanted else ()
    return next((start for start in starts if words[start : start + len(wanted)] == wanted), None)


SOURCES = {
    "mlt": RawSource(
        "Multimodal lexical translation: ambiguous words of Multi30k's sentences",
        f"EN{{DE,FR}}_MLTD_formatted.txt, test_sets/*.txt, and of Multi30k {multi30k.LAYOUT}",
        tables,
    )
}
