"""The training step as a whole."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import golden_models
from vlc.common.inputs import Images, mapped
from vlc.configuration.recipes import loss_weights
from vlc.model import encoder, patterns
from vlc.objectives import itm
from vlc.objectives.itm import ITM
from vlc.objectives.mlm import MLM


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


@pytest.mark.parametrize(("mlm", "itm", "expected"), [(None, None, None), (None, 0, 0), (5, 3, 5)])
def test_the_encoder_has_box_tokens_where_an_objective_reads_them(monkeypatch, mlm, itm, expected):
    for kind, number in ((MLM, mlm), (ITM, itm)):
        monkeypatch.setattr(kind, "num_box_tags", classmethod(lambda cls, options, number=number: number))
    settings = golden_models.model_settings(loss_names=loss_weights(mlm=1, itm=1))
    regions = golden_models.build_module(settings, 64, 12).encoder.regions
    assert (regions is None) == (expected is None)
    if regions is not None:
        assert (regions.links.embedding.num_embeddings if regions.links else 0) == expected


def test_tensors_without_values_cannot_be_read():
    for read in (torch.Tensor.item, torch.Tensor.nonzero, bool):
        with pytest.raises(RuntimeError):
            read(torch.ones((), device="meta"))


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_a_gpus_step_needs_no_value_on_the_host(golden, name, monkeypatch):
    """On tensors without values: shapes and types of the packed path with torch's own attention, and no waiting."""
    calls = []

    def varlen_attn(*arguments):
        calls.append(arguments)
        return torch.nn.attention.varlen.varlen_attn(*arguments)

    monkeypatch.setattr(patterns, "varlen_attn", varlen_attn)
    monkeypatch.setattr(encoder, "has_flash_attention", lambda device: True)
    monkeypatch.setattr(itm.torch, "autocast", lambda *_, **__: nullcontext())  # which does not know this device
    case = golden_models.load(golden, name)
    module, batch = case.module.train().to("meta").bfloat16(), case.batch.to("meta")
    batch = mapped(batch, Images, lambda images: replace(images, pixels=images.pixels.bfloat16()))
    loss = module.total_loss(module.outcomes(batch))
    loss.backward()
    assert len(calls) == golden_models.SIZE.depth
    assert {arguments[0].dtype for arguments in calls} == {torch.bfloat16}
