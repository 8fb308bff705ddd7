"""A model that is not trained, with a head of each form."""

from pathlib import Path

import pytest
import torch

from tests import tiny
from vlc.configuration.config import resolve_use
from vlc.training.run import build_data, build_module
from vlc.use.model import Model
from vlc.use.search import build_index

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


@pytest.fixture(scope="session")
def index(checkpoint, tmp_path_factory) -> str:
    """An index of three images."""
    folder = tmp_path_factory.mktemp("index")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, kind="PNG"))
    given = {"load_path": str(checkpoint), "image_folder": str(folder), "index": str(folder / "index")}
    build_index(*resolve_use(**given, num_gpus=0, num_workers=0))
    return str(folder / "index")
