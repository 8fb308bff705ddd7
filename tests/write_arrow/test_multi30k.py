"""Multi30k as it is distributed: all texts of an image together, in the order of the files."""

import gzip
import json
import shutil

import pyarrow as pa
import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import MissingFile, UserError
from vlc.data.catalog import CATALOG
from vlc.data.image_keys import image_keys, keys_of_rows

EXPECTED = json.loads((GOLDEN / "tasks/multi30k/expected/multi30k_rows.json").read_text(encoding="utf-8"))
TASK1, TASK2 = "data/task1/raw", "data/task2/raw"


def _rows(out, split):
    return table(out / f"multi30k_{split}.arrow").to_pylist()


def _texts(row, kind):
    """The texts of a kind by language, in the order of their numbers."""
    found = zip(row["lang"], row["kind"], row["sent_idx"], row["caption"], strict=True)
    texts: dict[str, list[str]] = {}
    for language, _, number, text in sorted(one for one in found if one[1] == kind):
        texts.setdefault(language, []).append(text)
        assert number == len(texts[language]) - 1
    return texts


def _rejected(out, split):
    path = out / f"multi30k_{split}.rejected.jsonl"
    return [tuple(json.loads(line).values()) for line in path.read_text().splitlines()]


def _rewrite(path, change):
    """Write a compressed file with its list of lines changed."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    change(lines)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def test_rows_are_those_that_should_be_read_in_the_order_of_the_files(multi30k_root, write):
    out = write("multi30k", multi30k_root)
    for split, expected in EXPECTED["task1"].items():
        rows = _rows(out, split)
        assert [row["image_id"] for row in rows] == [one["image"] for one in expected["rows"]]
        for row, one in zip(rows, expected["rows"], strict=True):
            assert _texts(row, "translation") == {language: [one[language]] for language in expected["languages"]}
            assert row["split"] == split
        captions = EXPECTED["task2"].get("test_2016" if split == "test_2016_flickr" else split, [])
        wanted = {one["image"]: {language: one[language] for language in ("en", "de")} for one in captions}
        assert [_texts(row, "caption") for row in rows] == [wanted.get(row["image_id"], {}) for row in rows]
    assert {path.name for path in out.iterdir()} == {f"multi30k_{split}.arrow" for split in EXPECTED["task1"]}


def test_keys_of_images_are_those_of_flickr_and_coco(multi30k_root, write):
    out, spec = write("multi30k", multi30k_root), CATALOG["multi30k"]
    published = json.loads((GOLDEN / "tasks/clean/clean_lists.json").read_text())["images"]
    for split, (stem,) in spec.tables.items():
        keys = [
            key for some in keys_of_rows(out / f"{stem}.arrow", "multi30k", spec, split) for key in some.to_pylist()
        ]
        assert sorted(keys) == sorted(published[f"multi30k/{split}"])


def test_a_secret_of_digits_alone_is_no_number_of_an_image():
    names = pa.array(["7_0123456789.jpg", "7_012345678.jpg", "7_0123456789_b.jpg", "COCO_val2014_000000391895.jpg"])
    assert image_keys(names, "flickr").to_pylist() == ["flickr:7", "flickr:12345678", None, "flickr:391895"]


def test_plain_files_other_languages_and_line_breaks_of_windows_are_read(multi30k_root, write):
    folder = multi30k_root / TASK1
    for path in folder.glob("val.de.gz"):
        text = gzip.decompress(path.read_bytes()).decode()
        path.with_suffix("").write_bytes(f"\ufeff{text}".replace("\n", "\r\n").encode())
    _rewrite(folder / "val.de.gz", lambda lines: lines.clear())  # the plain file is read
    (folder / "val.uk").write_text("перший\u2028рядок\nдругий", encoding="utf-8")  # a separator within a line
    rows = _rows(write("multi30k", multi30k_root), "val")
    assert [_texts(row, "translation")["uk"] for row in rows] == [["перший\u2028рядок"], ["другий"]]
    assert [_texts(row, "translation")["de"] for row in rows] == [
        [one["de"]] for one in EXPECTED["task1"]["val"]["rows"]
    ]


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (f"{TASK1}/val.fr.gz", list.pop, r"val\.fr\.gz has 1 lines, but .*val\.txt has 2: line 2 of the latter"),
        (
            f"{TASK1}/val.en.gz",
            lambda lines: lines.append("x"),
            r"val\.txt has 2 lines, but .*val\.en\.gz has 3: line 3",
        ),
        (f"{TASK2}/val.3.de.gz", list.pop, r"val\.3\.de\.gz has 1 lines, but .*val_images\.txt has 2"),
    ],
)
def test_files_of_unequal_length_are_told_with_both_counts(multi30k_root, write, path, change, message):
    _rewrite(multi30k_root / path, change)
    with pytest.raises(UserError, match=message):
        write("multi30k", multi30k_root)


def test_empty_lines_and_missing_images_are_listed_and_the_other_texts_stay(multi30k_root, write):
    _rewrite(multi30k_root / TASK1 / "train.de.gz", lambda lines: lines.__setitem__(1, "  "))
    _rewrite(multi30k_root / TASK2 / "train.2.en.gz", lambda lines: lines.__setitem__(0, ""))
    first, second, third = (one["image"] for one in EXPECTED["task1"]["train"]["rows"][:3])
    (multi30k_root / "flickr30k-images" / third).unlink()
    out = write("multi30k", multi30k_root)
    assert _rejected(out, "train") == [
        (f"{TASK1}/train.de.gz, line 2", "an empty line"),
        (f"{TASK2}/train.2.en.gz, line 1", "an empty line"),
        (f"flickr30k-images/{third}", "no such file"),
    ]
    rows = {row["image_id"]: row for row in _rows(out, "train")}
    assert set(_texts(rows[second], "translation")) == {"en", "fr", "cs"}
    numbers = [n for lang, kind, n in zip(*(rows[first][name] for name in ("lang", "kind", "sent_idx")), strict=True)
               if (lang, kind) == ("en", "caption")]  # fmt: skip
    assert numbers == [0, 2, 3, 4]
    assert third not in rows


def test_what_is_not_there_is_not_written_and_told(multi30k_root, write, capsys):
    shutil.rmtree(multi30k_root / "data/task2")
    shutil.rmtree(multi30k_root / "images/test_2018_flickr")
    for name in ("train2014", "val2014"):
        shutil.rmtree(multi30k_root / name)
    (multi30k_root / "data/task1/image_splits/test_2017_flickr.txt").unlink()
    out = write("multi30k", multi30k_root)
    assert {path.stem for path in out.iterdir()} == {
        f"multi30k_{name}" for name in ("train", "val", "test_2016_flickr")
    }
    printed = " ".join(capsys.readouterr().out.split())
    assert "multi30k_test_2017_mscoco is not written: " in printed
    assert "test_2017_flickr.txt does not exist" in printed
    assert "multi30k_train: task 2 has no files of it, so that it has translations alone" in printed
    assert "6 images; 6 translations in en, 6 translations in cs" in printed
    shutil.rmtree(multi30k_root / "flickr30k-images")
    with pytest.raises(MissingFile, match=r"multi30k_train is not written: .*root should hold: data/task1/raw/SPLIT"):
        write("multi30k", multi30k_root, out="none")


def test_files_that_cannot_be_used_are_told(multi30k_root, write):
    path = multi30k_root / TASK1 / "val.de.gz"
    good = path.read_bytes()
    path.write_bytes(gzip.compress(b"gut\nnicht \xff\n"))
    with pytest.raises(UserError, match=r"val\.de\.gz, line 2, is not UTF-8"):
        write("multi30k", multi30k_root)
    path.write_bytes(good[:-9])
    with pytest.raises(UserError, match=r"val\.de\.gz cannot be decompressed .*fetch it again"):
        write("multi30k", multi30k_root)
    path.write_bytes(good)
    images = multi30k_root / "data/task1/image_splits/val.txt"
    first = images.read_text().split()[0]
    images.write_text(f"{first}\n{first}\n")
    with pytest.raises(UserError, match=rf"val\.txt, or the list of task 2, has {first} more than once"):
        write("multi30k", multi30k_root)
    for path in (multi30k_root / TASK1).glob("val.*"):
        path.unlink()
    with pytest.raises(MissingFile, match=r"data/task1/raw has no file val\.LANGUAGE or val\.LANGUAGE\.gz"):
        write("multi30k", multi30k_root)
