"""What an official evaluator states of itself."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlc.common.errors import MissingFile, UserError

Metrics = Mapping[str, Any]  # a number, or by type and so on a pair of a number and how many examples it is of


@dataclass(frozen=True)
class Scorer:
    """An official evaluator.

    summary: a line for the list of evaluators.
    add_arguments: adds the options that name its files.
    score: returns the metrics from the arguments. Raises UserError for files that cannot be scored.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    score: Callable[[Namespace], Metrics]


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises UserError, and MissingFile where there is none."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise MissingFile(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from error


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, without line breaks. Raises UserError, and MissingFile where there is none."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFile(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error})") from error
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
