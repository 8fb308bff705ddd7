"""The writing and reading of all of the trainer's checkpoints."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO

from vlc.checkpoint import torch_file
from vlc.common.errors import UserError
from vlc.common.files import write_atomically
from vlc.data.remote import is_url


class CheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically; the previous one stays until the new one is complete.

    Lightning itself writes into TMPDIR and moves the file. Between two file systems this copies over the old file, which
    a kill or a full disk then leaves incomplete. Raises UnwritableFile where there is no room.

    is_saving: whether a checkpoint is being written now.
    saved: path and optimiser step of the last written checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_saving = False
        self.saved: tuple[str, int] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        self.is_saving = True
        try:
            if is_url(path):
                super().save_checkpoint(checkpoint, path, storage_options)
            else:
                _save(checkpoint, path)
            self.saved = str(path), checkpoint.get("global_step", 0)
        finally:
            self.is_saving = False

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return the content of a file, on the CPU by default. Raises UserError where it is damaged.

        torch itself does not compare the checksums of an archive's records, so a damaged optimiser state could pass.
        """
        if not is_url(path):
            torch_file.verify(path)
        try:
            return super().load_checkpoint(path, map_location or (lambda storage, _: storage), weights_only)
        except (RuntimeError, EOFError) as error:  # the archive is cut short, or the file is none
            raise UserError(f"{path} cannot be read as a checkpoint: {error}") from error


def _save(checkpoint: dict[str, Any], path: str | Path) -> None:
    # We pass an open file, because with a name torch reports a full disk as an error of its own archive.
    with write_atomically(path) as partial, partial.open("wb") as file:
        handled = sys.exc_info()[1]
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            # After an exception torch still ends its archive. This fails too, and hides the first exception.
            if error.__context__ is None or error.__context__ is handled:
                raise
            raise error.__context__ from None
