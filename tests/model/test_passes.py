"""Passes that objectives declare: what is computed together, and what they get."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests import golden_models, tiny
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.wrong_images import WrongImageChoice
from vlc.model.encoder import Encoder
from vlc.model.passes import Pass, encode_passes
from vlc.model.segments import Encoded

MASKED = Pass(("masked_text", "image"), patch_noise=0)
MATCHED = Pass(("text", "matched_images"), patch_noise=1)
CANDIDATES = Pass(("candidate_texts", "image"), pooled_only=True)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny.SMALL, 32, vocab_size=20, max_text_len=8, num_image_types=2).eval()
    torch.nn.init.normal_(encoder.token_types.weight)
    return encoder


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    plain, hidden, wrong = (torch.randint(5, 20, (rows, 6), generator=generator) for rows in (4, 4, 8))
    text = Text(plain, torch.ones_like(plain))
    images = Images(torch.rand(4, 2, 3, 32, 32, generator=generator))
    noise = torch.rand(2, 4, 4, generator=generator)
    parts = {
        "masked_text": MaskedTokens(Text(hidden, text.mask), torch.tensor([1]), torch.tensor([3])),
        "patch_noise_0": noise[0],
        "patch_noise_1": noise[1],
        "wrong_images": WrongImageChoice(torch.tensor([0.9, 0.1, 0.8, 0.2]), torch.tensor([1, 2, 3, 0])),
        "wrong_texts": Text(wrong, torch.ones_like(wrong)),
    }
    return Batch(index=torch.arange(4), split="val", images=images, text=text, parts=parts)


@pytest.fixture
def runs(encoder, monkeypatch) -> list[tuple[list[int], bool]]:
    """What the encoder is asked to run: rows of each segment, and whether only the pooled feature is read."""
    seen, encode = [], encoder.encode

    def counted(segments, *, pooled_only=False, task="") -> Encoded:
        seen.append(([len(segment) for segment in segments], pooled_only))
        return encode(segments, pooled_only=pooled_only, task=task)

    monkeypatch.setattr(encoder, "encode", counted)
    return seen


def _tensors(encoded: Encoded) -> list[Tensor]:
    masks = [] if encoded.patches is None else [encoded.patches.dropped, encoded.patches.restore]
    return [encoded.pooled, *(segment.tokens for segment in encoded.segments), *masks]


def test_equal_passes_run_once(encoder, batch, runs):
    encoded = encode_passes(encoder, batch, [MASKED, Pass(("masked_text", "image"), patch_noise=0)], 0.5)
    assert len(encoded) == 1
    assert runs == [([4, 4], False)]


@pytest.mark.parametrize(
    ("passes", "ratio", "rows"),
    [
        ((MATCHED, MASKED), 0.5, [([8, 8], False)]),
        ((Pass(pooled_only=True), Pass(("text", "image_1"), pooled_only=True)), 0.0, [([8, 8], True)]),
        ((Pass(), Pass(("image",))), 0.0, [([4, 4], False), ([4], False)]),
        ((MASKED, Pass()), 0.5, [([4, 4], False), ([4, 4], False)]),  # only one drops patches
        ((Pass(), CANDIDATES), 0.0, [([4, 4], False), ([12, 4], True)]),
    ],
)
def test_passes_of_equal_shape_run_as_one(encoder, batch, runs, passes, ratio, rows):
    alone = [encode_passes(encoder, batch, [one], ratio)[one] for one in passes]
    del runs[:]
    together = encode_passes(encoder, batch, passes, ratio)
    assert runs == rows
    for one, expected in zip(passes, alone, strict=True):
        torch.testing.assert_close(_tensors(together[one]), _tensors(expected), atol=1e-5, rtol=1e-4)
        assert [segment.name for segment in together[one].segments] == ([] if one.pooled_only else [*one.segments])


def test_texts_of_other_lengths_stay_apart(encoder, batch, runs):
    shorter = Text(batch.text.ids[:, :4], batch.text.mask[:, :4])
    batch = batch.with_parts(masked_text=replace(batch.parts["masked_text"], text=shorter))
    encoded = encode_passes(encoder, batch, (Pass(), Pass(("masked_text", "image"))))
    assert len(runs) == 2
    assert encoded[Pass()]["text"].shape[1] == 6
    assert encoded[Pass(("masked_text", "image"))]["masked_text"].shape[1] == 4


def test_each_image_is_embedded_once_for_all_its_texts(encoder, batch, monkeypatch):
    embedded, embed = [], encoder.embed_images
    monkeypatch.setattr(
        encoder, "embed_images", lambda images, **options: embedded.append(len(images)) or embed(images, **options)
    )
    pooled = encode_passes(encoder, batch, [CANDIDATES])[CANDIDATES].pooled
    assert embedded == [4]
    own = encode_passes(encoder, batch, [Pass()])[Pass()].pooled
    torch.testing.assert_close(pooled.unflatten(0, (4, 3))[:, 0], own, atol=1e-6, rtol=1e-5)


def test_a_whole_pass_serves_those_who_read_its_pooled_feature(encoder, batch, runs):
    pooled = Pass(pooled_only=True)
    encoded = encode_passes(encoder, batch, (pooled, Pass()))
    assert runs == [([4, 4], False)]
    assert encoded[pooled] is encoded[Pass()]


def test_a_second_round_runs_only_what_is_new(encoder, batch, runs):
    image = Pass(("image",), pooled_only=True)
    first = encode_passes(encoder, batch, [image])
    second = encode_passes(encoder, batch, [MATCHED, image], known=first)
    assert second[image] is first[image]
    assert runs == [([4], True), ([4, 4], False)]
    assert set(first) == {image}, "the first round stays as it is"


def test_what_was_not_declared_cannot_be_read(encoder, batch):
    with pytest.raises(KeyError, match=r"Pass\(.*'image_1'.* was not encoded: .*its passes\(\).*Encoded were: Pass"):
        encode_passes(encoder, batch, [Pass()])[Pass(("text", "image_1"))]


@pytest.mark.parametrize("name", golden_models.NAMES)
def test_objectives_read_every_pass_that_they_declare(golden, name):
    """And no other, which would raise."""
    case = golden_models.load(golden, name)
    for objective in case.module.objectives.values():
        passes = objective.passes(case.batch)
        encoded = encode_passes(case.module.encoder, case.batch, passes, case.module.settings.dropped_ratio)
        read: set[Pass] = set()

        class Noted(dict):
            def __getitem__(self, key: Pass, seen: set = read) -> Encoded:
                seen.add(key)
                return super().__getitem__(key)

        objective(Noted(encoded), case.batch)
        assert read == set(passes)


@torch.no_grad()
@pytest.mark.parametrize(("at_once", "rows"), [(12, [[12, 4]]), (7, [[6, 2]] * 2), (1, [[3, 1]] * 4)])
def test_without_gradients_some_examples_run_at_a_time(encoder, batch, runs, monkeypatch, at_once, rows):
    with torch.enable_grad():
        whole = encode_passes(encoder, batch, [CANDIDATES])[CANDIDATES].pooled
    del runs[:]
    monkeypatch.setattr("vlc.model.passes._ROWS_AT_ONCE", at_once)
    torch.testing.assert_close(encode_passes(encoder, batch, [CANDIDATES])[CANDIDATES].pooled, whole)
    assert runs == [(counts, True) for counts in rows]
