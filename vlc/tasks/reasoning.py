"""Questions about images whose words name boxes: an answer is chosen, and the reason for it."""

from typing import Any

from vlc.tasks.task import Task

_CHOICES: dict[str, Any] = {
    "candidates": "options",
    "candidate_tags": "option_tags",
    "label": "answer_index",
    "regions": "tokens",
    "records": "probabilities",
    "ids": ("annot_id",),
}
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
        **_SHARED,
    ),
    "vcr_qar": Task(
        {"choice": 1},
        ("vcr_qar",),
        {"choice": "vcr_qar"},
        {"choice": _CHOICES | {"ids": ("annot_id", "given_answer_index")}},
        max_text_len=80,
        composer="grounded_answer",
        **_SHARED,
    ),
}
