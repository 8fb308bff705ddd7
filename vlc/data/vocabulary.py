"""The answer vocabulary of a head, and how it is matched with the answers of data and checkpoints."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import pyarrow.compute as pc

from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.checks import check_annotations, labelled_answers
from vlc.data.values import flat_values

UNKNOWN = -1  # label of an answer that a vocabulary does not have


@dataclass(frozen=True)
class Vocabulary:
    """Answers by label.

    answers: "" where the answer of a label is not known.
    of_data: the answers by the labels of the data, where the data use other labels.
    """

    answers: tuple[str, ...] = ()
    of_data: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.answers)

    def name(self, label: int) -> str:
        """The answer of a label, "unknown" where there is none."""
        return (label < len(self.answers) and self.answers[label]) or "unknown"

    @property
    def labels(self) -> dict[str, int]:
        """The label of each answer, the first one where it has several."""
        return {answer: label for label, answer in reversed(list(enumerate(self.answers))) if answer}

    @property
    def translation(self) -> list[int]:
        """This vocabulary's label for each label of the data, UNKNOWN where it lacks the answer; empty if they agree."""
        own = self.labels
        return [own.get(answer, UNKNOWN) for answer in self.of_data]

    def shared_labels(self, other: "Vocabulary") -> list[tuple[int, int]]:
        """The labels, in this vocabulary and in the other one, of each answer that both have."""
        labels = other.labels
        return [(label, labels[answer]) for label, answer in enumerate(self.answers) if answer in labels]

    def tested_on(self, data: "Vocabulary") -> "Vocabulary":
        """This vocabulary with a translation of the data's labels, where they differ."""
        own = self.answers[: len(data.answers)]
        if all(answer in ("", here) for answer, here in zip_longest(data.answers, own, fillvalue=None)):
            return self
        return replace(self, of_data=data.answers)

    def lacks(self, data: "Vocabulary") -> set[str]:
        """The answers of the data that this vocabulary does not have."""
        return set(data.labels) - set(self.labels)


def data_vocabulary(
    datasets: Sequence[str], data_root: str, data_cache: str | None = None, splits: Collection[str] | None = None
) -> Vocabulary:
    """The answers of all labelled splits of the data sets, or of the given splits.

    Of data sets whose words have translations, these are the translations that training knows, in the order of their names.

    Raises UserError where a label stands for several answers.
    """
    if translated := [name for name in datasets if "candidates" in CATALOG[name].fields]:
        return _translations(translated, data_root, data_cache, splits)
    answers: dict[int, str] = {}
    for name in datasets:
        spec = CATALOG[name]
        for split, stems in spec.tables.items():
            if split in spec.unlabelled or "answer_labels" not in spec.fields:
                continue
            if splits is not None and split not in splits:
                continue
            paths = find_tables(data_root, stems, name, spec.writer, data_cache)
            table = ArrowSplit(paths, spec, name, {"answers", "answer_labels"}, read_texts=False)
            for label, answer in labelled_answers(table):
                if answers.setdefault(label, answer) != answer:
                    raise UserError(
                        f"{', '.join(map(str, paths))}: answer label {label} stands for {answer!r}, and elsewhere for "
                        f"{answers[label]!r}. Write the data sets together again: python -m write_arrow {spec.writer} "
                        "--out FOLDER"
                    )
    return Vocabulary(tuple(answers.get(label, "") for label in range(max(answers, default=-1) + 1)))


def translation_name(language: str, translation: str) -> str:
    """The name of a translation in a vocabulary, such as de:Haus."""
    return f"{language}:{translation}"


def _translations(
    datasets: Sequence[str], data_root: str, data_cache: str | None, splits: Collection[str] | None
) -> Vocabulary:
    """The candidates of the training splits, or of the given splits, which training knows too."""
    found: set[str] = set()
    for name in datasets:
        spec = CATALOG[name]
        for split in splits or ("train",):
            paths = find_tables(data_root, spec.tables[split], name, spec.writer, data_cache)
            table = ArrowSplit(paths, spec, name, {"target_lang", "candidates"}, read_texts=False)
            check_annotations(table, ("target_lang", "candidates"), training=True)
            for _, batch in table.batches(("target_lang", "candidates")):
                rows = (flat_values(batch.column("target_lang")), pc.list_flatten(batch.column("candidates")))
                for language, candidates in zip(*(values.to_pylist() for values in rows), strict=True):
                    found |= {translation_name(language, one) for one in candidates}
    return Vocabulary(tuple(sorted(found)))


def stored_vocabularies(extras: Mapping, heads: Collection[str]) -> dict[str, Vocabulary]:
    """The vocabularies that a checkpoint stores, by head. Older ones store a list, of the head that answers questions."""
    stored = extras.get("answers") or {}
    if not isinstance(stored, Mapping):
        stored = dict.fromkeys(heads, stored)
    return {head: Vocabulary(tuple(answers)) for head, answers in stored.items()}
