"""Statements about images, judged."""

import csv
import io
import json
import re
from functools import partial

from vlc.tasks.task import SMALL, Records, Report, Task

# SPLIT-SET-PAIR-SENTENCE; a sentence of a set comes with several pairs.
_IDENTIFIER = re.compile(r"(.+)-(\d+)-\d+-(\d+)", re.DOTALL)


def consistency(records: Records) -> dict[str, float]:
    """Consistency: the share of sentences that are judged rightly of every pair of images they come with.

    And the accuracy of each type of statement. Consistency counts the sentences whose identifiers tell which pairs
    belong together, as NLVR2's do (SPLIT-SET-PAIR-SENTENCE, such as dev-850-0-1); a warning names others.
    """
    unnamed: list[str] = []
    judged: dict[str, list[bool]] = {}
    for record in records:
        if "right" in record:
            named = _IDENTIFIER.fullmatch(str(record["identifier"]))
            if named is None:
                unnamed.append(str(record["identifier"]))
            else:
                judged.setdefault("-".join(named.groups()), []).append(record["right"])
    if unnamed:
        _warn(
            f"NLVR2's consistency leaves out {len(unnamed)} of {len(records)} sentences: identifiers such as "
            f"{unnamed[0]!r} do not tell set, pair and sentence as dev-850-0-1 does"
        )
    return _accuracy_by("statement_type", records) | (
        {"consistency": sum(map(all, judged.values())) / len(judged)} if judged else {}
    )


def accuracies(records: Records) -> dict[str, float]:
    """The accuracy of each class, among the examples that belong to it, and of each type of statement."""
    return _accuracy_by("gold", records) | _accuracy_by("statement_type", records)


def _accuracy_by(key: str, records: Records) -> dict[str, float]:
    judged: dict[str, list[bool]] = {}
    for record in records:
        if record.get(key) is not None:
            judged.setdefault(f"accuracy/{record[key]}", []).append(record["right"])
    return {name: sum(hits) / len(hits) for name, hits in sorted(judged.items())}


def _warn(text: str) -> None:
    from pytorch_lightning.utilities import rank_zero_warn  # here, because the table of tasks is read without torch

    rank_zero_warn(text)


def scorer_file(records: Records) -> tuple[str, str]:
    """The public scorer's CSV: identifier,True or False."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((record["identifier"], record["answer"]) for record in records)
    return "csv", text.getvalue()


def judgements(key: str, field: str, records: Records) -> tuple[str, str]:
    """JSON lines with the identifier, the class (`label`) and the probabilities of all classes in their order (`probs`).

    key: what a line calls the identifier.
    field: what a record calls it.
    """
    lines = ({key: one[field], "label": one["answer"], "probs": one["probabilities"]} for one in records)
    return "jsonl", "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


_PAIRS_HEAD = {"classes": "nlvr2"}
_PAIRS = {"classes": {"names": ("False", "True"), "images": 2, "labels": "truth", "described_by": ("statement_type",)}}
_PAIRS_REPORT = Report(consistency, scorer_file)

_ENTAILMENT_HEAD = {"classes": "snli_ve"}
_ENTAILMENT = {
    "classes": {
        "names": ("contradiction", "neutral", "entailment"),
        "labels": "label",
        "ids": "pair_id",
        "described_by": ("statement_type",),
    }
}
_ENTAILMENT_REPORT = Report(accuracies, partial(judgements, "pairID", "pair_id"))

_FOILS_HEAD = {"classes": "foil"}
_FOILS = {
    "classes": {
        "names": ("correct", "foil"),
        "labels": "label",
        "ids": "caption_id",
        "described_by": ("statement_type",),
    }
}
_FOILS_REPORT = Report(accuracies, partial(judgements, "caption_id", "caption_id"))

TASKS = {
    "nlvr2": Task(
        {"classes": 1},
        ("nlvr2",),
        _PAIRS_HEAD,
        _PAIRS,
        _PAIRS_REPORT,
        batch_size=128,
        epochs=20,
        published=("12", "NLVR2"),
    ),
    "snli_ve": Task(
        {"classes": 1},
        ("snli_ve",),
        _ENTAILMENT_HEAD,
        _ENTAILMENT,
        _ENTAILMENT_REPORT,
        max_text_len=56,
        learning_rate=2e-5,
        epochs=20,
        published=("13", "VisualEntailment"),
    ),
    "foil": Task(
        {"classes": 1},
        ("foil",),
        _FOILS_HEAD,
        _FOILS,
        _FOILS_REPORT,
        max_text_len=20,
        learning_rate=4e-5,
        epochs=20,
        published=("16", "Foil"),
    ),
    "nlvr2_emoji": Task(
        {"classes": 1},
        ("emoji_nlvr2",),
        _PAIRS_HEAD,
        _PAIRS,
        _PAIRS_REPORT,
        **SMALL,
        learning_rate=2e-4,
    ),
    "snli_ve_emoji": Task(
        {"classes": 1},
        ("emoji_snli_ve",),
        _ENTAILMENT_HEAD,
        _ENTAILMENT,
        _ENTAILMENT_REPORT,
        **SMALL,
        learning_rate=3e-4,
        evaluators={"inputs": 0},
    ),
    "foil_emoji": Task(
        {"classes": 1},
        ("emoji_foil",),
        _FOILS_HEAD,
        _FOILS,
        _FOILS_REPORT,
        **SMALL,
        learning_rate=3e-4,
        evaluators={"inputs": 0},
    ),
}
