"""Grounding: a text means a box of an image."""

from functools import partial
from typing import Any

from vlc.common.files import to_json
from vlc.tasks.statements import judgements
from vlc.tasks.task import Records, Report, Task


def refer_file(records: Records) -> tuple[str, str]:
    """The JSON list of VL-BERT, an entry for each expression: ref_id, sent_id and box, in pixels of the picture."""
    kept = ("ref_id", "sent_id", "box")
    return "json", to_json([{key: record[key] for key in kept} for record in records])


def pointing_file(records: Records) -> tuple[str, str]:
    """The JSON list of Visual7W's toolkit, an entry for each question: qa_id, question, and the box as its candidate."""
    entries = ({"candidates": [{"answer": record["box_id"]}]} | record for record in records)
    kept = ("qa_id", "question", "candidates")
    return "json", to_json([{key: entry[key] for key in kept} for entry in entries])


def accuracy_by(field: str, records: Records) -> dict[str, float]:
    """The accuracy of the examples with each value of a field that describes them."""
    judged: dict[str, list[bool]] = {}
    for record in records:
        if "right" in record and record.get(field) is not None:
            judged.setdefault(f"accuracy/{record[field]}", []).append(record["right"])
    return {name: sum(hits) / len(hits) for name, hits in sorted(judged.items())}


def errors(records: Records) -> dict[str, float]:
    """The share of wrong answers, as GuessWhat states it, in all and by type of question."""
    judged = [not record["right"] for record in records if "right" in record]
    by_type = {
        name.replace("accuracy", "error"): 1 - value for name, value in accuracy_by("question_type", records).items()
    }
    return {"error": sum(judged) / len(judged), **by_type} if judged else {}


_KEEPS_SHAPE = ("keep_shape_flip", "keep_shape")  # squares would change what is tall and what is wide


def _pointing_or_regress(**shared: Any) -> dict[str, dict[str, Any]]:
    """Options of both ways to answer: to choose a candidate, which is the default, and to regress the box."""
    regress = {key: value for key, value in shared.items() if key in ("ids", "described_by")}
    return {"pointing": shared, "regress": regress}


def _referring(name: str) -> Task:
    """Referring expressions, as 12-in-1 trains them (Lu et al. 2020)."""
    return Task(
        {"pointing": 1, "regress": 0},
        (name,),
        {"pointing": "refer", "regress": "refer_box"},
        _pointing_or_regress(ids=("sent_id",), described_by=("ref_id", "ann_id")),
        Report(submission=refer_file),
        max_text_len=20,
        transforms=_KEEPS_SHAPE,
        learning_rate=2e-5,
        epochs=20,
    )


TASKS = {
    "refcoco": _referring("refcoco"),
    "refcoco_plus": _referring("refcoco_plus"),
    "refcocog": _referring("refcocog"),
    "refclef": _referring("refclef"),
    "visual7w": Task(
        {"pointing": 1},
        ("visual7w",),
        {"pointing": "visual7w"},
        {
            "pointing": {
                "judged_by": "index",
                "ids": ("qa_id",),
                "box_ids": "box_ids",
                "described_by": ("question", "question_type"),
            }
        },
        Report(partial(accuracy_by, "question_type"), pointing_file),
        max_text_len=20,
        transforms=_KEEPS_SHAPE,
        learning_rate=2e-5,
        epochs=20,
    ),
    "guesswhat": Task(
        {"pointing": 1},
        ("guesswhat",),
        {"pointing": "guesswhat"},
        {"pointing": {"judged_by": "index", "ids": ("game_id",), "box_ids": "box_ids", "described_by": ("status",)}},
        max_text_len=256,
        transforms=_KEEPS_SHAPE,
        batch_size=64,
        learning_rate=2e-5,
        epochs=20,
        composer="guesser",
    ),
    "guesswhat_oracle": Task(
        {"classes": 1},
        ("guesswhat_oracle",),
        {"classes": "guesswhat_oracle"},
        {
            "classes": {
                "names": ("Yes", "No", "N/A"),
                "box": "target_boxes",
                "labels": "label",
                "ids": "question_id",
                "described_by": ("question_type",),
            }
        },
        Report(errors, partial(judgements, "question_id", "question_id")),
        max_text_len=25,
        transforms=_KEEPS_SHAPE,
        learning_rate=4e-5,
        epochs=20,
        composer="pair",  # the question, and the category of the object
    ),
    "flickr_entities": Task(
        {"pointing": 1, "regress": 0},
        ("flickr_entities",),
        {"pointing": "flickr_entities", "regress": "flickr_entities_box"},
        _pointing_or_regress(ids=("phrase_id",), described_by=("phrase_type",)),
        Report(partial(accuracy_by, "phrase_type")),
        max_text_len=24,
        transforms=_KEEPS_SHAPE,
        learning_rate=2e-6,
        epochs=20,
    ),
}
