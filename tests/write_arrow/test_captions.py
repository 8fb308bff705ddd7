"""Captions of a user's own: tables of all kinds, folders, WebDataset shards."""

import csv
import io
import json
import os
import struct
import tarfile
import zlib
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents, table
from vlc.common.errors import UserError
from write_arrow import progress

TEXTS = {"a.jpg": ['a, "quoted" text', "another\twith a tab"], "sub/b.png": ["日本語 and é"]}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    (root / "sub").mkdir(parents=True)
    (root / "a.jpg").write_bytes(image_bytes(1))
    (root / "sub/b.png").write_bytes(image_bytes(2, kind="PNG"))
    return root


def _captions(out: Path, stem: str = "captions_0") -> dict[str, list[str]]:
    return {row["image_id"]: row["caption"] for row in table(out / f"{stem}.arrow").to_pylist()}


def _rejected(out: Path) -> dict[str, str]:
    entries = map(json.loads, (out / "captions_0.rejected.jsonl").read_text().splitlines())
    return {entry["path"]: entry["reason"] for entry in entries}


def _write_table(path: Path) -> None:
    """A row for each caption, with columns in another order, and one more."""
    rows = [{"score": 1.5, "text": text, "path": name} for name, texts in TEXTS.items() for text in texts]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_tables(suffix, images, tmp_path, write):
    _write_table(images / f"table{suffix}")
    _write_table(tmp_path / f"elsewhere{suffix}")
    columns = ["--image-column", "path", "--caption-column", "text"]
    out = write("captions", images, "--table", f"table{suffix}", *columns)
    assert _captions(out) == TEXTS
    rows = table(out / "captions_0.arrow").to_pylist()
    assert [row["split"] for row in rows] == ["train", "train"]
    assert all(row["image"] == (images / row["image_id"]).read_bytes() for row in rows)
    elsewhere = write("captions", images, "--table", str(tmp_path / f"elsewhere{suffix}"), *columns, out="other")
    assert contents(elsewhere) == contents(out)
    with pytest.raises(UserError, match="caption"):
        write("captions", images, "--table", f"table{suffix}", "--image-column", "path")


def test_columns_that_do_not_exist_are_told_with_those_that_do(images, write):
    for suffix in (".csv", ".parquet"):
        _write_table(images / f"table{suffix}")
        with pytest.raises(UserError, match=r"It has columns score, text, path; --image-column and --caption-column"):
            write("captions", images, "--table", f"table{suffix}")


def test_several_columns_and_lists_of_captions(images, write):
    rows = [
        {"image": "a.jpg", "caption": ["one", "two", " "], "alt": "three"},
        {"image": "sub/b.png", "caption": "four", "alt": None},
    ]
    (images / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = write("captions", images, "--table", "t.jsonl", "--caption-column", "caption", "alt", "--stem", "mine")
    assert _captions(out, "mine_0") == {"a.jpg": ["one", "two", "three"], "sub/b.png": ["four"]}


def test_a_table_without_header_and_with_bare_quotes(images, write):
    (images / "t.tsv").write_text('"so he said\ta.jpg\nsay "b"\tsub/b.png\n')
    columns = ["--image-column", "f1", "--caption-column", "f0"]
    out = write("captions", images, "--table", "t.tsv", "--no-header", "--no-quotes", *columns)
    assert _captions(out) == {"a.jpg": ['"so he said'], "sub/b.png": ['say "b"']}


def test_what_a_table_lacks_is_listed(images, write):
    (images / "t.csv").write_text("image,caption\na.jpg,text\nnone.jpg,text\nsub/b.png,\n")
    out = write("captions", images, "--table", "t.csv")
    assert _captions(out) == {"a.jpg": ["text"]}
    assert _rejected(out) == {"none.jpg": "no such file", "sub/b.png": "no caption"}


def test_absolute_paths_and_urls(images, tmp_path, write):
    path = images / "a.jpg"
    (tmp_path / "t.csv").write_text(f"image,caption\n{path},by path\nfile://{path},by URL\nfile:///none.jpg,missing\n")
    out = write("captions", tmp_path, "--table", "t.csv")
    assert _captions(out) == {str(path): ["by path"], f"file://{path}": ["by URL"]}
    assert _rejected(out) == {"file:///none.jpg": "no such file"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"", r"t\.xlsx: the name should end in"),
        ("t.csv", b"image,caption\na.jpg\n", r"cannot be read: .*Expected 2 columns, got 1"),
        ("t.csv", b"image,caption\na.jpg,\xff\n", "cannot be read: .*not UTF-8 .*--encoding NAME"),
        ("t.csv", b"", r"cannot be read: .*It has columns \(none\)"),
        ("t.parquet", b"PAR1", "cannot be read"),
        ("t.jsonl", b'{"image": 3, "caption": "x"}', "column image should hold paths, it has 3"),
        ("t.jsonl", b'{"image": "a.jpg", "caption": 3}', r"The caption of a\.jpg is 3, neither a text nor a list"),
    ],
)
def test_bad_tables_are_told(name, content, message, images, write):
    (images / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        write("captions", images, "--table", name)


def test_a_folder_with_texts_beside_the_images(images, write):
    (images / "a.txt").write_text("one\n\ntwo \n", encoding="utf-8-sig")
    (images / "notes.md").write_text("not read")
    out = write("captions", images)
    assert _captions(out) == {"a.jpg": ["one", "two "]}
    assert _rejected(out) == {"sub/b.png": "no caption"}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _shards(root: Path) -> dict[str, bytes]:
    root.mkdir(exist_ok=True)
    images = {f"shard-{shard}/{key}": image_bytes(2 * shard + key) for shard in (0, 1) for key in (0, 1)}
    for shard in (0, 1):
        with tarfile.open(root / f"shard-{shard}.tar", "w") as tar:
            for key in (0, 1):
                _add(tar, f"{key}.txt", f"text {shard} {key}".encode())
                _add(tar, f"{key}.JPG", images[f"shard-{shard}/{key}"])
                _add(tar, f"{key}.json", b'{"caption": "not this", "tags": ["x", "y"]}')
            _add(tar, "no_image.txt", b"text")
            _add(tar, "no_text.png", image_bytes())
            _add(tar, "described.webp", image_bytes(kind="WEBP"))
            _add(tar, "described.json", b'{"caption": "from JSON", "tags": ["x", "y"]}')
    return images


def test_webdataset_shards(tmp_path, write):
    images = _shards(tmp_path / "raw")
    out = write("captions", tmp_path / "raw")
    rows = {row["image_id"]: row for row in table(out / "captions_0.arrow").to_pylist()}
    assert len(rows) == 6
    for key, image in images.items():
        assert rows[key]["image"] == image
        assert rows[key]["caption"] == [f"text {key[6]} {key[8]}"]
    assert rows["shard-1/described"]["caption"] == ["from JSON"]
    assert _rejected(out) == {f"shard-{number}/no_text": "no caption" for number in (0, 1)}
    assert contents(write("captions", tmp_path / "raw", "--workers", "2", out="two")) == contents(out)
    tags = write("captions", tmp_path / "raw", "--caption-column", "tags", "caption", out="tags")
    assert _captions(tags)["shard-0/described"] == ["x", "y", "from JSON"]


def test_damaged_shards_are_told(tmp_path, write):
    _shards(tmp_path / "raw")
    path = tmp_path / "raw/shard-1.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"shard-1\.tar is damaged or not an uncompressed tar file"):
        write("captions", tmp_path / "raw")


def test_the_order_is_the_given_one_unless_a_seed_is(images, write):
    for number in range(20):
        (images / f"x{number:02}.jpg").write_bytes(image_bytes())
    (images / "t.csv").write_text(
        "image,caption\n" + "".join(f"x{number:02}.jpg,text\n" for number in reversed(range(20)))
    )
    given = list(_captions(write("captions", images, "--table", "t.csv")))
    assert given == [f"x{number:02}.jpg" for number in reversed(range(20))]
    seeded = [list(_captions(write("captions", images, "--table", "t.csv", "--seed", seed))) for seed in "112"]
    assert seeded[0] == seeded[1] != seeded[2]
    assert sorted(seeded[0]) == sorted(given)
    assert given != seeded[0]


def test_remote_tables_and_shards(tmp_path, write):
    """Remote files are not looked up beforehand: what does not exist is found when it is read."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/own/a.jpg": image_bytes(1), "/own/t.csv": b"image,caption\na.jpg,text\nnone.jpg,text\n"})
    out = write("captions", "memory://own", "--table", "t.csv")
    assert _captions(out) == {"a.jpg": ["text"]}
    assert _rejected(out) == {"none.jpg": "no such file"}
    _shards(tmp_path / "raw")
    local = write("captions", tmp_path / "raw", out="local")
    memory.put(str(tmp_path / "raw"), "/shards", recursive=True)
    assert contents(write("captions", "memory://shards", out="remote")) == contents(local)
    memory.rm("/own", recursive=True)
    memory.rm("/shards", recursive=True)


# -- marks, delimiters, encodings


def _five(images: Path) -> None:
    for name in "abcde":
        (images / f"{name}.jpg").write_bytes(image_bytes())


LONE_MARKS = """image\tcaption
a.jpg\t"hello there
b.jpg\ta dog
c.jpg\t"quoted" and more
d.jpg\tthe end"
e.jpg\t"in marks"
"""


def test_a_lone_mark_in_a_tsv_swallows_no_row(images, write):
    _five(images)
    (images / "t.tsv").write_text(LONE_MARKS)
    assert _captions(write("captions", images, "--table", "t.tsv")) == {
        "a.jpg": ['"hello there'],
        "b.jpg": ["a dog"],
        "c.jpg": ['"quoted" and more'],
        "d.jpg": ['the end"'],
        "e.jpg": ["in marks"],  # a cell in marks is quoted, as the csv module and spreadsheets write it
    }


@pytest.mark.parametrize(
    "rows",
    [
        'a.jpg,"hello there\nb.jpg,a dog\nc.jpg,the end"\n',  # the columns fit whichever way it is read
        'a.jpg,"hello there\nb.jpg,a dog\n',  # never closed
    ],
)
def test_a_lone_mark_in_a_csv_is_told_with_its_line_and_the_options(rows, images, write):
    _five(images)
    (images / "t.csv").write_text("image,caption\nd.jpg,first\n" + rows)
    with pytest.raises(
        UserError, match=r"t\.csv cannot be read: the quotation mark in line 3 .* --no-quotes .* --multiline"
    ):
        write("captions", images, "--table", "t.csv")
    out = write("captions", images, "--table", "t.csv", "--no-quotes")
    assert _captions(out)["a.jpg"] == ['"hello there']
    assert "b.jpg" in _captions(out)


def test_a_lone_mark_in_the_first_column_is_told_too(images, write):
    (images / "t.csv").write_text('caption,image\n"hello there,a.jpg\nthe end",sub/b.png\n')
    with pytest.raises(UserError, match="the quotation mark in line 2"):
        write("captions", images, "--table", "t.csv")


def test_marks_that_can_only_be_letters_stay(images, write):
    _five(images)
    rows = ['a.jpg,"so" she said', 'b.jpg,say "b"', 'c.jpg,"""c"", she said"', 'e.jpg,"lone', 'd.jpg,"closed"']
    (images / "t.csv").write_text("\n".join(["image,caption", *rows]))
    assert _captions(write("captions", images, "--table", "t.csv")) == {
        "a.jpg": ['"so" she said'],
        "b.jpg": ['say "b"'],
        "c.jpg": ['"c", she said'],
        "e.jpg": ['"lone'],
        "d.jpg": ["closed"],
    }


def test_quoted_cells_may_hold_line_breaks(images, write):
    (images / "t.csv").write_text('image,caption\na.jpg,"one\r\ntwo"\r\nsub/b.png,"three, four\nfive"\n')
    with pytest.raises(UserError, match="the quotation mark in line 4 .* --multiline if quoted cells hold line breaks"):
        write("captions", images, "--table", "t.csv")
    out = write("captions", images, "--table", "t.csv", "--multiline")
    assert _captions(out) == {"a.jpg": ["one\r\ntwo"], "sub/b.png": ["three, four\nfive"]}
    (images / "t.csv").write_text('image,caption\na.jpg,"one\ntwo\n\nthree"\nsub/b.png,four\n')
    assert _captions(write("captions", images, "--table", "t.csv"))["a.jpg"] == ["one\ntwo\n\nthree"]
    (images / "t.csv").write_text('image,caption\na.jpg,"one\nsub/b.png,four\n')
    with pytest.raises(UserError, match="the row that begins in line 2"):
        write("captions", images, "--table", "t.csv", "--multiline")


@pytest.mark.parametrize("word", [";", "tab", r"\t", "|"])
def test_delimiters(word, images, write):
    delimiter = {"tab": "\t", r"\t": "\t"}.get(word, word)
    (images / "t.csv").write_text(f"image{delimiter}caption\na.jpg{delimiter}one, two\n")
    with pytest.raises(UserError, match="it has no column caption, image"):
        write("captions", images, "--table", "t.csv")
    assert _captions(write("captions", images, "--table", "t.csv", "--delimiter", word)) == {"a.jpg": ["one, two"]}


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-8", []),
        ("utf-8-sig", []),
        ("utf-8-sig", ["--encoding", "utf-8"]),
        ("utf-16", []),
        ("utf-32", []),
        ("latin-1", ["--encoding", "latin-1"]),
        ("utf-16-le", ["--encoding", "utf-16-le"]),
    ],
)
def test_encodings_of_tables_and_texts(encoding, words, images, write):
    (images / "t.csv").write_text("image,caption\na.jpg,né à “Ypres”\n".replace("“", "«").replace("”", "»"), encoding)
    assert _captions(write("captions", images, "--table", "t.csv", *words)) == {"a.jpg": ["né à «Ypres»"]}
    (images / "a.txt").write_text("né\nà", encoding)
    assert _captions(write("captions", images, *words, out="folder")) == {"a.jpg": ["né", "à"]}


def test_a_wrong_encoding_is_told_with_the_option(images, write, capsys):
    (images / "t.csv").write_text("image,caption\na.jpg,né\n", "latin-1")
    with pytest.raises(UserError, match=r"t\.csv cannot be read: near line \d it is not UTF-8 .*--encoding NAME"):
        write("captions", images, "--table", "t.csv")
    with pytest.raises(UserError, match="it is not ascii"):
        write("captions", images, "--table", "t.csv", "--encoding", "ascii")
    for words in (["--encoding", "klingon"], ["--encoding", "base64"], ["--delimiter", "ab"]):
        with pytest.raises(SystemExit):
            write("captions", images, "--table", "t.csv", *words)
        assert words[0] in capsys.readouterr().err
    (images / "t.jsonl").write_text('{"image": "a.jpg", "caption": "x"}')
    for words in (["--encoding", "latin-1"], ["--delimiter", ";"], ["--no-quotes"], ["--multiline"]):
        with pytest.raises(UserError, match=f"{words[0]} is for"):
            write("captions", images, "--table", "t.jsonl", *words)


def test_spellings_of_one_path_are_one_image(images, write):
    (images / "t.csv").write_text("image,caption\na.jpg,one\n./a.jpg,two\nsub/../a.jpg,three\nsub//b.png,four\n")
    out = write("captions", images, "--table", "t.csv")
    assert _captions(out) == {"a.jpg": ["one", "two", "three"], "sub/b.png": ["four"]}


# -- bad input of many kinds at once


def test_bad_rows_of_a_table_are_listed_and_the_rest_is_written(images, write):
    lines = [
        '{"image": "a.jpg", "caption": "good"}',
        '{"image": "a.jpg", "caption": null}',
        '{"image": "a.jpg", "caption": 3}',
        '{"image": "a.jpg", "caption": {"en": "x"}}',
        '{"image": "a.jpg", "caption": "nul \\u0000"}',
        '{"image": "a.jpg", "caption": "half \\ud83d"}',
        '{"image": null, "caption": "x"}',
        '{"image": "", "caption": "x"}',
        '{"image": "\\ud83d.jpg", "caption": "x"}',
        '{"image": "a\\u0000.jpg", "caption": "x"}',
        json.dumps({"image": "x" * 5000, "caption": "x"}),
        '{"image": "../outside.jpg", "caption": "x"}',
        '{"image": "sub", "caption": "x"}',
        '{"image": "sub/b.png", "caption": ""}',
        '{"caption": "x"}',
        "[1, 2]",
        "{broken",
        "[" * 100_000,
        '"\xff"',
    ]
    (images / "t.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    (images.parent / "outside.jpg").write_bytes(image_bytes())
    out = write("captions", images, "--table", "t.jsonl")
    assert _captions(out) == {"a.jpg": ["good"]}
    reasons = _rejected(out)
    expected = {
        "t.jsonl, line 3": "The caption of a.jpg is 3",
        "t.jsonl, line 4": "The caption of a.jpg is a dict",
        "t.jsonl, line 5": "A caption of a.jpg holds a NUL",
        "t.jsonl, line 6": "A caption of a.jpg holds half a character",
        "t.jsonl, line 7": "column image should hold paths, it has NoneType",
        "t.jsonl, line 8": "column image should hold paths, it has ''",
        r"\ud83d.jpg": "",
        "a\0.jpg": "embedded null byte",
        "x" * 5000: "File name too long",
        "../outside.jpg": "it leads outside of --root: --follow-links",
        "sub": "Is a directory",
        "sub/b.png": "no caption",
        "t.jsonl, line 15": "it lacks image",
        "t.jsonl, line 16": "a list, and no object with image, caption",
        "t.jsonl, line 17": "not JSON",
        "t.jsonl, line 18": "not JSON (nested too deep)",
        "t.jsonl, line 19": "not JSON",
    }
    assert reasons.keys() == expected.keys()
    for path, reason in expected.items():
        assert reasons[path].startswith(reason)
    # Of 19 lines, one is written, one has a null, and 17 are listed.
    assert len(lines) == 1 + 1 + len(reasons)
    followed = write("captions", images, "--table", "t.jsonl", "--follow-links", out="followed")
    assert _captions(followed).keys() == {"a.jpg", "../outside.jpg"}


def test_a_folder_of_bad_things_adds_up(tmp_path, write, capsys):
    """Each image is written or listed with the reason; nothing stops, hangs or vanishes."""
    root = tmp_path / "raw"
    (root / ".ipynb_checkpoints").mkdir(parents=True)
    good, bad = {"good.jpg", "two words.png", "UPPER.JPG"}, {}
    for name in good:
        (root / name).write_bytes(image_bytes(kind="PNG" if name.endswith("png") else "JPEG"))
        (root / name).with_suffix(".txt").write_text("text")

    def add(name: str, reason: str, image: bytes | None = None, text: bytes | None = b"text") -> None:
        bad[name] = reason
        (root / name).write_bytes(image_bytes() if image is None else image)
        if text is not None:
            (root / name).with_suffix(".txt").write_bytes(text)

    add("no_text.jpg", "no caption", text=None)
    add("blank.jpg", "no caption", text=b" \n\n")
    add("nul.jpg", "A caption of nul.jpg holds a NUL", text=b"a\0b")
    add("latin.jpg", "latin.txt: not UTF-8", text=b"n\xe9")
    add("huge_text.jpg", "huge_text.txt: more than 1,048,576 bytes", text=b"x" * 2**21)
    add("empty.jpg", "an empty file", image=b"")
    add("html.jpg", "not an image of a known format", image=b"<html>")
    add("cut.png", "OSError", image=image_bytes(kind="PNG")[:200])
    add("drawing.jpg", "EPS is a program", image=b"%!PS-Adobe-3.0 EPSF-3.0\n")
    add("many_pixels.png", "it has more than 89,478,485 pixels; set VLC_MAX_PIXELS", image=_many_pixels())
    bad["no_where.jpg"], bad["circle.jpg"] = "no such file", "Too many levels of symbolic links"
    (root / "no_where.jpg").symlink_to("none.jpg")
    (root / "circle.jpg").symlink_to("circle.jpg")
    bad["pipe.jpg"], bad["pipe_text.jpg"] = "not a regular file", "pipe_text.txt: not a regular file"
    os.mkfifo(root / "pipe.jpg")
    os.mkfifo(root / "pipe_text.txt")
    (root / "pipe_text.jpg").write_bytes(image_bytes())
    for name in ("no_where", "circle", "pipe"):
        (root / f"{name}.txt").write_text("text")
    bad[r"caf\xe9.jpg"] = "its name or a text is not valid Unicode"
    for suffix, content in ((b".jpg", image_bytes()), (b".txt", b"text")):
        (root / os.fsdecode(b"caf\xe9" + suffix)).write_bytes(content)
    (root / "._good.jpg").write_bytes(b"of macOS")
    (root / ".ipynb_checkpoints/a.jpg").write_bytes(image_bytes())
    out = write("captions", root)
    assert _captions(out).keys() == good
    reasons = _rejected(out)
    assert reasons.keys() == bad.keys()
    assert all(reasons[path].startswith(reason) for path, reason in bad.items()), reasons
    said = capsys.readouterr().out
    assert "3 rows, " in said
    assert f"{len(bad)} left out" in said
    assert contents(write("captions", root, "--workers", "2", out="two")) == contents(out)


def _many_pixels() -> bytes:
    data = bytearray(image_bytes(kind="PNG"))
    data[16:24] = struct.pack(">II", 13_000, 13_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_a_picture_that_vanishes_or_changes_is_listed(images, write, monkeypatch):
    (images / "a.txt").write_text("text")
    (images / "sub/b.txt").write_text("text")
    write_tables = progress.write_tables

    def vanish(*arguments, **options):
        (images / "a.jpg").unlink()
        return write_tables(*arguments, **options)

    monkeypatch.setattr(progress, "write_tables", vanish)
    out = write("captions", images)
    assert _captions(out) == {"sub/b.png": ["text"]}
    assert _rejected(out) == {"a.jpg": "no such file"}


def test_an_output_folder_that_cannot_be_written_is_told_before_anything_is_read(images, tmp_path, write, monkeypatch):
    (tmp_path / "file").touch()
    for out in ("file", "file/below"):
        with pytest.raises(UserError, match="--out .*file is a file, and no folder"):
            write("captions", images / "none", out=out)
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may write everywhere
    with pytest.raises(UserError, match="--out .*cannot be written to: choose another folder"):
        write("captions", images / "none", out="new/folder")


# -- links


def test_links_out_of_the_folder_are_refused_unless_they_are_asked_for(images, tmp_path, write):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "passwd").write_text("root:x:0:0")
    (secret / "c.jpg").write_bytes(image_bytes())
    (secret / "c.txt").write_text("of another")
    (images / "a.txt").symlink_to("../secret/passwd")
    for name in ("link of a file", "link of a folder"):
        with pytest.raises(UserError, match="is a link to .*secret.*, outside of --root: pass --follow-links"):
            write("captions", images)
        if name == "link of a file":
            assert _captions(write("captions", images, "--follow-links"))["a.jpg"] == ["root:x:0:0"]
            (images / "a.txt").unlink()
            (images / "more").symlink_to(secret)
    assert _captions(write("captions", images, "--follow-links", out="folder")) == {"more/c.jpg": ["of another"]}
    (images / "t.csv").write_text("image,caption\nmore/c.jpg,text\na.jpg,text\n")
    out = write("captions", images, "--table", "t.csv", out="table")
    assert _captions(out) == {"a.jpg": ["text"]}
    assert _rejected(out)["more/c.jpg"].startswith("it leads outside of --root")
    (images / "more").unlink()
    (images / "again.jpg").symlink_to("a.jpg")  # stays inside
    (images / "again.txt").write_text("text")
    (tmp_path / "link").symlink_to(images)  # --root itself may be one
    assert _captions(write("captions", tmp_path / "link", out="inside")) == {"again.jpg": ["text"]}
    (images / "secret.txt").symlink_to(secret / "passwd")
    with pytest.raises(UserError, match="outside of --root"):
        write("text", images, out="text")


# -- shards


def _tar(path: Path, *members: tuple[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            _add(tar, name, content)


def test_keys_with_dots(tmp_path, write):
    names = ("a", "track 2.0", "track 2.1", "c", "c.v1", "./d/e.f")
    members = [(f"{name}{suffix}", content) for name in names for suffix, content in
               ((".jpg", image_bytes()), (".txt", name.encode()))]  # fmt: skip
    members[1:1] = [("a.mask.png", image_bytes(kind="PNG"))]  # of the same sample, between its parts
    _tar(tmp_path / "raw/s.tar", *members, ("._a.jpg", b"of macOS"), ("d/.x.txt", b"hidden"))
    out = write("captions", tmp_path / "raw")
    assert _captions(out) == {f"s/{name.removeprefix('./')}": [name] for name in names}
    assert _rejected(out) == {"s/a.mask": "no caption"}


def test_members_that_are_not_side_by_side_are_listed_with_a_hint(tmp_path, write, capsys):
    numbers = range(3)
    apart = [(f"{n}.jpg", image_bytes()) for n in numbers] + [(f"{n}.txt", b"text") for n in numbers]
    _tar(tmp_path / "raw/s.tar", *apart, ("x.jpg", image_bytes()), ("x.txt", b"text"))
    out = write("captions", tmp_path / "raw")
    assert _captions(out) == {"s/x": ["text"]}
    assert _rejected(out) == {f"s/{number}": "no caption" for number in range(3)}
    assert "3 images and their texts lie in one shard, but not side by side" in " ".join(
        capsys.readouterr().out.split()
    )


def test_bad_members_are_listed_and_the_rest_is_written(tmp_path, write):
    root = tmp_path / "raw"
    bad = {
        "latin": (".txt", b"n\xe9", "its text: not UTF-8"),
        "nul": (".txt", b"a\0b", "A caption of s/nul holds a NUL"),
        "blank": (".txt", b"\n", "no caption"),
        "huge": (".txt", b"x" * 2**21, "its text: more than 1,048,576 bytes"),
        "deep": (".json", b"[" * 100_000, "its JSON is no JSON (nested too deep)"),
        "list": (".json", b"[1]", "its JSON is a list, and no object"),
        "broken": (".json", b"{", "its JSON is no JSON"),
        "number": (".json", b'{"caption": 3}', "The caption of s/number is 3"),
        "null": (".json", b'{"caption": null}', "no caption"),
        "half": (".json", b'{"caption": "\\ud83d"}', "A caption of s/half holds half a character"),
    }
    members = [("good.jpg", image_bytes()), ("good.txt", b"text")]
    for name, (suffix, content, _) in bad.items():
        members += [(f"{name}.jpg", image_bytes()), (f"{name}{suffix}", content)]
    _tar(root / "s.tar", *members)
    with tarfile.open(root / "s.tar", "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    out = write("captions", root)
    assert _captions(out) == {"s/good": ["text"]}
    reasons = _rejected(out)
    assert reasons.keys() == {f"s/{name}" for name in bad} | {"s.tar/link.jpg"}
    assert reasons.pop("s.tar/link.jpg") == "a link, or no regular file"
    assert all(reasons[f"s/{name}"].startswith(reason) for name, (_, _, reason) in bad.items()), reasons


@pytest.mark.parametrize("size", [2**40, 2**62, -512])
@pytest.mark.parametrize("name", ["b.txt", "b.jpg"])
def test_members_that_declare_absurd_sizes_are_named(size, name, tmp_path, write):
    _tar(tmp_path / "raw/s.tar", ("a.jpg", image_bytes()), ("a.txt", b"text"), (name, b"text"))
    data = bytearray((tmp_path / "raw/s.tar").read_bytes())
    at = data.index(name.encode() + b"\0")
    data[at : at + 512] = tarfile.TarInfo(name).tobuf()
    header = data[at : at + 512]
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[at : at + 512] = header
    (tmp_path / "raw/s.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"s\.tar is damaged or not an uncompressed tar file"):
        write("captions", tmp_path / "raw")
