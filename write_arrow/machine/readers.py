"""Which data sets of the catalogue read a file, by its name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlc.data.catalog import CATALOG
from vlc.data.kinds import IDENTIFIERS
from vlc.data.spec import DatasetSpec


@dataclass(frozen=True)
class Reader:
    """A data set of the catalogue, and the split of it that reads a file."""

    dataset: str
    split: str
    spec: DatasetSpec

    @property
    def fields(self) -> frozenset[str]:
        """Fields that are read; of a split without labels its ids only."""
        labelled = self.split not in self.spec.unlabelled
        return frozenset(name for name, column in self.spec.fields.items() if labelled or column.kind is IDENTIFIERS)

    @property
    def columns(self) -> set[str]:
        """Columns that must be there."""
        return self.spec.columns(self.fields)


def readers_of(stem: str) -> Iterator[Reader]:
    """The data sets of the catalogue that read a file, each with the split it belongs to."""
    for dataset, spec in CATALOG.items():
        for split, patterns in spec.tables.items():
            if any(is_shard(stem, pattern) if pattern.endswith("*") else stem == pattern for pattern in patterns):
                yield Reader(dataset, split, spec)


def is_shard(stem: str, pattern: str) -> bool:
    """Whether a stem is the pattern, which ends in "*", with a number in place of the asterisk."""
    return re.fullmatch(re.escape(pattern[:-1]) + r"\d+", stem) is not None
