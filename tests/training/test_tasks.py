"""Several tasks in one run: heads that are shared or not, metrics and files for each, training in turn."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pytorch_lightning import seed_everything

from tests import tiny
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.data.catalog import CATALOG
from vlc.training.run import build_data, build_module, run
from vlc.use.model import Model

SMALL = {"answers.num_answers": 3, "learning_rate": 1e-3}


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict:
    return {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, **SMALL}


def _trained(options: dict, **changes) -> dict[str, float]:
    return run(tiny.settings(**(options | {"tasks": ["vqa", "vgqa", "nlvr2"], "max_steps": 6} | changes)))


def test_tasks_share_a_head_and_are_measured_apart(options):
    settings = tiny.settings(**options, tasks=["vqa", "vgqa", "nlvr2"])
    data = build_data(settings)
    assert list(data.tasks) == ["vqa", "vgqa", "nlvr2"]
    assert list(data.evaluation) == ["vqa/val", "vgqa/val", "nlvr2/dev"]
    module = build_module(settings, data)
    assert list(module.objectives) == ["vqa", "nlvr2"]
    assert set(module.ratios) == {
        f"{name}/{metric}" for name in ("vqa/val", "vgqa/val") for metric in ("loss", "score")
    } | {"nlvr2/dev/loss", "nlvr2/dev/accuracy"}
    for name, num_images in (("vqa", 1), ("vgqa", 1), ("nlvr2", 2)):
        batch = data.tasks[name].train[[(0, 0), (0, 1)]]
        assert (batch.task, batch.images.pixels.shape[1]) == (name, num_images)
        outcomes = module.outcomes(module.normalised(batch))
        assert list(outcomes) == [module.tasks[name].heads[0].name]


def test_a_task_alone_is_trained_as_its_recipe_is(options):
    """The same weights, whether a task is named or described by flat keys."""
    small = {"max_steps": 2, "warmup_steps": 0.1}
    alone = run(tiny.settings(**options, **small, tasks=["vqa"], **{"vqa.max_text_len": 16}))
    flat = {key: value for key, value in options.items() if key not in SMALL}
    recipe = "task_finetune_vqa_mae_randaug"
    described = run(tiny.settings(recipe, **flat, **small, learning_rate=1e-3, vqav2_label_size=3))
    assert alone["vqa/val/score"] == described["vqa/val/score"]
    states = [weights.read(f"{metrics['log_dir']}/checkpoints/last.ckpt").state for metrics in (alone, described)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_tasks_are_trained_in_turn_tested_together_and_used(options, tmp_path):
    trained = _trained(options)
    assert {"vqa/train/loss", "vgqa/train/score", "nlvr2/train/accuracy"} <= set(trained)
    questions = (trained["vqa/val/score"] + trained["vgqa/val/score"]) / 2
    assert trained["val/the_metric"] == pytest.approx((questions + trained["nlvr2/dev/accuracy"]) / 2)
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**options, tasks=["vqa", "nlvr2"], test_only=True, load_path=saved))
    assert {"nlvr2/dev/consistency", "nlvr2/test1/accuracy"} <= set(tested)
    assert len(json.loads(Path(tested["log_dir"], "vqa_test.json").read_text())) == tiny.ROWS * tiny.TEXTS
    assert {path.name for path in Path(tested["log_dir"]).glob("nlvr2_*")} == {"nlvr2_dev.csv", "nlvr2_test1.csv"}
    own = {key: value for key, value in options.items() if key not in SMALL}
    alone = run(tiny.settings(**own, tasks=["nlvr2"], test_only=True, load_path=saved))
    assert {name: tested[name] for name in alone if name.startswith("nlvr2/")} == {
        name: value for name, value in alone.items() if name.startswith("nlvr2/")
    }
    model = Model.from_checkpoint(saved, num_gpus=0)
    assert list(model.module.objectives) == ["vqa", "nlvr2"]
    assert model.module.objectives["vqa"].context.vocabulary.answers == ("yes", "yes", "no")
    state = weights.read(saved).state
    assert all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items() if name in state)


def test_the_options_of_a_task_come_back_from_its_checkpoint(options, tmp_path):
    """Also where they are not those of the flat keys; damage to them is told before anything is allocated."""
    own = {key: value for key, value in options.items() if key not in SMALL} | {"vqa.answers.num_answers": 5}
    trained = run(tiny.settings(**own, tasks=["vqa"], max_steps=1))
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    model = Model.from_checkpoint(saved, num_gpus=0)
    assert model.module.objectives["vqa"].options.num_answers == 5
    content = torch.load(saved, weights_only=True)
    for changes, message in (
        ({"answers": {"num_answers": 10**9}}, "says that vqa has 1000000000 answers, its weights 5"),
        ({"answers": {"num_answers": "many"}}, "in its configuration vqa.answers.num_answers='many' is not valid"),
        ({"answers": {"size": 3}}, "in its configuration Unknown option of vqa.answers 'size'"),
        ({"answers": 3}, "in its configuration vqa.answers=3 is not valid"),
    ):
        damaged = content | {"vlc": content["vlc"] | {"config": content["vlc"]["config"] | {"vqa": changes}}}
        torch.save(damaged, tmp_path / "damaged.ckpt")
        with pytest.raises(UserError, match=rf"damaged\.ckpt is damaged: .*{message}"):
            Model.from_checkpoint(tmp_path / "damaged.ckpt", num_gpus=0)


def test_a_run_of_several_tasks_is_resumed_exactly(options):
    options |= {"decay_power": 0}  # the rate does not depend on the length
    whole = _trained(options, max_steps=7)
    part = _trained(options, max_steps=4)
    resumed = _trained(options, max_steps=7, resume_from=f"{part['log_dir']}/checkpoints/last.ckpt")
    states = [weights.read(f"{metrics['log_dir']}/checkpoints/last.ckpt").state for metrics in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_rate_of_a_task_scales_its_loss(options):
    settings = tiny.settings(
        **options, tasks=["vqa", "nlvr2"], **{"nlvr2.learning_rate": 1e-4, "vqa.learning_rate": 1e-3}
    )
    data = build_data(settings)
    module = build_module(settings, data)
    for name, scale in (("vqa", 1.0), ("nlvr2", 0.1)):
        batch = module.normalised(data.tasks[name].train[[(0, 0), (0, 1)]])
        outcomes = module.outcomes(batch)
        torch.testing.assert_close(module.total_loss(outcomes, name), scale * outcomes[name].loss)


def test_a_task_without_a_test_split_is_told(options):
    data_sets = {"vgqa.datasets": ["vgqa"]}
    settings = tiny.settings(**options, **data_sets, tasks=["vqa", "vgqa"], test_only=True, load_path="x")
    message = r"datasets=\['vgqa'\] of task vgqa have no test split: leave vgqa out of tasks"
    with pytest.raises(UserError, match=message):
        build_data(settings)


def test_a_task_without_data_names_the_writer(options, tmp_path):
    tiny.write_dataset(tmp_path / "some", "vqa")
    with pytest.raises(UserError, match=r"nlvr2_train\.arrow, which does not exist.*write_arrow nlvr2"):
        build_data(tiny.settings(**(options | {"data_root": str(tmp_path / "some")}), tasks=["vqa", "nlvr2"]))


def test_tasks_with_other_answers_cannot_share_a_head(options, tmp_path):
    folder = tiny.write_dataset(tiny.write_dataset(tmp_path / "other", "vqa"), "vgqa_all")
    stem = CATALOG["vgqa_all"].tables["train"][0]
    columns = pa.ipc.open_file(str(folder / f"{stem}.arrow")).read_all().to_pydict()
    columns["answers"] = [[["left", "right"] for _ in row] for row in columns["answers"]]
    tiny.write_table(folder / f"{stem}.arrow", columns)
    settings = tiny.settings(**(options | {"data_root": str(folder)}), tasks=["vqa", "vgqa"])
    with pytest.raises(
        UserError, match="tasks vqa and vgqa share the head vqa, but not the answers of its labels: .*vgqa"
    ):
        build_module(settings, build_data(settings))


def test_captions_and_texts_alone_are_measured_apart(options):
    """The half that reads images trains too, although one of the tasks has none."""
    changes = {"pretraining.datasets": ["coco"], "mlm.probability": 0.5, "max_steps": 4}
    options = {key: value for key, value in options.items() if key not in SMALL} | {"learning_rate": 1e-3} | changes
    settings = tiny.settings(tasks=["pretraining", "pretraining_text"], mask_ratio=0.5, **options)
    seed_everything(settings.run.seed, verbose=False)
    start = build_module(settings, build_data(settings)).state_dict()
    metrics = run(settings)
    captions, texts = "pretraining/val/mlm_accuracy", "pretraining_text/val/accuracy"
    assert {captions, texts, "pretraining/train/mlm_loss", "pretraining_text/train/loss"} <= set(metrics)
    of_captions = (metrics[captions] + metrics["pretraining/val/itm_accuracy"]) / 2
    assert metrics["val/the_metric"] == pytest.approx((of_captions + metrics[texts]) / 2)
    trained = weights.read(f"{metrics['log_dir']}/checkpoints/last.ckpt").state
    name = "encoder.patch_embed.proj.weight"
    assert not torch.equal(trained[name], start[name])
