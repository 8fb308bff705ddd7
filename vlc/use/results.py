"""Folders with the results of a command over whole data sets: numbered tables, and a JSON file that says what they are."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from vlc.common.errors import UserError
from vlc.common.files import full_disk_told, to_json
from vlc.common.terminal import cell
from vlc.evaluation.predictions import require_writable, write_text
from vlc.use.shards import (
    UNFINISHED,
    Failed,
    Process,
    Rows,
    Shard,
    Table,
    Work,
    arrow,
    differences,
    json_lines,
    parquet,
    plain,
    read_object,
)

REJECTED = "rejected.jsonl"


def table_of(file_format: str, schema: pa.Schema) -> Table:
    """Return the writer of a format: arrow, parquet or jsonl."""
    if file_format == "jsonl":
        return json_lines
    return parquet(schema) if file_format == "parquet" else arrow(schema)


def write_results(
    kind: str,
    out: str | None,
    computed: Callable[[Iterator[Shard]], Iterable[tuple[Shard, Rows, Failed]]],
    table: Table,
    *,
    count: int,
    batch: int,
    suffix: str,
    plan: Mapping[str, Any],
    made_by: Mapping[str, Any],
    process: Process,
    beside: Collection[str] = (),
) -> dict[str, Any]:
    """Write OUT/KIND-NNNNN and OUT/KIND.json, together with all processes; returns the content of the latter.

    Inputs that could not be read are listed in OUT/rejected.jsonl. Where all is there already, nothing is computed. Raises
    UserError where the folder holds anything else.

    computed: the rows of shards, as `Work.write` takes them.
    count: the number of inputs.
    batch: inputs that are computed at once.
    plan: what the rows depend on.
    made_by: what the JSON file says beside the plan.
    beside: names of folders that `computed` writes beside the tables.
    """
    plan = plain({**plan, kind: count})
    if not count:
        raise UserError(f"There is nothing to read. Check {made_by['source']}")
    folder, result = _folder(out, kind, plan, beside)
    if result.exists():
        tell(folder, kind, found := read_object(result, folder))
        return found
    options: dict[str, Any] = {"batch": batch, "suffix": suffix, "option": "out", "folder": folder}
    with (
        full_disk_told("out=", folder),
        Work(folder / UNFINISHED, result, plan, {kind: count}, process=process, **options) as work,
    ):
        for taken in work.rounds(kind):
            work.write(computed(taken), table)
        with work.finishing() as mine:
            if mine:
                _finish(work, folder, kind, {**made_by, "plan": plan})
    return json.loads(result.read_bytes())


def _finish(work: Work, folder: Path, kind: str, made_by: Mapping[str, Any]) -> None:
    failed, tables = work.failed(kind), work.records(kind)
    if failed:
        lines = [{"source": place.source, "dataset": place.dataset, "row": place.row} for place, _ in failed]
        reasons = [{"reason": reason} for _, reason in failed]
        rows = [json.dumps(line | reason, ensure_ascii=False) for line, reason in zip(lines, reasons, strict=True)]
        write_text(folder / REJECTED, "".join(f"{row}\n" for row in rows))
    content = {**made_by, "rows": sum(one["rows"] for one in tables), "rejected": len(failed), "files": tables}
    write_text(folder / f"{kind}.json", to_json(content))
    tell(folder, kind, content)
    work.close()


def tell(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Print what lies in a folder, by the content of its JSON file."""
    summary = f"{folder}: {content['rows']:,} rows of {kind} in {len(content['files']):,} files"
    summary += f", {content['rejected']:,} inputs left out ({REJECTED})" if content["rejected"] else ""
    Console().print(cell(summary), soft_wrap=True)


def _folder(out: str | None, kind: str, plan: Mapping[str, Any], beside: Collection[str]) -> tuple[Path, Path]:
    """The folder, and its file that says that all is there, of this plan. Raises UserError where it holds anything else."""
    if not out:
        raise UserError("out=FOLDER is missing: where should the results go?")
    folder, result = Path(out), Path(out) / f"{kind}.json"
    require_writable("out", folder, folder=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={out} is a file: name a folder")
    own = re.compile(rf"\.?({kind}(-\d+)?\.\w+|{re.escape(REJECTED)})(\.\d+\.tmp)?|{re.escape(UNFINISHED)}")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in names if not own.fullmatch(name) and name not in beside]:
        raise UserError(f"out={out} holds something else ({others[0]}): name another folder")
    if result.exists():
        found = read_object(result, folder)
        if found.get("plan") != plan:
            differing = differences(found.get("plan") or {}, plan)
            raise UserError(f"out={out} holds {kind} that differ: {differing}. Name another folder, or remove this one")
        for one in found["files"]:
            path = folder / one["file"]
            if not path.is_file() or path.stat().st_size != one["bytes"]:
                raise UserError(f"{path} is missing or changed since it was written: remove {out}, and begin anew")
    elif names and UNFINISHED not in names:
        raise UserError(f"out={out} holds {names[0]}, which no unfinished work wrote: name another folder")
    return folder, result
