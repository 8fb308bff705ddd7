"""Damaged files: each kind of file with each kind of damage, read the way the programs read it."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests import tiny
from tests.reliability import reading
from tests.reliability.isolated import Ended, call, call_all
from tests.reliability.outcomes import Try


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    make: writes the sound files into a folder (and takes the folders of the kinds it is made `of`). damaged: patterns of
    those that are damaged. read: the folder -> a digest of what was read. checked: whether a checksum can know. share: of
    the tries.
    """

    name: str
    make: Callable
    read: Callable
    damaged: tuple[str, ...]
    of: tuple[str, ...] = ()
    checked: bool = True
    share: float = 1.0
    only: tuple[str, ...] = ()  # kinds of damage; () = all


# -- kinds of damage: (bytes, a generator) -> bytes


def _flip_bit(data: bytes, rng: random.Random) -> bytes:
    return _changed(data, rng, 1 << rng.randrange(8))


def _flip_byte(data: bytes, rng: random.Random) -> bytes:
    return _changed(data, rng, rng.randrange(1, 256))


def _changed(data: bytes, rng: random.Random, mask: int) -> bytes:
    bad = bytearray(data)
    bad[rng.randrange(len(bad))] ^= mask
    return bytes(bad)


def _zero(size: int, data: bytes, rng: random.Random) -> bytes:
    """Storage fails in blocks, which lie at multiples of their size."""
    start = rng.randrange(-(-len(data) // size)) * size
    end = min(start + size, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def _blocks(data: bytes, rng: random.Random) -> tuple[int, int, int]:
    """Size and starts of two blocks."""
    size = min(512, max(1, len(data) // 4))
    first, second = (rng.randrange(-(-len(data) // size)) * size for _ in range(2))
    return size, min(first, second), max(first, second)


def _repeat(data: bytes, rng: random.Random) -> bytes:
    size, first, _ = _blocks(data, rng)
    return data[: first + size] + data[first : first + size] + data[first + size :]


def _swap(data: bytes, rng: random.Random) -> bytes:
    size, first, second = _blocks(data, rng)
    end = min(second + size, len(data))
    a, b = data[first : first + end - second], data[second:end]
    return data[:first] + b + data[first + len(a) : second] + a + data[end:]


def _append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 100, 5000)))


def _empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def _another(data: bytes, rng: random.Random) -> bytes:
    """The content of a file of another kind."""
    return rng.choice((tiny.image_bytes(7), b'{"a": 1}\n', b"PK\x05\x06" + bytes(18), b"plain text\n" * 20))


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped bit": _flip_bit,
    "flipped byte": _flip_byte,
    "zeroed 512": partial(_zero, 512),
    "zeroed 4096": partial(_zero, 4096),
    "truncated": _truncate,
    "repeated block": _repeat,
    "swapped blocks": _swap,
    "appended": _append,
    "empty": _empty,
    "another file": _another,
}
_ONCE = ("empty", "another file")  # of which many tries would tell the same
ANOTHER_RUN = "of another run"  # the file of that name that another run of the writer made


# -- kinds of files

SCENES, CHECKPOINTS = "scenes", "checkpoints"
KINDS = (
    Kind("Arrow, verify=True", reading.make_scenes, reading.read_scenes, ("*.arrow",), share=1.6),
    Kind("Arrow, write_arrow check", reading.make_scenes, reading.check_arrows, ("*.arrow",), share=1.4),
    Kind("Arrow of labelled images, check", partial(reading.make_classes, form="arrow"), reading.check_arrows, ("*.arrow",),
         share=0.8),
    Kind("last.ckpt, weights", reading.make_checkpoints, reading.read_last, ("last.ckpt",), (SCENES,), share=1.6),
    Kind("last.ckpt, resume_from", reading.make_checkpoints, reading.resume, ("last.ckpt",), (SCENES,), share=0.5),
    Kind("exported safetensors", reading.make_checkpoints, reading.read_safetensors, ("*.safetensors",), (SCENES,),
         share=1.6),
    Kind("exported torch file", reading.make_checkpoints, reading.read_torch, ("*.pt",), (SCENES,), share=1.6),
    Kind("search index", reading.make_index, reading.read_index, ("*.json", "*.faiss", "*.arrow", "*"),
         (CHECKPOINTS, SCENES), share=2.0),
    Kind("Arrow of other writers", reading.make_foreign_arrow, reading.read_captions, ("*.arrow",), checked=False),
    Kind("Parquet of labelled images", partial(reading.make_classes, form="parquet"), reading.read_classes,
         ("*train*.parquet",), share=0.7),
    Kind("Parquet of the hub", reading.make_hub_parquet, reading.read_classes, ("*.parquet",), checked=False, share=0.7),
    Kind("tar of labelled images", partial(reading.make_classes, form="webdataset"), reading.read_classes,
         ("*train*.tar",), share=0.7),
    Kind("tar of captions, converted", reading.make_tar, reading.convert_tar, ("*.tar",), checked=False, share=0.7),
    Kind("hub folder, weights", reading.make_hub, reading.read_hub, ("*.safetensors",), checked=False),
    Kind("hub folder, config.json", reading.make_hub, reading.read_hub, ("config.json",), checked=False, share=0.8),
    Kind("hub folder, tokenizer", reading.make_hub, reading.read_hub, ("token*.json",), checked=False, share=0.8),
    Kind("captions.csv, converted", reading.make_annotations, partial(reading.convert, suffix="csv"), ("table.csv",),
         checked=False, share=0.5),
    Kind("captions.tsv, converted", reading.make_annotations, partial(reading.convert, suffix="tsv"), ("table.tsv",),
         checked=False, share=0.5),
    Kind("captions.json, converted", reading.make_annotations, partial(reading.convert, suffix="json"), ("table.json",),
         checked=False, share=0.5),
    Kind("captions.jsonl, converted", reading.make_annotations, partial(reading.convert, suffix="jsonl"),
         ("table.jsonl",), checked=False, share=0.5),
    Kind("captions.parquet, converted", reading.make_annotations, partial(reading.convert, suffix="parquet"),
         ("table.parquet",), checked=False, share=0.5),
)  # fmt: skip
_TRIES = 80  # of a kind with share 1


def tries(folder: Path, seed: int, scale: float = 1.0, kinds: tuple[Kind, ...] = KINDS) -> Iterator[Try]:
    """All tries, or about `scale` of them."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Any, Path] = {}
    for number, kind in enumerate(kinds):
        sound = _made(kind, folder, made)
        arguments = _arguments(kind, made)
        expected = call(
            kind.read, _copied(sound, folder / f"{number}_sound"), *arguments, folder=folder / f"{number}_out"
        )
        shutil.rmtree(folder / f"{number}_sound")
        if expected.how != "returned":
            yield Try("damage", kind.name, "the sound files", "raw", expected.told(), kind.checked)
            continue
        planned = _planned(
            kind, sound, random.Random(f"{seed} {kind.name}"), max(1, round(_TRIES * kind.share * scale))
        )
        tasks = [
            partial(_try, kind, sound, arguments, expected.value, folder / f"{number}_{count}", *plan)
            for count, plan in enumerate(planned)
        ]
        yield from call_all(tasks)
    if scale >= 1:
        yield from _exchanged(folder, seed, made)


def _made(kind: Kind, folder: Path, made: dict[Any, Path]) -> Path:
    """The folder of a kind's sound files, written when it is first asked for."""
    maker = str(kind.make)  # equal for kinds that read the same files in several ways
    for name, other in ((SCENES, reading.make_scenes), (CHECKPOINTS, reading.make_checkpoints)):
        if name in kind.of and name not in made:
            made[name] = folder / f"sound_{name}"
            _written(other, made[name], folder, [made[SCENES]] if name == CHECKPOINTS else [])
    if maker not in made:
        made[maker] = folder / f"sound_{len(made)}"
        before = [made[SCENES]] if kind.make is reading.make_checkpoints else _arguments(kind, made)
        if kind.make is reading.make_index:
            before = [made[CHECKPOINTS] / "last.ckpt", made[SCENES]]
        _written(kind.make, made[maker], folder, before)
    return made[maker]


def _written(make: Callable, target: Path, folder: Path, arguments: list[Path]) -> None:
    ended = call(make, target, *arguments, folder=folder / f"{target.name}_out", seconds=120)
    if ended.how != "returned":
        raise RuntimeError(f"{target.name} could not be made: {ended.told()}\n{ended.output}")


def _arguments(kind: Kind, made: dict[Any, Path]) -> list[Path]:
    """What a reader needs beside the damaged folder."""
    if kind.read is reading.resume:
        return [made[SCENES]]
    return [made[CHECKPOINTS] / "last.ckpt"] if kind.read is reading.read_index else []


def _copied(sound: Path, folder: Path) -> Path:
    shutil.copytree(sound, folder)
    return folder


def _planned(kind: Kind, sound: Path, rng: random.Random, count: int) -> Iterator[tuple[str, str, int]]:
    """Kind of damage, file, and a seed of its own for each try; every file and every damage in turn."""
    files = sorted({str(path.relative_to(sound)) for pattern in kind.damaged for path in sound.glob(pattern)
                    if path.is_file()})  # fmt: skip
    assert files, f"{kind.name}: nothing of {kind.damaged} in {sound}"
    often = [name for name in DAMAGE if name not in _ONCE]
    once = [(damage, file) for damage in _ONCE for file in files]
    for number in range(count):
        if number < len(once) and number < count // 3:
            damage, file = once[number]
        else:
            damage, file = often[number % len(often)], rng.choice(files)
        yield damage, file, rng.randrange(1 << 32)


def _try(
    kind: Kind, sound: Path, arguments: list[Path], expected: str, folder: Path, damage: str, file: str, seed: int
) -> Try:
    rng = random.Random(seed)
    copied = _copied(sound, folder / "read")
    good = (sound / file).read_bytes()
    for _ in range(20):  # zeroing zeros damages nothing
        bad = DAMAGE[damage](good, rng)
        if bad != good:
            break
    (copied / file).write_bytes(bad)
    ended = call(kind.read, copied, *arguments, folder=folder / "out")
    names = (Path(file).name, Path(file).stem, copied.name)
    outcome, detail = judged(ended, expected, names)
    shutil.rmtree(folder)
    return Try("damage", kind.name, f"{damage}, {file}, seed {seed}", outcome, detail, kind.checked, ended.seconds)


def judged(ended: Ended, expected: Any, names: tuple[str, ...] = ()) -> tuple[str, str]:
    """The outcome of a reading that should give `expected` or refuse, naming one of `names`."""
    if ended.fault:
        return ended.fault, ended.told()
    if ended.how == "returned":
        return ("same", "") if ended.value == expected else ("silent", "other values")
    if ended.how == "exited" and ended.value == 0:
        return "raw", ended.told()
    text = str(ended.value) if ended.how == "refused" else ended.output
    if names and not any(name in text for name in names):
        return "raw", f"a message that names no file: {text.strip()[-400:]}"
    return "clear", text.strip()[-300:]


def _exchanged(folder: Path, seed: int, made: dict[Any, Path]) -> Iterator[Try]:
    """Sets of files in which one is that of another run: each is sound by itself, but the set is none."""
    other = folder / "sound_other_scenes"
    _written(partial(reading.make_scenes, seed=1), other, folder, [])
    sound = made[SCENES]
    for read, name in ((reading.read_scenes, "Arrow, verify=True"), (reading.check_arrows, "Arrow, write_arrow check")):
        expected = call(read, _copied(sound, folder / "exchanged_sound"), folder=folder / "exchanged_out").value
        shutil.rmtree(folder / "exchanged_sound")
        for number, stem in enumerate(reading.STEMS):
            copied = _copied(sound, folder / f"exchanged_{number}")
            shutil.copy(other / stem, copied / stem)
            ended = call(read, copied, folder=folder / f"exchanged_{number}_out")
            outcome, detail = judged(ended, expected, (stem, Path(stem).stem, copied.name))
            shutil.rmtree(copied)
            yield Try("damage", f"{name}: a file {ANOTHER_RUN}", stem, outcome, detail, seconds=ended.seconds)
