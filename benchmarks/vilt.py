"""Pairs of images and texts a second through ViLT's encoder: ours beside transformers' ViltModel, with the same weights.

`python -m benchmarks.vilt`; a batch of images of several shapes with their padding, inference. Prints a table and, with
--json, writes it. The outputs are compared before anything is timed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor

from benchmarks.report import report
from vlc.checkpoint import weights
from vlc.common.inputs import ImageSizes
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.data.stacking import stack_images
from vlc.data.transforms import normalize, shaped_size
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.training.module import VLCModule

# Width and height of photographs, as often as COCO has them (roughly): wide, upright, nearly square.
SHAPES = [(640, 480), (640, 427), (480, 640), (640, 480), (500, 375), (427, 640), (640, 426), (612, 612)]


def main() -> None:
    arguments = _parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    theirs = transformers.ViltModel(transformers.ViltConfig()).eval()
    module = _ours(theirs).to(device)
    theirs.to(device)
    images, sizes = _images(arguments.batch, device)
    ids = torch.randint(1000, 30_000, (arguments.batch, arguments.text_len), device=device)
    sides = {
        "vlc": _our_side(module, ids, images, sizes),
        "transformers ViltModel": _their_side(theirs, ids, images, sizes),
    }
    rows = []
    for precision in arguments.precisions:
        if device.type == "cpu" and suits_onednn(module.encoder.size.width, half=precision == "bf16"):
            use_onednn(module)  # as runs do
        context = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), context:
            difference = (sides["vlc"]() - sides["transformers ViltModel"]()).abs().max().item()
            times = _alternate(sides, arguments.repeats, device)
        rows += _rows(precision, times, arguments.batch, difference)
    report(rows, f"ViLT-B/32, batch {arguments.batch}", arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vilt", description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--text-len", type=int, default=16, help="tokens of every text (default: 16)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bf16"), default=("float32", "bf16"))
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _ours(theirs: transformers.ViltModel) -> VLCModule:
    """Our module with the weights of theirs, by way of their files."""
    settings = Settings.from_config(resolve("task_mlm_itm", per_gpu_batchsize=2))
    module = VLCModule(settings.model, settings.tasks, image_size=384, max_text_len=40, vocab_size=30_522).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        weights.load(module, weights.read(folder))
    return module


def _images(count: int, device: torch.device) -> tuple[Tensor, ImageSizes]:
    """Random pictures at the sizes that the pipeline pixelbert gives SHAPES, padded and normalised."""
    shapes = [shaped_size(*SHAPES[number % len(SHAPES)], 384) for number in range(count)]
    pictures = [[torch.randint(256, (3, *shape), dtype=torch.uint8)] for shape in shapes]
    stacked = stack_images(pictures)
    assert stacked is not None
    pixels, sizes = stacked.to(device).at(0)
    assert sizes is not None, "several shapes"
    return normalize(pixels, "centred"), sizes


def _our_side(module: VLCModule, ids: Tensor, images: Tensor, sizes: ImageSizes) -> Callable[[], Tensor]:
    encoder, mask = module.encoder, torch.ones_like(ids)
    return lambda: encoder(ids, mask, images, sizes=sizes).pooled


def _their_side(model: transformers.ViltModel, ids: Tensor, images: Tensor, sizes: ImageSizes) -> Callable[[], Tensor]:
    mask, (height, width) = torch.ones_like(ids), images.shape[-2:]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    shown = (rows[:, None] < sizes.height_width[:, :1, None]) & (columns < sizes.height_width[:, 1:, None])
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": images, "pixel_mask": shown.long()}
    return lambda: model(**inputs).pooler_output


def _alternate(sides: dict[str, Callable[[], Tensor]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each repeat; the sides take turns, so that a noisy machine disturbs both alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first one warms up
                times[name].append(time.perf_counter() - started)
    return times


def _rows(precision: str, times: dict[str, list[float]], batch: int, difference: float) -> list[dict]:
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return [
        {
            "precision": precision,
            "side": name,
            "median_ms": round(1e3 * medians[name], 1),
            "spread_ms": round(1e3 * (max(seconds) - min(seconds)), 1),
            "pairs_per_second": round(batch / medians[name], 2),
            "times_theirs": round(medians["transformers ViltModel"] / medians[name], 2),
            "largest_difference": f"{difference:.1e}",
        }
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    main()
