"""A model that is not trained, with a head of each form."""

from pathlib import Path

import pytest
import torch

from tests import tiny
from vlc.training.run import build_data, build_module
from vlc.use.model import Model

TASKS = (
    "pretraining_multi30k,vqa,nlvr2,snli_ve,retrieval_emoji,translation_retrieval,visdial,vcr_qa,refer_emoji,"
    "guesswhat_oracle,translation_multi30k,caption_coco,mlt"
)


@pytest.fixture(scope="session")
def checkpoint(arrows, tmp_path_factory) -> Path:
    """The file of the model."""
    settings = tiny.settings(tasks=TASKS.split(","), data_root=str(arrows), vit="mae_vit_tiny_patch16")
    torch.manual_seed(0)
    module = build_module(settings, build_data(settings))
    path = tmp_path_factory.mktemp("served") / "all-heads.ckpt"
    torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, path)
    return path


@pytest.fixture(scope="session")
def model(checkpoint) -> Model:
    return Model.from_checkpoint(checkpoint, num_gpus=0, per_gpu_batchsize=8)
