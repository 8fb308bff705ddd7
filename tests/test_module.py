"""The training step as a whole."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import golden_models


class _Waits(TorchDispatchMode):
    """Counts the values that the host reads from tensors, as `.item()`, `float()` and `if` do."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_waits_are_counted():
    with _Waits() as waits:
        assert float(torch.ones(2).sum()) == 2
    assert waits.count == 1


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_a_step_never_waits_for_the_device(golden, name):
    case = golden_models.load(golden, name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module, batch = case.module.to(device).train(), case.batch.to(device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with _Waits() as waits:
            module.total_loss(module.outcomes(batch)).backward()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert waits.count == 0
