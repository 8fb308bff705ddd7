"""Gathering the records of an evaluated split from all processes, and writing them."""

from pathlib import Path
from typing import Any

from vlc.distributed import gather_lists, is_first_process
from vlc.files import write_atomically
from vlc.objectives.base import Objective


def write_predictions(
    objective: Objective, name: str, records: list[dict[str, Any]], folder: str | Path | None
) -> dict[str, float]:
    """Gather records, let the first process write the submission FOLDER/NAME.KIND; returns the split's summary.

    The file appears whole or not at all. Without a folder nothing is written.
    """
    records = gather_lists(records)
    if records and folder and is_first_process():
        kind, content = objective.submission(records)
        write_text(Path(folder) / f"{name}.{kind}", content)
    return objective.summary(records)


def write_text(path: Path, content: str) -> None:
    with write_atomically(path) as partial:
        partial.write_text(content, encoding="utf-8")
