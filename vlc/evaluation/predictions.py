"""Gathering the records of an evaluated split from all processes, and writing them."""

import os
import tempfile
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.common.files import write_atomically
from vlc.hardware.distributed import gather_lists, is_first_process
from vlc.tasks.task import Report


def write_predictions(
    report: Report, name: str, records: list[dict[str, Any]], folder: str | Path | None
) -> dict[str, float]:
    """Gather records, write the submission FOLDER/NAME.KIND on rank 0, and return the summary of the split.

    The file is written atomically. Without a folder none is written.
    """
    records = gather_lists(records)
    if records and folder and is_first_process():
        kind, content = report.submission(records)
        write_text(Path(folder) / f"{name}.{kind}", content)
    return report.summary(records)


def require_writable(key: str, path: Path, *, folder: bool = False) -> None:
    """Raise UserError where a file (or a folder) cannot be made at this path, before any work is done for it."""
    if path.is_dir() and not folder:
        raise UserError(f"{key}={path} is a folder: name a file")
    above = next(place for place in (path.parent, *path.parent.absolute().parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UserError(f"{key}={path} cannot be written: {error.strerror} ({above}). Name another place") from error


def write_text(path: Path, content: str) -> None:
    with write_atomically(path) as partial:
        partial.write_text(content, encoding="utf-8")
