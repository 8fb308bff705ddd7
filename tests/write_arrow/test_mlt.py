"""Lexical translation as it is distributed: words, their places and translations, in the splits of Multi30k."""

import json
import shutil
from collections import Counter

import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import MissingFile
from vlc.data.catalog import CATALOG
from vlc.data.lexical_translation import translations
from write_arrow.sources.mlt import _place

EXPECTED = json.loads((GOLDEN / "tasks/mlt/expected/mlt_parsed_OWN.json").read_text(encoding="utf-8"))
TESTS = {
    "test_2016_flickr": "en{}_test2016",
    "test_2017_flickr": "en{}_test2017flickr",
    "test_2017_mscoco": "en{}_test2017mscoco",
    "test_2018_flickr": "MLTtest2018en{}",
}
COLUMNS = ("words", "acceptable", "caption", "target_lang")


def _lines(out, *splits):
    """Word, translations, sentence, language and image of each text."""
    rows = [row for split in splits for row in table(out / f"mlt_{split}.arrow").to_pylist()]
    found = ((*line, row["image_id"]) for row in rows for line in zip(*(row[name] for name in COLUMNS), strict=True))
    return Counter((word, tuple(forms), *others) for word, forms, *others in found)


def _expected(name, language, *, several=False):
    lines = Counter()
    for line in EXPECTED["lines"][name]:
        forms = tuple(line["forms"]) if several else (" ".join(line["forms"]),)
        lines[line["word"], forms, line["rest"][0], language, line["rest"][-1]] += 1
    return lines


def test_lines_are_those_that_should_be_read(multi30k_root, write):
    out = write("mlt", multi30k_root)
    names = {language: f"EN{language.upper()}_MLTD_formatted.txt" for language in ("de", "fr")}
    trained = sum((_expected(name, language) for language, name in names.items()), Counter())
    assert _lines(out, "train", "val") == trained
    for split, name in TESTS.items():
        wanted = (_expected(f"test_sets/{name.format(one)}.txt", one, several="2018" in split) for one in ("de", "fr"))
        assert _lines(out, split) == sum(wanted, Counter())
    assert {path.stem.removeprefix("mlt_") for path in out.iterdir()} == {"train", "val", *TESTS}


def test_no_image_is_in_two_splits(multi30k_root, write):
    out = write("mlt", multi30k_root)
    for split, (stem,) in CATALOG["mlt"].tables.items():
        listed = (multi30k_root / f"data/task1/image_splits/{split}.txt").read_text().split()
        assert {row["image_id"] for row in table(out / f"{stem}.arrow").to_pylist()} <= {
            line.partition("#")[0] for line in listed
        }


def test_candidates_are_the_translations_in_training_by_their_frequency(multi30k_root, write):
    german, images = multi30k_root / "ENDE_MLTD_formatted.txt", multi30k_root / "data/task1/image_splits"
    train, val, test = (
        (images / f"{name}.txt").read_text().split()[0] for name in ("train", "val", "test_2016_flickr")
    )
    german.write_text(
        f"Wall | Mauer | a wall | {train}\nwall | wand | a wall , a wall | {train}\nwall|wand|the old Wall.|{train}\n"
        f"wall | zaun | a wall | {val}\nwall | tor | a wall | {test}\ndoor | tor | a door | {val}\n"
    )
    out = write("mlt", multi30k_root)
    columns = ("words", "word_places", "lang", "translation", "candidates", "most_frequent")

    def german_texts(split):
        rows = table(out / f"mlt_{split}.arrow").to_pylist()
        texts = [text for row in rows for text in zip(row["target_lang"], *(row[n] for n in columns), strict=True)]
        return [text for language, *text in texts if language == "de"]

    known = ["wand", "mauer"]
    assert german_texts("train") == [
        ["wall", 1, "en", "mauer", known, "wand"],
        ["wall", 1, "en", "wand", known, "wand"],
        ["wall", 2, "en", "wand", known, "wand"],
    ]
    assert german_texts("val") == [["wall", 1, "en", "zaun", known, "wand"], ["door", 1, "en", "tor", [], ""]]
    assert ["wall", known] in [[text[0], text[4]] for text in german_texts("test_2018_flickr")]


def test_lines_that_cannot_be_used_are_listed(multi30k_root, write, capsys):
    path, images = multi30k_root / "ENFR_MLTD_formatted.txt", multi30k_root / "data/task1/image_splits"
    train, test = ((images / f"{name}.txt").read_text().split()[0] for name in ("train", "test_2016_flickr"))
    path.write_text(
        f"wall | mur | a door | {train}\nwall | mur | a wall\n\nwall | x = | a wall | {train}\n"
        "wall | mur | a wall | x.jpg\n"
        f"wall | mur | &quot; wall &quot; | {train}\nwall | mur | a wall | {test}\n | mur | a wall | {train}\n"
    )
    sets = multi30k_root / "test_sets"
    (sets / "enfr_test2016.txt").write_text(f"wall | mur | a wall | un mur | {train}\n")
    out = write("mlt", multi30k_root)
    rejected = [json.loads(line) for line in (out / "mlt_train.rejected.jsonl").read_text().splitlines()]
    assert [(one["path"].rpartition(" ")[2], one["reason"]) for one in rejected] == [
        ("1", "its sentence does not have the word 'wall'"),
        ("2", "it has 3 fields between bars, expected 4"),
        ("3", "it has 1 fields between bars, expected 4"),
        ("4", "no translation of 'wall'"),
        ("5", "its image, x.jpg, is in no split of Multi30k"),
        ("8", "its sentence does not have the word ''"),
    ]
    row = next(row for row in table(out / "mlt_train.arrow").to_pylist() if row["image_id"] == train)
    assert (row["caption"][-1], row["word_places"][-1]) == ('" wall "', 1)
    (crossing,) = (out / "mlt_test_2016_flickr.rejected.jsonl").read_text().splitlines()
    assert f"its image, {train}, is not in Multi30k's list of this split" in crossing
    assert "ENFR_MLTD_formatted.txt: 1 lines are about images of test splits" in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_is_missing_is_told(multi30k_root, write):
    (multi30k_root / "test_sets/ende_test2016.txt").unlink()
    with pytest.raises(MissingFile, match=r"ende_test2016\.txt does not exist.*root should hold: EN\{DE,FR\}_MLTD"):
        write("mlt", multi30k_root)
    shutil.rmtree(multi30k_root / "data")
    with pytest.raises(MissingFile, match=r"mlt_train is not written: .*image_splits/train\.txt does not exist"):
        write("mlt", multi30k_root)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("Back pack = rucksack", ["rucksack"]),
        (" oben  auf_dem_Kopf ", ["oben", "auf dem kopf"]),
        ("Tu\u0308r", ["tür"]),
        ("_ tür_", ["tür"]),
        ("=", []),
    ],
)
def test_annotations_are_read_in_spite_of_what_was_typed_beside_them(annotation, expected):
    assert translations(annotation) == expected


@pytest.mark.parametrize(
    ("word", "sentence", "place"),
    [
        ("sign", "a girl holding sign: two signs", 3),
        ("end zone", "the End zone .", 1),
        ("end zone", "the end", None),
        ("café", "a Cafe\u0301 !", 1),
        ("well", "a well-known well", 2),
    ],
)
def test_words_are_found_where_they_stand(word, sentence, place):
    assert _place(word, sentence) == place
