"""The file of answered examples."""

import pytest

from vlc.common.errors import UserError
from vlc.evaluation.examples import FILE, Example, Place, read_examples, write_examples

ANSWERS = [("ja\nwohl", 0.75), ("é\u202e", 0.25)]
PLACE = Place("vqa", "vqa_val", 3, 1, -1)
EXAMPLE = Example(
    "", "val", 7, PLACE, ANSWERS, True, "é\u202e", 0.3, {"lang": "de"}, [[0.0, 1.5, 2.0, 3.0]], [[1.0] * 4]
)


def test_what_is_written_is_read(tmp_path):
    other = Example("vqa", "test", 8, PLACE._replace(row=4), [("ja", 2.0)], False, "", None, {}, [], [])
    write_examples([EXAMPLE, other], tmp_path)
    found = read_examples(tmp_path / FILE)
    assert found == [EXAMPLE, other]
    assert (found[0].answer, found[0].confidence) == ("ja\nwohl", 0.75)
    assert found[1].confidence is None, "the values are no probabilities"


@pytest.mark.parametrize("line", ["{", "[]", '{"task": ""}', '{"place": [1], "choices": []}'])
def test_a_damaged_file_is_refused(tmp_path, line):
    (tmp_path / FILE).write_text(line)
    with pytest.raises(UserError, match=r"does not hold the examples of a test .*: test again"):
        read_examples(tmp_path / FILE)


def test_without_examples_there_is_no_file(tmp_path):
    write_examples([], tmp_path)
    assert list(tmp_path.iterdir()) == []
