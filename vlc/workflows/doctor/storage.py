"""Room on disks, and shared memory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlc.workflows.doctor.finding import Asked, Finding, note, ok, problem, size

_SHARED = Path("/dev/shm")
_LEAST, _LITTLE = 1e9, 10e9
_LITTLE_SHARED = 1e9


def probe(asked: Asked) -> Iterator[Finding]:
    """Look for room where runs and data lie, and for shared memory, through which loader processes hand over batches."""
    yield from _folder("log_dir", Path(asked.log_dir))
    if asked.data_root and "://" not in asked.data_root:
        yield from _folder("data_root", Path(asked.data_root), written=False)
    if _SHARED.is_dir():
        free = shutil.disk_usage(_SHARED).free
        text = f"{size(free)} of shared memory are free in {_SHARED}"
        cure = "num_workers=0 does without it; Docker has --shm-size=8g"
        yield ok(text) if free >= _LITTLE_SHARED else note(f"{text}: loader processes may be killed", cure)


def _folder(key: str, folder: Path, *, written: bool = True) -> Iterator[Finding]:
    here = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not here.is_dir():
        yield problem(f"{key}={folder}: {here} is a file", f"pass {key}=FOLDER")
        return
    free = shutil.disk_usage(here).free
    text = f"{key}={folder}: {size(free)} are free on its disk"
    if written and not os.access(here, os.W_OK):
        yield problem(f"{key}={folder}: this user cannot write to {here}", f"pass {key}=FOLDER")
    elif written and free < _LEAST:
        yield problem(f"{text}: a checkpoint of base size takes 1.4 GB", f"make room, or pass {key}=FOLDER")
    else:
        yield note(f"{text}: a checkpoint of base size takes 1.4 GB") if written and free < _LITTLE else ok(text)
    status = os.statvfs(here)
    if written and status.f_files and status.f_favail == 0:
        yield problem(f"{key}={folder}: its disk takes no further file (no inodes are left)", f"pass {key}=FOLDER")
