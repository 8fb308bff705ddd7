"""Texts alone, packed into sequences of one length, and words that are hidden one by one (VL-BERT)."""

import json
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.data.made import ENCODER, keys, preparation
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.mixing import MixedSampler, Mixing, Stretch
from vlc.data.parts import MaskedText
from vlc.data.sampler import TrainSampler
from vlc.data.samples import Samples
from vlc.data.tokens import TextEncoder, TokenHider, load_tokenizer
from vlc.training.run import build_data

GOLDEN = Path(__file__).parents[1] / "golden/tasks/vlbert"
TOKENIZER = load_tokenizer(str(GOLDEN.parent / "visdial/tokenizer"))
PUBLISHED = TextEncoder(TOKENIZER, 66)
LINES = ["a dog", "one red cat", "", "two dogs of the house", "a tree"]


def _samples(folder, *shards: list[str], encoder: TextEncoder = ENCODER, parts=()) -> Samples:
    """A corpus of lines in several files, packed."""
    paths = [tiny.write_table(folder / f"text_{n}.arrow", {"text": lines}) for n, lines in enumerate(shards)]
    source = ArrowSplit(paths, CATALOG["text"], "text", {"text"})
    prepared = replace(preparation(), text_encoder=encoder, composer=COMPOSERS["packed"])
    return Samples("train", [source], parts, prepared, training=True, seed=5)


def test_sequences_are_the_published_ones_piece_for_piece(tmp_path):
    expected = json.loads((GOLDEN / "text_only_sequences.json").read_text())
    lines, sequences = expected["lines"], expected["sequences_unmasked_ids"]
    samples = _samples(tmp_path, lines[:11], lines[11:], encoder=PUBLISHED)
    text = samples[keys(*range(len(lines)))].text
    assert text.ids[:, 1:-1].tolist() == sequences
    assert set(text.ids[:, 0].tolist()) == {PUBLISHED.cls_id}
    assert set(text.ids[:, -1].tolist()) == {PUBLISHED.sep_id}


def test_the_number_of_a_sample_alone_decides_its_lines(tmp_path):
    samples = _samples(tmp_path, LINES[:2], LINES[2:])
    together = samples[keys(0, 1, 2, 3, 4)].text
    for number in range(5):
        assert samples[keys(number, epoch=7)].text.ids[0].tolist() == together.ids[number].tolist()
        joined = [id for line in LINES[number:] + LINES[:number] for id in ENCODER(line).ids[1:-1]]
        assert together.ids[number].tolist() == [ENCODER.cls_id, *joined[:10], ENCODER.sep_id]


def test_words_are_numbered_through_all_lines():
    tokens = ENCODER.packed(["a dog", "", "one unbelievable cat"])
    assert tokens.words[0] == tokens.words[-1] == -1
    assert tokens.words[1:-1] == sorted(tokens.words[1:-1])
    assert set(tokens.words[1:-1]) == set(range(5))


def test_no_line_is_read_after_a_text_is_full():
    endless = chain.from_iterable(iter(lambda: ["a dog"], None))
    ENCODER.packed(endless)
    assert list(islice(endless, 1)) == ["a dog"]


def test_a_small_corpus_is_read_once(tmp_path):
    samples = _samples(tmp_path, ["a dog", "one cat"])
    assert samples[keys(1)].text.ids[0].tolist()[:6] == ENCODER("one cat a dog").ids
    assert _samples(tmp_path, ["", ""])[keys(0)].text.mask.sum() == 2, "[CLS] and [SEP] alone"


def test_blank_texts_stay_blank(tmp_path):
    samples = _samples(tmp_path, LINES).without_texts()
    assert samples[keys(0)].text.mask.sum() == 2


def test_captions_of_other_images_are_not_appended(arrows, small_vit):
    settings = tiny.settings(datasets=["coco"], data_root=str(arrows), vit=small_vit)
    packed = replace(settings, tasks=(replace(settings.tasks[0], composer="packed"),))
    with pytest.raises(UserError, match="composer=packed appends the texts of other rows"):
        build_data(packed)


@pytest.mark.parametrize("case", json.loads((GOLDEN / "combined_loader.json").read_text()))
def test_a_step_has_the_batches_of_the_published_step(case):
    """Captions and texts go on in lock-step, and either begins its next pass when it is used up."""
    published = [pair for epoch in case["epochs"] for pair in epoch]
    samplers = {name: TrainSampler([n], 1, seed=0) for name, n in zip(("image", "text"), case["lengths"], strict=True)}
    stretch, found = Stretch(0, 0, 3 * max(case["lengths"])), {"image": [], "text": []}
    for name, (key,), _ in MixedSampler(samplers, Mixing({"image": 1, "text": 1}), lambda number: stretch):
        found[name].append(key.epoch + 1)
    for name, number in (("image", 0), ("text", 1)):
        passes = [int(pair[number].removeprefix(name).partition(".")[0]) for pair in published]
        assert found[name][: len(passes)] == passes


def test_a_batch_may_hide_no_word(tmp_path):
    samples = _samples(tmp_path, LINES, parts=(MaskedText(1e-9, word_by_word=True),))
    batch = samples[keys(0, 1, 2)]
    hidden = batch.parts["masked_text"]
    assert hidden.positions.shape == hidden.labels.shape == (0,)
    assert hidden.text.ids.tolist() == batch.text.ids.tolist()


class _Draws:
    """A generator that returns given draws."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def random(self) -> float:
        return next(self.draws)

    def integers(self, size: int) -> int:
        kind, number = next(self.draws)
        assert kind == "choice"
        assert 0 <= number < size
        return number


def test_words_are_hidden_as_published():
    encoder = TextEncoder(TOKENIZER, 512)  # the published code cuts texts after words were hidden
    hide = TokenHider(encoder, 0.15, word_by_word=True)
    hide.special_ids = frozenset()  # the published code takes special tokens as they are drawn, and we draw again
    for case in json.loads((GOLDEN / "whole_word_masking.json").read_text())["cases"]:
        tokens, draws = encoder(" ".join(case["words"])), _Draws(case["draws"])
        hidden = hide(tokens, draws)
        assert list(map(encoder.token_name, hidden.ids[1:-1])) == case["out"]
        labels = [tokens.ids[p] if p in hidden.positions else -1 for p in range(1, len(tokens.ids) - 1)]
        assert labels == case["labels"]
        assert not list(draws.draws)


def test_words_are_hidden_as_often_as_published():
    published = json.loads((GOLDEN / "whole_word_masking.json").read_text())["statistics"]
    tokens, hide = ENCODER("a dog and one unbelievable cat"), TokenHider(ENCODER, 0.15, word_by_word=True)
    num_words, masked, hidden_words = max(tokens.words) + 1, 0, 0
    for seed in range(3000):
        hidden = hide(tokens, np.random.default_rng(seed))
        words = {tokens.words[p] for p in hidden.positions}
        assert hidden.positions == [p for p, word in enumerate(tokens.words) if word in words]
        hidden_words += len(words)
        masked += len({tokens.words[p] for p in hidden.positions if hidden.ids[p] == ENCODER.mask_id})
    assert hidden_words / (3000 * num_words) == pytest.approx(published["word_rate"], abs=0.01)
    assert masked / hidden_words == pytest.approx(published["mask_share"], abs=0.03)
