"""Captions of a user's own: tables of all kinds, folders, WebDataset shards."""

import csv
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents, table
from vlc.errors import UserError

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
        ("t.csv", b"image,caption\na.jpg,\xff\n", "cannot be read: .*UTF8"),
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
    (images / "sub/b.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"sub/b\.txt is not UTF-8"):
        write("captions", images)


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
    with pytest.raises(UserError, match=r"shard-1\.tar is cut short or not an uncompressed tar"):
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
