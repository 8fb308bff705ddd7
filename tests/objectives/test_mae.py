"""The masked autoencoder, alone and in parts, against the published one."""

import pytest
import torch

from tests import golden_models
from vlc.checkpoint import weights
from vlc.checkpoint.formats import MAE as MAE_LAYOUT
from vlc.common.inputs import Images
from vlc.data.batch import Batch
from vlc.objectives.mae import patchify, reconstruction_loss, unpatchify


@pytest.fixture(scope="module")
def case(golden):
    return torch.load(golden / "tiny/mae_only.pt", weights_only=True)


def _batch(inputs) -> Batch:
    images = Images(inputs["imgs"][:, None])
    return Batch(index=torch.arange(2), split="val", images=images, parts={"patch_noise_0": inputs["noise"]})


def test_patches_and_their_inverse(case):
    images = case["case"]["imgs"]
    assert torch.equal(patchify(images, 16), case["case"]["patches"])
    assert torch.equal(unpatchify(case["case"]["patches"], 16), images)


def test_plain_masked_autoencoding(case, tmp_path):
    """Image alone, ratio 0.75: no text, no token type."""
    path, inputs = tmp_path / "mae.pth", case["case"]
    torch.save({"model": case["model"]}, path)
    losses = dict.fromkeys(golden_models.OBJECTIVE_NAMES, 0) | {"mae": 1}
    module = golden_models.build_module(golden_models.model_settings(loss_names=losses, mask_ratio=0.75))
    report = weights.load(module, weights.read(path))
    assert report.layout == MAE_LAYOUT.name
    assert all(name.startswith(("encoder.text", "encoder.token", "encoder.pooler")) for name in report.new)
    batch = _batch(inputs)
    outcome = module.outcomes(batch)["mae"]
    torch.testing.assert_close(outcome.logits, inputs["pred"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outcome.loss, inputs["loss_norm_pix_True"], atol=1e-5, rtol=1e-4)
    plain = reconstruction_loss(inputs["pred"], inputs["patches"], inputs["mask"], normalize=False)
    torch.testing.assert_close(plain, inputs["loss_norm_pix_False"], atol=1e-5, rtol=1e-4)


def test_mae_weight_scales_the_loss(case):
    losses = dict.fromkeys(golden_models.OBJECTIVE_NAMES, 0) | {"mae": 1}
    inputs = case["case"]
    batch = _batch(inputs)
    values = []
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        settings = golden_models.model_settings(loss_names=losses, mask_ratio=0.75, mae_weight=weight)
        module = golden_models.build_module(settings)
        values.append(module.total_loss(module.outcomes(batch)).item())
    assert values[1] == pytest.approx(3 * values[0])
