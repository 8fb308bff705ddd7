"""GQA's official evaluator: all metrics are in percent, except distribution, where less is better.

It reads GQA's own files: the questions of a split (all of them, for consistency), and for validity and plausibility its
choices. Grounding, which measures attention maps over regions, is left out.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.evaluation.official.scorer import Scorer, read_json
from vlc.tasks.gqa_metrics import Answered, accuracies, accuracy, consistency, distribution, mean

_UNCOUNTED_STEPS = ("exist", "query: name", "choose name")  # of a question's program: they only ask for the answer
_COMMON_ATTRIBUTES = ("color", "material", "shape")  # the answers to what two things have in common
_SHOWN = 80  # letters of a value in a message


def evaluate(
    questions: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[str, str],
    choices: Mapping[str, Mapping[str, list[str]]] | None = None,
) -> dict[str, Any]:
    """All official metrics in percent; by structural and semantic type, steps and words also [percent, questions].

    questions: by identifier, as GQA's question files have them; those with isBalanced are measured.
    predictions: answers by identifier, of all balanced questions; consistency also needs those that they entail.
    choices: valid and plausible answers by identifier, as GQA's choices files have them. Without them, validity and
        plausibility are left out, and so are other metrics whose data are missing.
    Raises UserError for a balanced question without prediction or choices, and where no question is balanced.
    """
    answered = {number: _answered(question, predictions.get(number)) for number, question in questions.items()}
    balanced = {number: questions[number] for number, question in answered.items() if question.balanced}
    _require_all(balanced, predictions, "prediction")
    values: dict[str, Any] = {name: share * 100 for name, share in accuracy(answered.values()).items()}
    if choices is not None:
        _require_all(balanced, choices, "entry among the choices")
        for name, kind in (("validity", "valid"), ("plausibility", "plausible")):
            fitting = [
                _fits(predictions[number], question, choices[number][kind]) for number, question in balanced.items()
            ]
            values[name] = mean(fitting) * 100
    if (consistent := consistency(answered)) is not None:
        values["consistency"] = consistent * 100
    if (distance := distribution(answered.values())) is not None:
        values["distribution"] = distance
    for kind in ("structural", "semantic"):
        values[kind] = {
            name: [mean(hits) * 100, len(hits)] for name, hits in accuracies(answered.values(), kind).items()
        }
    for kind, count in (("steps", _num_steps), ("words", _num_words)):
        values[kind] = _by_number(balanced, answered, count)
    return values


def _answered(question: Mapping[str, Any], predicted: str | None) -> Answered:
    types = question["types"]
    return Answered(
        question["answer"],
        predicted,
        types["structural"],
        types["semantic"],
        question["groups"]["global"],
        question["isBalanced"],
        tuple(question["entailed"]),
    )


def _require_all(balanced: Mapping[str, Any], given: Mapping[str, Any], what: str) -> None:
    if not balanced:
        raise UserError("None of the questions is balanced, and the metrics are of balanced questions alone")
    if lacking := [number for number in balanced if number not in given]:
        raise UserError(
            f"{len(lacking):,} of {len(balanced):,} balanced questions have no {what}; the first is {lacking[0]!r:.80}"
        )


def _fits(predicted: str, question: Mapping[str, Any], choices: list[str]) -> bool:
    return predicted in (_COMMON_ATTRIBUTES if "Common" in question["types"]["detailed"] else choices)


def _num_words(question: Mapping[str, Any]) -> int:
    return len(question["question"].split())


def _num_steps(question: Mapping[str, Any]) -> int:
    steps = (f"{step['operation']}: {step['argument']}" for step in question["semantic"])
    return sum(not any(uncounted in step for uncounted in _UNCOUNTED_STEPS) for step in steps)


def _by_number(
    balanced: Mapping[str, Mapping[str, Any]], answered: Mapping[str, Answered], count: Callable[[Mapping], int]
) -> dict[str, list[float]]:
    hits: dict[int, list[bool]] = {}
    for number, question in balanced.items():
        hits.setdefault(count(question), []).append(answered[number].right)
    return {str(size): [mean(own) * 100, len(own)] for size, own in sorted(hits.items())}


# -- files


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that name the files."""
    parser.add_argument("--questions", required=True, help="GQA's SPLIT_all_questions.json, or its folder of pieces")
    parser.add_argument("--predictions", required=True, help='a list of {"questionId": "...", "prediction": "..."}')
    parser.add_argument("--choices", help="GQA's SPLIT_choices.json, for validity and plausibility")


def score(arguments: Namespace) -> dict[str, Any]:
    """`evaluate` on files, with a note where consistency is left out. Raises UserError for a file in another form."""
    questions = _read_questions(Path(arguments.questions))
    predictions = _read_predictions(arguments.predictions)
    choices = None if arguments.choices is None else _of_type(read_json(arguments.choices), dict, arguments.choices)
    try:
        values = evaluate(questions, predictions, choices)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{arguments.questions} or {arguments.choices} is not GQA's: a question lacks {error}. Splits without answers "
            "(test, challenge, submission) are scored by the server alone"
        ) from error
    if "consistency" not in values:
        print(
            "Consistency is left out: it needs all entailed questions in --questions (SPLIT_all_questions.json), and their "
            "predictions",
            file=sys.stderr,
        )
    return values


def _read_questions(path: Path) -> dict[str, Any]:
    questions: dict[str, Any] = {}
    for piece in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        questions |= _of_type(read_json(piece), dict, piece)
    return questions


def _read_predictions(path: str) -> dict[str, str]:
    """The predictions by identifier. Raises UserError where one is no text: a number has lost its zeros."""
    predictions: dict[str, str] = {}
    for entry in _of_type(read_json(path), list, path):
        number, answer = (entry.get(key) if isinstance(entry, dict) else None for key in ("questionId", "prediction"))
        if not isinstance(number, str) or not isinstance(answer, str):
            raise UserError(
                f"{path}: {str(entry)[:_SHOWN]!r} should have the keys questionId and prediction, both texts: a number "
                "would lose the zeros at its beginning"
            )
        if predictions.setdefault(number, answer) != answer:
            raise UserError(
                f"{path}: question {number[:_SHOWN]!r} is answered twice, {predictions[number]!r} and {answer!r}"
            )
    return predictions


def _of_type(content: Any, expected: type, path: str | Path) -> Any:
    if not isinstance(content, expected):
        raise UserError(f"{path} should hold a JSON {'list' if expected is list else 'object'}")
    return content


SCORER = Scorer(
    "GQA: accuracy, consistency, validity, plausibility, distribution, and accuracy by type", add_arguments, score
)
