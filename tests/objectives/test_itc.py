"""Contrast on given embeddings: the loss as defined, what counts as right, and the negatives it picks."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from vlc.data.batch import Batch, Text
from vlc.model.sizes import ENCODERS
from vlc.objectives.base import HeadOptions, Passes
from vlc.objectives.itc import ITC
from vlc.recipes import loss_weights
from vlc.run import run

WIDTH, SIZE = 8, 6


@pytest.fixture
def itc() -> ITC:
    size = ENCODERS["mae_vit_tiny_patch16"]
    return ITC(HeadOptions(width=WIDTH, vocab_size=10, num_patches=4, size=size, pad_token_id=0))


def _batch(shows: torch.Tensor | None = None, **parts) -> Batch:
    shows = torch.eye(SIZE, dtype=torch.bool) if shows is None else shows
    ids = torch.arange(1, SIZE + 1)[:, None].repeat(1, 2)
    text = Text(ids, torch.ones_like(ids))
    return Batch(torch.zeros(SIZE, 1, 3, 2, 2), torch.arange(SIZE), "train", text=text, shows=shows, **parts)


def _passes(batch: Batch, seed: int = 0) -> tuple[Passes, torch.Tensor, torch.Tensor]:
    """Passes that have the embeddings already."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(SIZE, WIDTH, generator=generator), dim=-1) for _ in range(2))
    passes = Passes(None, batch)
    passes.once("itc", lambda: (images, texts))
    return passes, images, texts


def _info_nce(scores: np.ndarray) -> float:
    """Mean of -log softmax on the diagonal, for rows."""
    return float(np.mean([math.log(np.exp(row).sum()) - row[number] for number, row in enumerate(scores)]))


def test_loss_is_symmetric_cross_entropy(itc):
    batch = _batch()
    passes, images, texts = _passes(batch)
    scores = (images @ texts.T).numpy().astype(float) / 0.07
    expected = (_info_nce(scores) + _info_nce(scores.T)) / 2
    assert itc(passes, batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_text_that_occurs_twice_is_right_for_both_images(itc):
    shows = torch.eye(SIZE, dtype=torch.bool)
    shows[0, 3] = shows[3, 0] = True
    batch = _batch(shows)
    passes, images, texts = _passes(batch)
    scores = (images @ texts.T).numpy().astype(float) / 0.07
    scores[0, 3] = scores[3, 0] = -np.inf
    expected = (_info_nce(scores) + _info_nce(scores.T)) / 2
    assert itc(passes, batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_hard_wrong_images_are_the_similar_ones_and_never_right(itc):
    shows = torch.eye(SIZE, dtype=torch.bool)
    shows[1, :] = True  # every image has this text
    batch = _batch(shows, negative=torch.arange(SIZE))
    passes, images, texts = _passes(batch)
    with torch.no_grad():
        itc.log_scale.fill_(math.log(100))
    torch.manual_seed(0)
    chosen = torch.stack([itc.with_hard_negatives(passes, batch).negative for _ in range(400)])
    assert (chosen[:, 1] == 1).all()  # the loader's
    odds = torch.exp(100 * texts @ images.T).masked_fill(shows, 0)
    for row in (0, 2, 3, 4, 5):
        found = torch.bincount(chosen[:, row], minlength=SIZE) / len(chosen)
        torch.testing.assert_close(found, odds[row] / odds[row].sum(), rtol=0, atol=0.1)


def test_hard_wrong_texts_are_the_most_similar(itc):
    shows = torch.eye(SIZE, dtype=torch.bool)
    shows[2:, 0] = True  # the first image has all texts but one
    false = Text(torch.full((2 * SIZE, 3), 9), torch.ones(2 * SIZE, 3, dtype=torch.int64))
    batch = _batch(shows, false_text=false)
    passes, images, texts = _passes(batch)
    harder = itc.with_hard_negatives(passes, batch).false_text
    assert harder.ids[0].tolist() == [2, 2, 0]  # padded to the length of the loader's
    assert harder.mask[0].tolist() == [1, 1, 0]
    assert harder.ids[1].tolist() == [9, 9, 9]  # there is no second one: the loader's
    similarities = images @ texts.T
    for image in range(1, SIZE):
        order = [text for text in similarities[image].argsort(descending=True).tolist() if not shows[text, image]]
        assert harder.ids[2 * image : 2 * image + 2, 0].tolist() == [text + 1 for text in order[:2]]


def test_gradients_reach_the_encoder_beside_hard_negatives(arrows, tmp_path, small_vit):
    weights = loss_weights(itc=1, itm=1, irtr=1)
    settings = {"datasets": ["coco"], "hard_negatives": True, "draw_false_text": 2, "get_recall_metric": True}
    metrics = run(
        tiny.settings(**settings, loss_names=weights, data_root=str(arrows), log_dir=str(tmp_path), max_steps=2)
    )
    assert {"itc/train/loss", "itm/train/loss", "irtr/train/loss"} <= set(metrics)
