"""Mistakes that a user can correct. `run.py` shows only their text; other exceptions keep their traceback."""

from typing import Any


class UserError(ValueError):
    """A command, configuration, data file or checkpoint that cannot be used; the text says what to do next."""


class MissingFile(UserError, FileNotFoundError):
    """A file or folder that was asked for does not exist."""


class DamagedIndex(UserError):
    """An index on disk differs from the one that was written."""


class ChangedFile(UserError):
    """A data file has changed since an index was made from it."""


class NonFiniteLoss(UserError):
    """The training loss became NaN or infinite."""


class UnwritableFile(UserError, OSError):
    """A file cannot be written: its folder is read-only, is a file, or has no room."""


class NonFiniteMetric(UserError):
    """A value that an evaluation measured is NaN or infinite."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its class where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require(valid: bool, key: str, value: Any, expected: str) -> None:
    """Raise UserError, with the expected values, where the value of a key is not valid."""
    if not valid:
        raise UserError(f"{key}={value!r} is not valid: expected {expected}")
