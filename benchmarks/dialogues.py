"""Dialogues in the size of VisDial: the writer's speed and memory, and the ranking of options together and one by one.

`python -m benchmarks.dialogues write --dialogues 10000 100000`: rows a second and peak memory of `write_arrow visdial`.
`python -m benchmarks.dialogues rank --rounds 2`: sequences a second of base/16 at 224 with 100 options for each question,
as texts of their own, as branches (choice.branches), and one by one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cases import VOCABULARY
from benchmarks.report import machine
from benchmarks.write import PEAK
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.parts.candidates import CandidateTexts
from vlc.hardware.allocator import keep_freed_memory
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.model.encoder import Encoder
from vlc.model.passes import Pass, encode_passes
from vlc.model.sizes import ENCODERS

ROUNDS, OPTIONS, MAX_TOKENS = 10, 100, 50
TEXTS_OF_A_DIALOGUE = 3  # distinct questions and answers a dialogue, as in VisDial
IMAGE_BYTES, FILES = 20_000, 1000
_CANDIDATES, _BRANCHES = Pass(("candidates", "image"), pooled_only=True), Pass(("trunk", "image", "candidates"))
OPTION_TOKENS = 9  # of the longest option, with [CLS] and [SEP]; MAX_TOKENS are of question, history and option


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dialogues", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("measure", choices=("write", "rank"))
    parser.add_argument("--dialogues", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    parser.add_argument("--rounds", type=int, default=2, help="that are ranked together (default: 2)")
    parser.add_argument("--alone", type=int, default=20, help="sequences that are encoded one by one (default: 20)")
    arguments = parser.parse_args()
    if arguments.measure == "write":
        rows = [_written(count, arguments.folder) for count in arguments.dialogues]
    else:
        rows = _ranked(arguments.rounds, arguments.alone)
    grid = Table(*rows[0], title=machine())
    for row in rows:
        grid.add_row(*map(str, row.values()))
    Console().print(grid)


def _written(count: int, folder: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        raw, out = Path(name) / "raw", Path(name) / "out"
        (raw / "val2014").mkdir(parents=True)
        for split, own in (("train", count), ("val", 1), ("test", 1)):
            _make(raw, split, own)
        words = ["visdial", "--root", str(raw), "--no-verify", "--workers", "1", "--out", str(out)]
        started = time.perf_counter()
        printed = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in raw.glob("*.json"))
        peak = int(printed.stdout.split()[-1]) / 1000
        shutil.rmtree(out)
    rate = {"seconds": round(seconds, 1), "rows_per_s": round(count / seconds), "peak_mb": round(peak)}
    return {"dialogues": count, "json_mb": round(size / 1e6)} | rate


def _make(raw: Path, split: str, count: int) -> None:
    """Raw files of a split; its images are links to FILES files of random bytes."""
    rng = np.random.default_rng(0)
    place = "train2014/COCO_train2014" if split == "train" else f"VisualDialog_{split}2018/VisualDialog_{split}2018"
    (raw / place).parent.mkdir(parents=True)
    num_texts = max(TEXTS_OF_A_DIALOGUE * count, OPTIONS)
    with (raw / f"visdial_1.0_{split}.json").open("w") as file:
        texts = {
            name: [f"{name} number {n}, some words" for n in range(num_texts)] for name in ("questions", "answers")
        }
        head = json.dumps({"version": "1.0", "split": split, "data": texts | {"dialogs": []}})
        file.write(head.removesuffix("]}}"))
        for number in range(count):
            image = raw / f"{place}_{number:012d}.jpg"
            if number < FILES:
                image.write_bytes(rng.bytes(IMAGE_BYTES))
            else:
                os.link(raw / f"{place}_{number % FILES:012d}.jpg", image)
            turns = rng.integers(0, num_texts, (ROUNDS, 2 + OPTIONS)).tolist()
            dialog = [
                {"question": question, "answer": answer, "answer_options": options, "gt_index": 0}
                for question, answer, *options in turns
            ]
            entry = {"image_id": number, "caption": f"the caption of image {number}", "dialog": dialog}
            file.write(("," if number else "") + json.dumps(entry))
        file.write("]}}")


@torch.no_grad()
def _ranked(rounds: int, alone: int) -> list[dict[str, Any]]:
    """Together: as a test ranks them, the image embedded once. One by one: image and text of each option by themselves.

    As branches: question, history and image are encoded once, with the options behind them.
    """
    torch.manual_seed(0)
    encoder = Encoder(ENCODERS["mae_vit_base_patch16"], 224, vocab_size=VOCABULARY, max_text_len=MAX_TOKENS).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device)
    if device.type == "cpu":
        keep_freed_memory()
        if suits_onednn(encoder.size.width, half=False):
            use_onednn(encoder)
    lengths = torch.randint(MAX_TOKENS // 2, MAX_TOKENS + 1, (rounds * OPTIONS, 1))
    mask = (torch.arange(MAX_TOKENS) < lengths).long()
    text = Text(torch.randint(1000, VOCABULARY, mask.shape) * mask, mask, int(mask.sum()), torch.zeros_like(mask))
    images = Images(torch.rand(rounds, 1, 3, 224, 224))
    batch = Batch(index=torch.arange(rounds), split="test", images=images, text=text.at(slice(rounds)))
    batch = batch.with_parts(candidates=CandidateTexts(text, [])).to(device)
    branching = batch.with_parts(candidates=_branches(rounds)).to(device)

    def together() -> int:
        return len(encode_passes(encoder, batch, [_CANDIDATES])[_CANDIDATES].pooled)

    def as_branches() -> int:
        return len(encode_passes(encoder, branching, [_BRANCHES])[_BRANCHES]["candidates"]) * OPTIONS

    def one_by_one() -> int:
        for number in range(alone):
            length = int(lengths[number])
            own = Text(text.ids[number : number + 1, :length], text.mask[number : number + 1, :length]).to(device)
            pixels = images.pixels[number // OPTIONS].to(device)
            encoder.encode((encoder.embed_text(own), encoder.embed_images(pixels)), pooled_only=True).pooled.cpu()
        return alone

    rows = []
    sides = (("together", together), ("as branches", as_branches), ("one by one", one_by_one))
    for name, side in sides:
        side()  # warms up
        started = time.perf_counter()
        count = side()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        rows.append({"options": name, "sequences": count, "sequences_per_s": round(count / seconds, 2)})
    return rows


def _branches(rounds: int) -> CandidateTexts:
    """Trunks of MAX_TOKENS without the tokens of the longest option, and options of half of these to all."""
    ids = torch.randint(1000, VOCABULARY, (rounds, MAX_TOKENS - OPTION_TOKENS))
    sizes = torch.randint(OPTION_TOKENS // 2, OPTION_TOKENS + 1, (rounds, OPTIONS))
    longest = int(sizes.sum(1).max())
    numbers = torch.zeros(rounds, -(-longest // 8) * 8, dtype=torch.int64)
    for row, own in zip(numbers, sizes, strict=True):
        row[: int(own.sum())] = torch.arange(1, OPTIONS + 1).repeat_interleave(own)
    mask = (numbers > 0).long()
    words = torch.randint(1000, VOCABULARY, mask.shape) * mask
    text = Text(words, mask, int(mask.sum()), mask, positions=torch.full_like(mask, ids.shape[1]), branches=numbers)
    return CandidateTexts(text, [], trunk=Text(ids, torch.ones_like(ids)))


if __name__ == "__main__":
    main()
