"""Multiple choice as in 12-in-1: what is drawn for a caption, against the published loader, and how it is scored."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.conftest import GOLDEN
from tests.data.made import keys
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.data.arrow import ArrowSplit
from vlc.data.batch import Batch
from vlc.data.catalog import CATALOG
from vlc.data.images import open_image
from vlc.data.sample import Preparation
from vlc.data.samples import Samples
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.transforms import transform
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives.base import ModelContext
from vlc.objectives.choice import Choice
from vlc.objectives.options import ChoiceOptions
from vlc.tasks import TASKS
from vlc.training.run import run
from vlc.use.hard_pool import make_hard_pools
from write_arrow.__main__ import main

GOLDENS = GOLDEN / "tasks/retrieval"
FOUR = ChoiceOptions(**TASKS["irtr_mc4_coco"].options["choice"])
SPLITS = {"coco": "coco", "f30k": "flickr30k"}
TO_PIXELS = transform("mae_test", 32)


@pytest.fixture(scope="module")
def arrows(tmp_path_factory) -> Path:
    """The images of 12-in-1's caption files, with its pools beside them."""
    folder = tmp_path_factory.mktemp("multiple_choice")
    for name, root in SPLITS.items():
        main([name, "--root", str(GOLDENS / "raw" / root), "--out", str(folder), "--workers", "1"])
        pool = str(GOLDENS / f"raw/hard_negative/{root}/hard_negative.pkl")
        with pytest.warns(UserWarning, match="are not in the data set"):
            make_hard_pools(*resolve_use(data_root=str(folder), datasets=[name], published_pool=pool))
    return folder


def _samples(arrows: Path, name: str, *, training: bool = True) -> Samples:
    stems = CATALOG[name].tables["train" if training else "test"]
    source = ArrowSplit(
        [arrows / f"{stem}.arrow" for stem in stems], CATALOG[name], name, {"image", "caption", "image_id"}
    )
    encoder = TextEncoder(load_tokenizer(str(GOLDENS / "tokenizer")), TASKS["irtr_mc4_coco"].max_text_len)
    return Samples("train", [source], Choice.parts(FOUR), Preparation(TO_PIXELS, 4, encoder), training=training, seed=5)


def _id(samples: Samples, where) -> int:
    (name,) = (samples.sources[0]._cell(where, "image_id").as_py(),)
    return int(Path(name).stem.rpartition("_")[2])


def _images(samples: Samples) -> Iterator[tuple[int, torch.Tensor]]:
    """The number and the pixels of every image."""
    (source,) = samples.sources
    for sample in range(len(samples)):
        where = source.locate(sample)
        yield _id(samples, where), TO_PIXELS(open_image(source.image(where, "image")), np.random.default_rng(0)).pixels


@pytest.mark.parametrize("name", SPLITS)
def test_draws_follow_the_published_rules(arrows, name):
    """Text and image of each option, told by tokens and pixels; the published loader's order is own, text, image, hard."""
    samples, root = _samples(arrows, name), SPLITS[name]
    stored = np.load(GOLDENS / f"expected/retrieval_{root}_train.npz")
    entries = json.loads((GOLDENS / f"expected/retrieval_{root}_train.json").read_text())["entries"]
    published = {
        (entry["image_id"], entry["caption"]): tokens[mask > 0].tolist()
        for entry, tokens, mask in zip(entries, stored["tokens"][:, 0], stored["input_mask"][:, 0], strict=True)
    }
    captions = {}
    for (image, _), tokens in published.items():
        captions.setdefault(image, []).append(tokens)
    pool = np.load(GOLDENS / f"expected/hard_pool_{root}.npz")
    near = {
        image: set(pool["image_ids"][row[1:]].tolist())
        for image, row in zip(pool["image_ids"].tolist(), pool["pool"], strict=True)
    }
    pixels = dict(_images(samples))
    (source,) = samples.sources
    for epoch in range(3):
        batch = samples[keys(*range(len(samples)), epoch=epoch)]
        wrong, hard, images = (batch.parts[part] for part in ("wrong_texts", "hard_texts", "wrong_images"))
        for number in range(len(samples)):
            where = source.locate(number)
            own, text = _id(samples, where), source.text(where)
            tokens = [text.ids[number][text.mask[number] > 0].tolist() for text in (batch.text, wrong, hard)]
            assert tokens[0] == published[own, text]
            for drawn in tokens[1:]:
                assert drawn not in captions[own]
            assert any(tokens[2] in captions.get(image, []) for image in near[own])
            others = [image for image, one in pixels.items() if torch.equal(one, images.images.pixels[number, 0])]
            assert others
            assert all(published[own, text] not in captions[image] for image in others)


def test_evaluation_draws_without_a_pool(arrows):
    samples = _samples(arrows, "coco", training=False)
    assert set(samples[keys(0, 1)].parts) == {"wrong_texts", "hard_texts", "wrong_images"}


@pytest.fixture(scope="module")
def model(arrows) -> tuple[Encoder, Choice]:
    torch.manual_seed(0)
    vocab_size = _samples(arrows, "coco").preparation.text_encoder.vocab_size
    encoder = Encoder(tiny.SMALL, 32, vocab_size=vocab_size, max_text_len=30, pad_token_id=0).eval()
    return encoder, Choice(FOUR, ModelContext(width=32, vocab_size=vocab_size, num_patches=4, size=tiny.SMALL))


def _scaled(batch: Batch) -> Batch:
    choice = batch.parts["wrong_images"]
    other = replace(choice.images, pixels=choice.images.pixels / 255)
    scaled = replace(batch, images=replace(batch.images, pixels=batch.images.pixels / 255))
    return scaled.with_parts(wrong_images=replace(choice, images=other))


@torch.no_grad()
def test_the_four_scores_are_those_of_the_pairs_alone(arrows, model, monkeypatch):
    encoder, head = model
    batch = _scaled(_samples(arrows, "coco")[keys(0, 7, 20)])
    embedded, embed = [], Encoder.embed_images
    monkeypatch.setattr(
        Encoder, "embed_images", lambda self, images, **o: embedded.append(len(images)) or embed(self, images, **o)
    )
    outcome = head(encode_passes(encoder, batch, head.passes(batch)), batch)
    assert embedded == [3, 3], "once for three texts, and the other images"
    own, other = (encoder.embed_images(part.images.pixels[:, 0]) for part in (batch, batch.parts["wrong_images"]))
    pairs = [
        (batch.text, own),
        (batch.parts["wrong_texts"], own),
        (batch.parts["hard_texts"], own),
        (batch.text, other),
    ]
    alone = [head.score(encoder.encode([encoder.embed_text(text), image]).pooled) for text, image in pairs]
    torch.testing.assert_close(outcome.logits, torch.stack(alone, dim=1), atol=1e-5, rtol=1e-4)
    expected = torch.nn.functional.cross_entropy(outcome.logits, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(outcome.loss, expected)
    right, count = outcome.metrics["accuracy"]
    assert (int(right), count) == (int((outcome.logits.argmax(1) == 0).sum()), 3)


def test_wrong_images_of_matching_are_not_taken(arrows, model):
    """A batch has the parts of all objectives of its task."""
    batch = _samples(arrows, "coco")[keys(0)]
    texts_alone = Choice(replace(FOUR, wrong_images=0), model[1].context)
    assert [one.segments for one in texts_alone.passes(batch)] == [("candidate_texts", "image")]
    assert [one.segments for one in model[1].passes(batch)] == [("candidate_texts", "image"), ("text", "wrong_images")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wrong_texts": 0, "hard_texts": 0}, "needs texts of other images"),
        ({"hard_texts": -1}, "choice.hard_texts=-1 is not valid: expected 0 or more"),
        ({"wrong_images": 2}, "choice.wrong_images=2 is not valid: expected 0 or 1"),
        (
            {"candidates": "options"},
            r"stand beside texts of other images, not beside irtr_mc4_coco\.choice\.candidates=options: pass 0",
        ),
    ],
    ids=str,
)
def test_options_that_contradict_each_other(small_vit, values, message):
    with pytest.raises(UserError, match=message):
        tiny.settings(tasks=["irtr_mc4_coco"], **{"irtr_mc4_coco.choice": values})


def _with_pools(folder: Path, *names: str) -> dict[str, str]:
    """The keys of a run on small data sets whose pools name the next image."""
    for name in names:
        tiny.write_hard_pool(tiny.write_dataset(folder, name), name)
    return {"data_root": str(folder), "log_dir": str(folder / "log")}


@pytest.mark.parametrize("names", [["coco"], ["f30k"], ["coco", "f30k"]], ids=str)
def test_tasks_train_and_rank_alone_and_with_a_shared_head(small_vit, tmp_path, names):
    tasks, options = [f"irtr_mc4_{name}" for name in names], _with_pools(tmp_path, *names)
    trained = run(tiny.settings(tasks=tasks, max_steps=2, **options))
    checkpoint = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(tasks=tasks, test_only=True, load_path=checkpoint, **options))
    for task in tasks:
        assert 0 <= trained[f"{task}/val/accuracy"] <= 1
        assert {f"{task}/test/{value}" for value in ("accuracy", "loss", "ir_r1", "tr_mean_rank")} <= tested.keys()


def test_training_without_a_pool_names_the_command(small_vit, tmp_path):
    tiny.write_dataset(tmp_path, "coco")
    with pytest.raises(
        UserError, match=r"coco_hard_pool\.npz does not exist.*python run\.py hard_pool with load_path="
    ):
        run(tiny.settings(tasks=["irtr_mc4_coco"], data_root=str(tmp_path), log_dir=str(tmp_path)))
