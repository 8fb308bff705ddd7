"""A few runs in several processes, and what they need of every objective; tests/reliability has the whole matrix."""

import pytest
import torch

from tests import processes
from tests.training.test_module import _Waits
from vlc.training.run import build_data, build_module, run

# Losses that look across processes, a half-idle model, rankings, tasks in turn; DDP and FSDP, two processes and three.
SAMPLE = {
    (2, False): ["itc", "image_only", "hard_negatives", "rounds", "task_finetune_translation_retrieval"],
    (3, True): ["itc", "two_stages", "nlvr2", "rounds"],
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


def test_a_round_in_two_processes_has_the_gradients_of_one(folder, small_vit):
    """DDP adds up the gradients of heads that are idle in the last batch of the round."""
    name = processes.ONE_ROUND.name
    result = processes.run_together(2, [name], folder)[name]
    assert "error" not in result, result["error"]
    batch = 2 * processes.BATCH
    alone = run(processes.ONE_ROUND.settings(folder, 1, per_gpu_batchsize=batch, batch_size=batch, exp_name="alone"))
    states = [
        torch.load(path, weights_only=True)["optimizer_states"][0]["state"]
        for path in (result["checkpoint"], f"{alone['log_dir']}/checkpoints/last.ckpt")
    ]
    together, whole = ({number: state["exp_avg"] for number, state in one.items()} for one in states)
    torch.testing.assert_close(together, whole, rtol=1e-4, atol=1e-7)


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
