"""The published models, run on the published batches: features, logits, losses, metrics and gradients."""

import json

import pytest
import torch

from tests import golden_models
from tests.model.spans import pack_as_gpus
from vlc.checkpoint.formats import VLC_RELEASE
from vlc.model.passes import Pass, encode_passes
from vlc.objectives.base import accuracy

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module", params=golden_models.NAMES)
def case(request, golden):
    return request.param, golden_models.load(golden, request.param)


def test_every_weight_is_loaded(case):
    name, golden = case
    assert not golden.report.new
    assert not golden.report.resized
    if name == "pretrain":
        assert golden.report.dropped == ["text_embeddings.position_ids"]


def test_features(case):
    name, golden = case
    ratio, expected, seen = golden.module.settings.dropped_ratio, golden.expected, 0
    passes = {
        "mlm.": Pass(("masked_text", "image"), patch_noise=0),
        "vqa.": Pass(),
        "itm.": Pass(("text", "matched_images"), patch_noise=1),
        "infer1.": Pass(("text", "image")),
        "infer2.": Pass(("text", "image_1")),
    }
    for prefix, one in passes.items():
        if f"{prefix}text_feats" not in golden.expected:
            continue
        encoded = encode_passes(golden.module.encoder, golden.batch, [one], ratio)[one]
        text, image = one.segments
        torch.testing.assert_close(encoded[text], expected[f"{prefix}text_feats"], **CLOSE)
        torch.testing.assert_close(encoded[image], expected[f"{prefix}image_feats"], **CLOSE)
        torch.testing.assert_close(encoded.pooled, expected[f"{prefix}cls_feats"], **CLOSE)
        torch.testing.assert_close(encoded[text][:, 0], expected[f"{prefix}raw_cls_feats"], **CLOSE)
        if encoded.patches is not None:
            assert torch.equal(encoded.patches.dropped, expected[f"{prefix}mae_mask"])
            assert torch.equal(encoded.patches.restore, expected[f"{prefix}mae_ids_restore"])
        seen += 1
    assert seen == {"pretrain": 2, "nlvr2": 2, "irtr": 0}.get(name, 1)


def test_logits_and_losses(case):
    _, golden = case
    outcomes, expected = golden.module.outcomes(golden.batch), golden.expected
    torch.testing.assert_close(golden.module.total_loss(outcomes), expected["total_loss"], **CLOSE)
    if "mlm" in outcomes:
        positions = golden.batch.parts["masked_text"].positions
        assert torch.equal(golden.batch.parts["masked_text"].labels, expected["mlm_labels"].flatten()[positions])
        logits = expected["mlm_logits"].flatten(0, 1)[positions]
        torch.testing.assert_close(outcomes["mlm"].logits, logits, **CLOSE)
        torch.testing.assert_close(outcomes["mlm"].loss, expected["mlm_loss"], **CLOSE)
    if "itm" in outcomes:
        torch.testing.assert_close(outcomes["itm"].logits, expected["itm_logits"], **CLOSE)
        torch.testing.assert_close(outcomes["itm"].loss, expected["itm_loss"] + expected["itm_wpa_loss"], **CLOSE)
    if "mae" in outcomes:
        torch.testing.assert_close(outcomes["mae"].logits, expected["mlm.mae_pred"], **CLOSE)
        torch.testing.assert_close(outcomes["mae"].loss, expected["mae_loss"], **CLOSE)
    if "nlvr2" in outcomes:
        torch.testing.assert_close(outcomes["nlvr2"].logits, expected["nlvr2_logits"], **CLOSE)
        torch.testing.assert_close(outcomes["nlvr2"].loss, expected["nlvr2_loss"], **CLOSE)
    if "irtr" in outcomes:
        torch.testing.assert_close(outcomes["irtr"].logits, expected["irtr_scores"], **CLOSE)
        torch.testing.assert_close(outcomes["irtr"].loss, expected["irtr_loss"], **CLOSE)
    if "vqa" in outcomes:
        torch.testing.assert_close(outcomes["vqa"].logits, expected["vqa_logits"], **CLOSE)
        torch.testing.assert_close(outcomes["vqa"].loss, expected["vqa_loss"], **CLOSE)


@pytest.mark.parametrize("case", ["pretrain", "vqa", "nlvr2", "irtr"], indirect=True)  # whose gradients are stored
@pytest.mark.parametrize("packs", ["not", "on_host", "as_on_gpus"])
def test_gradients(case, packs, monkeypatch):
    _, golden = case
    if packs == "as_on_gpus":
        pack_as_gpus(monkeypatch)
    golden.module.train(packs != "not").zero_grad()
    golden.module.total_loss(golden.module.outcomes(golden.batch)).backward()
    golden.module.eval()
    norms, compared = golden.expected["grad_norms"], 0
    for ours, parameter in golden.module.named_parameters():
        theirs = VLC_RELEASE.theirs(ours)
        torch.testing.assert_close(parameter.grad.norm().item(), norms[theirs], rtol=1e-4, atol=1e-6)
        if f"grad.{theirs}" in golden.expected:
            torch.testing.assert_close(parameter.grad, golden.expected[f"grad.{theirs}"], rtol=1e-4, atol=1e-6)
            compared += 1
    assert compared >= 6
    assert compared == sum(key.startswith("grad.") for key in golden.expected)
    words = golden.module.encoder.text_embeddings.word_embeddings.weight
    assert not words.grad[0].any(), "the padding row learns nothing"


# The batch of nlvr2 mixes two splits, and irtr's metric has another name: see the tests below, and the losses.
@pytest.mark.parametrize("case", [name for name in golden_models.NAMES if name not in ("nlvr2", "irtr")], indirect=True)
def test_validation_metrics(case, golden):
    name, model = case
    expected = json.loads((golden / "tiny/val_metrics.json").read_text())[name]["epoch"]
    model.module._evaluate(model.batch)
    values = model.module._computed_ratios()
    named = {key.removesuffix("_epoch"): value for key, value in expected.items()}
    the_metric = named.pop("val/the_metric")
    assert {key: pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in named.items()} == {
        key: float(value) for key, value in values.items()
    }
    assert float(model.module.the_metric(values)) == pytest.approx(the_metric, rel=1e-4)


def test_nlvr2_metrics(golden):
    expected = json.loads((golden / "tiny/val_metrics.json").read_text())["nlvr2"]["epoch"]
    model = golden_models.load(golden, "nlvr2")
    logits, truth = model.module.outcomes(model.batch)["nlvr2"].logits, model.batch.parts["truth"]
    for split, rows in (("dev", slice(0, 2)), ("test", slice(2, 4))):  # the published code calls test1 "test"
        total, count = accuracy(logits[rows], truth[rows])
        assert float(total) / count == pytest.approx(expected[f"nlvr2/{split}/accuracy_epoch"])
