"""A model learns from image and text together, not only a loop runs. What it reaches unseen is asserted by `make demo`."""

from dataclasses import replace

import pytest
import torch

from tests import tiny
from vlc.common.inputs import Images
from vlc.configuration.config import resolve
from vlc.configuration.recipes import loss_weights
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.data.keys import Key
from vlc.training.module import VLCModule
from vlc.training.optim import build_optimizer, plain_groups
from vlc.training.run import build_data, build_module


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> str:
    return str(tiny.write_scenes(tmp_path_factory.mktemp("scenes"), train=24, val=4, test=4, held_out=4))


def _train(named: str, scenes: str, steps: int, **updates) -> tuple[VLCModule, Batch]:
    """The recipe's model, trained on one batch that is returned with it."""
    small = {"data_root": scenes, "batch_size": 32, "per_gpu_batchsize": 32, "num_workers": 0}
    settings = Settings.from_config(resolve(named, **small, **updates))
    data = build_data(settings)
    torch.manual_seed(0)
    module = build_module(settings, data).train()
    batch = module.normalised(data.train[[Key(0, sample) for sample in range(32)]])
    optimizer = build_optimizer(plain_groups(module, settings.optim, set()), settings.optim)
    for _ in range(steps):
        optimizer.zero_grad()
        module.total_loss(module.outcomes(batch)).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    return module.eval(), batch


@torch.no_grad()
def _ratio(module: VLCModule, batch: Batch, objective: str, metric: str) -> float:
    total, count = module.outcomes(batch)[objective].metrics[metric]
    return float(total) / count


def _other_images(batch: Batch) -> Batch:
    return replace(batch, images=Images(batch.images.pixels.roll(7, dims=0)))


def test_vqa_learns_answers_from_the_image(scenes):
    module, batch = _train("task_finetune_vqa_emoji", scenes, steps=100, learning_rate=1e-3)
    right = _ratio(module, batch, "vqa", "score")
    assert right > 0.95
    assert _ratio(module, _other_images(batch), "vqa", "score") < right - 0.15, "the answers do not depend on the image"


def test_pretraining_learns_all_objectives_together(scenes):
    losses = loss_weights(mlm=1, itm=1, mae=1)
    updates = {"datasets": ["emoji_scenes"], "loss_names": losses, "mlm_prob": 0.3, "learning_rate": 1e-3}
    before, batch = _train("task_pretrain_emoji", scenes, 0, **updates)
    after, _ = _train("task_pretrain_emoji", scenes, 150, **updates)
    assert _ratio(after, batch, "mlm", "accuracy") > 0.9
    assert _ratio(after, batch, "itm", "accuracy") > 0.9
    assert _ratio(after, batch, "mae", "loss") < 0.6 * _ratio(before, batch, "mae", "loss")
    assert _ratio(after, _other_images(batch), "mlm", "accuracy") < 0.95
