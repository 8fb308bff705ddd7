"""Visual7W's evaluation of a file of results of the pointing task, as its public toolkit takes it."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.evaluation.official.scorer import Scorer, read_json


def evaluate(images: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Return the accuracy in percent with the number of questions: overall, and by type of question.

    Of several candidates the first one counts. A question without result counts as wrong, and is counted as `unanswered`;
    the public toolkit leaves it out, so that a file of easy questions alone scores more.

    images: the images of the file of the data set, with their questions.
    results: for each question its qa_id, and its candidates with the number of a box as `answer`.
    Raises UserError for a question that is answered twice or is of another split, and where the split has no questions.
    """
    pairs = [pair for image in images if image["split"] == split for pair in image["qa_pairs"]]
    answers: dict[str, str] = {}
    for entry in results:
        number = str(entry["qa_id"])
        if number in answers:
            raise UserError(f"question {number} is answered twice: write the file of results again")
        answers[number] = str(entry["candidates"][0]["answer"]) if entry["candidates"] else ""
    if not pairs:
        raise UserError(f"no image of the file is of the split {split!r}")
    hits: dict[str, list[bool]] = {}
    unanswered = 0
    for pair in pairs:
        answer = answers.pop(str(pair["qa_id"]), None)
        unanswered += answer is None
        hits.setdefault(pair["type"], []).append(answer == str(pair["answer"]))
    if answers:
        raise UserError(f"question {min(answers):.80} is answered, and split {split!r} has no such question")
    values = {"accuracy": _percent([hit for own in hits.values() for hit in own])}
    by_type = {name: _percent(own) for name, own in sorted(hits.items())}
    return {**values, "by_type": by_type, "unanswered": unanswered}


def _percent(hits: list[bool]) -> list[float]:
    return [100 * sum(hits) / len(hits), len(hits)]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that name the files."""
    parser.add_argument("--dataset", type=Path, required=True, metavar="FILE", help="dataset_v7w_pointing.json")
    parser.add_argument(
        "--results", type=Path, required=True, metavar="FILE", help="the results, as a test writes them"
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="(default: test)")


def score(arguments: Namespace) -> dict[str, Any]:
    """Return what `evaluate` does, from the files, with a note about unanswered questions. Raises UserError."""
    dataset, results = read_json(arguments.dataset), read_json(arguments.results)
    try:
        values = evaluate(dataset["images"], results, arguments.split)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{arguments.dataset} is not Visual7W's, or {arguments.results} is no list of results: "
            f"{type(error).__name__} {error}"
        ) from error
    if values["unanswered"]:
        print(f"{values['unanswered']:,} questions have no result, and count as wrong", file=sys.stderr)
    return values


SCORER = Scorer("Visual7W: accuracy of pointing, and accuracy by type of question", add_arguments, score)
