"""How samples are named: by the samplers, and in their files."""

from typing import NamedTuple


class Key(NamedTuple):
    """A sample in an epoch.

    epoch: decides its augmentation.
    again: in evaluation, whether it was counted elsewhere.
    """

    epoch: int
    sample: int
    again: bool = False


class Location(NamedTuple):
    """Where a sample lies in its data set: record batch, row inside it, text inside the row.

    second: the second text of a pair, inside the row; -1: the sample is no pair.
    """

    batch: int
    row: int
    text: int
    second: int = -1
