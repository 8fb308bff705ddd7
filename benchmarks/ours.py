"""Our side of `benchmarks.step`, in a process of its own."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cases import CASES, VOCABULARY, Case, inputs
from benchmarks.words import config_values
from benchmarks.worker import serve
from vlc.checkpoint.formats import LAYOUTS
from vlc.checkpoint.weights import Checkpoint
from vlc.common.inputs import Images, Text
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.data.corpus import Corpus
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.wrong_images import WrongImageChoice
from vlc.evaluation.ranking import Scorer
from vlc.hardware.allocator import keep_freed_memory
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.training.lora import add_adapters
from vlc.training.module import VLCModule, task_needs
from vlc.training.optim import build_optimizer, layer_decay_groups, plain_groups


def main() -> None:
    name, batch, precision = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    serve(lambda: build(CASES[name], batch, precision == "bfloat16", *sys.argv[4:]))


def build(
    case: Case, batch: int, half: bool, *assignments: str, device: torch.device | None = None
) -> Callable[[], None]:
    """The case's repeat; assignments: further config keys, as key=value. device: None: a GPU where there is one."""
    values = config_values(assignments)
    case = replace(case, image_size=values.get("image_size", case.image_size))
    config = case.settings | {"num_gpus": 0} | values
    if "vit" in values:  # the sizes of a large case follow from it
        config = {key: value for key, value in config.items() if key not in ("hidden_size", "num_heads", "num_layers")}
    settings = Settings.from_config(resolve(case.recipe, **config))
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = made(case, settings).to(device)
    if device.type == "cpu":
        keep_freed_memory()
        if suits_onednn(settings.model.size.width, half=half):
            use_onednn(module)

    if settings.model.compile:
        module.compile_parts()

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=half)

    if case.evaluates:
        corpus = _Corpus(case, batch)
        scorer = Scorer(module.eval().encoder, corpus, device, score=module.objectives["irtr"].score)

        def rank() -> None:
            with autocast():
                scorer.exact()

        return rank
    plain = settings.optim.layer_decay == 1
    groups = plain_groups(module, settings.optim, set()) if plain else layer_decay_groups(module, settings.optim)
    optimizer = build_optimizer(groups, settings.optim, fused=device.type != "meta")
    given = _batch(case, batch, settings).to(device)
    module.train()

    def step() -> None:
        with autocast():
            loss = module.total_loss(module.outcomes(module.normalised(given)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def made(case: Case, settings: Settings) -> VLCModule:
    """The model of a case with random weights, which adapters take for a checkpoint's."""
    torch.manual_seed(0)
    module = VLCModule(
        settings.model,
        settings.tasks,
        image_size=case.image_size,
        max_text_len=settings.data.max_text_len,
        vocab_size=VOCABULARY,
        num_images=task_needs(settings.tasks[0], drops_patches=False).num_images,
        optim=settings.optim,
    )
    if settings.lora.rank:
        start = Checkpoint(Path("random"), LAYOUTS["vlc"], module.state_dict())
        add_adapters(module, settings.lora, [start])
    return module


class _Corpus(Corpus):
    """An image, and the texts it ranks."""

    def __init__(self, case: Case, batch: int):
        given = inputs(case, batch)
        self._image, self._ids = torch.from_numpy(given.images[0, 0]), given.texts
        self._first_sample, self.text_image = [0], np.zeros(len(given.texts), dtype=np.int64)
        self.languages = None

    def image(self, number: int) -> torch.Tensor:
        return self._image

    def texts(self, rows: Any, columns: np.ndarray) -> Text:
        return _padded([self._ids[number] for number in columns.tolist()])


def _padded(rows: list[list[int]]) -> Text:
    """Pads to a multiple of 8, as `vlc.data.tokens.TextEncoder` does."""
    length = -(-max(map(len, rows)) // 8) * 8
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return Text(ids, (ids != 0).long(), sum(map(len, rows)))


def _batch(case: Case, batch: int, settings: Settings) -> Batch:
    given = inputs(case, batch)
    text = _padded(given.texts)
    positions = [row * text.ids.shape[1] + place for row, places in enumerate(given.hidden) for place in places]
    labels = text.ids.flatten()[positions].clone()
    hidden = text.ids.clone().flatten()
    hidden[positions] = 103
    parts: dict[str, Any] = {name: torch.from_numpy(value) for name, value in given.fields.items()}
    parts["wrong_images"] = WrongImageChoice(torch.linspace(0, 0.99, batch), torch.arange(batch).roll(1))
    task = settings.tasks[0]
    if "mlm" in task.kinds:
        masked = Text(hidden.view_as(text.ids), text.mask)
        parts["masked_text"] = MaskedTokens(masked, torch.tensor(positions), labels)
    if settings.model.dropped_ratio:
        parts |= {f"patch_noise_{row}": torch.from_numpy(given.noise[:, row]) for row in (0, 1)}
    if given.false_texts:
        parts["wrong_texts"] = _padded(given.false_texts)
    images = torch.from_numpy(given.images[:, : task_needs(task, drops_patches=False).num_images])
    return Batch(index=torch.arange(batch), split="train", images=Images(images), text=text, parts=parts)


if __name__ == "__main__":
    main()
