"""GQA's official metrics (Hudson & Manning 2019, section 4.4), as shares of 1, of questions that were answered.

Accuracy and the other metrics are measured on balanced questions; the others serve consistency. Sums are taken in the order
of the questions, as in the official evaluator, so that the figures agree in every digit.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vlc.tasks.task import Records


@dataclass(frozen=True)
class Answered:
    """A question with its answer.

    predicted: the model's answer, None where there is none.
    structural: its structural type; questions of the type query are open, the others binary.
    group: the questions whose answers are compared in distribution; None: it belongs to none.
    entailed: identifiers of the questions whose answers follow from this one's.
    """

    gold: str
    predicted: str | None
    structural: str
    semantic: str
    group: str | None = None
    balanced: bool = True
    entailed: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        return self.predicted == self.gold


def mean(values: Collection[float]) -> float:
    """The mean, 0 of nothing."""
    return float(sum(values)) / len(values) if values else 0.0


def accuracies(answered: Collection[Answered], kind: str) -> dict[str, list[bool]]:
    """Whether each balanced question is answered rightly, by its `structural` or `semantic` type."""
    right: dict[str, list[bool]] = defaultdict(list)
    for question in answered:
        if question.balanced:
            right[getattr(question, kind)].append(question.right)
    return dict(sorted(right.items()))


def accuracy(answered: Collection[Answered]) -> dict[str, float]:
    """The accuracy of all balanced questions, of the binary and of the open ones, where there are some."""
    by_type = accuracies(answered, "structural")
    parts = {
        "accuracy": [hit for hits in by_type.values() for hit in hits],
        "binary": [hit for name, hits in by_type.items() if name != "query" for hit in hits],
        "open": by_type.get("query", []),
    }
    return {name: mean(hits) for name, hits in parts.items() if hits}


def consistency(answered: Mapping[str, Answered]) -> float | None:
    """Of each balanced question that is answered rightly: the accuracy of the others that it entails; the mean of these.

    answered: by identifier. None where one of the entailed questions, or its answer, is not there, or none entails another.
    """
    shares, entailing = [], False
    for number, question in answered.items():
        others = [answered.get(each) for each in question.entailed if each != number]
        entailing |= bool(others)
        if question.balanced and question.right and others:
            if any(other is None or other.predicted is None for other in others):
                return None
            shares.append(mean([other is not None and other.right for other in others]))
    return mean(shares) if entailing else None


def distribution(answered: Collection[Answered]) -> float | None:
    """How far the predicted answers of each group are from its true ones, by the statistic chi-square; 0: they agree.

    The mean over the groups, weighted by their questions, and divided by 100. None without groups.
    """
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str | None]] = defaultdict(Counter)
    for question in answered:
        if question.balanced and question.group is not None:
            gold[question.group][question.gold] += 1
            predicted[question.group][question.predicted] += 1
    if not gold:
        return None
    total = 0.0
    for group, counts in gold.items():
        distance = sum((predicted[group][answer] - count) ** 2 / count for answer, count in counts.items())
        total += distance * counts.total()
    return total / sum(counts.total() for counts in gold.values()) / 100


_NEEDED = {"gold_answer", "question_type", "semantic_type", "group", "balanced", "entailed"}  # columns of a record


def summary(records: Records) -> dict[str, float]:
    """The official metrics as far as the records carry them, and the accuracy of each type.

    Consistency needs all entailed questions: most questions that a balanced split entails are not in it.
    """
    answered = {str(record["question_id"]): _answered(record) for record in records if record.keys() >= _NEEDED}
    values = accuracy(answered.values())
    for name, value in (("consistency", consistency(answered)), ("distribution", distribution(answered.values()))):
        if value is not None:
            values[name] = value
    for kind in ("structural", "semantic"):
        values |= {f"accuracy/{kind}/{name}": mean(hits) for name, hits in accuracies(answered.values(), kind).items()}
    return values


def _answered(record: Mapping) -> Answered:
    return Answered(
        record["gold_answer"],
        record["answer"],
        str(record["question_type"]),
        str(record["semantic_type"]),
        record["group"],
        bool(record["balanced"]),
        tuple(record["entailed"]),
    )
