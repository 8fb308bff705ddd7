"""How seconds and memory of a ranking grow with the images, of which each has five texts, in one process and in several.

`python -m benchmarks.ranking --images 1000 5000 --kinds embeddings two_stages --processes 1 2`: the model is tiny and has
random weights, and images are noise, as only the growth is measured. Each row has processes of its own with --threads
threads each; memory is the most that one of them needs beyond what it had before. --save writes the scores too. Prints a
table; writes it with --json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.index import peak_memory
from benchmarks.report import ROOT, report
from vlc.common.inputs import Text
from vlc.configuration.config import resolve
from vlc.configuration.recipes import loss_weights
from vlc.configuration.settings import Settings
from vlc.data.corpus import Corpus
from vlc.evaluation.ranking import evaluate
from vlc.evaluation.scorer import Scorer
from vlc.hardware.distributed import gather_lists
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.objectives.itc import ITC
from vlc.training.module import VLCModule

KINDS = ("embeddings", "two_stages", "exact")
TEXTS, LENGTH, WORDS, SIDE = 5, 12, 1000, 32  # of an image; tokens of a text; the vocabulary; pixels
ENCODERS["benchmark"] = EncoderConfig(64, 2, 2, 16, decoder_width=16, decoder_depth=1, decoder_heads=2)


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        return _one(**json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ranking", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 5000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["embeddings", "two_stages"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rerank-k", type=int, default=8)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    given = parser.parse_args()
    rows = [
        _row(kind, images, processes, given)
        for kind in given.kinds
        for images in given.images
        for processes in given.processes
    ]
    report(rows, f"ranking, {given.threads} threads in each process", given)


def _row(kind: str, images: int, processes: int, given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        asked = {"kind": kind, "images": images, "k": given.rerank_k, "save": given.save, "folder": folder}
        launched = ["-m", "launch", f"--nproc_per_node={processes}", "--standalone", "--module"]
        words = [
            sys.executable,
            *(launched if processes > 1 else ["-m"]),
            "benchmarks.ranking",
            "one",
            json.dumps(asked),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": str(given.threads), "PYTHONPATH": str(ROOT)}
        subprocess.run(words, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(Path(folder, "found").read_text())
    return {"ranking": kind, "images": images, "texts": TEXTS * images, "processes": processes} | found


class _Corpus(Corpus):
    """Images of noise, and texts of random words."""

    def __init__(self, images: int):
        rng = np.random.default_rng(0)
        self._first_sample, self.languages = list(range(images)), None
        self.text_image = np.repeat(np.arange(images), TEXTS)
        self._words = rng.integers(1, WORDS, size=(TEXTS * images, LENGTH))
        self._noise = torch.from_numpy(rng.integers(256, size=(3, SIDE, SIDE + 997), dtype=np.uint8))

    @property
    def facts(self) -> dict[str, Any]:
        return {"images": self.num_rows}

    @property
    def lengths(self) -> np.ndarray:
        return np.full(self.num_columns, LENGTH)

    def image(self, number: int) -> torch.Tensor:
        start = number % 997
        return self._noise[:, :, start : start + SIDE]

    def texts(self, rows: np.ndarray, columns: np.ndarray) -> Text:
        ids = torch.from_numpy(self._words[columns])
        return Text(ids, torch.ones_like(ids), ids.numel())


def _one(kind: str, images: int, k: int, save: bool, folder: str) -> None:
    """Measure one row in this process, with the others that were launched."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
    values = {"vit": "benchmark", "image_size": SIDE, "loss_names": loss_weights(irtr=1, itc=1)}
    values |= {"data_root": folder, "num_gpus": 0, "per_gpu_batchsize": 1, "max_text_len": LENGTH}
    settings = Settings.from_config(resolve("task_finetune_irtr_coco_mae_randaug", **values))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": SIDE, "max_text_len": LENGTH, "vocab_size": WORDS, "num_images": 1}
    module = VLCModule(settings.model, settings.tasks, **sizes, optim=settings.optim).eval()
    itc = module.objectives["itc"]
    assert isinstance(itc, ITC)
    score = None if kind == "embeddings" else module.objectives["irtr"].score
    scorer = Scorer(module.encoder, _Corpus(images), torch.device("cpu"), score=score, itc=itc)
    scorer.corpus.groups  # noqa: B018  # what a corpus has anyway
    with peak_memory() as peak:
        started = time.perf_counter()
        evaluate(scorer, Path(folder, "scores"), rerank_k=k if kind == "two_stages" else None, save_scores=save)
        seconds = time.perf_counter() - started
    memory = max(gather_lists([max(peak)])) / 1e6
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        matrix = 4 * scorer.corpus.num_rows * scorer.corpus.num_columns / 1e9
        written = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
        found = {"seconds": seconds, "GB of a process": memory, "GB as a matrix": matrix}
        Path(folder, "found").write_text(json.dumps(found | ({"GB written": written} if save else {})))


if __name__ == "__main__":
    main()
