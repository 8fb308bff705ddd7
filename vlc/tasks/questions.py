"""Questions about an image, answered out of a vocabulary."""

from vlc.common.files import to_json
from vlc.tasks.task import Records, Report, Task


def scores_by_type(records: Records) -> dict[str, float]:
    """Mean score of each question type, and of each answer type under score/answers/."""
    scores: dict[str, list[float]] = {}
    for record in records:
        for name, prefix in (("question_type", ""), ("answer_type", "answers/")):
            if "score" in record and record.get(name) is not None:
                scores.setdefault(f"score/{prefix}{record[name]}", []).append(record["score"])
    return {name: sum(values) / len(values) for name, values in sorted(scores.items())}


def server_file(records: Records) -> tuple[str, str]:
    """The JSON list that the VQA evaluation server takes."""
    kept = ("question_id", "answer")
    return "json", to_json([{key: record[key] for key in kept} for record in records])


_REPORT = Report(scores_by_type, server_file)
_HEAD = {"answers": "vqa"}

TASKS = {
    "vqa": Task({"answers": 1}, ("vqa",), _HEAD, report=_REPORT),
    "vgqa": Task({"answers": 1}, ("vgqa",), _HEAD, report=_REPORT),
    "vqa_emoji": Task(
        {"answers": 1},
        ("emoji_scenes_vqa",),
        _HEAD,
        {"answers": {"num_answers": 50}},
        report=_REPORT,
        max_text_len=16,
        transforms=("mae_test", "mae_test"),
        batch_size=32,
        learning_rate=3e-4,
    ),
}
