"""Cards: an example with its pictures, its text, the answers, and where the model looked."""

from collections.abc import Sequence
from typing import Any

from vlc.evaluation.examples import Example
from vlc.use.report.run import Run


def card(run: Run, example: Example, *, others: Sequence[str] = (), mapped: bool = True) -> dict[str, Any]:
    """What a template shows of an example.

    others: the answers of other runs.
    mapped: whether a heat map is wanted; there is none where no method explains the head.
    """
    found = {
        "pictures": run.pictures(example),
        "kind": next(iter(example.about.values()), ""),
        "text": run.text(example),
        "answer": example.answer,
        "truth": example.truth,
        "right": (example.score or 0.0) >= 0.5,
        "choices": example.choices if example.sure else [],
        "others": list(others),
        "map": None,
    }
    return found


def maps_note(run: Run) -> str:
    return ""
