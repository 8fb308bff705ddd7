"""Sentences a second that beam search writes: with cached keys and values, without, and with transformers' `generate`.

`python -m benchmarks.decoding`: every sentence has 40 tokens, about a text of 20 tokens and an image. Without a cache each
step encodes everything again. transformers' side is an EncoderDecoderModel of BERT with as many layers of the same width in
its encoder and in its decoder, whose encoder reads as many tokens as ours has of text and image. All weights are random.
Prints a table; writes it with --json.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import VOCABULARY
from benchmarks.report import report
from benchmarks.step import DTYPES
from vlc.common.inputs import Text
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.model.decoding import BeamSearch, Continuation
from vlc.model.encoder import Encoder
from vlc.model.segments import Segment
from vlc.model.sizes import ENCODERS
from vlc.objectives.base import ModelContext
from vlc.objectives.generation import Generation
from vlc.objectives.options import GenerationOptions

MODELS = {"tiny": ("mae_vit_tiny_patch16", 64), "base": ("mae_vit_base_patch16", 224)}  # with the side of the images
SOURCE, TARGET = 20, 40  # tokens
FIRST, LAST = 101, 102


class Recomputed:
    """`Continuation` without a cache: every step encodes all segments and all tokens."""

    def __init__(self, encoder: Encoder, segments: list[Segment], first: Tensor, beams: int):
        self.encoder, self.segments = encoder, [segment.repeated(beams) for segment in segments]
        self.first = first.repeat_interleave(beams)
        self.ids = torch.empty(len(self.first), 0, dtype=torch.int64, device=first.device)

    def step(self, ids: Tensor, continued: Tensor) -> Tensor:
        self.ids = torch.cat([self.ids[continued], ids[:, None]], dim=1)
        positions = self.first[:, None] + torch.arange(self.ids.shape[1], device=ids.device)
        ones = torch.ones_like(self.ids)
        target = self.encoder.embed_text(Text(self.ids, ones, None, ones, positions=positions, causal=True), "target")
        return self.encoder.encode([*self.segments, target])["target"][:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoding", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, default=8, help="sentences at once (default: 8)")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sides: dict[str, Callable[..., Callable[[], None]]]
    sides = {"no cache": partial(_ours, Recomputed), "cache": partial(_ours, Continuation), "transformers": _theirs}
    rows: list[dict[str, Any]] = []
    for model, beams in itertools.product(arguments.models, arguments.beams):
        uncached = None
        for side, build in sides.items():
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
                seconds = _timed(build(model, arguments.batch, beams, device), device, arguments.repeats)
            uncached = uncached or seconds
            row = {"model": model, "beams": beams, "side": side, "median_s": round(seconds, 3)}
            per_s, faster = arguments.batch / seconds, uncached / seconds
            rows.append(row | {"sentences_per_s": round(per_s, 2), "faster": round(faster, 2)})
    report(rows, f"{arguments.batch} sentences of {TARGET} tokens, {arguments.precision}", arguments)


@torch.inference_mode()
def _timed(write: Callable[[], None], device: torch.device, count: int) -> float:
    """The median seconds of some repeats, after one that warms up."""
    seconds = []
    for _ in range(1 + count):
        started = time.perf_counter()
        write()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _ours(
    behind: Callable[..., Recomputed | Continuation], model: str, batch: int, beams: int, device: torch.device
) -> Callable[[], None]:
    name, image_size = MODELS[model]
    size = ENCODERS[name]
    encoder = Encoder(size, image_size, vocab_size=VOCABULARY, max_text_len=SOURCE + TARGET)
    head = Generation(GenerationOptions(), ModelContext(size.width, VOCABULARY, encoder.num_patches, size))
    head.decoder.bias.data[LAST] = -1e4  # every sentence has the full length
    both = torch.nn.ModuleList([encoder, head]).to(device).eval()
    if device.type == "cpu" and suits_onednn(size.width, half=torch.is_autocast_enabled("cpu")):
        use_onednn(both)
    ids = torch.randint(1000, VOCABULARY, (batch, SOURCE), device=device)
    images = torch.rand(batch, 3, image_size, image_size, device=device)
    first = torch.full((batch,), SOURCE, device=device)
    search = BeamSearch(FIRST, LAST, beams, 1.0, TARGET)

    def write() -> None:
        segments = [encoder.embed_text(Text(ids, torch.ones_like(ids)), "source"), encoder.embed_images(images)]
        texts = behind(encoder, segments, first, beams=beams)
        search(lambda *given: head.logits(texts.step(*given)).float().log_softmax(1), batch, device)

    return write


def _theirs(model: str, batch: int, beams: int, device: torch.device) -> Callable[[], None]:
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel  # vlc lets torchvision import first

    name, image_size = MODELS[model]
    size = ENCODERS[name]
    length = SOURCE + 1 + size.num_patches(image_size)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
    )
    both = EncoderDecoderConfig.from_encoder_decoder_configs(config, BertConfig(**config.to_dict()))
    writer: Any = EncoderDecoderModel(config=both)
    writer.to(device).eval()
    ids = torch.randint(1000, VOCABULARY, (batch, length), device=device)

    def write() -> None:
        writer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=TARGET,
            min_new_tokens=TARGET,
            decoder_start_token_id=FIRST,
            eos_token_id=LAST,
            pad_token_id=0,
        )

    return write


if __name__ == "__main__":
    main()
