"""A split as rows and columns, whose pairs are all ranked: images and texts, or sentences and their translations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.arrow import ArrowSplit
from vlc.data.keys import Key, Location
from vlc.data.samples import Samples
from vlc.data.selection import Sentences, sentences, values_of_samples
from vlc.data.spec import TRANSLATION


@dataclass(frozen=True)
class Group:
    """Rows and columns that are ranked among themselves.

    name: of their language, or direction; empty: all are ranked together.
    rows (R,), columns (C,) int64: their numbers. Texts that are equal may be one column, which then occurs several times.
    row_keys (R,), column_keys (C,) int64: a column is right for a row where their keys are equal.
    """

    name: str
    rows: np.ndarray
    columns: np.ndarray
    row_keys: np.ndarray
    column_keys: np.ndarray

    @classmethod
    def of_images(cls, text_image: np.ndarray, name: str = "", columns: np.ndarray | None = None) -> "Group":
        """Texts and the images that they belong to.

        text_image (texts,): the image of each text.
        columns: the texts; None: all.
        """
        columns = np.arange(len(text_image)) if columns is None else columns
        rows = np.unique(text_image[columns])
        return cls(name, rows, columns, rows, text_image[columns])


class Rankable(Protocol):
    """Rows and columns, by number. Pairs of them get scores; columns are texts.

    groups: which rows and columns are ranked among themselves.
    finds_rows: whether rows are found by columns too, and not only columns by rows.
    facts: what is ranked, for files and messages.
    lengths (columns,): the numbers of tokens.
    """

    finds_rows: bool

    @property
    def num_rows(self) -> int: ...

    @property
    def num_columns(self) -> int: ...

    @property
    def groups(self) -> Sequence[Group]: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def lengths(self) -> np.ndarray: ...

    def image(self, row: int) -> Tensor | None:
        """The image (3, H, W) uint8 of a row; None where images are not read."""

    def texts(self, rows: np.ndarray, columns: np.ndarray) -> Text:
        """What stands beside the images of pairs of rows (N,) and columns (N,), (N, L)."""

    def texts_by_length(self, size: int) -> Iterator[tuple[np.ndarray, Text]]:
        """Chunks of up to `size` columns of similar length: their numbers, and their texts padded to the longest."""


class Corpus:
    """Images (rows) and texts (columns) of an evaluation split, numbered in the order of its samples.

    Captions are read without decoding an image for each. Rows without a text are no candidates.

    text_image (texts,) int64: the image that each text belongs to.
    languages (texts,): the language of each text, a string; None where the data do not say it.
    """

    finds_rows = True

    def __init__(self, dataset: Samples):
        if dataset.preparation.text_encoder is None:
            raise UserError("image_only=True leaves no texts to rank")
        self._dataset = dataset
        images: dict[tuple[int, int, int], int] = {}
        self._first_sample: list[int] = []
        self.text_image = np.empty(len(dataset), dtype=np.int64)
        for sample in range(len(dataset)):
            source, where = dataset.locate(sample)
            number = images.setdefault((id(source), where.batch, where.row), len(images))
            if number == len(self._first_sample):
                self._first_sample.append(sample)
            self.text_image[sample] = number
        self.languages = self._values("lang")

    @property
    def num_rows(self) -> int:
        return len(self._first_sample)

    @property
    def num_columns(self) -> int:
        return len(self.text_image)

    @cached_property
    def groups(self) -> list[Group]:
        """All together; or the texts of each language with their images, where the data have languages."""
        languages = self.languages
        if languages is None:
            return [Group.of_images(self.text_image)]
        chosen = {name: np.flatnonzero(languages == name) for name in np.unique(languages).tolist()}
        return [Group.of_images(self.text_image, name, columns) for name, columns in chosen.items()]

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers of images and texts, and the kinds of the texts (caption or translation) where the data say them."""
        kinds = self._values("kind")
        sizes = {"images": self.num_rows, "texts": self.num_columns}
        return sizes if kinds is None else sizes | {"kinds": np.unique(kinds).tolist()}

    def _values(self, name: str) -> np.ndarray | None:
        """A field of each text; None where the data lack it."""
        sources = [source for source in self._dataset.sources if isinstance(source, ArrowSplit)]
        if not all(source.provides(name) for source in sources):
            return None
        return np.concatenate([values_of_samples(source, name) for source in sources])

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self._ids])

    def image(self, number: int) -> Tensor:
        """An image (3, H, W) uint8."""
        return self._dataset.first_image(Key(0, self._first_sample[number]))

    @cached_property
    def _ids(self) -> list[list[int]]:
        """Token ids of all texts."""
        ids = []
        for sample in range(self.num_columns):
            source, where = self._dataset.locate(sample)
            ids.append(self._dataset.preparation.encoder(source.text(where)).ids)
        return ids

    def texts(self, rows: np.ndarray, columns: np.ndarray) -> Text:
        text = self._dataset.preparation.encoder.pad([self._ids[number] for number in columns.tolist()])
        names = [] if self.languages is None else self.languages[columns].tolist()
        return self._dataset.with_languages(text, [(name, name) for name in names])

    def texts_by_length(self, size: int) -> Iterator[tuple[np.ndarray, Text]]:
        for numbers in chunks_by_length(self.lengths, size):
            yield numbers, self.texts(np.zeros_like(numbers), numbers)


class Translations:
    """Sentences (rows) and their possible translations (columns) in an evaluation split whose samples are pairs of texts.

    Of each direction, every sentence that has a translation is a row, and all texts of the kind `translation` in the target
    language are ranked, those without a translation too. Equal texts are one column, so that their scores are equal.
    """

    finds_rows = False

    def __init__(self, dataset: Samples):
        (source,) = dataset.sources
        assert isinstance(source, ArrowSplit)
        assert source.chosen is not None
        self._dataset, self._source = dataset, source
        self._rows, self._samples, row_of_sample = np.unique(
            source.chosen[:, :3], axis=0, return_index=True, return_inverse=True
        )
        texts = sentences(source)
        first, second = texts.at(source.chosen[:, :3]), texts.at(source.chosen[:, [0, 1, 3]])
        self._words: dict[tuple[str, str], int] = {}  # the number of the column by language and text
        columns = {name: self._columns(texts, name) for name in np.unique(texts.lang[second]).tolist()}
        directions = np.char.add(np.char.add(texts.lang[first], "-"), texts.lang[second])
        row_keys, self.groups = texts.numbers[texts.at(self._rows)], list[Group]()
        for direction in np.unique(directions):
            pairs = np.flatnonzero(directions == direction)
            rows = np.unique(row_of_sample[pairs])
            numbers, keys = columns[str(texts.lang[second[pairs[0]]])]
            self.groups.append(Group(str(direction), rows, numbers, row_keys[rows], keys))

    def _columns(self, texts: Sentences, language: str) -> tuple[np.ndarray, np.ndarray]:
        """The column and the key of each text of a target language."""
        chosen = np.flatnonzero((texts.kind == TRANSLATION) & (texts.lang == language))
        words = [self._source.text(Location(*place)) for place in texts.places[chosen].tolist()]
        numbers = [self._words.setdefault((language, text), len(self._words)) for text in words]
        return np.array(numbers), texts.numbers[chosen]

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    @property
    def num_columns(self) -> int:
        return len(self._words)

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers of sentences and of different translations, and whether the images are seen."""
        return {"sentences": self.num_rows, "texts": self.num_columns, "with_images": self._dataset.reads_images}

    @cached_property
    def _targets(self) -> list[tuple[str, str]]:
        """The language and the text of each column."""
        return list(self._words)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(self._dataset.preparation.plain_tokens(text).ids) for _, text in self._targets])

    def image(self, row: int) -> Tensor | None:
        if not self._dataset.reads_images:
            return None
        return self._dataset.first_image(Key(0, int(self._samples[row])))

    def texts(self, rows: np.ndarray, columns: np.ndarray) -> Text:
        """Sentences with possible translations, as the composer joins them."""
        preparation, pairs = self._dataset.preparation, list(zip(rows.tolist(), columns.tolist(), strict=True))
        own = {
            row: preparation.row(self._source, self._source.locate(int(self._samples[row]))) for row in np.unique(rows)
        }
        tokens = [preparation.tokens(own[row] | {"second_text": self._targets[column][1]}) for row, column in pairs]
        text = preparation.encoder.pad([one.ids for one in tokens], [one.segments for one in tokens])
        names = [(self._language(row), self._targets[column][0]) for row, column in pairs]
        return self._dataset.with_languages(text, names)

    def _language(self, row: int) -> str:
        return self._source.field(Location(*self._rows[row].tolist()), "lang")

    def texts_by_length(self, size: int) -> Iterator[tuple[np.ndarray, Text]]:
        return self._alone(self._targets, size)

    def sources_by_length(self, size: int) -> Iterator[tuple[np.ndarray, Text]]:
        """Chunks of the rows' sentences by themselves, like `texts_by_length`."""
        places = enumerate(self._rows.tolist())
        return self._alone([(self._language(row), self._source.text(Location(*place))) for row, place in places], size)

    def _alone(self, texts: list[tuple[str, str]], size: int) -> Iterator[tuple[np.ndarray, Text]]:
        """Chunks of texts with their languages."""
        ids = [self._dataset.preparation.plain_tokens(text).ids for _, text in texts]
        for numbers in chunks_by_length(np.array(list(map(len, ids))), size):
            text = self._dataset.preparation.encoder.pad([ids[number] for number in numbers])
            languages = [texts[number][0] for number in numbers.tolist()]
            yield numbers, self._dataset.with_languages(text, [(name, name) for name in languages])


def chunks_by_length(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The numbers of texts in chunks of up to `size`, from the shortest text to the longest."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
