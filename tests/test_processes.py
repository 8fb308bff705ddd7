"""A few runs in several processes, and what they need of every objective; tests/reliability has the whole matrix."""

import pytest
import torch

from tests import processes
from tests.training.test_module import _Waits
from vlc.training.run import build_data, build_module

# Losses that look across processes, a half-idle model, rankings, tasks in turn; DDP and FSDP, two processes and three.
SAMPLE = {
    (2, False): ["itc", "image_only", "hard_negatives", "tasks", "rounds"],
    (3, True): ["itc", "two_stages", "nlvr2", "tasks", "rounds"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    processes.write_uneven(path / "data")
    return path


@pytest.mark.parametrize(("count", "fsdp"), SAMPLE)
def test_several_processes_train_and_measure_what_one_does(folder, small_vit, small_vilt, count, fsdp):
    names = SAMPLE[count, fsdp]
    results = processes.run_together(count, names, folder, fsdp=fsdp)
    for name in names:
        processes.check(results[name], count, folder)


@pytest.mark.parametrize("name", [case.name for case in processes.OBJECTIVE_CASES])
def test_every_weight_that_trains_has_a_gradient_in_every_step(folder, small_vit, name):
    """DDP waits for the gradients of all of them."""
    settings = processes.CASES[name].settings(folder, 1)
    data = build_data(settings)
    module = build_module(settings, data).train()
    batch = module.normalised(data.train[[(0, 0), (0, 5)]])
    with _Waits() as waits:
        module.total_loss(module.outcomes(batch)).backward()
    assert waits.count == 0, "the host does not wait for the device"
    assert not [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in trained) > 0
    assert all(torch.isfinite(weight.grad).all() for weight in trained)
