"""Which data sets lie under data_root, and which command writes what is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vlc.common.errors import UserError
from vlc.workflows.doctor.finding import Asked, Finding, note, ok, problem

if TYPE_CHECKING:
    from vlc.data.spec import DatasetSpec


def probe(asked: Asked) -> Iterator[Finding]:
    """Open every split of the catalogue that is under data_root; those of `datasets` have to be there."""
    from vlc.data.catalog import CATALOG

    if not asked.data_root:
        yield note("no folder of data was named", "python run.py doctor with data_root=ARROWS")
        return
    if "://" in asked.data_root:
        yield note(f"data_root={asked.data_root} is a URL, which is not looked at")
        return
    root = Path(asked.data_root)
    if not root.is_dir():
        yield problem(f"data_root={root} is not a folder", f"python -m write_arrow emoji --out {root}")
        return
    absent = []
    for name, spec in CATALOG.items():
        if spec.labelled:  # any folder of images may be one
            continue
        found = list(_dataset(root, name, spec, needed=name in asked.datasets))
        yield from found
        absent += [] if found else [name]
    if len(absent) == sum(not spec.labelled for spec in CATALOG.values()):
        yield note(f"{root} has no data set of the catalogue", f"python -m write_arrow emoji --out {root}")
    elif absent:
        yield note(f"{len(absent)} further data sets of the catalogue are not there (DATA.md lists their writers)")


def _dataset(root: Path, name: str, spec: "DatasetSpec", *, needed: bool) -> Iterator[Finding]:
    """Nothing where no split is there and none is needed."""
    from vlc.data.arrow import ArrowSplit, find_tables, has_tables

    splits = spec.splits()
    present = {split: has_tables(root, stems) for split, stems in splits.items()}
    missing = [split for split in splits if not present[split] and split not in spec.optional]
    write = f"python -m write_arrow {spec.writer} --out {root}"
    if not any(present.values()):
        if needed:
            yield problem(f"{name}: no split is there", write)
        return
    counts = []
    for split in (split for split in splits if present[split]):
        try:
            paths = find_tables(root, splits[split], name, spec.writer)
            rows = ArrowSplit(paths, spec, name, set(), read_texts=False).num_rows
        except UserError as error:
            yield problem(f"{name}, {split}: {error}", write)
        else:
            counts.append(f"{split} {rows:,}")
    if counts:
        yield ok(f"{name}: rows of {', '.join(counts)}")
    if missing:
        report = problem if needed else note
        yield report(f"{name}: {', '.join(missing)} missing", write)
