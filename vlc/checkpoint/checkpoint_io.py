"""How Lightning's checkpoints reach the disk and come back: the one place that all of ours pass."""

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
    """Checkpoints that appear whole or not at all; the one before stays until then.

    Lightning's own way writes into TMPDIR and moves: between two file systems that is a copy over the old file, which a
    kill or a full disk leaves in pieces. Raises UnwritableFile where there is no room.

    is_saving: whether a checkpoint is being written just now.
    saved: path and optimiser step of the checkpoint that was written last.
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
        """The content of a file, on the CPU unless map_location says otherwise. Raises UserError where it is damaged.

        torch itself does not compare the checksums of an archive's records: the optimiser's state could be another.
        """
        if not is_url(path):
            torch_file.verify(path)
        try:
            return super().load_checkpoint(path, map_location or "cpu", weights_only)
        except (RuntimeError, EOFError) as error:  # an archive that is cut short, or is none
            raise UserError(f"{path} cannot be read as a checkpoint: {error}") from error


def _save(checkpoint: dict[str, Any], path: str | Path) -> None:
    # An open file and not its name: torch reports a full disk as an error of its own archive otherwise.
    with write_atomically(path) as partial, partial.open("wb") as file:
        handled = sys.exc_info()[1]
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            # After an exception torch still ends its archive; that fails too, and hides what had happened.
            if error.__context__ is not handled:
                raise error.__context__ from None
            raise
