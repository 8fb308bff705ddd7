"""GuessWhat?! (de Vries et al. 2017): games of yes/no questions about an object of a picture of COCO. https://guesswhat.ai

The guesser finds the object from the dialogue (guesswhat_SPLIT: a row is a picture with its games); the oracle answers a
question about the object that it is told (guesswhat_oracle_SPLIT: a row is a picture with the questions of its games). Both
releases are read: one has its objects in a list, the other in a dictionary.
"""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.boxes import Cutter, corners
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Files, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable

_TEXTS, _NUMBERS, _BOXES = pa.list_(pa.string()), pa.list_(pa.int64()), pa.list_(pa.list_(pa.float64()))
_OF_A_ROW = {"width": pa.int64(), "height": pa.int64(), "image_id": pa.int64(), "split": pa.string()}
GUESSER = pa.schema(
    {
        "image": pa.binary(),
        "questions": _TEXTS,  # the last one of each game
        "dialogue": pa.list_(_TEXTS),  # question, answer, question, ... of a game
        "boxes": pa.list_(_BOXES),
        "box_ids": pa.list_(_NUMBERS),
        "box_names": pa.list_(_TEXTS),
        "answer_index": _NUMBERS,
        "game_id": _NUMBERS,
        "status": _TEXTS,
        **_OF_A_ROW,
    }
)
ORACLE = pa.schema(
    {
        "image": pa.binary(),
        "questions": _TEXTS,
        "labels": _NUMBERS,
        "target_boxes": pa.list_(_BOXES),  # the one of the object
        "categories": _TEXTS,
        "question_id": _NUMBERS,
        "game_id": _NUMBERS,
        **_OF_A_ROW,
    }
)
LABELS = {"Yes": 0, "No": 1, "N/A": 2}
SPLITS = ("train", "valid", "test")
_STATUSES = ("success", "failure", "incomplete")
_FOLDERS = ("train2014", "val2014")


Game = dict[str, Any]  # as `_games` makes it of both releases


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--status",
        nargs="+",
        choices=(*_STATUSES, "all"),
        default=["success"],
        help="how the games ended that are written (default: success, on which both models are measured)",
    )


def tables(conversion: Conversion) -> list[PlannedTable]:
    """guesswhat_SPLIT, a picture with its games, and guesswhat_oracle_SPLIT, a picture with the questions of its games."""
    files = conversion.files(*_FOLDERS)
    return [table for split in SPLITS for table in _tables(split, files, conversion)]


def _tables(split: str, files: Files, conversion: Conversion) -> list[PlannedTable]:
    cutter, counts = Cutter(), Counter[str]()
    games = conversion.groups(_games(f"guesswhat.{split}.jsonl.gz", cutter, conversion))
    guesser, oracle = conversion.plans(), conversion.plans()
    for image, found in games:
        wanted = list(_wanted(found, conversion.options.status, counts))
        paths = [f"{folder}/COCO_{folder}_{image:012d}.jpg" for folder in _FOLDERS]
        file = next((file for path in paths if (file := files.get(path)) is not None), None)
        if file is None and wanted:
            _reject(paths[0], f"no such file, nor {paths[1]}; {len(wanted)} games are about it", guesser, oracle)
        if file is None:
            continue
        usable = []
        for game in wanted:
            if problem := _problem(game):
                _reject(file.name, f"game {game['game_id']} {problem}", guesser, oracle)
            else:
                usable.append(game)
        if usable:
            size = {name: usable[0][name] for name in ("width", "height")}
            same = {**size, "image_id": image, "split": split}
            questions = [question for game in usable for question in _of_oracle(game)]
            guesser.append([file], **_columns([_of_guesser(game) for game in usable]), **same)
            oracle.append([file], **_columns(questions), **same)
            counts.update(games=len(usable), questions=len(questions))
    conversion.notes.append(
        f"guesswhat_{split}: {counts['games']:,} games with {counts['questions']:,} questions about "
        f"{guesser.num_planned:,} pictures; {guesser.num_rejected:,} games and pictures were left out, "
        f"{counts['other']:,} games had ended in another way, {counts['repeated']:,} lines repeated a game"
    )
    conversion.notes.append(cutter.note(f"Objects of guesswhat_{split}"))
    made = {f"guesswhat_{split}": (GUESSER, guesser), f"guesswhat_oracle_{split}": (ORACLE, oracle)}
    return [table for stem, (schema, plans) in made.items() for table in conversion.table(stem, schema, plans)]


def _reject(path: str, reason: str, *tables: Plans) -> None:
    for plans in tables:
        plans.reject(path, reason)


def _wanted(games: list[Game], statuses: list[str], counts: Counter[str]) -> Iterator[Game]:
    """The games that ended in one of the ways, each once; the others are counted."""
    seen = set()
    for game in games:
        if game["game_id"] in seen:
            counts["repeated"] += 1
        elif game["status"] in statuses or "all" in statuses:
            yield game
        else:
            counts["other"] += 1
        seen.add(game["game_id"])


def _problem(game: Game) -> str | None:
    """Why nothing can be asked about a game."""
    targets = [box for number, _, box in game["objects"] if number == game["target"]]
    if not game["rounds"]:
        return "has no questions"
    if blank := [number for number, question, _ in game["rounds"] if not question.strip()]:
        return f"has question {blank[0]} without text"
    if len(targets) != 1:
        return f"is about object {game['target']}, of which it has {len(targets)}"
    return None if targets[0] else f"is about object {game['target']}, which has no area in the picture"


def _columns(entries: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The columns of a row that have a value for each of its texts."""
    return {name: [entry[name] for entry in entries] for name in entries[0]}


def _of_guesser(game: Game) -> dict[str, Any]:
    numbers, names, boxes = zip(*(one for one in game["objects"] if one[2]), strict=True)
    return {
        "questions": game["rounds"][-1][1],
        "dialogue": [words for _, *said in game["rounds"] for words in said],
        "boxes": boxes,
        "box_ids": numbers,
        "box_names": names,
        "answer_index": numbers.index(game["target"]),
        "game_id": game["game_id"],
        "status": game["status"],
    }


def _of_oracle(game: Game) -> Iterator[dict[str, Any]]:
    (category, box), *_ = ((name, box) for number, name, box in game["objects"] if number == game["target"])
    for number, question, answer in game["rounds"]:
        yield {
            "questions": question,
            "labels": LABELS[answer],
            "target_boxes": [box],
            "categories": category,
            "question_id": number,
            "game_id": game["game_id"],
        }


def _games(path: str, cutter: Cutter, conversion: Conversion) -> Iterator[tuple[int, Game]]:
    """Each game of a file with the number of its picture."""
    for entry in conversion.lines(path):
        if isinstance(entry, dict) and "dialogue_id" in entry:
            entry = _as_of_lists(entry, path, conversion)
        number, picture, status, target, objects, rounds = conversion.typed(
            entry, path, id=int, image=dict, status=str, object_id=int, objects=list, qas=list
        )
        image, width, height = conversion.typed(picture, path, id=int, width=int, height=int)
        where = f"{conversion.root.where(path)}, game {number}"
        stated = [conversion.typed(one, path, id=int, category=str, bbox=list) for one in objects]
        yield (
            image,
            {
                "game_id": number,
                "width": width,
                "height": height,
                "status": status,
                "target": target,
                "objects": [
                    [own, category, cutter.cut(corners(box, where), width, height)]
                    for own, category, box in sorted(stated, key=itemgetter(0))
                ],
                "rounds": [_round(said, path, where, conversion) for said in rounds],
            },
        )


def _as_of_lists(entry: Mapping[str, Any], path: str, conversion: Conversion) -> dict[str, Any]:
    """A game of the release with dictionaries, as the release with lists states it."""
    number, image, picture, by_number, rounds = conversion.typed(
        entry, path, dialogue_id=int, picture_id=int, picture=dict, objects=dict, qas=list
    )
    objects = (conversion.typed({"objects": one}, path, objects=dict) for one in by_number.values())
    said = (conversion.pick(one, path, "id", "q", "a") for one in rounds)
    return {
        **entry,
        "id": number,
        "image": {**picture, "id": image},
        "objects": [{**one, "id": own} for own, (one,) in zip(by_number, objects, strict=True)],
        "qas": [dict(zip(("id", "question", "answer"), one, strict=True)) for one in said],
    }


def _round(said: Mapping[str, Any], path: str, where: str, conversion: Conversion) -> list[Any]:
    """Number of the question, question and answer."""
    number, question, answer = conversion.typed(said, path, id=int, question=str, answer=str)
    if answer not in LABELS:
        raise UserError(f"{where}: question {number} has the answer {answer!r:.80}, not one of {', '.join(LABELS)}")
    return [number, question, answer]


SOURCES = {
    "guesswhat": RawSource(
        "GuessWhat?!, games about an object of a picture",
        "guesswhat.{train,valid,test}.jsonl.gz (either release), train2014/*.jpg, val2014/*.jpg",
        tables,
        add_options,
    )
}
