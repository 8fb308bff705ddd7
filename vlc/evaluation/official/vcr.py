"""VCR's three accuracies, and the file for its leaderboard, from what tests of two checkpoints write, or predict.

Two models are trained (Zellers et al. 2019): one chooses the answer to a question (Q->A), the other the rationale for the
right answer (QA->R). Q->AR counts the questions of which both are right. The leaderboard takes a CSV file with the
probabilities of the answers, and those of the rationales for each answer.
"""

import csv
import io
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.evaluation.official.scorer import Metrics, Scorer, read_json, read_lines
from vlc.evaluation.predictions import require_writable, write_text

CHOICES = range(4)
GIVEN = "given_answer_index"
HEADER = [
    "annot_id",
    *(f"answer_{answer}" for answer in CHOICES),
    *(f"rationale_conditioned_on_a{answer}_{rationale}" for answer in CHOICES for rationale in CHOICES),
]
Given = Mapping[int, Mapping[str, Any]]  # records of a question by the answer that is given


def accuracies(answers: Mapping[str, Mapping[str, Any]], rationales: Mapping[str, Given]) -> dict[str, list[float]]:
    """Return Q->A, QA->R and Q->AR, each in percent with the number of questions. Of equal probabilities none is right.

    answers: by annot_id, the probabilities of the answers to a question, and as its label the right one.
    rationales: by annot_id, and by the answer that is given, those of its rationales.
    Raises UserError where the rationales of a question are not given the right answer.
    """
    right_answers, right_rationales = [], []
    for number, answer in answers.items():
        if answer["label"] not in rationales[number]:
            raise UserError(f"The rationales of {number} are not given its right answer, {answer['label']}")
        right_answers.append(_is_right(answer))
        right_rationales.append(_is_right(rationales[number][answer["label"]]))
    both = [one and other for one, other in zip(right_answers, right_rationales, strict=True)]
    hits = {"Q->A": right_answers, "QA->R": right_rationales, "Q->AR": both}
    return {name: [100 * sum(own) / len(own), len(own)] for name, own in hits.items()}


def _is_right(record: Mapping[str, Any]) -> bool:
    own = record["probabilities"][record["label"]]
    return [value >= own for value in record["probabilities"]].count(True) == 1


def leaderboard_file(answers: Mapping[str, Mapping[str, Any]], rationales: Mapping[str, Given]) -> str:
    """Return the CSV file of 21 columns; the arguments are those of `accuracies`, without labels.

    Raises UserError where the rationales of a question are not given each of its answers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for number, answer in answers.items():
        if lacking := [str(place) for place in CHOICES if place not in rationales[number]]:
            raise UserError(
                f"The rationales of {number} are not given answer {', '.join(lacking)}: the leaderboard takes them for "
                "each answer, which the test split has"
            )
        given = (value for place in CHOICES for value in rationales[number][place]["probabilities"])
        writer.writerow([number, *answer["probabilities"], *given])
    return text.getvalue()


# -- files


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that name the files."""
    parser.add_argument(
        "answers", metavar="QA_FILE", help="what a test of the choice of answers writes, or predict's folder"
    )
    parser.add_argument("rationales", metavar="QAR_FILE", help="the same of rationales")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="write the file for the leaderboard, of the test split")


def score(arguments: Namespace) -> Metrics:
    """Return what `accuracies` does, of splits with labels, and write the file for the leaderboard where it is asked for.

    Raises UserError for files in another form, and where the two are not of the same questions.
    """
    answers = {number: records[0] for number, records in _records(arguments.answers, None).items()}
    rationales = _records(arguments.rationales, GIVEN)
    if lacking := answers.keys() ^ rationales.keys():
        raise UserError(
            f"{len(lacking):,} questions, {min(lacking)} among them, are in one of {arguments.answers} and "
            f"{arguments.rationales} alone: give files of the same split"
        )
    if arguments.csv:
        require_writable("--csv", arguments.csv)
        write_text(arguments.csv, leaderboard_file(answers, rationales))
        print(f"Wrote {arguments.csv}: {len(answers):,} questions", file=sys.stderr)
    if all(
        "label" in one for one in [*answers.values(), *(one for own in rationales.values() for one in own.values())]
    ):
        return accuracies(answers, rationales)
    if not arguments.csv:
        raise UserError(
            f"{arguments.answers} has no labels, as its split is measured by the leaderboard: pass --csv OUT"
        )
    return {}


def _records(path: str, given: str | None) -> dict[str, dict[int, dict[str, Any]]]:
    """The records of a file by annot_id, and by the answer that is given; given: the key of its number."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    entries = _of_folder(Path(path), given) if Path(path).is_dir() else read_json(path)
    for entry in entries if isinstance(entries, list) else [entries]:
        try:
            number, place, values = entry["annot_id"], entry[given] if given else 0, entry["probabilities"]
            places = (place, entry.get("label", 0))
            if not (isinstance(number, str) and all(one in CHOICES for one in places) and _are_probabilities(values)):
                raise ValueError
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            keys = ", ".join(filter(None, ("annot_id", given, "probabilities")))
            raise UserError(f"{path}: {str(entry)[:200]!r} should have {keys}, as a test writes them") from error
        if place in found.setdefault(number, {}):
            raise UserError(f"{path}: {number} is there twice")
        found[number][place] = entry
    if not found:
        raise UserError(f"{path} holds no question")
    return found


def _of_folder(folder: Path, given: str | None) -> list[dict[str, Any]]:
    """The records in a folder of `run.py predict`, of the heads that choose rationales (given) or answers."""
    paths = sorted(folder.glob("answers-*.jsonl"))
    if not paths:
        raise UserError(f"{folder} holds no answers-NNNNN.jsonl, which predict writes with file_format=jsonl")
    rows = (json.loads(line) for path in paths for line in read_lines(path))
    found = [row["record"] for row in rows if row.get("record")]
    return [record for record in found if (GIVEN in record) == (given is not None)]


def _are_probabilities(values: Sequence[Any]) -> bool:
    return len(values) == len(CHOICES) and all(isinstance(value, float) and 0 <= value <= 1 for value in values)


SCORER = Scorer("VCR: Q->A, QA->R and Q->AR, and the file for the leaderboard", add_arguments, score)
