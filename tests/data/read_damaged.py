"""Reads arrow files given on the command line and prints what each holds, or the error; a process of its own, so that
files which crash the interpreter are seen. Run by test_damage.py.
"""

import hashlib
import json
import sys
from pathlib import Path

from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.kinds import IDENTIFIERS
from vlc.data.spec import Column, DatasetSpec

SPEC = DatasetSpec("captions", {"train": ("t",)}, fields={"id": Column("id", IDENTIFIERS)})


def samples(path: Path) -> list[list]:
    """[row, text, id, digest of the image] of each sample."""
    split = ArrowSplit([path], SPEC, "captions", SPEC.columns(frozenset({"id"})))
    read = []
    for sample in range(len(split)):
        where = split.locate(sample)
        image = hashlib.md5(split.image(where, "image")).hexdigest()
        read.append([split.table_and_row(where)[1], split.text(where), split.field(where, "id"), image])
    return read


def main() -> None:
    for name in sys.argv[1:]:
        try:
            found = samples(Path(name))
        except UserError as error:
            found = str(error)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
