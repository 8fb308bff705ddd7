"""Words that name boxes: their tokens carry the tags, whatever is cut, and are those of the published loaders."""

import json
from pathlib import Path

import pytest

from tests.conftest import GOLDEN
from tests.data.made import ENCODER
from vlc.common.errors import UserError
from vlc.data.composers import COMPOSERS, Words
from vlc.data.references import rendered
from vlc.data.tokens import TextEncoder, load_tokenizer

VCR = GOLDEN / "tasks/vcr"
TOKENIZER = load_tokenizer(str(GOLDEN / "tasks/visdial/tokenizer"))


def test_each_token_has_the_tag_of_its_word():
    encoder = TextEncoder(TOKENIZER, 40)
    tokens = encoder("Why is Jackie looking at naïve Pat 's kite ?", [0, 0, 2, 0, 0, 3, 1, 0, 4, 0])
    found = [(encoder.token_name(id), tag) for id, tag in zip(tokens.ids, tokens.tags, strict=True)]
    assert [piece for piece in found if piece[1]] == [
        *(("jack", 2), ("##ie", 2)),
        *(("n", 3), ("##a", 3), ("##i", 3), ("##v", 3), ("##e", 3)),
        *(("pat", 1), ("k", 4), ("##i", 4), ("##t", 4), ("##e", 4)),
    ]
    assert tokens.ids == encoder("Why is Jackie looking at naïve Pat 's kite ?").ids
    assert encoder("kite").tags is None


def test_tags_are_cut_with_their_tokens():
    long = Words(" ".join(["dog"] * 30), 0, [*range(1, 31)])
    tokens = ENCODER.composed([long, Words("red cat", 1)])
    assert tokens.tags == [0, *range(1, 8), 0, 0, 0, 0]
    assert tokens.segments == [0] * 9 + [1] * 3
    assert ENCODER.composed([long]).tags == [0, *range(1, 11), 0]
    assert ENCODER.composed([("a dog", 0), ("red cat", 1)]).tags is None


def test_another_number_of_tags_is_refused():
    with pytest.raises(UserError, match="A text has 2 words and 3 tags of words: 'red cat'"):
        ENCODER("red cat", [0, 1, 2])


def _annotations(split: str) -> dict[str, dict]:
    lines = Path(VCR / f"vcr1annots/{split}.jsonl").read_text().splitlines()
    return {entry["annot_id"]: entry for entry in map(json.loads, lines)}


def _given(entry: dict, number: int) -> list:
    """The answer that rationales are given: the right one, or in the test split the number-th."""
    return entry["answer_choices"][entry.get("answer_label", number % 4)]


def _one_by_one(text: list) -> list:
    """The tokens of a text with objects apart: 12-in-1 puts no word between those that are named together."""
    parts: list = []
    for token in text:
        parts += [token] if isinstance(token, str) else [[one] for one in token]
    return parts


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("task", "length"), [("Q-A", 60), ("QA-R", 80)])
def test_sequences_are_those_of_12_in_1_token_for_token(task, length, split):
    expected = json.loads((VCR / "loader_12in1.json").read_text())[f"{task}/{split}"]
    entries, encoder = _annotations(split), TextEncoder(TOKENIZER, length)
    composer = COMPOSERS["grounded" if task == "Q-A" else "grounded_answer"]
    numbers = [number or f"test-{place // 4}" for place, number in enumerate(expected["annot_id"])]
    assert len(numbers) == {"val": 4 - (task == "QA-R"), "train": 6}.get(split, 3 if task == "Q-A" else 12)
    for place, (number, names, pieces) in enumerate(zip(numbers, expected["names"], expected["pieces"], strict=True)):
        entry, tags = entries[number], range(1, 1 + len(names))
        text, text_tags = rendered(_one_by_one(entry["question"]), names, tags)
        given, given_tags = rendered(_one_by_one(_given(entry, place)), names, tags)
        row = {"text": text, "text_tags": text_tags, "given_answer": given, "given_answer_tags": given_tags}
        choices = entry["answer_choices" if task == "Q-A" else "rationale_choices"]
        for choice, wanted in zip(choices, pieces, strict=True):
            words, own = rendered(_one_by_one(choice), names, tags)
            tokens = encoder.composed([*composer.compose(row), Words(words, 1, own)])
            assert [encoder.token_name(id) for id in tokens.ids] == wanted
            assert tokens.segments.count(1) == len(encoder.composed([Words(words)]).ids) - 1 or len(wanted) == length


def _names(entry: dict, sample: dict) -> list[str]:
    """What the published loader called the objects, out of its tokens; an object that no text names has no name."""
    called: dict[int, dict[tuple, str]] = {}
    for number, text in enumerate([sample["question"], *sample.get("answer_choices", sample.get("rationale_choices"))]):
        for piece, tag, word in text:
            if tag:
                spelled = called.setdefault(tag, {})
                spelled[number, word] = spelled.get((number, word), "") + TOKENIZER.convert_ids_to_tokens(piece)
    names = [next(iter(called.get(tag, {0: "unnamed"}).values())) for tag in range(1, 1 + len(entry["objects"]))]
    return [name.replace("##", "") for name in names]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_tokens_tags_and_words_are_those_of_vl_bert(split):
    encoder = TextEncoder(TOKENIZER, 500)
    expected, entries = json.loads((VCR / "loader_vlbert.json").read_text())[f"Q2A/{split}"], _annotations(split)
    assert len(expected) == len(entries)
    for sample in expected:
        entry = entries[sample["annot_id"]]
        names = _names(entry, sample)
        texts = zip(
            [entry["question"], *entry["answer_choices"]], [sample["question"], *sample["answer_choices"]], strict=True
        )
        for text, triples in texts:
            words, tags = rendered(text, names, range(1, 1 + len(names)))
            tokens = encoder(words, tags)
            pieces = [*zip(tokens.ids[1:-1], tokens.tags[1:-1], strict=True)]
            # It cuts long answers, and with them their question.
            assert len(triples) == len(pieces) or max(map(len, entry["answer_choices"])) > 40
            assert [(piece, tag) for piece, tag, _ in triples] == pieces[: len(triples)]
            assert len(triples) < len(pieces) or len(tags) == 1 + triples[-1][2]
