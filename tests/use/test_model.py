"""vlc.Model: a checkpoint used from Python, against what evaluation and transformers' own ViLT compute."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import ViltConfig

import vlc
from tests import tiny
from tests.ranked import matrix
from tests.test_vilt import ImageProcessor
from vlc.common.errors import MissingFile, NonFiniteMetric, UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.corpus import Corpus
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.evaluation.scorer import Scorer
from vlc.training.run import build_data, build_module, run

VIT = "mae_vit_tiny_patch16"
RECIPE = "task_finetune_irtr_coco_mae_randaug"
HEADS = loss_weights(mlm=1, itm=1, irtr=1, itc=1)
TEXTS = ["a dog", "a [MASK] of the [MASK]", "two red cats and a bus left of the house"]


@pytest.fixture(scope="module")
def options(arrows) -> dict:
    return {
        "data_root": str(arrows),
        "vit": VIT,
        "draw_false_image": 1,
        "draw_false_text": 2,
        "mlm_prob": 0.5,
        "loss_names": HEADS,
    }


@pytest.fixture(scope="module")
def folder(options, tmp_path_factory) -> Path:
    """A checkpoint, trained with a tokenizer in a folder that is gone since."""
    folder = tmp_path_factory.mktemp("model")
    load_tokenizer("emoji").save_pretrained(folder / "tokenizer")
    metrics = run(tiny.settings(RECIPE, **options, tokenizer=str(folder / "tokenizer"), log_dir=str(folder)))
    shutil.rmtree(folder / "tokenizer")
    shutil.copy(Path(metrics["log_dir"]) / "checkpoints" / "last.ckpt", folder / "last.ckpt")
    return folder


@pytest.fixture(scope="module")
def model(folder) -> "vlc.Model":
    return vlc.Model.from_checkpoint(folder / "last.ckpt", num_gpus=0, per_gpu_batchsize=4)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [tiny.image_bytes(number, kind="PNG") for number in range(6)]


def test_the_package_stays_free_of_torch_and_transformers():
    has = "print([name in sys.modules for name in ('torch', 'transformers')])"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, vlc; {has}; vlc.Model; {has}"], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == ["[False, False]", "[True, True]"]


def test_texts_together_are_answered_as_texts_alone(model, images):
    together = model.answer(images[0], TEXTS)
    assert [answer.example for answer in together] == [0] * 3 + [1] * 5 + [2] * 3
    assert [(answer.head, answer.about) for answer in together if answer.example == 1] == [
        ("mlm", "[MASK] 1"),
        ("mlm", "[MASK] 2"),
        *((head, "") for head in ("itm", "irtr", "itc")),
    ]
    alone = [answer for text in TEXTS for answer in model.answer(images[0], text)]
    for one, other in zip(together, alone, strict=True):
        assert [name for name, _ in one.choices] == [name for name, _ in other.choices]
        values = [[value for _, value in answer.choices] for answer in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)
    examples = [([model.prepared(image)], "a dog") for image in images]  # more than a batch, each with its own image
    found = [answer.choices for answer in model.answers(examples) if answer.head == "itm"]
    expected = [answer.choices for image in images for answer in model.answer(image, "a dog") if answer.head == "itm"]
    assert len(found) == len(images)
    assert [row[0][1] for row in found] == pytest.approx([row[0][1] for row in expected], abs=1e-5)


def test_an_image_is_the_same_however_it_is_given(model, images, tmp_path):
    (tmp_path / "image.png").write_bytes(images[0])
    picture = Image.open(io.BytesIO(images[0]))
    given = [tmp_path / "image.png", str(tmp_path / "image.png"), images[0], picture, np.array(picture)]
    first, *others = [model.prepared(image) for image in given]
    assert all(torch.equal(first, other) for other in others)
    vectors = model.embed(images=given)
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], len(given), axis=0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_embeddings_and_scores_are_those_of_an_evaluation(model, folder, options):
    checkpoint = {"test_only": True, "load_path": str(folder / "last.ckpt"), "log_dir": str(folder)}
    settings = tiny.settings(RECIPE, **options, **checkpoint)
    data = build_data(settings)
    module, samples = build_module(settings, data).eval(), data.evaluation["test"]
    heads = {"score": module.objectives["irtr"].score, "itc": module.objectives["itc"]}
    scorer = Scorer(module.encoder, Corpus(samples), torch.device("cpu"), **heads)
    places = [samples.locate(number) for number in range(len(samples))]
    texts = [source.text(where) for source, where in places]
    pictures = [source.image(where, "image").to_pybytes() for source, where in places[:: tiny.TEXTS]]
    near = model.embed(images=pictures) @ model.embed(texts=texts).T
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, matrix(scorer.similarities()), atol=1e-5)
    np.testing.assert_allclose(model.score(pictures[2], texts), matrix(scorer.exact())[2], atol=1e-5)
    assert model.embed(texts=[]).shape == (0, near.shape[1] and module.encoder.size.width)
    contrast = vlc.Model.from_checkpoint(folder / "last.ckpt", num_gpus=0, loss_names=loss_weights(itc=1))
    np.testing.assert_allclose(contrast.score(pictures[2], texts), near[2], atol=1e-5)


@torch.no_grad()
def test_a_hub_folder_scores_as_transformers_does(small_vilt, tmp_path):
    tokenizer, processor, size = load_tokenizer("emoji"), ImageProcessor(size={"shortest_edge": 64}), tiny.SMALL_VILT
    config = {"hidden_size": size.width, "num_hidden_layers": size.depth, "num_attention_heads": size.heads}
    config |= {"intermediate_size": 4 * size.width, "image_size": 96, "patch_size": 32, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    theirs = transformers.ViltForImageAndTextRetrieval(ViltConfig(**config, max_position_embeddings=16)).eval()
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    known = {"vit": small_vilt, "image_size": 64, "max_text_len": 16, "vocab_size": None, "tokenizer": str(tmp_path)}
    model = vlc.Model.from_checkpoint(tmp_path, "task_finetune_irtr_coco", **known, num_gpus=0)
    for number, shape in enumerate([(40, 30), (90, 40), (64, 64)]):
        encoded = tiny.image_bytes(number, shape, "PNG")
        pixels = processor(Image.open(io.BytesIO(encoded)), return_tensors="pt")
        ids = [TextEncoder(tokenizer, 16)(text).ids for text in TEXTS]
        expected = [theirs(input_ids=torch.tensor([row]), **pixels).logits.item() for row in ids]
        np.testing.assert_allclose(model.score(encoded, TEXTS), expected, atol=1e-4, rtol=1e-4)
        said = [answer.choices for answer in model.answer(encoded, TEXTS) if answer.head == "irtr"]
        np.testing.assert_allclose([choices[0][1] for choices in said], expected, atol=1e-4, rtol=1e-4)


def test_a_model_pads_images_where_its_evaluation_did(options):
    """Other pipelines of evaluation may be random, and the encoder's own takes their place."""
    for pipeline, expected in (("keep_shape", "keep_shape"), ("mae", "mae_test")):
        settings = tiny.settings(RECIPE, **options, val_transform_keys=[pipeline])
        assert build_module(settings, build_data(settings)).extras["preprocessing"]["pipeline"] == expected


def test_damage_to_what_is_stored_is_told(folder, tmp_path):
    whole = torch.load(folder / "last.ckpt", weights_only=True)
    for key, value, message in (
        ("tokenizer", {"json": "{", "special": {}}, r"is damaged: no tokenizer can be made .*tokenizer=NAME"),
        ("tokenizer", {"json": whole["vlc"]["tokenizer"]["json"], "special": {}}, "no tokenizer can be made of"),
        ("tokenizer", 3, r"is damaged or not ours: .*\(tokenizer\) is of a wrong type"),
        ("preprocessing", {"pipeline": "none"}, "is damaged: its pipeline is 'none', not one of mae"),
        ("preprocessing", {"pixels": "none"}, "is damaged: its pixels is 'none', not one of imagenet"),
    ):  # fmt: skip
        torch.save(whole | {"vlc": whole["vlc"] | {key: value}}, tmp_path / "x.ckpt")
        with pytest.raises(UserError, match=message):
            vlc.Model.from_checkpoint(tmp_path / "x.ckpt", num_gpus=0)
    torch.save(whole | {"vlc": whole["vlc"] | {"tokenizer": {"json": "{"}}}, tmp_path / "x.ckpt")
    assert vlc.Model.from_checkpoint(tmp_path / "x.ckpt", num_gpus=0, tokenizer="emoji").text_encoder is not None


def test_mistakes_are_told(model, folder, images, arrows, tmp_path):
    with pytest.raises(MissingFile, match=r"Checkpoint .*none\.ckpt does not exist"):
        vlc.Model.from_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="Unknown config key 'num_gpu'. Did you mean num_gpus"):
        vlc.Model.from_checkpoint(folder / "last.ckpt", num_gpu=0)
    with pytest.raises(MissingFile, match=r"Image nowhere\.jpg does not exist"):
        model.embed(images="nowhere.jpg")
    with pytest.raises(UserError, match="Image of the given bytes cannot be decoded"):
        model.score(images[0][:50], "a dog")
    with pytest.raises(
        UserError, match=r"an array of shape \(4, 4\) and float64 is no image: expected \(height, width, 3\)"
    ):
        model.answer(np.zeros((4, 4)), "a dog")
    with pytest.raises(UserError, match="heads mlm, itm, irtr, itc, which take one image"):
        model.answer([images[0], images[1]], "a dog")
    with pytest.raises(UserError, match="either images=... or texts=..."):
        model.embed()
    only = vlc.Model.from_checkpoint(folder / "last.ckpt", num_gpus=0, loss_names=loss_weights(mlm=1))
    with pytest.raises(UserError, match=r"heads mlm, which say nothing of this text"):
        only.answer(images[0], ["a [MASK]", "a dog"])
    for use in (lambda: only.embed(texts="a dog"), lambda: only.score(images[0], "a dog")):
        with pytest.raises(UserError, match="has the heads mlm, but none of objective itc"):
            use()


def test_values_that_are_not_finite_are_refused(folder, images, tmp_path):
    content = torch.load(folder / "last.ckpt", weights_only=True)
    for name in ("itc.text_projection.weight", "irtr.rank_output.weight"):
        content["state_dict"][f"objectives.{name}"].fill_(torch.nan)
    torch.save(content, tmp_path / "x.ckpt")
    broken = vlc.Model.from_checkpoint(tmp_path / "x.ckpt", num_gpus=0)
    for use in (lambda: broken.embed(texts="a dog"), lambda: broken.score(images[0], "a dog")):
        with pytest.raises(NonFiniteMetric, match="NaN or infinite: the (embeddings|scores)"):
            use()
