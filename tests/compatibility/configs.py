"""Write print_config.json: what the named configs mean. `python -m tests.compatibility.configs` made it at 6978193.

The file holds all values of the bare defaults, and for each case its named configs, its `key=value`, and the values that
differ from its base: from the case of one of its named configs alone, or from the defaults where there is no base.
"""

import json
from pathlib import Path
from typing import Any

from vlc.configuration.config import resolve
from vlc.configuration.recipes import RECIPES

PATH = Path(__file__).with_name("print_config.json")

# The commands of the published system, in its own words.
_PLACES = {"data_root": "arrows", "num_gpus": 8, "num_nodes": 2, "log_dir": "logs"}
_PRETRAIN = {"per_gpu_batchsize": 32, "whole_word_masking": True, "image_size": 384, "pretrain_path": "mae.pth"}
_FINETUNE = {"per_gpu_batchsize": 16, "load_path": "vlc.ckpt", "image_size": 384, "learning_rate": 5e-4}
_TEST = {"load_path": "tuned.ckpt", "test_only": True, "precision": 32}


def commands() -> list[tuple[list[str], dict[str, Any]]]:
    """Named configs and `key=value` of the published commands: pre-training, fine-tuning, and the tests of these."""
    made = [(["task_mlm_itm_mae", "step25k"], _PLACES | _PRETRAIN | {"mae_weight": 1.0})]
    for task in ("vqa", "nlvr2", "irtr_coco", "irtr_f30k"):
        values = _PLACES | _FINETUNE | ({"image_size": 576} if task == "vqa" else {})
        made += [([f"task_finetune_{task}_mae_randaug"], more) for more in (values, values | _TEST)]
    return made


def combinations() -> list[list[str]]:
    """Each task with each other named config behind it, and before it."""
    tasks = [name for name in RECIPES if name.startswith("task_")]
    others = [name for name in RECIPES if name not in tasks]
    behind = [[task, other] for task in tasks for other in others]
    return behind + [[other, task] for task, other in behind]


def case(names: list[str], updates: dict[str, Any], base: str | None) -> dict[str, Any]:
    """A line of the file."""
    before = resolve(base) if base else resolve()
    after = resolve(*names, **updates)
    differing = {key: value for key, value in after.items() if plain(value) != plain(before[key])}
    return {"named": names, "updates": updates, "base": base, "differing": differing}


def plain(value: Any) -> str:
    """A value as text: 1, 1.0 and True are different, the order of keys is not told."""
    return json.dumps(value, sort_keys=True)


def main() -> None:
    cases = [case([name], {}, None) for name in RECIPES]
    cases += [case(names, {}, next(name for name in names if name.startswith("task_"))) for names in combinations()]
    cases += [case(names, updates, names[0]) for names, updates in commands()]
    lines = ",\n".join(map(json.dumps, cases))
    PATH.write_text(f'{{"defaults": {json.dumps(resolve())},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
