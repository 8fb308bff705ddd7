"""VisDial's official evaluation of a file of ranks, such as a test writes it and its server takes it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.evaluation.official.scorer import Scorer, read_json
from vlc.tasks.dialogues import dialogue_metrics


def evaluate(
    dialogues: Mapping[str, Any], ranks: Iterable[Mapping[str, Any]], dense: Iterable[Mapping[str, Any]] = ()
) -> dict[str, float]:
    """Return r1, r5, r10, mrr and mean_rank of all rounds, and ndcg of those with dense annotations, as fractions.

    dialogues: the content of visdial_1.0_SPLIT.json.
    ranks: for each round with options its image_id, its round_id from 1 on, and the ranks of its options in their order.
    dense: the content of visdial_1.0_SPLIT_dense_annotations.json.
    Raises UserError for a round without ranks, for ranks of no round, and for ranks that are not 1, 2, ... in some order.
    """
    right = {
        (dialogue["image_id"], number): (turn.get("gt_index"), len(turn["answer_options"]))
        for dialogue in dialogues["data"]["dialogs"]
        for number, turn in enumerate(dialogue["dialog"], start=1)
        if "answer_options" in turn
    }
    relevances = {
        (entry["image_id"], entry["round_id"]): entry.get("relevance", entry.get("gt_relevance")) for entry in dense
    }
    records: dict[tuple[int, int], dict[str, Any]] = {}
    for entry in ranks:
        place = (entry["image_id"], entry["round_id"])
        if place not in right or place in records:
            mistake = "has ranks twice" if place in records else "is none that has options"
            raise UserError(f"{_named(place)} {mistake}: write the file of ranks again")
        label, count = right[place]
        if sorted(entry["ranks"]) != [*range(1, count + 1)]:
            raise UserError(f"The ranks of {_named(place)} are not the numbers from 1 to {count}, each once")
        known = {} if label is None else {"rank": entry["ranks"][label]}
        records[place] = known | {"ranks": entry["ranks"], "relevance": relevances.get(place)}
    if lacking := right.keys() - records.keys():
        raise UserError(
            f"{len(lacking)} of {len(right)} rounds have no ranks, {_named(min(lacking))} among them: all are measured"
        )
    return dialogue_metrics([*records.values()])


def _named(place: tuple[int, int]) -> str:
    return "image {}, round {}".format(*place)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that name the files."""
    parser.add_argument("--dialogues", type=Path, required=True, metavar="FILE", help="visdial_1.0_SPLIT.json")
    parser.add_argument("--ranks", type=Path, required=True, metavar="FILE", help="the ranks, as a test writes them")
    parser.add_argument("--dense", type=Path, metavar="FILE", help="visdial_1.0_SPLIT_dense_annotations.json, for ndcg")


def score(arguments: Namespace) -> dict[str, float]:
    """Return what `evaluate` does, from the files, in percent but mean_rank. Raises UserError for files of another kind."""
    dense = read_json(arguments.dense) if arguments.dense else ()
    try:
        values = evaluate(read_json(arguments.dialogues), read_json(arguments.ranks), dense)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{arguments.dialogues}, or a file beside it, is not in the form of VisDial ({error!r})"
        ) from error
    return {name: value if name == "mean_rank" else 100 * value for name, value in values.items()}


SCORER = Scorer("VisDial: R@1, 5 and 10, mean reciprocal and mean rank, NDCG", add_arguments, score)
