"""Choice among texts that the data give: the scores are those of each text alone, and ranks and records follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny
from tests.conftest import GOLDEN
from tests.data.made import ENCODER, captions, keys, preparation
from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.arrow import ArrowSplit
from vlc.data.batch import Batch
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import ANSWERS, IDENTIFIERS, TAGS_OF_TEXTS, TEXTS, one_of
from vlc.data.parts.candidates import CandidateTexts
from vlc.data.samples import Samples
from vlc.data.spec import Column
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.model.segments import Encoded
from vlc.objectives.base import ModelContext, Outcome
from vlc.objectives.choice import Choice
from vlc.objectives.options import ChoiceOptions

OPTIONS = ChoiceOptions(candidates="options", label="right", ids=("turn",))
SPEC = replace(
    CATALOG["coco"],
    fields={
        "options": Column("options", ANSWERS),
        "right": Column("right", one_of(5)),
        "turn": Column("turn", IDENTIFIERS),
        "tags": Column("tags", TAGS_OF_TEXTS),
        "history": Column("history", ANSWERS),
        "caption": Column("title", TEXTS, per_text=False),
    },
)
TURNS = [["red", "two", "a dog", "cat", "bus"], ["bus", "cat", "", "dog dog", "two"], ["a", "b", "c", "d", "e"]]
RIGHT = [3, 0, 2]


def _samples(path, options=OPTIONS, *, turns=TURNS, right=RIGHT, training=False, tags=([], [], [])) -> Samples:
    columns = captions(["what is it", "and left"], ["how many"]) | {
        "options": [turns[:2], turns[2:]],
        "right": [right[:2], right[2:]],
        "tags": [tags[:2], tags[2:]],
        "turn": [[1, 2], [1]],
        "history": [[[], ["what is it", "cat"]], [[]]],
        "title": ["a cat", "a house"],
    }
    names = {"image", "caption", "options", "history", "title"}
    source = ArrowSplit([tiny.write_table(path / "t.arrow", columns)], SPEC, "coco", names)
    prepared = replace(preparation("mae_test"), composer=COMPOSERS["dialogue"])
    return Samples("train", [source], Choice.parts(options), prepared, training=training, seed=5)


@pytest.fixture(scope="module")
def model() -> tuple[Encoder, Choice]:
    torch.manual_seed(0)
    encoder = Encoder(tiny.SMALL, 32, vocab_size=ENCODER.vocab_size, max_text_len=12).eval()
    context = ModelContext(width=32, vocab_size=ENCODER.vocab_size, num_patches=4, size=tiny.SMALL)
    return encoder, Choice(OPTIONS, context)


def _outcome(model, batch) -> Outcome:
    encoder, head = model
    batch = replace(batch, images=replace(batch.images, pixels=batch.images.pixels / 255))
    return head(encode_passes(encoder, batch, head.passes(batch)), batch)


@torch.no_grad()
def test_each_score_is_that_of_the_text_alone(tmp_path, model):
    batch = _samples(tmp_path)[keys(0, 1, 2)]
    logits = _outcome(model, batch).logits
    assert logits.shape == (3, 5)
    texts = batch.parts["candidates"].text
    for number in range(15):
        length = int(texts.mask[number].sum())
        text = Text(texts.ids[number : number + 1, :length], texts.mask[number : number + 1, :length])
        text = replace(text, segments=texts.segments[number : number + 1, :length])
        image = model[0].embed_images(batch.images.pixels[number // 5] / 255)
        alone = model[1].score(model[0].encode([model[0].embed_text(text), image]).pooled)
        torch.testing.assert_close(alone, logits[number // 5, number % 5][None], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_branch_scores_as_if_it_stood_alone_behind_question_and_history(tmp_path, model):
    options = replace(OPTIONS, branches=True)
    head = Choice(options, model[1].context).eval()
    head.load_state_dict(model[1].state_dict())
    batch = _samples(tmp_path, options)[keys(0, 1, 2)]
    logits = _outcome((model[0], head), batch).logits
    assert logits.shape == (3, 5)
    candidates = batch.parts["candidates"]
    second = ENCODER.within(12 - 3).composed([("and left", 0)], ["what is it", "cat", "a cat"])
    assert candidates.trunk.ids[1][candidates.trunk.mask[1].bool()].tolist() == second.ids
    for number in range(15):
        row, place = divmod(number, 5)
        own = candidates.text.branches[row] == place + 1
        alone = replace(candidates.text.at(slice(row, row + 1)), branches=None)
        alone = Text(
            alone.ids[:, own],
            alone.mask[:, own],
            None,
            alone.segments[:, own],
            positions=alone.positions[:, own],
            branches=torch.ones(1, int(own.sum()), dtype=torch.int64),
        )
        assert ENCODER.text_of(alone.ids[0].tolist()) == TURNS[row][place]
        assert alone.positions[0, :2].tolist() == [0, candidates.trunk.mask[row].sum()]
        assert alone.segments[0].tolist() == [0, *[1] * (alone.ids.shape[1] - 1)]
        trunk = candidates.trunk.at(slice(row, row + 1))
        image = model[0].embed_images(batch.images.pixels[row] / 255)
        encoded = model[0].encode([model[0].embed_text(trunk), image, model[0].embed_text(alone, "own")])
        found = head.score(model[0].pooler(encoded["own"]))
        torch.testing.assert_close(found, logits[row, place][None], atol=1e-5, rtol=1e-4)


def test_evaluation_shows_all_in_their_order_behind_question_and_before_history(tmp_path):
    candidates = _samples(tmp_path)[keys(0, 1, 2)].parts["candidates"]
    assert candidates.words == TURNS
    assert candidates.right.tolist() == RIGHT
    second = ENCODER.composed([("and left", 0), ("cat", 1)], ["what is it", "cat", "a cat"])
    ids, mask = candidates.text.ids[5 + 1], candidates.text.mask[5 + 1].bool()
    assert ids[mask].tolist() == second.ids


def test_training_shows_the_right_one_first_and_others_at_random(tmp_path):
    samples, seen = _samples(tmp_path, replace(OPTIONS, drawn=3), training=True), set()
    for epoch in range(30):
        candidates = samples[keys(0, 1, 2, epoch=epoch)].parts["candidates"]
        assert candidates.right.tolist() == [0, 0, 0]
        for words, all_words, right in zip(candidates.words, TURNS, RIGHT, strict=True):
            assert words[0] == all_words[right]
            assert len(set(words)) == 3
        seen |= set(candidates.words[0])
    assert seen == set(TURNS[0])


def test_without_labels_there_are_ranks_and_no_loss(tmp_path, model):
    batch = _samples(tmp_path, right=[None] * 3)[keys(0, 1, 2)]
    assert batch.parts["candidates"].right is None
    outcome = _outcome(model, batch)
    assert outcome.loss is None
    for answer in model[1].answers(outcome, batch):
        assert sorted(answer.record["ranks"]) == [1, 2, 3, 4, 5]
        assert set(answer.record) == {"turn", "ranks"}


def test_ties_count_against_the_right_one_and_are_ranked_in_their_order(tmp_path, model):
    batch = _samples(tmp_path)[keys(0, 1, 2)]
    scores = torch.tensor([[0.0, 2, 1, 1, 1], [3.0, 1, 2, 0, 3], [0.0, 0, 1, 0, 0]])
    first, second, third = (answer.record for answer in model[1].answers(Outcome(torch.zeros(()), {}, scores), batch))
    assert first == {"turn": 1, "ranks": [5, 1, 2, 3, 4], "rank": 4}
    assert second == {"turn": 2, "ranks": [1, 4, 3, 5, 2], "rank": 2}
    assert third == {"turn": 1, "ranks": [2, 3, 1, 4, 5], "rank": 1}


def test_answers_name_the_candidates_by_their_probability(tmp_path, model):
    batch = _samples(tmp_path)[keys(0)]
    scores = torch.tensor([[0.0, 2, 1, 3, -1]])
    (answer,) = model[1].answers(Outcome(None, {}, scores), batch)
    assert [text for text, _ in answer.choices] == ["cat", "two", "a dog", "red", "bus"]
    assert sum(value for _, value in answer.choices) == pytest.approx(1)


@pytest.mark.parametrize(("loss", "name"), [("cross_entropy", "softmax"), ("bce", "sigmoid")])
def test_losses_are_those_of_12_in_1_and_of_vl_bert(tmp_path, model, loss, name):
    golden = np.load(GOLDEN / "tasks/vcr/losses.npz")
    head = Choice(replace(OPTIONS, loss=loss), model[1].context)
    logits, right = torch.from_numpy(golden["vcr_logits"]), torch.from_numpy(golden["vcr_label"])
    batch = Batch(index=torch.arange(4), split="train")
    texts = Text(torch.zeros(16, 8, dtype=torch.int64), torch.ones(16, 8, dtype=torch.int64))
    batch = batch.with_parts(candidates=CandidateTexts(texts, [["a"] * 4] * 4, right))
    head.score = lambda pooled: logits.flatten()
    (one,) = head.passes(batch)
    outcome = head({one: Encoded(torch.zeros(16, 32))}, batch)
    torch.testing.assert_close(
        outcome.loss, torch.as_tensor(golden[f"vcr_{name}_loss"]), check_dtype=False, rtol=1e-6, atol=0
    )


def test_records_may_have_probabilities_and_the_right_place(tmp_path, model):
    head = Choice(replace(OPTIONS, records="probabilities"), model[1].context)
    batch = _samples(tmp_path)[keys(0)]
    scores = torch.tensor([[0.0, 2, 1, 3, -1]])
    (answer,) = head.answers(Outcome(torch.zeros(()), {}, scores), batch)
    assert answer.record == {"turn": 1, "probabilities": scores.softmax(1)[0].tolist(), "label": 3}
    (answer,) = head.answers(Outcome(None, {}, scores), batch)
    assert set(answer.record) == {"turn", "probabilities"}


@pytest.mark.parametrize("key", ["classes", "outlines"])
def test_objects_without_boxes_as_tokens_are_refused(key):
    with pytest.raises(UserError, match=rf"choice\.{key}=True is about boxes as tokens: pass choice\.regions=tokens"):
        replace(OPTIONS, **{key: True}).check(None)


def test_tags_stay_with_their_candidates(tmp_path):
    options = replace(OPTIONS, candidate_tags="tags", drawn=3)
    tags = [
        [[10 * turn + place] * len(text.split(" ")) for place, text in enumerate(texts, 1)]
        for turn, texts in enumerate(TURNS)
    ]
    samples = _samples(tmp_path, options, training=True, tags=tags)
    for epoch in range(5):
        candidates = samples[keys(0, 1, 2, epoch=epoch)].parts["candidates"]
        for number, words in enumerate(words for own in candidates.words for words in own):
            turn = number // 3
            expected = tags[turn][TURNS[turn].index(words)] if words else []
            own = candidates.text.tags[number]
            length = len(ENCODER(words).ids) - 2
            assert set(own[own > 0].tolist()) == set(expected)
            assert int((own > 0).sum()) == length


def test_different_numbers_of_candidates_are_refused(tmp_path):
    samples = _samples(tmp_path, turns=[TURNS[0], TURNS[1][:3], TURNS[2]])
    with pytest.raises(UserError, match="has texts with 3 and with 5 options"):
        samples[keys(0, 1)]
