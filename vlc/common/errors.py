"""Mistakes that a user can mend. `run.py` shows their text alone; anything else keeps its traceback."""

from typing import Any


class UserError(ValueError):
    """A command, configuration, data file or checkpoint that cannot be used; the text says what to do next."""


class MissingFile(UserError, FileNotFoundError):
    """A file or folder that was asked for does not exist."""


class DamagedIndex(UserError):
    """An index on disk is not what was written."""


class ChangedFile(UserError):
    """A data file is no longer the one that an index was made from."""


class NonFiniteLoss(UserError):
    """The training loss became NaN or infinite."""


class UnwritableFile(UserError, OSError):
    """A file cannot be written: its folder is read-only, is a file, or has no room."""


class NonFiniteMetric(UserError):
    """What an evaluation measured is NaN or infinite."""


def require(valid: bool, key: str, value: Any, expected: str) -> None:
    """Raise UserError for a value of a key that is not valid, with what was expected."""
    if not valid:
        raise UserError(f"{key}={value!r} is not valid: expected {expected}")
