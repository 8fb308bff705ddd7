"""Answer about images by the ONNX files beside this script: python answer.py IMAGE [IMAGE2] --text "...".

It needs onnxruntime, tokenizers, numpy and Pillow, and neither torch nor vlc. It prints what `python run.py predict` prints
of these heads, or with --json the same as JSON. Pictures are prepared as vlc prepares them, but for their decoding: see
docs/export.md of vlc.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
VECTOR = "unit vector"
SHOWN = 5  # answers of a head


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", nargs="+", help="a picture, or the two pictures of a statement")
    parser.add_argument("--text", help="question, statement or caption")
    parser.add_argument("--head", action="append", help="the heads that answer; by default all that can")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    records = answers(HERE, given.images, given.text, given.head)
    if not records:
        parser.error(
            "no file here answers that: see the metadata of the .onnx files for how many images and texts they read"
        )
    if given.json:
        print(json.dumps(records, ensure_ascii=False, indent=1))
        return
    for record in records:
        for place, (answer, value) in enumerate(record["answers"]):
            name = record["task"] if place == 0 else ""
            print(f"{printable(name):20}  {printable(answer):30}  {value:.4f}  {record['unit']}")


def answers(folder: Path, images: list[str], text: str | None, heads: list[str] | None = None) -> list[dict[str, Any]]:
    """Return a record for each head that reads so many images, with a text or without, as predict writes them."""
    prepare = preparation(json.loads((folder / "preprocessing.json").read_text(encoding="utf-8")))
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    prepared = [prepare(path) for path in images]
    records, vectors = [], {}
    for path in sorted(folder.glob("*.onnx")):
        session = onnxruntime.InferenceSession(path)
        about = session.get_modelmeta().custom_metadata_map
        names = about["inputs"].split(",")
        if heads and about["head"] not in heads:
            continue
        if about["unit"] == VECTOR:
            if len(images) == 1 and text is not None:
                vectors[about["head"], "ids" in names] = values(session, about, folder, prepared, text)
            continue
        if int(about["num_images"]) != len(images) or (("ids" in names) and text is None):
            continue
        found = values(session, about, folder, prepared, text)
        best = np.argsort(-found, kind="stable")[:SHOWN]
        choices = [[labels[about["head"]][label], float(found[label])] for label in best]
        records.append({"task": about["head"], "text": text, "unit": about["unit"], "answers": choices})
    for head in dict.fromkeys(head for head, _ in vectors):
        near = float(vectors[head, False] @ vectors[head, True])
        records.append({"task": head, "text": text, "unit": "cosine similarity", "answers": [["near", near]]})
    return records


def values(
    session: onnxruntime.InferenceSession,
    about: dict[str, str],
    folder: Path,
    prepared: list[tuple[np.ndarray, tuple[int, int]]],
    text: str | None,
) -> np.ndarray:
    """The values (N,) of a head for one example."""
    inputs: dict[str, np.ndarray] = {}
    names = about["inputs"].split(",")
    if "ids" in names:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids, most = tokenizer.encode(text).ids, int(about["max_text_len"])
        ids = ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]  # the last token ends every text
        inputs["ids"] = np.array([ids], np.int64)
        inputs["mask"] = np.ones_like(inputs["ids"])
    shapes = {one.name: one.shape for one in session.get_inputs()}
    for end, (pixels, size) in zip(("", "_2"), prepared, strict=False):
        if f"image{end}" in shapes:  # where images have several shapes, they are padded
            below, beside = (room - edge for room, edge in zip(shapes[f"image{end}"][2:], size, strict=True))
            inputs[f"image{end}"] = np.pad(pixels, ((0, 0), (0, below), (0, beside)))[None]
            inputs[f"size{end}"] = np.array([size], np.int64)
    return session.run(None, {name: inputs[name] for name in names})[0][0]


def preparation(about: dict[str, Any]) -> Callable[[str], tuple[np.ndarray, tuple[int, int]]]:
    """Return what makes of a file normalised pixels (3, H, W) float32, and height and width of the picture in them."""
    mean, std = (np.array(about[key], np.float32)[:, None, None] for key in ("mean", "std"))
    pipeline, side = PIPELINES[about["pipeline"]], about["image_size"]

    def prepare(path: str) -> tuple[np.ndarray, tuple[int, int]]:
        image = pipeline(path, side)
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255
        return (pixels - mean) / std, (image.height, image.width)

    return prepare


def upright(path: str, shorter: Callable[[int, int], int] | None = None) -> Image.Image:
    """The picture in RGB. shorter: from width and height, the side it is resized to, where it may be decoded at a scale."""
    with Image.open(path) as image:
        whole = image.size
        factor = 1
        if shorter is not None and image.format == "JPEG":
            factor = next((scale for scale in (8, 4, 2) if min(whole) >= 2 * scale * shorter(*whole)), 1)
            image.draft("RGB", (max(1, whole[0] // factor), max(1, whole[1] // factor)))
        turned = ImageOps.exif_transpose(image)
        sideways = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        width, height = whole[::-1] if sideways else whole
        rgb = turned.convert("RGB")
    return rgb if factor == 1 else rgb.crop((0, 0, width // factor, height // factor))


def square(path: str, side: int) -> Image.Image:
    """All of the picture, resized to a square."""
    return upright(path, lambda width, height: side).resize((side, side), Image.Resampling.BICUBIC)


def keep_shape(path: str, side: int) -> Image.Image:
    """All of the picture in its own shape, as large as it fits into a square, black below and on the right."""
    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size
    size = [max(1, round(edge * side / max(width, height))) for edge in (width, height)]
    padded = Image.new("RGB", (side, side))
    padded.paste(upright(path, lambda width, height: min(size)).resize(size, Image.Resampling.BICUBIC))
    return padded


def nearly_its_shape(path: str, side: int) -> Image.Image:
    """The picture in nearly its own shape: `side` is the shorter one, and both are multiples of 32."""
    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size
    longest, scale = int(1333 / 800 * side), side / min(width, height)
    edges = [side if edge == min(width, height) else edge * scale for edge in (width, height)]
    if max(edges) > longest:
        edges = [edge * longest / max(edges) for edge in edges]
    size = [max(1, int(edge + 0.5) // 32) * 32 for edge in edges]
    return upright(path, lambda width, height: min(size)).resize(size, Image.Resampling.BICUBIC)


def central_crop(path: str, side: int) -> Image.Image:
    """The central 7/8 of the picture up to 224 pixels, above the largest square."""
    image, shorter = upright(path), int(side * 256 / 224) if side <= 224 else side
    width, height = image.size
    size = [shorter if edge == min(width, height) else int(shorter * edge / min(width, height)) for edge in image.size]
    left, top = (round((edge - side) / 2) for edge in size)
    return image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


PIPELINES: dict[str, Callable[[str, int], Image.Image]] = {
    "mae_test": square,
    "keep_shape": keep_shape,
    "pixelbert": nearly_its_shape,
    "central_crop": central_crop,
}


def printable(text: str) -> str:
    """The text with escapes in place of what may change a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


if __name__ == "__main__":
    main()
