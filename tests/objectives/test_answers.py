"""Answers that are classified from a [MASK] behind the question (Su et al. 2020, VL-BERT), from batch to trained model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests import resuming, tiny
from tests.data.made import ENCODER, captions, keys, preparation, samples
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.parts import MaskedAnswer
from vlc.data.parts.masked_answer import masked_answers
from vlc.data.tokens import Tokens, load_tokenizer
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives.answers import Answers
from vlc.objectives.base import ModelContext
from vlc.objectives.options import AnswersOptions
from vlc.training.run import build_data, build_module, run
from vlc.use.model import Model

RECIPE = "task_finetune_vqa_mae_randaug"
MASK = {"answers.pool": "mask"}
LONG = "the dog and the cat and the house and the bus and the tree"  # 14 words, of which 12 tokens have place


def _tokens(masked, row: int) -> list[int]:
    return masked.text.ids[row][masked.text.mask[row].bool()].tolist()


def test_the_mask_stands_behind_each_question_as_its_second_segment():
    texts = ["dog", "the red cat", LONG]
    masked = masked_answers(map(ENCODER, texts), ENCODER)
    for row, text in enumerate(texts):
        composed = ENCODER.composed([(text, 0), ("[MASK]", 1)])
        assert _tokens(masked, row) == composed.ids
        assert masked.text.segments[row].tolist()[: len(composed.ids)] == composed.segments
        assert composed.segments[-3:] == [0, 1, 1]
    assert masked.text.ids.flatten()[masked.positions].tolist() == [ENCODER.mask_id] * 3
    assert len(_tokens(masked, 2)) == ENCODER.max_text_len
    assert (masked.text.segments[masked.text.mask == 0] == 0).all()


def test_the_mask_is_the_last_one_where_the_question_has_some_too():
    masked = masked_answers([ENCODER("a [MASK] cat")], ENCODER)
    places = (masked.text.ids[0] == ENCODER.mask_id).nonzero()[:, 0].tolist()
    assert masked.positions.tolist() == places[1:]


def test_texts_of_two_segments_keep_them():
    ids = ENCODER("dog cat").ids
    masked = masked_answers([Tokens(ids, [-1, 0, 1, -1], [0, 0, 1, 1])], ENCODER)
    assert masked.text.segments[0].tolist()[:6] == [0, 0, 1, 1, 1, 1]


def test_the_part_is_made_of_the_samples_of_a_batch(tmp_path):
    batch = samples(tmp_path, captions(["a dog"], [LONG]), {MaskedAnswer()})[keys(0, 1)]
    expected = masked_answers(map(preparation().text_encoder, ["a dog", LONG]), ENCODER)
    assert torch.equal(batch.parts["masked_answer"].text.ids, expected.text.ids)
    assert torch.equal(batch.parts["masked_answer"].positions, expected.positions)
    assert batch.text.segments is None, "the text itself is as without the part"


def test_the_answer_is_classified_from_the_state_of_the_mask(tmp_path):
    torch.manual_seed(0)
    context = ModelContext(width=32, vocab_size=ENCODER.vocab_size, num_patches=4, size=tiny.SMALL)
    encoder = Encoder(tiny.SMALL, 32, vocab_size=ENCODER.vocab_size, max_text_len=12).eval()
    head = Answers(AnswersOptions(5, pool="mask"), context).eval()
    batch = samples(tmp_path, captions(["dog"], [LONG]), {MaskedAnswer()})[keys(0, 1)]
    batch = replace(batch, images=replace(batch.images, pixels=batch.images.pixels.float() / 255))
    encoded = encode_passes(encoder, batch, head.passes(batch))
    outcome = head(encoded, batch)
    assert outcome.logits.shape == (2, 5)
    (one,) = head.passes(batch)
    # Of the first text [CLS] dog [SEP] [MASK] [SEP], of the second all twelve tokens.
    states = torch.stack([encoded[one]["masked_answer"][0, 3], encoded[one]["masked_answer"][1, 10]])
    hidden = F.gelu(states @ head.transform.dense.weight.T + head.transform.dense.bias)
    hidden = F.layer_norm(hidden, (32,), head.transform.LayerNorm.weight, head.transform.LayerNorm.bias, 1e-12)
    torch.testing.assert_close(outcome.logits, hidden @ head.decoder.weight.T + head.decoder.bias)
    assert not torch.equal(head.train()(encoded, batch).logits, outcome.logits), "training drops out a tenth"


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict:
    return {"data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path / "log"), "vqav2_label_size": 3}


def _saved(metrics: dict) -> str:
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


def test_the_transform_starts_as_that_of_masked_language_modelling(options):
    of_mlm = {**options, "datasets": ["coco"], "loss_names": loss_weights(mlm=1)}
    pretrained = _saved(run(tiny.settings(**of_mlm)))
    settings = tiny.settings(RECIPE, **options, **MASK, load_path=pretrained)
    module = build_module(settings, build_data(settings))
    head, state = module.objectives["vqa"], weights.read(pretrained).state
    for name, value in head.transform.state_dict().items():
        assert torch.equal(value, state[f"objectives.mlm.transform.{name}"])
    assert not any(parameter.requires_grad for parameter in module.encoder.pooler.parameters()), "nothing reads it"


@pytest.fixture
def trained(options) -> str:
    return _saved(run(tiny.settings(RECIPE, **options, **MASK)))


def test_a_trained_model_is_tested_asked_and_exported_alike(options, trained, arrows, tmp_path):
    settings = tiny.settings(RECIPE, **options, **MASK, test_only=True, load_path=trained)
    tested = run(settings)
    assert len(json.loads(Path(tested["log_dir"], "vqa_test.json").read_text())) == tiny.ROWS * tiny.TEXTS
    data = build_data(settings)
    module = build_module(settings, data).eval()
    source, where = data.evaluation["test"].locate(3)
    with torch.no_grad():
        batch = module.normalised(data.evaluation["test"][keys(3)])
        expected = module.outcomes(batch)["vqa"].logits[0].sigmoid().sort(descending=True)[0].tolist()
    exported = tmp_path / "exported.safetensors"
    assert weights.export(weights.read(trained), exported, "vlc") == []
    for path in (trained, exported):
        model = Model.from_checkpoint(path, num_gpus=0)
        assert model.module.objectives["vqa"].options.pool == "mask"
        (answer,) = model.answer(source.image(where, "image").to_pybytes(), source.text(where))
        assert [value for _, value in answer.choices] == pytest.approx(expected)
    left_out = weights.export(weights.read(trained), tmp_path / "release.ckpt", "vlc_release")
    assert {name.split(".")[2] for name in left_out} == {"transform", "decoder"}, "published layouts have no such head"


def test_a_task_by_its_name_brings_its_pool_back(options):
    own = {key: value for key, value in options.items() if key != "vqav2_label_size"} | {"vqa.answers.num_answers": 3}
    saved = _saved(run(tiny.settings(**own, tasks=["vqa"], **{"vqa.answers.pool": "mask"})))
    assert Model.from_checkpoint(saved, num_gpus=0).module.objectives["vqa"].options == AnswersOptions(3, pool="mask")


def test_a_run_is_resumed_exactly(arrows, small_vit, tmp_path, monkeypatch):
    program = resuming.pretraining(arrows, small_vit, **MASK, max_steps=4)
    stop = resuming.Stop("training_step", 3, "SIGTERM")
    assert resuming.assert_same(program, tmp_path, [stop], monkeypatch) == 1


def test_another_pool_than_that_of_the_checkpoint_is_told(options, trained):
    for load in ({"load_path": trained}, {"load_path": trained, "test_only": True}):
        settings = tiny.settings(RECIPE, **options, **load)
        with pytest.raises(UserError, match=r"(lacks|no place for).*Check .*answers\.pool"):
            build_module(settings, build_data(settings))


def test_rows_of_shared_answers_are_carried_over(options, trained, arrows):
    """The classifier's rows of answers that checkpoint and data both have, where the labels differ."""
    settings = tiny.settings(RECIPE, **(options | {"vqav2_label_size": 5}), **MASK, load_path=trained)
    module, state = build_module(settings, build_data(settings)), weights.read(trained).state
    head = module.objectives["vqa"].decoder
    for label in (0, 2):  # of "yes" and "no"
        assert torch.equal(head.weight[label], state["objectives.vqa.decoder.weight"][label])
    assert not torch.equal(head.weight[3], head.weight[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers.pool": "last"}, "answers.pool='last' is not valid: expected cls or mask"),
        ({"answers.pool": 1}, "answers.pool=1 is not valid: expected cls or mask"),
        ({**MASK, "max_text_len": 4}, "max_text_len=4 has no room: pass max_text_len=5 or more"),
    ],
)
def test_values_that_cannot_be_used_are_told(changes, message, small_vit):
    with pytest.raises(UserError, match=message):
        tiny.settings(RECIPE, **changes)


def test_a_tokenizer_without_a_mask_is_told(tmp_path):
    tokenizer = load_tokenizer("emoji")
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"mask_token": None}))
    with pytest.raises(UserError, match=r"lacks mask_token.*pass a tokenizer that has all of .*BERT's"):
        load_tokenizer(str(tmp_path))
