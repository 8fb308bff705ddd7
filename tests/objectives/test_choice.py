"""Choice among texts that the data give: the scores are those of each text alone, and ranks and records follow."""

from dataclasses import replace

import pytest
import torch

from tests import tiny
from tests.data.made import ENCODER, captions, keys, preparation
from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import ANSWERS, IDENTIFIERS, TEXTS, one_of
from vlc.data.samples import Samples
from vlc.data.spec import Column
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
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
        "history": Column("history", ANSWERS),
        "caption": Column("title", TEXTS, per_text=False),
    },
)
TURNS = [["red", "two", "a dog", "cat", "bus"], ["bus", "cat", "", "dog dog", "two"], ["a", "b", "c", "d", "e"]]
RIGHT = [3, 0, 2]


def _samples(path, options=OPTIONS, *, turns=TURNS, right=RIGHT, training=False) -> Samples:
    columns = captions(["what is it", "and left"], ["how many"]) | {
        "options": [turns[:2], turns[2:]],
        "right": [right[:2], right[2:]],
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


def test_different_numbers_of_candidates_are_refused(tmp_path):
    samples = _samples(tmp_path, turns=[TURNS[0], TURNS[1][:3], TURNS[2]])
    with pytest.raises(UserError, match="has texts with 3 and with 5 options"):
        samples[keys(0, 1)]
