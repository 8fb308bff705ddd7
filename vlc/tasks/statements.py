"""Statements about images, judged."""

import csv
import io
import re

from vlc.tasks.task import Records, Report, Task

# SPLIT-SET-PAIR-SENTENCE; a sentence of a set comes with several pairs.
_IDENTIFIER = re.compile(r"(.+)-(\d+)-\d+-(\d+)", re.DOTALL)


def consistency(records: Records) -> dict[str, float]:
    """Consistency: the share of sentences that are judged rightly of every pair of images they come with.

    And the accuracy of each type of statement. Consistency counts the sentences whose identifiers tell which pairs
    belong together, as NLVR2's do (SPLIT-SET-PAIR-SENTENCE, such as dev-850-0-1); a warning names others.
    """
    unnamed: list[str] = []
    judged: dict[str, list[bool]] = {}
    by_type: dict[str, list[bool]] = {}
    for record in records:
        if "right" in record:
            named = _IDENTIFIER.fullmatch(str(record["identifier"]))
            if named is None:
                unnamed.append(str(record["identifier"]))
            else:
                judged.setdefault("-".join(named.groups()), []).append(record["right"])
        if record.get("statement_type") is not None:
            by_type.setdefault(f"accuracy/{record['statement_type']}", []).append(record["right"])
    if unnamed:
        _warn(
            f"NLVR2's consistency leaves out {len(unnamed)} of {len(records)} sentences: identifiers such as "
            f"{unnamed[0]!r} do not tell set, pair and sentence as dev-850-0-1 does"
        )
    values = {name: sum(hits) / len(hits) for name, hits in sorted(by_type.items())}
    return values | ({"consistency": sum(map(all, judged.values())) / len(judged)} if judged else {})


def _warn(text: str) -> None:
    from pytorch_lightning.utilities import rank_zero_warn  # here, because the table of tasks is read without torch

    rank_zero_warn(text)


def scorer_file(records: Records) -> tuple[str, str]:
    """The public scorer's CSV: identifier,True or False."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((record["identifier"], record["answer"]) for record in records)
    return "csv", text.getvalue()


_REPORT = Report(consistency, scorer_file)
_HEAD = {"classes": "nlvr2"}
_OPTIONS = {
    "classes": {"names": ("False", "True"), "images": 2, "labels": "truth", "described_by": ("statement_type",)}
}

TASKS = {
    "nlvr2": Task({"classes": 1}, ("nlvr2",), _HEAD, _OPTIONS, _REPORT, batch_size=128, epochs=20),
    "snli_ve": Task(
        {"classes": 1},
        ("snli_ve",),
        {"classes": "snli_ve"},
        {"classes": {"names": ("contradiction", "neutral", "entailment"), "labels": "label", "ids": "pair_id"}},
        max_text_len=56,
        learning_rate=2e-5,
        epochs=20,
    ),
    "nlvr2_emoji": Task(
        {"classes": 1},
        ("emoji_nlvr2",),
        _HEAD,
        _OPTIONS,
        _REPORT,
        max_text_len=16,
        transforms=("mae_test", "mae_test"),
        batch_size=32,
        learning_rate=2e-4,
    ),
}
