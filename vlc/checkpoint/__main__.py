"""Show or convert a checkpoint: `python -m vlc.checkpoint SOURCE [TARGET]`."""

import argparse
from pathlib import Path

from vlc.checkpoint import adapters
from vlc.checkpoint.formats import WRITTEN
from vlc.checkpoint.weights import count_by_part, export, read, with_tokenizer
from vlc.common.errors import UserError
from vlc.common.terminal import printable


def _check_target(source: Path, target: Path, overwrite: bool, *, folder: bool = False) -> None:
    """Raise UserError where the target, a file or a folder, cannot be written or must not be replaced."""
    if folder and target.is_file():
        raise UserError(f"{target} is a file, and --adapters writes a folder: name another place")
    if target.is_dir() and not folder:
        raise UserError(
            f"{target} is a folder: name the file to write in it, for example {target / 'weights.safetensors'}"
        )
    blocking = next((parent for parent in target.parents if parent.exists()), None)
    if blocking is not None and not blocking.is_dir():
        raise UserError(f"{target} cannot be written: {blocking} is a file, not a folder")
    if not target.exists():
        return
    if target.samefile(source):
        raise UserError(
            f"{target} is the checkpoint that is read: the new file holds only weights, and the state of its run "
            "(optimiser, step, place in the data) would be lost. Name another file."
        )
    if not overwrite:
        raise UserError(f"{target} exists: name another file, or pass --overwrite")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlc.checkpoint", description="Show or convert a checkpoint.")
    parser.add_argument("source", type=Path, help="checkpoint of any known layout")
    parser.add_argument("target", type=Path, nargs="?", help="file to write; .safetensors or any other suffix")
    parser.add_argument("--layout", choices=WRITTEN, default="vlc", help="layout of the file to write")
    parser.add_argument(
        "--tokenizer", help="name or folder of the tokenizer of its training, which the new file stores"
    )
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights, in place of the weights")
    parser.add_argument(
        "--adapters",
        action="store_true",
        help="write the adapters of a run with lora.rank alone: TARGET is a folder, which peft reads too",
    )
    parser.add_argument("--base", type=Path, help="checkpoint that a folder of adapters, SOURCE, belongs to")
    parser.add_argument("--overwrite", action="store_true", help="replace the target if it exists")
    arguments = parser.parse_args()
    try:
        if arguments.target:
            _check_target(arguments.source, arguments.target, arguments.overwrite, folder=arguments.adapters)
        part = "ema" if arguments.ema else None
        if arguments.adapters and arguments.target:
            count, base = adapters.save(arguments.source, arguments.target, part)
            print(printable(f"Wrote {arguments.target}: {count:,} values, which belong to the checkpoint {base}"))
            return
        checkpoint = read(arguments.source, part, arguments.base)
        print(printable(f"{checkpoint.path}: layout {checkpoint.layout.name}, {count_by_part(checkpoint.state)}"))
        if arguments.target:
            if arguments.tokenizer:
                checkpoint = with_tokenizer(checkpoint, arguments.tokenizer)
            left_out = export(checkpoint, arguments.target, arguments.layout)
            without = f", without {count_by_part(left_out)}" if left_out else ""
            print(printable(f"Wrote {arguments.target} (layout {arguments.layout}){without}"))
    except UserError as error:
        parser.exit(2, f"{printable(error)}\n")


if __name__ == "__main__":
    main()
