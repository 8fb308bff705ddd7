"""Grounding: a text means a box of an image."""

from functools import partial
from typing import Any

from vlc.common.files import to_json
from vlc.tasks.statements import judgements
from vlc.tasks.task import SMALL, Records, Report, Task


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


def _grounding(
    dataset: str,
    head: str,
    report: Report,
    max_text_len: int,
    learning_rate: float,
    published: tuple[str, ...],
    **options: Any,
) -> dict[str, Task]:
    """The tasks of a data set whose texts mean a box: to point at a candidate, and, as NAME_box, to give its edges."""

    def task(kind: str, head: str, published: tuple[str, ...] = ()) -> Task:
        return Task(
            {kind: 1},
            (dataset,),
            {kind: head},
            {kind: options},
            report,
            max_text_len=max_text_len,
            transforms=_KEEPS_SHAPE,
            learning_rate=learning_rate,
            epochs=20,
            published=published,
        )

    return {dataset: task("pointing", head, published), f"{dataset}_box": task("regress", f"{head}_box")}


def _referring(dataset: str, *published: str) -> dict[str, Task]:
    """Referring expressions, as 12-in-1 trains them (Lu et al. 2020); those of all data sets share a head."""
    described = ("ref_id", "ann_id")
    return _grounding(
        dataset, "refer", Report(submission=refer_file), 20, 2e-5, published, ids=("sent_id",), described_by=described
    )


TASKS = {
    **_referring("refcoco", "9"),
    **_referring("refcoco_plus", "10", "refcoco+"),
    **_referring("refcocog", "11"),
    **_referring("refclef"),
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
        published=("4", "Visual7w"),
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
        published=("17", "GuessWhatPointing"),
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
        published=("14", "GuessWhat"),
    ),
    **_grounding(
        "flickr_entities",
        "flickr_entities",
        Report(partial(accuracy_by, "phrase_type")),
        24,
        2e-6,
        ("18", "FlickrGrounding"),
        ids=("phrase_id",),
        described_by=("phrase_type",),
    ),
    # Both ways at once: the box is learnt more quickly beside the choice than by itself.
    "refer_emoji": Task(
        {"pointing": 1, "regress": 0.5},
        ("emoji_refer",),
        {"pointing": "refer", "regress": "refer_box"},
        {kind: {"ids": ("sent_id",), "described_by": ("ref_id", "ann_id")} for kind in ("pointing", "regress")},
        Report(submission=refer_file),
        **SMALL,
        learning_rate=5e-4,
        evaluators={"inputs": 0},
    ),
    "pointing_emoji": Task(
        {"pointing": 1},
        ("emoji_pointing",),
        {"pointing": "visual7w"},
        {
            "pointing": {
                "judged_by": "index",
                "ids": ("qa_id",),
                "box_ids": "box_ids",
                "described_by": ("question_type",),
            }
        },
        Report(partial(accuracy_by, "question_type")),
        **SMALL,
        learning_rate=5e-4,
        evaluators={"inputs": 0},
    ),
    "guess_emoji": Task(
        {"pointing": 1},
        ("emoji_guess",),
        {"pointing": "guesswhat"},
        {"pointing": {"judged_by": "index", "ids": ("game_id",), "box_ids": "box_ids"}},
        **SMALL | {"max_text_len": 80},
        learning_rate=5e-4,
        composer="guesser",
        evaluators={"inputs": 0},
    ),
}
