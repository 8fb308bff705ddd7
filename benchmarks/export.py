"""Exported heads beside torch: accuracy on a test split, and milliseconds.

`python -m benchmarks.export` times the head of VQA with random weights of base size, with batches of 1 and 32: torch's
own products, torch with oneDNN's (as predict computes on this processor), onnxruntime in float32 and in int8, and OpenVINO
with the float32 file where it is installed. `--checkpoint CHECKPOINT --data ARROWS --dataset NAME` measures the accuracy of
a head that answers questions in float32 and in int8, on the whole test split.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.report import report
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.data.catalog import CATALOG
from vlc.data.tokens import TextEncoder, load_tokenizer, vocabulary_size
from vlc.data.vocabulary import Vocabulary
from vlc.hardware.onednn import use_onednn
from vlc.training.module import module_of
from vlc.use.export.graphs import Graph, graphs_of
from vlc.use.export.int8 import write_int8
from vlc.use.export.onnx import write_onnx
from vlc.use.model import Model
from vlc.use.sources import open_tables
from vlc.use.stored import OfTables

Compute = Callable[[dict[str, np.ndarray]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--vit", default="mae_vit_base_patch16")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--seconds", type=float, default=20, help="for each row (default: 20)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", help="measure accuracy of this one")
    parser.add_argument("--data", help="the folder of the Arrow files")
    parser.add_argument("--dataset", default="emoji_scenes_vqa")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.checkpoint:
        report(list(_accuracies(arguments)), f"accuracy on the test split of {arguments.dataset}", arguments)
    else:
        report(list(_times(arguments)), f"{arguments.vit} at {arguments.image_size}", arguments)


def _random(vit: str, image_size: int) -> Model:
    """A model with random weights and a head of 3,129 answers, on the CPU."""
    config = resolve(
        "task_finetune_vqa_mae_randaug", vit=vit, image_size=image_size, tokenizer="emoji", vocab_size=None
    )
    settings = Settings.from_config({**config, "per_gpu_batchsize": 32})
    tokenizer, answers = load_tokenizer("emoji"), Vocabulary(tuple(map(str, range(3129))))
    module = module_of(settings, tokenizer, vocabulary_size(tokenizer), num_images=1, vocabularies={"vqa": answers})
    encoder = TextEncoder(tokenizer, settings.data.max_text_len)
    return Model(settings, module.eval(), encoder, torch.device("cpu"), "mae_test", "imagenet")


def _times(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    model = _random(arguments.vit, arguments.image_size)
    (graph,), _ = graphs_of(model)
    with tempfile.TemporaryDirectory() as folder:
        files = _written(model, Path(folder))
        for batch in arguments.batches:
            given = _inputs(graph, batch)
            first = None
            for name, compute in _ways(graph, files, arguments.threads):
                found = compute(given)
                first = found if first is None else first
                spent = _milliseconds(lambda: compute(given), arguments.seconds)  # noqa: B023  called here
                yield {
                    "batch": batch,
                    "computed by": name,
                    "ms": round(spent, 1),
                    "per_s": round(1000 * batch / spent, 2),
                    "largest difference": f"{np.abs(found - first).max():.1e}",
                }


def _written(model: Model, folder: Path) -> dict[str, Path]:
    """Export a model; returns the folders by kind of numbers."""
    files = {"float32": folder / "float32", "int8": folder / "int8"}
    for (name, path), write in zip(files.items(), (write_onnx, write_int8), strict=True):
        path.mkdir()
        write(model, path)
        for file in path.glob("*.onnx"):
            print(f"{name}: {file.name} has {file.stat().st_size / 1e6:.1f} MB")
    return files


def _ways(graph: Graph, files: dict[str, Path], threads: int) -> Iterator[tuple[str, Compute]]:
    """The ways to compute a graph, with their names."""

    def by_torch(given: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return graph(*(torch.from_numpy(given[name]) for name in graph.inputs)).numpy()

    graphs_of(graph.model)  # torch's own layers
    yield "torch", by_torch
    use_onednn(graph.model.module)
    yield "torch, oneDNN", by_torch
    for name, folder in files.items():
        session = by_onnxruntime(folder / f"{graph.name}.onnx", threads)
        yield f"onnxruntime {name}", session
    try:
        import openvino
    except ImportError:
        return
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(str(files["float32"] / f"{graph.name}.onnx"), "CPU")
    yield "OpenVINO float32", lambda given: compiled(given)[0]


def by_onnxruntime(path: Path, threads: int) -> Compute:
    """Return what computes an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    return lambda given: session.run(None, given)[0]


def _inputs(graph: Graph, batch: int) -> dict[str, np.ndarray]:
    """Random texts of 16 tokens, and images."""
    rng = np.random.default_rng(0)
    side = graph.encoder.image_size
    ids = rng.integers(5, 500, (batch, 16))
    return {"ids": ids, "mask": np.ones_like(ids), "image": rng.standard_normal((batch, 3, side, side), np.float32)}


def _milliseconds(compute: Callable[[], Any], seconds: float) -> float:
    """The median time of a call, of as many as fit into the seconds, and of 3 at least."""
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < seconds:
        started = time.perf_counter()
        compute()
        spent.append(time.perf_counter() - started)
    return 1000 * float(np.median(spent))


def _accuracies(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    data = {"data_root": arguments.data, "datasets": [arguments.dataset], "splits": ["test"]}
    model = Model.from_checkpoint(arguments.checkpoint, num_gpus=0, precision=32, **data)
    graph = next(one for one in graphs_of(model)[0] if hasattr(one.head.options, "num_answers"))
    spec, wanted = CATALOG[arguments.dataset], frozenset({"answer_labels", "answer_scores"})
    tables = open_tables(model.settings.data, arguments.dataset, spec, spec.columns(wanted), read_texts=True)
    examples = OfTables([tables], wanted)
    with tempfile.TemporaryDirectory() as folder:
        files = _written(model, Path(folder))
        best: dict[str, list[int]] = {}
        scores: dict[str, float] = {}
        for name, path in files.items():
            compute = by_onnxruntime(path / f"{graph.name}.onnx", arguments.threads)
            best[name], scores[name] = _answered(model, compute, examples)
    for name, own in best.items():
        same = np.mean(np.array(own) == np.array(best["float32"]))
        yield {
            "numbers": name,
            "questions": len(own),
            "score": f"{100 * scores[name]:.2f}",
            "same": f"{100 * same:.2f} %",
        }


def _answered(model: Model, compute: Compute, examples: OfTables) -> tuple[list[int], float]:
    """The label of the best answer to each question, and the mean score."""
    best: list[int] = []
    total = 0.0
    for chunk in model.chunks(examples[number] for number in range(len(examples))):
        text = model.text([one.values["text"] for one in chunk])
        pixels = model.stacked([[model.prepared(one.images[0])] for one in chunk]).pixels[:, 0]
        values = compute({"ids": text.ids.numpy(), "mask": text.mask.numpy(), "image": pixels.numpy()})
        for one, label in zip(chunk, values.argmax(axis=1).tolist(), strict=True):
            best.append(label)
            total += dict(zip(one.values["answer_labels"], one.values["answer_scores"], strict=True)).get(label, 0.0)
    return best, total / len(best)


if __name__ == "__main__":
    main()
