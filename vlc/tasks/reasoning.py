"""Questions about images whose words name boxes: an answer is chosen, and the reason for it."""

from typing import Any

from vlc.tasks.task import SMALL, Records, Report, Task


def accuracies(records: Records) -> dict[str, float]:
    """The accuracy of each type of question, on splits whose questions have types and labels."""
    judged: dict[str, list[bool]] = {}
    for record in records:
        if "label" in record and record.get("question_type") is not None:
            best = max(range(len(record["probabilities"])), key=record["probabilities"].__getitem__)
            judged.setdefault(f"accuracy/{record['question_type']}", []).append(best == record["label"])
    return {name: sum(hits) / len(hits) for name, hits in sorted(judged.items())}


_CHOICES: dict[str, Any] = {
    "candidates": "options",
    "candidate_tags": "option_tags",
    "label": "answer_index",
    "regions": "tokens",
    "records": "probabilities",
    "ids": ("annot_id",),
}
_OF_RATIONALES: dict[str, Any] = {"ids": ("annot_id", "given_answer_index")}
_SHARED: dict[str, Any] = {
    "transforms": ("keep_shape_flip", "keep_shape"),  # squares would change what is tall and what is wide
    **{"batch_size": 64, "learning_rate": 2e-5, "epochs": 10},  # 12-in-1
}

TASKS = {
    "vcr_qa": Task(
        {"choice": 1},
        ("vcr_qa",),
        {"choice": "vcr_qa"},
        {"choice": _CHOICES},
        max_text_len=60,
        composer="grounded",
        published=("5", "VCR_Q-A"),
        **_SHARED,
    ),
    "vcr_qar": Task(
        {"choice": 1},
        ("vcr_qar",),
        {"choice": "vcr_qar"},
        {"choice": _CHOICES | _OF_RATIONALES},
        max_text_len=80,
        composer="grounded_answer",
        published=("6", "VCR_QA-R"),
        **_SHARED,
    ),
    "vcr_qa_emoji": Task(
        {"choice": 1},
        ("emoji_vcr_qa",),
        {"choice": "vcr_qa"},
        {"choice": _CHOICES | {"drawn": 2, "described_by": ("question_type",)}},
        Report(accuracies),
        **SMALL | {"max_text_len": 24},
        learning_rate=5e-4,
        composer="grounded",
        evaluators={"inputs": 0},
    ),
    "vcr_qar_emoji": Task(
        {"choice": 1},
        ("emoji_vcr_qar",),
        {"choice": "vcr_qar"},
        {"choice": _CHOICES | _OF_RATIONALES | {"drawn": 2, "described_by": ("question_type",)}},
        Report(accuracies),
        **SMALL | {"max_text_len": 32},
        learning_rate=5e-4,
        composer="grounded_answer",
        evaluators={"inputs": 0},
    ),
}
