"""Scores that are reached without looking at the image, by the most frequent training answer to each type of question."""

from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa


def majority_scores(folder: Path, split: str) -> dict[str, float]:
    """Share of right answers on a split of emoji_scenes, by question type and under "all"."""
    by_type: dict[str, Counter] = defaultdict(Counter)
    for kind, answer in _answers(folder / "emoji_scenes_train.arrow"):
        by_type[kind][answer] += 1
    right: dict[str, list[bool]] = defaultdict(list)
    for kind, answer in _answers(folder / f"emoji_scenes_{split}.arrow"):
        hit = by_type[kind].most_common(1)[0][0] == answer
        right[kind].append(hit)
        right["all"].append(hit)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def majority_class(folder: Path, name: str, split: str) -> float:
    """Share of the images of a split that are of the most frequent class in training."""
    train, other = (pa.ipc.open_file(pa.memory_map(str(folder / f"{name}_{part}.arrow"))) for part in ("train", split))
    most_frequent = Counter(train.read_all()["label"].to_pylist()).most_common(1)[0][0]
    labels = other.read_all()["label"].to_pylist()
    return labels.count(most_frequent) / len(labels)


def num_rows(path: Path) -> int:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all().num_rows


def _answers(path: Path) -> list[tuple[str, str]]:
    """(question type, answer) of every question in a file."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    kinds, answers = table["question_types"].to_pylist(), table["answers"].to_pylist()
    return [(kind, answer[0]) for row in zip(kinds, answers, strict=True) for kind, answer in zip(*row, strict=True)]


def most_frequent_answer(folder: Path, name: str, split: str) -> float:
    """Share of the questions of a split whose answer is the most frequent one in training."""
    most_frequent = Counter(_column(folder / f"{name}_train.arrow", "answers")).most_common(1)[0][0]
    answers = _column(folder / f"{name}_{split}.arrow", "answers")
    return answers.count(most_frequent) / len(answers)


def candidates(folder: Path, name: str, split: str) -> int:
    """How many options the questions of a split have."""
    return len(_column(folder / f"{name}_{split}.arrow", "options")[0])


def _column(path: Path, name: str) -> list[tuple]:
    """The lists that the texts of a file have in a column."""
    rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()[name].to_pylist()
    return [tuple(entry) for row in rows for entry in row]
