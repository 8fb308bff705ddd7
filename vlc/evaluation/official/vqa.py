"""VQA's official evaluator: accuracies in percent, rounded to two decimals (github.com/GT-Vision-Lab/VQA).

It reads VQA's annotations and a file of predictions as the evaluation server takes it. The file of questions would add
nothing to the accuracies.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlc.common.errors import UserError
from vlc.data.answer_text import as_compared
from vlc.evaluation.official.scorer import Scorer, read_json

_SHOWN = 80  # letters of a value in a message


def accuracy(annotators: Sequence[str], said: str) -> float:
    """The accuracy of an answer, from 0 to 1: the mean over the annotators of min(1, how many others gave it / 3)."""
    *given, answer = as_compared(annotators, said)
    votes = given.count(answer)
    shares = [min(1, (votes - (own == answer)) / 3) for own in given]
    return sum(shares) / len(shares)


def evaluate(annotations: Iterable[Mapping[str, Any]], predictions: Mapping[str, str]) -> dict[str, Any]:
    """The accuracies of predictions under the names of the official evaluator: overall, perQuestionType, perAnswerType.

    annotations: entries of VQA's annotations.
    predictions: answers by question_id as a text, of exactly the annotated questions.
    Raises UserError where a question has no prediction, or a prediction no question; KeyError for an annotation that lacks
    something.
    """
    scores: dict[str, float] = {}
    kinds: dict[str, dict[str, list[float]]] = {"perQuestionType": {}, "perAnswerType": {}}
    for entry in annotations:
        number = str(entry["question_id"])
        if number not in predictions:
            raise UserError(f"question {number} has no prediction: answer each annotated question, or pass --part")
        if not entry["answers"]:
            raise UserError(f"question {number} has an annotation without answers: nothing can be compared with it")
        scores[number] = accuracy([answer["answer"] for answer in entry["answers"]], predictions[number])
        for kind, key in (("perQuestionType", "question_type"), ("perAnswerType", "answer_type")):
            kinds[kind].setdefault(entry[key], []).append(scores[number])
    if not scores:
        raise UserError("no question is both annotated and predicted: are the files of different splits?")
    unknown = next((number for number in predictions if number not in scores), None)
    if unknown is not None:
        raise UserError(
            f"question {unknown[:_SHOWN]} is predicted, and no annotation is about it: is it of another split?"
        )
    by_kind = {kind: {name: _percent(values) for name, values in found.items()} for kind, found in kinds.items()}
    return {"overall": _percent(scores.values()), **by_kind}


def _percent(values: Iterable[float]) -> float:
    values = list(values)
    return round(100 * sum(values) / len(values), 2)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--annotations", required=True, metavar="FILE", help="v2_mscoco_SPLIT_annotations.json")
    parser.add_argument(
        "--predictions", required=True, metavar="FILE", help="a list of question_id and answer, as JSON"
    )
    parser.add_argument(
        "--part",
        action="store_true",
        help="score the predicted questions alone, which are a part of the annotated ones",
    )


def score(arguments: Namespace) -> dict[str, Any]:
    """The accuracies of the files that the arguments name. Raises UserError for files that cannot be scored."""
    content = read_json(arguments.annotations)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not (isinstance(annotations, list) and annotations):
        raise UserError(f"{arguments.annotations} should hold a JSON object with a list of annotations")
    predictions = _read_predictions(arguments.predictions)
    try:
        if arguments.part:
            annotations = [entry for entry in annotations if str(entry["question_id"]) in predictions]
        return evaluate(annotations, predictions)
    except KeyError as error:
        raise UserError(f"{arguments.annotations} is not VQA's: an annotation lacks {error}") from error
    except (TypeError, AttributeError) as error:
        raise UserError(f"{arguments.annotations} is not VQA's: an annotation has other types ({error})") from error


def _read_predictions(path: str) -> dict[str, str]:
    """The predictions by question, whose number may be spelled as a text."""
    entries, predictions = read_json(path), dict[str, str]()
    if not isinstance(entries, list):
        raise UserError(f"{path} should hold a JSON list")
    for entry in entries:
        number, answer = (entry.get(key) if isinstance(entry, dict) else None for key in ("question_id", "answer"))
        if not isinstance(number, int | str) or not isinstance(answer, str):
            raise UserError(
                f"{path}: {str(entry)[:_SHOWN]!r} should have the keys question_id, a number, and answer, a text"
            )
        if predictions.setdefault(str(number), answer) != answer:
            raise UserError(f"{path}: question {number} is answered twice, {predictions[str(number)]!r} and {answer!r}")
    return predictions


SCORER = Scorer("VQA: accuracy, and accuracy by type of question and of answer", add_arguments, score)
