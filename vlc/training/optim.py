"""Parameter groups, optimisers and learning-rate schedules of the published system."""

import math
import re
from collections.abc import Iterable

import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup, get_polynomial_decay_schedule_with_warmup

from vlc.common.errors import UserError
from vlc.configuration.groups import OptimSettings

BETAS, EPS = (0.9, 0.98), 1e-8

# The plain groups leave out biases and norms by name, as published: the norm inside a task classifier ("classifier.1")
# is not caught, and decays. The temperature of contrast, which the published code lacks, is no weight.
_UNDECAYED = re.compile(r"bias$|norm\d?\.weight$|LayerNorm\.weight$|log_scale$")

POSITIONS = ("encoder.pos_embed", "encoder.cls_token")  # they do not decay in MAE's and timm's fine-tuning

# Layers for the layer-wise decay, in timm's notation: 0 the embeddings, i + 1 the i-th block, then all the rest.
LAYERS = {
    "stem": r"encoder\.(?:cls_token|pos_embed|patch_embed|text_embeddings|token_types)|.*\bmask_token$",
    "blocks": [(r"encoder\.blocks\.(\d+)\.", None)],
}


class AdamW(torch.optim.Adam):
    """AdamW as transformers 4 computed it, with which VLC and ViLT were trained.

    Two differences to torch's: eps is added before the bias correction (so it is eps / sqrt(1 - beta2 ** step) after
    it), and the decay, p -= lr * decay * p, comes after the Adam step.
    """

    def __init__(self, groups: Iterable[dict], lr: float, betas=BETAS, eps: float = EPS, *, fused: bool | None = None):
        groups = [{**group, "weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=fused)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["num_steps"] = group.get("num_steps", 0) + 1
            group["eps"] = self.defaults["eps"] / math.sqrt(1 - group["betas"][1] ** group["num_steps"])
        super().step()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["decay"] and moved:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["decay"])
        return loss


def plain_groups(module: nn.Module, settings: OptimSettings, head_parameters: set[str]) -> list[dict]:
    """Pre-training's groups: decay or none; task heads at lr_mult times the rate.

    head_parameters: names of the parameters that belong to heads of downstream tasks.
    """
    groups: dict[tuple[bool, bool], dict] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        head, decayed = name in head_parameters, not _UNDECAYED.search(name)
        rate = settings.learning_rate * (settings.lr_mult if head else 1)
        group = {"params": [], "lr": rate, "weight_decay": settings.weight_decay if decayed else 0.0}
        groups.setdefault((head, decayed), group)["params"].append(parameter)
    return list(groups.values())


def layer_decay_groups(module: nn.Module, settings: OptimSettings) -> list[dict]:
    """Fine-tuning's groups: the rate falls by layer_decay from each of LAYERS to the one below (Bao et al. 2022, BEiT).

    The last layer has the full rate. One-dimensional parameters do not decay, nor do POSITIONS with adamw_torch. The
    module's `group_matcher` returns LAYERS.
    """
    undecayed = POSITIONS if settings.optim_type == "adamw_torch" else ()
    groups = param_groups_layer_decay(module, settings.weight_decay, undecayed, layer_decay=settings.layer_decay)
    return [{**group, "lr": settings.learning_rate * group.pop("lr_scale")} for group in groups]


def may_fuse(precision: str, *, clips: bool) -> bool:
    """Whether an optimiser step may be fused, in a precision by Lightning's name.

    In float16 the scaler looks at the gradients between backward and step. A fused step could unscale them itself, for
    which Lightning refuses to clip them in any mixed precision.
    """
    return precision != "16-mixed" and not (clips and precision.endswith("-mixed"))


def build_optimizer(groups: list[dict], settings: OptimSettings, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """The optimiser named by optim_type.

    fused: use torch's single-kernel step, which does not suit float16 with a gradient scaler.
    """
    if settings.optim_type == "adamw":
        return AdamW(groups, settings.learning_rate, fused=fused)
    if settings.optim_type == "adamw_torch":
        return torch.optim.AdamW(groups, settings.learning_rate, fused=fused)
    if settings.optim_type == "adam":
        return torch.optim.Adam(groups, settings.learning_rate, fused=fused)
    return torch.optim.SGD(groups, settings.learning_rate, momentum=0.9)


def build_schedule(optimizer: torch.optim.Optimizer, settings: OptimSettings, num_steps: int) -> LambdaLR:
    """Linear warm-up, then polynomial decay to end_lr or a half cosine, over num_steps optimiser steps.

    warmup_steps as a float is that share of num_steps, rounded down.
    """
    warmup = settings.warmup_steps
    if isinstance(warmup, float):
        warmup = int(num_steps * warmup)
    if settings.decay_power == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, warmup, num_steps)
    if settings.end_lr >= settings.learning_rate:
        raise UserError(f"end_lr={settings.end_lr} must be below learning_rate={settings.learning_rate}")
    return get_polynomial_decay_schedule_with_warmup(
        optimizer, warmup, num_steps, lr_end=settings.end_lr, power=settings.decay_power
    )
