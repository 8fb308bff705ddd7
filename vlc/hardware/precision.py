"""Mixed precision in which every weight is cast once a step, however many passes use it."""

from typing import Any, Literal

import torch
from pytorch_lightning.plugins import MixedPrecision


class CachingMixedPrecision(MixedPrecision):
    """Lightning's mixed precision with autocast's cache of cast weights, which Lightning turns off.

    Lightning does so because a pass without gradients once left copies that a later pass could not train through (torch
    issue 65766). torch has fixed this.
    """

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16)


_MIXED: dict[str, Literal["16-mixed", "bf16-mixed"]] = {"16-mixed": "16-mixed", "bf16-mixed": "bf16-mixed"}


def precision_options(precision: str, accelerator: str) -> dict[str, Any]:
    """Return the Trainer's arguments for a precision by Lightning's name ("32-true", "bf16-mixed", ...)."""
    mixed = _MIXED.get(precision)
    if mixed is None:
        return {"precision": precision}
    return {"plugins": [CachingMixedPrecision(mixed, "cuda" if accelerator == "gpu" else accelerator)]}
