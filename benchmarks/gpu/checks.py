"""What has to hold on a device before its speed counts. Each check raises AssertionError where it does not hold."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import ours
from benchmarks.cases import CASES
from benchmarks.gpu.items import Item, Setting
from tests import golden_models
from tests.golden_models import Golden
from vlc.checkpoint.formats import VLC_RELEASE
from vlc.model import encoder
from vlc.training.optim import AdamW

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
TRAINED = ("pretrain", "vqa", "nlvr2", "irtr")  # whose gradients are stored
STEPS = ("pretrain_224", "vqa_576", "nlvr2_384", "irtr_224")


def _close(what: str, found: Tensor, expected: Tensor, tolerance: float) -> float:
    """The distance of two tensors as a share of the norm of the expected one, if it is within the tolerance."""
    share = float((found.float().cpu() - expected.float().cpu()).norm() / expected.float().norm().clamp(min=1e-8))
    assert share <= tolerance, f"{what} differs by {share:.2g} of its norm, more than {tolerance:g}"
    return share


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([one.detach().flatten() for one in tensors])


def _loaded(name: str, setting: Setting) -> tuple[Golden, Any]:
    golden = golden_models.load(GOLDEN, name)
    golden.module.to(setting.device)
    return golden, golden.batch.to(setting.device)


def _loss_and_gradients(golden: Golden, batch: Any, half: bool) -> tuple[Tensor, dict[str, Tensor]]:
    module = golden.module
    module.zero_grad()
    with torch.autocast(batch.index.device.type, torch.bfloat16, enabled=half):
        loss = module.total_loss(module.outcomes(batch))
    loss.backward()
    found = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
    return loss.detach(), found


def golden(setting: Setting, half: bool) -> dict[str, Any]:
    """Losses of all golden models, and the norms of the gradients that are stored, by the published code."""
    worst, tolerance = 0.0, 0.03 if half else 1e-4
    for name in golden_models.NAMES:
        given, batch = _loaded(name, setting)
        loss, gradients = _loss_and_gradients(given, batch, half)
        worst = max(worst, _close(f"the loss of {name}", loss, given.expected["total_loss"], tolerance))
        if name in TRAINED:
            norms = torch.tensor([given.expected["grad_norms"][VLC_RELEASE.theirs(one)] for one in gradients])
            own = torch.stack([value.norm() for value in gradients.values()])
            worst = max(worst, _close(f"the gradients' norms of {name}", own, norms, 10 * tolerance / 3))
    return {"difference": worst}


def packed(setting: Setting) -> dict[str, Any]:
    """Without padding and with masked padding, a training pass has the same loss and gradients."""
    half, worst = setting.device.type == "cuda", 0.0
    for name in ("pretrain", "vqa", "irtr"):
        given, batch = _loaded(name, setting)
        given.module.train()
        loss, gradients = _loss_and_gradients(given, batch, half)
        given.module.encoder._may_pack = False
        masked_loss, masked = _loss_and_gradients(given, batch, half)
        worst = max(worst, _close(f"the loss of {name}", loss, masked_loss, 0.02 if half else 1e-5))
        pair = _joined(gradients.values()), _joined(masked.values())
        worst = max(worst, _close(f"the gradient of {name}", *pair, tolerance=0.05 if half else 1e-4))
    return {"difference": worst}


def compiled(setting: Setting) -> dict[str, Any]:
    """Compiled blocks have the loss and gradients of blocks that are not; on CPUs they are only traced."""
    given, batch = _loaded("pretrain", setting)
    loss, gradients = _loss_and_gradients(given, batch, half=False)
    given.module.compile_parts(**({} if setting.device.type == "cuda" else {"backend": "eager"}))
    compiled_loss, own = _loss_and_gradients(given, batch, half=False)
    difference = _close("the gradient", _joined(own.values()), _joined(gradients.values()), 1e-3)
    return {"difference": max(difference, _close("the loss", compiled_loss, loss, 1e-4))}


def resumed(setting: Setting) -> dict[str, Any]:
    """Four steps of optimisation end where two, a file, and two more end."""

    def steps(module: torch.nn.Module, batch: Any, optimizer: AdamW, count: int) -> None:
        for _ in range(count):
            module.total_loss(module.outcomes(batch)).backward()  # type: ignore[operator]  # a VLCModule
            optimizer.step()
            optimizer.zero_grad()

    def start() -> tuple[torch.nn.Module, Any, AdamW]:
        given, batch = _loaded("vqa", setting)
        used = [one for one in given.module.parameters() if one.requires_grad]
        return given.module, batch, AdamW([{"params": used, "weight_decay": 0.01}], 1e-4, fused=True)

    unbroken, batch, optimizer = start()
    steps(unbroken, batch, optimizer, 4)
    first, _, optimizer = start()
    steps(first, batch, optimizer, 2)
    file = io.BytesIO()
    torch.save({"module": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    second, _, optimizer = start()
    second.load_state_dict(stored["module"])
    optimizer.load_state_dict(stored["optimizer"])
    steps(second, batch, optimizer, 2)
    return {"difference": _close("the weights", _joined(second.parameters()), _joined(unbroken.parameters()), 1e-6)}


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Let tensors of the device meta take the ways of a GPU: texts are packed as there, and nothing is autocast."""
    with (
        mock.patch.object(encoder, "has_flash_attention", return_value=True),
        mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()),
    ):
        yield


def never_waits(setting: Setting, name: str) -> dict[str, Any]:
    """In a training step the host waits for no value of the device.

    CUDA raises an error where it does. Tensors without values (device meta) raise one where a shape or a branch depends on
    a value; copies between host and device are not seen there.
    """
    words = "vit=mae_vit_tiny_patch16", "image_size=64"
    if setting.device.type != "cuda":
        with without_values():
            ours.build(CASES[name], 4, False, *words, device=torch.device("meta"))()
        return {"device": "meta"}
    step = ours.build(CASES[name], 4, True, *words)
    step()  # the optimiser makes its state
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"device": "cuda"}


_CHECKS: dict[str, Callable[..., dict[str, Any]]] = {
    "golden numbers, float32": partial(golden, half=False),
    "golden numbers, bfloat16": partial(golden, half=True),
    "packed = masked": packed,
    "resumed = unbroken": resumed,
    **{f"no waiting in a step, {name}": partial(never_waits, name=name) for name in STEPS},
    "compiled = eager": compiled,
}


def _exact(check: Callable[..., dict[str, Any]]) -> Item:
    """The check, with products of float32 that are not rounded to TensorFloat-32."""

    def run(setting: Setting) -> dict[str, Any]:
        with torch.backends.cudnn.flags(allow_tf32=False):
            return check(setting)

    return run


CHECKS: dict[str, Item] = {name: _exact(check) for name, check in _CHECKS.items()}
