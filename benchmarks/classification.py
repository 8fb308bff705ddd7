"""Image classification beside published code, on the same batches, the sides taking turns in one process.

Training step of ViT-B/16 at 224 pixels against MAE's `engine_finetune.train_one_epoch`:
    pip install --no-deps --target TIMM timm==0.3.2        # what MAE pins
    git clone https://github.com/facebookresearch/mae MAE
    python -m benchmarks.classification --compare MAE --timm TIMM
Evaluation against the loop of timm's validate.py, on the same weights and files:
    git clone https://github.com/huggingface/pytorch-image-models REPOSITORY
    python -m benchmarks.classification --validate REPOSITORY
"""

import argparse
import collections.abc
import contextlib
import importlib
import io
import logging
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import torch
from PIL import Image

import main_finetune
from benchmarks.cases import DEPTH, HIDDEN, PATCH, WIDTH, stack_flops
from benchmarks.report import report
from benchmarks.step import measured_peak
from vlc.checkpoint import weights
from vlc.common.inputs import Images
from vlc.data.batch import Batch
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.training.datamodule import DataModule
from vlc.training.module import VLCModule

MODEL, SIZE, CLASSES = "vit_base_patch16", 224, 1000
TRAINING = "training step"
DTYPES = {"float32": False, "bfloat16": True}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classification", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--compare", type=Path, metavar="MAE", help="checkout of facebookresearch/mae")
    parser.add_argument("--timm", type=Path, metavar="TIMM", help="folder with timm 0.3.2, for --compare")
    parser.add_argument("--validate", type=Path, metavar="REPOSITORY", help="folder with timm's validate.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=48, help="images to evaluate (default: 48)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    if bool(arguments.compare) != bool(arguments.timm) or not (arguments.compare or arguments.validate):
        parser.error("--compare MAE --timm TIMM, or --validate REPOSITORY, or all three")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    rows = []
    if arguments.compare:
        rows += training(arguments)
    if arguments.validate:
        rows += evaluation(arguments)
    speeds = ", ".join(f"{name} {measured_peak(getattr(torch, name)) / 1e12:.2f} TFLOP/s" for name in DTYPES)
    report(rows, f"{MODEL} at {SIZE}, batch {arguments.batch}; products: {speeds}", arguments)


def _module(precision: str, words: list[str]) -> VLCModule:
    """Our module as `main_finetune.py` sets it up on the CPU."""
    words = ["--model", MODEL, "--data_path", "x", "--layer_decay", "0.65", "--batch_size", "8", *words]
    arguments = main_finetune.parser().parse_args([*words, "--lr", "1e-4"])
    settings = main_finetune.translated(arguments, main_finetune._environment(arguments))
    module = VLCModule(
        settings.model, settings.tasks, image_size=SIZE, max_text_len=1, vocab_size=1, optim=settings.optim
    )
    if not torch.cuda.is_available() and suits_onednn(module.encoder.size.width, half=DTYPES[precision]):
        use_onednn(module)
    return module


def flops_per_image(*, trains: bool) -> float:
    """The operations of the matrix products alone. A training step takes three times the forward pass."""
    patches = (SIZE // PATCH) ** 2
    forward = stack_flops([1 + patches], WIDTH, HIDDEN, DEPTH) + 2 * patches * 3 * PATCH**2 * WIDTH
    return 3 * forward if trains else forward


def _rows(kind: str, baseline: str, times: dict[str, list[float]], size: int) -> list[dict]:
    best = statistics.median(times[baseline])
    return [
        {
            "what": kind,
            "side": side,
            "median_s": round(statistics.median(seconds), 3),
            "spread_s": round(max(seconds) - min(seconds), 3),
            "images_per_second": round(size / statistics.median(seconds), 2),
            "tflop_per_s": round(
                size * flops_per_image(trains=kind == TRAINING) / statistics.median(seconds) / 1e12, 3
            ),
            "ratio": round(best / statistics.median(seconds), 2),
        }
        for side, seconds in times.items()
    ]


# -- training


def training(arguments: argparse.Namespace) -> list[dict]:
    images, labels = torch.randn(arguments.batch, 3, SIZE, SIZE), torch.randint(CLASSES, (arguments.batch,))
    sides = {
        "MAE (float32: its autocast is CUDA's)": _published_step(arguments.compare, arguments.timm, images, labels)
    }
    sides |= {f"ours, {name}": our_step(name, images, labels) for name in DTYPES}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(arguments.repeats + 1):
        for name, step in sides.items():
            started = time.perf_counter()
            step()
            if repeat:  # the first one warms up
                times[name].append(time.perf_counter() - started)
    return _rows(TRAINING, next(iter(sides)), times, arguments.batch)


def our_step(precision: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Our step on the device of the images (B, 3, H, W) float32 and labels (B,) int64."""
    module = _module(precision, []).train().to(images.device)
    # What the two methods ask.
    trainer = SimpleNamespace(precision=precision, current_epoch=0, global_rank=0)
    vars(module).update(_trainer=trainer, log_dict=lambda *values, **options: None)
    optimizer, (task,) = module.configure_optimizers(), module.tasks
    assert isinstance(optimizer, torch.optim.Optimizer)
    shown, index = Images(images[:, None]), torch.arange(len(images), device=images.device)
    batch = Batch(index=index, split="train", task=task, images=shown, parts={"label": labels})

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=DTYPES[precision]):
            loss = module.training_step(module.on_after_batch_transfer(batch, 0), 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _published_step(mae: Path, timm: Path, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """One iteration of the published loop, with the settings of its fine-tuning of ViT-B (without mixup)."""
    modules = _import_published(mae, timm)
    model = modules["models_vit"].vit_base_patch16(num_classes=CLASSES, drop_path_rate=0.1, global_pool=True)
    groups = modules["util.lr_decay"].param_groups_lrd(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.65
    )
    optimizer, scaler = torch.optim.AdamW(groups, lr=1e-4), modules["util.misc"].NativeScalerWithGradNormCount()
    criterion = modules["timm.loss"].LabelSmoothingCrossEntropy(0.1)
    options = SimpleNamespace(accum_iter=1, warmup_epochs=0, epochs=100, lr=1e-4, min_lr=1e-6)
    engine = modules["engine_finetune"]

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            engine.train_one_epoch(
                model,
                criterion,
                [(images, labels)],
                optimizer,
                torch.device("cpu"),
                1,
                scaler,
                None,
                None,
                args=options,
            )

    return step


def _import_published(mae: Path, timm: Path) -> dict[str, ModuleType]:
    """The published modules beside their own timm; what they expect of an older torch is supplied from here."""
    sys.modules["torch._six"] = types.ModuleType("torch._six")
    sys.modules["torch._six"].__dict__.update(container_abcs=collections.abc, inf=float("inf"), string_classes=str)
    if not torch.cuda.is_available():
        vars(torch.cuda)["synchronize"] = lambda: None
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "timm"}
    sys.path[:0] = [str(mae), str(timm)]
    names = ("models_vit", "util.lr_decay", "util.misc", "engine_finetune", "timm.loss")
    found = {name: importlib.import_module(name) for name in names}
    del sys.path[:2]
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        del sys.modules[name]
    sys.modules.update(ours)
    return found


# -- evaluation


class _Timed:
    """A loader that keeps how long going through it, and what was done with its batches, took."""

    def __init__(self, loader):
        self.loader, self.started, self.seconds = loader, 0.0, 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        self.started = time.perf_counter()
        yield from self.loader
        self.stop()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self.started


def evaluation(arguments: argparse.Namespace) -> list[dict]:
    """Seconds of the loops alone: reading images, model, metrics; without setting up."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder), Path(folder) / "weights.pth"
        _write_images(data / "val", arguments.images)
        module = _module("bfloat16", [])
        torch.nn.init.normal_(module.get_parameter("objectives.classes.head.weight"), std=0.02)
        torch.save({"state_dict": module.state_dict()}, data / "ours.ckpt")
        weights.export(weights.read(data / "ours.ckpt"), file, "mae")
        for precision in DTYPES:
            sides = {
                f"timm validate, {precision}": lambda precision=precision: _timm(arguments, precision, data, file),
                f"ours, {precision}": lambda precision=precision: _ours(arguments, precision, data, file),
            }
            times: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(arguments.repeats):
                for name, side in sides.items():
                    times[name].append(side())
            rows += _rows("evaluation", next(iter(sides)), times, arguments.images)
    return rows


def _write_images(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / f"{number:04d}").mkdir(parents=True)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:04d}" / "image.jpg", quality=90)


def _timm(arguments: argparse.Namespace, precision: str, data: Path, weights: Path) -> float:
    sys.path.insert(0, str(arguments.validate))
    validate = importlib.import_module("validate")
    del sys.path[0]
    words = [
        "--data-dir",
        str(data),
        "--model",
        "vit_base_patch16_224.mae",
        "--checkpoint",
        str(weights),
        "--gp",
        "avg",
    ]
    words += [
        "--num-classes",
        str(CLASSES),
        "--batch-size",
        str(arguments.batch),
        "--workers",
        "1",
        "--crop-pct",
        "0.875",
    ]
    words += ["--device", "cpu", *(["--amp", "--amp-dtype", "bfloat16"] if DTYPES[precision] else [])]
    create, made = vars(validate)["create_loader"], []

    def timed(*args, **kwargs) -> _Timed:
        made.append(_Timed(create(*args, **kwargs)))
        return made[0]

    with mock.patch.object(validate, "create_loader", timed):
        validate.validate(validate.parser.parse_args(words))
    return made[0].seconds


def _ours(arguments: argparse.Namespace, precision: str, data: Path, weights: Path) -> float:
    words = ["--data_path", str(data), "--model", MODEL, "--resume", str(weights), "--eval", "--num_workers", "1"]
    words += ["--batch_size", str(arguments.batch), "--amp", "bf16" if DTYPES[precision] else "off", "--device", "cpu"]
    create, finish, made = DataModule.test_dataloader, VLCModule.on_test_epoch_end, []

    def timed(self) -> _Timed:
        made.append(_Timed(create(self)))
        return made[0]

    def finished(self) -> None:  # Lightning does not ask for a batch after the last
        finish(self)
        made[0].stop()

    with (
        mock.patch.object(DataModule, "test_dataloader", timed),
        mock.patch.object(VLCModule, "on_test_epoch_end", finished),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        main_finetune.main(words)
    return made[0].seconds


if __name__ == "__main__":
    main()
