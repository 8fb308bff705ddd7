"""Task tokens: what they are, where they stand, and which passes have one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny import SMALL
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.model.encoder import Encoder
from vlc.model.passes import Pass, encode_passes
from vlc.model.segments import Segment, TokenSequence
from vlc.model.sizes import EncoderConfig

CANDIDATES = Pass(("candidate_texts", "image"), pooled_only=True)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(SMALL, 32, vocab_size=50, max_text_len=8, task_tokens=("first", "second")).eval()
    torch.nn.init.normal_(encoder.token_types.weight)
    torch.nn.init.normal_(encoder.task_tokens.weight)
    return encoder


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([[6], [4], [2]])).long()
    text = Text(torch.randint(5, 50, (3, 6), generator=generator) * mask, mask, num_real=12)
    wrong = torch.randint(5, 50, (6, 6), generator=generator)
    images = Images(torch.rand(3, 1, 3, 32, 32, generator=generator))
    parts = {"wrong_texts": Text(wrong, torch.ones_like(wrong), num_real=36)}
    return Batch(index=torch.arange(3), split="val", task="first", images=images, text=text, parts=parts)


@torch.no_grad()
def test_published_embeddings(golden):
    stored = {
        name: torch.from_numpy(value) for name, value in np.load(golden / "tasks/task_tokens/embeddings.npz").items()
    }
    weights = {name.removeprefix("w."): value for name, value in stored.items() if name.startswith("w.")}
    table = weights.pop("task_embeddings.weight")
    names = [str(number) for number in range(len(table))]
    encoder = Encoder(EncoderConfig(16, 1, 2, 16), 32, vocab_size=50, max_text_len=12, task_tokens=names).eval()
    encoder.text_embeddings.load_state_dict(weights)
    encoder.task_tokens.load_state_dict({"weight": table})
    encoder.token_types.weight.zero_()  # which the published model does not have
    words = encoder.embed_words(stored["input_ids"], stored["token_type_ids"])
    tokens = torch.cat([encoder.embed_task(str(number.item()), 1).tokens for number in stored["task_ids"]])
    sequence = TokenSequence.of([Segment("text", words, stored["attention_mask"]), Segment("task", tokens)])
    order = [0, 6, 1, 2, 3, 4, 5]  # theirs stands behind [CLS]
    torch.testing.assert_close(sequence.tokens[:, order], stored["embeddings"], atol=1e-6, rtol=0)
    assert torch.equal(sequence.mask[:, order], stored["extended_mask"].bool())


@torch.no_grad()
@pytest.mark.parametrize("pooled_only", [False, True])
def test_the_token_stands_behind_cls_and_moves_no_position(encoder, batch, pooled_only):
    text, image = encoder.embed_text(batch.text), encoder.embed_images(batch.images.pixels[:, 0])
    encoded = encoder.encode([text, image], pooled_only=pooled_only, task="second")
    vector, plain = encoder.embed_task("second", 3).tokens, encoder.task_tokens
    inserted = torch.cat([text.tokens[:, :1], vector, text.tokens[:, 1:]], dim=1)
    sequence = TokenSequence.of([text, encoder.embed_task("second", 3), image])
    assert sequence.num_real == sequence.mask.sum(), "which packing on a GPU relies on"
    longer = Segment("text", inserted, torch.cat([batch.text.mask[:, :1], batch.text.mask], dim=1))
    encoder.task_tokens = None
    expected = encoder.encode([longer, image])
    encoder.task_tokens = plain
    torch.testing.assert_close(encoded.pooled, expected.pooled, atol=1e-6, rtol=1e-5)
    if not pooled_only:
        assert [segment.name for segment in encoded.segments] == ["text", "image"]
        torch.testing.assert_close(encoded["text"], expected["text"][:, [0, 2, 3, 4, 5, 6]], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(encoded["image"], expected["image"], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_targets_see_the_token_too(encoder, batch):
    text, starts = encoder.embed_text(batch.text), torch.ones(3, 6, dtype=torch.int64)
    target = replace(encoder.embed_text(batch.text, "target"), mask=None, starts_group=starts)
    first, second = (encoder.encode([text, target], task=task)["target"] for task in ("first", "second"))
    assert not torch.isclose(first, second, atol=1e-3).all(-1).any()


@torch.no_grad()
@pytest.mark.parametrize("one", [Pass(), Pass(pooled_only=True), Pass(("text",), pooled_only=True), CANDIDATES])
def test_passes_with_texts_differ_by_the_task(encoder, batch, one):
    first, second = (
        encode_passes(encoder, replace(batch, task=task), [one])[one].pooled for task in ("first", "second")
    )
    assert not torch.isclose(first, second, atol=1e-3).all(-1).any()


@torch.no_grad()
def test_images_alone_have_no_token(encoder, batch):
    image = Pass(("image",))
    first, second = (encode_passes(encoder, replace(batch, task=task), [image])[image] for task in ("first", ""))
    assert torch.equal(first.pooled, second.pooled)
    assert [segment.name for segment in first.segments] == ["image"]


@torch.no_grad()
def test_each_of_many_texts_of_an_image_has_the_token(encoder, batch):
    candidates = encode_passes(encoder, batch, [CANDIDATES])[CANDIDATES].pooled
    own = encode_passes(encoder, batch, [Pass()])[Pass()].pooled
    torch.testing.assert_close(candidates.unflatten(0, (3, 3))[:, 0], own, atol=1e-6, rtol=1e-5)


def test_packed_training_computes_the_same_and_trains_the_row_of_the_task(encoder, batch):
    encoder.text_embeddings.dropout.p = 0.0
    found = []
    for training in (False, True):
        encoder.train(training)
        pooled = encode_passes(encoder, batch, [Pass()])[Pass()].pooled
        found.append((pooled, torch.autograd.grad(pooled.sum(), encoder.task_tokens.weight)[0]))
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)
    _, gradient = found[0]
    assert gradient[0].abs().max() > 0
    assert not gradient[1].any()


def test_a_text_without_a_known_task_is_an_error(encoder, batch):
    with pytest.raises(ValueError, match="task '' has no token; the tasks first, second have one"):
        encode_passes(encoder, replace(batch, task=""), [Pass()])
