"""Words that are translated as the image shows them: the marked state, the candidates, the loss and the records."""

import math
from dataclasses import replace

import pytest
import torch

from tests import tiny
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.composers import COMPOSERS
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.vocabulary import Vocabulary, data_vocabulary
from vlc.model.segments import Encoded, Segment
from vlc.objectives.base import ModelContext
from vlc.objectives.options import WordsOptions
from vlc.objectives.words import WordTranslation, marked_state
from vlc.tasks.words import accuracies
from vlc.training.run import build_data, run
from vlc.use.model import Model

CLASSES = ("de:bank", "de:hocker", "de:ufer", "fr:banc", "fr:rive")


def test_the_marked_word_is_found_through_its_pieces():
    encoder = TextEncoder(load_tokenizer("emoji"), 16)
    for text, place, pieces in (
        ("the unbelievable dog .", 1, None),
        ("dog", 0, ["dog"]),
        ("a dog , a cat", 4, ["cat"]),
    ):
        words = COMPOSERS["marked_word"].compose({"text": text, "word_places": place})
        tokens = encoder.composed(words)
        marked = [encoder.token_name(number) for number, tag in zip(tokens.ids, tokens.tags, strict=True) if tag]
        assert "".join(piece.removeprefix("##") for piece in marked) == text.split()[place]
        assert pieces is None or marked == pieces
    assert not any(encoder.composed(COMPOSERS["marked_word"].compose({"text": "", "word_places": 0})).tags)


def test_the_state_is_the_mean_over_the_pieces_or_the_first_token():
    states = torch.arange(12.0).reshape(2, 3, 2)
    found = marked_state(states, torch.tensor([[0, 1, 1], [0, 0, 0]]))
    assert found.tolist() == [[3.0, 4.0], [6.0, 7.0]]
    assert torch.equal(marked_state(states, None), states[:, 0])


@pytest.fixture
def batch() -> Batch:
    ids = torch.ones(4, 4, dtype=torch.int64)
    text = Text(ids, ids, tags=torch.tensor([0, 1, 0, 0]).expand(4, 4))
    parts = {
        "words": ["bank", "bank", "bank", "stool"],
        "target_lang": ["de", "de", "fr", "de"],
        "candidates": [["bank", "ufer"], ["bank", "ufer"], ["banc"], []],
        "translation": ["ufer", "kante", "banc", "hocker"],  # training does not know the second one
        "acceptable": [["ufer", "rand"], ["kante", "bank"], ["banc"], ["schemel"]],
        "most_frequent": ["bank", "bank", "banc", ""],
    }
    return Batch(index=torch.arange(4), split="val", images=Images(torch.rand(4, 1, 3, 32, 32)), text=text, parts=parts)


def test_candidates_alone_compete_and_ambiguous_words_alone_count(batch):
    torch.manual_seed(1)
    context = ModelContext(width=32, vocab_size=20, num_patches=4, size=tiny.SMALL, vocabulary=Vocabulary(CLASSES))
    objective = WordTranslation(WordsOptions(), context).eval()
    states = torch.randn(4, 4, 32)
    encoded = {one: Encoded(states[:, 0], (Segment("text", states),)) for one in objective.passes(batch)}
    plain = objective.classifier(states[:, 1])
    outcome = objective(encoded, batch)
    allowed = [[0, 2], [0, 2], [3], [0, 1, 2, 3, 4]]
    for own, logits, classes in zip(outcome.logits, plain, allowed, strict=True):
        assert torch.equal(own[classes], logits[classes])
        assert own.isinf().sum() == len(CLASSES) - len(classes)
    torch.testing.assert_close(outcome.loss, -plain[0, [0, 2]].log_softmax(0)[1])
    answers = [CLASSES[label].split(":")[1] for label in outcome.logits.argmax(1).tolist()]
    right = [one in acceptable for one, acceptable in zip(answers, batch.parts["acceptable"], strict=True)]
    assert outcome.metrics["accuracy"] == (sum(right[:2]), 2)
    assert outcome.chance == (1.0, 2), "one of two candidates is acceptable for each of the two"
    found = objective.answers(outcome, batch)
    assert [one.record["answer"] for one in found] == answers
    assert [one.record["right"] for one in found] == right
    assert [one.record["most_frequent_right"] for one in found] == [False, True, True, False]
    assert [len(one.choices) for one in found] == list(map(len, allowed))
    unlabelled = replace(batch, parts={n: v for n, v in batch.parts.items() if n not in ("acceptable", "translation")})
    assert objective(encoded, unlabelled).loss is None
    assert "right" not in objective.answers(objective(encoded, unlabelled), unlabelled)[0].record
    objective(encoded, replace(batch, parts={**batch.parts, "candidates": [[]] * 4})).loss.backward()


def test_accuracies_of_ambiguous_words_by_language_and_over_words():
    def record(word, language, right, most_frequent, candidates=2):
        return {
            **{"word": word, "target_lang": language, "right": right, "most_frequent_right": most_frequent},
            "num_candidates": candidates,
        }

    records = [record("bank", "de", one, True) for one in (True, True, False, False)]
    records += [record("seal", "de", True, False), record("seal", "fr", False, False)]
    records += [record("dog", "de", True, True, 1), {"word": "bat", "num_candidates": 2, "target_lang": "de"}]
    assert accuracies(records) == {
        "accuracy_of_all_words": 4 / 7,
        "accuracy_mean_over_words": (0.5 + 1 + 0) / 3,
        "most_frequent_accuracy": 4 / 6,
        "accuracy/de": 3 / 5,
        "accuracy_mean_over_words/de": 0.75,
        "most_frequent_accuracy/de": 4 / 5,
        "accuracy/fr": 0,
        "accuracy_mean_over_words/fr": 0,
        "most_frequent_accuracy/fr": 0,
    }
    assert accuracies([{"word": "bat"}]) == {}


def test_training_keeps_the_classes_and_a_test_reports(arrows, small_vit, tmp_path):
    options = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, "tasks": ["mlt"], "num_workers": 0}
    trained = run(tiny.settings(**options))
    assert 0 <= trained["mlt/val/accuracy"] <= 1
    path = f"{trained['log_dir']}/checkpoints/last.ckpt"
    names = ["de:Bau", "de:Haus", "fr:foyer", "fr:maison"]
    assert list(data_vocabulary(["mlt"], str(arrows)).answers) == names
    assert weights.read(path).extras["answers"] == {"mlt": names}
    tested = run(tiny.settings(**options, test_only=True, load_path=path))
    prefix = "mlt/test_2016_flickr/"
    assert {"accuracy", "accuracy/de", "accuracy/fr", "accuracy_mean_over_words", "most_frequent_accuracy"} <= {
        name.removeprefix(prefix) for name in tested if name.startswith(prefix)
    }
    assert {f"{prefix}accuracy_with_wrong_images", f"{prefix}accuracy_without_text"} <= set(tested)
    assert tested[f"{prefix}most_frequent_accuracy/de"] == 0
    assert tested[f"{prefix}most_frequent_accuracy/fr"] == 1
    assert not math.isnan(tested[f"{prefix}accuracy"])
    model = Model.from_checkpoint(path, num_gpus=0)
    assert model.module.objectives["mlt"].classifier[-1].out_features == 4
    _, test_set = next(iter(build_data(tiny.settings(**options)).evaluation.items()))
    source, where = test_set.locate(0)
    image, sentence, word = source.image(where, "image").to_pybytes(), source.text(where), source.field(where, "words")
    answer = model.translate_word(image, sentence, word, source.field(where, "target_lang"))
    assert [name for name, _ in answer.choices] in (["Bau", "Haus"], ["Haus", "Bau"])
    assert sum(value for _, value in answer.choices) == pytest.approx(1)
    assert model.translate_word(image, sentence, word, "fr", ["foyer"]).choices == [("foyer", pytest.approx(1))]
    for changes, message in (
        ({"word": "zebra"}, "word='zebra' is none of the words of"),
        ({"language": "cs"}, "knows no translations in language='cs'; its languages are de, fr"),
        ({"candidates": ["Bau"], "language": "fr"}, r"knows no candidates=\['Bau'\] in language='fr'"),
    ):
        with pytest.raises(UserError, match=message):
            model.translate_word(**{"image": image, "sentence": sentence, "word": word, "language": "de"} | changes)
    with pytest.raises(UserError, match="from Python, call translate_word"):
        model.answer(image, sentence)
