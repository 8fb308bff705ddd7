"""Ambiguous words, translated as an image shows them."""

from vlc.tasks.task import SMALL, Records, Report, Task


def accuracies(records: Records) -> dict[str, float]:
    """Accuracies of the ambiguous words, of which training knows two translations or more, and beside it of all words.

    Of the former: by target language; the mean over words (a word with its target language) of their accuracies; and the
    accuracy of the most frequent translation of training, which looks at neither sentence nor image.
    """
    judged = [record for record in records if "right" in record]
    ambiguous = [record for record in judged if record["num_candidates"] > 1]
    found = {"accuracy_of_all_words": _mean(judged, "right")}
    groups = {"": ambiguous}
    for record in ambiguous:
        groups.setdefault(f"/{record['target_lang']}", []).append(record)
    for name, own in sorted(groups.items()):
        words: dict[tuple[str, str], Records] = {}
        for record in own:
            words.setdefault((record["word"], record["target_lang"]), []).append(record)
        if name:
            found[f"accuracy{name}"] = _mean(own, "right")
        found[f"accuracy_mean_over_words{name}"] = _average([_mean(one, "right") for one in words.values()])
        found[f"most_frequent_accuracy{name}"] = _mean(own, "most_frequent_right")
    return {name: value for name, value in found.items() if value is not None}


def _mean(records: Records, key: str) -> float | None:
    return _average([record[key] for record in records])


def _average(values: list) -> float | None:
    return sum(values) / len(values) if values else None


_HEAD = {"words": "mlt"}
_REPORT = Report(accuracies)

TASKS = {
    "mlt": Task(
        {"words": 1},
        ("mlt",),
        _HEAD,
        report=_REPORT,
        max_text_len=64,
        epochs=20,
        composer="marked_word",
        evaluators={"inputs": 0},
    ),
    "mlt_emoji": Task(
        {"words": 1},
        ("emoji_mlt",),
        _HEAD,
        report=_REPORT,
        **SMALL,
        learning_rate=3e-4,
        composer="marked_word",
        evaluators={"inputs": 0},
    ),
}
