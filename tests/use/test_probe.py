"""probe: classes are found by their names and by a linear probe, and the probe fits as logistic regression does."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests import tiny
from vlc.common.errors import MissingFile, UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.use.model import Model
from vlc.use.probe.command import metrics, probe
from vlc.use.probe.linear import few, fit, fitted_probe
from vlc.use.probe.zero_shot import ZeroShot, prompts


@pytest.fixture(scope="module")
def made(arrows, tmp_path_factory) -> dict[str, str]:
    recipe = "task_finetune_irtr_coco_mae_randaug"
    rows = {name: (recipe, {"loss_names": loss_weights(**{name: 1})}) for name in ("itc", "irtr")}
    rows["vqa"] = ("task_finetune_vqa_mae_randaug", {"vqav2_label_size": 3})
    return tiny.untrained(arrows, tmp_path_factory.mktemp("made"), rows)


def _probed(path: str, images, **values) -> dict:
    return probe(*resolve_use(load_path=path, data_root=str(images), num_gpus=0, num_workers=0, **values))


def test_colours_are_learnt_and_everything_is_written(made, images, tmp_path, capsys):
    content = _probed(made["itc"], images, out=str(tmp_path / "probe.json"))
    assert json.loads((tmp_path / "probe.json").read_text()) == json.loads(json.dumps(content))
    assert (content["classes"], content["trained_on"], content["chance"]) == (["blue", "green", "red"], 48, 1 / 3)
    assert content["zero_shot_by"] == "embeddings"
    assert content["most_frequent_class"] == {"val": 1 / 3}
    linear = content["splits"]["val"]["linear"]
    assert linear["accuracy"]["value"] > 0.8
    assert linear["accuracy"]["low"] <= linear["accuracy"]["value"] <= linear["accuracy"]["high"]
    assert linear["accuracy"]["size"] == 15
    assert "accuracy_top5" not in linear, "there are three classes"
    shown = capsys.readouterr().out
    assert "zero_shot" in shown
    assert "chance 0.3333" in shown


def test_zero_shot_compares_with_the_texts_of_each_class(made, images):
    pictures = [tiny.image_bytes(number, kind="PNG") for number in range(2)]
    texts = prompts(["dog", "red cat"], ["a {}", "the {} of"])
    assert texts == [["a dog", "the dog of"], ["a red cat", "the red cat of"]]
    model = Model.from_checkpoint(made["itc"], num_gpus=0, per_gpu_batchsize=4)
    prepared = [model.prepared(picture) for picture in pictures]
    classes = np.stack([model.embed(texts=own).mean(axis=0) for own in texts])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    expected = model.embed(images=pictures) @ classes.T
    np.testing.assert_allclose(ZeroShot(model, texts).scores(prepared), expected, atol=1e-5)
    model = Model.from_checkpoint(made["irtr"], num_gpus=0, per_gpu_batchsize=4)
    expected = np.stack([[model.score(picture, own).mean() for own in texts] for picture in pictures])
    np.testing.assert_allclose(ZeroShot(model, texts).scores(prepared), expected, atol=1e-5)


def test_a_checkpoint_that_compares_nothing_has_a_linear_probe(made, images):
    content = _probed(made["vqa"], images, **{"probe.shots": 4, "probe.features": "pooled"})
    assert (content["zero_shot_by"], content["trained_on"]) == (None, 12)
    assert list(content["splits"]["val"]) == ["linear"]


def test_the_fit_is_the_least_loss():
    """The gradient of the penalised loss vanishes, which holds at its only minimum."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator)
    labels = (features[:, 0] > 0).long() + (features[:, 1] > 0.5).long()
    inputs, penalty = torch.cat([features, torch.ones(60, 1)], dim=1), 0.5
    weights = fit(inputs, labels, 3, penalty).double().requires_grad_()
    loss = cross_entropy(inputs.double() @ weights, labels, reduction="sum") + penalty / 2 * weights[:-1].square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() < 5e-3
    found = fitted_probe(features, labels, 3, seed=0)
    assert (found.scores(features).argmax(1) == labels).float().mean() > 0.8


def test_few_shots_are_as_many_of_each_class():
    labels = np.repeat([0, 1, 2], [3, 4, 9])
    chosen = few(labels, 3, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [3, 3, 3]
    assert chosen.tolist() == few(labels, 3, seed=0).tolist()
    with pytest.raises(UserError, match=r"probe.shots=4 wants as many images of each class, and class 0 has 3"):
        few(labels, 4, seed=0)


def test_metrics_are_means_over_images_and_over_classes():
    scores = torch.eye(7)[[0, 0, 1, 2, 3, 4, 5, 6]] + torch.arange(7) * 1e-3
    found = metrics(scores, torch.tensor([0, 0, 0, 2, 3, 4, 5, 6]))
    assert found["accuracy"].value == pytest.approx(7 / 8)
    assert found["accuracy_top5"].value == pytest.approx(7 / 8)
    assert found["accuracy_mean_of_classes"].value == pytest.approx((2 / 3 + 5) / 6)
    assert found["accuracy_mean_of_classes"].size == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data_root": ""}, "data_root=FOLDER is missing"),
        ({"probe.shots": 1}, "probe.shots=1 is not valid: expected 2 or more"),
        ({"probe.templates": ["a photo"]}, "expected texts with {} for the name of a class"),
        ({"probe.features": "all"}, "expected patches or pooled"),
        ({"probe.names": "names.txt"}, "probe.names=names.txt does not exist"),
        ({"probe.shots": 99}, "probe.shots=99 wants as many"),
    ],
)
def test_mistakes_are_named(made, images, values, message):
    with pytest.raises((UserError, MissingFile)) as caught:
        _probed(made["vqa"], **({"images": images} | values) if "data_root" not in values else {"images": ""})
    assert message in str(caught.value)


def test_a_file_names_the_classes(made, images, tmp_path):
    (tmp_path / "names.txt").write_text("blue sky, heaven\ngreen grass\nred fire engine\n")
    content = _probed(made["vqa"], images, **{"probe.names": str(tmp_path / "names.txt")})
    assert content["classes"] == ["sky", "grass", "fire engine"]
    (tmp_path / "names.txt").write_text("blue sky\n")
    with pytest.raises(UserError, match="does not name 2 classes, such as green"):
        _probed(made["vqa"], images, **{"probe.names": str(tmp_path / "names.txt")})
