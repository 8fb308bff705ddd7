import re

import pytest
from PIL import Image

from tests.workflows.fit.tables import images, questions, read, written
from vlc.common.errors import UserError
from vlc.workflows.fit.columns import understood
from vlc.workflows.fit.items import Item, items_of, with_boxes
from vlc.workflows.fit.kinds import KINDS, kind_of, wanted_roles
from vlc.workflows.fit.pictures import Picture, pictures_of


def _items(folder, rows):
    """The examples of rows, and what is wrong with other rows, by the number of the line."""
    table = read(written(folder, rows))
    roles = understood(table, {}, folder)
    name = kind_of(table, roles, "")
    called = {"text": roles.text, "answer": roles.answer}
    several = [called[role] for role in KINDS[name].several]
    items = items_of(table, roles, wanted_roles(KINDS[name], roles), folder, several)
    return items, {int(where.rpartition(" ")[2]): reason for where, reason in table.problems}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": " "}, r"column answer \(answer\) is empty"),
        ({"question": None}, r"column question \(question\) is empty"),
        ({"picture": "images/none.png"}, "images/none.png is no file below"),
        ({"picture": "http://a.b/c.jpg"}, "is an address: fetch the image"),
        ({"picture": 7}, "the image is a int, and a path is wanted"),
        ({"question": ["one", "two"]}, r"the question is .*'one', 'two'.*, and one text is wanted"),
        ({"split": "practice"}, "the split is 'practice', and train, val, test are known"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, change, reason):
    rows = questions(tmp_path, 6)
    rows[3] |= change
    items, problems = _items(tmp_path, rows)
    assert len(items) == 5
    assert problems.keys() == {4}
    assert re.search(reason, problems[4]), problems[4]


def test_a_table_of_which_most_rows_cannot_be_used_is_refused(tmp_path):
    rows = [row | {"picture": f"elsewhere/{n}.png"} for n, row in enumerate(questions(tmp_path, 6))]
    with pytest.raises(UserError, match=r"6 of 6 rows .*, line 1: elsewhere/0.png is no file below .*fit.root=FOLDER"):
        _items(tmp_path, rows)


def test_splits_in_other_words(tmp_path):
    rows = [
        row | {"subset": split}
        for row, split in zip(questions(tmp_path, 4), ("Train", "dev", "testing", ""), strict=True)
    ]
    assert [item.split for item in _items(tmp_path, rows)[0]] == ["train", "val", "test", ""]


def test_identifiers_are_kept_where_they_differ(tmp_path):
    rows = [row | {"id": f"q{n}"} for n, row in enumerate(questions(tmp_path, 3))]
    assert [item.identifier for item in _items(tmp_path, rows)[0]] == ["q0", "q1", "q2"]
    rows[2]["id"] = "q0"
    assert [item.identifier for item in _items(tmp_path, rows)[0]] == ["0", "1", "2"]


def test_several_captions_and_answers(tmp_path):
    (name,) = images(tmp_path, 1)
    items, _ = _items(tmp_path, [{"image": name, "captions": ["a  dog", "a cat", ""]}])
    assert [item.text for item in items] == ["a dog", "a cat"]
    items, _ = _items(tmp_path, [{"image": name, "question": "what", "answers": ["red", "red", "blue"]}])
    assert items[0].answers == ("red", "red", "blue")


PICTURES = {"a": Picture("a", 100, 50)}


def _boxed(*boxes, form=""):
    problems = []
    items = with_boxes([Item(f"line {n}", ("a",), box=box) for n, box in enumerate(boxes)], PICTURES, form, problems)
    return [item.box for item in items], problems


def test_boxes_decide_what_their_numbers_are():
    assert _boxed((60, 20, 90, 45)) == ([(60, 20, 90, 45)], [])  # 60 + 90 would be outside
    assert _boxed((60, 20, 30, 25)) == ([(60, 20, 90, 45)], [])  # 30 is left of 60
    assert _boxed((0.6, 0.4, 0.3, 0.5)) == ([(60, 20, 90, 45)], [])
    with pytest.raises(UserError, match="may be xyxy or xywh .*fit.boxes=xyxy or fit.boxes=xywh decides"):
        _boxed((10, 10, 30, 25))
    assert _boxed((10, 10, 30, 25), form="xyxy")[0] == [(10, 10, 30, 25)]


def test_boxes_outside_of_the_picture():
    assert _boxed((90, 40, 12, 12), form="xywh")[0] == [(90, 40, 100, 50)]
    boxes, problems = _boxed((10, 10, 20, 20), (95, 10, 40, 20), (10, 10, 0, 5), form="xywh")
    assert boxes == [(10, 10, 30, 30)]
    assert [where for where, _ in problems] == ["line 1", "line 2"]
    assert "does not lie in a picture of 100x50 pixels" in problems[0].reason


def test_pictures_are_known_by_their_pixels(tmp_path):
    names = images(tmp_path, 2)
    (tmp_path / "copy.png").write_bytes((tmp_path / names[0]).read_bytes())
    (tmp_path / "cut.png").write_bytes(b"no image")
    Image.open(tmp_path / names[0]).save(tmp_path / "other.bmp")
    paths = [str(tmp_path / name) for name in (*names, "copy.png", "other.bmp", "cut.png")]
    pictures, damaged = pictures_of(paths, tmp_path / "cache.json")
    first, second, copy, other = (pictures[path].key for path in paths[:4])
    assert first == copy == other != second
    assert (pictures[paths[0]].width, pictures[paths[0]].height) == (40, 30)
    assert damaged.keys() == {paths[4]}
    (tmp_path / names[1]).write_bytes((tmp_path / names[0]).read_bytes())
    again, _ = pictures_of(paths[:2], tmp_path / "cache.json")
    assert again[paths[1]].key == first, "a changed file is decoded again"
