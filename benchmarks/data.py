"""Reading: from bytes to batch on one core beside the published pipeline, and what loaders, opening and verifying cost.

`python -m benchmarks.data [images] [loading] [opening] [verifying]` prints tables and, with --json, writes them. The sides
of a table take turns in one process, so that a busy machine slows all of them down. Decoders that are not installed, and
kinds of images that this Pillow does not write, are left out.
"""

import argparse
import io
import itertools
import multiprocessing
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.pictures import photograph
from benchmarks.report import machine, show, write
from vlc.data import images
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.keys import Key
from vlc.data.sample import Preparation
from vlc.data.samples import Samples
from vlc.data.stacking import stack_images
from vlc.data.transforms import MEAN, STD, randaugment, transform
from vlc.data.workers import loader_options
from vlc.training.loading import num_cores
from write_arrow.machine import writer

SIZES = (224, 384, 576)
# The kinds of images by Pillow's names, and how they are written. JPEG's quality is an argument.
KINDS: dict[str, dict[str, Any]] = {"JPEG": {}, "PNG": {}, "WEBP": {"quality": 75}, "AVIF": {"quality": 75}}
PIPELINES = ("mae", "mae_randaug", "mae_test")
NUM_CAPTIONS = (100_000, 1_000_000, 10_000_000)
TEXTS_PER_ROW, ROWS_PER_BATCH = 5, 10_000


def main() -> None:
    arguments = _parse()
    tables: dict[str, list[dict[str, Any]]] = {}
    if "images" in arguments.parts:
        tables |= _image_tables(arguments)
    if "loading" in arguments.parts:
        tables["images a second by the number of loader processes"] = _loading(arguments)
    if "opening" in arguments.parts:
        tables["opening a data set"] = [row for count in arguments.captions for row in _opening(count)]
    if "verifying" in arguments.parts:
        tables["images a second, compared with their checksums or not"] = _verifying(arguments)
    for title, rows in tables.items():
        show(rows, f"{title} ({machine()})")
    write(arguments, tables=tables)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parts = ["images", "loading", "opening", "verifying"]
    parser.add_argument("parts", nargs="*", default=parts, help=", ".join(parts))
    parser.add_argument(
        "--folder", type=Path, help="JPEGs to decode (default: generated pictures of all kinds, 640x480)"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", help="numbers of loader processes (default: 0, 1, 2, 4 ... cores)"
    )
    parser.add_argument("--num-images", type=int, default=12)
    parser.add_argument("--quality", type=int, default=75, help="JPEG quality of generated images (default: 75)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--captions", type=int, nargs="+", default=list(NUM_CAPTIONS))
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


# -- images


Side = Callable[[list[bytes]], Any]  # a batch of encoded images


def _image_tables(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    rows = []
    for kind in _kinds(arguments):
        encoded = _encoded(arguments, kind)
        sides = _sides(kind, encoded[0])
        # The other kinds take several times as long, and only the two pipelines are compared.
        seconds = _take_turns(sides, encoded, arguments.repeats if kind == "JPEG" else max(1, arguments.repeats // 3))
        bare = seconds[_BARE, "full"]
        kilobytes = round(statistics.mean(map(len, encoded)) / 1000)
        rows += [
            {
                "kind": kind,
                "kB": kilobytes,
                "size": size,
                "side": name,
                "ms": round(1e3 * taken, 2),
                "images/s": round(1 / taken),
                "x published": _faster(seconds, name, size),
                "x bare decoding": round(bare / taken, 2),
            }
            for (name, size), taken in seconds.items()
        ]
    return {"images a second on one core, from bytes to batch": rows}


_BARE = "decoding alone"  # JPEGs in full size by libjpeg-turbo, other kinds by Pillow


def _sides(kind: str, example: bytes) -> dict[tuple[str, int | str], Side]:
    """What is compared, by name and size: pipelines from bytes to a batch, and decoding alone."""
    decoders = {name: decode for name, decode in _decoders().items() if kind == "JPEG" and _works(decode, example)}
    bare = decoders.pop("simplejpeg", _decoders()["Pillow"])
    sides: dict[tuple[str, int | str], Side] = {(_BARE, "full"): _each(bare)}
    sides |= {(f"{_BARE}, {name}", "full"): _each(decode) for name, decode in decoders.items()}
    for size in SIZES:
        for name in PIPELINES:
            sides[f"published: {name}", size] = _stacked(_published(name, size))
            sides[f"ours: {name}", size] = prepared(name, size)
        sides |= {
            (f"{name}, torch's resize", size): _stacked(_decode_and_resize(decode, size))
            for name, decode in decoders.items()
        }
        if images.simplejpeg and kind == "JPEG":
            sides["ours without simplejpeg: mae", size] = _without_simplejpeg(prepared("mae", size))
    return sides


def _each(decode: Callable[[bytes], Any]) -> Side:
    def run(batch: list[bytes]) -> None:
        for data in batch:
            decode(data)

    return run


def _stacked(pipeline: Callable[[bytes], torch.Tensor]) -> Side:
    return lambda batch: torch.stack([pipeline(data) for data in batch])


def _faster(seconds: dict[Any, float], name: str, size: int | str) -> float | str:
    """How many times as fast as the published pipeline of the same name."""
    published = seconds.get((f"published: {name.rsplit(': ', 1)[-1]}", size))
    return round(published / seconds[name, size], 2) if published else ""


def _kinds(arguments: argparse.Namespace) -> list[str]:
    Image.init()
    return ["JPEG"] if arguments.folder else [kind for kind in KINDS if kind in Image.SAVE]


def _encoded(arguments: argparse.Namespace, kind: str = "JPEG") -> list[bytes]:
    if arguments.folder:
        paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
        return [path.read_bytes() for path in paths[: arguments.num_images]]
    options = {"quality": arguments.quality} if kind == "JPEG" else KINDS[kind]
    files = [io.BytesIO() for _ in range(arguments.num_images)]
    for number, file in enumerate(files):
        photograph(640, 480, seed=number).save(file, kind, **options)
    return [file.getvalue() for file in files]


def _decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Encoded bytes -> (H, W, 3) uint8, in full size unless the name says otherwise."""

    def pillow(data: bytes, half: bool = False) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        if half:
            image.draft("RGB", (image.width // 2, image.height // 2))
        return np.array(image.convert("RGB"))

    def simplejpeg(data: bytes, half: bool = False) -> np.ndarray:
        import simplejpeg

        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        smallest = {"min_height": -(-height // 2), "min_width": -(-width // 2)} if half else {}
        return simplejpeg.decode_jpeg(data, **smallest)

    def torchvision(data: bytes) -> np.ndarray:
        from torchvision.io import decode_jpeg

        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()

    def turbojpeg(data: bytes) -> np.ndarray:
        from turbojpeg import TJPF_RGB, TurboJPEG

        return TurboJPEG().decode(data, TJPF_RGB)

    def pyvips(data: bytes) -> np.ndarray:
        from pyvips import Image as VipsImage

        return VipsImage.jpegload_buffer(data).numpy()

    def scaled(decode: Callable) -> Callable[[bytes], np.ndarray]:
        return lambda data: decode(data, half=True)

    return {
        "Pillow": pillow,
        "Pillow, draft 1/2": scaled(pillow),
        "simplejpeg": simplejpeg,
        "simplejpeg, 1/2": scaled(simplejpeg),
        "torchvision": torchvision,
        "PyTurboJPEG": turbojpeg,
        "pyvips": pyvips,
    }


def _works(decode: Callable[[bytes], np.ndarray], data: bytes) -> bool:
    try:
        return decode(data).shape[2] == 3
    except (ImportError, RuntimeError, OSError):  # not installed, or without its library
        return False


def _published(name: str, size: int) -> Callable[[bytes], torch.Tensor]:
    """Pillow decodes; torchvision crops, resizes, mirrors and makes normalised floats."""
    from torchvision import transforms

    rng, bicubic = np.random.default_rng(0), transforms.InterpolationMode.BICUBIC
    draws = {
        "mae": [
            transforms.RandomResizedCrop(size, scale=(0.8, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
        ],
        "mae_randaug": [
            transforms.Lambda(lambda image: randaugment(image, rng)[0]),  # operations of Pillow's, the published ones
            transforms.RandomResizedCrop(size, scale=(0.9, 1.0), interpolation=bicubic),
        ],
        "mae_test": [transforms.Resize((size, size), interpolation=bicubic)],
    }
    pipeline = transforms.Compose([*draws[name], transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return lambda data: pipeline(Image.open(io.BytesIO(data)).convert("RGB"))


def prepared(name: str, size: int) -> Side:
    pipeline, rng = transform(name, size), np.random.default_rng(0)
    return lambda batch: stack_images([[pipeline(images.open_image(pa.py_buffer(data)), rng).pixels] for data in batch])


def _without_simplejpeg(side: Side) -> Side:
    def run(batch: list[bytes]) -> Any:
        kept, images.simplejpeg = images.simplejpeg, None
        try:
            return side(batch)
        finally:
            images.simplejpeg = kept

    return run


def _decode_and_resize(decode: Callable[[bytes], np.ndarray], size: int) -> Callable[[bytes], torch.Tensor]:
    def run(data: bytes) -> torch.Tensor:
        pixels = torch.from_numpy(decode(data)).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)[0]

    return run


def _take_turns(sides: dict[Any, Side], encoded: list[bytes], repeats: int) -> dict[Any, float]:
    """Seconds of the processor for an image, the median over repeats."""
    times: dict[Any, list[float]] = {name: [] for name in sides}
    for repeat in range(-1, repeats):  # the first one warms up
        for name, side in sides.items():
            started = time.process_time()
            side(encoded)
            if repeat >= 0:
                times[name].append(time.process_time() - started)
    return {name: statistics.median(taken) / len(encoded) for name, taken in times.items()}


# -- loading


def _loading(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Batches of 32 from a file of ours to this process, which does nothing else."""
    cores = num_cores()
    numbers = arguments.workers or [0, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)]
    table = []
    with tempfile.TemporaryDirectory() as folder:
        split = _split(Path(folder), _encoded(arguments), verify=False)
        for size in SIZES:
            samples = Samples("train", [split], (), Preparation(transform("mae", size), 0, None), training=True, seed=0)
            rates = {number: _loaded(samples, number) for number in numbers}
            one = rates.get(1)
            for number, rate in rates.items():
                speedup = round(rate / one, 2) if one else ""
                table.append({"size": size, "processes": number, "images/s": round(rate), "x one process": speedup})
    return table


def _loaded(samples: Samples, num_workers: int, seconds: float = 4) -> float:
    """Images a second, from the moment when the first batches of all processes are used up."""
    rng = np.random.default_rng(0)
    endless = (
        [Key(epoch, int(sample)) for sample in rng.integers(len(samples), size=32)] for epoch in itertools.count()
    )
    began, images_seen = 0.0, 0
    for number, batch in enumerate(DataLoader(samples, sampler=endless, **loader_options(num_workers, pinned=False))):  # type: ignore[arg-type]  # an iterator is enough
        if number == 3 * num_workers:
            began = time.perf_counter()
        elif number > 3 * num_workers:
            images_seen += len(batch)
            if (taken := time.perf_counter() - began) > seconds:
                break
    return images_seen / taken


def _split(folder: Path, encoded: list[bytes], *, verify: bool) -> ArrowSplit:
    schema = pa.schema({"image": pa.binary(), "caption": pa.list_(pa.string())})
    rows = [{"image": image, "caption": ["a"]} for image in encoded]
    path = writer.write_table(writer.Table("captions_0", schema, rows, len(rows)), folder)
    return ArrowSplit([path], CATALOG["coco"], "coco", {"image", "caption"}, verify=verify)


# -- opening


def _verifying(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Reading, decoding and resizing images of a file of ours, with and without `verify`, in turns, by processor time."""
    torch.set_num_threads(1)
    encoded = _encoded(arguments)
    pipelines = {size: transform("mae", size) for size in SIZES}
    best: dict[tuple[int, bool, int], float] = {}  # seconds of each image: the least of all turns
    with tempfile.TemporaryDirectory() as folder:
        splits = {verify: _split(Path(folder) / str(verify), encoded, verify=verify) for verify in (False, True)}
        for _ in range(arguments.repeats):
            for size, sample, (verify, split) in itertools.product(SIZES, range(len(encoded)), splits.items()):
                started = time.process_time()
                pipelines[size](images.open_image(split.image(split.locate(sample), "image")), np.random.default_rng(0))
                key = size, verify, sample
                best[key] = min(time.process_time() - started, best.get(key, np.inf))
    table = []
    for size in SIZES:
        without, with_ = (sum(best[size, verify, sample] for sample in range(len(encoded))) for verify in splits)
        rates = {"without": round(len(encoded) / without), "with": round(len(encoded) / with_)}
        table.append({"size": size, **rates, "cost %": round(100 * (with_ / without - 1), 1)})
    return table


def _opening(num_captions: int) -> list[dict[str, Any]]:
    """Two rows of the table: opening by the main process, and by a loader process, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.arrow"
        _write(path, num_captions)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            split, main = pool.apply(
                _open, (partial(ArrowSplit, [path], CATALOG["coco"], "coco", {"image", "caption"}),)
            )
            _, loader = pool.apply(_open, (partial(pickle.loads, split),))
        size = round(path.stat().st_size / 1e6)
    return [
        {"captions": f"{num_captions:,}", "file MB": size, "process": name, **row}
        for name, row in (("main", main), ("loader", loader))
    ]


def _open(opening: Callable[[], ArrowSplit]) -> tuple[bytes, dict[str, Any]]:
    """The split as it travels to loader processes; seconds of opening, the memory it adds, the time to reach a sample."""
    before = memory()
    started = time.perf_counter()
    split = opening()
    seconds = time.perf_counter() - started
    after = memory()
    samples = np.random.default_rng(0).integers(len(split), size=1000).tolist()
    started = time.perf_counter()
    for sample in samples:
        split.text(split.locate(sample))
    reached = (time.perf_counter() - started) / len(samples)
    return pickle.dumps(split), {
        "seconds": round(seconds, 3),
        "RSS MB": round(after["Rss"] - before["Rss"], 1),
        "own MB": round(after["Anonymous"] - before["Anonymous"], 1),
        "us a sample": round(1e6 * reached),
    }


def memory() -> dict[str, float]:
    """MB by Linux's names: Rss is everything mapped (pages of files too, which processes share), Anonymous our own."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) / 1000 for name, value in (line.split(":") for line in lines)}


def _write(path: Path, num_captions: int) -> None:
    """Rows with five captions of 35 to 75 letters, some of them repeated, and an image of 20 bytes."""
    schema = pa.schema({"image": pa.binary(), "caption": pa.list_(pa.string())})
    with pa.ipc.new_file(str(path), schema) as writer:
        for batch in _batches(num_captions // TEXTS_PER_ROW, schema):
            writer.write_batch(batch)


def _batches(num_rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    for first in range(0, num_rows, ROWS_PER_BATCH):
        rows = min(ROWS_PER_BATCH, num_rows - first)
        lengths = rng.integers(35, 75, (rows, TEXTS_PER_ROW))
        lengths[::100, 1] = lengths[::100, 0]
        ends = np.concatenate([[0], lengths.ravel().cumsum()]).astype(np.int32)
        letters = rng.integers(97, 123, ends[-1], dtype=np.uint8)
        for row in range(0, rows, 100):  # the first two captions of each hundredth row are the same
            start, middle, end = ends[row * TEXTS_PER_ROW :][:3]
            letters[middle:end] = letters[start:middle]
        texts = pa.Array.from_buffers(pa.string(), rows * TEXTS_PER_ROW, [None, *map(pa.py_buffer, (ends, letters))])
        starts = pa.array(np.arange(0, len(texts) + 1, TEXTS_PER_ROW, dtype=np.int32))
        cells = [pa.array([bytes(20)] * rows, pa.binary()), pa.ListArray.from_arrays(starts, texts)]
        yield pa.record_batch(cells, schema=schema)


if __name__ == "__main__":
    main()
