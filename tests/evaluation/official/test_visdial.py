"""A file of ranks is scored as the public evaluation scores it, and one that is not whole is refused."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.evaluation.official.__main__ import main
from vlc.evaluation.official.visdial import evaluate

VISDIAL = GOLDEN / "tasks/visdial"


@pytest.fixture
def dialogues() -> dict:
    return json.loads((VISDIAL / "visdial_1.0_val.json").read_text())


@pytest.fixture
def entries(dialogues) -> list[dict]:
    ranks = np.load(VISDIAL / "metrics.npz")["ranks"]
    images = [dialogue["image_id"] for dialogue in dialogues["data"]["dialogs"]]
    return [
        {"image_id": image, "round_id": 1 + turn, "ranks": ranks[number, turn].tolist()}
        for number, image in enumerate(images)
        for turn in range(10)
    ]


def test_a_whole_file_has_the_published_scores(dialogues, entries):
    dense = json.loads((VISDIAL / "visdial_1.0_val_dense_annotations.json").read_text())
    expected = json.loads((VISDIAL / "metrics.json").read_text())
    values = evaluate(dialogues, entries, dense)
    for name, theirs in (("r1", "r@1"), ("r5", "r@5"), ("r10", "r@10"), ("mean_rank", "mean"), ("mrr", "mrr")):
        assert float(np.float32(values[name])) == expected["sparse"][theirs]
    assert values["ndcg"] == pytest.approx(expected["dense"]["ndcg"], rel=1e-6)
    assert "ndcg" not in evaluate(dialogues, entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop(), "1 of 30 rounds have no ranks, image 710002, round 10 among them"),
        (lambda entries: entries.append(entries[0]), "image 710000, round 1 has ranks twice"),
        (lambda entries: entries[0].update(round_id=11), "image 710000, round 11 is none that has options"),
        (lambda entries: entries[3]["ranks"].pop(), "ranks of image 710000, round 4 are not the numbers from 1 to 100"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(dialogues, entries, change, message):
    change(entries)
    with pytest.raises(UserError, match=message):
        evaluate(dialogues, entries)


def test_the_command_scores_in_percent(entries, tmp_path, capsys):
    (tmp_path / "ranks.json").write_text(json.dumps(entries))
    files = {"--dialogues": VISDIAL / "visdial_1.0_val.json", "--ranks": tmp_path / "ranks.json"}
    files["--dense"] = VISDIAL / "visdial_1.0_val_dense_annotations.json"
    values = main(["visdial", *(str(word) for pair in files.items() for word in pair)])
    assert values["r1"] == pytest.approx(100 * 14 / 30)
    assert values["mean_rank"] == pytest.approx(20.1333, abs=1e-4)
    assert "46.67" in capsys.readouterr().out
