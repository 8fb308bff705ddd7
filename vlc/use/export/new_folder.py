"""Folders that appear when they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vlc.common.errors import UserError
from vlc.evaluation.predictions import require_writable


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder, which becomes `out` when the block ends without error. Raises UserError where it exists."""
    if os.path.lexists(out):
        raise UserError(f"out={out} exists already: name a new folder, or remove this one")
    require_writable("out", out, folder=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as holder:
        folder = Path(holder) / out.name  # with the access rights of a folder that is made the usual way
        folder.mkdir()
        yield folder
        folder.rename(out)
