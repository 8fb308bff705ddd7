"""Texts with hidden words, and what the model fills in."""

from typing import Any

import torch
from torchvision.transforms.functional import to_pil_image

from vlc.data.samples import Samples
from vlc.data.transforms import denormalize
from vlc.evaluation.inputs import batch_of
from vlc.objectives.mlm import MLM
from vlc.use.report.evaluation import chosen
from vlc.use.report.run import Run
from vlc.use.report.section import Section

_SHOWN = 8


def section(run: Run) -> Section | None:
    module = run.module
    for samples in run.data.evaluation.values():
        heads = [one.name for one in module.tasks[samples.task].heads if isinstance(module.objectives[one.name], MLM)]
        if heads:
            return Section("Hidden words", "masks", {"cards": _cards(run, samples, heads[0])})
    return None


@torch.inference_mode()
def _cards(run: Run, samples: Samples, head: str) -> list[dict[str, Any]]:
    module, tokens = run.module, samples.preparation.encoder
    batch = module.normalised(batch_of(samples, chosen(len(samples), _SHOWN)).to(module.device))
    outcome = module.outcomes(batch)[head]
    answers = module.objectives[head].answers(outcome, batch, tokens.token_name)
    hidden = batch.parts["masked_text"]
    length = hidden.text.ids.shape[1]
    ids = [row[mask.bool()].tolist() for row, mask in zip(hidden.text.ids, hidden.text.mask, strict=True)]
    words = [[{"token": tokens.token_name(number), "truth": None} for number in row] for row in ids]
    for position, label, answer in zip(hidden.positions.tolist(), hidden.labels.tolist(), answers, strict=True):
        row, place = divmod(position, length)
        words[row][place] |= {"truth": tokens.token_name(label), "choices": answer.choices[:3]}
    pictures: list[Any] = [None] * len(words)
    if batch.images is not None:
        pixels = denormalize(batch.images_at(0)[0], module.encoder.size.pixel_normalization)
        pictures = [to_pil_image(image.cpu()) for image in pixels]
    return [{"picture": picture, "words": row} for picture, row in zip(pictures, words, strict=True)]
