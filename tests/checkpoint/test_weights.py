"""Reading, recognising, loading and exporting checkpoints, against the published loading cases and real layouts."""

import argparse
import json
import os
import resource
import signal
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests import golden_models, tiny
from tests.training.test_image_classifier import classifier
from vlc.checkpoint import weights
from vlc.checkpoint.__main__ import main as checkpoint_main
from vlc.common.errors import MissingFile, UserError
from vlc.configuration.recipes import loss_weights
from vlc.model.embed import sincos_positions
from vlc.model.regions import BoxTokens
from vlc.model.sizes import ENCODERS
from vlc.training.module import VLCModule

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
# Layouts of models with a text half, and MAE's. Those of other ViTs are tested in test_families.py.
OF_THIS_MODEL = ("vlc", "vlc_release", "mae", "vilt_nlvr2", "vilt", "vilt_model")


def _module(image_size: int = 64, max_text_len: int = 12, num_images: int = 1, **weights: float) -> VLCModule:
    losses = loss_weights(**(weights or {"mlm": 1, "mae": 1, "itm": 1}))
    torch.manual_seed(0)
    settings = golden_models.model_settings(loss_names=losses)
    return golden_models.build_module(settings, image_size, max_text_len, num_images=num_images)


@pytest.mark.parametrize("name", [*LOADING_CASES, *MENDED_CASES])
def test_position_tables_after_loading(golden, name):
    case = json.loads((golden / "posembed/cases.json").read_text())[name]
    module = _module(case["image_size"])
    report = weights.load(module, weights.read(golden / "posembed" / (case["pretrain_path"] or case["load_path"])))
    expected = torch.load(golden / f"posembed/result_{MENDED_CASES.get(name, name)}.pt", weights_only=True)
    torch.testing.assert_close(module.encoder.pos_embed, expected["pos_embed"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(module.objectives["mae"].pos_embed, expected["decoder_pos_embed"], atol=1e-5, rtol=1e-4)
    resized = {"encoder.pos_embed", "objectives.mae.pos_embed"} if case["image_size"] != 64 else set()
    assert set(report.resized) == resized - set(report.new)


def test_box_tokens_start_anew_where_a_file_lacks_them_and_are_left_out_where_the_model_has_none(golden, tmp_path):
    source, module = weights.read(golden / "tiny/mlm.ckpt"), _module(mlm=1)
    module.encoder.regions = BoxTokens(64, 4)
    before = {name: value.clone() for name, value in module.encoder.regions.state_dict().items()}
    assert weights.load(module, source).new == [f"encoder.regions.{name}" for name in before]
    torch.testing.assert_close(dict(module.encoder.regions.state_dict()), before)
    with pytest.raises(UserError, match="lacks 5 parameters of this model: encoder.regions 5"):
        weights.load(module, source, complete=True)
    save_file(module.state_dict(), tmp_path / "boxes.safetensors")
    stored = weights.read(tmp_path / "boxes.safetensors")
    assert not weights.load(module, stored, complete=True).new
    assert set(weights.load(_module(mlm=1), stored, complete=True).unused) == {
        f"encoder.regions.{name}" for name in before
    }


def test_a_file_without_decoder_leaves_the_decoder_new(golden):
    module = _module(96)
    report = weights.load(module, weights.read(golden / "posembed/mae_64_encoder_only.pth"))
    assert any(name.startswith("objectives.mae") for name in report.new)
    assert torch.equal(module.objectives["mae"].pos_embed, sincos_positions(32, 6))


def test_third_token_type_starts_as_the_second(golden):
    module = _module(num_images=2)
    weights.load(module, weights.read(golden / "posembed/vlc_pretrain_64.ckpt"))
    expected = torch.load(golden / "posembed/result_nlvr2_token_types.pt", weights_only=True)
    expected = expected if isinstance(expected, torch.Tensor) else next(iter(expected.values()))
    torch.testing.assert_close(module.encoder.token_types.weight.detach(), expected)


def test_pair_checkpoint_loads_into_a_model_of_single_images(golden):
    module, source = _module(), weights.read(golden / "tiny/nlvr2.ckpt")
    weights.load(module, source)
    assert torch.equal(module.encoder.token_types.weight, source.state["encoder.token_types.weight"][:2])


def test_text_positions_for_another_length(golden):
    source = weights.read(golden / "posembed/vlc_pretrain_64.ckpt")
    stored = source.state["encoder.text_embeddings.position_embeddings.weight"]
    for length in (8, 16):
        module = _module(max_text_len=length)
        report = weights.load(module, source)
        table = module.encoder.text_embeddings.position_embeddings.weight
        assert torch.equal(table[:12], stored[:length])
        assert report.resized == ["encoder.text_embeddings.position_embeddings.weight"]


def test_weights_under_module_and_model_are_found(golden, tmp_path):
    state = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)["state_dict"]
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pt")
    assert weights.read(tmp_path / "a.pt").layout.name == "vlc_release"


def test_timm_vit_is_read_as_an_image_model(tmp_path, small_vit):
    vit = timm.models.VisionTransformer(img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=5)
    torch.save(vit.state_dict(), tmp_path / "timm.pth")
    source = weights.read(tmp_path / "timm.pth")
    module = _small_module()
    report = weights.load(module, source)
    assert report.unused == ["objectives.classes.head.weight", "objectives.classes.head.bias"]
    assert "not in this model" in str(report)
    assert not report.dropped
    assert torch.equal(module.encoder.blocks[1].mlp.fc2.weight, vit.blocks[1].mlp.fc2.weight)
    assert not [name for name in report.new if name.startswith(("encoder.blocks", "encoder.patch", "encoder.norm"))]


def _small_module(**weights: float) -> VLCModule:
    settings = tiny.settings("task_mlm_itm_mae", loss_names=loss_weights(**(weights or {"mlm": 1})))
    return VLCModule(settings.model, settings.tasks, image_size=32, max_text_len=16, vocab_size=50)


_BESIDE_THE_IMAGE = ("encoder.text", "encoder.token", "encoder.pooler", "objectives.mlm", "objectives.itm")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("layout", OF_THIS_MODEL)
def test_export_and_back(golden, tmp_path, layout, suffix):
    source = weights.read(golden / "tiny/pretrain.ckpt")
    left_out = weights.export(source, tmp_path / f"x{suffix}", layout)
    again = weights.read(tmp_path / f"x{suffix}")
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
    weights.export(weights.read(golden / "tiny/pretrain.ckpt"), tmp_path / "x.ckpt", "vlc_release")
    published = torch.load(golden / "tiny/pretrain.ckpt", weights_only=True)["state_dict"]
    written = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert set(written) == set(published) - {"text_embeddings.position_ids"}
    assert all(torch.equal(written[key], published[key]) for key in written)


def test_extras_travel(golden, tmp_path):
    source = weights.read(golden / "tiny/vqa.ckpt")
    with_answers = weights.Checkpoint(source.path, source.layout, source.state, (), {"answers": ["yes", "no"]})
    for name in ("a.ckpt", "a.safetensors"):
        weights.export(with_answers, tmp_path / name, "vlc")
        assert weights.read(tmp_path / name).extras == {"answers": ["yes", "no"]}


def test_classes_in_a_file_are_replaced_by_empty_ones(golden, tmp_path):
    """Old Lightning files key their callbacks by class; MAE's hold an argparse.Namespace."""
    content = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)
    content |= {"args": argparse.Namespace(lr=1), "callbacks": {argparse.ArgumentParser: {"best": torch.zeros(1)}}}
    torch.save(content, tmp_path / "old.ckpt")
    assert weights.read(tmp_path / "old.ckpt").layout.name == "vlc_release"


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_code_in_a_file_is_not_run(golden, tmp_path):
    content = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)
    torch.save(content | {"evil": _Attack()}, tmp_path / "evil.ckpt")
    assert weights.read(tmp_path / "evil.ckpt").layout.name == "vlc_release"


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(MissingFile, match=r"nothing\.ckpt does not exist"):
            weights.read(tmp_path / "nothing.ckpt")

    @pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors"])
    def test_not_a_checkpoint(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        for content in (b"", b"hello world", bytes(range(256)) * 40):
            path.write_bytes(content)
            with pytest.raises(UserError, match="not a readable checkpoint"):
                weights.read(path)

    def test_truncated(self, golden, tmp_path):
        path = tmp_path / "x.ckpt"
        path.write_bytes((golden / "tiny/mlm.ckpt").read_bytes()[:200_000])
        with pytest.raises(UserError, match="not a readable checkpoint"):
            weights.read(path)

    def test_other_models(self, tmp_path):
        torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "resnet.pth")
        with pytest.raises(UserError, match=r"not of a known layout.*vlc_release.*conv1\.weight"):
            weights.read(tmp_path / "resnet.pth")

    def test_unknown_parameters(self, golden, tmp_path):
        state = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)["state_dict"]
        torch.save({"state_dict": state | {"surprise.weight": torch.zeros(1)}}, tmp_path / "x.ckpt")
        with pytest.raises(UserError, match=r"without a place here: surprise\.weight"):
            weights.read(tmp_path / "x.ckpt")

    def test_missing_encoder_weights(self, golden, tmp_path):
        state = torch.load(golden / "tiny/mlm.ckpt", weights_only=True)["state_dict"]
        state = {key: value for key, value in state.items() if "blocks.1.mlp" not in key}
        torch.save({"state_dict": state}, tmp_path / "x.ckpt")
        module = _module(mlm=1)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(UserError, match=r"lacks 4 parameters of this model: encoder\.blocks 4"):
            weights.load(module, weights.read(tmp_path / "x.ckpt"))
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_another_width(self, golden, small_vit):
        with pytest.raises(UserError, match=r"encoder\.cls_token \(1, 1, 64\), wanted \(1, 1, 32\).*Check vit"):
            weights.load(_small_module(), weights.read(golden / "tiny/mlm.ckpt"))

    def test_test_only_needs_the_heads(self, golden):
        source = weights.read(golden / "posembed/vlc_pretrain_64.ckpt")
        with pytest.raises(UserError, match=r"objectives\.vqa 6.*Evaluation needs every weight"):
            weights.load(_module(vqa=1), source, complete=True)
        assert weights.load(_module(vqa=1), source).new

    def test_an_image_model_cannot_be_tested(self, golden):
        with pytest.raises(UserError, match=r"encoder\.text_embeddings"):
            weights.load(_module(mae=1), weights.read(golden / "posembed/mae_64.pth"), complete=True)


def test_head_of_another_size_stays_new(golden):
    module = _module(vqa=1)
    source = weights.read(golden / "tiny/vqa.ckpt")
    source.state["objectives.vqa.classifier.3.weight"] = torch.zeros(5, 128)
    report = weights.load(module, source)
    assert report.new == ["objectives.vqa.classifier.3.weight"]
    assert "(5, 128), wanted (17, 128)" in str(report)


def _run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["checkpoint", *map(str, arguments)])
    checkpoint_main()


def _refused(monkeypatch, capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        _run(monkeypatch, *arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_command_line(golden, tmp_path, monkeypatch, capsys):
    target = tmp_path / "mae.pth"
    monkeypatch.setattr("sys.argv", ["checkpoint", str(golden / "tiny/vqa.ckpt"), str(target), "--layout", "mae"])
    checkpoint_main()
    assert "layout vlc_release" in capsys.readouterr().out
    assert weights.read(target).layout.name == "mae"
    monkeypatch.setattr("sys.argv", ["checkpoint", str(tmp_path / "absent.ckpt")])
    with pytest.raises(SystemExit) as stop:
        checkpoint_main()
    assert stop.value.code == 2


def test_the_moving_average_is_written_in_place_of_the_weights(golden, tmp_path, monkeypatch, capsys):
    state = weights.read(golden / "tiny/vqa.ckpt").state
    torch.save({"state_dict": state, "ema": {name: value + 1 for name, value in state.items()}}, tmp_path / "last.ckpt")
    _run(monkeypatch, tmp_path / "last.ckpt", tmp_path / "averaged.ckpt", "--ema")
    averaged = weights.read(tmp_path / "averaged.ckpt").state
    assert averaged.keys() == state.keys()
    assert all(torch.equal(value, state[name] + 1) for name, value in averaged.items())
    message = _refused(monkeypatch, capsys, tmp_path / "averaged.ckpt", "--ema")
    assert "averaged.ckpt holds no ema: it is of a run without a moving average" in message


class TestTargets:
    @pytest.fixture
    def last(self, golden, tmp_path):
        path = tmp_path / "last.ckpt"
        path.write_bytes((golden / "tiny/mlm.ckpt").read_bytes())
        return path

    def test_source_as_target(self, last, tmp_path, monkeypatch, capsys):
        before = last.read_bytes()
        (tmp_path / "link.ckpt").symlink_to(last)
        (tmp_path / "hard.ckpt").hardlink_to(last)
        for target in (
            last,
            tmp_path / "link.ckpt",
            tmp_path / "hard.ckpt",
            tmp_path / ".." / tmp_path.name / "last.ckpt",
        ):
            for options in ([], ["--overwrite"]):
                message = _refused(monkeypatch, capsys, last, target, *options)
                assert "is the checkpoint that is read" in message
                assert "optimiser" in message
        assert last.read_bytes() == before

    def test_folder(self, last, tmp_path, monkeypatch, capsys):
        assert "is a folder: name the file" in _refused(monkeypatch, capsys, last, tmp_path)

    def test_parent_that_is_a_file(self, last, tmp_path, monkeypatch, capsys):
        (tmp_path / "file").write_text("")
        message = _refused(monkeypatch, capsys, last, tmp_path / "file/more/x.ckpt")
        assert f"{tmp_path / 'file'} is a file, not a folder" in message

    def test_existing_target(self, last, tmp_path, monkeypatch, capsys):
        (tmp_path / "x.ckpt").write_text("precious")
        assert "exists: name another file, or pass --overwrite" in _refused(
            monkeypatch, capsys, last, tmp_path / "x.ckpt"
        )
        assert (tmp_path / "x.ckpt").read_text() == "precious"
        _run(monkeypatch, last, tmp_path / "x.ckpt", "--overwrite")
        assert weights.read(tmp_path / "x.ckpt").layout.name == "vlc"

    @pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
    def test_full_disk(self, last, tmp_path, monkeypatch, capsys, suffix):
        """No file may become larger than 200 kB: the target that was there stays, and nothing is left beside it."""
        target = tmp_path / "out" / f"x{suffix}"
        target.parent.mkdir()
        target.write_text("precious")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        try:
            message = _refused(monkeypatch, capsys, last, target, "--overwrite")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert f"{target} cannot be written" in message
        assert target.read_text() == "precious"
        assert list(target.parent.iterdir()) == [target]

    @pytest.mark.parametrize("suffix", [b".ckpt", b".safetensors"])
    def test_names_that_are_not_utf8(self, last, tmp_path, monkeypatch, capsys, suffix):
        target = tmp_path / os.fsdecode(b"caf\xe9" + suffix)
        _run(monkeypatch, last, target)
        _run(monkeypatch, target)
        assert "caf\\udce9" in capsys.readouterr().out
        assert weights.read(target).state.keys() == weights.read(last).state.keys()


# -- what a file has and the model lacks


def _timm(tmp_path, **options):
    options = {
        "img_size": 32,
        "patch_size": 16,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    } | options
    torch.save(timm.models.VisionTransformer(**options).state_dict(), tmp_path / "timm.pth")
    return weights.read(tmp_path / "timm.pth")


@pytest.mark.parametrize("into", ["vlc", "classifier"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"init_values": 1e-5}, r"4 parameters .* no place for.*encoder\.blocks\.0\.ls1\.gamma"),
        ({"qk_norm": True}, r"8 parameters .*encoder\.blocks\.0\.attn\.q_norm\.weight"),
        ({"depth": 3}, r"12 parameters .*encoder\.blocks\.2\.norm1\.weight"),
        ({"no_embed_class": True}, r"pos_embed \(1, 4, 32\) is not a row for the class token.*no_embed_class"),
        ({"class_token": False, "global_pool": "avg"}, r"pos_embed \(1, 4, 32\) is not a row for the class token"),
        ({"img_size": (32, 48)}, r"pos_embed \(1, 7, 32\).*oblong"),
        ({"reg_tokens": 4}, r"1 parameters .* no place for.*encoder\.registers"),
        ({"pre_norm": True}, r"2 parameters .* no place for.*encoder\.norm_pre\.weight"),
        ({"qkv_bias": False}, r"lacks 2 parameters of this model: encoder\.blocks 2"),
        ({"depth": 1}, r"lacks 12 parameters"),
    ],
)
def test_timm_models_that_compute_something_else(tmp_path, small_vit, into, options, named):
    module = _small_module() if into == "vlc" else classifier(ENCODERS[small_vit], 32, 5, global_pool=False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError, match=named):
        weights.load(module, _timm(tmp_path, **options))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_parts_of_a_head_are_not_left_out(golden, monkeypatch):
    source = weights.read(golden / "posembed/vlc_pretrain_64.ckpt")
    extra = {"objectives.mae.blocks.7.norm1.weight": torch.ones(32)}
    source = replace(source, state=source.state | extra)
    with pytest.raises(UserError, match=r"1 parameters .*objectives\.mae\.blocks\.7"):
        weights.load(_module(mae=1), source)
    assert set(extra) <= set(weights.load(_module(mlm=1), source).unused), "this model has no such head"


def test_an_image_classifier_has_no_text_half(golden):
    source = weights.read(golden / "tiny/pretrain.ckpt")
    report = weights.load(classifier(_module().encoder.size, 64, 5), source)
    assert {name.split(".")[1] for name in report.unused} == {
        "text_embeddings", "token_types", "pooler", "norm", "mlm", "itm", "mae"
    }  # fmt: skip
    assert "not in this model" in str(report)


# -- what stands beside the parameters


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    "extras",
    [
        [1],
        "text",
        {"answers": "yes"},
        {"answers": [1, 2]},
        {"answers": {"yes": 0}},
        {"config": [1]},
        {"arguments": "x"},
        {"config": {"vit": [[[[[[[[[[[[1]]]]]]]]]]]]}},
    ],
)
def test_extras_of_wrong_types(golden, tmp_path, extras, suffix):
    source = weights.read(golden / "tiny/mlm.ckpt")
    path = tmp_path / f"x{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": source.state, "vlc": extras}, path)
    else:
        save_file({name: value.clone() for name, value in source.state.items()}, path, {"vlc": json.dumps(extras)})
    with pytest.raises(UserError, match="its content beside the parameters .* is of a wrong type"):
        weights.read(path)


@pytest.mark.parametrize("value", [argparse.Namespace(a=1), {1.5: 2}, {"vit": torch.zeros(1)}])
def test_extras_of_foreign_objects(golden, tmp_path, value):
    state = weights.read(golden / "tiny/mlm.ckpt").state
    torch.save({"state_dict": state, "vlc": {"config": {"vit": value}}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"beside the parameters \(config\.vit"):
        weights.read(tmp_path / "x.ckpt")


def test_folder_of_timm(tmp_path, small_vit):
    """Its config.json states no model_type, and nothing that is needed."""
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_small", "num_classes": 5}))
    vit = timm.models.VisionTransformer(img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=5)
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    assert weights.load(_small_module(), weights.read(tmp_path)).layout == "mae"


@pytest.mark.parametrize("kind", ["folder", "empty", "page", "text", "other names", "none"])
def test_command_line_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys, kind):
    path = tmp_path / os.fsdecode(b"x\xe9.ckpt")
    if kind == "folder":
        path.mkdir()
    elif kind == "other names":
        with path.open("wb") as file:
            torch.save({"\x1b[31m\nlayer": torch.zeros(1)}, file)
    elif kind != "none":
        path.write_text({"empty": "", "page": "<!DOCTYPE html>", "text": "hello"}[kind])
    message = _refused(monkeypatch, capsys, path)
    assert "\x1b" not in message
    assert str(path).encode("ascii", "backslashreplace").decode() in message


@pytest.mark.parametrize("layout", OF_THIS_MODEL)
def test_parameters_of_no_sensible_shape(golden, tmp_path, layout):
    """Whichever parameter is a lone number: the file is refused in a sentence, when it is read or when it is loaded."""
    weights.export(weights.read(golden / "tiny/pretrain.ckpt"), tmp_path / "x.ckpt", layout)
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    (under,) = set(content) - {"vlc"}
    module, state = _module(), content[under]
    parts = {key.replace(".1.", ".0.") for key in state}
    for key in sorted(parts & set(state)):
        torch.save({under: state | {key: torch.tensor(1.0)}}, tmp_path / "y.ckpt")
        try:
            report = weights.load(module, weights.read(tmp_path / "y.ckpt"))
        except UserError:
            continue
        assert report.new, f"{key} of a head stays new"
