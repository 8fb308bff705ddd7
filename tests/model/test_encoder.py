"""The single-stream encoder."""

from dataclasses import replace

import pytest
import timm
import torch

from tests.tiny import SMALL
from vlc.common.inputs import Text
from vlc.hardware.onednn import use_onednn
from vlc.model.encoder import Encoder
from vlc.model.sizes import ENCODERS


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SMALL, 32, vocab_size=50, max_text_len=8, num_image_types=2).eval()


def _text(length: int = 6):
    ids = torch.randint(5, 50, (3, length))
    mask = (torch.arange(length) < torch.tensor([[length], [4], [2]])).long()
    return ids * mask, mask


def test_padding_changes_nothing(encoder):
    ids, mask = _text()
    images = torch.randn(3, 3, 32, 32)
    short = encoder(ids, mask, images)
    padding = torch.zeros(3, 2, dtype=torch.long)
    long = encoder(torch.cat([ids, padding], 1), torch.cat([mask, padding], 1), images)
    torch.testing.assert_close(long.pooled, short.pooled, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(long["image"], short["image"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(long["text"][:, :6][mask.bool()], short["text"][mask.bool()], atol=1e-6, rtol=1e-5)


def test_shapes_and_dropping(encoder):
    ids, mask = _text()
    encoded = encoder(ids, mask, torch.randn(3, 3, 32, 32), mask_ratio=0.5, noise=torch.rand(3, 4))
    assert encoded["text"].shape == (3, 6, 32)
    assert encoded["image"].shape == (3, 1 + 2, 32)
    assert encoded.grid == (2, 2)
    assert torch.equal(encoded.segment("image").patch_indices, encoded.patches.kept)
    assert encoded.pooled.shape == (3, 32)
    assert encoded.patches.dropped.sum(1).tolist() == [2, 2, 2]


def test_second_image_has_a_type_of_its_own_that_starts_as_the_first(encoder):
    images = torch.randn(3, 3, 32, 32)
    first, second = (encoder.embed_images(images, image_type=number).tokens for number in (1, 2))
    assert torch.equal(first, second)
    with torch.no_grad():
        encoder.token_types.weight[2] += 1
    assert not torch.equal(first, encoder.embed_images(images, image_type=2).tokens)


def test_image_size_must_fit_the_patches():
    with pytest.raises(ValueError, match="multiple of the patch size"):
        Encoder(SMALL, 40, vocab_size=50, max_text_len=8)


def test_image_alone_is_timms_mae_vit():
    size = ENCODERS["mae_vit_base_patch16"]
    torch.manual_seed(0)
    theirs = timm.create_model("vit_base_patch16_224.mae", pretrained=False, img_size=64).eval()
    ours = Encoder(size, 64, vocab_size=10, max_text_len=8).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith(("fc_norm", "head"))}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith(("text_embeddings", "token_types", "pooler")) for key in missing)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoded = ours.encode([ours.embed_images(images, image_type=None)])
        torch.testing.assert_close(encoded["image"], theirs.forward_features(images), atol=1e-4, rtol=1e-4)


def test_published_sizes():
    parameters = {name: (size.width, size.depth, size.heads) for name, size in ENCODERS.items()}
    assert parameters["mae_vit_base_patch16"] == (768, 12, 12)
    assert parameters["mae_vit_large_patch16"] == (1024, 24, 16)
    assert parameters["mae_vit_huge_patch14"] == (1280, 32, 16)
    assert ENCODERS["mae_vit_huge_patch14"].patch_size == 14


def _whole(encoder: Encoder, inputs: tuple) -> tuple:
    """Features at real tokens, and the gradients of all parameters."""
    ids, mask, images = inputs
    encoded = encoder(ids, mask, images)
    real, image = encoded["text"][mask.bool()], encoded["image"]
    loss = real.square().mean() + image.square().mean() + encoded.pooled.sum()
    return (real, image, encoded.pooled), torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True)


@pytest.mark.parametrize("fast", ["packed", "checkpointed", "compiled"])
def test_fast_paths_agree_with_the_plain_one(encoder, fast):
    inputs = (*_text(), torch.randn(3, 3, 32, 32))
    expected, gradients = _whole(encoder, inputs)
    encoder._checkpoints = fast == "checkpointed"
    if fast == "compiled":
        encoder.compile_blocks(backend="eager")
    encoder.train(fast != "checkpointed")
    found, others = _whole(encoder, inputs)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(others, gradients, atol=1e-6, rtol=1e-4)


def test_checkpointing_keeps_no_activations(encoder):
    def saved(checkpointing: bool) -> int:
        encoder._checkpoints, sizes = checkpointing, []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t
        ):
            _ = encoder(*_text(), torch.randn(3, 3, 32, 32)).pooled
        return sum(sizes)

    assert saved(True) < saved(False) / 2


def test_pooled_feature_alone_is_that_of_the_whole_pass(encoder):
    ids, mask = _text()
    text, image = encoder.embed_text(Text(ids, mask)), encoder.embed_images(torch.randn(3, 3, 32, 32))
    full = replace(text, mask=torch.ones_like(mask))
    for segments in ([text, image], [text], [image], [full, image]):
        alone, whole = encoder.encode(segments, pooled_only=True), encoder.encode(segments)
        torch.testing.assert_close(alone.pooled, whole.pooled, atol=1e-6, rtol=1e-5)
        assert [segment.name for segment in whole.segments] == [segment.name for segment in segments]


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
def test_packed_weights_give_the_same_features(encoder, half):
    ids, mask = _text()
    text, image = encoder.embed_text(Text(ids, mask)), encoder.embed_images(torch.randn(3, 3, 32, 32))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        plain = [encoder.encode([text, image], pooled_only=pooled_only).pooled for pooled_only in (False, True)]
        use_onednn(encoder)
        packed = [encoder.encode([text, image], pooled_only=pooled_only).pooled for pooled_only in (False, True)]
    assert encoder.blocks[0].mlp.fc1._packed is not None
    close = {"atol": 0.05, "rtol": 0.05} if half else {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(packed, plain, **close)


def test_blocks_are_compiled_few_times(encoder):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    encoder.compile_blocks(backend=counter)
    encoder.train()
    for length in (2, 3, 4, 5, 6, 7, 8, 3):
        ids, mask = _text(length)
        encoder(ids, mask, torch.randn(3, 3, 32, 32)).pooled.sum().backward()
    assert 0 < counter.frame_count <= 3


def test_one_image_is_paired_with_several_texts(encoder):
    ids, mask = _text()
    images = encoder.embed_images(torch.randn(2, 3, 32, 32))
    texts = encoder.embed_text(Text(ids.repeat(2, 1), mask.repeat(2, 1)))
    together = encoder.encode([texts, images])
    for row in range(6):
        alone = encoder.encode(
            [replace(texts, tokens=texts.tokens[[row]], mask=texts.mask[[row]]), images.split(2)[row // 3]]
        )
        torch.testing.assert_close(together.pooled[[row]], alone.pooled, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="text: 6, image: 4"):
        encoder.encode([texts, encoder.embed_images(torch.randn(4, 3, 32, 32))])


@torch.no_grad()
def test_a_target_changes_no_state_of_what_is_before_it(encoder):
    """Image and text see each other; each token of the target sees them, and the target up to itself."""
    ids, mask = _text()
    image, text = encoder.embed_images(torch.randn(3, 3, 32, 32)), encoder.embed_text(Text(ids, mask))
    starts = torch.ones(3, 4, dtype=torch.int64)
    target = replace(encoder.embed_text(Text(ids[:, :4], torch.ones_like(starts)), "target"), starts_group=starts)
    edited = target.tokens.clone()
    edited[:, 2] = torch.randn(3, 32)
    first, second = (encoder.encode([text, image, one]) for one in (target, replace(target, tokens=edited)))
    for name in ("text", "image"):
        assert torch.equal(first[name], second[name])
    assert torch.equal(first["target"][:, :2], second["target"][:, :2])
    assert not torch.isclose(first["target"][:, 2:], second["target"][:, 2:], atol=1e-3).all(-1).any()
    # Without a target the prefix is what it is with one.
    torch.testing.assert_close(encoder.encode([text, image])["image"], first["image"], atol=1e-6, rtol=1e-5)


def test_a_segment_that_is_not_there_is_named(encoder):
    text = encoder.embed_text(Text(*_text()))
    with pytest.raises(KeyError, match="no segment 'image'; it has text"):
        encoder.encode([text])["image"]
    with pytest.raises(KeyError, match="pooled_only"):
        encoder.encode([text], pooled_only=True)["text"]
