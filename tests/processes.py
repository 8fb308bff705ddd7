"""Runs in several processes that stay: they are started once, and do one case after the other.

A case trains two epochs over data whose size nothing divides, validates after each, and tests what it has learnt. As a
script this file is what every process runs.
"""

import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import vlc  # before what imports torchvision
from tests import tiny
from tests.warm import command
from vlc.configuration.recipes import RECIPES, loss_weights
from vlc.configuration.settings import Settings
from vlc.data.catalog import CATALOG
from vlc.model.sizes import ENCODERS
from vlc.training.run import run

REPOSITORY = Path(__file__).parent.parent
BATCH = 2  # of a process; 11 training samples and 9 others leave a rest for two processes and for three
assert vlc.__version__


@dataclass(frozen=True)
class Case:
    """What is run: named configs and changes to them."""

    name: str
    named: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    def settings(self, folder: Path, count: int, **more: Any) -> Settings:
        """For `count` processes; folder: where the data lie, and what is written goes."""
        vit = {"vit": "small_vit"}
        if any(RECIPES[name].get("vit") == "vit_base_patch32_384" for name in self.named):
            vit = {"vit": "small_vilt", "image_size": 64}
        own = {
            "data_root": str(folder / "data"),
            "log_dir": str(folder / "logs"),
            "exp_name": f"{self.name}_{count}",
            "per_gpu_batchsize": BATCH,
            "batch_size": BATCH * count,
            "max_steps": None,
            "max_epoch": 2,
        }
        return tiny.settings(*self.named, **(vit | own | self.changes | more))

    @property
    def splits(self) -> list[str]:
        """All that the case validates and tests."""
        datasets = self.settings(Path(), 1).data.datasets
        published = "data_published_splits" in self.named
        specs = [CATALOG[name] for name in datasets]
        return list(dict.fromkeys(split for spec in specs for split in (*spec.validated(published), *spec.test)))


def _alone(name: str, dataset: str, **changes: Any) -> Case:
    return Case(name, (), {"datasets": [dataset], "loss_names": loss_weights(**{name: 1}), **changes})


_RANKED = {"datasets": ["f30k"], "get_recall_metric": True, "draw_false_text": 1}
# Among few images the wrong one is drawn twice: both scores are equal, and the rounding of a batch decides between them.
_UNTIED = {"irtr_mc4_emoji.evaluators.inputs": None}
_CHANGES: dict[str, dict[str, Any]] = {"task_finetune_irtr_mc4_emoji": _UNTIED, "task_12in1_emoji": _UNTIED}
RECIPE_CASES = [Case(name, tiny.complete(name), _CHANGES.get(name, {})) for name in RECIPES]
OBJECTIVE_CASES = [
    _alone("mlm", "f30k"),
    Case("text_only", (), {"datasets": ["text"], "loss_names": loss_weights(mlm=1), "mlm_prob": 0.5}),
    _alone("itm", "f30k"),
    _alone("mae", "f30k"),
    _alone("itc", "f30k"),
    _alone("irtr", "f30k", draw_false_text=3),
    _alone("vqa", "vqa", vqav2_label_size=3),
    _alone("nlvr2", "nlvr2"),
    Case("image_only", (), {"datasets": ["f30k"], "loss_names": loss_weights(mae=1), "image_only": True}),
    Case("matched_ranking", (), {**_RANKED, "loss_names": loss_weights(itm=1)}),
    Case("embedded_ranking", (), {**_RANKED, "loss_names": loss_weights(itc=1)}),
    Case("two_stages", (), {**_RANKED, "loss_names": loss_weights(irtr=1, itc=1), "rerank_k": 3}),
    Case("hard_negatives", (), {**_RANKED, "loss_names": loss_weights(irtr=1, itc=1, itm=1), "hard_negatives": True}),
    Case("joined_ranking", (), {**_RANKED, "datasets": ["coco", "f30k"], "loss_names": loss_weights(irtr=1)}),
    Case("all", (), {**_RANKED, "loss_names": loss_weights(mlm=1, itm=1, mae=1, itc=1), "mlm_prob": 0.5}),
]
_TASKS = {"tasks": ["vqa", "nlvr2"], "vqa.answers.num_answers": 3, "multitask.task_tokens": True}
_STOPPED = {"mixing": "stop_and_go", "gap": 2, "patience": 0, "cooldown": 0}
_ROUNDS = {
    f"multitask.{name}": value for name, value in {**_STOPPED, "steps": "accumulate", "rounds_per_epoch": 6}.items()
}
TASK_CASES = [
    Case("tasks", (), _TASKS),  # one idle in every step
    Case("rounds", (), _TASKS | _ROUNDS | {"vqa.batch_size": 12, "max_epoch": 3}),  # in one step, or stopped
]
_STEP = {"multitask.rounds_per_epoch": 1, "max_epoch": 1, "drop_rate": 0.0}
ONE_ROUND = Case("one_round", (), TASK_CASES[1].changes | _STEP)
CASES = {case.name: case for case in [*RECIPE_CASES, *OBJECTIVE_CASES, *TASK_CASES, ONE_ROUND]}


def write_uneven(folder: Path) -> Path:
    """Every data set of the catalogue, 11 samples in each training table and 9 in each of the others."""
    tiny.write_catalog(folder)
    training = {stem for spec in CATALOG.values() for stem in spec.tables.get("train", ())}
    for path in folder.glob("*.arrow"):
        columns = pa.ipc.open_file(str(path)).read_all().to_pydict()
        rows = tiny.ROWS - 1
        if path.stem in training or f"{path.stem[:-1]}*" in training:
            rows = tiny.ROWS
        for name, cells in columns.items():
            columns[name] = cells[:rows]
            if isinstance(cells[0], list) and len(cells[0]) == tiny.TEXTS:
                cells[0].pop()
        tiny.write_table(path, columns)
    tiny.write_hard_pools(folder)
    return folder


def run_together(count: int, names: list[str], folder: Path, *, fsdp: bool = False) -> dict[str, dict[str, Any]]:
    """Case -> what `count` processes measured, or the error under "error". A case that fails does not hinder the others."""
    results: dict[str, dict[str, Any]] = {}
    out = folder / f"results_{count}_{fsdp}.jsonl"
    out.unlink(missing_ok=True)
    while left := [name for name in names if name not in results]:
        launch = ["-m", "launch", f"--nproc_per_node={count}", "--standalone", "--module", "tests.processes"]
        done = command(*launch, folder, out, str(int(fsdp)), *left)
        lines = out.read_text().splitlines() if out.exists() else []
        results = {line["name"]: line for line in map(json.loads, lines)}
        if done.returncode and left == [name for name in names if name not in results]:
            raise RuntimeError(f"No case was run:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return results


def check(result: dict[str, Any], count: int, folder: Path) -> None:
    """Fails unless a case ran to its end, and one process measures the same of its checkpoint on all its splits."""
    assert "error" not in result, result["error"]
    case = CASES[result["name"]]
    changes = {"test_only": True, "load_path": result["checkpoint"], "splits": case.splits}
    alone = run(case.settings(folder, 1, **changes, exp_name=f"{case.name}_{count}_alone"))
    assert result["values"], "something was measured"
    assert result["values"] == {name: pytest.approx(alone[name], rel=1e-5, abs=1e-6) for name in result["values"]}


def _run(name: str, folder: Path, fsdp: bool) -> dict[str, Any]:
    """Train, then test; what was measured of every split, and the checkpoint."""
    case, count = CASES[name], torch.distributed.get_world_size()
    trained = run(case.settings(folder, count, fsdp=fsdp))
    checkpoint = f"{trained['log_dir']}/checkpoints/last.ckpt"
    values = {key: value for key, value in trained.items() if key.count("/") > 1 and "/train/" not in key}
    values = {key: value for key, value in values.items() if not key.endswith("/the_metric")}  # which tests lack
    if any(CATALOG[dataset].test for dataset in case.settings(folder, count).data.datasets):
        more = {"test_only": True, "load_path": checkpoint, "exp_name": f"{name}_{count}_tested"}
        values |= run(case.settings(folder, count, fsdp=fsdp, **more))
        del values["log_dir"]
    return {"name": name, "values": values, "checkpoint": checkpoint}


def main(folder: str, out: str, fsdp: str, *names: str) -> None:
    ENCODERS.update(small_vit=tiny.SMALL, small_vilt=tiny.SMALL_VILT)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    for name in names:
        try:
            result = _run(name, Path(folder), bool(int(fsdp)))
        except BaseException:
            result = {"name": name, "error": traceback.format_exc()[-3000:]}
        if torch.distributed.get_rank() == 0 or "error" in result:
            with open(out, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        if "error" in result:
            os._exit(1)  # the launcher ends the other processes
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
