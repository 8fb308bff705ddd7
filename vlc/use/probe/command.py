"""`python run.py probe`: zero-shot classification and the linear probe of a checkpoint on images in classes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vlc.common.errors import MissingFile, UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell
from vlc.configuration.use_settings import UseSettings
from vlc.data.labelled.source import LabelledImages
from vlc.data.labelled.splits import check_classes, open_split
from vlc.data.rows import Decoded, Location
from vlc.evaluation.intervals import Interval, bootstrap
from vlc.evaluation.predictions import require_writable, write_text
from vlc.use.features import features
from vlc.use.model import Model, open_pretrained
from vlc.use.probe.linear import few, fitted_probe
from vlc.use.probe.zero_shot import ZeroShot, can_compare, prompts
from vlc.use.sources import decoded

TOP = 5


def probe(config: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Measure, print and write to OUT; returns what is written: settings, and the metrics of each method with intervals.

    The images have the forms of image classification (`vlc.data.labelled`): the probe learns from split train of
    data_root, and both methods are measured on `splits`, by default val. A checkpoint without a head that compares images
    with texts has no zero-shot result. Raises UserError for data without classes, and for settings that do not fit them.
    """
    use = UseSettings.from_config(config)
    if not config["data_root"]:
        raise UserError("data_root=FOLDER is missing: it holds train/CLASS/* and val/CLASS/*, or shards of them")
    if use.out:
        require_writable("out", Path(use.out))
    model, root = open_pretrained(config, given), config["data_root"]
    train = open_split(root, "train")
    tested = {split: open_split(root, split) for split in model.settings.data.splits or ("val",)}
    num_classes = int(train.labels.max(initial=-1)) + 1
    check_classes({"train": train, **tested}, num_classes)
    names = class_names(train, num_classes, use.probe.names)
    zero_shot = ZeroShot(model, prompts(names, use.probe.templates)) if can_compare(model) else None
    chosen = np.arange(len(train)) if use.probe.shots is None else few(train.labels, use.probe.shots, config["seed"])
    inputs, labels, _ = _read(model, train, chosen, use.probe.features, None)
    most = np.bincount(train.labels).argmax()
    linear = fitted_probe(inputs, labels, num_classes, config["seed"])
    content: dict[str, Any] = {
        "checkpoint": str(model.path),
        "data_root": root,
        "classes": names,
        "trained_on": len(labels),
        "penalty": linear.penalty,
        "chance": 1 / num_classes,
        "most_frequent_class": {split: float((one.labels == most).mean()) for split, one in tested.items()},
        "templates": list(use.probe.templates),
        "zero_shot_by": None if zero_shot is None else "embeddings" if zero_shot.by_embeddings else "matching",
        "splits": {},
    }
    for split, images in tested.items():
        inputs, labels, scores = _read(model, images, np.arange(len(images)), use.probe.features, zero_shot)
        found = {"linear": metrics(linear.scores(inputs).cpu(), labels.cpu())}
        if scores is not None:
            found = {"zero_shot": metrics(scores, labels.cpu()), **found}
        content["splits"][split] = {
            name: {key: one._asdict() for key, one in own.items()} for name, own in found.items()
        }
    if use.out:
        write_text(Path(use.out), to_json(content))
    _print(content)
    return content


def class_names(images: LabelledImages, num_classes: int, path: str | None) -> list[str]:
    """The names of the classes for readers and prompts: the names in the data with blanks for _, or names from a file.

    path: a text with a line for each class: its name in the data, and behind a blank what it is called; of several names
        between commas the first one is taken, as in ImageNet's LOC_synset_mapping.txt.
    """
    own = list(images.class_names or map(str, range(num_classes)))
    if path is None:
        return [name.replace("_", " ") for name in own]
    if not Path(path).is_file():
        raise MissingFile(f"probe.names={path} does not exist")
    lines = (line.partition(" ") for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    called = {name: text.split(",")[0].strip() for name, _, text in lines}
    if lacking := [name for name in own if not called.get(name)]:
        raise UserError(f"probe.names={path} does not name {len(lacking)} classes, such as {lacking[0]}")
    return [called[name] for name in own]


def metrics(scores: Tensor, labels: Tensor) -> dict[str, Interval]:
    """Accuracy, accuracy among the best five, and the mean accuracy of the classes, with bootstrap intervals.

    scores: (N, C); labels: (N,). Among few classes the best five are left out. The interval of the mean over classes comes
    from resampled classes.
    """
    right = (scores.argmax(dim=1) == labels).double()
    found = {"accuracy": bootstrap(right.tolist())}
    if scores.shape[1] > TOP:
        found[f"accuracy_top{TOP}"] = bootstrap((scores.topk(TOP).indices == labels[:, None]).any(1).double().tolist())
    by_class = [float(right[labels == label].mean()) for label in labels.unique()]
    return found | {"accuracy_mean_of_classes": bootstrap(by_class)}


def _read(
    model: Model, images: LabelledImages, numbers: np.ndarray, kind: str, zero_shot: ZeroShot | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features (N, D) and labels (N,) on the device, and zero-shot scores (N, C), of those images that can be decoded."""
    vectors, labels, scores = [], list[int](), []
    for batch in _batches(model, images, numbers):
        vectors.append(_vectors(model, batch.pixels, kind))
        labels += images.labels[batch.numbers].tolist()
        if zero_shot is not None:
            scores.append(zero_shot.scores(batch.pixels))
    found = torch.cat(vectors).to(model.device), torch.tensor(labels, device=model.device)
    return *found, torch.cat(scores) if scores else None


@dataclass(frozen=True)
class _Encoded:
    """Labelled images as `decoded` reads them."""

    images: LabelledImages

    def read(self, number: int) -> pa.Buffer:
        return self.images.read(number)

    def place(self, number: int) -> Location:
        return Location(":".join(map(str, self.images.place(number))))


def _batches(model: Model, images: LabelledImages, numbers: np.ndarray) -> Iterator[Decoded]:
    parts = ((None, chunk) for chunk in model.chunks(numbers.tolist()))
    return (batch for _, batch in decoded(model, _Encoded(images), parts) if batch.numbers)


def _vectors(model: Model, pixels: Sequence[Tensor], kind: str) -> Tensor:
    """The features of prepared images, (N, D) float32."""
    if kind == "patches":
        return model.patch_means(pixels)
    return torch.from_numpy(np.stack([one.pooled for one in features(model, pixels)]))


def _print(content: Mapping[str, Any]) -> None:
    table = Table("split", "method", "metric", "value", "95 % interval", "of", box=None)
    for split, methods in content["splits"].items():
        for method, own in methods.items():
            for name, one in own.items():
                interval = f"{one['low']:.4f} to {one['high']:.4f}"
                row = (split, method, name, f"{one['value']:.4f}", interval, f"{one['size']:,}")
                table.add_row(*map(cell, row))
    often = ", ".join(f"{split} {share:.4f}" for split, share in content["most_frequent_class"].items())
    said = (
        f"{len(content['classes'])} classes, chance {content['chance']:.4f}, the most frequent one of training: {often}"
    )
    Console().print(table, cell(said), sep="\n", soft_wrap=True)
