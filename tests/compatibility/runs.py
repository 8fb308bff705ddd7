"""The runs behind the old files: make.py runs them with the old commit, and the tests run them with today's code.

Everything goes through the public commands (`run.py`, `main_finetune.py`), so that this file works with both. Paths are
relative: the working directory is the folder with the old files.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch

ENCODER = "mae_vit_of_old_files"
SIZE = {"width": 16, "depth": 2, "heads": 2, "patch_size": 8, "temperature": 10}
SIZE |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}

STOPPED, STEPS = 40, 46  # where training was interrupted, in the midst of an epoch, and where it ends
EPOCHS, ALL_EPOCHS = 1, 2  # of the stored image classifier, and of the run that continues it
OBJECTIVES = ("itm", "mlm", "mae", "vqa", "nlvr2", "irtr", "itc")

_COMMON = {
    "vit": ENCODER,
    "image_size": 32,
    "tokenizer": "tokenizer",
    "data_root": "arrows",
    "batch_size": 4,
    "per_gpu_batchsize": 4,
    "num_gpus": 0,
    "num_workers": 0,
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "val_check_interval": 1.0,
}
# A named config and the values that differ from it, by the name of the checkpoint.
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("task_pretrain_emoji", {"datasets": ["emoji_scenes"]}),
    "contrast": (
        "task_retrieval_emoji",
        {"datasets": ["emoji_scenes"], "loss_names": {"itm": 1, "itc": 1}, "draw_false_image": 1},
    ),
    "vqa": ("task_finetune_vqa_emoji", {"load_path": "pretrain.ckpt"}),
    "nlvr2": ("task_finetune_nlvr2_emoji", {"load_path": "pretrain.ckpt"}),
}
# What predict is asked of each checkpoint.
ASKED: dict[str, dict[str, Any]] = {
    "pretrain": {"image": "one.png", "text": ["a red heart left of a dog", "a [MASK] left of a dog"]},
    "contrast": {"image": "one.png", "text": "a red heart left of a dog"},
    "vqa": {"image": "one.png", "text": ["how many things are there?", "what is left of the dog?"]},
    "nlvr2": {"image": "one.png", "image2": "two.png", "text": "there is a dog in both images"},
}
# What is searched for in the index of "contrast": by similarity alone, and ranked again by the matching head.
SEARCHED: dict[str, dict[str, Any]] = {
    "images": {"query": "a red heart left of a dog", "rerank_k": None},
    "images_ranked": {"query": "a red heart left of a dog"},
    "texts": {"image": "one.png", "rerank_k": None},
    "texts_ranked": {"image": "one.png"},
}


def command(name: str | None, *named_configs: str, **updates: Any) -> Any:
    """What `python run.py [NAME] with NAMED_CONFIG ... key=value ...` returns, run in this process."""
    if "loss_names" in updates:
        updates["loss_names"] = dict.fromkeys(OBJECTIVES, 0) | updates["loss_names"]
    experiment = importlib.import_module("run").ex
    options = {"--capture": "no"}
    return experiment.run(name, config_updates=updates, named_configs=named_configs, options=options).result


def train(name: str, **updates: Any) -> Path:
    """Train or continue a model; returns its last.ckpt."""
    config, values = TRAINED[name]
    metrics = command(None, config, **(_COMMON | values | {"log_dir": "logs", "max_steps": STEPS} | updates))
    return Path(metrics["log_dir"], "checkpoints", "last.ckpt")


def resume(name: str) -> Path:
    """The last.ckpt of an interrupted run that is taken to its end."""
    return train(name, resume_from=f"{name}.ckpt")


def evaluate(name: str) -> dict[str, float]:
    """The metrics of an old checkpoint, with test_only=True."""
    config, values = TRAINED[name]
    updates = _COMMON | values | {"load_path": f"{name}.ckpt", "test_only": True, "precision": 32, "log_dir": "logs"}
    metrics = command(None, config, **updates)
    return {metric: value for metric, value in metrics.items() if metric != "log_dir"}


def predict(name: str) -> list[dict[str, Any]]:
    """The answers of an old checkpoint. Its own configuration tells the model; nothing about it is passed."""
    command("predict", load_path=f"{name}.ckpt", num_gpus=0, out="answers.json", **ASKED[name])
    return json.loads(Path("answers.json").read_text(encoding="utf-8"))


def index() -> None:
    """Write the index of the test split."""
    updates = {"load_path": "contrast.ckpt", "index": "index", "data_root": "arrows", "datasets": ["emoji_scenes"]}
    command("index", **updates, splits=["test"], num_gpus=0, num_workers=0)


def search(name: str) -> list[dict[str, Any]]:
    """What is found in the old index."""
    updates = {"load_path": "contrast.ckpt", "index": "index", "num_gpus": 0, "num_results": 5, "out": "found.json"}
    command("search", **updates, **SEARCHED[name])
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return [result | {"source": str(Path(result["source"]).relative_to(Path.cwd()))} for result in found]


def classify(*words: str, epochs: int = EPOCHS) -> dict[str, float]:
    """The metrics that `python main_finetune.py` ends with."""
    options = (
        f"--data_path images --model {ENCODER} --input_size 32 --nb_classes 3 --batch_size 4 --epochs {epochs} "
        "--warmup_epochs 0 --blr 0.05 --aa none --mixup 0.8 --ema 0.9 --num_workers 0 --device cpu --amp off"
    )
    return importlib.import_module("main_finetune").main([*options.split(), *words])


def train_classifier() -> Path:
    """Fine-tune the classifier; returns its last.ckpt."""
    classify("--output_dir", "classes", "--log_dir", "", "--finetune", "pretrain.ckpt")
    return Path("classes/last.ckpt")


def resume_classifier() -> Path:
    """The last.ckpt of a run that takes the old classifier further."""
    words = ("--output_dir", "classes", "--log_dir", "", "--resume", "classes.ckpt")
    classify(*words, epochs=ALL_EPOCHS)
    return Path("classes/last.ckpt")


def evaluate_classifier() -> dict[str, float]:
    """The metrics of the old classifier, with --eval."""
    return classify("--eval", "--resume", "classes.ckpt", "--output_dir", "", "--log_dir", "")


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The parameters of a checkpoint by name, those of a moving average included."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    averaged = {f"ema.{name}": value for name, value in (stored.get("ema") or {}).items()}
    return stored["state_dict"] | averaged


def machine() -> dict[str, str]:
    """What has to be equal for the same sums to give the same last bits."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = cpus[0].partition(":")[2].strip() if cpus else ""
    return {"torch": torch.__version__, "kernels": torch.backends.cpu.get_cpu_capability(), "cpu": name}
