"""`python -m write_arrow.shards FILES.arrow --format parquet|webdataset --out FOLDER`: shards for programs that want those.

Takes the files of `python -m write_arrow imagenet` and of `emoji_groups`; main_finetune.py reads all three kinds.
"""

import argparse
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.progress import track

from vlc.errors import UserError

ROW_GROUP = 64  # rows: what has to be decoded to read one image


def main(words: list[str] | None = None) -> None:
    """words: the command line, by default that of the process."""
    parser = argparse.ArgumentParser(prog="python -m write_arrow.shards", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="Arrow files with columns image, label and class_name")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the new files")
    arguments = parser.parse_args(words)
    suffix, write = FORMATS[arguments.format]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in track(arguments.files, "shards"):
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is missing or not an Arrow IPC file ({error})") from error
        if missing := {"image", "label", "class_name"} - set(reader.schema.names):
            raise UserError(
                f"{path} lacks column {', '.join(sorted(missing))}: write it with python -m write_arrow imagenet"
            )
        target = arguments.out / f"{path.stem}{suffix}"
        partial = target.with_name(f".{target.name}.partial")  # gets its name when it is complete
        write(reader, partial)
        os.replace(partial, target)


def _parquet(reader: pa.RecordBatchFileReader, path: Path) -> None:
    with pq.ParquetWriter(
        path, reader.schema, compression={"image": "NONE", "label": "ZSTD", "class_name": "ZSTD"}
    ) as out:
        for number in range(reader.num_record_batches):
            out.write_table(pa.Table.from_batches([reader.get_batch(number)]), row_group_size=ROW_GROUP)


def _webdataset(reader: pa.RecordBatchFileReader, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        row = 0
        for number in range(reader.num_record_batches):
            for sample in reader.get_batch(number).to_pylist():
                name, label = f"{row:08d}", sample["label"]
                described = {"label": label, "class_name": sample["class_name"]}
                _add(out, f"{name}.{_suffix(sample['image'])}", sample["image"])
                _add(out, f"{name}.cls", str(label).encode())
                _add(out, f"{name}.json", json.dumps(described).encode())
                row += 1


def _suffix(image: bytes) -> str:
    """The usual suffix of an encoded image's kind; what cannot be recognised is called jpg."""
    try:
        return {"JPEG": "jpg", "MPO": "jpg"}.get(kind := Image.open(io.BytesIO(image)).format, kind.lower())
    except OSError:
        return "jpg"


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    out.addfile(member, io.BytesIO(content))


FORMATS: dict[str, tuple[str, Callable]] = {"parquet": (".parquet", _parquet), "webdataset": (".tar", _webdataset)}

if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
