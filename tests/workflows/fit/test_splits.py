from collections import Counter, defaultdict

import pytest

from vlc.common.errors import UserError
from vlc.workflows.fit.items import Item
from vlc.workflows.fit.pictures import Picture
from vlc.workflows.fit.splits import with_splits

SHARES = (0.8, 0.1, 0.1)


def _divided(rows, shares=SHARES, seed=0):
    """rows: for each example its images, by letters that name the picture, and its split."""
    items = [Item(str(number), tuple(images), split=split) for number, (images, split) in enumerate(rows)]
    pictures = {image: Picture(image[0], 10, 10) for images, _ in rows for image in images}
    divided, said = with_splits(items, pictures, shares, seed)
    return [item.split for item in divided], said


def _letters(count):
    return [chr(0x4E00 + number) for number in range(count)]


def test_examples_of_one_picture_stay_together():
    rows = [((f"{letter}{copy}",), "") for copy in range(3) for letter in _letters(100)]  # three files of each picture
    splits, said = _divided(rows)
    assert Counter(splits) == {"train": 240, "val": 30, "test": 30}
    of_picture = defaultdict(set)
    for (images, _), split in zip(rows, splits, strict=True):
        of_picture[images[0][0]].add(split)
    assert all(len(found) == 1 for found in of_picture.values())
    assert len(said) == 1


def test_pairs_stay_together_through_others():
    letters = _letters(30)
    rows = [((letters[n], letters[n + 1]), "") for n in range(0, 30, 2)] + [((letters[0], letters[28]), "")]
    splits, _ = _divided(rows)
    assert splits[0] == splits[14] == splits[15]


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    rows = [((letter,), "") for letter in _letters(50)]
    one = dict(zip(_letters(50), _divided(rows)[0], strict=True))
    assert one == dict(zip(reversed(_letters(50)), _divided(rows[::-1])[0], strict=True))
    assert one != dict(zip(_letters(50), _divided(rows, seed=1)[0], strict=True))


def test_given_splits_are_kept_and_missing_ones_taken_from_training():
    letters = _letters(40)
    rows = [((letter,), "test" if n < 4 else "train") for n, letter in enumerate(letters)]
    splits, _ = _divided(rows)
    assert splits[:4] == ["test"] * 4
    assert Counter(splits) == {"test": 4, "train": 32, "val": 4}


def test_an_example_without_a_split_joins_those_of_its_picture():
    rows = [(("a",), "test"), (("a2",), ""), (("b",), "train"), (("c",), "val"), (("d",), "")]
    assert _divided(rows)[0] == ["test", "test", "train", "val", "train"]


def test_leaks_of_given_splits_are_named():
    rows = [(("a1",), "train"), (("b",), "val"), (("a2",), "test"), (("c",), "train")]
    splits, said = _divided(rows)
    assert splits == ["train", "val", "test", "train"]
    assert "1 images of validation or test are pictures of training too, such as a2" in said[1]


def test_small_tables():
    splits, _ = _divided([((letter,), "") for letter in "abc"])
    assert sorted(splits) == ["test", "train", "val"]
    with pytest.raises(UserError, match="no example for val: 5 examples show 2 pictures"):
        _divided([(("a",), "")] * 4 + [(("b",), "")])


def test_a_large_group_is_for_training():
    rows = [(("a",), "")] * 50 + [((letter,), "") for letter in _letters(10)]
    splits, _ = _divided(rows)
    assert set(splits[:50]) == {"train"}
    assert Counter(splits[50:]) == {"test": 6, "val": 4}
