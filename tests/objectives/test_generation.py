"""Generation: what is read and written of captions and translations, their loss, and the search of the head."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.data.made import ENCODER, keys, preparation
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.batch import Batch
from vlc.data.catalog import CATALOG
from vlc.data.kinds import NUMBERS, TEXTS
from vlc.data.samples import Samples
from vlc.data.selection import Selection, select
from vlc.data.spec import Column
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives.base import ModelContext
from vlc.objectives.generation import Generation
from vlc.objectives.options import GenerationOptions, Surroundings

CAPTION = GenerationOptions(max_target_len=6, beams=2)
TRANSLATION = replace(CAPTION, target="second_text", languages=("de", "fr"))
SPEC = replace(
    CATALOG["coco"],
    fields={
        "lang": Column("lang", TEXTS),
        "kind": Column("kind", TEXTS),
        "sent_idx": Column("sent_idx", NUMBERS),
        "second_text": Column("caption", TEXTS, of_second=True),
        "second_lang": Column("lang", TEXTS, of_second=True),
    },
    unique_texts=False,
)
ROWS = [
    {"en": "a red dog left of a house", "de": "ein Hund", "fr": "un chien"},
    {"en": "two", "de": "zwei rote Katzen vor einem Bus"},
]


def _samples(folder, options=TRANSLATION, pairs=("en-de", "en-fr"), **changes) -> Samples:
    columns = {
        "image": [tiny.image_bytes(number) for number in range(len(ROWS))],
        "caption": [[*row.values()] for row in ROWS],
        "lang": [[*row] for row in ROWS],
        "kind": [["translation"] * len(row) for row in ROWS],
        "sent_idx": [[0] * len(row) for row in ROWS],
    }
    source = ArrowSplit([tiny.write_table(folder / "t.arrow", columns)], SPEC, "coco", {"image", "caption"})
    where = {} if pairs else {"lang": ("en",)}
    select(source, Selection(where, pairs), "train", "", training=True)
    prepared = replace(preparation("mae_test"), **changes)
    return Samples("train", [source], Generation.parts(options), prepared, training=False, seed=5)


def _words(ids: torch.Tensor) -> str:
    return ENCODER.text_of(ids.tolist())


@pytest.fixture(scope="module")
def model() -> tuple[Encoder, Generation]:
    torch.manual_seed(0)
    encoder = Encoder(tiny.SMALL, 32, vocab_size=ENCODER.vocab_size, max_text_len=12)
    context = ModelContext(32, ENCODER.vocab_size, encoder.num_patches, tiny.SMALL)
    return encoder.eval(), Generation(TRANSLATION, context).eval()


def _batch(samples: Samples) -> Batch:
    batch = samples[keys(*range(len(samples)))]
    return replace(batch, images=replace(batch.images, pixels=batch.images.pixels.float() / 255))


def test_a_translation_is_written_behind_its_text_and_the_name_of_its_language(tmp_path):
    part = _batch(_samples(tmp_path)).parts["source_and_target"]
    assert [_words(own) for own in part.source.ids] == ["a red de", "a red fr", "two de"]  # six tokens are for targets
    de = ENCODER("de").ids[1:-1]
    ends = part.source.mask.sum(1).tolist()
    assert part.source.ids[2, : ends[2]].tolist() == [ENCODER.cls_id, *ENCODER("two").ids[1:], *de, ENCODER.sep_id]
    assert part.source.segments[2, : ends[2]].tolist() == [0, 0, 0, *(1 for _ in de), 1]
    written = [ENCODER.within(7)(text).ids for text in ("ein Hund", "un chien", "zwei rote Katzen vor einem Bus")]
    for row, ids in enumerate(written):
        length = len(ids) - 1
        assert part.target.ids[row, :length].tolist() == ids[:-1]
        assert part.target.mask[row].sum() == length
        assert part.target.positions[row, :length].tolist() == [ends[row] + place for place in range(length)]
    assert part.target.segments.all()
    assert part.labels.tolist() == [number for ids in written for number in ids[1:]]
    assert part.target.ids.flatten()[part.positions].tolist() == [number for ids in written for number in ids[:-1]]
    assert int(part.target.positions.max()) < 12


def test_a_caption_is_written_about_the_image_alone(tmp_path):
    part = _batch(_samples(tmp_path, CAPTION, pairs=())).parts["source_and_target"]
    assert part.source.ids[:, :3].tolist() == [[ENCODER.cls_id, ENCODER.sep_id, 0]] * 2
    assert _words(part.target.ids[1]) == "two"
    named = replace(CAPTION, languages=("en", "de"))
    part = _batch(_samples(tmp_path, named, pairs=())).parts["source_and_target"]
    assert _words(part.source.ids[0]) == "en"


def test_blank_texts_are_not_read_but_written_all_the_same(tmp_path):
    for options, pairs, read in ((TRANSLATION, ("en-fr",), "fr"), (CAPTION, (), "")):
        samples = _samples(tmp_path, options, pairs)
        shown, blank = (_batch(one).parts["source_and_target"] for one in (samples, samples.without_texts()))
        assert _words(blank.source.ids[0]) == read
        assert torch.equal(shown.target.ids, blank.target.ids)


def test_the_loss_is_that_of_every_next_token_and_is_smoothed_in_training(tmp_path, model):
    encoder, head = model
    batch = _batch(_samples(tmp_path))
    part = batch.parts["source_and_target"]
    with torch.no_grad():
        encoded = encode_passes(encoder, batch, head.passes(batch))
        outcome = head(encoded, batch)
        states = encoded[head.passes(batch)[0]]["target"]
        logits = head.logits(states.flatten(0, 1)[part.target.mask.flatten().bool()])
        torch.testing.assert_close(outcome.logits, logits)
        torch.testing.assert_close(outcome.loss, F.cross_entropy(logits, part.labels))
        right = (logits.argmax(1) == part.labels).sum()
        assert (outcome.metrics["accuracy"][0], outcome.metrics["accuracy"][1]) == (right, len(part.labels))
        smoothed = head.train()(encoded, batch).loss
        head.eval()
    log_probs = logits.log_softmax(1)
    own = log_probs.gather(1, part.labels[:, None])[:, 0]
    torch.testing.assert_close(smoothed, -(0.9 * own + 0.1 * log_probs.mean(1)).mean())


def test_what_is_written_is_what_the_loss_finds_probable(tmp_path, model):
    """The score of a written text is its mean log-probability by `forward`, and a batch is its examples alone."""
    encoder, head = model
    samples = _samples(tmp_path)
    batch = _batch(samples)
    found = head.written(encoder, batch, ENCODER)
    part = batch.parts["source_and_target"]
    for number, (ids, score) in enumerate(found):
        (alone,) = head.written(encoder, _batch_of(samples, number), ENCODER)
        assert alone.ids == ids
        assert abs(alone.score - score) < 1e-5
        end = int(part.source.mask[number].sum())
        shown = torch.tensor([[ENCODER.cls_id, *ids]])[:, :6]
        target = replace(
            part.target,
            ids=shown,
            mask=torch.ones_like(shown),
            segments=torch.ones_like(shown),
            positions=end + torch.arange(shown.shape[1])[None],
        )
        one = _batch_of(samples, number)
        given = replace(one.parts["source_and_target"], target=target)
        one = one.with_parts(source_and_target=given)
        with torch.no_grad():
            states = encode_passes(encoder, one, head.passes(one))[head.passes(one)[0]]["target"][0]
            never = torch.tensor([ENCODER.pad_id, ENCODER.cls_id, ENCODER.mask_id])
            log_probs = head.logits(states).index_fill(1, never, float("-inf")).log_softmax(1)
        labels = torch.tensor([*ids, ENCODER.sep_id][:6])
        assert abs(float(log_probs.gather(1, labels[:, None]).mean()) - score) < 1e-5


def _batch_of(samples: Samples, number: int) -> Batch:
    batch = samples[keys(number)]
    return replace(batch, images=replace(batch.images, pixels=batch.images.pixels.float() / 255))


def test_texts_alone_are_translated_too(tmp_path, model):
    encoder, head = model
    batch = replace(_batch(_samples(tmp_path)), images=None)
    with torch.no_grad():
        assert torch.isfinite(head(encode_passes(encoder, batch, head.passes(batch)), batch).loss)
    assert len(head.written(encoder, batch, ENCODER)) == 3


def test_a_batch_without_texts_to_learn_from_has_no_outcome(model):
    _, head = model
    batch = Batch(index=torch.arange(1), split="predict")
    assert head.passes(batch) == ()
    assert head({}, batch).loss is None


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="a text in 'fr', and the head writes de"):
        _batch(_samples(tmp_path, replace(TRANSLATION, languages=("de",))))
    with pytest.raises(UserError, match="does not tell the languages 'de' and 'DE'"):
        _samples(tmp_path, replace(TRANSLATION, languages=("de", "DE")))
    others = Surroundings((), 1.0, False, 0.0, 4, 9, -1)
    with pytest.raises(UserError, match=r"generation.max_target_len=6 .* max_text_len=10 or more"):
        CAPTION.check(others)
    for wrong in ({"beams": 0}, {"label_smoothing": 1.0}, {"max_target_len": 0}, {"length_penalty": -1.0}):
        (key,) = wrong
        with pytest.raises(UserError, match=f"generation.{key}"):
            replace(CAPTION, **wrong).check_values()
