"""Explanations: they record what the fused passes compute, and find what an answer depends on."""

from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from vlc.common.errors import UserError
from vlc.training.run import run
from vlc.use.explain import METHODS, explain
from vlc.use.explain.asked import Asked, ask
from vlc.use.explain.integration import integrated_gradients
from vlc.use.explain.methods import relevance
from vlc.use.forms import Request
from vlc.use.model import Model

TASKS = ["vqa", "nlvr2", "visdial", "refcoco"]
IMAGES = [tiny.image_bytes(number, kind="PNG") for number in range(2)]
REQUESTS = {
    "vqa": Request(IMAGES[:1], "what is a dog"),
    "nlvr2": Request(IMAGES, "two dogs"),
    "visdial": Request(IMAGES[:1], "is it", options=["yes", "no", "a dog"], history=[("what", "a dog")]),
    "refer": Request(IMAGES[:1], "the dog", boxes=[(0, 0, 20, 20), (10, 5, 30, 30)]),
}


@pytest.fixture(scope="module")
def model(arrows, tmp_path_factory) -> Model:
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("log")), "vit": "mae_vit_tiny_patch16"}
    sizes = {f"{name}.batch_size": 4 for name in TASKS}
    log_dir = run(tiny.settings("task_12in1", tasks=TASKS, **sizes, **{"clean.exclude": "none"}, **options))["log_dir"]
    return Model.from_checkpoint(f"{log_dir}/checkpoints/last.ckpt", num_gpus=0)


def _asked(model: Model, head: str) -> Asked:
    form, prepared = model.forms[head], model.prepare(head, REQUESTS[head])
    with torch.enable_grad():
        return ask(model, head, lambda count: form.batch(model, model.module.objectives[head], [prepared] * count), 0)


@pytest.mark.parametrize("head", REQUESTS)
def test_a_recorded_pass_is_the_fused_one(model, head):
    prepared = model.prepare(head, REQUESTS[head])
    batch = model.forms[head].batch(model, model.module.objectives[head], [prepared])
    with torch.inference_mode():
        logits = model.outcomes([head], batch)[head].logits
    asked = _asked(model, head)
    assert asked.value.item() == pytest.approx(logits.max().item(), abs=1e-5)
    for sequence in explain(model, head, REQUESTS[head], "attention").sequences:
        layers, heads, length, _ = sequence.attention.shape
        assert (layers, heads, length) == (4, 4, len(sequence.names))
        assert sequence.attention.astype(np.float32).sum(-1) == pytest.approx(1, abs=5e-3)
    assert not any(block._forward_pre_hooks for block in model.module.encoder.blocks)
    assert not model.module.encoder.norm._forward_hooks


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head", ["nlvr2", "visdial", "refer"])
def test_every_method_explains_every_head(model, head, method):
    first, again = (explain(model, head, REQUESTS[head], method) for _ in range(2))
    assert len(first.maps) == len(REQUESTS[head].images)
    assert first.grid == (2, 2)
    assert len(first.tokens) == len(first.words)
    assert first.per_word is not None
    assert first.per_word.shape == (len(first.tokens), 2, 2)
    assert np.array_equal(first.image, again.image)
    assert np.isfinite(first.image).all()
    if head == "refer":
        assert first.answer in ("[0, 0, 20, 20]", "[10, 5, 30, 30]")


@pytest.mark.parametrize("method", METHODS)
def test_a_text_without_pieces_leaves_the_image_to_explain(model, method):
    found = explain(model, "vqa", replace(REQUESTS["vqa"], text="\0"), method)
    assert found.tokens == []
    assert np.isfinite(found.image).all()


@pytest.mark.parametrize("head", ["nlvr2", "refer"])
def test_integrated_gradients_add_up_to_the_difference(model, head):
    asked = _asked(model, head)
    blank = [one.entering[0] for one in asked.blank_passes()]
    with torch.no_grad():
        difference = (asked.value - asked.values(blank, 1)[0]).item()
    total = sum(own.sum().item() for own in integrated_gradients(asked, 64))
    assert total == pytest.approx(difference, abs=1e-3 + 0.01 * abs(difference))


def test_relevance_of_one_block_is_the_rule_by_hand():
    weights = torch.tensor([[[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]]], requires_grad=True)
    slopes = torch.tensor([[[[2.0, -1.0], [0, 0]], [[1.0, 3.0], [0, 0]]]])
    value = (weights * slopes).sum()
    asked = SimpleNamespace(
        value=value,
        rows=[0],
        passes=[SimpleNamespace(attention=(weights,), states=torch.zeros(1, 2, 3))],
        gradients=lambda tensors: torch.autograd.grad(value, tensors),
        attention=lambda number: [weights[0]],
        reading=lambda number: torch.tensor([1.0, 0.0]),
    )
    ((answer, between),) = relevance(asked)
    # The mean over the heads of 0.5 * 2 and 0.9 * 1, and of 0 and 0.1 * 3; 1 for the token itself.
    assert answer.tolist() == pytest.approx([1 + 0.95, 0.15])
    assert between[1].tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "relevance"])
def test_the_only_patch_that_matters_is_found(model, method):
    """Without attention each token stays alone, and the score of a box over one patch depends on this patch most."""
    planted = replace(model, module=deepcopy(model.module))
    for block in planted.module.encoder.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    (width, height), patch = Image.open(BytesIO(IMAGES[0])).size, (1, 0)
    box = (patch[1] * width / 2, patch[0] * height / 2, (patch[1] + 1) * width / 2, (patch[0] + 1) * height / 2)
    found = explain(planted, "refer", Request(IMAGES[:1], "the dog", boxes=[box]), method)
    assert np.unravel_index(np.abs(found.image).argmax(), found.grid) == patch


def test_wrong_requests_name_the_cure(model):
    with pytest.raises(UserError, match="pass one of occlusion"):
        explain(model, "vqa", REQUESTS["vqa"], "magic")
    with pytest.raises(UserError, match="these can: vqa"):
        explain(model, "itm", REQUESTS["vqa"])
    with pytest.raises(UserError, match="choice=9"):
        explain(model, "vqa", REQUESTS["vqa"], choice=9)
    with pytest.raises(UserError, match="head=NAME is missing"):
        model.explain(IMAGES[0], "a dog")
    assert model.explain(IMAGES[0], "a dog", head="vqa", method="rollout").head == "vqa"


def test_an_overlay_colours_the_relevant_patch(model):
    found = explain(model, "vqa", REQUESTS["vqa"], "rollout")
    picture = Image.new("RGB", (64, 64), "white")
    values = np.array([[0, 0], [0, 1]], dtype=np.float32)
    over = np.asarray(found.overlay(picture, values)).astype(int)
    assert over.shape == (64, 64, 3)
    assert (over[:8, :8] == 255).all()
    assert (over[8:] < 255).any()
