"""Runs with task tokens: their checkpoints, tests, rankings and use."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.ranked import matrix
from tests.training.test_image_classifier import classifier
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.data.corpus import Corpus
from vlc.data.keys import Key
from vlc.evaluation.scorer import Scorer
from vlc.training.run import build_data, build_module, run
from vlc.use.hard_pool import make_hard_pools
from vlc.use.model import Model
from vlc.use.predict import predict
from vlc.use.search import build_index, search

TOKENS = {"multitask.task_tokens": True}
TASKS = ["vqa", "vgqa", "nlvr2"]  # the first two share a head
SMALL = {"answers.num_answers": 3}


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict:
    return {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit}


def _built(options: dict, *named: str, **changes):
    settings = tiny.settings(*named, **(options | changes))
    data = build_data(settings)
    return data, build_module(settings, data).eval()


def _saved(options: dict, **changes) -> str:
    """A checkpoint of a model with task tokens, which has random weights with clear differences between the tasks."""
    _, module = _built(options, **(TOKENS | changes))
    for parameter in (module.encoder.task_tokens.weight, *module.objectives.parameters()):
        torch.nn.init.normal_(parameter)
    path = Path(options["log_dir"], "tokens.ckpt")
    torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, path)
    return str(path)


def test_training_moves_the_token_of_each_task_and_stores_them_by_name(options):
    options |= SMALL | TOKENS | {"tasks": TASKS, "learning_rate": 1e-3}
    _, start = _built(options)
    trained = run(tiny.settings(**options, max_steps=3))
    found = weights.read(f"{trained['log_dir']}/checkpoints/last.ckpt")
    assert found.extras["task_tokens"] == TASKS
    moved = (found.state[weights.TASK_TOKENS] - start.encoder.task_tokens.weight).abs().amax(1)
    assert moved.min() > 1e-6
    tested = run(tiny.settings(**options, test_only=True, load_path=str(found.path)))
    assert {"vqa/test/loss", "vgqa/test/loss", "nlvr2/test1/loss"} & set(tested)


def test_rows_are_found_by_name_and_a_new_task_starts_as_the_mean_of_the_others(options, caplog):
    saved = _saved(options, **SMALL, tasks=TASKS)
    table = weights.read(saved).state[weights.TASK_TOKENS]
    _, alone = _built(options, **SMALL, **TOKENS, tasks=["vgqa"], load_path=saved)
    assert torch.equal(alone.encoder.task_tokens.weight, table[[1]])
    assert alone.extras["task_tokens"] == ["vgqa"]
    _, more = _built(options, **SMALL, **TOKENS, tasks=["nlvr2", "gqa", "vqa"], load_path=saved)
    expected = torch.stack([table[2], table.mean(0), table[0]])
    torch.testing.assert_close(more.encoder.task_tokens.weight.data, expected)
    report = weights.load(more, weights.read(saved))
    assert report.derived == ["encoder.task_tokens.weight of task gqa"]
    assert report.unused[0] == "encoder.task_tokens.weight of task vgqa"
    _, plain = _built(options, **SMALL, tasks=["vqa"])
    torch.save({"state_dict": plain.state_dict(), "vlc": plain.extras}, Path(saved).with_name("plain.ckpt"))
    report = weights.load(more, weights.read(Path(saved).with_name("plain.ckpt")))
    assert weights.TASK_TOKENS in report.new


def test_a_classifier_of_images_and_published_layouts_have_no_place_for_tokens(options, tmp_path):
    saved = _saved(options, **SMALL, tasks=TASKS)
    report = weights.load(classifier(tiny.SMALL, 32, 3), weights.read(saved))
    assert weights.TASK_TOKENS in report.unused
    left_out = weights.export(weights.read(saved), tmp_path / "release.ckpt", "vlc_release")
    assert weights.TASK_TOKENS in left_out
    assert weights.TASK_TOKENS not in weights.read(tmp_path / "release.ckpt").state
    weights.export(weights.read(saved), tmp_path / "same.safetensors", "vlc")
    assert Model.from_checkpoint(tmp_path / "same.safetensors", num_gpus=0).task_tokens["nlvr2"] == "nlvr2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": ["vqa"], "test_only": True},
            r"trained with tokens of its tasks \(vqa, vgqa, nlvr2\): pass multitask",
        ),
        ({"tasks": ["vqa"]}, r"pass multitask.task_tokens=True$"),
        (
            {"tasks": ["vqa", "nlvr2_emoji"], "test_only": True, **TOKENS},
            r"no token of task nlvr2_emoji: test the tasks whose tokens it has \(vqa, vgqa, nlvr2\)",
        ),
    ],
)
def test_a_checkpoint_with_tokens_needs_them(options, changes, message):
    saved = _saved(options, **SMALL, tasks=TASKS)
    with pytest.raises(UserError, match=message):
        _built(options, **SMALL, **changes, load_path=saved)


def test_a_test_with_tokens_needs_them_in_the_checkpoint(options):
    _, plain = _built(options, **SMALL, tasks=["vqa"])
    saved = Path(options["log_dir"], "plain.ckpt")
    torch.save({"state_dict": plain.state_dict(), "vlc": plain.extras}, saved)
    with pytest.raises(UserError, match=r"plain.ckpt has no task tokens: leave multitask.task_tokens out"):
        _built(options, **SMALL, **TOKENS, tasks=["vqa"], test_only=True, load_path=str(saved))
    with pytest.raises(UserError, match=r"plain.ckpt has no task tokens: pass multitask.task_tokens=False"):
        Model.from_checkpoint(saved, num_gpus=0, **TOKENS)


@pytest.mark.parametrize(
    ("recipe", "token", "row"),
    [
        ("task_finetune_vqa_mae_randaug", "vqa", 0),
        ("task_finetune_nlvr2_mae_randaug", "nlvr2", 2),
        ("task_finetune_irtr_f30k_mae_randaug", "irtr_f30k", None),
    ],
)
def test_a_recipe_of_flat_keys_continues_with_the_token_of_its_task(options, recipe, token, row):
    saved = _saved(options, **SMALL, tasks=TASKS)
    table = weights.read(saved).state[weights.TASK_TOKENS]
    _, module = _built(options, recipe, **TOKENS, load_path=saved)
    assert module.extras["task_tokens"] == [token]
    expected = table.mean(dim=0) if row is None else table[row]
    torch.testing.assert_close(module.encoder.task_tokens.weight[0], expected)
    ids, mask = torch.ones(1, 8, dtype=torch.int64), torch.ones(1, 8)
    images = torch.zeros(1, 3, 32, 32)
    found = [module.encoder(ids, mask, images, task=task).pooled for task in ("", token)]
    assert torch.equal(*found)


@pytest.mark.parametrize("names", [["vqa"], [], 3])
def test_names_that_are_not_of_the_tokens_are_damage(options, names):
    saved = _saved(options, **SMALL, tasks=TASKS)
    content = torch.load(saved, weights_only=True)
    content["vlc"]["task_tokens"] = names
    torch.save(content, saved)
    with pytest.raises(UserError, match="is damaged"):
        _built(options, **SMALL, **TOKENS, tasks=["vqa"], load_path=saved)
    with pytest.raises(UserError, match="is damaged"):
        Model.from_checkpoint(saved, num_gpus=0)


def test_a_ranking_has_the_token_of_its_task(options, tmp_path):
    wrong = {"choice.wrong_texts": 3}
    saved = _saved(options, **wrong, tasks=["irtr_coco", "irtr_f30k"])
    tests = {"tasks": ["irtr_f30k", "irtr_coco"], "test_only": True, "load_path": saved, "save_scores": True}
    data, module = _built(options, **wrong, **TOKENS, **tests)
    samples = data.tasks["irtr_f30k"].evaluation["test"]
    (ranking,) = module.evaluators["irtr_f30k"]
    ranking(module, samples, tmp_path / "found")
    scores = np.load(tmp_path / "found_ranking.npz")["scores"]
    batch = module.normalised(samples[[Key(0, number) for number in range(len(samples))]])
    text, image = batch.text, module.encoder.embed_images(batch.images.pixels[:, 0])
    encoder, head = module.encoder, module.objectives["irtr"]
    with torch.no_grad():
        pooled = encoder.encode([encoder.embed_text(text), image], task="irtr_f30k").pooled
        own = head.score(pooled).numpy()
        other = head.score(encoder.encode([encoder.embed_text(text), image], task="irtr_coco").pooled).numpy()
    found = scores[np.arange(len(samples)) // tiny.TEXTS, np.arange(len(samples))]
    np.testing.assert_allclose(found, own, rtol=1e-3)  # scores are stored in half precision
    assert (np.abs(own - other) > 0.01 * np.abs(own)).all()
    model = Model.from_checkpoint(saved, num_gpus=0, tasks=["irtr_f30k"])
    source, where = samples.locate(0)
    score = model.score(source.image(where, "image").to_pybytes(), source.text(where))
    np.testing.assert_allclose(score, own[:1], atol=1e-5)


def test_texts_are_embedded_with_the_token(options):
    saved = _saved(options, tasks=["retrieval_emoji"])
    data, module = _built(options, **TOKENS, tasks=["retrieval_emoji"], test_only=True, load_path=saved)
    samples = next(iter(data.tasks["retrieval_emoji"].evaluation.values()))
    corpus, itc = Corpus(samples), module.objectives["itc"]
    near = matrix(Scorer(module.encoder, corpus, torch.device("cpu"), itc=itc, task="retrieval_emoji").similarities())
    model = Model.from_checkpoint(saved, num_gpus=0)
    places = [samples.locate(number) for number in range(len(samples))]
    images = [source.image(where, "image").to_pybytes() for source, where in places[:: tiny.TEXTS]]
    embedded = model.embed(images=images) @ model.embed(texts=[source.text(where) for source, where in places]).T
    np.testing.assert_allclose(embedded, near, atol=1e-5)
    batch = module.normalised(samples[[Key(0, 0)]])
    with torch.no_grad():
        text = module.encoder.encode([module.encoder.embed_text(batch.text)], task="retrieval_emoji").pooled
        image = module.encoder.encode([module.encoder.embed_images(batch.images.pixels[:, 0])]).pooled
        expected = itc.image_vectors(image) @ itc.text_vectors(text).T
    np.testing.assert_allclose(near[:1, :1], expected, atol=1e-5)


def test_a_used_model_answers_with_the_token_of_the_task(options):
    """Of a head that tasks share, tasks=[...] says whose token it gets; otherwise the first task's."""
    saved = _saved(options, **SMALL, tasks=TASKS)
    image, answers = tiny.image_bytes(0, kind="PNG"), {}
    for name, given in (("first", {}), ("vqa", SMALL | {"tasks": ["vqa"]}), ("vgqa", SMALL | {"tasks": ["vgqa"]})):
        model = Model.from_checkpoint(saved, num_gpus=0, **given)
        assert model.task_tokens["vqa"] == ("vqa" if name == "first" else name)
        (answer,) = model.answer(image, "two dogs")
        answers[name] = answer.choices
        encoder = model.module.encoder
        text, pixels = encoder.embed_text(model.text(["two dogs"])), model.stacked([[model.prepared(image)]]).pixels
        with torch.no_grad():
            pooled = encoder.encode([text, encoder.embed_images(pixels[:, 0])], task=model.task_tokens["vqa"]).pooled
            probabilities = model.module.objectives["vqa"].classifier(pooled).sigmoid()
        assert answers[name][0][1] == pytest.approx(probabilities.max().item(), abs=1e-5)
    assert answers["first"] == answers["vqa"]
    assert answers["vqa"] != answers["vgqa"]
    assert set(Model.from_checkpoint(saved, num_gpus=0).task_tokens) == {"vqa", "nlvr2"}
    with pytest.raises(UserError, match=r"no token of task gqa: name tasks whose tokens it has \(vqa, vgqa, nlvr2\)"):
        Model.from_checkpoint(saved, num_gpus=0, tasks=["gqa"])
    with pytest.raises(UserError, match=r"tokens of its tasks \(vqa, vgqa, nlvr2\): pass multitask.task_tokens=True"):
        Model.from_checkpoint(saved, num_gpus=0, **{"multitask.task_tokens": False})


def test_the_commands_use_the_tokens(options, tmp_path):
    """A search embeds by the token of one task, and ranks by the token of another."""
    wrong = {"choice.wrong_texts": 3}
    saved = _saved(options, **wrong, tasks=["irtr_coco", "retrieval_emoji"])
    used = {"load_path": saved, "num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 4}
    data = {"data_root": options["data_root"], "datasets": ["coco"]}
    assert build_index(*resolve_use(**used, **data, splits=["test"], index=str(tmp_path / "index")))["images"] == 6
    assert make_hard_pools(*resolve_use(**used, **data, out=str(tmp_path))) == {"coco": 2 * tiny.ROWS}
    model = Model.from_checkpoint(saved, num_gpus=0)
    assert model.task_tokens == {"itc": "retrieval_emoji", "irtr": "irtr_coco"}
    for image in ("a.png", "b.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / image).write_bytes(tiny.image_bytes(ord(image[0]), kind="PNG"))
    index = {"index": str(tmp_path / "own")}
    build_index(*resolve_use(**used, **index, image_folder=str(tmp_path / "images")))
    for rerank_k in (2, None):
        found = search(*resolve_use(**used, **index, query="a dog", rerank_k=rerank_k))
        for result in found:
            image = tmp_path / "images" / result["source"]
            near = (model.embed(images=image) @ model.embed(texts="a dog").T).item()
            expected = near if rerank_k is None else model.score(image, "a dog").item()
            assert result["score"] == pytest.approx(expected, abs=1e-4)
    records = predict(*resolve_use(**used, image=str(tmp_path / "images" / "a.png"), text="a dog"))
    assert {record["task"] for record in records} == {"itc", "irtr"}
