"""Language embeddings: what they add to which tokens, how runs store them, and how a checkpoint's are found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.corpus import Corpus
from vlc.data.keys import Key
from vlc.model.encoder import Encoder
from vlc.model.passes import Pass, encode_passes
from vlc.training.run import build_data, build_module, run
from vlc.use.model import Model

CANDIDATES = Pass(("candidate_texts", "image"), pooled_only=True)
EMBEDDINGS = {"languages.embeddings": ["en", "de"]}


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(tiny.SMALL, 32, vocab_size=50, max_text_len=8, languages=("en", "de")).eval()


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]]).repeat(3, 1)
    text = Text(torch.randint(5, 50, (3, 6)), torch.ones(3, 6).long(), 18, segments)
    languages = torch.tensor([[0, 1], [1, -1], [-1, 0]])
    wrong = Text(torch.randint(5, 50, (6, 6)), torch.ones(6, 6).long(), 36)
    parts = {"languages": languages, "wrong_texts": wrong}
    return Batch(index=torch.arange(3), split="val", images=Images(torch.rand(3, 1, 3, 32, 32)), text=text, parts=parts)


@torch.no_grad()
def test_each_segment_has_the_vector_of_its_language_and_all_start_as_zero(encoder, batch):
    text, languages = batch.text, batch.parts["languages"]
    plain = encoder.embed_words(text.ids, text.segments)
    assert torch.equal(encoder.embed_words(text.ids, text.segments, languages), plain)
    encoder.languages.weight.copy_(torch.randn(2, 32))
    added = encoder.embed_words(text.ids, text.segments, languages) - plain
    en, de, none = *encoder.languages.weight, torch.zeros(32)
    for row, (first, second) in enumerate(((en, de), (de, none), (none, en))):
        torch.testing.assert_close(added[row], torch.stack([first] * 3 + [second] * 3), atol=1e-6, rtol=0)
    alone = encoder.embed_words(text.ids, None, languages) - encoder.embed_words(text.ids)
    torch.testing.assert_close(alone[:, 5], torch.stack([en, de, none]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_all_texts_of_an_example_are_of_its_language(encoder, batch):
    before = {one: encode_passes(encoder, batch, [one])[one].pooled for one in (Pass(), CANDIDATES)}
    encoder.languages.weight[1].normal_()
    after = {one: encode_passes(encoder, batch, [one])[one].pooled for one in (Pass(), CANDIDATES)}
    changed = [not torch.allclose(*rows) for rows in zip(before[Pass()], after[Pass()], strict=True)]
    assert changed == [True, True, False]
    rows = zip(before[CANDIDATES].unflatten(0, (3, 3)), after[CANDIDATES].unflatten(0, (3, 3)), strict=True)
    assert [not torch.allclose(*one) for one in rows] == [True, True, False], "their wrong texts too"
    silent = replace(batch, parts={})
    assert torch.equal(encode_passes(encoder, silent, [Pass()])[Pass()].pooled, _without(encoder, silent))


def _without(encoder: Encoder, batch: Batch) -> torch.Tensor:
    encoder.languages = None
    return encode_passes(encoder, batch, [Pass()])[Pass()].pooled


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict:
    data = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, "mask_ratio": 0.5}
    pairs = {"pretraining_multi30k.pairs": ["en-de", "de-en"]}
    return data | pairs | {"tasks": ["pretraining_multi30k"], "pretraining_multi30k.max_text_len": 24}


def _built(options: dict, **changes):
    settings = tiny.settings(**(options | changes))
    data = build_data(settings)
    return data, build_module(settings, data).eval()


def test_a_run_learns_them_by_name_and_another_one_finds_them(options):
    data, _ = _built(options, **EMBEDDINGS)
    batch = data.tasks["pretraining_multi30k"].train[[Key(0, number) for number in range(4)]]
    named = {("en", "de"): [0, 1], ("de", "en"): [1, 0]}
    for number, found in enumerate(batch.parts["languages"].tolist()):
        source, where = data.tasks["pretraining_multi30k"].train.locate(number)
        assert found == named[source.field(where, "lang"), source.field(where, "second_lang")]
    trained = run(tiny.settings(**options, **EMBEDDINGS, learning_rate=1e-2))
    path = f"{trained['log_dir']}/checkpoints/last.ckpt"
    found = weights.read(path)
    table = found.state[weights.LANGUAGES]
    assert found.extras["languages"] == ["en", "de"]
    assert table.abs().amax(1).min() > 0
    _, other = _built(options, load_path=path, **{"languages.embeddings": ["fr", "de"]})
    torch.testing.assert_close(other.encoder.languages.weight.data, torch.stack([table.mean(0), table[1]]))
    assert {f"{weights.LANGUAGES} of language en"} <= set(weights.load(other, found).unused)
    model = Model.from_checkpoint(path, num_gpus=0, **{"languages.of_texts": "de"})
    plain = Model.from_checkpoint(path, num_gpus=0)
    picture = tiny.image_bytes()
    assert model.score(picture, ["a dog"]) != plain.score(picture, ["a dog"])
    for changes, message in (
        ({}, r"trained with embeddings of languages: pass languages.embeddings=\[en,de\]"),
        (
            {"test_only": True, "languages.embeddings": ["cs"]},
            r"languages en,de, not of cs: pass languages.embeddings=\[en,de\]",
        ),
    ):
        with pytest.raises(UserError, match=message):
            _built(options, load_path=path, **changes)
    with pytest.raises(UserError, match="languages.of_texts=cs, but .* these languages: en, de"):
        Model.from_checkpoint(path, num_gpus=0, **{"languages.of_texts": "cs"})


def test_a_checkpoint_without_them_starts_equal(options):
    data, plain = _built(options)
    path = Path(options["log_dir"], "plain.ckpt")
    torch.save({"state_dict": plain.state_dict(), "vlc": plain.extras}, path)
    named, module = _built(options, load_path=str(path), **EMBEDDINGS)
    keys = [Key(0, number) for number in range(4)]
    losses = [
        float(one.total_loss(one.outcomes(one.normalised(own.train[keys])), "pretraining_multi30k").detach())
        for own, one in ((data, plain), (named, module))
    ]
    assert losses[0] == losses[1]
    with pytest.raises(UserError, match="plain.ckpt has no embeddings of languages: leave languages.embeddings out"):
        _built(options, load_path=str(path), test_only=True, **EMBEDDINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ["coco"]}, r"datasets=\['coco'\] say none"),
        ({"languages.embeddings": ["en", "en"]}, "each language once"),
        (
            {"loss_names.itc": 1, "hard_negatives": True},
            "languages.embeddings count on texts of an example's own language",
        ),
    ],
)
def test_mistakes(small_vit, changes, message):
    with pytest.raises(UserError, match=message):
        tiny.settings(**({"vit": small_vit, "datasets": ["multi30k"]} | EMBEDDINGS | changes))


@torch.no_grad()
def test_rankings_add_them_too(options):
    options = {name: value for name, value in options.items() if not name.startswith("pretraining_multi30k.")}
    options |= {"tasks": ["pretraining_multi30k_captions"], "pretraining_multi30k_captions.where.lang": ["en", "de"]}
    data, module = _built(options, **EMBEDDINGS)
    samples = data.tasks["pretraining_multi30k_captions"].evaluation["val"]
    for numbers, text in Corpus(samples).texts_by_length(5):
        sources = [samples.locate(number) for number in numbers.tolist()]
        expected = [["en", "de"].index(source.field(where, "lang")) for source, where in sources]
        assert text.languages.tolist() == [[number, number] for number in expected]
        plain = module.encoder.embed_text(text).tokens
        module.encoder.languages.weight.fill_(1.0)
        torch.testing.assert_close(module.encoder.embed_text(text).tokens, plain + 1)
        module.encoder.languages.weight.zero_()
