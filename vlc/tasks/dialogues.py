"""Dialogues about an image: the answer to a question is chosen among options."""

import math
from statistics import fmean
from typing import Any

from vlc.common.files import to_json
from vlc.tasks.task import SMALL, Records, Report, Task


def dialogue_metrics(records: Records) -> dict[str, float]:
    """Recalls at 1, 5 and 10, mean reciprocal and mean rank of the right options, and NDCG, as VisDial defines them.

    records: `rank` of the right option, or none of them has it; `ranks` of all options; and `relevance` of all options,
        which is empty where a round has no dense annotation. Where they have a question_type, r1/TYPE is added.
    """
    found = [record["rank"] for record in records if "rank" in record]
    values: dict[str, float] = {}
    if found:
        values = {f"r{k}": fmean(rank <= k for rank in found) for k in (1, 5, 10)}
        values |= {"mrr": fmean(1 / rank for rank in found), "mean_rank": fmean(found)}
    by_type: dict[str, list[bool]] = {}
    for record in records:
        if "rank" in record and record.get("question_type") is not None:
            by_type.setdefault(f"r1/{record['question_type']}", []).append(record["rank"] == 1)
    values |= {name: fmean(hits) for name, hits in sorted(by_type.items())}
    gains = [ndcg(record["ranks"], record["relevance"]) for record in records if record.get("relevance")]
    return values | ({"ndcg": fmean(gains)} if gains else {})


def ndcg(ranks: list[int], relevance: list[float]) -> float:
    """Normalised discounted cumulative gain of the first K options, where K options have a relevance above 0; else 0."""
    k = sum(value > 0 for value in relevance)
    ranked = [value for _, value in sorted(zip(ranks, relevance, strict=True))]
    best = _gain(sorted(relevance, reverse=True)[:k])
    return _gain(ranked[:k]) / best if best else 0.0


def _gain(relevances: list[float]) -> float:
    return sum(value / math.log2(place) for place, value in enumerate(relevances, start=2))


def server_file(records: Records) -> tuple[str, str]:
    """The JSON list that the VisDial challenge takes: for each round the ranks of its options, in their order."""
    kept = ("image_id", "round_id", "ranks")
    return "json", to_json([{key: record[key] for key in kept} for record in records])


_REPORT = Report(dialogue_metrics, server_file)
_OPTIONS: dict[str, Any] = {
    "candidates": "options",
    "label": "answer_index",
    "drawn": 4,
    "ids": ("image_id", "round_id"),
    "described_by": ("relevance", "question_type"),
}

TASKS = {
    "visdial": Task(
        {"choice": 1},
        ("visdial",),
        {"choice": "visdial"},
        {"choice": _OPTIONS},
        _REPORT,
        max_text_len=50,
        batch_size=640,
        learning_rate=4e-5,
        epochs=20,
        composer="dialogue",
        published=("3", "VisualDialog"),
    ),
    "visdial_emoji": Task(
        {"choice": 1},
        ("emoji_visdial",),
        {"choice": "visdial"},
        {"choice": _OPTIONS},
        _REPORT,
        **SMALL | {"max_text_len": 40},
        learning_rate=3e-4,
        composer="dialogue",
        evaluators={"inputs": 0},
    ),
}
