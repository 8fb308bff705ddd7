"""`python run.py export`: a checkpoint's heads as a folder that programs without this one can use."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from vlc.common.errors import UserError, require
from vlc.common.terminal import cell
from vlc.configuration.use_settings import UseSettings
from vlc.use.export.folder import write_folder
from vlc.use.export.int8 import write_int8
from vlc.use.export.new_folder import new_folder
from vlc.use.export.onnx import write_onnx
from vlc.use.export.program import write_programs
from vlc.use.model import Model, open_pretrained

# What writes a model, which is on the CPU and in float32, into an empty folder.
FORMATS: dict[str, Callable[[Model, Path], None]] = {
    "onnx": write_onnx,
    "int8": write_int8,
    "program": write_programs,
    "folder": write_folder,
}


def export(config: Mapping[str, Any], given: Collection[str]) -> Path:
    """Write OUT, a new folder, in a format of FORMATS, and print what is in it; returns the folder.

    The folder appears when it is complete. Raises UserError where it exists already, for an unknown format, for a missing
    package, and where the checkpoint has nothing that the format can hold.
    """
    use = UseSettings.from_config(config)
    file_format = use.file_format or "onnx"
    require(file_format in FORMATS, "file_format", file_format, " or ".join(FORMATS))
    if not use.out:
        raise UserError("out=FOLDER is missing: where should the export be written?")
    with new_folder(Path(use.out)) as folder:
        model = open_pretrained({**config, "num_gpus": 0, "precision": 32}, {*given, "num_gpus", "precision"})
        FORMATS[file_format](model, folder)
    table = Table("file", Column("bytes", justify="right"), box=None)
    for path in sorted(Path(use.out).rglob("*")):
        if path.is_file():
            table.add_row(cell(path), f"{path.stat().st_size:,}")
    Console().print(table)
    return Path(use.out)
