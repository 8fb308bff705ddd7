"""What `run.py fit` trains with: the settings of the model, and as many steps as the given minutes have room for."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration.settings import Settings
from vlc.data.keys import Key
from vlc.data.tokens import load_tokenizer, stored_tokenizer
from vlc.model.sizes import ENCODERS
from vlc.tokenizer.statistics import measure
from vlc.training.run import build_data, build_module
from vlc.training.trainer import suit_cpu
from vlc.workflows.fit.kinds import Kind, Model
from vlc.workflows.fit.pictures import Picture

_TINY = "mae_vit_tiny_patch16"
_SMALL_WIDTH = 256  # encoders up to it learn small pictures in minutes on a CPU, with the rates of the emoji recipes
_OF_SMALL = {
    "drop_rate": 0.0,
    "layer_decay": 1.0,
    "gradient_clip": 1.0,
    "decay_power": 0.3,
    "warmup_steps": 0.05,
    "weight_decay": 0.05,
    "num_workers": 0,
}
_LONGEST_TEXT = 128  # tokens
_MOST_EPOCHS = 60  # more teach a small table by heart
_TRIED, _WARM = 6, 2  # batches that are timed, and of these the first ones that do not count
_MUCH_UNKNOWN = 0.02  # share of letters


@dataclass(frozen=True)
class Start:
    """What training starts from.

    load_path: the checkpoint; empty: nothing.
    vit, image_size: of the model.
    tokenizer: the name or folder of its tokenizer; empty: one is to be trained on the texts.
    notes: lines for the user.
    """

    load_path: str
    vit: str
    image_size: int
    tokenizer: str
    notes: list[str] = field(default_factory=list)

    @property
    def is_small(self) -> bool:
        return ENCODERS[self.vit].width <= _SMALL_WIDTH if self.vit in ENCODERS else False


def start_of(given: Mapping[str, Any], pictures: Iterable[Picture], out: Path) -> Start:
    """Read from the checkpoint what the new model needs of it, or choose a small model.

    given: the keys that the user states; load_path is one of them.
    out: the folder in which the tokenizer of the checkpoint is written, so that later commands can name it.
    Raises UserError where the file is no checkpoint, or does not say what its model is.
    """
    path = str(given.get("load_path") or given.get("pretrain_path") or "")
    if not path:
        pixels = 64 if median(min(one.width, one.height) for one in pictures) <= 96 else 128
        note = (
            f"Without load_path=CHECKPOINT a small model ({_TINY}, {pixels} pixels) learns from nothing but this table. It "
            "can learn simple pictures; for photographs, start from a pre-trained checkpoint"
        )
        return Start("", str(given.get("vit", _TINY)), pixels, str(given.get("tokenizer", "")), [note])
    found = weights.read(path)
    config = found.extras.get("config") or {}
    vit, size = (given.get(key) or config.get(key) for key in ("vit", "image_size"))
    if not vit:
        raise UserError(f"{path} does not say what its encoder is: pass vit=NAME and image_size=PIXELS beside it")
    tokenizer = str(given.get("tokenizer", ""))
    if not tokenizer and "tokenizer" in found.extras:
        folder = out / "tokenizer_of_checkpoint"
        stored_tokenizer(found.extras["tokenizer"], path).save_pretrained(folder)
        tokenizer = str(folder)
    elif not tokenizer:
        tokenizer = "bert-base-uncased"
    return Start(path, str(vit), int(size or 384), tokenizer)


def model_of(kind: Kind, start: Start, texts: list[str], num_trained: int) -> tuple[Model, list[str]]:
    """Return what the task's row says of the model, and lines about the texts.

    texts: all texts; they are tokenised to find the length that the model reads.
    num_trained: the number of training examples.
    """
    length, said = _length(start.tokenizer, texts) if kind.reads_text else (16, [])
    contrasts = kind.metric == "ir_r1"  # contrast compares the examples of a batch, and wants many
    batch_size = min(64 if contrasts else 32, max(2, num_trained // 4))
    if start.is_small:
        transforms, rate = ("mae_test", "mae_test"), 3e-4 if start.load_path else 7e-4
    else:
        transforms, rate = ("mae_randaug", "mae_test" if kind.reads_text else "central_crop"), 1e-4
        if "box" in kind.roles:  # squares would change what is tall and what is wide
            transforms = ("keep_shape_flip", "keep_shape")
    return Model(length, transforms, rate, batch_size), said


def _length(tokenizer: str, texts: list[str]) -> tuple[int, list[str]]:
    """The tokens that a text may have, and a line where texts are cut or their letters not known."""
    loaded, said = load_tokenizer(tokenizer), []
    different = list(dict.fromkeys(texts))
    lengths = sorted(len(encoding.ids) for encoding in loaded.backend_tokenizer.encode_batch(different))
    length = min(_LONGEST_TEXT, max(16, -(-(lengths[-1] + 1) // 8) * 8))
    if cut := sum(one > length for one in lengths):
        said.append(f"{cut:,} of {len(different):,} different texts have more than {length} tokens, and are cut")
    unknown = measure(loaded, [("", different)])[0].unknown_share
    if unknown > _MUCH_UNKNOWN:
        said.append(
            f"The tokenizer {tokenizer} does not know {unknown:.0%} of the letters, and the model cannot read them: "
            "tokenizer=FOLDER names another, and python -m vlc.tokenizer train makes one"
        )
    return length, said


def settings_of(start: Start, kind: Kind, model: Model) -> dict[str, Any]:
    """Return the values of the settings file, beside what the task's row says."""
    values: dict[str, Any] = {"vit": start.vit, "image_size": start.image_size, "per_gpu_batchsize": model.batch_size}
    if kind.reads_text:
        values["tokenizer"] = start.tokenizer
    return values | (_OF_SMALL if start.is_small else {})


def num_steps(settings: Settings, minutes: float) -> tuple[int, str]:
    """Return the number of steps that fit into these minutes, and a line about them."""
    seconds, num_samples = _seconds_of_a_step(settings)
    per_epoch = max(1, num_samples // settings.tasks[0].batch_size)
    possible = int(60 * minutes / seconds)
    steps = max(20, min(possible, _MOST_EPOCHS * per_epoch))
    epochs = f"{steps / per_epoch:.1f} epochs"
    if steps < possible:
        return steps, f"{steps:,} steps, which are {epochs} and take about {steps * seconds / 60:.1f} minutes"
    return steps, f"{steps:,} steps ({epochs}) of {seconds:.2f} s each fit into fit.minutes={minutes:g}"


def _seconds_of_a_step(settings: Settings) -> tuple[float, int]:
    """The time that a step takes here, measured on a few batches, and the number of training examples."""
    data = build_data(settings)
    module = build_module(settings, data).train()
    task = settings.tasks[0]
    samples = data.tasks[task.name].train
    assert samples is not None
    gpu = bool(settings.run.num_gpus) and torch.cuda.is_available()
    if not gpu:
        suit_cpu(module, settings.model.size.width, "32-true")
    module.to("cuda" if gpu else "cpu")
    times = []
    for turn in range(_TRIED):
        started = time.perf_counter()
        numbers = [(turn * task.per_gpu_batchsize + place) % len(samples) for place in range(task.per_gpu_batchsize)]
        batch = module.normalised(samples[[Key(0, number) for number in numbers]].to(module.device))
        module.total_loss(module.outcomes(batch), task.name).backward()
        module.zero_grad()
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    accumulated = task.batch_size / task.per_gpu_batchsize
    return accumulated * median(times[_WARM:]), len(samples)
