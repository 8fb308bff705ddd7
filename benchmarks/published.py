"""The published implementation's side of `benchmarks.step`, run in its own process inside a checkout of guilk/VLC.

What its imports expect of older libraries is supplied from here; nothing of it is changed or copied.
"""

import contextlib
import importlib
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import CASES, FALSE_TEXTS, Case, inputs
from benchmarks.worker import serve

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_TEXT_LEN = 40  # to which the published loader pads every text


def main() -> None:
    name, batch, precision = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    serve(lambda: _build(CASES[name], batch, _HALF.get(precision)))


def _adapt(half: bool) -> None:
    """Old names for what libraries still have under others."""
    # By its path, as the published package is called vlc too.
    runpy.run_path(str(Path(__file__).parents[1] / "vlc" / "hardware" / "torchvision_ops.py"))["install"]()
    vars(np)["float"] = float
    import timm.layers
    import torchmetrics
    import transformers.optimization

    sys.modules["pytorch_lightning.metrics"] = torchmetrics
    sys.modules["timm.models.layers"] = timm.layers
    vars(transformers.optimization)["AdamW"] = _AdamW
    if not torch.cuda.is_available():  # it names the CUDA context wherever it leaves or enters half precision
        vars(torch.cuda.amp)["autocast"] = lambda enabled=True: torch.autocast("cpu", torch.bfloat16, half and enabled)


class _AdamW(torch.optim.AdamW):
    """torch's, one parameter and one operation at a time, as transformers 4 had it."""

    def __init__(self, groups, **options):
        super().__init__(groups, foreach=False, fused=False, **options)


def _build(case: Case, batch: int, half: torch.dtype | None) -> Callable[[], None]:
    """half: the dtype of autocast; None: float32. Losses are scaled in float16, as Lightning does it there."""
    _adapt(half is not None)
    published, modules = importlib.import_module("vlc.config"), importlib.import_module("vlc.modules")
    config = dict(published.config()) | dict(getattr(published, case.recipe)()) | case.settings
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = modules.VLCTransformer(config).to(device)
    model.log = lambda *args, **kwargs: None
    given = _batch(case, batch, device)

    def autocast() -> contextlib.AbstractContextManager:
        return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)

    if case.evaluates:
        model.eval()
        return lambda: _rank(model, given, autocast)
    object.__setattr__(model, "_trainer", types.SimpleNamespace(max_steps=1000))  # all that its schedule asks
    type(model).trainer = property(lambda self: self._trainer)
    (optimizer,), _ = model.configure_optimizers()
    model.train()
    scaler = torch.amp.GradScaler(device.type, enabled=half == torch.float16)

    def step() -> None:
        with autocast():
            loss = model.training_step(given, 0)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


@torch.no_grad()
def _rank(model, given: dict, autocast: Callable) -> None:
    """An image against all texts, as its evaluation does it: embedded once, then 64 texts at a time."""
    with autocast():
        image, _, _ = model.transformer.visual_embed(given["image"][0], is_pretrain=False, mask_ratio=0)
    for start in range(0, len(given["text_ids"]), 64):
        texts = {name: given[name][start : start + 64] for name in ("text_ids", "text_masks", "text_labels")}
        tokens = image.expand(len(texts["text_ids"]), -1, -1)
        mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        with autocast():
            pooled = model.infer(texts, image_embeds=tokens, image_masks=mask)["cls_feats"]
            model.rank_output(pooled)[:, 0].cpu().tolist()


def _batch(case: Case, batch: int, device: torch.device) -> dict:
    """The inputs under the names of the published collation."""
    given = inputs(case, batch)
    images = (torch.from_numpy(given.images).float().to(device) / 255 - 0.5) / 0.5
    ids, masks = _padded(given.texts, device)
    labels = torch.full_like(ids, -100)
    hidden = ids.clone()
    for row, positions in enumerate(given.hidden):
        labels[row, positions], hidden[row, positions] = ids[row, positions], 103
    false = [_padded(given.false_texts[place::FALSE_TEXTS], device) for place in range(FALSE_TEXTS)]
    values = {
        "text": [""] * batch,
        "text_ids": ids,
        "text_masks": masks,
        "text_labels": torch.full_like(ids, -100),
        "text_ids_mlm": hidden,
        "text_labels_mlm": labels,
        "image": [images[:, 0]],
        "false_image_0": [images[:, 0].roll(1, 0)],
        "vqa_labels": given.fields["answer_labels"].tolist(),
        "vqa_scores": given.fields["answer_scores"].tolist(),
        "answers": given.fields["truth"].tolist(),
    }
    if "nlvr2" in case.recipe:
        values |= {"image_0": [images[:, 0]], "image_1": [images[:, 1]]}
    for place, (text, mask) in enumerate(false if given.false_texts else []):
        parts = {"ids": text, "masks": mask, "labels": torch.full_like(text, -100)}
        values |= {f"false_text_{place}_{part}": value for part, value in parts.items()}
    return values


def _padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(rows), MAX_TEXT_LEN, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids.to(device), (ids != 0).long().to(device)


if __name__ == "__main__":
    main()
