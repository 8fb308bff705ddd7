"""What stands beside the graphs of an export: what their inputs are made of, and what their values mean."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vlc
from vlc.common.files import to_json
from vlc.data.transforms import PIXELS
from vlc.evaluation.predictions import write_text
from vlc.use.export.graphs import Graph, output_of
from vlc.use.model import Model

SCRIPT = Path(__file__).with_name("answer.py")


def description(graph: Graph) -> dict[str, Any]:
    """What a program has to know of a graph; the metadata of its file."""
    model, output = graph.model, output_of(graph)
    return {
        "vlc_version": vlc.__version__,
        "head": graph.head_name,
        "unit": output.unit,
        "inputs": ",".join(graph.inputs),
        "num_images": graph.num_images,
        "max_text_len": model.settings.data.max_text_len if graph.reads_text else 0,
        "labels": "" if output.unit == "unit vector" else "labels.json",
        "preprocessing": "preprocessing.json",
        "pixels": model.pixels,
    }


def write_companions(model: Model, graphs: Sequence[Graph], folder: Path, *, script: bool) -> None:
    """Write labels.json, preprocessing.json, tokenizer.json where texts are read, and the script that answers.

    labels.json: what each value is about, by head.
    preprocessing.json: pipeline, side of images, patch size, mean and standard deviation of pixels from 0 to 1.
    """
    labels = {graph.head_name: output_of(graph).names for graph in graphs if output_of(graph).names}
    write_text(folder / "labels.json", to_json(labels))
    mean, std = PIXELS[model.pixels]
    encoder = model.module.encoder
    images = {"pipeline": model.pipeline, "image_size": encoder.image_size, "patch_size": encoder.size.patch_size}
    write_text(folder / "preprocessing.json", to_json(images | {"mean": mean, "std": std}))
    if model.text_encoder is not None:
        write_text(folder / "tokenizer.json", model.tokens.to_json())
    if script:
        shutil.copyfile(SCRIPT, folder / SCRIPT.name)
