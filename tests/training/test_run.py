"""Whole runs on generated data: every recipe, resuming, interrupts, bad losses and images, several processes."""

import json
import signal
from functools import partialmethod
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pytorch_lightning import Callback, seed_everything

from tests import tiny
from tests.warm import command
from vlc.common.errors import MissingFile, NonFiniteLoss, NonFiniteMetric, UserError
from vlc.configuration.config import resolve
from vlc.configuration.recipes import RECIPES, loss_weights
from vlc.evaluation.results import Results
from vlc.tasks import TASKS
from vlc.training.module import VLCModule
from vlc.training.run import build_data, build_module, build_trainer, run
from vlc.training.saving import last_checkpoint

PRETRAIN = {
    "datasets": ["coco", "vg"],
    "loss_names": loss_weights(mlm=1, itm=1, mae=1),
    "mlm_prob": 0.5,  # short texts: no batch without a hidden token
}


@pytest.fixture
def options(arrows, tmp_path, small_vit, small_vilt) -> dict:
    return {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit}


def _parameters(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def _last(metrics: dict) -> Path:
    return Path(metrics["log_dir"]) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_a_step(options, recipe):
    """A step of every task, on data without a list of images to leave out."""
    options |= {"clean.exclude": "none"}
    options |= {f"{name}.batch_size": 4 for name in TASKS if "batch_size" in RECIPES[recipe].get(name, {})}
    if RECIPES[recipe].get("vit") == "vit_base_patch32_384":
        options |= {"vit": "small_vilt", "image_size": 64}
    named = tiny.complete(recipe)
    tasks = tiny.settings(*named, **options).tasks
    metrics = run(tiny.settings(*named, **options, max_steps=len(tasks)))
    assert all(torch.tensor(value).isfinite() for key, value in metrics.items() if key != "log_dir")
    assert {task.metric(head, "train", "loss") for task in tasks for head in task.heads} <= set(metrics)
    assert torch.load(_last(metrics), weights_only=True)["global_step"] == len(tasks)


def test_pretraining_reports_every_metric_and_keeps_best_and_last(options):
    metrics = run(tiny.settings(**PRETRAIN, **options, max_steps=3))
    names = {"mlm/val/loss", "mlm/val/accuracy", "itm/val/loss", "itm/val/accuracy", "itm/val/wpa_loss", "mae/val/loss"}
    assert names <= set(metrics)
    expected = metrics["mlm/val/accuracy"] + metrics["itm/val/accuracy"]
    assert metrics["val/the_metric"] == pytest.approx(expected)
    folder = Path(metrics["log_dir"])
    assert folder.parent.name == "vlc_seed0_from_"
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "epoch=0-step=3.ckpt"}
    assert list(folder.glob("events.out.tfevents.*"))


def test_the_last_step_is_validated_and_saved_wherever_it_falls(options):
    metrics = run(tiny.settings(**PRETRAIN, **options, max_steps=2))  # the epoch has 9 batches
    assert "val/the_metric" in metrics
    assert torch.load(_last(metrics), weights_only=True)["global_step"] == 2


def test_a_plateau_looks_at_every_validation(options):
    schedule = {"schedule.kind": "plateau", "schedule.threshold": 10.0, "schedule.factor": 0.5, "warmup_steps": 0}
    metrics = run(tiny.settings(**PRETRAIN, **options, **schedule, max_steps=4, val_check_interval=1))
    state = torch.load(_last(metrics), weights_only=True)
    (optimizer,), (kept,) = state["optimizer_states"], state["lr_schedulers"]
    assert kept["reduction"]["last_epoch"] == 4
    assert {group["lr"] for group in optimizer["param_groups"]} == {0.5 * rate for rate in kept["base_lrs"]}
    with pytest.raises(UserError, match="schedule.kind=plateau looks at validations"):
        run(tiny.settings(**(PRETRAIN | {"datasets": ["vg", "sbu"]}), **options, **schedule))


def test_frozen_parameters_keep_their_values_and_a_wrong_name_ends_the_run(options):
    frozen = {"optimizer.frozen": ["text_embeddings", "blocks<1"], "optimizer.rates": {"encoder": 0.5}}
    first = _parameters(_last(run(tiny.settings(**PRETRAIN, **options, **frozen, max_steps=1))))
    second = _parameters(_last(run(tiny.settings(**PRETRAIN, **options, **frozen, max_steps=3))))
    kept = {name for name in first if torch.equal(first[name], second[name])}
    assert kept >= {name for name in first if "text_embeddings" in name or "encoder.blocks.0." in name}
    assert "encoder.blocks.1.attn.qkv.weight" not in kept
    with pytest.raises(UserError, match=r"optimizer.frozen=\['txt'\] matches no parameter"):
        run(tiny.settings(**PRETRAIN, **options, **{"optimizer.frozen": ["txt"]}))
    with pytest.raises(UserError, match="Unknown optim_type 'adamm'"):
        run(tiny.settings(**PRETRAIN, **options | {"data_root": "nowhere"}, optim_type="adamm"))


def test_a_run_without_validation_data_saves_its_last_step(options):
    metrics = run(tiny.settings(**(PRETRAIN | {"datasets": ["vg", "sbu"]}), **options, max_steps=2))
    assert "val/the_metric" not in metrics
    assert torch.load(_last(metrics), weights_only=True)["global_step"] == 2


def test_accumulation_follows_from_the_batch_size(options):
    metrics = run(tiny.settings(**PRETRAIN, **options, batch_size=8, max_steps=2))
    state = torch.load(_last(metrics), weights_only=True)
    assert state["global_step"] == 2
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"] == 4


def test_a_batch_size_below_one_step_is_refused(options):
    with pytest.raises(UserError, match="batch_size=2 is less than one step's 4 samples"):
        run(tiny.settings(**PRETRAIN, **options, batch_size=2))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_interrupted_run_resumes_exactly(options, monkeypatch, num_workers):
    """A signal in the middle of the second epoch; afterwards every weight is that of a run without interruption."""

    def settings(**more):
        length = {"max_steps": 11, "val_check_interval": 1.0, "num_workers": num_workers}
        return tiny.settings("task_finetune_vqa_mae_randaug", **options, **length, drop_rate=0.2, **more)

    whole = run(settings())
    step = VLCModule.training_step

    def interrupted_step(self, batch, batch_idx):
        if self.global_step == 7:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VLCModule, "training_step", interrupted_step)
    stopped = settings(exp_name="stopped")
    with pytest.raises(SystemExit):
        run(stopped)
    monkeypatch.setattr(VLCModule, "training_step", step)
    (saved,) = Path(options["log_dir"]).glob("stopped*/version_0/checkpoints/last.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 8, "the batch was finished first"
    resumed = run(settings(resume_from=str(saved)))
    for name, value in _parameters(_last(whole)).items():
        torch.testing.assert_close(_parameters(_last(resumed))[name], value, rtol=0, atol=0, msg=name)
    assert resumed["vqa/val/score"] == whole["vqa/val/score"]


def test_resuming_with_another_batch_is_refused(options):
    saved = _last(run(tiny.settings(**PRETRAIN, **options)))
    with pytest.raises(UserError, match=r"resume_from=.*last.ckpt was saved with 4 samples a step"):
        run(tiny.settings(**PRETRAIN, **options, per_gpu_batchsize=2, max_steps=3, resume_from=str(saved)))


def test_resuming_from_nowhere_is_refused(options):
    with pytest.raises(MissingFile, match="resume_from=nowhere.ckpt does not exist"):
        run(tiny.settings(**PRETRAIN, **options, resume_from="nowhere.ckpt"))


def test_a_loss_that_is_not_finite_stops_the_run_and_tells_the_step(options, monkeypatch):
    step = VLCModule.training_step

    def broken_step(self, batch, batch_idx):
        return step(self, batch, batch_idx) * (float("nan") if self.global_step == 4 else 1)

    monkeypatch.setattr(VLCModule, "training_step", broken_step)
    with pytest.raises(NonFiniteLoss, match=r"at optimiser step 5\. The last good checkpoint is .*last\.ckpt"):
        run(tiny.settings(**PRETRAIN, **options, max_steps=20, val_check_interval=3))
    (saved,) = Path(options["log_dir"]).glob("*/version_0/checkpoints/epoch=0-step=3.ckpt")
    assert all(value.isfinite().all() for value in _parameters(saved).values())


@pytest.mark.parametrize("named", ["task_mlm_itm_mae", "task_finetune_vqa_mae_randaug"])
def test_a_checkpoint_with_a_nan_fails_its_evaluation_and_is_never_the_best(options, monkeypatch, named):
    """Also where no labels tell: the questions of VQA's test split have no answers."""
    good = _last(run(tiny.settings(named, **options)))
    state = torch.load(good, weights_only=True)
    state["state_dict"]["encoder.norm.weight"][0] = float("nan")
    broken = Path(options["log_dir"]) / "broken.ckpt"
    torch.save(state, broken)
    with pytest.raises(NonFiniteMetric, match="NaN or infinite: "):
        run(tiny.settings(named, **options, test_only=True, load_path=str(broken)))
    with pytest.raises(NonFiniteMetric, match="NaN or infinite: .*/val(_coco)?/loss"):
        run(tiny.settings(named, **options, exp_name="from_broken", load_path=str(broken)))
    assert not list(Path(options["log_dir"]).glob("from_broken*/**/*.ckpt"))


def test_a_validation_that_counts_nothing_selects_nothing(options):
    changes = {"datasets": ["coco"], "loss_names": loss_weights(mlm=1), "mlm_prob": 1e-6}
    with pytest.raises(UserError, match=r"Nothing was counted in the splits that select the checkpoint \(val\)"):
        run(tiny.settings(**changes, **options))


def _damage(folder: Path, stem: str, row: int) -> None:
    path = folder / f"{stem}.arrow"
    columns = pa.ipc.open_file(str(path)).read_all().to_pydict()
    columns["image"][row] = b"no image"
    tiny.write_table(path, columns)


def test_a_corrupt_training_image_is_told_and_replaced(options, tmp_path):
    folder = tiny.write_dataset(tmp_path / "data", "vg")
    _damage(folder, "vg", 3)
    with pytest.warns(UserWarning, match=r"row 3 of vg: \w+Error"):
        run(tiny.settings(**(PRETRAIN | {"datasets": ["vg"]}), **(options | {"data_root": str(folder)}), max_steps=3))


def test_too_many_corrupt_images_fail_the_run(options, tmp_path):
    folder = tiny.write_dataset(tmp_path / "data", "vg")
    for row in (1, 3, 4):
        _damage(folder, "vg", row)
    with pytest.raises(UserError, match=r"training images cannot be decoded.*max_corrupt_ratio=0.01"):
        run(tiny.settings(**(PRETRAIN | {"datasets": ["vg"]}), **(options | {"data_root": str(folder)}), max_steps=9))


def test_a_corrupt_image_in_evaluation_fails_the_run(options, tmp_path):
    folder = tiny.write_dataset(tmp_path / "data", "coco")
    _damage(folder, "coco_caption_karpathy_val", 2)
    with pytest.raises(UserError, match=r"row 2 of coco_caption_karpathy_val.arrow cannot be decoded"):
        run(tiny.settings(**(PRETRAIN | {"datasets": ["coco"]}), **(options | {"data_root": str(folder)})))


def test_testing_writes_predictions_for_every_question_once(options):
    named, more = "task_finetune_vqa_mae_randaug", {"max_steps": 2}
    trained = run(tiny.settings(named, **options, **more))
    tested = run(tiny.settings(named, **options, test_only=True, load_path=str(_last(trained))))
    written = json.loads((Path(tested["log_dir"]) / "vqa_test.json").read_text())
    assert sorted(answer["question_id"] for answer in written) == sorted(_question_ids(options, "vqav2_test"))
    assert {answer["answer"] for answer in written} <= {"yes", "no", "unknown"}
    assert Path(tested["log_dir"]).parent.name == "finetune_vqa_randaug_seed0_from_last"


def _question_ids(options: dict, stem: str) -> list[int]:
    table = pa.ipc.open_file(f"{options['data_root']}/{stem}.arrow").read_all()
    return table["question_id"].combine_chunks().flatten().to_pylist()


def test_labelled_test_splits_are_scored_by_question_type(options):
    trained = run(tiny.settings("task_finetune_vqa_emoji", **options, max_steps=1))
    tested = run(tiny.settings("task_finetune_vqa_emoji", **options, test_only=True, load_path=str(_last(trained))))
    for split in ("test", "held_out"):
        names = {
            f"vqa/{split}/{metric}" for metric in ("score", "loss", "score/count", "score/where", "score/answers/other")
        }
        assert names <= set(tested)
    written = Results.read(Path(tested.pop("log_dir")) / "metrics.json")
    assert (written.checkpoint, dict(written.metrics)) == (str(_last(trained)), tested)
    assert set(written.headlines) == {"vqa/test/score", "vqa/held_out/score"}
    state = _parameters(_last(trained))
    fixed = {"encoder.pos_embed"}  # sines and cosines
    assert written.parameters == sum(state[name].numel() for name in state.keys() - fixed)


def test_testing_needs_a_complete_checkpoint(options, golden):
    with pytest.raises(UserError, match="test_only=True needs load_path"):
        run(tiny.settings(**PRETRAIN, **options, test_only=True))
    saved = _last(run(tiny.settings(**PRETRAIN, **options)))
    with pytest.raises(UserError, match=r"lacks .*objectives.vqa.*Evaluation needs every weight"):
        run(tiny.settings("task_finetune_vqa_emoji", **options, test_only=True, load_path=str(saved)))


def test_fast_dev_run_writes_nothing(options, tmp_path):
    run(tiny.settings(**PRETRAIN, **options, fast_dev_run=True))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_one_process_does_not_start_torch_distributed(options):
    run(tiny.settings(**PRETRAIN, **options))
    assert not torch.distributed.is_initialized()


def test_image_only_pretraining_needs_no_texts(options):
    changes = {"loss_names": loss_weights(mae=1), "image_only": True}
    metrics = run(tiny.settings(**(PRETRAIN | changes), **options, max_steps=2))
    assert metrics["val/the_metric"] == pytest.approx(-metrics["mae/val/loss"])


def test_texts_alone_train_words_and_leave_the_image_half_as_it_was(options):
    settings = tiny.settings(datasets=["text"], loss_names=loss_weights(mlm=1), mlm_prob=0.5, **options, max_steps=2)
    seed_everything(settings.run.seed, verbose=False)
    start = build_module(settings, build_data(settings)).state_dict()
    trained = _parameters(_last(run(settings)))
    for name in ("encoder.patch_embed.proj.weight", "encoder.cls_token"):
        assert torch.equal(trained[name], start[name])
    for name in ("encoder.text_embeddings.word_embeddings.weight", "encoder.blocks.0.attn.qkv.weight"):
        assert not torch.equal(trained[name], start[name])


def test_wrong_images_from_the_data_set(options):
    metrics = run(tiny.settings(**PRETRAIN, **options, false_image_source="dataset", draw_false_image=1))
    assert "itm/train/loss" in metrics


def test_two_processes_resume_exactly_and_sharded_ones_end_with_the_same_weights(arrows, tmp_path):
    """Gradients accumulate over two batches. Runs are stopped in the middle of the second epoch, of five batches."""
    shared = {
        **{"vit": "mae_vit_tiny_patch16", "image_size": 64, "data_root": str(arrows), "per_gpu_batchsize": 2},
        **{"batch_size": 8, "decay_power": 0, "val_check_interval": 1.0},
    }
    stopped = "{}*/version_0/checkpoints/last.ckpt"
    runs = [
        {"exp_name": "whole", "max_steps": 6},
        {"exp_name": "stopped", "max_steps": 4},  # at a constant rate as good as an interrupt
        {"exp_name": "resumed", "max_steps": 6, "resume_from": stopped.format("stopped")},
        {"exp_name": "part", "max_steps": 4, "fsdp": True},
        {"exp_name": "sharded", "max_steps": 6, "fsdp": True, "resume_from": stopped.format("part")},
    ]
    _launch(
        2, ["--module", "tests.training.runs_in_processes", str(tmp_path), json.dumps([shared | one for one in runs])]
    )
    saved = {one["exp_name"]: next(tmp_path.glob(stopped.format(one["exp_name"]))) for one in runs}
    position = torch.load(saved["stopped"], weights_only=True)["callbacks"]["Progress"]
    assert position["epoch"] == 1
    assert position["num_batches"] > 0
    for name, value in _parameters(saved["whole"]).items():
        torch.testing.assert_close(_parameters(saved["resumed"])[name], value, rtol=0, atol=0, msg=name)
        torch.testing.assert_close(_parameters(saved["sharded"])[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_nothing_to_shard_on_one_device():
    with pytest.raises(UserError, match="fsdp=True"):
        build_trainer(tiny.settings("task_pretrain_emoji", vit="mae_vit_tiny_patch16", fsdp=True), num_evaluated=0)


def _launch(count: int, words: list[str]) -> None:
    """A program in `count` processes."""
    done = command("-m", "launch", f"--nproc_per_node={count}", "--standalone", *words)
    assert done.returncode == 0, done.stderr[-2000:]


def test_settings_are_kept_in_the_checkpoint(options):
    settings = tiny.settings(**PRETRAIN, **options)
    stored = torch.load(_last(run(settings)), weights_only=True)["vlc"]
    assert stored["config"] == settings.as_config()
    assert set(stored["config"]) == set(resolve())


def test_missing_data_name_the_command_that_writes_them(options, tmp_path):
    with pytest.raises(MissingFile, match=r"Write it with: python -m write_arrow coco --out"):
        run(tiny.settings(**PRETRAIN, **(options | {"data_root": str(tmp_path)})))


def test_last_checkpoint_lies_in_the_log_folder(options):
    settings = tiny.settings(**PRETRAIN, **options)
    data = build_data(settings)
    trainer = build_trainer(settings, num_evaluated=1)
    trainer.fit(build_module(settings, data), datamodule=data)
    assert last_checkpoint(trainer).is_file()


def test_gradients_are_clipped_in_mixed_precision(options):
    metrics = run(tiny.settings(**PRETRAIN, **options, precision="bf16-mixed", gradient_clip=1.0))
    assert "mlm/train/loss" in metrics


@pytest.mark.parametrize(
    ("vit", "has_bfloat16", "expected"),
    [
        ("mae_vit_base_patch16", True, "bf16-mixed"),
        ("mae_vit_base_patch16", False, "32-true"),
        ("mae_vit_tiny_patch16", True, "32-true"),
    ],
)
def test_half_precision_on_a_cpu_is_bfloat16_where_that_pays(monkeypatch, vit, has_bfloat16, expected):
    monkeypatch.setattr("vlc.training.run.computes_bfloat16", lambda accelerator: has_bfloat16)
    settings = tiny.settings("task_mlm_itm_mae", vit=vit, precision=16, fast_dev_run=True)
    assert build_trainer(settings, num_evaluated=0).precision == expected


def test_compiled_blocks_and_checkpointing_train_to_the_same_weights(arrows, tmp_path, small_vit, monkeypatch):
    monkeypatch.setattr(VLCModule, "compile_parts", partialmethod(VLCModule.compile_parts, backend="eager"))
    trained = []
    for fast in (False, True):
        options = {"compile": fast, "activation_checkpointing": fast, "log_dir": str(tmp_path / str(fast))}
        settings = tiny.settings("task_mlm_itm_mae", data_root=str(arrows), drop_rate=0.0, max_steps=2, **options)
        log_dir = run(settings)["log_dir"]
        trained.append(_parameters(Path(log_dir, "checkpoints", "last.ckpt")))
    plain, fast = trained
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_gradients_are_freed_after_the_step(arrows, tmp_path, small_vit):
    kept = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *args) -> None:
            kept.append(sum(parameter.grad is not None for parameter in module.parameters()))

    settings = tiny.settings(
        "task_mlm_itm_mae", data_root=str(arrows), log_dir=str(tmp_path), max_steps=2, batch_size=8
    )
    data = build_data(settings)
    trainer = build_trainer(settings, num_evaluated=0)
    trainer.callbacks.append(Watch())
    trainer.fit(build_module(settings, data), datamodule=data)
    assert len(kept) == 4
    assert kept[1] == kept[3] == 0
    assert kept[0] > 0, "the first of two batches accumulates"
