"""Image classification as a task of run.py, and trained classifiers in use."""

import json

import pytest
import torch

import main_finetune
from run import ex
from tests import tiny
from tests.labelled_folders import CLASSES, words, write_folder
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.training.run import run
from vlc.use.model import Model


@pytest.fixture(scope="module")
def classifier(images, tmp_path_factory):
    """The last.ckpt of a short run of main_finetune.py."""
    out = tmp_path_factory.mktemp("classifier")
    main_finetune.main(words(images, out, epochs=6, blr=0.03, aa="none", reprob=0))
    return out / "last.ckpt"


def _pictures(images) -> list:
    return [images / "val" / name / "0.png" for name in CLASSES]


def test_a_classifier_answers_about_each_image(images, classifier, tmp_path):
    model = Model.from_checkpoint(classifier, num_gpus=0)
    assert model.pipeline == "central_crop"
    assert (model.text_encoder, list(model.module.objectives)) == (None, ["classes"])
    answers = model.answer(_pictures(images))
    assert [answer.example for answer in answers] == [0, 1, 2]
    assert {name for answer in answers for name, _ in answer.choices} == set(CLASSES)
    assert sum(value for _, value in answers[0].choices) == pytest.approx(1)
    evaluated = main_finetune.main(words(images, tmp_path / "unwritten", eval=True, resume=classifier))
    assert not list(tmp_path.iterdir()), "an evaluation writes nothing"
    if evaluated["test_acc1"] == 100:
        assert [answer.choices[0][0] for answer in answers] == list(CLASSES)
    with pytest.raises(UserError, match="was trained on images alone and reads no text"):
        model.answer(_pictures(images)[0], "what is it?")


def test_a_checkpoint_that_tells_its_flags_alone_is_opened_too(images, classifier, tmp_path):
    saved = torch.load(classifier, weights_only=True)
    flags = saved["vlc"]["arguments"]
    torch.save({"state_dict": saved["state_dict"], "vlc": {"arguments": flags}}, tmp_path / "older.ckpt")
    found, expected = (
        Model.from_checkpoint(path, num_gpus=0).answer(_pictures(images))
        for path in (tmp_path / "older.ckpt", classifier)
    )
    names = {str(label): name for label, name in enumerate(CLASSES)}
    assert [[names[name] for name, _ in answer.choices] for answer in found] == [
        [name for name, _ in answer.choices] for answer in expected
    ]


def test_predict_names_the_classes_of_an_image(images, classifier, tmp_path):
    image, out = _pictures(images)[2], tmp_path / "answers.json"
    values = {"load_path": str(classifier), "image": str(image), "out": str(out), "num_gpus": 0}
    ex.run("predict", config_updates=values, options={"--capture": "no"})
    (record,) = json.loads(out.read_text())
    assert (record["task"], record["text"], len(record["answers"])) == ("classes", str(image), 3)


def test_run_trains_tests_and_continues_the_task(images, small_vit, tmp_path):
    options = {"tasks": ["image_classification"], "vit": small_vit, "data_root": str(images), "batch_size": 8}
    options |= {"per_gpu_batchsize": 8, "image_classes.num_classes": 3, "log_dir": str(tmp_path)}
    mixed = {"image_classes.mixup": 0.8, "image_classes.cutmix_minmax": [0.2, 0.8], "optim_type": "adamw_torch"}
    trained = run(tiny.settings(**options, **mixed, max_steps=3))
    assert {"image_classification/val/acc1", "image_classification/val/loss"} <= set(trained)
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    assert not any(name.startswith("encoder.text") for name in weights.read(saved).state)
    tested = run(tiny.settings(**options, test_only=True, load_path=saved))
    assert tested["image_classification/val/loss"] == pytest.approx(trained["image_classification/val/loss"])
    resumed = run(tiny.settings(**options, **mixed, max_steps=5, resume_from=saved))
    assert resumed["image_classification/val/loss"] != trained["image_classification/val/loss"]
    with pytest.raises(UserError, match=r"per_gpu_batchsize=3 is odd, but image_classification\.image_classes\.mixup"):
        tiny.settings(**(options | {"per_gpu_batchsize": 3}), **mixed)
    with pytest.raises(UserError, match=r"has 3 classes .*image_classes\.num_classes"):
        run(tiny.settings(**(options | {"image_classes.num_classes": 4})))


@pytest.mark.parametrize("tasks", [["image_classification", "vqa"], ["vqa", "image_classification"]], ids=str)
def test_the_task_trains_in_turn_with_another_one(small_vit, tmp_path, tasks):
    write_folder(tiny.write_dataset(tmp_path, "vqa"), {"train": 4, "val": 2})
    options = {"image_classes.num_classes": 3, "vqa.answers.num_answers": 3, "max_steps": 2}
    metrics = run(tiny.settings(tasks=tasks, data_root=str(tmp_path), log_dir=str(tmp_path / "log"), **options))
    assert {"image_classification/val/acc1", "vqa/val/score"} <= metrics.keys()
    assert {"image_classification/train/loss", "vqa/train/loss"} <= metrics.keys()
