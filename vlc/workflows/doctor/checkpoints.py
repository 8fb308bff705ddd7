"""Which checkpoints lie below a folder, what they hold, and which are damaged."""

from collections.abc import Iterator
from pathlib import Path

from vlc.common.errors import UserError
from vlc.workflows.doctor import torch_process
from vlc.workflows.doctor.finding import Asked, Finding, note, ok, problem, size

_SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors", ".bin")
_MOST = 10  # files that are read; further ones are counted


def probe(asked: Asked) -> Iterator[Finding]:
    """Read a checkpoint, or the newest below a folder."""
    place = Path(asked.load_path or asked.log_dir)
    if not place.exists():
        report = problem if asked.load_path else note
        cure = "python run.py doctor with load_path=CHECKPOINT_OR_FOLDER"
        yield report(f"{place} does not exist" if asked.load_path else f"no checkpoint lies below {place}", cure)
        return
    if not torch_process.answer("torch").facts:
        yield note(f"{place} is not looked at, as torch cannot be imported")
        return
    files = [place] if place.is_file() else _below(place)
    if not files:
        yield note(f"no checkpoint lies below {place}")
    for path in files[:_MOST]:
        yield _checkpoint(path)
    if len(files) > _MOST:
        yield note(f"{len(files) - _MOST} older checkpoints were not opened", "python -m vlc.checkpoint FILE shows one")


def _below(folder: Path) -> list[Path]:
    """The files with the suffix of a checkpoint, the newest first; links to others of them are left out."""
    found = {path.resolve() for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file()}
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _checkpoint(path: Path) -> Finding:
    from vlc.checkpoint.weights import read

    try:
        checkpoint = read(path)
    except UserError as error:
        return problem(str(error) if str(path) in str(error) else f"{path}: {error}")
    heads = sorted({name.split(".")[1] for name in checkpoint.state if name.startswith("objectives.")})
    held = f"heads {', '.join(heads)}" if heads else "no heads"
    tokenizer = ", its tokenizer" if "tokenizer" in checkpoint.extras else ""
    return ok(f"{path}: layout {checkpoint.layout.name}, {held}{tokenizer}, {size(path.stat().st_size)}")
