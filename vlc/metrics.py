"""Metrics as ratios: sums and counts, never means of means."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Ratio(Metric):
    """sum / count over all batches and processes, in float64; NaN where nothing was counted."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: int) -> None:
        self.sum += total
        self.count += count

    def compute(self) -> Tensor:
        return self.sum / self.count
