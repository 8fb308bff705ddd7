"""Scores that are reached without looking at the image, by the most frequent training answer to each type of question."""

from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import torch

from vlc.model.boxes import overlap


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


def any_box(folder: Path, name: str, split: str) -> float:
    """Expected share of the texts of a split that a guess among the candidate boxes hits."""
    rows = _rows(folder / f"{name}_{split}.arrow", "boxes", "answer_index")
    # The candidates are those of the text, or of all texts of the picture.
    counts = [
        len(boxes[text] if isinstance(boxes[0][0], list) else boxes)
        for boxes, right in rows
        for text in range(len(right))
    ]
    return sum(1 / count for count in counts) / len(counts)


def same_box(folder: Path, name: str, split: str) -> float:
    """Share of the texts of a split that one of its target boxes hits by half, if it is always the answer."""
    targets = torch.tensor(
        [box for (meant,) in _rows(folder / f"{name}_{split}.arrow", "target_boxes") for (box,) in meant]
    )
    return max(float((overlap(targets, box) >= 0.5).float().mean()) for box in targets.unique(dim=0))


def _rows(path: Path, *names: str) -> list[tuple]:
    """The cells of some columns, row by row."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _column(path: Path, name: str) -> list[tuple]:
    """The lists that the texts of a file have in a column."""
    rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()[name].to_pylist()
    return [tuple(entry) for row in rows for entry in row]
