"""ViLT's checkpoints: transformers' own models, saved and loaded here, compared on images of several sizes."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import ViltConfig

from tests import golden_models, tiny
from vlc.checkpoint import weights
from vlc.checkpoint.weights import LoadReport
from vlc.common.errors import MissingFile, UserError
from vlc.common.inputs import Images, ImageSizes, Text
from vlc.configuration.recipes import loss_weights
from vlc.data.batch import Batch
from vlc.data.catalog import CATALOG
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.wrong_images import WrongImageChoice
from vlc.data.stacking import stack_images
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.transforms import normalize, shaped_size, transform
from vlc.model.encoder import Encoder
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.training.module import VLCModule
from vlc.training.optim import layer_decay_groups
from vlc.training.run import run

# The one that uses Pillow, which older releases call by the plain name.
ImageProcessor = getattr(transformers, "ViltImageProcessorPil", None) or transformers.ViltImageProcessor

SIZE = EncoderConfig(32, 3, 4, 16, learned_grid=4, norm_eps=1e-12, pixel_normalization="centred")
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
    "patch_size": 16,
    "vocab_size": 211,
    "max_position_embeddings": 12,
}
SHAPES = [(64, 96), (96, 48), (32, 80), (64, 64)]  # height, width; the largest image fills neither side
SAME = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(autouse=True)
def golden_vit(monkeypatch):
    monkeypatch.setitem(ENCODERS, "vilt", SIZE)


def _theirs(kind: str, **config) -> transformers.PreTrainedModel:
    """Random weights, larger than transformers draws them: outputs differ where anything is placed wrongly."""
    torch.manual_seed(0)
    model = getattr(transformers, kind)(ViltConfig(**(CONFIG | config))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.tie_weights()
    return model


def _ours(path: Path, num_images: int = 1, **losses: float) -> tuple[VLCModule, LoadReport]:
    settings = golden_models.model_settings(vit="vilt", loss_names=loss_weights(**losses), wpa_weight=0.0)
    module = VLCModule(
        settings.model, (settings.task,), image_size=64, max_text_len=12, vocab_size=211, num_images=num_images
    ).eval()
    return module, weights.load(module, weights.read(path), complete=True)


@pytest.fixture
def batch() -> Batch:
    """Four pairs of images of different sizes, and texts of different lengths."""
    rng = torch.Generator().manual_seed(1)
    pictures = [[torch.randint(256, (3, *shape), generator=rng, dtype=torch.uint8) for shape in SHAPES[n:] + SHAPES[:n]]
                for n in range(2)]  # fmt: skip
    images = stack_images([list(pair) for pair in zip(*pictures, strict=True)])
    ids = torch.randint(5, 211, (4, 7), generator=rng)
    mask = (torch.arange(7) < torch.tensor([[7], [5], [3], [6]])).long()
    images = replace(images, pixels=normalize(images.pixels, "centred"))
    return Batch(index=torch.arange(4), split="test", images=images, text=Text(ids * mask, mask))


def _inputs(batch: Batch, image: int | None = 0) -> dict[str, Tensor]:
    """The batch as transformers takes it; image None: both of a pair."""
    pixels, sides = batch.images.pixels, batch.images.sizes.height_width
    rows, columns = (torch.arange(side) for side in pixels.shape[-2:])
    mask = (rows[:, None] < sides[..., :1, None]) & (columns < sides[..., 1:, None])
    images, mask = (pixels, mask.long()) if image is None else (pixels[:, image], mask[:, image].long())
    return {
        "input_ids": batch.text.ids,
        "attention_mask": batch.text.mask,
        "pixel_values": images,
        "pixel_mask": mask,
    }


@torch.no_grad()
@pytest.mark.parametrize("image", [0, 1])
def test_encoder_is_vilts(tmp_path, batch, image):
    theirs = _theirs("ViltModel", modality_type_vocab_size=3)
    theirs.save_pretrained(tmp_path)
    source = weights.read(tmp_path)
    assert source.layout.name == "vilt_model"
    settings = golden_models.model_settings(vit="vilt", loss_names=loss_weights(mlm=1))
    module = VLCModule(
        settings.model, (settings.task,), image_size=64, max_text_len=12, vocab_size=211, num_images=2
    ).eval()
    report = weights.load(module, source)
    assert all(name.startswith("objectives.mlm") for name in report.new)
    expected = theirs(**_inputs(batch, image), image_token_type_idx=1 + image)
    pixels, sizes = batch.images.at(image)
    images = module.encoder.embed_images(pixels, sizes=sizes, image_type=1 + image)
    encoded = module.encoder.encode([module.encoder.embed_text(batch.text), images])
    assert images.tokens.shape[1] == 1 + 4 * 6, "as many as the largest image has, not 6 x 6"
    torch.testing.assert_close(encoded.pooled, expected.pooler_output, **SAME)
    real, hidden = batch.text.mask.bool(), expected.last_hidden_state
    torch.testing.assert_close(encoded["text"][real], hidden[:, :7][real], **SAME)
    torch.testing.assert_close(encoded["image"][:, 0], hidden[:, 7], **SAME)
    # Where an image is the largest, transformers shuffles its patches: compare sums.
    theirs_image = hidden[:, 7:] * _mask_of(theirs, batch, image)[:, :, None]
    torch.testing.assert_close((encoded["image"] * images.mask[:, :, None]).sum(1), theirs_image.sum(1), **SAME)


def _mask_of(model, batch: Batch, image: int) -> Tensor:
    inputs = _inputs(batch, image)
    return model.embeddings.visual_embed(inputs["pixel_values"], inputs["pixel_mask"], -1)[1]


@torch.no_grad()
def test_images_of_one_size_need_no_mask(tmp_path, batch):
    theirs = _theirs("ViltModel")
    theirs.save_pretrained(tmp_path)
    module, _ = _ours_without_heads(tmp_path)
    images = torch.randn(4, 3, 48, 96)
    tokens = module.encoder.embed_images(images)
    assert tokens.mask is None
    encoded = module.encoder.encode([module.encoder.embed_text(batch.text), tokens])
    expected = theirs(batch.text.ids, batch.text.mask, pixel_values=images, pixel_mask=torch.ones(4, 48, 96))
    torch.testing.assert_close(encoded.pooled, expected.pooler_output, **SAME)


def _ours_without_heads(path: Path) -> tuple[VLCModule, LoadReport]:
    settings = golden_models.model_settings(vit="vilt", loss_names=loss_weights(mlm=1))
    module = VLCModule(settings.model, (settings.task,), image_size=64, max_text_len=12, vocab_size=211).eval()
    return module, weights.load(module, weights.read(path))


@torch.no_grad()
@pytest.mark.parametrize("safe", [True, False])
def test_masked_language_model(tmp_path, batch, safe):
    """Whether the output weights are stored, as in torch files, or left out, as they are the word embeddings."""
    theirs = _theirs("ViltForMaskedLM")
    theirs.save_pretrained(tmp_path)
    if not safe:
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    module, report = _ours(tmp_path, mlm=1)
    assert not report.new
    positions = batch.text.mask.flatten().nonzero()[:, 0]
    masked = MaskedTokens(batch.text, positions, batch.text.ids.flatten()[positions])
    logits = module.outcomes(batch.with_parts(masked_text=masked))["mlm"].logits
    expected = theirs(**_inputs(batch)).logits.flatten(0, 1)[positions]
    torch.testing.assert_close(logits, expected, **SAME)


@torch.no_grad()
def test_question_answering_and_its_answers(tmp_path, batch):
    names = {label: f"answer {label}" for label in range(17)}
    theirs = _theirs("ViltForQuestionAnswering", id2label=names)
    theirs.save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        module, report = _ours(path, vqa=1)
        assert report.layout == "vilt"
        assert weights.read(path).extras["answers"] == list(names.values())
    torch.testing.assert_close(module.outcomes(batch)["vqa"].logits, theirs(**_inputs(batch)).logits, **SAME)


@torch.no_grad()
def test_pairs_of_images(tmp_path, batch):
    config = {"num_images": 2, "num_labels": 2, "modality_type_vocab_size": 3}
    theirs = _theirs("ViltForImagesAndTextClassification", **config)
    theirs.save_pretrained(tmp_path)
    module, report = _ours(tmp_path, num_images=2, nlvr2=1)
    assert report.layout == "vilt_nlvr2"
    assert "answers" not in weights.read(tmp_path).extras
    expected = theirs(**_inputs(batch, image=None)).logits
    torch.testing.assert_close(module.outcomes(batch)["nlvr2"].logits, expected, **SAME)


@torch.no_grad()
def test_retrieval(tmp_path, batch):
    theirs = _theirs("ViltForImageAndTextRetrieval")
    theirs.save_pretrained(tmp_path)
    module, _ = _ours(tmp_path, irtr=1)
    scores = module.outcomes(batch.with_parts(wrong_texts=batch.text))["irtr"].logits
    expected = theirs(**_inputs(batch)).logits
    torch.testing.assert_close(scores, expected.expand(-1, 2), **SAME)


@torch.no_grad()
def test_release_checkpoint(tmp_path, batch):
    """The release's names, made of the hub's; its metrics and the head of masked patches are dropped."""
    theirs = _theirs("ViltForQuestionAnswering", num_labels=17)
    theirs.save_pretrained(tmp_path / "hub")
    weights.export(weights.read(tmp_path / "hub"), tmp_path / "vilt_vqa.ckpt", "vlc_release")
    content = torch.load(tmp_path / "vilt_vqa.ckpt", weights_only=True)
    assert content["state_dict"]["transformer.pos_embed"].shape == (1, 17, 32)
    content["state_dict"] |= {"mpp_score.decoder.bias": torch.zeros(768), "train_vqa_score.score": torch.zeros(())}
    torch.save(content, tmp_path / "vilt_vqa.ckpt")
    module, report = _ours(tmp_path / "vilt_vqa.ckpt", vqa=1)
    assert report.dropped == ["mpp_score.decoder.bias", "train_vqa_score.score"]
    torch.testing.assert_close(module.outcomes(batch)["vqa"].logits, theirs(**_inputs(batch)).logits, **SAME)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "layout", "config"),
    [
        ("ViltForQuestionAnswering", "vilt", {"num_labels": 17}),
        ("ViltForImagesAndTextClassification", "vilt_nlvr2", {"num_images": 2, "modality_type_vocab_size": 3}),
        ("ViltModel", "vilt_model", {}),
    ],
)
def test_exported_files_are_transformers(tmp_path, kind, layout, config):
    theirs = _theirs(kind, **config)
    theirs.save_pretrained(tmp_path)
    assert not weights.export(weights.read(tmp_path), tmp_path / "model.safetensors", layout)
    again = getattr(transformers, kind).from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (500, 375), (333, 500), (1000, 200), (60, 900), (384, 384), (97, 131)]
)
def test_pixelbert_is_transformers_image_processor(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    theirs = ImageProcessor()(picture, return_tensors="pt")["pixel_values"][0]
    ours = normalize(transform("pixelbert", 384)(picture, np.random.default_rng(0)).pixels, "centred")
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_very_long_image_keeps_a_row_of_patches():
    assert shaped_size(5000, 20, 384) == (32, 608)


def test_training_keeps_a_random_choice_of_patches(batch):
    settings = golden_models.model_settings(vit="vilt", loss_names=loss_weights(mlm=1), max_image_len=10)
    encoder = VLCModule(settings.model, (settings.task,), image_size=64, max_text_len=12, vocab_size=211).encoder
    images, sizes = batch.images.at(0)
    whole = encoder.eval().embed_images(images, sizes=sizes)
    assert whole.mask.sum(1).tolist() == [1 + 24, 1 + 18, 1 + 10, 1 + 16]
    drawn, other = encoder.train().embed_images(images, sizes=sizes), encoder.embed_images(images, sizes=sizes)
    assert drawn.mask.all()
    assert drawn.tokens.shape == (4, 1 + 10, 32)
    assert not torch.equal(drawn.tokens, other.tokens)
    for row in range(4):  # each is one of the image's own, and none comes twice
        found = (drawn.tokens[row, 1:, None] == whole.tokens[row][None, 1:][:, whole.mask[row, 1:]]).all(-1)
        assert found.sum(1).tolist() == [1] * 10
        assert found.any(0).sum() == 10


def test_itm_takes_the_size_along_with_the_image(batch):
    settings = golden_models.model_settings(vit="vilt", loss_names=loss_weights(itm=1))
    torch.manual_seed(0)
    module = VLCModule(settings.model, (settings.task,), image_size=64, max_text_len=12, vocab_size=211).eval()
    choice = WrongImageChoice(torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([1, 2, 3, 0]))
    batch = batch.with_parts(wrong_images=choice)
    outcome = module.outcomes(batch)["itm"]
    assert outcome.metrics["wpa_loss"][0].isfinite()
    # Each pair alone, its image cut to its own size, which needs no padding.
    for row, image in enumerate([0, 1, 3, 0]):
        height, width = SHAPES[image]
        text = Text(batch.text.ids[row, None], batch.text.mask[row, None])
        tokens = module.encoder.embed_images(batch.images.pixels[image, :1, :, :height, :width])
        pooled = module.encoder.encode([module.encoder.embed_text(text), tokens]).pooled
        torch.testing.assert_close(module.objectives["itm"].fc(pooled)[0], outcome.logits[row], atol=1e-5, rtol=1e-4)


def test_word_patch_alignment_leaves_padding_out(batch):
    settings = golden_models.model_settings(vit="vilt", loss_names=loss_weights(itm=1))
    torch.manual_seed(0)
    module = VLCModule(settings.model, (settings.task,), image_size=64, max_text_len=12, vocab_size=211).eval()
    draw, own = torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.arange(4)  # nobody has another image: all match
    batch = batch.with_parts(wrong_images=WrongImageChoice(draw, own))
    whole = module.outcomes(batch)["itm"].metrics["wpa_loss"][0]
    alone = []
    for row, (height, width) in enumerate(SHAPES):
        single = replace(
            batch,
            images=Images(batch.images.pixels[row : row + 1, :1, :, :height, :width]),
            text=Text(batch.text.ids[row, None], batch.text.mask[row, None]),
            parts={"wrong_images": WrongImageChoice(draw[:1], own[:1])},
        )
        alone.append(module.outcomes(single)["itm"].metrics["wpa_loss"][0])
    torch.testing.assert_close(whole, sum(alone), atol=1e-5, rtol=1e-4)


def test_drop_rate_reaches_image_tokens_and_blocks():
    image, blocks = torch.randn(1, 3, 64, 64), torch.randn(1, 5, 32)
    for dropout in (True, False):
        encoder = Encoder(replace(SIZE, dropout=dropout), 64, vocab_size=9, max_text_len=4, text_dropout=0.5).train()
        assert torch.equal(*(encoder.embed_images(image).tokens for _ in range(2))) != dropout
        assert torch.equal(*(encoder.blocks[0](blocks) for _ in range(2))) != dropout


def test_learned_positions_decay_with_the_embeddings():
    settings = tiny.settings("task_finetune_vqa_mae_randaug", vit="vilt")
    module = VLCModule(settings.model, settings.tasks, image_size=64, max_text_len=12, vocab_size=211)
    groups = layer_decay_groups(module, settings.optim)
    (rate,) = [group["lr"] for group in groups if any(p is module.encoder.pos_embed for p in group["params"])]
    assert rate == pytest.approx(settings.optim.learning_rate * 0.5 ** (SIZE.depth + 1))


class TestBadInput:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        _theirs("ViltModel").save_pretrained(tmp_path)
        return tmp_path

    def test_no_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(
            MissingFile, match=r"folder without weights: expected model.safetensors or pytorch_model.bin"
        ):
            weights.read(folder)

    def _configure(self, folder: Path, **values) -> None:
        config = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(config))

    def test_another_model(self, folder):
        self._configure(folder, model_type="gpt2")
        with pytest.raises(UserError, match=r"config.json describes a model of type 'gpt2': only vilt"):
            weights.read(folder)

    def test_another_activation(self, folder):
        self._configure(folder, hidden_act="relu")
        with pytest.raises(UserError, match=r"hidden_act 'relu'"):
            weights.read(folder)

    def test_other_heads(self, folder):
        self._configure(folder, num_attention_heads=8)
        with pytest.raises(UserError, match=r"has 8 attention heads, this model 4. Check vit"):
            _ours_without_heads(folder)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("hidden_size", 64),
            ("hidden_size", "32"),
            ("num_hidden_layers", 2),
            ("num_hidden_layers", None),
            ("intermediate_size", 64),
            ("num_attention_heads", 5),
            ("num_attention_heads", 0),
            ("num_attention_heads", True),
            ("image_size", 96),
            ("image_size", [64, 96]),
            ("image_size", "64"),
            ("patch_size", 8),
            ("num_channels", 1),
            ("vocab_size", 30522),
            ("vocab_size", [211]),
            ("max_position_embeddings", 40),
            ("type_vocab_size", 3),
            ("modality_type_vocab_size", 3),
            ("qkv_bias", False),
            ("max_image_length", 8),
            ("hidden_act", "gelu_new"),
            ("hidden_act", ["gelu"]),
            ("layer_norm_eps", "1e-12"),
            ("layer_norm_eps", 0),
            ("layer_norm_eps", float("nan")),
        ],
    )
    def test_values_that_contradict_the_weights(self, folder, key, value):
        self._configure(folder, **{key: value})
        with pytest.raises(UserError, match=rf"config\.json.*{key}"):
            weights.read(folder)

    @pytest.mark.parametrize("key", sorted(CONFIG))
    def test_values_left_out_are_those_of_transformers(self, folder, key):
        config = json.loads((folder / "config.json").read_text())
        del config[key]
        (folder / "config.json").write_text(json.dumps(config))
        if key == "num_attention_heads":  # 12 do not divide a width of 32
            match = "num_attention_heads 12 does not divide"
        else:
            match = f"{key} .*contradicts the weights"
        with pytest.raises(UserError, match=match):
            weights.read(folder)

    def test_square_sizes_stated_by_both_sides(self, folder):
        self._configure(folder, image_size=[64, 64], patch_size=[16, 16])
        assert weights.read(folder).heads == 4

    @torch.no_grad()
    def test_another_epsilon(self, tmp_path, batch):
        """It changes what transformers computes, and so may not be left out."""
        model, same = (_theirs("ViltModel", layer_norm_eps=eps) for eps in (0.1, 1e-12))
        assert (model(**_inputs(batch)).pooler_output - same(**_inputs(batch)).pooler_output).abs().max() > 1e-3
        model.save_pretrained(tmp_path)
        assert weights.read(tmp_path).norm_eps == 0.1
        with pytest.raises(UserError, match=r"layer_norm_eps=0\.1 \(config\.json\), this model with 1e-12"):
            _ours_without_heads(tmp_path)

    def test_another_normalisation_of_images(self, folder):
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
        weights.read(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.485, 0.456, 0.406]}))
        with pytest.raises(UserError, match=r"preprocessor_config\.json asks for image_mean"):
            weights.read(folder)

    @pytest.mark.parametrize("labels", [{"x": "a"}, {"17": "a"}, {str(10**12): "a"}, {"-1": "a"}, ["a"], "a"])
    def test_labels_that_the_classifier_lacks(self, tmp_path, labels):
        _theirs("ViltForQuestionAnswering", num_labels=17).save_pretrained(tmp_path)
        self._configure(tmp_path, id2label=labels)
        with pytest.raises(UserError, match=r"config\.json: id2label names others than the 17 labels"):
            weights.read(tmp_path)

    def test_sharded_folder(self, tmp_path):
        model = _theirs("ViltModel")
        model.save_pretrained(tmp_path, max_shard_size="60KB")
        assert not (tmp_path / "model.safetensors").exists()
        expected = model.state_dict()["encoder.layer.2.output.dense.weight"]
        assert torch.equal(weights.read(tmp_path).state["encoder.blocks.2.mlp.fc2.weight"], expected)
        assert weights.read(tmp_path).heads == 4

    def test_folder_with_other_files(self, tmp_path):
        (tmp_path / "last.ckpt").write_text("")
        with pytest.raises(MissingFile, match=r"It has last\.ckpt: name one of these"):
            weights.read(tmp_path)

    @pytest.mark.parametrize("content", ["[]", "3", "null", "[" * 100_000, "\x00", '{"model_type": ["vilt"]}'])
    def test_configurations_of_other_kinds(self, folder, content):
        (folder / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json"):
            weights.read(folder)

    def test_damaged_config(self, folder):
        (folder / "config.json").write_text("{")
        with pytest.raises(UserError, match=r"config.json is not readable as JSON"):
            weights.read(folder)

    def test_patches_of_another_size(self, tmp_path, monkeypatch):
        _theirs("ViltModel", patch_size=32).save_pretrained(tmp_path)
        monkeypatch.setitem(ENCODERS, "patch32", replace(SIZE, patch_size=32))
        with pytest.raises(UserError, match=r"\(32, 3, 32, 32\), wanted \(32, 3, 16, 16\).*vit=patch32"):
            _ours_without_heads(tmp_path)


def test_sizes_move_with_the_batch(batch):
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved.images.sizes, ImageSizes)
    assert moved.images.sizes.height_width.device.type == "meta"
    assert moved.images.sizes.largest == batch.images.sizes.largest == 64 * 96


@pytest.fixture
def shaped_arrows(tmp_path) -> Path:
    """Tables of coco and vqa whose images have several shapes; PNG, so that all decoders agree."""
    shapes = [(40, 30), (30, 40), (90, 40), (64, 64), (30, 50), (50, 45)]
    for name in ("coco", "vqa"):
        spec, first = CATALOG[name], 0
        for split, stems in spec.tables.items():
            for stem in stems:
                columns = tiny.rows(spec, split, len(shapes), first)
                first += len(shapes)
                images = [tiny.image_bytes(first + number, shape, "PNG") for number, shape in enumerate(shapes)]
                tiny.write_table(tmp_path / "arrows" / f"{stem}.arrow", columns | {"image": images})
    return tmp_path / "arrows"


def _options(arrows: Path, small_vilt: str) -> dict:
    return {"data_root": str(arrows), "log_dir": str(arrows / "logs"), "vit": small_vilt, "image_size": 64}


@torch.no_grad()
def test_testing_a_hub_checkpoint_from_files_to_answers(shaped_arrows, small_vilt, tmp_path):
    tokenizer, processor = load_tokenizer("emoji"), ImageProcessor(size={"shortest_edge": 64})
    config = {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 96, "patch_size": 32}
    config |= {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    theirs = _theirs("ViltForQuestionAnswering", **config, id2label={label: f"a{label}" for label in range(9)})
    theirs.save_pretrained(tmp_path / "vilt-b32-finetuned-vqa")
    options = _options(shaped_arrows, small_vilt) | {"load_path": str(tmp_path / "vilt-b32-finetuned-vqa")}
    metrics = run(tiny.settings("task_finetune_vqa", **options, vqav2_label_size=9, test_only=True))
    said = json.loads((Path(metrics["log_dir"]) / "vqa_test.json").read_text())
    table = pa.ipc.open_file(str(shaped_arrows / "vqav2_test.arrow")).read_all().to_pydict()
    assert len(said) == tiny.TEXTS * len(table["image"])
    given = {record["question_id"]: record["answer"] for record in said}
    seen = set()
    for image, questions, numbers in zip(table["image"], table["questions"], table["question_id"], strict=True):
        pixels = processor(Image.open(io.BytesIO(image)).convert("RGB"), return_tensors="pt")
        for question, number in zip(questions, numbers, strict=True):
            answer = theirs(
                input_ids=torch.tensor([TextEncoder(tokenizer, 16)(question).ids]), **pixels
            ).logits.argmax()
            assert given[number] == theirs.config.id2label[int(answer)]
            seen.add(given[number])
    assert len(seen) > 1


@pytest.mark.parametrize("source", ["batch", "dataset"])
def test_pretraining_on_images_of_several_shapes(shaped_arrows, small_vilt, source):
    options = _options(shaped_arrows, small_vilt) | {"datasets": ["coco"], "mlm_prob": 0.5, "max_image_len": 3}
    metrics = run(tiny.settings("task_mlm_itm", **options, false_image_source=source, max_steps=2))
    assert {"mlm/val/accuracy", "itm/val/wpa_loss"} <= set(metrics)
    assert all(np.isfinite(value) for name, value in metrics.items() if name != "log_dir")


def test_retrieval_and_contrast_on_images_of_several_shapes(shaped_arrows, small_vilt):
    losses = loss_weights(irtr=1, itc=1)
    options = _options(shaped_arrows, small_vilt) | {"loss_names": losses, "draw_false_text": 3}
    metrics = run(tiny.settings("task_finetune_irtr_coco", **options))
    assert 0 <= metrics["irtr/val/ir_r1"] <= 1
    assert metrics["val/the_metric"] == pytest.approx(metrics["irtr/val/ir_r1"] + metrics["irtr/val/tr_r1"])
