"""Parameter groups, optimisers and learning-rate schedules of the published system, and others of timm and torch."""

import inspect
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
)
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import (
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
)

from vlc.common.errors import UserError
from vlc.configuration.groups import OptimSettings, ScheduleSettings
from vlc.configuration.values import check_known

BETAS, EPS = (0.9, 0.98), 1e-8

# The plain groups leave out biases and norms by name, as published: the norm inside a task classifier ("classifier.1")
# is not caught, and decays. The temperature of contrast and the factors of channels, which it lacks, are no weights.
_UNDECAYED = re.compile(r"bias$|norm\d?\.weight$|LayerNorm\.weight$|log_scale$|norm_pre\.weight$|ls\d\.gamma$")

POSITIONS = ("encoder.pos_embed", "encoder.cls_token")  # they do not decay in MAE's and timm's fine-tuning

# Layers for the layer-wise decay, in timm's notation: 0 the embeddings, i + 1 the i-th block, then all the rest.
LAYERS = {
    "stem": r"encoder\.(?:cls_token|pos_embed|patch_embed|registers|norm_pre)"
    r"|encoder\.(?:text_embeddings|token_types|task_tokens|languages)|.*\bmask_token$",
    "blocks": [(r"encoder\.blocks\.(\d+)\.", None)],
}


class AdamW(torch.optim.Adam):
    """AdamW as transformers 4 computed it, with which VLC and ViLT were trained.

    Two differences to torch's: eps is added before the bias correction (so it is eps / sqrt(1 - beta2 ** step) after
    it), and the decay, p -= lr * decay * p, comes after the Adam step.

    bias_correction: whether the moments are divided by 1 - beta ** step. 12-in-1 and BERT trained without it.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        lr: float,
        betas: tuple[float, float] = BETAS,
        eps: float = EPS,
        *,
        bias_correction: bool = True,
        fused: bool | None = None,
    ):
        groups = [{**group, "weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=fused)
        self.bias_correction = bias_correction

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["num_steps"] = group.get("num_steps", 0) + 1
            first, second = (1 - beta ** group["num_steps"] for beta in group["betas"])
            group["eps"] = self.defaults["eps"] / math.sqrt(second)
            if not self.bias_correction:
                group["lr"] *= first / math.sqrt(second)  # torch's step divides by both
        super().step()
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
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


def with_own_rates(groups: list[dict], module: nn.Module, rates: Mapping[str, float]) -> list[dict]:
    """Split groups so that parameters whose names match a pattern have their factor of the rate (VL-BERT's LR_MULT).

    Raises UserError for a pattern that matches no parameter, or is no regular expression.
    """
    factors = dict.fromkeys(module.parameters(), 1.0)
    for pattern, factor in rates.items():
        for parameter in matching(module, pattern, f"optimizer.rates.{pattern}={factor}"):
            factors[parameter] *= factor
    return [
        {**group, "lr": group["lr"] * factor, "params": [one for one in group["params"] if factors[one] == factor]}
        for group in groups
        for factor in dict.fromkeys(factors[one] for one in group["params"])
    ]


def freeze(module: nn.Module, patterns: Iterable[str]) -> None:
    """Take the gradient from the parameters whose names match a pattern. Raises UserError as `with_own_rates` does."""
    for pattern in patterns:
        for parameter in matching(module, pattern, f"optimizer.frozen={[pattern]}"):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(f"optimizer.frozen={list(patterns)} leaves no parameter to train: leave one of them out")


def matching(module: nn.Module, pattern: str, given: str) -> list[nn.Parameter]:
    """The parameters in whose names a regular expression is found; blocks<N stands for the first N blocks.

    given: how the user gave the pattern, for errors.
    """
    spelled = re.sub(
        r"blocks<(\d{1,3})", lambda found: rf"blocks\.({'|'.join(map(str, range(int(found[1]))))})\.", pattern
    )
    try:
        expression = re.compile(spelled)
    except re.error as error:
        raise UserError(
            f"{given} is no regular expression ({error}): put a \\ before signs that stand for themselves"
        ) from error
    named = dict(module.named_parameters())
    if matching := [parameter for name, parameter in named.items() if expression.search(name)]:
        return matching
    parts = list(dict.fromkeys(part for name in named for part in name.split(".")))
    near = get_close_matches(pattern, parts, n=3) or [next(iter(named))]
    raise UserError(
        f"{given} matches no parameter of the model. Names of parameters have parts such as {', '.join(near)}"
    )


def may_fuse(precision: str, *, clips: bool) -> bool:
    """Whether an optimiser step may be fused, in a precision by Lightning's name.

    In float16 the scaler looks at the gradients between backward and step. A fused step could unscale them itself, for
    which Lightning refuses to clip them in any mixed precision.
    """
    return precision != "16-mixed" and not (clips and precision.endswith("-mixed"))


# Optimisers that timm lacks, or that have other defaults here. RAdam decays as its authors have it (Liu et al. 2020).
_OWN: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": AdamW,
    "adamw_torch": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "radam": partial(torch.optim.RAdam, decoupled_weight_decay=True),
}
_FUSED = ("adamw", "adamw_torch", "adam")
_NO_OPTIONS = {"self", "params", "groups", "lr", "weight_decay", "fused"}  # other keys say them, or the device does


def build_optimizer(groups: list[dict], settings: OptimSettings, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """The optimiser named by optim_type: one of ours, or of timm's, which is imported when it is named.

    fused: use torch's single-kernel step, which does not suit float16 with a gradient scaler.

    Raises UserError for an unknown name, and for options that the optimiser lacks or refuses.
    """
    name, options = settings.optim_type, settings.optimizer.options
    check_known([name], {*_OWN, *map(str, list_optimizers())}, "optim_type")
    kind = _OWN.get(name) or _class_of_timm(name)
    check_known(
        options, sorted(inspect.signature(kind).parameters.keys() - _NO_OPTIONS), f"option of optim_type={name}"
    )
    make = kind if name in _OWN else partial(create_optimizer_v2, opt=name)
    single_kernel = {"fused": fused} if name in _FUSED else {}
    try:
        return make(groups, lr=settings.learning_rate, **single_kernel, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"optimizer.options={dict(options)} do not suit optim_type={name}: {error}") from error


def _class_of_timm(name: str) -> Callable[..., torch.optim.Optimizer]:
    if get_optimizer_info(name).second_order:
        raise UserError(f"optim_type={name} needs second derivatives, which training does not compute: pass another")
    try:
        return get_optimizer_class(name, bind_defaults=False)
    except (AssertionError, ImportError) as error:
        raise UserError(f"optim_type={name} cannot be used here: {error}") from error


def check_optimizer(settings: OptimSettings) -> None:
    """Raise UserError where `build_optimizer` would. A run calls this before it reads data."""
    build_optimizer([{"params": [nn.Parameter(torch.zeros(2, 2))], "weight_decay": 0.0}], settings)


def build_schedule(optimizer: torch.optim.Optimizer, settings: OptimSettings, num_steps: int) -> LambdaLR:
    """The schedule that schedule.kind or decay_power names, over num_steps calls of its `step`, warm-up included.

    Polynomial, linear and cosine end at end_lr with the last step. warmup_steps as a float is that share of num_steps,
    rounded down where decay_power names the schedule, as published. Raises UserError where end_lr is not below the rate.
    """
    schedule = settings.schedule
    warmup: Any = settings.warmup_steps  # transformers' functions take fractions of steps, too
    if isinstance(warmup, float):
        warmup = num_steps * warmup if schedule.kind else int(num_steps * warmup)
    kind = schedule.kind or ("cosine" if settings.decay_power == "cosine" else "polynomial")
    if kind == "cosine_restart":
        return get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, warmup, num_steps, schedule.cycles)
    if kind in ("constant", "step"):
        marks = sorted(round(mark * num_steps) if mark < 1 else int(mark) for mark in schedule.milestones)
        warm = _warm_up(schedule, warmup)
        return LambdaLR(optimizer, lambda step: warm(step) * schedule.factor ** bisect_right(marks, step))
    end = settings.end_lr if schedule.kind or kind == "polynomial" else 0  # decay_power=cosine always ended at 0
    if end >= settings.learning_rate:
        raise UserError(f"end_lr={end} must be below learning_rate={settings.learning_rate}")
    if kind == "plateau":
        return PlateauSchedule(optimizer, _warm_up(schedule, warmup), schedule, end / settings.learning_rate)
    if kind == "cosine":
        return get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, num_steps, min_lr=end)
    power = 1 if kind == "linear" else settings.decay_power
    return get_polynomial_decay_schedule_with_warmup(optimizer, warmup, num_steps, lr_end=end, power=power)


def _warm_up(schedule: ScheduleSettings, num_steps: float) -> Callable[[int], float]:
    """The share of the rate at a step: it rises from warmup_start, or stays there, for num_steps, and then is 1."""
    start, rises = schedule.warmup_start, schedule.warmup == "linear"

    def share(step: int) -> float:
        if step >= num_steps:
            return 1.0
        return start + (1 - start) * step / num_steps if rises else start

    return share


class PlateauSchedule(LambdaLR):
    """Warm-up, and a rate that falls where a metric no longer grows: torch's ReduceLROnPlateau, by validations.

    torch's class multiplies the rates of an optimiser in place, and so knows no warm-up. Here it has an optimiser of its
    own, whose rate is the share of the full rates.

    warm_up: the share of the rate at a step.
    floor: the smallest share to which the rate falls.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warm_up: Callable[[int], float],
        schedule: ScheduleSettings,
        floor: float,
    ):
        self.share = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self.reduction = ReduceLROnPlateau(
            self.share,
            mode="max",
            factor=schedule.factor,
            patience=schedule.patience,
            threshold=schedule.threshold,
            threshold_mode="abs",  # a negative sum of losses has no relative gain
            cooldown=schedule.cooldown,
            min_lr=floor,
        )
        super().__init__(optimizer, lambda step: warm_up(step) * self.share.param_groups[0]["lr"])

    def validated(self, metric: float) -> None:
        """Take note of a validation's metric, of which more is better, and change the rates at once where that is due."""
        self.reduction.step(metric)
        self._last_lr = [
            base * share(self.last_epoch) for base, share in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        state = {key: value for key, value in super().state_dict().items() if key != "share"}
        return state | {"reduction": self.reduction.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a schedule. Of one of another kind, the number of steps is taken over."""
        state = dict(state)
        if reduction := state.pop("reduction", None):
            self.reduction.load_state_dict(reduction)
            (self.share.param_groups[0]["lr"],) = self.reduction.get_last_lr()
        super().load_state_dict(state)
