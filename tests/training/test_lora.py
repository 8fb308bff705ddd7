"""Runs with adapters of low rank: what they train, what they compute, their checkpoints, and their resuming."""

import sys

import pytest
import torch

import main_finetune
from tests import tiny
from tests.adapted import LORA, RECIPE, adapted, base, built, save
from tests.labelled_folders import arguments, words
from tests.resuming import Stop, assert_same, pretraining
from tests.training.test_image_classifier import classifier
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration.config import RunError
from vlc.hardware.onednn import use_onednn
from vlc.model.sizes import ENCODERS
from vlc.training.run import build_data, run

pytest.importorskip("peft")


@pytest.fixture
def start(arrows, small_vit, tmp_path) -> str:
    return base(arrows, tmp_path)


@pytest.fixture
def options(arrows, small_vit, tmp_path, start) -> dict:
    return {**LORA, "data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path / "log"), "load_path": start}


@pytest.fixture
def batch(arrows, small_vit):
    """A few samples, whose texts differ in length."""
    return build_data(tiny.settings(RECIPE, data_root=str(arrows), vit=small_vit)).train[[(0, 0), (0, 1), (0, 5)]]


def _outcome(module, batch) -> torch.Tensor:
    """Logits from pooled features, for which the last block computes first tokens alone."""
    batch = module.normalised(batch)
    with torch.no_grad():
        return module.outcomes(batch)["vqa"].logits


def _encoded(module) -> torch.Tensor:
    """All tokens of a pass, unpacked."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(1, 50, (2, 7), generator=generator), torch.ones(2, 7, dtype=torch.bool)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        return torch.cat([segment.tokens for segment in module.encoder(ids, mask, images).segments], dim=1)


def test_a_run_moves_adapters_and_heads_alone_and_is_tested_as_a_plain_model(options, start):
    trained = run(tiny.settings(RECIPE, **options, max_steps=2, learning_rate=1e-2))
    path = f"{trained['log_dir']}/checkpoints/last.ckpt"
    before, after = weights.read(start).state, torch.load(path, weights_only=True)["state_dict"]
    moved = {
        name
        for name, value in after.items()
        if ".lora_" not in name and not torch.equal(value, before[name.replace(".base_layer.", ".")])
    }
    assert moved == {name for name in before if name.startswith("objectives.vqa.")}
    ups = [value for name, value in after.items() if ".lora_B." in name]
    assert len(ups) == 8
    assert all(value.any() for value in ups)
    plain = weights.read(path)
    assert plain.state.keys() == before.keys()
    tested = run(tiny.settings(RECIPE, **options | {"load_path": path, "test_only": True, "splits": ["val"]}))
    assert tested["vqa/val/loss"] == pytest.approx(trained["vqa/val/loss"], rel=1e-4)


def test_adapters_start_as_the_base_and_equal_the_merged_model(arrows, batch, start, tmp_path):
    plain = built(arrows, load_path=start, vqav2_label_size=3)
    fresh = built(arrows, load_path=start, **LORA)
    assert torch.equal(_outcome(fresh, batch), _outcome(plain, batch))
    assert torch.equal(_encoded(fresh), _encoded(plain))

    module = adapted(arrows, start)
    merged = built(arrows, load_path=save(module, tmp_path / "adapted.ckpt"), vqav2_label_size=3)
    assert (_outcome(module, batch) - _outcome(plain, batch)).abs().max() > 0.01
    for mode in (False, True):  # the padding is left out in training
        assert torch.allclose(_outcome(module.train(mode), batch), _outcome(merged, batch), atol=1e-5)
    assert torch.allclose(_encoded(module.eval()), _encoded(merged), atol=1e-5)
    expected = _outcome(module, batch)
    module.encoder.compile_blocks(backend="eager")
    assert torch.allclose(_outcome(module, batch), expected, atol=1e-5)
    other = adapted(arrows, start)
    use_onednn(other)
    assert torch.allclose(_outcome(other, batch), expected, atol=1e-5)


def test_gradients_are_those_of_the_merged_weights(arrows, batch, start, tmp_path):
    """d loss / d B = scale * d loss / d W * A^T, with and without activations that are computed again."""
    module = adapted(arrows, start)
    plain = built(arrows, load_path=save(module, tmp_path / "adapted.ckpt"), vqav2_label_size=3)
    again = adapted(arrows, start, activation_checkpointing=True)
    for one in (module, plain, again):
        one.total_loss(one.outcomes(one.normalised(batch))).backward()
    for block in range(2):
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            whole = plain.encoder.blocks[block].get_submodule(layer).weight.grad
            for one in (module, again):
                own = one.encoder.blocks[block].get_submodule(layer)
                expected = 2 * whole @ own.lora_A["default"].weight.T
                torch.testing.assert_close(own.lora_B["default"].weight.grad, expected, rtol=1e-3, atol=1e-5)
                assert own.base_layer.weight.grad is None


def test_a_killed_run_continues_to_the_same_weights(arrows, small_vit, start, tmp_path, monkeypatch):
    more = {"lora.dropout": 0.2, "optimizer.ema": 0.5, "max_steps": 3, "checkpoint_every": 1}
    program = pretraining(arrows, small_vit, load_path=start, **LORA, **more)
    assert assert_same(program, tmp_path, [Stop("training_step", 2, "kill")], monkeypatch) == 1


def test_what_the_checkpoint_does_not_have_is_trained_in_full(arrows, small_vit, start):
    tasks = {"tasks": ["vqa", "nlvr2"], "multitask.task_tokens": True, "answers.num_answers": 3}
    adapters = {"lora.rank": 2, "lora.targets": ["qkv"], "lora.trains": ["blocks<1.*norm"]}
    module = built(
        arrows, recipe=None, load_path=start, **tasks, **adapters, **{"optimizer.frozen": ["blocks<1.*lora"]}
    )
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    norms = {f"encoder.blocks.0.norm{number}.{part}" for number in (1, 2) for part in ("weight", "bias")}
    tables = {weights.TASK_TOKENS, "encoder.token_types.weight"}  # there is a second image, and texts are longer
    tables.add("encoder.text_embeddings.position_embeddings.weight")
    matrices = {f"encoder.blocks.1.attn.qkv.lora_{matrix}.default.weight" for matrix in "AB"}
    assert {name for name in trained if name.startswith("encoder.")} == tables | norms | matrices
    assert {name.split(".")[1] for name in trained} - {"blocks"} >= {"vqa", "nlvr2"}
    assert not module.extras["lora"]["frozen"].keys() & (norms | tables)


@pytest.mark.parametrize(
    "recipe", ["task_mlm_itm_mae", "task_finetune_irtr_coco_mae_randaug", "task_finetune_nlvr2_mae_randaug"]
)
def test_other_recipes_train_adapters(options, arrows, tmp_path, recipe):
    more = {"per_gpu_batchsize": 2, "batch_size": 2, "load_path": base(arrows, tmp_path, recipe=recipe)}
    trained = run(tiny.settings(recipe, **options | more))
    assert any(".lora_A." in name for name in torch.load(f"{trained['log_dir']}/checkpoints/last.ckpt")["state_dict"])


def test_an_image_classifier_is_adapted_and_evaluated(images, tmp_path):
    start = save(classifier(ENCODERS["mae_vit_tiny_patch16"], 32, 3), tmp_path / "start.ckpt")
    options = {"finetune": start, "lora_rank": 2}
    trained = main_finetune.main(words(images, tmp_path / "out", **options, epochs=1, ema=0.5))
    state = torch.load(tmp_path / "out/last.ckpt", weights_only=True)
    assert (
        sum(".lora_A." in name for name in state["state_dict"]) == sum(".lora_A." in name for name in state["ema"]) > 0
    )
    tested = main_finetune.main(words(images, resume=tmp_path / "out/last.ckpt", eval=True, lora_rank=2, ema=0.5))
    assert tested == pytest.approx(trained, rel=1e-3)
    resumed = words(images, tmp_path / "out", resume=tmp_path / "out/last.ckpt", finetune=start)
    with pytest.raises(UserError, match="is of a run with lora_rank 2, not 0"):
        main_finetune.main(resumed)
    with pytest.raises(UserError, match="--lora_rank 2 adapts the weights of a checkpoint: pass --finetune"):
        arguments(images, lora_rank=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora.targets": ["query"]}, r"Unknown layer in lora.targets 'query'. .*Valid: fc1, fc2, proj, qkv"),
        ({"lora.trains": ["nrom"]}, r"lora.trains=\['nrom'\] matches no parameter"),
        ({"load_path": ""}, r"lora.rank=4 adapts the weights of a checkpoint, and none is given: pass load_path="),
        ({"lora.rank": 0, "lora.alpha": 3}, r"lora.alpha has no effect with lora.rank=0"),
        ({"lora.rank": -1}, r"lora.rank"),
        ({"lora.dropout": 1}, r"lora.dropout"),
        ({"lora.targets": []}, r"lora.targets"),
    ],
)
def test_mistakes_are_told(options, changes, message):
    with pytest.raises((UserError, RunError), match=message):
        built(options["data_root"], **LORA | {"load_path": options["load_path"]} | changes)


def test_a_flat_key_is_told_its_name_and_peft_is_asked_for(arrows, small_vit, start, monkeypatch):
    with pytest.raises(RunError, match=r"Unknown config key 'lora_rank'. Did you mean lora.rank"):
        tiny.settings(RECIPE, lora_rank=8)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'lora.rank=4 needs peft: pip install -e ".\[lora\]"'):
        built(arrows, load_path=start, **LORA)
