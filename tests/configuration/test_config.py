"""The configuration: named configs, derived values, and what is refused."""

import json
import subprocess
import sys

import pytest
from sacred import Experiment

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.checks import TRANSFORM_NAMES
from vlc.configuration.config import RunError, observe_the_first_process, resolve
from vlc.configuration.recipes import OBJECTIVE_NAMES, RECIPES, loss_weights
from vlc.configuration.settings import Settings, check_keys, config_keys
from vlc.data.transforms import TRANSFORMS
from vlc.objectives.kinds import KINDS
from vlc.objectives.options import OPTIONS
from vlc.tasks import HEADS

PUBLISHED_DEFAULTS = {
    "exp_name": "vlc",
    "seed": 0,
    "datasets": ["coco", "vg", "sbu", "gcc"],
    "batch_size": 4096,
    "train_transform_keys": ["mae"],
    "val_transform_keys": ["mae"],
    "image_size": 384,
    "max_image_len": -1,
    "patch_size": 16,
    "draw_false_image": 1,
    "draw_false_text": 0,
    "image_only": False,
    "vqav2_label_size": 3129,
    "max_text_len": 40,
    "tokenizer": "bert-base-uncased",
    "vocab_size": 30522,
    "whole_word_masking": False,
    "mlm_prob": 0.15,
    "vit": "mae_vit_base_patch16",
    "hidden_size": 768,
    "num_heads": 12,
    "num_layers": 12,
    "mlp_ratio": 4,
    "drop_rate": 0.1,
    "optim_type": "adamw",
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "decay_power": 1,
    "max_epoch": 100,
    "max_steps": 25000,
    "warmup_steps": 2500,
    "end_lr": 0,
    "lr_mult": 1,
    "get_recall_metric": False,
    "resume_from": None,
    "fast_dev_run": False,
    "val_check_interval": 1.0,
    "test_only": False,
    "pretrain_path": "",
    "load_path": "",
    "mask_ratio": 0.75,
    "use_mae": False,
    "mae_weight": 1.0,
    "data_root": "",
    "log_dir": "result",
    "per_gpu_batchsize": 0,
    "num_gpus": 1,
    "num_nodes": 1,
    "num_workers": 1,
    "precision": 16,
    "is_pretrain": True,
}


def test_defaults_are_the_published_ones():
    config = resolve()
    assert {key: config[key] for key in PUBLISHED_DEFAULTS} == PUBLISHED_DEFAULTS
    assert config["loss_names"] == loss_weights(itm=1, mlm=1)


def test_every_key_is_a_setting_and_every_setting_a_key():
    assert set(resolve()) == set(config_keys())
    assert len(config_keys()) == len(set(config_keys())), "a key belongs to one group"


def test_names_agree_with_what_they_name():
    assert set(OBJECTIVE_NAMES) <= set(HEADS)
    assert set(OPTIONS) == {head.kind for head in HEADS.values()}
    assert set(KINDS) == set(OPTIONS)
    assert set(TRANSFORM_NAMES) == set(TRANSFORMS)


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_config_resolves(name):
    config = resolve(*tiny.complete(name), per_gpu_batchsize=2)
    assert Settings.from_config(config).as_config() == config


def test_commands_that_measure_nothing_take_a_number_of_workers():
    assert tiny.settings("task_pretrain_emoji", vit="mae_vit_tiny_patch16", num_workers=2).data.stated_workers == 2
    with pytest.raises(UserError, match="num_workers=auto measures in training and tests alone: pass a number"):
        _ = tiny.settings("task_pretrain_emoji", vit="mae_vit_tiny_patch16", num_workers="auto").data.stated_workers


def test_published_pretraining_command():
    settings = Settings.from_config(
        resolve(
            *("task_mlm_itm_mae", "step25k"),
            **{"data_root": "arrows", "num_gpus": 8, "num_nodes": 4, "per_gpu_batchsize": 32, "mae_weight": 1.0},
            **{"whole_word_masking": True, "image_size": 384, "pretrain_path": "mae.pth", "log_dir": "logs"},
        )
    )
    assert settings.model.objectives == {"itm": 1, "mlm": 1, "mae": 1}
    assert settings.model.use_mae
    assert settings.model.dropped_ratio == 0.6
    assert (settings.optim.max_steps, settings.optim.batch_size, settings.optim.layer_decay) == (25_000, 4096, 1.0)
    assert settings.data.image_size == 384, "key=value wins over the named config"


def test_published_vqa_command():
    values = {"image_size": 576, "learning_rate": 5e-4, "load_path": "vlc.ckpt", "per_gpu_batchsize": 16}
    settings = Settings.from_config(resolve("task_finetune_vqa_mae_randaug", **values))
    assert settings.model.objectives == {"vqa": 1}
    assert settings.model.dropped_ratio == 0
    assert (settings.optim.max_steps, settings.optim.max_epoch, settings.optim.warmup_steps) == (None, 10, 0.1)
    assert settings.optim.layer_decay == 0.5
    assert settings.data.train_transform_keys == ("mae_randaug",)


@pytest.mark.parametrize("value", [["coco", "vg"], "[coco,vg]", "[coco, vg]", "['coco', 'vg']"])
def test_a_list_of_names_needs_no_quotes(small_vit, value):
    assert tiny.settings(datasets=value).data.datasets == ("coco", "vg")


def test_vilts_pretraining_command():
    settings = Settings.from_config(resolve("task_mlm_itm", "step200k", whole_word_masking=True, per_gpu_batchsize=64))
    assert settings.model.objectives == {"itm": 1, "mlm": 1}
    assert (settings.model.vit, settings.model.patch_size, settings.model.dropped_ratio) == (
        "vit_base_patch32_384",
        32,
        0,
    )
    assert (settings.model.max_image_len, settings.data.image_size) == (200, 384)
    assert settings.data.train_transform_keys == ("pixelbert",)
    settings = Settings.from_config(resolve("task_finetune_vqa_randaug", per_gpu_batchsize=64))
    assert settings.data.train_transform_keys == ("pixelbert_randaug",)
    assert settings.data.val_transform_keys == ("pixelbert",)
    assert (settings.optim.layer_decay, settings.optim.lr_mult) == (1, 10)


def test_sizes_follow_from_the_name_of_the_vit():
    model = tiny.settings(vit="mae_vit_large_patch16").model
    assert (model.hidden_size, model.num_layers, model.num_heads, model.mlp_ratio) == (1024, 24, 16, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vit": "mae_vit_small"}, "vit='mae_vit_small' is not valid.*mae_vit_tiny_patch16"),
        ({"hidden_size": 32}, "hidden_size=32 contradicts vit=mae_vit_base_patch16"),
        ({"use_mae": True}, "use_mae=True contradicts loss_names.mae=0"),
        ({"hard_negatives": True}, "hard_negatives=True needs loss_names.itc, and loss_names.itm or loss_names.irtr"),
        (
            {
                "hard_negatives": True,
                "loss_names": loss_weights(itc=1, irtr=1),
                "draw_false_text": 15,
                "per_gpu_batchsize": 8,
            },
            "hard_negatives=True takes draw_false_text=15 .*per_gpu_batchsize=8: raise it",
        ),
        ({"datasets": "coco"}, "datasets='coco' is not valid: expected a list of names"),
        ({"loss_names": loss_weights(mlm="much")}, "loss_names.mlm='much' is not valid: expected a number"),
        ({"datasets": ["cocoa"]}, "datasets='cocoa' is not valid.*coco, f30k"),
        ({"train_transform_keys": ["clip"]}, "train_transform_keys=.*mae_randaug"),
        (
            {"val_transform_keys": ["pixelbert"]},
            "val_transform_keys=.*'pixelbert'.*vit=mae_vit_base.*vit=vit_base_patch32",
        ),
        (
            {"vit": "vit_base_patch32_384", "patch_size": 32, "train_transform_keys": ["pixelbert"]},
            "train_transform_keys=.*mask_ratio=0.75 cannot drop patches.*pass mask_ratio=0",
        ),
        (
            {"vit": "vit_base_patch32_384", "patch_size": 32, "max_image_len": 200},
            "max_image_len=200 and mask_ratio=0.75 both drop patches",
        ),
        ({"patch_size": 32}, "patch_size=32 contradicts vit=mae_vit_base_patch16"),
        ({"max_image_len": 0}, "max_image_len=0 is not valid: expected a number of patches"),
        ({"per_gpu_batchsize": 0}, "per_gpu_batchsize=0 is not valid: expected the batch size of one device"),
        ({"precision": 8}, "precision=8 .*16, 32"),
        ({"image_size": "large"}, "image_size='large' is not valid: expected a whole number"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not valid: expected a number"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 is not valid"),
        ({"image_size": 100}, "image_size=100 .*multiple of the patch size 16"),
        ({"test_only": 1}, "test_only=1 is not valid: expected True or False"),
        ({"optim_type": 1}, "optim_type=1 is not valid: expected a text"),
        ({"mask_ratio": 1.5}, "mask_ratio=1.5"),
        ({"mlm_prob": 0}, "mlm_prob=0"),
        ({"loss_names": loss_weights()}, "loss_names=.*at least one objective"),
        ({"loss_names": loss_weights(mlm=-1)}, "loss_names.mlm=-1"),
        (
            {"loss_names": {"mlm": 1, "mpp": 1}},
            "Unknown objective in loss_names 'mpp'.*irtr, itc, itm, mae, mlm, nlvr2, vqa",
        ),
        (
            {"loss_names": loss_weights(mae=1), "use_mae": True, "mask_ratio": 0.0},
            "loss_names.mae=1 needs dropped patches",
        ),
        ({"loss_names": loss_weights(irtr=1)}, "loss_names.irtr needs texts of other images, but draw_false_text=0"),
        ({"loss_names": loss_weights(mlm=1), "get_recall_metric": True}, "get_recall_metric=True ranks with the head"),
        ({"draw_false_image": 2}, "draw_false_image=2, but itm.* uses one wrong image.*: pass draw_false_image=1"),
        ({"draw_false_image": 0}, "loss_names.itm needs wrong images, but draw_false_image=0"),
        ({"false_image_source": "web"}, "false_image_source='web' is not valid: expected batch or dataset"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"num_workers": "many"}, "num_workers='many' is not valid: expected a number, 0 or more, or auto"),
        ({"val_check_interval": 0}, "val_check_interval=0"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"decay_power": "exp"}, "decay_power='exp'"),
        ({"max_image_len": "a"}, "max_image_len='a'"),
        ({"num_gpus": -2}, "num_gpus=-2"),
        ({"vocab_size": 0}, "vocab_size=0"),
    ],
)
def test_wrong_values_name_the_key_and_what_is_valid(values, message):
    config = resolve() | {"per_gpu_batchsize": 4} | values
    with pytest.raises(UserError, match=message):
        Settings.from_config(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.beta": 1}, "Unknown option of optimizer 'beta'"),
        ({"optimizer.options": 1}, "optimizer.options=1 is not valid: expected a dictionary"),
        (
            {"optimizer.rates.classifier": 0},
            r"optimizer.rates.classifier=0 .*above 0; optimizer.frozen=\['classifier'\]",
        ),
        ({"optimizer.frozen": "encoder"}, "optimizer.frozen='encoder' is not valid: expected a list of names"),
        ({"optimizer.ema": 1}, "optimizer.ema=1 is not valid: expected a decay"),
        ({"optimizer.ema": 0.9, "fsdp": True}, "optimizer.ema needs all weights on each device"),
        ({"schedule.kind": "poly"}, "schedule.kind='poly' is not valid: expected one of polynomial, linear"),
        ({"schedule.kind": "step"}, r"schedule.milestones=\[\] is not valid"),
        ({"schedule.kind": "step", "schedule.milestones": [0, 5]}, r"schedule.milestones=\[0, 5\] .*above 0"),
        ({"schedule.kind": "step", "schedule.milestones": [0.5], "schedule.factor": 2}, "schedule.factor=2"),
        ({"schedule.kind": "step", "schedule.milestones": [0.5], "end_lr": 1e-6}, "end_lr=1e-06 has no effect with"),
        ({"schedule.milestones": [5]}, "schedule.milestones has no effect with schedule.kind=None.*schedule.kind=step"),
        ({"schedule.kind": "linear", "schedule.warmup_start": 0.3}, "warmup_start .*constant or step or plateau"),
        ({"schedule.kind": "cosine_restart", "schedule.cycles": 0}, "schedule.cycles=0"),
        ({"schedule.kind": "constant", "schedule.warmup": "cosine"}, "schedule.warmup='cosine' .*linear, constant"),
        ({"schedule.kind": "constant", "schedule.warmup_start": 3}, "schedule.warmup_start=3"),
        ({"schedule.kind": "plateau", "schedule.patience": -1}, "schedule.patience=-1"),
        ({"schedule.kind": "polynomial", "decay_power": "cosine"}, "schedule.kind=polynomial contradicts decay_power"),
    ],
)
def test_wrong_values_of_optimizer_and_schedule_are_told(values, message):
    with pytest.raises((UserError, RunError), match=message):
        Settings.from_config(resolve(**{"per_gpu_batchsize": 4} | values))


def test_settings_of_optimizer_and_schedule_are_stored_and_read_again(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("optimizer: {rates: {encoder.text_embeddings: 0.1}, options: {eps: 1.0e-6}}\n")
    given = {
        "optimizer.rates": {r"blocks\.0": 0.5, "classifier": 10},
        "optimizer.options.betas": [0.9, 0.95],
        "optimizer.frozen": "[text_embeddings, blocks<2]",
        "optimizer.ema": 0.999,
        "schedule.kind": "step",
        "schedule.milestones": [0.5, 300],
    }
    settings = Settings.from_config(resolve(str(path), per_gpu_batchsize=4, **given))
    assert settings.optimizer.rates == {"encoder.text_embeddings": 0.1, r"blocks\.0": 0.5, "classifier": 10}
    assert settings.optimizer.options == {"eps": 1e-6, "betas": (0.9, 0.95)}
    assert settings.optimizer.frozen == ("text_embeddings", "blocks<2")
    assert settings.schedule.milestones == (0.5, 300)
    assert Settings.from_config(settings.as_config()) == settings
    assert Settings.from_config(json.loads(json.dumps(settings.as_config()))) == settings


def _command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "run.py", *words], capture_output=True, text=True, timeout=100)


def test_an_unknown_key_is_told_with_the_nearest_ones_and_without_traceback():
    done = _command("with", "task_mlm_itm_mae", "learningrate=1")
    assert done.returncode != 0
    assert "Unknown config key 'learningrate'. Did you mean learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_like_a_groups_is_told_its_first_key():
    with pytest.raises(UserError, match=r"Unknown config key 'logger'\. Did you mean logging\.to,"):
        check_keys({"logger": ["wandb"]})


def test_a_wrong_value_is_told_without_traceback():
    done = _command("with", "task_finetune_vqa_mae_randaug")
    assert done.returncode != 0
    assert "per_gpu_batchsize=0 is not valid" in done.stderr
    assert "Traceback" not in done.stderr


def test_print_config_shows_derived_values_with_comments():
    done = _command("print_config", "with", "task_mlm_itm_mae", "vit=mae_vit_huge_patch14")
    assert done.returncode == 0
    assert "hidden_size = 1280" in done.stdout
    assert "pixels, square" in done.stdout


def test_the_configuration_does_not_import_torch():
    """What makes print_config answer at once."""
    done = subprocess.run(
        [sys.executable, "-c", "import vlc.configuration.config, sys; sys.exit('torch' in sys.modules)"]
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "number", "recorded"), [("RANK", "0", True), ("RANK", "1", False), ("LOCAL_RANK", "1", False)]
)
def test_observers_record_a_run_once(name, number, recorded, monkeypatch):
    for each in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, number)
    seen = {}
    experiment = Experiment("observed", save_git_info=False)
    experiment.option_hook(observe_the_first_process)

    @experiment.main
    def main(_run):
        seen["unobserved"] = _run.unobserved

    experiment.run()
    assert seen["unobserved"] is not recorded
