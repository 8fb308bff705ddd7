import pytest

from vlc.common.errors import UserError
from vlc.configuration import own_tasks
from vlc.configuration.stored_rows import as_dataset, as_plain
from vlc.workflows.fit.items import Item
from vlc.workflows.fit.kinds import KINDS, Model, names_of, record, task_file
from vlc.workflows.fit.outcome import baselines
from vlc.workflows.fit.pictures import Picture
from vlc.workflows.fit.rows import Table


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_a_task_has_valid_rows(tmp_path, kind):
    path = tmp_path / f"fit_{kind}.py"
    path.write_text(task_file(kind, f"fit_{kind}", ["it's", 'a "word"'], Model(16, ("mae_test", "mae_test"), 1e-3)))
    (spec,) = own_tasks.load(str(path)).datasets.values()
    assert as_dataset(as_plain(spec), path) == spec, "a checkpoint can store it"


def _items(*answers, split="train"):
    return [Item(str(n), (str(n),), "what", tuple(one.split()), split=split) for n, one in enumerate(answers)]


def test_answers_of_several_annotators():
    (item,) = _items("red red blue red green green")
    values = record("questions", item, ["blue", "red", "green"], [])
    assert dict(zip(values["answers"], values["answer_scores"], strict=True)) == pytest.approx(
        {"red": 1.0, "blue": 1 / 3, "green": 2 / 3}
    )
    assert values["answer_labels"] == [1, 0, 2]
    assert record("questions", *_items("pink"), ["red"], [])["answer_labels"] == []


def test_labels_that_cannot_be_learnt(tmp_path):
    table = Table(tmp_path / "table.csv")
    with pytest.raises(UserError, match="All rows of .* have the answer 'a': there is nothing to learn"):
        names_of("labels", _items("a", "a"), table)
    with pytest.raises(UserError, match="4 different labels in 4 rows, such as 'a': these are no classes"):
        names_of("statements", _items("a", "b", "c", "d"), table)
    items = _items(*"aabbbbc") + _items("d", split="test")
    names, said = names_of("statements", items, table)
    assert names == ["a", "b", "c", "d"]
    assert said[1].startswith("2 of them stand in one row alone, such as 'c'")
    assert said[2].startswith("1 of them are in no row of training, such as 'd'")


def test_answers_that_training_lacks_are_told(tmp_path):
    names, said = names_of("questions", _items("a", "b", "a") + _items("a", "c", split="test"), Table(tmp_path))
    assert names == ["a", "b"]
    assert said[1].startswith("1 of 2 test questions have answers that no row of training has, such as 'c'")


def test_what_no_model_reaches():
    pictures = {"0": Picture("0", 10, 20)}
    trained = _items("a", "a", "b")
    assert baselines("labels", trained + _items("a", "b", "b", "b", split="test"), ["a", "b"], pictures) == {
        "always 'a', the most frequent of training": 0.25,
        "chance": 0.5,
    }
    boxed = [Item("", ("0",), box=(0, 0, 5, 10), split=split) for split in ("train", "test")]
    assert baselines("phrases", [*boxed, Item("", ("0",), box=(6, 0, 10, 9), split="test")], [], pictures) == {
        "the mean box of training": 0.5
    }
