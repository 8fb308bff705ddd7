"""The share that pooling boxes has in a training step of pointing: base/16 at 384, 4 images of 100 candidates each.

`python -m benchmarks.regions`: seconds of a step, of `RegionPooler` alone, and of torchvision's compiled RoIAlign where its
library can be loaded, each forward and backward. Prints a table; writes it with --json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import CASES, VOCABULARY, inputs
from benchmarks.report import report
from benchmarks.step import DTYPES
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.parts import Regions
from vlc.hardware.allocator import keep_freed_memory
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.model.regions import RegionPooler
from vlc.model.segments import Segment
from vlc.model.sizes import ENCODERS
from vlc.objectives.base import ModelContext
from vlc.objectives.options import PointingOptions
from vlc.objectives.pointing import Pointing

CASE = CASES["vqa_384"]  # whose images and texts are those of a step here
BINS, SAMPLES = 7, 2  # of RoIAlign, as `RegionPooler` has them


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regions", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--boxes", type=int, default=100, help="candidates of an image (default: 100)")
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    batch = _batch(arguments.boxes).to(device)
    parts = {"training step": _step, "RegionPooler": _pooler} | (
        {"compiled RoIAlign": _compiled} if hasattr(torch.ops.torchvision, "roi_align") else {}
    )
    rows: list[dict[str, Any]] = []
    for name, build in parts.items():
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            seconds = _timed(build(batch, device), device, arguments.repeats)
        share = seconds / (rows[0]["median_s"] if rows else seconds)
        rows.append({"part": name, "median_s": round(seconds, 5), "share": round(share, 4)})
    report(rows, f"{arguments.boxes} boxes an image, {arguments.precision}", arguments)


def _timed(repeat: Callable[[], None], device: torch.device, count: int) -> float:
    """The median seconds of some repeats, after one that warms up."""
    seconds = []
    for _ in range(1 + count):
        started = time.perf_counter()
        repeat()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _batch(num_boxes: int) -> Batch:
    given = inputs(CASE, CASE.batch)
    length = max(map(len, given.texts))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in given.texts])
    corners = torch.rand(CASE.batch, num_boxes, 2, 2).sort(dim=2).values * CASE.image_size
    boxes = corners.flatten(2)
    sizes = torch.full((CASE.batch, 2), float(CASE.image_size))
    to_stored = torch.eye(2, 3).expand(CASE.batch, -1, -1)
    regions = Regions(boxes, boxes, torch.ones(boxes.shape[:2], dtype=torch.bool), sizes, to_stored)
    return Batch(
        index=torch.arange(CASE.batch),
        split="train",
        images=Images(torch.rand(CASE.batch, 1, 3, CASE.image_size, CASE.image_size)),
        text=Text(ids, (ids != 0).long(), sum(map(len, given.texts))),
        parts={"regions": regions, "answer_index": torch.zeros(CASE.batch, dtype=torch.int64)},
    )


def _step(batch: Batch, device: torch.device) -> Callable[[], None]:
    size = ENCODERS["mae_vit_base_patch16"]
    assert batch.text is not None
    encoder = Encoder(size, CASE.image_size, vocab_size=VOCABULARY, max_text_len=batch.text.ids.shape[1])
    context = ModelContext(size.width, VOCABULARY, encoder.num_patches, size)
    head = Pointing(PointingOptions(judged_by="index"), context)
    model = torch.nn.ModuleList([encoder, head]).to(device).train()
    if device.type == "cpu" and suits_onednn(size.width, half=torch.is_autocast_enabled("cpu")):
        use_onednn(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        loss = head(encode_passes(encoder, batch, head.passes(batch)), batch).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _tokens(batch: Batch, device: torch.device) -> tuple[Tensor, int]:
    """Encoded tokens of the images, which want a gradient, and the patches along a side."""
    side = CASE.image_size // ENCODERS["mae_vit_base_patch16"].patch_size
    width = ENCODERS["mae_vit_base_patch16"].width
    return torch.rand(len(batch), 1 + side**2, width, device=device, requires_grad=True), side


def _pooler(batch: Batch, device: torch.device) -> Callable[[], None]:
    tokens, side = _tokens(batch, device)
    pooler, regions = RegionPooler(tokens.shape[2]).to(device), batch.parts["regions"]

    def pool() -> None:
        image = Segment("image", tokens, grid=(side, side))
        pooler(image, regions.boxes, regions.sizes, CASE.image_size // side).sum().backward()

    return pool


def _compiled(batch: Batch, device: torch.device) -> Callable[[], None]:
    """RoIAlign and the mean of its bins, of patches that are first brought into the layout that it takes."""
    roi_align = torch.ops.torchvision.roi_align
    tokens, side = _tokens(batch, device)
    boxes = batch.parts["regions"].boxes
    images = torch.arange(len(boxes), device=device).repeat_interleave(boxes.shape[1])
    numbered = torch.cat([images[:, None].float(), boxes.flatten(0, 1)], dim=1)

    def pool() -> None:
        features = tokens[:, 1:].mT.unflatten(2, (side, side)).contiguous()
        bins = roi_align(features, numbered, side / CASE.image_size, BINS, BINS, SAMPLES, True)
        bins.mean((2, 3)).sum().backward()

    return pool


if __name__ == "__main__":
    main()
