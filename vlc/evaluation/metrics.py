"""Metrics as sums and counts, never as means of means."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from vlc.common.errors import NonFiniteMetric


class Ratio(Metric):
    """sum / count over all batches and processes, in float64; None where nothing was counted."""

    full_state_update = False
    sum: Tensor
    count: Tensor

    def __init__(self):
        super().__init__()
        self.add_state("sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor | float, count: int) -> None:
        self.sum += total
        self.count += count

    def compute(self) -> Tensor | None:
        return self.sum / self.count if self.count else None


def check_finite(values: Mapping[str, float | Tensor]) -> None:
    """Raise NonFiniteMetric with the names of values that are, or tensors that hold, NaN or infinity.

    Such a value would select a checkpoint, be left out, or take an arbitrary rank.
    """
    broken = [name for name, value in values.items() if not torch.as_tensor(value).isfinite().all()]
    if broken:
        raise NonFiniteMetric(
            f"Measured values are NaN or infinite: {', '.join(broken)}. The model's weights are broken, or its activations "
            "overflow: evaluate an earlier checkpoint, or pass precision=32"
        )
