"""Tokenizers trained on the texts of arrow files, and the commands around them."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from tests import tiny
from vlc.common.errors import UserError
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.tokenizer.__main__ import main
from vlc.tokenizer.statistics import measure
from vlc.tokenizer.texts import Texts
from vlc.tokenizer.training import KINDS, train

ENGLISH = ["Two dogs and a cat", "The cat is left of two dogs", "a dog, a cat"]
GERMAN = ["Zwei Hunde und eine Katze", "Die Häuser sind grün"]
SIZES = {"wordpiece": 90, "unigram": 60, "bpe": 320}


@pytest.fixture
def arrows(tmp_path) -> Path:
    """Two files in the columns of writers; some of their texts have a language."""
    folder = tmp_path / "arrows"
    captions = [[ENGLISH[0], GERMAN[0]], [ENGLISH[1], None, GERMAN[1]], []]
    columns = {"caption": captions, "lang": [["en", "de"], ["en", "de", "de"], []], "image_id": ["x1", "x2", "x3"]}
    tiny.write_table(folder / "captions.arrow", columns | {"image": [b"\xff"] * 3})
    columns = {"questions": [[ENGLISH[2]]], "answers": [[["yes", "no"]]], "split": ["train"]}
    tiny.write_table(folder / "questions.arrow", columns)
    return folder


def _run(monkeypatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["vlc.tokenizer", *map(str, words)])
    main()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_tokenizer_is_loaded_by_transformers_and_by_us(arrows, tmp_path, monkeypatch, capsys, kind):
    for name in ("one", "two"):
        _run(monkeypatch, "train", arrows, "--size", SIZES[kind], "--kind", kind, "--out", tmp_path / name)
    one, two = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two"))
    assert one == two
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "one"), load_tokenizer(str(tmp_path / "one"))
    assert len(ours) <= SIZES[kind]
    encoder, text = TextEncoder(ours, 40), "Die Katze, two dogs and grün"
    assert encoder(text).ids == theirs(text)["input_ids"]
    assert max(encoder(text).words) == (5 if kind == "unigram" else 6), (
        "a sign is a word of its own, but for XLM-R's kind"
    )
    assert theirs.decode(encoder(text).ids, skip_special_tokens=True).strip().replace(" ,", ",") == text
    printed = capsys.readouterr().out
    rows = {
        line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith((" de", " en", " all"))
    }
    assert rows["en"][:2] == ["2", "12"]
    assert rows["de"][:2] == ["2", "9"]
    assert rows["all"][:2] == ["7", "27"]
    assert f"tokenizer={tmp_path / 'one'}" in printed


def test_small_letters_keep_their_accents():
    for kind in KINDS:
        tokenizer = train(kind, lambda: GERMAN, SIZES[kind], lowercase=True)
        encode = tokenizer.backend_tokenizer.encode
        assert encode("HÄUSER").ids == encode("häuser").ids != encode("hauser").ids, kind


def test_texts_are_read_with_their_languages(arrows):
    found = list(Texts(arrows).by_language("Reading"))
    assert ("en", ENGLISH[:2]) in found
    assert ("de", GERMAN) in found
    assert ("", [ENGLISH[2]]) in found
    assert ("", ["yes", "no"]) in found
    assert list(Texts(arrows, ["split"]).all("Reading")) == ["train"]


def test_texts_in_any_layout(tmp_path):
    captions = pa.array([["a dog"], ["a cat"]]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string())))
    table = pa.table({"caption": captions, "text": pa.array(["x", None], pa.string_view()), "lang": ["en", "de"]})
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert list(Texts(tmp_path).by_language("Reading")) == [("", ["a dog", "a cat"]), ("en", ["x"])]


def test_statistics_are_counted_by_hand():
    tokenizer = train("wordpiece", lambda: ["ab ab", "ab"], 20)
    total, languages = measure(tokenizer, [("en", ["ab ab"]), ("de", ["ab é!"])])
    assert (languages["en"].words, languages["en"].pieces, languages["en"].unknown_share) == (2, 2, 0)
    assert languages["de"].unknown == 2, "é and !"
    assert total.unknown_share == 2 / 8
    assert total.pieces_per_word == (2 + 3) / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", 20], r"--size 20 is too small: the texts have \d+ letters.* Pass --size \d+"),
        (["--size", 260, "--kind", "bpe"], r"the texts have 256 bytes"),
        (["--size", 90, "--columns", "image"], "has a column of texts image: name the columns with --columns"),
        (["--size", 90, "--out", "{arrows}"], "exists and is no empty folder"),
    ],
)
def test_bad_input_is_explained(arrows, tmp_path, monkeypatch, capsys, options, message):
    options = [str(option).format(arrows=arrows) for option in options]
    words = "train", arrows, "--out", tmp_path / "out", *options
    with pytest.raises(SystemExit):
        _run(monkeypatch, *words)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_folders_without_texts(tmp_path):
    with pytest.raises(UserError, match=r"has no arrow files: write some with python -m write_arrow"):
        Texts(tmp_path)
    tiny.write_table(tmp_path / "x.arrow", {"caption": [[], [None, ""]]})
    with pytest.raises(UserError, match="There are no texts to train on"):
        train("bpe", lambda: Texts(tmp_path).all("Reading"), 300)
    (tmp_path / "y.arrow").write_bytes(b"ARROW1")
    with pytest.raises(UserError, match=r"y.arrow is damaged or not an Arrow IPC file"):
        Texts(tmp_path)


def test_a_tokenizer_is_shown_at_work(monkeypatch, capsys, tmp_path):
    _run(monkeypatch, "show", "emoji", "two dogs")
    lines = capsys.readouterr().out.splitlines()
    encoder = TextEncoder(load_tokenizer("emoji"), 8)
    assert [line.split()[0] for line in lines[2:]] == list(map(str, encoder("two dogs").ids))
    assert lines[3].split()[1:] == ["two", "1", "two"]
    with pytest.raises(SystemExit):
        _run(monkeypatch, "show", tmp_path, "x")
