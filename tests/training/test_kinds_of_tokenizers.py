"""Training, use and resuming with tokenizers of every kind, and training on with another tokenizer."""

import shutil
from pathlib import Path

import pytest
import torch

import vlc
from tests import kinds_of_tokenizers, tiny
from vlc.checkpoint import weights
from vlc.checkpoint.__main__ import main
from vlc.common.errors import UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.pieces import shared_pieces
from vlc.data.tokens import load_tokenizer, stored_tokenizer
from vlc.model.sizes import ENCODERS
from vlc.training.run import build_data, build_module, run

TABLES = (weights.WORDS, "objectives.mlm.decoder.weight", "objectives.mlm.decoder.bias")


@pytest.fixture(scope="module")
def small() -> dict:
    """Options of a run of masked language modelling."""
    return {"vit": "small_one", "datasets": ["coco"], "loss_names": loss_weights(mlm=1), "mlm_prob": 0.5}


@pytest.fixture(scope="module", autouse=True)
def _small_vit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "small_one", tiny.SMALL)
        yield


@pytest.fixture(scope="module")
def arrows(tmp_path_factory) -> str:
    return str(tiny.write_dataset(tmp_path_factory.mktemp("coco"), "coco"))


@pytest.fixture(scope="module", params=kinds_of_tokenizers.KINDS)
def trained(request, small, arrows, tmp_path_factory) -> tuple[str, dict, Path]:
    """A kind of tokenizer, the options of a run with it, and the checkpoint of the run."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = kinds_of_tokenizers.write(request.param, folder / "tokenizer")
    options = small | {"data_root": arrows, "tokenizer": tokenizer, "log_dir": str(folder)}
    log_dir = run(tiny.settings(**options))["log_dir"]
    return request.param, options, Path(shutil.copy(f"{log_dir}/checkpoints/last.ckpt", folder / "last.ckpt"))


@pytest.fixture(scope="module")
def of_bert(small, arrows, tmp_path_factory) -> Path:
    """An untrained checkpoint with mBERT's kind of tokenizer, whose bias of an output is no zero."""
    folder = tmp_path_factory.mktemp("of_bert")
    tokenizer = kinds_of_tokenizers.write("bert", folder / "tokenizer")
    settings = tiny.settings(**small, data_root=arrows, tokenizer=tokenizer)
    module = build_module(settings, build_data(settings))
    torch.nn.init.normal_(module.objectives["mlm"].decoder.bias)
    torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, folder / "last.ckpt")
    return folder / "last.ckpt"


def _built(small, arrows, checkpoint: Path, tokenizer: str, **options):
    settings = tiny.settings(**small, data_root=arrows, tokenizer=tokenizer, load_path=str(checkpoint), **options)
    return build_module(settings, build_data(settings))


def test_a_model_answers_with_the_tokenizer_that_it_was_trained_with(trained):
    _, options, checkpoint = trained
    model = vlc.Model.from_checkpoint(checkpoint, num_gpus=0)
    own = load_tokenizer(options["tokenizer"])
    assert model.tokens("two Häuser of the dog").ids == own("two Häuser of the dog")["input_ids"]
    with_token, with_prompt = (
        model.answer(tiny.image_bytes(), text) for text in (f"a {own.mask_token} house", "a [MASK] house")
    )
    assert [answer.choices for answer in with_prompt] == [answer.choices for answer in with_token]
    names = [name for name, _ in with_prompt[0].choices]
    assert not any(name.startswith(("▁", "Ġ")) for name in names)


def test_a_run_is_resumed_with_its_tokenizer_alone(trained, tmp_path):
    kind, options, checkpoint = trained
    more = options | {"log_dir": str(tmp_path), "resume_from": str(checkpoint), "max_steps": 2}
    run(tiny.settings(**more))
    before, after = (weights.read(path) for path in (checkpoint, next(tmp_path.rglob("last.ckpt"))))
    assert after.extras["tokenizer"] == before.extras["tokenizer"]
    shutil.rmtree(options["tokenizer"])
    kinds_of_tokenizers.write(kind, Path(options["tokenizer"]), kinds_of_tokenizers.WORDS[::-1])
    with pytest.raises(UserError, match=r"was trained with another tokenizer .* pieces have other ids"):
        run(tiny.settings(**more))


@pytest.mark.parametrize("kind", ["xlm-r", "roberta"])
def test_pieces_are_carried_over_to_another_tokenizer(of_bert, small, arrows, tmp_path, caplog, kind):
    caplog.set_level("INFO")
    folder = kinds_of_tokenizers.write(kind, tmp_path / "tokenizer")
    state, stored = _built(small, arrows, of_bert, folder).state_dict(), weights.read(of_bert)
    theirs, here = stored_tokenizer(stored.extras["tokenizer"], ""), load_tokenizer(folder)
    known, blank = dict(shared_pieces(here, theirs)), "▁" if kind == "xlm-r" else "Ġ"
    expected = {f"{blank}dog": "dog", "ing": "##ing", "x": "##x", "<pad>": "[PAD]", "<mask>": "[MASK]"}
    for piece, of_bert_piece in expected.items():
        assert known[here.convert_tokens_to_ids(piece)] == theirs.convert_tokens_to_ids(of_bert_piece)
    for name in TABLES:
        mean = stored.state[name].mean(dim=0)
        for label in range(len(here)):
            row = stored.state[name][known[label]] if label in known else mean
            assert torch.equal(state[name][label], row), (name, label)
    others = {name for name in state if name not in TABLES}
    assert all(torch.equal(state[name], stored.state[name]) for name in others)
    said = f"{len(known)} pieces of words start from the checkpoint's pieces (69); {len(here) - len(known)} are new"
    assert said in caplog.text


def test_the_same_tokenizer_loads_rows_as_they_are(of_bert, small, arrows, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = kinds_of_tokenizers.write("bert", tmp_path / "moved")
    state, stored = _built(small, arrows, of_bert, folder).state_dict(), weights.read(of_bert).state
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert "pieces of words" not in caplog.text
    larger = _built(small, arrows, of_bert, folder, vocab_size=80).state_dict()
    for name in TABLES:
        assert torch.equal(larger[name][:69], stored[name])
        assert torch.equal(larger[name][79], stored[name].mean(dim=0))


def test_another_tokenizer_is_refused_where_rows_cannot_be_carried_over(of_bert, small, arrows, tmp_path):
    folder = kinds_of_tokenizers.write("xlm-r", tmp_path / "tokenizer")
    with pytest.raises(UserError, match="was trained with another tokenizer"):
        _built(small, arrows, of_bert, folder, test_only=True, vocab_size=69)
    with pytest.raises(UserError, match="was trained with another tokenizer"):
        vlc.Model.from_checkpoint(of_bert, num_gpus=0, tokenizer=folder)
    content = torch.load(of_bert, weights_only=True)
    del content["vlc"]["tokenizer"]
    bare = tmp_path / "bare.ckpt"
    torch.save(content, bare)
    with pytest.raises(UserError, match=r"stores no tokenizer .*python -m vlc.checkpoint .* --tokenizer NAME"):
        _built(small, arrows, bare, folder)


def test_a_tokenizer_is_stored_in_a_checkpoint_without_one(of_bert, small, arrows, tmp_path, monkeypatch, capsys):
    content = torch.load(of_bert, weights_only=True)
    del content["vlc"]["tokenizer"]
    torch.save(content, tmp_path / "bare.ckpt")

    def convert(kind: str) -> None:
        paths = [str(tmp_path / name) for name in ("bare.ckpt", "out.ckpt", kind)]
        kinds_of_tokenizers.write(kind, tmp_path / kind)
        monkeypatch.setattr("sys.argv", ["vlc.checkpoint", *paths[:2], "--tokenizer", paths[2]])
        main()

    with pytest.raises(SystemExit):
        convert("roberta")
    assert "its own is another one" in capsys.readouterr().err
    convert("bert")
    folder = kinds_of_tokenizers.write("xlm-r", tmp_path / "tokenizer")
    found, expected = (_built(small, arrows, path, folder).state_dict() for path in (tmp_path / "out.ckpt", of_bert))
    assert all(torch.equal(found[name], expected[name]) for name in TABLES)
