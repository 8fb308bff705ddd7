"""The parts that families of ViTs have beside MAE's: every path through the encoder gives the same."""

import pytest
import torch

from tests import tiny
from vlc.common.inputs import Text
from vlc.model.decoding import Continuation
from vlc.model.encoder import Encoder

FAMILIES = (
    "dinov2_vit_base_patch14_reg",
    "clip_vit_base_patch16",
    "siglip_vit_base_patch16",
    "eva02_clip_vit_base_patch16",
    "eva02_vit_small_patch14",
    "dinov3_vit_small_plus_patch16",
    "beit3_vit_base_patch16",
)


@pytest.fixture(params=FAMILIES)
def encoder(request) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny.of_family(request.param, patch_size=16), 48, vocab_size=20, max_text_len=12).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return encoder


def _inputs(lengths: tuple[int, ...] = (5, 2, 4)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(3, 20, mask.shape) * mask, mask, torch.randn(len(lengths), 3, 48, 48)


def test_packed_masked_and_alone_are_equal(encoder):
    ids, mask, images = _inputs()
    with torch.no_grad():
        masked = encoder(ids, mask, images)
        packed = encoder.train()(ids, mask, images)
        encoder.eval()
        pooled = encoder.encode([encoder.embed_text(Text(ids, mask)), encoder.embed_images(images)], pooled_only=True)
        alone = encoder(ids[1:2, :2], mask[1:2, :2], images[1:2])
    for other, rows in ((packed, slice(None)), (alone, slice(1, 2))):
        torch.testing.assert_close(other.pooled, masked.pooled[rows], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other["image"], masked["image"][rows], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled.pooled, masked.pooled, atol=1e-5, rtol=1e-5)
    assert [segment.name for segment in masked.segments] == ["text", "image"]
    assert masked["image"].shape == (3, 1 + 9, 48)


def test_dropped_patches_keep_their_places(encoder):
    """Patches that are dropped by noise, and others that are not there, give the same."""
    images, noise = torch.randn(1, 3, 48, 48), torch.tensor([[0, 9, 1, 8, 2, 7, 3, 6, 4]]) / 10
    with torch.no_grad():
        segment = encoder.embed_images(images, mask_ratio=0.5, noise=noise)
        order = segment.patch_indices[0]
        tokens = encoder.encode([segment])["image"]
        turned = encoder.embed_images(images, mask_ratio=0.5, noise=noise.flip(1))
    assert order.tolist() == [0, 2, 4, 6]
    assert tokens.shape == (1, 5, 48)
    assert turned.patch_indices[0].tolist() == [8, 6, 4, 2]


def test_cached_states_equal_those_of_a_whole_pass(encoder):
    ids, mask, images = _inputs()
    target, ends = torch.randint(3, 20, (3, 4)), mask.sum(1)
    positions = ends[:, None] + torch.arange(4)
    behind = Text(target, torch.ones_like(target), None, torch.ones_like(target), positions=positions, causal=True)
    with torch.inference_mode():
        prefix = [encoder.embed_text(Text(ids, mask), "source"), encoder.embed_images(images)]
        whole = encoder.encode([*prefix, encoder.embed_text(behind, "target")])["target"]
        cached = Continuation(encoder, prefix, ends)
        for place in range(4):
            state = cached.step(target[:, place], torch.arange(3))
            torch.testing.assert_close(state, whole[:, place], atol=1e-5, rtol=0)


def test_no_token_reads_a_hidden_class_token():
    torch.manual_seed(0)
    encoder = Encoder(tiny.of_family("siglip_vit_base_patch16"), 48, vocab_size=20, max_text_len=12).eval()
    ids, mask, images = _inputs()
    with torch.no_grad():
        before = encoder(ids, mask, images)
        encoder.cls_token += torch.randn(48)
        after = encoder(ids, mask, images)
    torch.testing.assert_close(after["image"][:, 1:], before["image"][:, 1:], atol=0, rtol=0)
    torch.testing.assert_close(after["text"], before["text"], atol=0, rtol=0)
    assert (after["image"][:, 0] - before["image"][:, 0]).abs().max() > 1e-3


def test_rotation_depends_on_distances_alone_and_leaves_words():
    """The attention of two patches stays where both move by one column, as EVA-02's angles are linear."""
    encoder = Encoder(tiny.of_family("eva02_vit_base_patch14"), 56, vocab_size=20, max_text_len=12)
    segments = [
        encoder.embed_text(Text(torch.ones(1, 3).long(), torch.ones(1, 3))),
        encoder.embed_images(torch.zeros(1, 3, 56, 56)),
    ]
    rotation = encoder.rotation(segments)
    sines, cosines = rotation[0].chunk(2, dim=-1)
    assert not sines[:4].any()
    assert torch.equal(cosines[:4], torch.ones(4, 12))
    angles = torch.atan2(sines[4:], cosines[4:]).unflatten(0, (4, 4))
    turns = (angles[:, 1:] - angles[:, :-1]).remainder(2 * torch.pi)
    torch.testing.assert_close(turns[:, 1:], turns[:, :-1], atol=1e-4, rtol=0)


def test_half_precision_is_near(encoder):
    inputs = _inputs()
    with torch.no_grad():
        whole = encoder(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = encoder(*inputs)
    assert (half["image"] - whole["image"]).abs().mean() < 0.02
