"""save_pretrained: what a checkpoint knows comes back from its folder, to vlc and to transformers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoConfig, AutoModel, AutoTokenizer

from tests import tiny
from tests.configuration.test_own_tasks import birds, registries  # noqa: F401  # fixtures
from vlc.checkpoint import hub, weights
from vlc.common.errors import UserError
from vlc.data.tokens import load_tokenizer, tokenizer_to_store
from vlc.training.module import module_of
from vlc.training.run import build_data, build_module, run
from vlc.use.auto.model import VLCModel
from vlc.use.export.folder import without_places
from vlc.use.model import Model

TASKS = {"tasks": ["vqa", "nlvr2"], "answers.num_answers": 3, "multitask.task_tokens": True}
FILES = ("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")


@pytest.fixture(scope="module")
def options(arrows, tmp_path_factory) -> dict:
    return {
        "data_root": str(arrows),
        "log_dir": str(tmp_path_factory.mktemp("log")),
        "vit": "mae_vit_tiny_patch16",
        "exp_name": "two",
        **TASKS,
    }


@pytest.fixture(scope="module")
def model(options) -> Model:
    """A tested checkpoint of two tasks with task tokens."""
    path = f"{run(tiny.settings(**options))['log_dir']}/checkpoints/last.ckpt"
    run(tiny.settings(**options, test_only=True, load_path=path, splits=["val", "dev"]))
    return Model.from_checkpoint(path, num_gpus=0)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    return model.save_pretrained(tmp_path_factory.mktemp("saved") / "two-tasks")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [tiny.image_bytes(number, kind="PNG") for number in range(2)]


def test_answers_are_equal_to_the_bit(model, folder, images):
    assert set(FILES) <= {path.name for path in folder.iterdir()}
    again = Model.from_pretrained(folder, num_gpus=0)
    assert again.answer(images[0], "is there a dog") == model.answer(images[0], "is there a dog")
    assert again.answer(images, "both show a dog") == model.answer(images, "both show a dog")
    assert (again.task_tokens, again.pipeline, again.pixels) == (model.task_tokens, model.pipeline, model.pixels)
    found, before = weights.read(folder), weights.read(model.path)
    assert found.state.keys() == before.state.keys()
    assert all(torch.equal(value, before.state[name]) for name, value in found.state.items())
    kept = ("answers", "task_tokens", "preprocessing")
    assert {key: found.extras[key] for key in kept} == {key: before.extras[key] for key in kept}


def test_a_training_starts_from_a_folder(folder, options, model):
    settings = tiny.settings(**options, load_path=str(folder))
    module = build_module(settings, build_data(settings))
    state = model.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in module.encoder.state_dict(prefix="encoder.").items())


@pytest.mark.usefixtures("registries")
def test_rows_of_own_tasks_and_languages_survive(birds, tmp_path):  # noqa: F811
    settings = tiny.settings(tasks=[birds()], vit="mae_vit_tiny_patch16")
    tokenizer = load_tokenizer("emoji")
    config = settings.as_config() | {"log_dir": "/home/me/logs", "tokenizer": "~/tokenizer"}
    module = module_of(settings, tokenizer, None, languages=("en", "de"), config=config)
    module.extras |= {"tokenizer": tokenizer_to_store(tokenizer), "preprocessing": settings.model.size.preprocessing}
    torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, tmp_path / "own.ckpt")
    Model.from_checkpoint(tmp_path / "own.ckpt", num_gpus=0).save_pretrained(tmp_path / "own")
    extras = weights.read(tmp_path / "own").extras
    assert extras["rows"] == without_places(module.extras["rows"])
    assert (extras["languages"], extras["tokenizer"]["special"]) == (
        ["en", "de"],
        module.extras["tokenizer"]["special"],
    )
    assert (extras["config"]["log_dir"], extras["config"]["tokenizer"]) == ("logs", "tokenizer")
    again = Model.from_pretrained(tmp_path / "own", num_gpus=0)
    assert list(again.module.objectives) == ["birds"]
    assert again.module.encoder.languages.names == ("en", "de")


def test_transformers_reads_the_folder(model, folder, images, tmp_path):
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (config.model_type, config.hidden_size, config.heads["vqa"]) == ("vlc", 128, "answers")
    network = AutoModel.from_pretrained(folder)
    assert isinstance(network, VLCModel)
    words = tokenizer(["is there a dog", "what"], padding=True, return_tensors="pt", truncation=True)
    text = model.text(["is there a dog", "what"])
    length = words["input_ids"].shape[1]
    assert torch.equal(words["input_ids"], text.ids[:, :length])
    pixels, _ = model.stacked([[model.prepared(image)] for image in images]).at(0)
    with torch.no_grad():
        found = network(words["input_ids"], words["attention_mask"], pixels)
        pair = network(words["input_ids"][:1], words["attention_mask"][:1], pixels[None])
    encoder = model.module.encoder
    with torch.inference_mode():
        encoded = encoder(text.ids, text.mask, pixels, task="vqa")
        expected = model.module.objectives["vqa"].classifier(encoded.pooled)
    torch.testing.assert_close(found.pooler_output, encoded.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits["vqa"], expected, atol=1e-5, rtol=0)
    patches = found.last_hidden_state[:, length:]
    torch.testing.assert_close(patches, encoded.segments[1].tokens, atol=1e-5, rtol=0)
    assert (list(found.logits), list(pair.logits)) == (["vqa"], ["nlvr2"])
    network.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again = Model.from_pretrained(tmp_path / "again", num_gpus=0)
    assert again.answer(images[0], "is there a dog") == model.answer(images[0], "is there a dog")
    with pytest.raises(UserError, match="does not know device_map"):
        AutoModel.from_pretrained(folder, device_map="auto")
    with pytest.raises(UserError, match="call AutoModel.from_pretrained"):
        AutoModel.from_config(config)


def test_the_card_says_what_the_model_is(folder, model):
    card = (folder / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    header = yaml.safe_load(front)
    assert "license" not in header, "which is for the user to say"
    assert header["datasets"] == ["vqa", "nlvr2"]
    assert header["pipeline_tag"] == "visual-question-answering"
    (results,) = header["model-index"]
    found = {one["dataset"]["name"]: one["task"]["type"] for one in results["results"]}
    assert found == {"vqa/val": "visual-question-answering", "nlvr2/dev": "other"}
    assert "# two_seed0_from_" in text
    assert "Tasks: vqa, nlvr2." in text
    row = next(line for line in text.splitlines() if line.startswith("| nlvr2/dev/accuracy (headline) |"))
    assert " to " in row, "an interval"
    assert "| vqa | train | " in text
    assert "crc32=" in text or "no checksum" in text
    for path in (folder / name for name in ("README.md", "config.json", "preprocessor_config.json")):
        assert str(model.path.parents[3]) not in path.read_text(encoding="utf-8")


def test_mistakes_are_named(folder, model, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="exists already"):
        model.save_pretrained(folder)

    def offline(*args, **options):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"me/two is neither a file.*hf download me/two --local-dir FOLDER"):
        Model.from_pretrained("me/two")
    shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"hidden_size": 64}, "hidden_size 64 contradicts the weights"),
        ({"model_type": "gpt2"}, "describes a model of type 'gpt2': only vilt, vlc"),
        ({"vlc": 3}, "has no dictionary 'vlc'"),
    ):
        (tmp_path / "copy" / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UserError, match=message):
            Model.from_pretrained(tmp_path / "copy", num_gpus=0)
