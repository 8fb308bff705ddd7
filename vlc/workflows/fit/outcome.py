"""What a test says: the metric with its interval, beside what needs no model, and beside the model without an input."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table as Grid

from vlc.evaluation.examples import FILE, read_examples
from vlc.evaluation.intervals import Interval, bootstrap
from vlc.workflows.commands import Stage
from vlc.workflows.fit.items import Item
from vlc.workflows.fit.kinds import KINDS, record
from vlc.workflows.fit.pictures import Picture

Baselines = Mapping[str, float]


def baselines(name: str, items: Sequence[Item], names: Sequence[str], pictures: Mapping[str, Picture]) -> Baselines:
    """Return what is reached on the test examples without a model, by what does it, as shares of 1."""
    trained, tested = ([item for item in items if item.split == split] for split in ("train", "test"))
    if name == "captions":
        return {"chance": len(tested) / len({item.images for item in tested}) / len(tested)}
    if name == "phrases":
        shares = np.array([_shares(item, pictures) for item in trained])
        hits = [_overlap(shares.mean(axis=0), _shares(item, pictures)) >= 0.5 for item in tested]
        return {"the mean box of training": float(np.mean(hits))}
    frequent = Counter(answer for item in trained for answer in item.answers).most_common(1)[0][0]
    return {
        f"always {frequent!r}, the most frequent of training": float(
            np.mean([_score(name, i, frequent) for i in tested])
        ),
        "chance": 1 / len(names),
    }


def _score(name: str, item: Item, answer: str) -> float:
    """How right an answer is."""
    if name != "questions":
        return float(item.answers[0] == answer)
    return record(name, item, [answer], [])["answer_scores"][0] if answer in item.answers else 0.0


def _shares(item: Item, pictures: Mapping[str, Picture]) -> np.ndarray:
    """The box of an example as shares of its picture, (4,) float64."""
    picture = pictures[item.images[0]]
    return np.array(item.box) / (picture.width, picture.height, picture.width, picture.height)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The intersection over union of two boxes."""
    inside = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).prod()
    return inside / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - inside)


def as_grid(name: str, test: Stage, known: Baselines) -> tuple[Grid, list[str]]:
    """Return the result as a table for the terminal, and lines that judge it."""
    metric, scale = KINDS[name].metric, 1 if name == "labels" else 100  # acc1 is in percent, as MAE has it
    grid = Grid("test", "%", "95 % interval", box=None)
    measured = intervals(test.log_dir / FILE)
    for head, interval in measured.items():
        whole = f"{metric if len(measured) == 1 else f'{metric} of {head}'}, {interval.size:,} examples"
        grid.add_row(whole, f"{100 * interval.value:.1f}", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}")
    shown = [key for key in sorted(test.metrics) if "/test/" in key and (not measured or "_with" in key)]
    for key in shown:
        if measured or key.endswith(("_r1", "_r5", "_r10")):
            grid.add_row(key.rpartition("/test/")[2].replace("_", " "), f"{scale * test.metrics[key]:.1f}", "")
    for what, value in known.items():
        grid.add_row(what, f"{100 * value:.1f}", "")
    return grid, _judged(measured, known)


def intervals(path: Path) -> dict[str, Interval]:
    """The mean score of each head with its interval; empty where heads judge no single examples."""
    scores: dict[str, list[float]] = {}
    for one in read_examples(path) if path.is_file() else ():
        if one.score is not None:
            scores.setdefault(one.place.head, []).append(one.score)
    return {head: bootstrap(own) for head, own in scores.items()}


def _judged(measured: Mapping[str, Interval], known: Baselines) -> list[str]:
    best = max(known, key=lambda what: known[what])
    if measured and all(interval.low <= known[best] for interval in measured.values()):
        return [f"The model is not surely better than {best}: it needs more examples, more minutes or another start"]
    return []
