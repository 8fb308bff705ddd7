"""Writing tables with a progress bar for each."""

import json
from argparse import Namespace

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from vlc.common.terminal import printable
from write_arrow.machine.source import Prepared
from write_arrow.machine.storage import Folder
from write_arrow.machine.workers import workers
from write_arrow.machine.writer import PlannedTable, Table, Written, write_tables

_WITHOUT_EFFECT = ("out", "workers", "ray")  # options on which the bytes of the files do not depend


def write_with_progress(prepared: Prepared, out: Folder, arguments: Namespace, console: Console) -> list[Written]:
    """Write the tables, and show on the console how far they are. Returns the finished files; raises UserError."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    options = {name: value for name, value in vars(arguments).items() if name not in _WITHOUT_EFFECT}
    with (
        workers(getattr(arguments, "workers", 1), getattr(arguments, "ray", None)) as pool,
        Progress(*columns, console=console) as progress,
    ):
        tasks = {table.stem: _add_task(progress, table) for table in prepared.tables}

        def advance(table: Table | PlannedTable, rows: int, size: int) -> None:
            task = progress.tasks[tasks[table.stem]]
            progress.start_task(task.id)
            progress.update(task.id, advance=rows, size=task.fields["size"] + size)

        written = write_tables(
            prepared.tables,
            out,
            root=prepared.root,
            pool=pool,
            verify=getattr(arguments, "verify", True),
            made_from=json.dumps(options, sort_keys=True, default=str),
            advance=advance,
        )
        return list(written)


def _add_task(progress: Progress, table: Table | PlannedTable) -> int:
    images = sum(pa.types.is_binary(field.type) for field in table.schema)
    return progress.add_task(printable(table.stem), total=table.num_rows, start=False, size=0, images=images)


class _Rate(ProgressColumn):
    """Images (rows, where there are none) and megabytes a second since the table was begun."""

    def __init__(self):
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        if not task.elapsed or not task.completed:
            return Text("")
        images, size = task.fields["images"], task.fields["size"]
        rate = task.completed * max(images, 1) / task.elapsed
        return Text(f"{rate:,.0f} {'images' if images else 'rows'}/s {size / task.elapsed / 1e6:,.1f} MB/s")
