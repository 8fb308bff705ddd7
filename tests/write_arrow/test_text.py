"""Text corpora become rows in the order of the files."""

import pytest

from tests.write_arrow.conftest import table
from vlc.common.errors import UserError
from write_arrow.sources import text

TEXT = "first line\nsecond  line \r\n\n\n third é\n"


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "raw"
    (root / "sub").mkdir(parents=True)
    (root / "b.txt").write_text(TEXT, newline="")
    (root / "sub/a.txt").write_text("\ufefflast", encoding="utf-8")
    (root / "c.md").write_text("not read")
    return root


def test_lines(corpus, write):
    rows = table(write("text", corpus) / "text_0.arrow").to_pylist()
    assert [row["text"] for row in rows] == ["first line", "second  line", "third é", "last"]
    assert [row["file"] for row in rows] == ["b.txt"] * 3 + ["sub/a.txt"]


def test_paragraphs_patterns_and_limits(corpus, write):
    out = write("text", corpus, "--unit", "paragraph", "--pattern", "b*", "--stem", "wiki")
    assert table(out / "wiki_0.arrow")["text"].to_pylist() == ["first line second  line", "third é"]
    assert table(write("text", corpus, "--limit", "2") / "text_0.arrow").num_rows == 2


def test_numbered_files(corpus, write, monkeypatch):
    monkeypatch.setattr(text, "SHARD_ROWS", 3)
    out = write("text", corpus)
    assert [table(out / f"text_{number}.arrow").num_rows for number in (0, 1)] == [3, 1]
    with pytest.raises(UserError, match=r"text_1\.arrow of another run"):
        write("text", corpus, "--limit", "2")


def test_what_is_wrong_is_told(corpus, write):
    with pytest.raises(UserError, match=r"No text was found in files named \*\.xyz"):
        write("text", corpus, "--pattern", "*.xyz")
    (corpus / "d.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(UserError, match=r"d\.txt, line 2, is not UTF-8"):
        write("text", corpus)


@pytest.mark.parametrize(
    ("encoding", "words"), [("utf-16", []), ("utf-32", []), ("latin-1", ["--encoding", "latin-1"])]
)
def test_encodings(encoding, words, tmp_path, write):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.txt").write_text("né\n\nà\n", encoding)
    rows = table(write("text", tmp_path / "raw", *words) / "text_0.arrow").to_pylist()
    assert [row["text"] for row in rows] == ["né", "à"]
    if words:
        with pytest.raises(UserError, match=r"a\.txt, line 1, is not UTF-8 .*--encoding NAME"):
            write("text", tmp_path / "raw")
