"""Contrast on given embeddings: the loss as defined, what counts as right, and the negatives it picks."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from vlc.common.inputs import Images, Text
from vlc.configuration.recipes import loss_weights
from vlc.data.batch import Batch
from vlc.data.parts.text_describes_image import Descriptions, Identity
from vlc.data.parts.wrong_images import WrongImageChoice
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.model.sizes import ENCODERS
from vlc.objectives.base import ModelContext
from vlc.objectives.itc import IMAGES, ITC, TEXTS
from vlc.objectives.options import ITCOptions
from vlc.training.run import build_data, build_module, run

WIDTH, SIZE = 8, 6


@pytest.fixture
def itc() -> ITC:
    size = ENCODERS["mae_vit_tiny_patch16"]
    itc = ITC(ITCOptions(), ModelContext(width=WIDTH, vocab_size=10, num_patches=4, size=size))
    for projection in (itc.image_projection, itc.text_projection):
        torch.nn.init.eye_(projection.weight)
    return itc


def _batch(shows: torch.Tensor | None = None, **parts) -> Batch:
    shows = torch.eye(SIZE, dtype=torch.bool) if shows is None else shows
    ids = torch.arange(1, SIZE + 1)[:, None].repeat(1, 2)
    text = Text(ids, torch.ones_like(ids))
    return _images(SIZE, text=text).with_parts(text_describes_image=Descriptions(shows), **parts)


def _images(count: int, **others) -> Batch:
    images = Images(torch.zeros(count, 1, 3, 2, 2))
    return Batch(index=torch.arange(count), split="train", images=images, **others)


def _encoded(images: torch.Tensor, texts: torch.Tensor) -> dict[Pass, Encoded]:
    return {IMAGES: Encoded(images), TEXTS: Encoded(texts)}


def _vectors(seed: int = 0) -> tuple[dict[Pass, Encoded], torch.Tensor, torch.Tensor]:
    """Encoded passes, and the unit vectors that follow from them."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(SIZE, WIDTH, generator=generator), dim=-1) for _ in range(2))
    return _encoded(images, texts), images, texts


def _info_nce(scores: np.ndarray) -> float:
    """Mean of -log softmax on the diagonal, for rows."""
    return float(np.mean([math.log(np.exp(row).sum()) - row[number] for number, row in enumerate(scores)]))


def test_loss_is_symmetric_cross_entropy(itc):
    batch = _batch()
    encoded, images, texts = _vectors()
    scores = (images @ texts.T).numpy().astype(float) / 0.07
    expected = (_info_nce(scores) + _info_nce(scores.T)) / 2
    assert itc(encoded, batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_text_that_occurs_twice_is_right_for_both_images(itc):
    shows = torch.eye(SIZE, dtype=torch.bool)
    shows[0, 3] = shows[3, 0] = True
    batch = _batch(shows)
    encoded, images, texts = _vectors()
    scores = (images @ texts.T).numpy().astype(float) / 0.07
    scores[0, 3] = scores[3, 0] = -np.inf
    expected = (_info_nce(scores) + _info_nce(scores.T)) / 2
    assert itc(encoded, batch).loss.item() == pytest.approx(expected, rel=1e-5)


class _Threads:
    """Stands for processes: what one gathers, the others must bring too."""

    def __init__(self, count: int):
        self.count, self.rank = count, threading.local()
        self.barrier, self.brought = threading.Barrier(count), [None] * count

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        self.brought[self.rank.number] = values
        self.barrier.wait(10)
        gathered = torch.cat(self.brought)
        self.barrier.wait(10)
        return gathered

    def run(self, work) -> list:
        def of(number: int):
            self.rank.number = number
            return work(number)

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(of, range(self.count)))


@pytest.mark.parametrize("count", [2, 3])
def test_pairs_of_other_processes_that_match_are_no_wrong_ones(itc, monkeypatch, count):
    """Loss and gradients of several processes are those of one with the whole batch, where texts and images repeat."""
    texts = [
        ["a", "b"],
        ["c"],
        ["a", "d"],
        ["e"],
        ["c", "f"],
        ["a", "b"],
    ]  # of each example's row; its own is the first
    rows = torch.tensor([0, 1, 2, 3, 4, 0])
    whole = Identity(
        row=rows,
        text=torch.tensor([ord(row[0]) for row in texts]),
        row_texts=torch.tensor([[ord(row[0]), ord(row[-1])] for row in texts]),
    )
    shows = torch.tensor([[rows[i] == rows[j] or texts[i][0] in texts[j] for j in range(SIZE)] for i in range(SIZE)])
    assert torch.equal(whole.described_by(whole), shows)

    def measured(work) -> tuple[float, list[torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        vectors = [torch.randn(SIZE, WIDTH, generator=generator).requires_grad_() for _ in range(2)]
        losses = work(*(F.normalize(part, dim=-1) for part in vectors))
        loss = sum(losses) / len(losses)
        return loss.item(), list(torch.autograd.grad(loss, [*vectors, itc.log_scale]))

    def loss(identity: Identity, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        batch = _images(len(images)).with_parts(text_describes_image=Descriptions(None, identity))
        return itc(_encoded(images, texts), batch).loss

    alone, gradients = measured(lambda images, texts: [loss(whole, images, texts)])
    threads, size = _Threads(count), SIZE // count
    monkeypatch.setattr(
        "vlc.objectives.itc.gather_features", lambda values: (threads.gather(values), threads.rank.number * len(values))
    )
    monkeypatch.setattr("vlc.objectives.itc.gather_values", threads.gather)

    def together(images: torch.Tensor, texts: torch.Tensor) -> list[torch.Tensor]:
        def of(number: int) -> torch.Tensor:
            part = slice(number * size, (number + 1) * size)
            identity = Identity(whole.row[part], whole.text[part], whole.row_texts[part, : 2 - number % 2])
            if number % 2:  # of another width: the rows of a batch have as many texts as the longest of them
                identity = replace(identity, row_texts=torch.cat([whole.row_texts[part]] * 2, dim=1))
            return loss(identity, images[part], texts[part])

        return threads.run(of)

    shared, shared_gradients = measured(together)
    assert shared == pytest.approx(alone, rel=1e-6)
    for ours, expected in zip(shared_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_the_diagonal_is_no_advantage_where_all_are_alike(itc):
    batch = _batch()
    same = F.normalize(torch.ones(SIZE, WIDTH), dim=-1)
    right, count = itc(_encoded(same, same), batch).metrics["accuracy"]
    assert (int(right), count) == (0, 2 * SIZE)


def test_similarities_are_float32_within_half_precision(itc):
    batch = _batch()
    encoded, images, texts = _vectors()
    with torch.autocast("cpu", torch.bfloat16):
        logits = itc(encoded, batch).logits
    torch.testing.assert_close(logits, images @ texts.T / 0.07)


def test_a_temperature_without_a_dimension_is_read(tmp_path, arrows, small_vit):
    """As older checkpoints have it; the run continues with it, and the optimiser's state."""
    options = {
        "datasets": ["coco"],
        "loss_names": loss_weights(itc=1),
        "data_root": str(arrows),
        "log_dir": str(tmp_path),
    }
    saved = f"{run(tiny.settings(**options, max_steps=2))['log_dir']}/checkpoints/last.ckpt"
    state = torch.load(saved, weights_only=True)
    scale = state["state_dict"]["objectives.itc.log_scale"]
    state["state_dict"]["objectives.itc.log_scale"] = scale[0]
    for moments in state["optimizer_states"][0]["state"].values():
        if moments["exp_avg"].shape == (1,):
            moments |= {key: moments[key][0] for key in ("exp_avg", "exp_avg_sq")}
    old = tmp_path / "old.ckpt"
    torch.save(state, old)
    settings = tiny.settings(**options, load_path=str(old))
    module = build_module(settings, build_data(settings))
    assert torch.equal(module.objectives["itc"].log_scale.data, scale)
    new, old = (
        torch.load(
            run(tiny.settings(**options, max_steps=3, resume_from=str(path)))["log_dir"] + "/checkpoints/last.ckpt",
            weights_only=True,
        )["state_dict"]
        for path in (saved, old)
    )
    assert all(torch.equal(new[name], old[name]) for name in new)


def test_hard_wrong_images_are_the_similar_ones_and_never_right(itc):
    shows = torch.eye(SIZE, dtype=torch.bool)
    shows[1, :] = True  # every image has this text
    batch = _batch(shows, wrong_images=WrongImageChoice(torch.zeros(SIZE), torch.arange(SIZE)))
    encoded, images, texts = _vectors()
    with torch.no_grad():
        itc.log_scale.fill_(math.log(100))
    torch.manual_seed(0)
    chosen = torch.stack([itc.with_hard_negatives(encoded, batch).parts["wrong_images"].rows for _ in range(400)])
    assert (chosen[:, 1] == 1).all()  # the loader's
    odds = torch.exp(100 * texts @ images.T).masked_fill(shows, 0)
    for row in (0, 2, 3, 4, 5):
        found = torch.bincount(chosen[:, row], minlength=SIZE) / len(chosen)
        torch.testing.assert_close(found, odds[row] / odds[row].sum(), rtol=0, atol=0.1)


def test_hard_wrong_texts_are_the_most_similar(itc):
    shows = torch.eye(SIZE, dtype=torch.bool)
    shows[2:, 0] = True  # the first image has all texts but one
    wrong = Text(torch.full((2 * SIZE, 3), 9), torch.ones(2 * SIZE, 3, dtype=torch.int64))
    batch = _batch(shows, wrong_texts=wrong)
    encoded, images, texts = _vectors()
    harder = itc.with_hard_negatives(encoded, batch).parts["wrong_texts"]
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
