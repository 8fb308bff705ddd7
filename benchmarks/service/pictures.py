"""Broken and hostile pictures, which must be answered without a server error, and in bounded memory and time."""

import argparse
import asyncio
import io
import json
import random
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.pictures import photograph
from benchmarks.report import report
from benchmarks.service.asking import form, message
from benchmarks.service.client import Connection
from benchmarks.service.memory import looked
from benchmarks.service.served import server

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
_MODES = {"JPEG": "RGB L CMYK", "PNG": "1 L LA P RGB RGBA I;16", "GIF": "L P RGB", "WEBP": "RGB RGBA", "BMP": "1 L P RGB",
          "TIFF": "1 L P RGB RGBA CMYK YCbCr LAB I I;16 F", "AVIF": "RGB RGBA"}  # fmt: skip
SLOWEST_S = 30.0  # the service's own limit of time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)


def hostile(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Pictures with the name of what is odd about each, in turn of all kinds."""
    rng, kinds = random.Random(seed), list(KINDS.items())
    for number in range(count):
        name, make = kinds[number % len(kinds)]
        yield name, make(rng)


# -- sound pictures of all kinds


def _sound(rng: random.Random) -> bytes:
    kind = rng.choice(_FORMATS)
    return _encoded(rng, kind, rng.choice(_MODES[kind].split()))


def _encoded(rng: random.Random, kind: str, mode: str, **options: Any) -> bytes:
    size = rng.choice([(1, 1), (1, 200), (64, 48), (33, 17), (300, 2)])
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode in ("I", "I;16", "F"):
        levels = {"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]
        image = Image.fromarray(pixels[..., 0].astype(levels) * 257)
    else:
        image = Image.fromarray(pixels[..., :3].copy())
        image = image.convert("RGB").convert(mode) if mode != "LAB" else Image.merge("LAB", image.split())
    return _saved(image, kind, **options)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _animated(rng: random.Random) -> bytes:
    frames = [photograph(32, 24, rng.randrange(99)) for _ in range(rng.randrange(2, 40))]
    return _saved(
        frames[0], rng.choice(["GIF", "WEBP", "PNG", "TIFF", "AVIF"]), save_all=True, append_images=frames[1:]
    )


# -- damage


def _truncated(rng: random.Random) -> bytes:
    data = _sound(rng)
    return data[: rng.randrange(len(data))]


def _flipped(rng: random.Random) -> bytes:
    data = bytearray(_sound(rng))
    for _ in range(rng.choice([1, 3, 30])):
        data[rng.randrange(min(len(data), rng.choice([64, 10**6])))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _noise_behind_header(rng: random.Random) -> bytes:
    data = _sound(rng)
    return data[: rng.randrange(4, 64)] + rng.randbytes(rng.randrange(2000))


def _spliced(rng: random.Random) -> bytes:
    one, other = _sound(rng), _sound(rng)
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


# -- headers that lie, and bombs


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG whose header says what it is told to."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bomb(rng: random.Random) -> bytes:
    """Few bytes that are as many pixels as are taken, or more."""
    side = rng.choice([3000, 7000, 7072, 20_000, 60_000])
    if side < 7100 and rng.random() < 0.5:
        return _saved(Image.new("L", (side, side)), rng.choice(["PNG", "GIF", "JPEG", "TIFF"]))
    return png(side, side, colour=rng.choice([0, 2, 3, 4, 6]), data=zlib.compress(bytes(min(10**8, side * side // 4))))


def _huge_header(rng: random.Random) -> bytes:
    largest = rng.choice([0, 2**16 - 1, 2**31 - 1, 2**32 - 1])
    gif = b"GIF89a" + struct.pack("<HHBBB", largest & 65535, 65535, 0x80, 0, 0) + rng.randbytes(40)
    bmp = b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 99, 0, 54, 40, largest >> 1, -1 - (largest >> 1), 1, 24, 0, 0, 0, 0, 0, 0
    )
    webp = b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff" * 6 + rng.randbytes(20)
    tiff = (
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<H", 3)
        + b"".join(struct.pack("<HHII", tag, 4, rng.choice([1, largest]), largest) for tag in (256, 257, 273))
    )
    jpeg = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65535, largest & 65535) + b"\3\1\x22\0\2\x11\1\3\x11\1"
    return rng.choice([png(largest, largest), gif, bmp, webp, tiff, jpeg])


def _text_bomb(rng: random.Random) -> bytes:
    text = zlib.compress(bytes(rng.choice([10**5, 10**7, 10**8])))
    profile = _chunk(rng.choice([b"zTXt", b"iCCP"]), b"a\0\0" + text)
    return png(8, 8, data=zlib.compress(bytes(8 * 25)), more=profile * rng.choice([1, 5]))


def many_scans(scans: int, side: int = 2048) -> bytes:
    """A progressive JPEG whose last scan, of some bytes, stands there many times: each takes a pass over all pixels."""
    data = _saved(Image.new("L", (side, side)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * scans + data[-2:]


def _nonsense_exif(rng: random.Random) -> bytes:
    kind = rng.choice(["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    if rng.random() < 0.5 and kind in ("JPEG", "PNG", "WEBP"):
        return _encoded(rng, kind, "RGB", exif=b"Exif\0\0" + rng.choice([b"II*\0", b"MM\0*", b""]) + rng.randbytes(60))
    exif = Image.Exif()
    exif[0x0112] = rng.choice([0, 2, 5, 6, 9, 2**16 - 1])
    return _encoded(rng, kind, "RGB", exif=exif.tobytes())


# -- what is no picture, or something else too


def _no_picture(rng: random.Random) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.png", bytes(10**6))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
    others = [archive.getvalue(), svg, postscript, b"%PDF-1.7\n", b"<?php ?>", b"", b"\0", rng.randbytes(300), b"#!\n",
              b"P6 9 9 255\n" + bytes(243), b"\x7fELF" + bytes(60), b"<html><script>alert(1)</script>"]  # fmt: skip
    return rng.choice(others)


def _polyglot(rng: random.Random) -> bytes:
    first, second = _sound(rng), _no_picture(rng)
    return rng.choice([first + second, second + first, b"GIF89a/*" + second + b"*/", first + _sound(rng)])


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "sound": _sound,
    "animated": _animated,
    "truncated": _truncated,
    "flipped bits": _flipped,
    "noise behind a header": _noise_behind_header,
    "spliced": _spliced,
    "bomb of pixels": _bomb,
    "huge header": _huge_header,
    "bomb of texts": _text_bomb,
    "many scans": lambda rng: many_scans(rng.choice([20, 300, 3000]), rng.choice([64, 1024])),
    "nonsense EXIF": _nonsense_exif,
    "no picture": _no_picture,
    "polyglot": _polyglot,
}


def measure(arguments: argparse.Namespace) -> None:
    statuses: dict[str, Counter[int]] = {name: Counter() for name in KINDS}
    slowest: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    with server(arguments.checkpoint, 8) as running:
        before = looked(running)
        pictures = hostile(arguments.pictures, arguments.seed)

        async def client() -> None:
            connection = Connection(running.host, running.port)
            for name, data in pictures:
                begun = time.perf_counter()
                response = await connection.ask(message("/v1/vqa", *form({"images": [data], "text": "what"})))
                slowest[name] = max(slowest[name], time.perf_counter() - begun)
                statuses[name][response.status] += 1
                if response.status >= 500:
                    print(name, response.status, json.loads(response.body)["detail"])
            connection.close()

        async def clients() -> None:
            await asyncio.gather(*(client() for _ in range(arguments.clients)))

        asyncio.run(clients())
        after = looked(running)
        alive = running.process.poll() is None
    rows = [
        {"": name, "answers by status": str(dict(sorted(counted.items()))), "slowest s": slowest[name]}
        for name, counted in statuses.items()
    ]
    report(rows, f"{arguments.pictures} pictures", arguments, before=before, after=after)
    print(f"Before: {before}; after: {after}. The server {'still runs' if alive else 'CRASHED'}")
