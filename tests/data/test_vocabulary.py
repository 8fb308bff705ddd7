"""The answer vocabulary of a head."""

from vlc.data.vocabulary import UNKNOWN, Vocabulary, stored_vocabularies

OURS, THEIRS = Vocabulary(("red", "two", "", "cat", "red")), Vocabulary(("cat", "blue", "red"))


def test_labels_have_names():
    assert [OURS.name(label) for label in (0, 2, 9)] == ["red", "unknown", "unknown"]
    assert OURS.labels == {"red": 0, "two": 1, "cat": 3}, "the first label of an answer stands for it"


def test_shared_answers_are_paired():
    assert OURS.shared_labels(THEIRS) == [(0, 2), (3, 0), (4, 2)]
    assert OURS.lacks(THEIRS) == {"blue"}


def test_labels_of_other_data_are_translated():
    assert OURS.tested_on(THEIRS).translation == [3, UNKNOWN, 0]
    assert OURS.tested_on(Vocabulary(("", "two"))).translation == [], "the same labels"
    assert OURS.tested_on(OURS).of_data == ()


def test_older_checkpoints_store_a_list_for_the_one_head():
    assert stored_vocabularies({"answers": ["a"]}, ["vqa"]) == {"vqa": Vocabulary(("a",))}
    assert stored_vocabularies({"answers": {"gqa": ["b"]}}, ["vqa"]) == {"gqa": Vocabulary(("b",))}
    assert stored_vocabularies({}, ["vqa"]) == {}
