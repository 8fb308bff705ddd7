"""Other families of ViTs: files of other projects give the encoder what those compute, or are refused with a reason."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from benchmarks.families import REFERENCES, Holder, Reference, loaded, measured, randomised, stored
from tests import kinds_of_tokenizers, tiny
from vlc.checkpoint import weights
from vlc.checkpoint.formats import BEIT3, LAYOUTS, OPEN_CLIP, VIT, VIT_GATED
from vlc.common.errors import UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.pieces import shared_pieces
from vlc.data.tokens import load_tokenizer
from vlc.model.encoder import Encoder
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.training.module import VLCModule


def _of(vit: str, project: str = "timm") -> Reference:
    return next(one for one in REFERENCES if (one.vit, one.project) == (vit, project))


def _encoder(size: EncoderConfig, grid: int = 4) -> Encoder:
    return Encoder(size, grid * size.patch_size, vocab_size=8, max_text_len=4)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda one: f"{one.project}_{one.vit}")
def test_the_image_half_equals_that_of_its_project(reference):
    if reference.project in ("open_clip", "torchscale"):
        pytest.importorskip(reference.project)
    size = tiny.of_family(reference.vit)
    assert measured(reference, size, 4 * size.patch_size) < 1e-5


def _keys_of_beit3(state: dict) -> dict:
    """The parameters of an encoder under BEiT-3's names, with the half of texts beside them."""
    theirs = BEIT3.split({BEIT3.theirs(name): value for name, value in state.items()})
    table = theirs["encoder.embed_positions.A.weight"][0]
    theirs["encoder.embed_positions.A.weight"] = torch.cat([torch.randn(2, table.shape[1]), table])
    theirs |= {name.replace(".A.", ".B."): value + 1 for name, value in theirs.items() if ".A." in name}
    theirs["text_embed.weight"] = torch.randn(8, 48)
    return {f"beit3.{name}": value for name, value in theirs.items()}


def test_the_half_of_beit3_that_sees_images(tmp_path):
    size = tiny.of_family("beit3_vit_base_patch16")
    source = randomised(_encoder(size))
    image = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")
    state = {f"encoder.{name}": value for name, value in source.state_dict().items() if name.startswith(image)}
    torch.save({"model": _keys_of_beit3(state)}, tmp_path / "beit3.pth")
    checkpoint = weights.read(tmp_path / "beit3.pth")
    assert checkpoint.layout is BEIT3
    torch.testing.assert_close(checkpoint.state, state, rtol=0, atol=0)
    assert any(".B." in name for name in checkpoint.dropped)


def test_facebooks_names_are_written_and_read(tmp_path):
    size = tiny.of_family("dinov2_vit_base_patch14_reg")
    path = stored(randomised(_of("dinov2_vit_base_patch14_reg").build(size, 56)), tmp_path)
    checkpoint = weights.read(path)
    weights.export(checkpoint, tmp_path / "facebook.pth", "vit")
    written = torch.load(tmp_path / "facebook.pth", weights_only=True)["model"]
    assert written["register_tokens"].shape == (1, 4, 48)
    torch.save(written | {"mask_token": torch.zeros(1, 48)}, tmp_path / "with_mask.pth")
    again = weights.read(tmp_path / "with_mask.pth")
    assert again.layout is VIT
    assert again.dropped == ("mask_token",)
    torch.testing.assert_close(again.state, checkpoint.state, rtol=0, atol=0)
    weights.export(checkpoint, tmp_path / "model.safetensors", "dinov2")  # transformers' names
    hub = load_file(tmp_path / "model.safetensors")
    names = dict(_of("dinov2_vit_base_patch14_reg", "transformers").build(size, 56).state_dict())
    assert set(hub) >= {name for name in names if "attention" not in name} - {"embeddings.mask_token"}


def test_timm_reads_an_exported_clip(tmp_path):
    size = tiny.of_family("clip_vit_base_patch16")
    model = randomised(_of("clip_vit_base_patch16").build(size, 64))
    weights.export(weights.read(stored(model, tmp_path)), tmp_path / "x.pth", "vit")
    again = torch.load(tmp_path / "x.pth", weights_only=True)["model"]
    torch.testing.assert_close(again, dict(model.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layout", "vit", "project"),
    [
        (VIT_GATED, "dinov2_vit_giant_patch14", "transformers"),
        (OPEN_CLIP, "clip_vit_base_patch16", "timm"),
    ],
    ids=["dinov2", "open_clip"],
)
def test_names_of_other_releases(tmp_path, layout, vit, project):
    size = tiny.of_family(vit)
    checkpoint = weights.read(stored(randomised(_of(vit, project).build(size, 4 * size.patch_size)), tmp_path))
    theirs = {layout.theirs(name): value for name, value in checkpoint.state.items()}
    other = (
        {"token_embedding.weight": torch.zeros(2, 2), "visual.proj": torch.zeros(2, 2)} if layout is OPEN_CLIP else {}
    )
    torch.save(theirs | other, tmp_path / "other.pt")
    again = weights.read(tmp_path / "other.pt")
    assert again.layout is layout
    assert again.dropped == tuple(other)
    torch.testing.assert_close(again.state, checkpoint.state, rtol=0, atol=0)


@pytest.mark.parametrize("grid", [3, 6])
def test_positions_are_resized(tmp_path, grid):
    size = tiny.of_family("siglip_vit_base_patch16")
    path = stored(randomised(_of("siglip_vit_base_patch16").build(size, 64)), tmp_path)
    holder = Holder(_encoder(size, grid))
    report = weights.load(holder, weights.read(path))
    assert report.resized == ["encoder.pos_embed"]
    assert "encoder.cls_token" in report.new
    assert not holder.encoder.pos_embed[:, 0].any()
    assert any(name.startswith("attn_pool") for name in report.dropped)


def test_a_text_tower_beside_the_image_half_is_dropped_and_reported(tmp_path):
    size = tiny.of_family("siglip_vit_base_patch16")
    model = randomised(_of("siglip_vit_base_patch16").build(size, 64))
    state = {f"visual.trunk.{name}": value for name, value in model.state_dict().items()}
    torch.save(state | {"text.token_embedding.weight": torch.zeros(2, 2)}, tmp_path / "open_clip.pt")
    torch.save(model.state_dict(), tmp_path / "timm.pt")
    checkpoint = weights.read(tmp_path / "open_clip.pt")
    assert "text.token_embedding.weight" in checkpoint.dropped
    torch.testing.assert_close(checkpoint.state, weights.read(tmp_path / "timm.pt").state, rtol=0, atol=0)


def test_masks_of_biases_are_applied(tmp_path):
    """DINOv3's release keeps a bias of keys that its mask takes away."""
    size = tiny.of_family("dinov3_vit_base_patch16")
    state = weights.read(stored(randomised(_of("dinov3_vit_base_patch16").build(size, 64)), tmp_path)).state
    theirs = {VIT.theirs(name): value for name, value in state.items()}
    mask = torch.cat([torch.ones(48), torch.zeros(48), torch.ones(48)])
    for block in (0, 1):
        theirs[f"blocks.{block}.attn.qkv.bias"] = torch.ones(144)
        theirs[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    theirs["storage_tokens"] = theirs.pop("register_tokens")
    theirs["rope_embed.periods"] = torch.ones(4)
    torch.save(theirs, tmp_path / "facebook.pth")
    read = weights.read(tmp_path / "facebook.pth")
    assert torch.equal(read.state["encoder.blocks.1.attn.qkv.bias"], mask)
    weights.load(Holder(_encoder(size)), read)


@pytest.mark.parametrize(
    ("vit", "other"),
    [
        ("dinov2_vit_base_patch14", "dinov2_vit_base_patch14_reg"),
        ("deit3_vit_base_patch16", "siglip_vit_base_patch16"),
        ("eva02_vit_base_patch14", "dinov2_vit_base_patch14"),
        ("dinov3_vit_base_patch16", "deit3_vit_base_patch16"),
    ],
)
def test_an_error_names_the_fitting_encoder(tmp_path, monkeypatch, vit, other):
    for name in ENCODERS:
        monkeypatch.setitem(ENCODERS, name, replace(ENCODERS[name], width=48, depth=2, heads=4))
    size = ENCODERS[vit]
    path = stored(_of(vit).build(size, 4 * size.patch_size), tmp_path)
    with pytest.raises(UserError, match=rf"The file fits vit=.*\b{vit}\b(?!_)"):
        weights.load(Holder(_encoder(ENCODERS[other])), weights.read(path))


def test_another_activation_than_config_json_states(tmp_path):
    size = tiny.of_family("clip_vit_base_patch16")
    path = stored(_of("clip_vit_base_patch16", "transformers").build(size, 64), tmp_path)
    loaded(size, 64, path)
    with pytest.raises(UserError, match="activation quick_gelu .* this model gelu"):
        loaded(tiny.of_family("openclip_vit_base_patch16"), 64, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    with pytest.raises(UserError, match="of type 't5': only vilt, vlc, the image halves of clip"):
        weights.read(path)


@pytest.mark.parametrize("reference", REFERENCES[::8], ids=lambda one: f"{one.project}_{one.vit}")
def test_parameters_of_no_sensible_shape(tmp_path, reference):
    """Whichever parameter is a lone number: the file is refused in a sentence."""
    size = tiny.of_family(reference.vit)
    state = dict(reference.build(size, 4 * size.patch_size).state_dict())
    holder = Holder(_encoder(size))
    for key in sorted(key for key in state if ".1." not in key):
        torch.save(state | {key: torch.tensor(1.0)}, tmp_path / "x.pth")
        try:
            checkpoint = weights.read(tmp_path / "x.pth")
            weights.load(holder, checkpoint)
        except UserError:
            continue
        assert (
            key.removeprefix("vision_model.") in checkpoint.dropped
            or checkpoint.state.keys() - holder.state_dict().keys()
        )


def test_a_model_of_timm_that_cannot_be_fetched(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="timm has no model of the name vit_nonsense"):
        weights.read("timm:vit_nonsense")
    with pytest.raises(UserError, match="weights of timm:vit_small_patch14_dinov2 are not here, and cannot be fetched"):
        weights.read("timm:vit_small_patch14_dinov2")


def test_a_model_of_timm_by_its_name(monkeypatch):
    size = tiny.of_family("dinov2_vit_base_patch14_reg")
    model = randomised(_of("dinov2_vit_base_patch14_reg").build(size, 56))
    monkeypatch.setattr("timm.create_model", lambda name, pretrained, num_classes: model)
    checkpoint = weights.read("timm:vit_base_patch14_reg4_dinov2.lvd142m")
    assert (checkpoint.layout, checkpoint.heads) == (VIT, 4)
    assert "encoder.registers" in weights.load(Holder(_encoder(size)), checkpoint).loaded


def test_layouts_have_names_of_their_own():
    assert all(name == layout.name for name, layout in LAYOUTS.items())


def test_texts_may_start_from_bert(tmp_path, monkeypatch):
    """Word, position and segment embeddings by the pieces that both tokenizers have; the rest keeps its values."""
    monkeypatch.setitem(ENCODERS, "small_one", tiny.SMALL)
    tokenizer = kinds_of_tokenizers.write("bert", tmp_path / "bert")
    theirs = load_tokenizer(tokenizer)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    bert = randomised(BertModel(BertConfig(vocab_size=len(theirs), max_position_embeddings=40, **sizes)))
    bert.save_pretrained(tmp_path / "bert")
    settings = tiny.settings(vit="small_one", datasets=["coco"], loss_names=loss_weights(mlm=1), load_path=tokenizer)
    module = VLCModule(
        settings.model, settings.tasks, image_size=32, max_text_len=16, vocab_size=len(load_tokenizer("emoji"))
    )
    before = {name: value.clone() for name, value in module.state_dict().items()}
    here = load_tokenizer("emoji")
    checkpoint, (said,) = weights.with_vocabularies(weights.read(tokenizer), module, here)
    report = weights.load(module, checkpoint)
    words, pairs = module.state_dict()[weights.WORDS], shared_pieces(here, theirs)
    assert f"{len(pairs):,} pieces" in said
    own, other = map(list, zip(*pairs, strict=True))
    assert torch.equal(words[own], bert.embeddings.word_embeddings.weight[other])
    positions = module.encoder.text_embeddings.position_embeddings.weight
    assert torch.equal(positions, bert.embeddings.position_embeddings.weight[:16])
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if not name.startswith("encoder.text_embeddings.")} <= set(report.derived)
    assert not [name for name in report.new if not name.startswith("encoder.text_embeddings.")]
