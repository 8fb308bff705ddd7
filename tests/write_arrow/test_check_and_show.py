"""Looking at what was written: `check` finds what is wrong, `show` prints and draws."""

import pytest
from PIL import Image

from tests import tiny
from tests.tiny import image_bytes
from vlc.data.catalog import CATALOG
from vlc.errors import UserError
from write_arrow.__main__ import main
from write_arrow.check import check
from write_arrow.storage import Folder


def _problems(folder, **options) -> list[str]:
    reports, general = check(Folder(folder), **options)
    return [f"{report.stem}: {problem}" for report in reports for problem in report.problems] + general


def test_good_folders_have_no_problems(arrows, capsys):
    found = _problems(arrows)
    assert [problem for problem in found if "repeat" not in problem] == []  # tiny tables have no ids of their own
    reports, _ = check(Folder(arrows))
    stems = {stem for spec in CATALOG.values() for stems in spec.tables.values() for stem in stems}
    assert len(reports) == sum(2 if stem.endswith("*") else 1 for stem in stems)
    sbu = next(report for report in reports if report.stem == "sbu_1")
    assert (sbu.readers, sbu.num_rows, sbu.num_texts) == (["sbu train"], tiny.ROWS, tiny.ROWS * tiny.TEXTS)


def test_the_published_files_pass_but_for_their_repeated_names(golden):
    assert _problems(golden / "arrow/coco") == []
    assert _problems(golden / "arrow/vqa_small") == []
    assert _problems(golden / "arrow/nlvr2") == []
    assert _problems(golden / "arrow/sbu") == ["sbu_0: 1 values of image_id repeat earlier ones, such as 'dup.jpg'"]


def test_a_file_of_captions_and_questions_counts_each_with_its_own(tmp_path):
    assert _problems(tiny.write_scenes(tmp_path, train=4, val=4, test=4, held_out=4)) == []


def _vg(folder, name="vg", **columns) -> None:
    rows = {"image": [image_bytes(), image_bytes(1)], "caption": [["a"], ["b"]], "image_id": ["1", "2"]} | columns
    tiny.write_table(folder / f"{name}.arrow", rows)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [image_bytes(), b"bad"]}, "vg: row 1: image cannot be decoded: not an image of a known format"),
        ({"image": [image_bytes(), None]}, "vg: row 1: image cannot be decoded: no image"),
        ({"image": ["path", "path"]}, "vg: column image is string, not binary"),
        ({"caption": [["a"], []]}, "vg: row 1: no caption"),
        ({"caption": [[1], [2]]}, "vg: column caption is list<item: int64>, not strings"),
        ({"image_id": ["1", "1"]}, "vg: 1 values of image_id repeat earlier ones, such as '1'"),
    ],
)
def test_problems_of_rows(columns, message, tmp_path):
    _vg(tmp_path, **columns)
    assert [problem.replace("list<element", "list<item") for problem in _problems(tmp_path)] == [message]
    assert _problems(tmp_path, num_workers=2) == _problems(tmp_path)


def test_problems_of_files(tmp_path):
    _vg(tmp_path, "sbu_0")
    _vg(tmp_path, "sbu_2", image_id=["2", "3"])
    (tmp_path / ".sbu_3.arrow.partial").touch()
    tiny.write_table(tmp_path / "vg.arrow", {"image": [image_bytes()]})
    (tmp_path / "coco_caption_karpathy_train.arrow").write_bytes(b"ARROW1\0\0")
    found = _problems(tmp_path)
    for expected in (
        "sbu_1: missing, sbu reads it; python -m write_arrow sbu writes it",
        "sbu_0: 1 values of image_id repeat earlier ones, such as '2'",
        ".sbu_3.arrow.partial: left by an interrupted run",
        "vg: lacks column caption, which vg reads",
        "coco_caption_karpathy_train: cannot be read",
        "coco_caption_karpathy_val: missing, coco reads it",
    ):
        assert any(problem.startswith(expected) for problem in found), (expected, found)


def test_answers_have_to_match_their_questions(tmp_path):
    tiny.write_dataset(tmp_path, "vqa")
    rows = tiny.rows(CATALOG["vqa"], "train")
    rows["answer_labels"][2] = [[1]]
    tiny.write_table(tmp_path / "vqav2_train.arrow", rows)
    assert "vqav2_train: row 2: 1 answer_labels for 2 questions" in _problems(tmp_path)


def test_a_part_of_the_images(tmp_path):
    _vg(tmp_path, image=[image_bytes(), b"bad"])
    assert _problems(tmp_path, num_images=1) == []


def test_check_exits_with_one_and_tells(tmp_path, capsys):
    _vg(tmp_path, caption=[["a"], []])
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(tmp_path), "--workers", "1"])
    assert exit_.value.code == 1
    assert "vg: row 1: no caption" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds no arrow files"):
        main(["check", str(tmp_path.parent), "--workers", "1"])


def test_show_prints_rows_and_draws_their_images(tmp_path, capsys):
    _vg(tmp_path, image=[image_bytes(size=(80, 40)), b"bad"])
    sheet = tmp_path / "sheet.png"
    main(["show", str(tmp_path / "vg.arrow"), "--sheet", str(sheet)])
    printed = capsys.readouterr().out
    assert "vg.arrow: 2 rows" in printed
    assert "JPEG 80x40 RGB" in printed
    assert "3 bytes, not an image of a known format" in printed
    assert "caption: ['b']" in printed
    picture = Image.open(sheet)
    assert picture.width > 400
    assert len(picture.getcolors(10**6)) > 100
    main(["show", str(tmp_path / "vg.arrow"), "--sheet", str(sheet), "--first", "1", "--rows", "1"])
    printed = capsys.readouterr().out
    assert "row 1" in printed
    assert "row 0" not in printed


def test_show_of_a_file_without_images_or_damaged(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write_table(tmp_path / "text_0.arrow", {"text": ["a line"]})
    main(["show", "text_0.arrow"])
    assert "text: 'a line'" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["text_0.arrow"]
    (tmp_path / "bad.arrow").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"bad\.arrow is damaged"):
        main(["show", "bad.arrow"])
