"""Reading, recognising, loading and exporting checkpoints, against the published loading cases and real layouts."""

import argparse
import json

import pytest
import timm
import torch

from tests import golden_models, tiny
from vlc import checkpoint
from vlc.errors import MissingFile, UserError
from vlc.formats import FORMATS
from vlc.model.embed import sincos_positions
from vlc.module import VLCModule
from vlc.recipes import loss_weights

# The published cases that concern this model: name -> (image size, whether the decoder exists here).
LOADING_CASES = {
    "pretrain_path_64_to_96": 96,
    "pretrain_path_64_to_64": 64,
    "pretrain_path_encoder_only_64_to_96": 96,
    "pretrain_path_64_to_64_finetune": 64,
    "load_path_64_to_96_finetune": 96,
    "load_path_64_to_32_finetune": 32,
    "load_path_64_to_64_finetune": 64,
    "load_path_modelkey_64_to_96_finetune": 96,
    "load_path_64_to_96_test_only": 96,
}
# Cases that fail, or load nothing, in the published code: here they load like the case named beside them.
MENDED_CASES = {
    "pretrain_path_64_to_96_finetune": "pretrain_path_64_to_96",
    "load_path_64_to_96_pretrain": "load_path_64_to_96_finetune",
    "load_path_mae_64_to_64_finetune": "pretrain_path_64_to_64",
    "load_path_mae_64_to_96_finetune": "pretrain_path_64_to_96",
}


def _module(image_size: int = 64, max_text_len: int = 12, num_images: int = 1, **weights: float) -> VLCModule:
    losses = loss_weights(**(weights or {"mlm": 1, "mae": 1, "itm": 1}))
    torch.manual_seed(0)
    settings = golden_models.model_settings(loss_names=losses)
    return golden_models.build_module(settings, image_size, max_text_len, num_images=num_images)


@pytest.mark.parametrize("name", [*LOADING_CASES, *MENDED_CASES])
def test_position_tables_after_loading(golden, name):
    case = json.loads((golden / "posembed/cases.json").read_text())[name]
    module = _module(case["image_size"])
    report = checkpoint.load(
        module, checkpoint.read(golden / "posembed" / (case["pretrain_path"] or case["load_path"]))
    )
    expected = torch.load(golden / f"posembed/result_{MENDED_CASES.get(name, name)}.pt", weights_only=True)
    torch.testing.assert_close(module.encoder.pos_embed, expected["pos_embed"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(module.objectives["mae"].pos_embed, expected["decoder_pos_embed"], atol=1e-5, rtol=1e-4)
    resized = {"encoder.pos_embed", "objectives.mae.pos_embed"} if case["image_size"] != 64 else set()
    assert set(report.resized) == resized - set(report.new)


def test_a_file_without_decoder_leaves_the_decoder_new(golden):
    module = _module(96)
    report = checkpoint.load(module, checkpoint.read(golden / "posembed/mae_64_encoder_only.pth"))
    assert any(name.startswith("objectives.mae") for name in report.new)
    assert torch.equal(module.objectives["mae"].pos_embed, sincos_positions(32, 6))


def test_third_token_type_starts_as_the_second(golden):
    module = _module(num_images=2)
    checkpoint.load(module, checkpoint.read(golden / "posembed/vlc_pretrain_64.ckpt"))
    expected = torch.load(golden / "posembed/result_nlvr2_token_types.pt", weights_only=True)
    expected = expected if isinstance(expected, torch.Tensor) else next(iter(expected.values()))
    torch.testing.assert_close(module.encoder.token_types.weight.detach(), expected)


def test_pair_checkpoint_loads_into_a_model_of_single_images(golden):
    module, source = _module(), checkpoint.read(golden / "tiny/nlvr2.ckpt")
    checkpoint.load(module, source)
    assert torch.equal(module.encoder.token_types.weight, source.state["encoder.token_types.weight"][:2])


def test_text_positions_for_another_length(golden):
    source = checkpoint.read(golden / "posembed/vlc_pretrain_64.ckpt")
    stored = source.state["encoder.text_embeddings.position_embeddings.weight"]
    for length in (8, 16):
        module = _module(max_text_len=length)
        report = checkpoint.load(module, source)
        table = module.encoder.text_embeddings.position_embeddings.weight
        assert torch.equal(table[:12], stored[:length])
        assert report.resized == ["encoder.text_embeddings.position_embeddings.weight"]


def test_weights_under_module_and_model_are_found(golden, tmp_path):
    state = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)["state_dict"]
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pt")
    assert checkpoint.read(tmp_path / "a.pt").layout.name == "vlc_release"


def test_timm_vit_is_read_as_an_image_model(tmp_path, small_vit):
    vit = timm.models.VisionTransformer(img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=5)
    torch.save(vit.state_dict(), tmp_path / "timm.pth")
    source = checkpoint.read(tmp_path / "timm.pth")
    module = _small_module()
    report = checkpoint.load(module, source)
    assert report.unused == ["objectives.classes.head.weight", "objectives.classes.head.bias"]
    assert "not in this model" in str(report)
    assert not report.dropped
    assert torch.equal(module.encoder.blocks[1].mlp.fc2.weight, vit.blocks[1].mlp.fc2.weight)
    assert not [name for name in report.new if name.startswith(("encoder.blocks", "encoder.patch", "encoder.norm"))]


def _small_module(**weights: float) -> VLCModule:
    settings = tiny.settings("task_mlm_itm_mae", loss_names=loss_weights(**(weights or {"mlm": 1})))
    return VLCModule(settings.model, image_size=32, max_text_len=16, vocab_size=50)


_BESIDE_THE_IMAGE = ("encoder.text", "encoder.token", "encoder.pooler", "objectives.mlm", "objectives.itm")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("layout", FORMATS)
def test_export_and_back(golden, tmp_path, layout, suffix):
    source = checkpoint.read(golden / "tiny/pretrain.ckpt")
    left_out = checkpoint.export(source, tmp_path / f"x{suffix}", layout)
    again = checkpoint.read(tmp_path / f"x{suffix}")
    assert again.layout.name == {"vilt_nlvr2": "vilt"}.get(layout, layout), "without a classifier there is no telling"
    assert set(again.state) == set(source.state) - set(left_out)
    assert all(torch.equal(again.state[name], source.state[name]) for name in again.state)
    left = {
        "mae": _BESIDE_THE_IMAGE,
        "vilt": "objectives.mae.",
        "vilt_nlvr2": "objectives.mae.",
        "vilt_model": "objectives.",
    }
    assert left_out == [name for name in source.state if name.startswith(left.get(layout, "nothing"))]


def test_exported_release_has_the_published_keys(golden, tmp_path):
    checkpoint.export(checkpoint.read(golden / "tiny/pretrain.ckpt"), tmp_path / "x.ckpt", "vlc_release")
    published = torch.load(golden / "tiny/pretrain.ckpt", weights_only=True)["state_dict"]
    written = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert set(written) == set(published) - {"text_embeddings.position_ids"}
    assert all(torch.equal(written[key], published[key]) for key in written)


def test_extras_travel(golden, tmp_path):
    source = checkpoint.read(golden / "tiny/vqa.ckpt")
    with_answers = checkpoint.Checkpoint(source.path, source.layout, source.state, (), {"answers": ["yes", "no"]})
    for name in ("a.ckpt", "a.safetensors"):
        checkpoint.export(with_answers, tmp_path / name, "vlc")
        assert checkpoint.read(tmp_path / name).extras == {"answers": ["yes", "no"]}


def test_classes_in_a_file_are_replaced_by_empty_ones(golden, tmp_path):
    """Old Lightning files key their callbacks by class; MAE's hold an argparse.Namespace."""
    content = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)
    content |= {"args": argparse.Namespace(lr=1), "callbacks": {argparse.ArgumentParser: {"best": torch.zeros(1)}}}
    torch.save(content, tmp_path / "old.ckpt")
    assert checkpoint.read(tmp_path / "old.ckpt").layout.name == "vlc_release"


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_code_in_a_file_is_not_run(golden, tmp_path):
    content = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)
    torch.save(content | {"evil": _Attack()}, tmp_path / "evil.ckpt")
    assert checkpoint.read(tmp_path / "evil.ckpt").layout.name == "vlc_release"


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(MissingFile, match=r"nothing\.ckpt does not exist"):
            checkpoint.read(tmp_path / "nothing.ckpt")

    @pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors"])
    def test_not_a_checkpoint(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        for content in (b"", b"hello world", bytes(range(256)) * 40):
            path.write_bytes(content)
            with pytest.raises(UserError, match="not a readable checkpoint"):
                checkpoint.read(path)

    def test_truncated(self, golden, tmp_path):
        path = tmp_path / "x.ckpt"
        path.write_bytes((golden / "tiny/mlm.ckpt").read_bytes()[:200_000])
        with pytest.raises(UserError, match="not a readable checkpoint"):
            checkpoint.read(path)

    def test_other_models(self, tmp_path):
        torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "resnet.pth")
        with pytest.raises(UserError, match=r"not of a known layout.*vlc_release.*conv1\.weight"):
            checkpoint.read(tmp_path / "resnet.pth")

    def test_unknown_parameters(self, golden, tmp_path):
        state = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)["state_dict"]
        torch.save({"state_dict": state | {"surprise.weight": torch.zeros(1)}}, tmp_path / "x.ckpt")
        with pytest.raises(UserError, match=r"without a place here: surprise\.weight"):
            checkpoint.read(tmp_path / "x.ckpt")

    def test_missing_encoder_weights(self, golden, tmp_path):
        state = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)["state_dict"]
        state = {key: value for key, value in state.items() if "blocks.1.mlp" not in key}
        torch.save({"state_dict": state}, tmp_path / "x.ckpt")
        module = _module(mlm=1)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(UserError, match=r"lacks 4 parameters of this model: encoder\.blocks 4"):
            checkpoint.load(module, checkpoint.read(tmp_path / "x.ckpt"))
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_another_width(self, golden, small_vit):
        with pytest.raises(UserError, match=r"encoder\.cls_token \(1, 1, 64\), wanted \(1, 1, 32\).*Check vit"):
            checkpoint.load(_small_module(), checkpoint.read(golden / "tiny/mlm.ckpt"))

    def test_test_only_needs_the_heads(self, golden):
        source = checkpoint.read(golden / "posembed/vlc_pretrain_64.ckpt")
        with pytest.raises(UserError, match=r"objectives\.vqa 6.*Evaluation needs every weight"):
            checkpoint.load(_module(vqa=1), source, complete=True)
        assert checkpoint.load(_module(vqa=1), source).new

    def test_an_image_model_cannot_be_tested(self, golden):
        with pytest.raises(UserError, match=r"encoder\.text_embeddings"):
            checkpoint.load(_module(mae=1), checkpoint.read(golden / "posembed/mae_64.pth"), complete=True)


def test_head_of_another_size_stays_new(golden):
    module = _module(vqa=1)
    source = checkpoint.read(golden / "tiny/vqa.ckpt")
    source.state["objectives.vqa.classifier.3.weight"] = torch.zeros(5, 128)
    report = checkpoint.load(module, source)
    assert report.new == ["objectives.vqa.classifier.3.weight"]
    assert "(5, 128), wanted (17, 128)" in str(report)


def test_command_line(golden, tmp_path, monkeypatch, capsys):
    target = tmp_path / "mae.pth"
    monkeypatch.setattr("sys.argv", ["checkpoint", str(golden / "tiny/vqa.ckpt"), str(target), "--layout", "mae"])
    checkpoint.main()
    assert "layout vlc_release" in capsys.readouterr().out
    assert checkpoint.read(target).layout.name == "mae"
    monkeypatch.setattr("sys.argv", ["checkpoint", str(tmp_path / "absent.ckpt")])
    with pytest.raises(SystemExit) as stop:
        checkpoint.main()
    assert stop.value.code == 2
