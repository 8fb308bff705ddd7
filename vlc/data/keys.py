"""How samplers name samples."""

from typing import NamedTuple


class Key(NamedTuple):
    """A sample in an epoch.

    epoch: decides its augmentation.
    again: in evaluation, whether it was counted elsewhere.
    """

    epoch: int
    sample: int
    again: bool = False
