"""The classifier against timm's ViT and MAE's parameter groups, and its checkpoints."""

from unittest.mock import patch

import pytest
import timm
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from timm.optim import param_groups_layer_decay

import main_finetune
from tests import tiny
from vlc.checkpoint import weights
from vlc.common.inputs import Images
from vlc.data.batch import Batch
from vlc.model.passes import encode_passes
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.training.module import VLCModule
from vlc.training.optim import POSITIONS

HEAD = "classes"


def classifier(
    size: EncoderConfig, image_size: int, num_classes: int, global_pool: bool = True, *words: str
) -> VLCModule:
    """The module of main_finetune.py."""
    words = [*words] if global_pool else [*words, "--cls_token"]
    words += ["--model", "vit_tiny_patch16", "--input_size", str(image_size), "--nb_classes", str(num_classes)]
    with patch.dict(ENCODERS, {"mae_vit_tiny_patch16": size}):
        settings = main_finetune.translated(main_finetune.parser().parse_args(words), LightningEnvironment())
        options = {"optim": settings.optim, "splits": {"image_classification": ("val",)}}
        return VLCModule(settings.model, settings.tasks, image_size=image_size, max_text_len=1, vocab_size=1, **options)


def logits_of(module: VLCModule, images: torch.Tensor) -> torch.Tensor:
    """Logits (B, C) of normalised images (B, 3, H, W)."""
    batch = Batch(index=torch.arange(len(images)), split="val", images=Images(images[:, None]))
    head = module.objectives[HEAD]
    return head(encode_passes(module.encoder, batch, head.passes(batch)), batch).logits


@pytest.fixture(scope="module", params=[True, False], ids=["global_pool", "class_token"])
def pair(request, tmp_path_factory):
    """timm's MAE ViT-B with random weights, ours with the same ones read from its file, and the file's report."""
    pool = "avg" if request.param else "token"
    torch.manual_seed(0)
    theirs = timm.create_model("vit_base_patch16_224.mae", num_classes=7, global_pool=pool).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp("timm") / "vit.pth"
    torch.save({"model": theirs.state_dict()}, path)
    ours = classifier(ENCODERS["mae_vit_base_patch16"], 224, 7, global_pool=request.param).eval()
    report = weights.load(ours, weights.read(path), complete=True)
    return theirs, ours, report


@torch.no_grad()
def test_logits_are_timms(pair):
    theirs, ours, report = pair
    assert not report.new
    assert not report.dropped
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(logits_of(ours, images), theirs(images), rtol=0, atol=1e-4)


def test_layers_and_decay_are_timms(pair):
    """But for the norm before the class token: timm counts it to the last block, MAE (and so we) to the head."""
    theirs, ours, _ = pair
    for decay in (0.65, 0.75):
        groups = {}
        for model, prefixes in ((theirs, ("",)), (ours, ("encoder.", "objectives.classes."))):
            made = param_groups_layer_decay(model, 0.05, (*POSITIONS, "pos_embed", "cls_token"), layer_decay=decay)
            names = {parameter: name for name, parameter in model.named_parameters()}
            for group in made:
                for parameter in group["params"]:
                    name = names[parameter]
                    for prefix in prefixes:
                        name = name.removeprefix(prefix)
                    name = (
                        "fc_norm" + name[4:]
                        if model is ours and ours.objectives[HEAD].options.global_pool and name[:5] == "norm."
                        else name
                    )
                    groups.setdefault(name, []).append((group["lr_scale"], group["weight_decay"]))
        groups.pop("norm.weight", None), groups.pop("norm.bias", None)
        assert all(len(entry) == 2 and entry[0] == pytest.approx(entry[1]) for entry in groups.values())


def test_rates_fall_by_layer_as_maes():
    """MAE: decay ** (depth + 1 - layer), with the embeddings as layer 0, block i as i + 1, norm and head as the last."""
    model = classifier(tiny.SMALL, 32, 3)
    groups = param_groups_layer_decay(model, 0.05, POSITIONS, layer_decay=0.5)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[p]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert set(found) == set(dict(model.named_parameters()))
    assert found["encoder.pos_embed"] == found["encoder.cls_token"] == (0.125, 0)
    assert found["encoder.patch_embed.proj.weight"] == (0.125, 0.05)
    assert found["encoder.blocks.0.attn.qkv.weight"] == (0.25, 0.05)
    assert found["encoder.blocks.1.mlp.fc2.bias"] == (0.5, 0)
    assert found["objectives.classes.norm.weight"] == (1, 0)
    assert found["objectives.classes.head.weight"] == (1, 0.05)


def test_every_parameter_gets_a_gradient():
    """DDP waits for all of them."""
    for pool in (True, False):
        model = classifier(tiny.SMALL, 32, 3, global_pool=pool)
        torch.nn.init.normal_(model.objectives["classes"].head.weight)
        logits_of(model, torch.randn(2, 3, 32, 32)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_first_logits_are_almost_equal():
    logits = logits_of(classifier(tiny.SMALL, 32, 5), torch.randn(2, 3, 32, 32))
    assert logits.abs().max() < 1e-3


def test_exported_classifier_is_read_by_timm(tmp_path):
    ours = classifier(tiny.SMALL, 32, 5).eval()
    torch.save({"state_dict": ours.state_dict()}, tmp_path / "ours.ckpt")
    assert weights.export(weights.read(tmp_path / "ours.ckpt"), tmp_path / "mae.pth", "mae") == []
    size = tiny.SMALL
    theirs = timm.models.VisionTransformer(
        32, 16, embed_dim=size.width, depth=size.depth, num_heads=size.heads, num_classes=5, global_pool="avg"
    ).eval()
    theirs.load_state_dict(torch.load(tmp_path / "mae.pth", weights_only=True)["model"])
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(logits_of(ours, images), theirs(images), rtol=0, atol=1e-5)
