"""Small models with adapters of low rank, and the checkpoints that they start from."""

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from vlc.training.module import VLCModule
from vlc.training.run import build_data, build_module

RECIPE = "task_finetune_vqa_mae_randaug"
LORA = {"lora.rank": 4, "vqav2_label_size": 3}


def save(module: VLCModule, path: Path) -> str:
    """Write what a checkpoint of a run has of a model."""
    torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, path)
    return str(path)


def built(arrows: Path, *, recipe: str | None = RECIPE, **options: Any) -> VLCModule:
    settings = tiny.settings(
        *([recipe] if recipe else []), **{"data_root": str(arrows), "vit": "small_vit", "drop_rate": 0.0, **options}
    )
    return build_module(settings, build_data(settings)).eval()


def base(arrows: Path, folder: Path, **options: Any) -> str:
    """A checkpoint with random weights, whose activations are large enough to tell from others."""
    module = built(arrows, **{"vqav2_label_size": 3, **options})
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return save(module, folder / "base.ckpt")


def adapted(arrows: Path, base: str, **options: Any) -> VLCModule:
    """A model with adapters that are not 0, as after some training."""
    module = built(arrows, **{**LORA, "load_path": base, **options})
    torch.manual_seed(2)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2 if "lora_" in name else 0.1)
    return module
