"""Checkpoints with adapters of low rank: merged when they are read, and saved alone; peft's own loader is the judge."""

import json
import sys

import pytest
import torch

from tests.adapted import adapted, base, built, save
from vlc.checkpoint import adapters, weights
from vlc.checkpoint.__main__ import main as checkpoint_main
from vlc.checkpoint.formats import LAYOUTS, WRITTEN
from vlc.common.errors import MissingFile, UserError
from vlc.use.model import Model

pytest.importorskip("peft")


@pytest.fixture
def start(arrows, small_vit, tmp_path) -> str:
    return base(arrows, tmp_path)


@pytest.fixture
def module(arrows, start):
    return adapted(arrows, start, **{"lora.trains": ["blocks<1.*bias"]})


@pytest.fixture
def saved(module, tmp_path) -> str:
    return save(module, tmp_path / "adapted.ckpt")


def _command(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["vlc.checkpoint", *map(str, words)])
    checkpoint_main()


def test_adapters_alone_and_their_base_are_the_merged_checkpoint(saved, start, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "adapters"
    _command(monkeypatch, saved, folder, "--adapters")
    assert f"which belong to the checkpoint {start}" in capsys.readouterr().out
    whole, joined = weights.read(saved), weights.read(folder)
    assert joined.state.keys() == whole.state.keys()
    assert all(torch.equal(joined.state[name], value) for name, value in whole.state.items())
    assert joined.extras == whole.extras
    assert "lora" not in joined.extras
    stored = sum(path.stat().st_size for path in folder.iterdir())
    assert stored < 0.6 * (tmp_path / "base.ckpt").stat().st_size, "the table of words stays in the base"
    moved = (tmp_path / "base.ckpt").rename(tmp_path / "adapters/moved.ckpt")
    with pytest.raises(
        MissingFile, match=r"adapters of the checkpoint .*base.ckpt, which does not exist: name its place"
    ):
        weights.read(folder)
    _command(monkeypatch, folder, tmp_path / "merged.safetensors", "--base", moved)
    assert torch.equal(weights.read(tmp_path / "merged.safetensors").state["encoder.blocks.1.attn.qkv.weight"],
                       whole.state["encoder.blocks.1.attn.qkv.weight"])  # fmt: skip
    config = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": "moved.ckpt"}))
    assert weights.read(folder).state.keys() == whole.state.keys()


def test_peft_reads_what_is_saved(arrows, module, saved, start, tmp_path):
    from peft import PeftModel

    adapters.save(saved, tmp_path / "adapters")
    plain = built(arrows, load_path=start, vqav2_label_size=3)
    theirs = PeftModel.from_pretrained(plain, str(tmp_path / "adapters")).base_model.model
    expected, found = module.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    merged = PeftModel.from_pretrained(
        built(arrows, load_path=start, vqav2_label_size=3), str(tmp_path / "adapters")
    ).merge_and_unload()
    ours = weights.read(saved).state
    assert merged.state_dict().keys() == ours.keys()
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)


def test_every_layout_is_written_merged(saved, tmp_path, monkeypatch):
    whole = weights.read(saved)
    for layout in WRITTEN:
        _command(monkeypatch, saved, tmp_path / f"{layout}.safetensors", "--layout", layout)
        again = weights.read_weights(tmp_path / f"{layout}.safetensors")
        assert not [name for name in again.state if "lora" in name or "base_layer" in name]
        name = "encoder.blocks.0.mlp.fc2.weight"
        stored = LAYOUTS[layout].theirs(name)
        assert torch.equal(again.state[stored], whole.state[name])


def test_checkpoints_with_adapters_and_folders_of_adapters_are_used_as_any_other(saved, tmp_path):
    adapters.save(saved, tmp_path / "adapters")
    for path in (saved, tmp_path / "adapters"):
        state = Model.from_checkpoint(path, num_gpus=0).module.state_dict()
        assert all(torch.equal(state[name], value) for name, value in weights.read(saved).state.items())


def test_another_base_is_refused(arrows, saved, start, tmp_path, monkeypatch):
    adapters.save(saved, tmp_path / "adapters")
    state = torch.load(start, weights_only=True)
    state["state_dict"]["encoder.blocks.1.norm1.weight"][0] += 1e-6
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(
        UserError, match=r"other.ckpt is another one: 1 of \d+ weights differ, encoder.blocks.1.norm1.wei"
    ):
        weights.read(tmp_path / "adapters", base=tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="names adapters as its base: merge them first"):
        weights.read(tmp_path / "adapters", base=tmp_path / "adapters")
    with pytest.raises(UserError, match=r"base.ckpt has no adapters: they are in checkpoints of runs with lora.rank"):
        adapters.save(start, tmp_path / "none")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base_model_name_or_path": 3}'])
def test_a_damaged_folder_is_refused(saved, tmp_path, text):
    adapters.save(saved, tmp_path / "adapters")
    (tmp_path / "adapters" / adapters.CONFIG).write_text(text)
    with pytest.raises(UserError, match=r"adapter_config.json does not name the base of the adapters"):
        weights.read(tmp_path / "adapters")


@pytest.mark.parametrize("lacking", ["lora_A.default.weight", "alpha", "rows"])
def test_damaged_adapters_are_refused(saved, tmp_path, lacking):
    content = torch.load(saved, weights_only=True)
    name = "encoder.blocks.0.attn.qkv.lora_A.default.weight"
    if lacking == "alpha":
        del content["vlc"]["lora"]["alpha"]
    elif lacking == "rows":
        content["state_dict"][name] = content["state_dict"][name][:-1]
    else:
        del content["state_dict"][name]
    torch.save(content, tmp_path / "damaged.ckpt")
    message = (
        "damaged or not ours: it has adapters" if lacking == "alpha" else "damaged: its adapters do not fit together"
    )
    with pytest.raises(UserError, match=f"damaged.ckpt is {message}"):
        weights.read(tmp_path / "damaged.ckpt")
