"""Recalls, ranks and NDCG of dialogues as the public evaluation computes them, and the file for its server."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from vlc.tasks.dialogues import dialogue_metrics, ndcg, server_file

VISDIAL = GOLDEN / "tasks/visdial"
PRINTED = {"r1": "r@1", "r5": "r@5", "r10": "r@10", "mean_rank": "mean", "mrr": "mrr"}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return dict(np.load(VISDIAL / "metrics.npz"))


def _records(scores: np.ndarray, right: np.ndarray, relevance: np.ndarray, dense_rounds: list[int]) -> list[dict]:
    records = []
    for dialogue, round_id in np.ndindex(scores.shape[:2]):
        ranks = (1 + np.argsort(np.argsort(-scores[dialogue, round_id]))).tolist()
        dense = dense_rounds[dialogue] == 1 + round_id
        records.append(
            {
                "image_id": 710000 + dialogue,
                "round_id": 1 + round_id,
                "ranks": ranks,
                "rank": ranks[right[dialogue, round_id]],
                "relevance": relevance[dialogue].tolist() if dense else [],
            }
        )
    return records


def test_ranks_and_metrics_are_those_of_the_public_evaluation(arrays):
    expected = json.loads((VISDIAL / "metrics.json").read_text())
    records = _records(arrays["scores"], arrays["gt_index"], arrays["relevance"], arrays["round_id"].tolist())
    assert [record["ranks"] for record in records] == arrays["ranks"].reshape(-1, 100).tolist()
    values = dialogue_metrics(records)
    assert {PRINTED[name]: float(np.float32(values[name])) for name in PRINTED} == expected["sparse"]
    assert values["ndcg"] == pytest.approx(expected["dense"]["ndcg"], rel=1e-6)
    found = [ndcg(record["ranks"], record["relevance"]) for record in records if record["relevance"]]
    assert found == pytest.approx(expected["ndcg_per_dialog"], rel=1e-6)
    submitted = json.loads(server_file(records)[1])
    assert submitted[: len(expected["submission"])] == expected["submission"]


def test_metrics_of_many_dialogues(arrays):
    scores = arrays["big_scores"].astype(np.float32) / np.float32(4000)
    values = dialogue_metrics(_records(scores, arrays["big_gt"], arrays["big_relevance_for_round_4"], [4] * 40))
    for name, theirs in (
        ("r1", "r1"),
        ("r5", "r5"),
        ("r10", "r10"),
        ("mean_rank", "mean"),
        ("mrr", "mrr"),
        ("ndcg", "ndcg"),
    ):
        assert values[name] == pytest.approx(float(arrays[f"big_{theirs}"]), rel=1e-6)


def test_what_is_not_known_is_not_measured():
    assert dialogue_metrics([{"ranks": [2, 1]}]) == {}
    assert set(dialogue_metrics([{"ranks": [2, 1], "rank": 1}])) == {"r1", "r5", "r10", "mrr", "mean_rank"}


def test_ndcg_of_options_without_relevance_is_0():
    assert ndcg([1, 2, 3], [0.0, 0.0, 0.0]) == 0
    assert ndcg([3, 1, 2], [0.0, 1.0, 0.5]) == 1
