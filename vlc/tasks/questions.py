"""Questions about an image, answered out of a vocabulary."""

from vlc.common.files import to_json
from vlc.tasks import gqa_metrics
from vlc.tasks.task import SMALL, Records, Report, Task


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


def gqa_server_file(records: Records) -> tuple[str, str]:
    """The JSON list that GQA's evaluation server and its evaluator take; identifiers are texts."""
    answers = [{"questionId": str(record["question_id"]), "prediction": record["answer"]} for record in records]
    return "json", to_json(answers)


_REPORT = Report(scores_by_type, server_file)
_HEAD = {"answers": "vqa"}
_GQA_REPORT = Report(gqa_metrics.summary, gqa_server_file)
_GQA_DESCRIBED = (
    *("question_type", "answer_type", "semantic_type", "detailed_type"),
    *("gold_answer", "group", "balanced", "entailed"),
)

# GQA and Visual Genome have the lengths, batches, rates and epochs of 12-in-1 (Lu et al. 2020).
TASKS = {
    "vqa": Task({"answers": 1}, ("vqa",), _HEAD, report=_REPORT, published=("1", "VQA")),
    "vgqa": Task(
        {"answers": 1},
        ("vgqa_all",),
        _HEAD,
        report=_REPORT,
        max_text_len=26,
        batch_size=128,
        learning_rate=4e-5,
        epochs=20,
        published=("2", "GenomeQA"),
    ),
    "gqa": Task(
        {"answers": 1},
        ("gqa",),
        {"answers": "gqa"},
        {"answers": {"num_answers": 1878, "described_by": _GQA_DESCRIBED}},  # the GQA paper counts as many
        _GQA_REPORT,
        max_text_len=26,
        batch_size=128,
        learning_rate=4e-5,
        epochs=20,
        published=("15", "GQA"),
    ),
    "vqa_emoji": Task(
        {"answers": 1},
        ("emoji_scenes_vqa",),
        _HEAD,
        {"answers": {"num_answers": 50}},
        report=_REPORT,
        **SMALL,
        learning_rate=3e-4,
    ),
    "gqa_emoji": Task(
        {"answers": 1},
        ("emoji_gqa",),
        {"answers": "gqa"},
        {"answers": {"num_answers": 54, "loss": "cross_entropy", "described_by": _GQA_DESCRIBED}},
        _GQA_REPORT,
        **SMALL,
        learning_rate=5e-4,
        evaluators={"inputs": 0},
    ),
}
