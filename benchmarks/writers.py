"""The speed and the peak memory of writers at few and at many rows, on raw data that are made in the layout of each.

`python -m benchmarks.writers WRITER ...` prints a table; a row is an image with its texts. Images are random bytes, and
verification is off, so that reading annotations, planning and writing are measured.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report
from benchmarks.write import PEAK

FILES = 100  # different image files; the others are links to them
QUESTIONS, CAPTIONS = 10, 5  # of an image
SPLITS = {"train": 0.9, "val": 0.05, "test": 0.05}  # shares of the images
_MULTI30K = {"train": "train", "val": "val", "test": "test_2016_flickr"}


@dataclass(frozen=True)
class Layout:
    """The raw data of a writer.

    make: writes the annotations below a folder; it takes the numbers of the images by split.
    image: the path of an image, by its split and number.
    texts: of an image.
    words: more of the command line.
    """

    make: Callable[[Path, dict[str, range]], None]
    image: Callable[[str, int], str]
    texts: int
    words: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.writers", description=__doc__)
    parser.add_argument("writers", nargs="+", choices=LAYOUTS, metavar="WRITER", help=", ".join(LAYOUTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kilobytes", type=int, default=20, help="of each image (default: 20)")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [_measured(name, count, arguments) for name in arguments.writers for count in arguments.rows]
    report(rows, "writers", arguments)


def _measured(name: str, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    layout, first = LAYOUTS[name], 0
    numbers = {}
    for split, share in SPLITS.items():
        numbers[split] = range(first, first + max(1, round(share * count)))
        first = numbers[split].stop
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "out"
        raw.mkdir()
        layout.make(raw, numbers)
        size = sum(path.stat().st_size for path in raw.rglob("*") if path.is_file())
        _images(
            raw, [layout.image(split, number) for split, own in numbers.items() for number in own], arguments.kilobytes
        )
        words = [name, "--root", str(raw), "--no-verify", "--workers", "1", "--out", str(out), *layout.words]
        started = time.perf_counter()
        printed = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    counts = {"writer": name, "rows": f"{first:,}", "texts": f"{layout.texts * first:,}"}
    speed = {"annotations MB": round(size / 1e6), "seconds": round(seconds, 1), "rows/s": round(first / seconds)}
    return counts | speed | {"peak MB": round(int(printed.stdout.split()[-1]) / 1000)}


def _images(root: Path, paths: list[str], kilobytes: int) -> None:
    """Files of random bytes; those after the first FILES are links to them."""
    rng = np.random.default_rng(0)
    for place, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if place < FILES:
            (root / path).write_bytes(rng.bytes(kilobytes * 1000))
        else:
            os.link(root / paths[place % FILES], root / path)


def _write_json(path: Path, entries: Iterable[str], before: str = "[", after: str = "]") -> None:
    """A JSON document of many entries, written one by one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write(before)
        for place, entry in enumerate(entries):
            file.write(f"{', ' * (place > 0)}{entry}")
        file.write(after)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)


# -- GQA and Visual Genome


def _gqa(root: Path, numbers: dict[str, range]) -> None:
    """The images of the test split are added to those of train."""
    for split, own in (("train", [*numbers["train"], *numbers["test"]]), ("val", numbers["val"])):
        questions = (QUESTIONS * image + place for image in own for place in range(QUESTIONS))
        entries = (f'"{number:09}": {json.dumps(_gqa_question(number))}' for number in questions)
        _write_json(root / f"{split}_balanced_questions.json", entries, "{", "}")


def _gqa_question(number: int) -> dict[str, Any]:
    answer = f"answer {number % 1842}"
    steps = ("select", "relate", "filter color", "query")
    pointers = {str(place): str(1_000_000 + number + place) for place in range(4)}
    return {
        "semantic": [{"operation": step, "dependencies": [0], "argument": f"thing ({number})"} for step in steps],
        "entailed": [f"{number // 10 * 10 + place:09}" for place in range(5)],
        "equivalent": [f"{number:09}"],
        "question": f"What is the thing number {number} on the left side of the picture made of?",
        "imageId": str(number // QUESTIONS),
        "isBalanced": True,
        "groups": {"global": "material", "local": f"13-thing_{number}"},
        "answer": answer,
        "semanticStr": "->".join(f"{step}: thing ({number}) [0]" for step in steps),
        "annotations": {"answer": pointers, "question": pointers, "fullAnswer": pointers},
        "types": {"detailed": "materialThis", "semantic": "attr", "structural": "query"},
        "fullAnswer": f"The thing number {number} is made of {answer}.",
    }


def _vgqa(root: Path, numbers: dict[str, range]) -> None:
    images = [number for own in numbers.values() for number in own]
    _write_json(root / "image_data.json", (json.dumps({"image_id": one, "coco_id": one}) for one in images))
    entries = (json.dumps({"id": one, "qas": _vg_questions(one)}) for one in images)
    _write_json(root / "question_answers.json", entries)
    labels = {f"answer {label}": label for label in range(3000)}
    (root / "coco_vqa_label_info.json").write_text(json.dumps({"ans2label": labels}))


def _vg_questions(image: int) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "qa_id": QUESTIONS * image + place,
            "question": f"What is thing number {place} of picture {image} made of?",
            "answer": f"Answer {(image + place) % 3000}.",
            "a_objects": [],
            "q_objects": [],
        }
        for place in range(QUESTIONS)
    ]


# -- captions of COCO and Flickr30k


def _coco_image(split: str, number: int) -> str:
    folder = "train2014" if split == "train" else "val2014"
    return f"{folder}/COCO_{folder}_{number:012}.jpg"


def _flickr_image(split: str, number: int) -> str:
    return f"flickr30k-images/{number}.jpg"


def _retrieval(data_set: str, image: Callable[[str, int], str]) -> Callable[[Path, dict[str, range]], None]:
    """12-in-1's files of captions, and Karpathy's of all images."""

    def make(root: Path, numbers: dict[str, range]) -> None:
        all_images = ((split, number) for split, own in numbers.items() for number in own)
        entries = (
            json.dumps(_karpathy(split, number, *image(split, number).split("/"))) for split, number in all_images
        )
        _write_json(root / f"karpathy/dataset_{data_set}.json", entries, '{"images": [', "]}")
        for split, name in (("train", "train"), ("test", "test_set0")):
            lines = (
                json.dumps({"id": number, "img_path": image(split, number), "sentences": _captions(number)})
                for number in numbers[split]
            )
            _write_lines(root / f"retrieval/all_data_final_{name}_2014.jsonline", lines)

    return make


def _karpathy(split: str, number: int, folder: str, name: str) -> dict[str, Any]:
    sentences = [{"raw": caption, "tokens": caption.split(), "imgid": number} for caption in _captions(number)]
    return {"filepath": folder, "filename": name, "imgid": number, "split": split, "sentences": sentences}


def _captions(number: int) -> list[str]:
    return [f"Caption {place} of picture {number} says that two things stand there." for place in range(CAPTIONS)]


# -- Multi30k and lexical translation


def _multi30k(root: Path, numbers: dict[str, range]) -> None:
    for split, own in numbers.items():
        name, names = _MULTI30K[split], [f"{number}.jpg" for number in own]
        _write_lines(root / f"data/task1/image_splits/{name}.txt", names)
        for language in ("en", "de", "fr", "cs"):
            lines = (f"A sentence in {language} says that two things stand in picture {number}." for number in own)
            _write_lines(root / f"data/task1/raw/{name}.{language}.gz", lines)
        captioned = name.removesuffix("_flickr")
        _write_lines(root / f"data/task2/image_splits/{captioned}_images.txt", names)
        for place in range(CAPTIONS):
            for language in ("en", "de"):
                lines = (f"{language}: {_captions(number)[place]}" for number in own)
                _write_lines(root / f"data/task2/raw/{captioned}.{place + 1}.{language}.gz", lines)


def _mlt(root: Path, numbers: dict[str, range]) -> None:
    for split, own in numbers.items():
        _write_lines(root / f"data/task1/image_splits/{_MULTI30K[split]}.txt", (f"{number}.jpg" for number in own))
    for language in ("de", "fr"):
        trained = (f"{_word(number)} {number}.jpg" for split in ("train", "val") for number in numbers[split])
        _write_lines(root / f"EN{language.upper()}_MLTD_formatted.txt", trained)
        tested = (f"{_word(number)} zwei dinge . | {number}.jpg" for number in numbers["test"])
        _write_lines(root / f"test_sets/en{language}_test2016.txt", tested)
        for name in (f"en{language}_test2017flickr", f"en{language}_test2017mscoco", f"MLTtest2018en{language}"):
            _write_lines(root / f"test_sets/{name}.txt", ())


def _word(number: int) -> str:
    """One of 700 words, one of its four translations, and a sentence."""
    word = f"thing{number % 700}"
    return f"{word} | {word}-{number % 4} | two of the {word} stand there . |"


LAYOUTS = {
    "gqa": Layout(_gqa, lambda split, number: f"images/{number}.jpg", QUESTIONS),
    "vgqa": Layout(_vgqa, lambda split, number: f"images/{number}.jpg", QUESTIONS, ("--keep-validation-images",)),
    "coco_retrieval": Layout(_retrieval("coco", _coco_image), _coco_image, CAPTIONS),
    "f30k_retrieval": Layout(_retrieval("flickr30k", _flickr_image), _flickr_image, CAPTIONS),
    "multi30k": Layout(_multi30k, _flickr_image, 4 + 2 * CAPTIONS),
    "mlt": Layout(_mlt, _flickr_image, 2),
}


if __name__ == "__main__":
    main()
