"""The report of a demonstration: one HTML file with its pictures and curves inside."""

import base64
import io
import logging
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vlc.configuration.settings import Settings
from vlc.data.keys import Key
from vlc.data.samples import Samples
from vlc.data.transforms import denormalize
from vlc.objectives.mae import reconstruction
from vlc.training.module import VLCModule
from vlc.training.run import build_data, build_module

logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it reports every file it has read to its end

QUESTIONS_OF_TYPE, RECONSTRUCTIONS = 3, 8
CURVES = {  # title -> TensorBoard tags
    "Pre-training: loss": ("mlm/train/loss", "itm/train/loss", "mae/train/loss"),
    "Pre-training: accuracy": ("mlm/train/accuracy", "itm/train/accuracy"),
    "VQA: loss": ("vqa/train/loss",),
    "VQA: accuracy": ("vqa/train/score", "vqa/val/score"),
}


@dataclass(frozen=True)
class Stage:
    """A finished run."""

    settings: Settings
    metrics: dict[str, float]
    log_dir: Path

    @property
    def checkpoint(self) -> str:
        return str(self.log_dir / "checkpoints" / "last.ckpt")


def write_report(path: Path, rows: list[dict[str, Any]], pretrained: Stage, finetuned: Stage) -> Path:
    """Write the report of a pre-trained and a fine-tuned model; rows: the result table. Returns the path."""
    template = Environment(loader=PackageLoader("demo", "."), autoescape=True).get_template("report.html.jinja")
    page = template.render(
        rows=rows,
        questions=_questions(*_load(finetuned)),
        reconstructions=_reconstructions(*_load(pretrained)),
        curves=_curves(pretrained.log_dir, finetuned.log_dir),
        mask_ratio=pretrained.settings.model.mask_ratio,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _load(stage: Stage) -> tuple[VLCModule, Samples]:
    """The trained module, and the test split of its first data set."""
    settings = Settings.from_config(
        stage.settings.as_config() | {"load_path": stage.checkpoint, "test_only": True, "num_workers": 0}
    )
    data = build_data(settings)
    return build_module(settings, data).eval(), next(iter(data.evaluation.values()))


@torch.no_grad()
def _questions(module: VLCModule, test: Samples) -> list[dict[str, Any]]:
    """The first questions of each type, with the five most probable answers."""
    batch = test[[Key(0, sample) for sample in range(100)]]
    head = module.objectives["vqa"]
    answers = head.answers(module.outcomes(module.normalised(batch))["vqa"], batch)
    kinds = batch.parts["question_type"]
    order = sorted(range(len(batch)), key=lambda row: kinds[row])
    chosen = [row for _, rows in groupby(order, key=lambda row: kinds[row]) for row in list(rows)[:QUESTIONS_OF_TYPE]]
    images, _ = batch.images_at(0)
    shown = []
    for row in chosen:
        source, where = test.locate(row)
        truth = head.context.vocabulary.name(int(batch.parts["answer_labels"][row, 0]))
        top = answers[row].choices
        shown.append(
            {
                "image": _picture(images[row]),
                "kind": kinds[row],
                "question": source.text(where),
                "truth": truth,
                "right": top[0][0] == truth,
                "top": top,
            }
        )
    return shown


@torch.no_grad()
def _reconstructions(module: VLCModule, test: Samples) -> list[list[str]]:
    """Input, what the encoder saw of it, and the reconstruction, for images spread over the split."""
    step = len(test) // RECONSTRUCTIONS
    batch = module.normalised(test[[Key(0, step * number) for number in range(RECONSTRUCTIONS)]])
    outcome = module.outcomes(batch)["mae"]
    assert outcome.patches is not None
    images, _ = batch.images_at(0)
    patch_size = module.encoder.size.patch_size
    masked, restored = reconstruction(outcome.logits, images, outcome.patches.dropped, patch_size)
    pictures = zip(images, masked, restored, strict=True)
    return [[_picture(denormalize(image)) for image in triple] for triple in pictures]


def _picture(image: Tensor) -> str:
    """uint8 image (3, H, W) as a data URL."""
    buffer = io.BytesIO()
    to_pil_image(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curves(*log_dirs: Path) -> list[dict[str, Any]]:
    """A chart for each of CURVES: its lines as points on a field of 100 x 100, y upwards from the lowest value."""
    series: dict[str, list[tuple[float, float]]] = {}
    for folder in log_dirs:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            series[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    charts = []
    for title, tags in CURVES.items():
        lines = {tag: series[tag] for tag in tags if series.get(tag)}
        points = [point for line in lines.values() for point in line]
        last = max(step for step, _ in points)
        bottom, top = (limit(0, *(value for _, value in points)) for limit in (min, max))
        top = top or 1.0  # nothing but zeros: a flat line at the bottom
        scaled = {
            tag: " ".join(f"{100 * x / last:.2f},{100 * (top - y) / (top - bottom):.2f}" for x, y in line)
            for tag, line in lines.items()
        }
        charts.append({"title": title, "lines": scaled, "last": last, "top": top, "bottom": bottom})
    return charts
