"""Which texts of a data set are samples: texts in some languages or of some kinds, or pairs of texts that are translations.

A data set in the form of Multi30k (Elliott et al. 2016) has texts of several languages in each row. Beside every text stand
its language (the catalogue's field `lang`), its kind (`kind`) and the number of its sentence (`sent_idx`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pytorch_lightning.utilities import rank_zero_warn

from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.checks import check_annotations
from vlc.data.ipc import is_any_list
from vlc.data.spec import ANY, DIRECTION, TRANSLATION
from vlc.data.values import flat_values, list_lengths


@dataclass(frozen=True)
class Selection:
    """Which texts are samples.

    where: values by field of the catalogue; a text is a sample if its values are among them. Of a pair, this is the first
        text.
    pairs: directions such as en-de, or *-de from any language. A sample is then a text together with a translation of it: a
        text of the kind TRANSLATION, in another language, with the same number of the sentence. None: samples are texts.
    """

    where: Mapping[str, Sequence[str]]
    pairs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.where or self.pairs)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the catalogue that decide."""
        return frozenset({*self.where, *(("lang", "kind", "sent_idx") if self.pairs else ())})


def select(source: ArrowSplit, selection: Selection, split: str, prefix: str, *, training: bool) -> None:
    """Make the samples of a source those that a selection names.

    prefix: the beginning of the keys that state the selection, for messages.
    training: every value and every direction must be there. In evaluation a warning names those that are not.
    Raises UserError where samples are lacking, or where annotations are not understood.
    """
    lacking = selection.fields - source.spec.fields.keys()
    if lacking:
        raise UserError(
            f"{prefix}where and {prefix}pairs choose texts by {', '.join(sorted(selection.fields))}, and data set "
            f"{source.dataset!r} has no {', '.join(sorted(lacking))}: leave them out"
        )
    check_annotations(source, selection.fields, training=training)
    places, values = _texts(source, selection.fields)
    first: np.ndarray = np.ones(len(places), dtype=bool)
    problems: list[str] = []
    for name, wanted in selection.where.items():
        problems += _absent(f"{prefix}where.{name}", wanted, np.unique(values[name]))
        first &= np.isin(values[name], list(wanted))
    if selection.pairs:
        chosen, missing = _pairs(places, values, first, selection.pairs)
        problems += [f"{prefix}pairs has {one}, and no text has such a translation" for one in missing]
    else:
        chosen = np.column_stack([places[first], np.full(int(first.sum()), -1, dtype=np.int32)])
    where = f"Split {split!r} of data set {source.dataset!r}"
    if problems and (training or not len(chosen)):
        raise UserError(f"{where}: {'; '.join(problems)}")
    if not len(chosen):
        raise UserError(f"{where} has no text for which all of {prefix}where={dict(selection.where)} holds")
    for problem in problems:
        rank_zero_warn(f"{where}: {problem}")
    source.chosen = chosen


def by_language(source: ArrowSplit) -> dict[str, np.ndarray]:
    """The chosen samples of a source by the language of their texts, or by the direction (en-de) of their pairs."""
    assert source.chosen is not None
    names = values_of_samples(source, "lang")
    if (source.chosen[:, 3] >= 0).all():
        names = np.char.add(np.char.add(names, "-"), values_of_samples(source, "second_lang"))
    return {str(name): source.chosen[names == name] for name in np.unique(names)}


def values_of_samples(source: ArrowSplit, name: str) -> np.ndarray:
    """The value of a catalogue field for each sample (N,), of the second text of a pair where the field is about it."""
    check_annotations(source, (name,), training=False)
    places, values = _texts(source, (name,))
    if source.chosen is None:
        return values[name]
    text = 3 if source.spec.fields[name].of_second else 2
    return values[name][_numbers(places, source.chosen[:, [0, 1, text]])]


class Sentences(NamedTuple):
    """All texts of a source.

    places (N, 3) int32: record batch, row and text, sorted.
    numbers (N,) int64: texts of a row with equal numbers are one sentence in several languages.
    lang, kind (N,): strings.
    """

    places: np.ndarray
    numbers: np.ndarray
    lang: np.ndarray
    kind: np.ndarray

    def at(self, places: np.ndarray) -> np.ndarray:
        """The positions among all texts of some places (M, 3)."""
        return _numbers(self.places, places)


def sentences(source: ArrowSplit) -> Sentences:
    """The texts of a source with what says which of them translate each other."""
    places, values = _texts(source, ("lang", "kind", "sent_idx"))
    return Sentences(places, _sentence_keys(places, values), values["lang"], values["kind"])


def _numbers(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The numbers of the rows (N, 3) in `places`, which are sorted."""
    return np.searchsorted(_keys(places), _keys(wanted))


def _keys(places: np.ndarray) -> np.ndarray:
    """One number for each place (N, 3) that sorts as the places do."""
    batch, row, text = places.astype(np.int64).T
    return (batch << 44) | (row << 20) | text


def _sentence_keys(places: np.ndarray, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """One number for the sentence of each text: of its row and its `sent_idx`."""
    return _keys(np.column_stack([places[:, :2], values["sent_idx"]]))


def _texts(source: ArrowSplit, fields: Sequence[str] | frozenset[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The places (N, 3) int32 of all texts that are not left out (record batch, row, text), and their values by field."""
    places, values = [], {name: list[np.ndarray]() for name in fields}
    for number, offsets, kept in source.texts_of_batches():
        counts = np.diff(offsets)
        rows = np.repeat(np.arange(len(counts)), counts)
        texts = np.arange(len(rows)) - np.repeat(offsets[:-1] - offsets[0], counts)
        places.append(np.column_stack([np.full(len(rows), number), rows, texts])[kept].astype(np.int32))
        for name, found in values.items():
            found.append(_of_texts(source, number, name, counts)[kept])
    return np.concatenate(places), {name: np.concatenate(found) for name, found in values.items()}


def _of_texts(source: ArrowSplit, number: int, name: str, counts: np.ndarray) -> np.ndarray:
    """The values of a field for each text of a record batch; values of a row are repeated for its texts."""
    cells = source.column(number, name)
    of_texts = is_any_list(cells.type) and source.spec.fields[name].per_text
    flat = flat_values(cells) if of_texts else cells
    if pa.types.is_integer(flat.type):
        found = flat.to_numpy(zero_copy_only=False)
    else:
        found = np.asarray(pc.fill_null(flat.cast(pa.string()), "").to_pylist(), dtype=np.str_)
    if of_texts:
        assert (list_lengths(cells) == counts).all()  # the annotations have been checked
        return found
    return np.repeat(found, counts)


def _absent(key: str, wanted: Sequence[str], there: np.ndarray) -> Iterator[str]:
    absent = [value for value in wanted if value not in there]
    if absent:
        has = ", ".join(map(str, there[:20])) or "none"
        yield f"{key} has {', '.join(map(repr, absent))}, which no text has; there is {has}"


def _pairs(
    places: np.ndarray, values: Mapping[str, np.ndarray], first: np.ndarray, directions: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Pairs (N, 4) of the places of texts and the numbers of their translations, and the directions without a pair."""
    sentence = _sentence_keys(places, values)
    sources, targets = np.flatnonzero(first), np.flatnonzero(values["kind"] == TRANSLATION)
    targets = targets[np.argsort(sentence[targets], kind="stable")]
    begin, end = (np.searchsorted(sentence[targets], sentence[sources], side=side) for side in ("left", "right"))
    counts = end - begin
    ones = np.repeat(sources, counts)
    within = np.arange(len(ones)) - np.repeat(np.cumsum(counts) - counts, counts)
    others = targets[np.repeat(begin, counts) + within]
    languages = values["lang"]
    wanted, missing = np.zeros(len(ones), dtype=bool), []
    for direction in directions:
        found = DIRECTION.fullmatch(direction)
        assert found is not None  # the settings have been checked
        fits = languages[ones] != languages[others]
        for name, at in zip(found.groups(), (ones, others), strict=True):
            if name != ANY:
                fits &= languages[at] == name
        if not fits.any():
            missing.append(direction)
        wanted |= fits
    return np.column_stack([places[ones], places[others][:, 2]])[wanted], missing
