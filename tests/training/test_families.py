"""Encoders of other families in a run: pre-training, going on, fine-tuning from it, and asking."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vlc
from tests import tiny
from tests.training.test_image_classifier import classifier, logits_of
from vlc.configuration.recipes import loss_weights
from vlc.model.sizes import ENCODERS
from vlc.training.run import run
from vlc.use.explain import explain
from vlc.use.explain.explain import explainable
from vlc.use.forms import Request


@pytest.fixture(scope="module")
def arrows(tmp_path_factory) -> str:
    return str(tiny.write_dataset(tmp_path_factory.mktemp("coco"), "coco"))


@pytest.mark.parametrize("family", ["dinov3_vit_small_plus_patch16", "siglip_vit_base_patch16"])
def test_pretraining_resuming_fine_tuning_and_asking(arrows, tmp_path, monkeypatch, family):
    monkeypatch.setitem(ENCODERS, "of_family", tiny.of_family(family))
    options = {"vit": "of_family", "data_root": arrows, "datasets": ["coco"], "log_dir": str(tmp_path)}
    options["schedule.kind"] = "constant"  # so that the rates do not depend on max_steps
    losses = {"loss_names": loss_weights(mlm=1, itm=1, itc=1, mae=1), "checkpoint_every": 1}
    first = Path(run(tiny.settings(**options, **losses))["log_dir"]) / "checkpoints/last.ckpt"
    whole = run(tiny.settings(**options, **losses, max_steps=2, exp_name="whole"))["log_dir"]
    resumed = run(tiny.settings(**options, **losses, max_steps=2, exp_name="resumed", resume_from=str(first)))[
        "log_dir"
    ]
    states = [torch.load(f"{log}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for log in (whole, resumed)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    tuned = run(
        tiny.settings("task_finetune_irtr_coco_mae_randaug", **options, load_path=str(first), draw_false_text=2)
    )
    model = vlc.Model.from_checkpoint(f"{tuned['log_dir']}/checkpoints/last.ckpt", num_gpus=0, per_gpu_batchsize=2)
    image = np.zeros((40, 40, 3), np.uint8)
    assert np.isfinite(model.score(image, ["a dog", "a cat"])).all()
    (head, *_) = explainable(model)
    found = explain(model, head, Request([tiny.image_bytes(kind="PNG")], "a dog"), "relevance")
    (sequence,) = found.sequences
    assert len(sequence.names) == sequence.attention.shape[-1]
    assert sequence.segments.count("registers") == ENCODERS["of_family"].registers


@pytest.mark.parametrize("family", ["dinov3_vit_base_patch16", "siglip_vit_base_patch16", "clip_vit_base_patch16"])
def test_images_are_classified(family):
    module = classifier(tiny.of_family(family), 32, 5).train()
    logits_of(module, torch.randn(2, 3, 32, 32)).square().sum().backward()
    unread = {name for name, parameter in module.named_parameters() if parameter.grad is None}
    hidden = {"encoder.cls_token"} & unread
    assert unread == hidden, "all but a class token that nothing reads is trained"
