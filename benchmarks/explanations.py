"""How well explanations find what an answer depends on, on embedded scenes whose boxes are known.

`python -m benchmarks.explanations --data FOLDER CKPT [CKPT ...]`: for each method and each case whose head the checkpoints
have, over the examples that are answered rightly:

pointing: share of examples where the patch of the highest relevance has its centre in the box of the thing that the answer
    depends on (the pointing game of Zhang et al. 2016).
deletion: mean probability of the answer while patches are blanked, the most relevant ones first (lower is better).
insertion: the same while they are put back into a blank image (higher is better), both by Petsiuk et al. 2018.
time: seconds of an explanation over those of an answer, the medians.

The rows random and centre are maps that do not look at the image; uniform is the share of patches in the box.
Several checkpoints are seeds of one model: their means are printed, and with --json each is written.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from benchmarks.report import report
from vlc.data.batch import Batch
from vlc.objectives.answers import Answers
from vlc.objectives.pointing import box_name
from vlc.use.explain.asked import Asked, ask
from vlc.use.explain.explain import explain
from vlc.use.explain.methods import METHODS
from vlc.use.explain.occlusion import with_blank_patches
from vlc.use.forms import Box, Prepared, Request
from vlc.use.model import Model
from write_arrow.sources.emoji_scenes import CELL, PLACES

STEPS = 8  # of deletion and insertion
BASELINES = ("random", "centre")


class Example(NamedTuple):
    """A request whose right answer depends on one thing, and the box of this thing in pixels of the picture."""

    request: Request
    answer: str
    box: Box


def hidden_nouns(row: dict[str, Any]) -> Iterator[Example]:
    """ "there is a [MASK] top left": the thing in this place."""
    for caption in row["caption"]:
        words = caption.split()
        if words[:2] == ["there", "is"] and row["objects"].count(words[3]) == 1:
            text = " ".join([*words[:3], "[MASK]", *words[4:]])
            yield Example(Request([row["image"]], text), words[3], _cell(PLACES.index(" ".join(words[4:]))))


def questions(row: dict[str, Any]) -> Iterator[Example]:
    """ "is there a cat" with the answer yes, and "where is the cat": the only cat."""
    for kind, question, (answer,) in zip(row["question_types"], row["questions"], row["answers"], strict=True):
        noun = question.split()[-1]
        if kind in ("exists", "where") and row["objects"].count(noun) == 1:
            yield Example(Request([row["image"]], question), answer, _cell(row["cells"][row["objects"].index(noun)]))


def expressions(row: dict[str, Any]) -> Iterator[Example]:
    """ "the crab below a cat": this crab. The answer depends on the other thing too."""
    for text, ((*box,),) in zip(row["expressions"][:2], row["target_boxes"][:2], strict=True):
        yield Example(Request([row["image"]], text, boxes=row["boxes"]), box_name(tuple(box)), box)


def which_one(row: dict[str, Any]) -> Iterator[Example]:
    """ "which one is a snail": this snail, among the four boxes of the question."""
    of_questions = zip(row["questions"], row["question_types"], row["boxes"], row["answer_index"], strict=True)
    for question, kind, boxes, right in of_questions:
        if kind == "thing":
            yield Example(Request([row["image"]], question, boxes=boxes), box_name(tuple(boxes[right])), boxes[right])


def named_things(row: dict[str, Any]) -> Iterator[Example]:
    """ "what is thing", which names a box: the thing in it."""
    columns = ("questions", "question_types", "question_tags", "answers", "answer_index")
    for question, kind, tags, options, right in zip(*(row[name] for name in columns), strict=True):
        if kind == "name":
            box = row["boxes"][tags[-1] - 1]
            request = Request([row["image"]], question, options=options, named_boxes={"thing": box})
            yield Example(request, options[right], box)


def _cell(cell: int) -> Box:
    """The box of a cell of a scene with 2 x 2 cells."""
    left, top = cell % 2 * CELL, cell // 2 * CELL
    return left, top, left + CELL, top + CELL


class Case(NamedTuple):
    """examples: of a row. table: of the scenes. head: the name of the head that is asked."""

    examples: Callable[[dict[str, Any]], Iterator[Example]]
    table: str
    head: str


CASES = {
    "hidden noun": Case(hidden_nouns, "emoji_scenes", "mlm"),
    "question": Case(questions, "emoji_scenes", "vqa"),
    "expression": Case(expressions, "emoji_refer", "refer"),
    "which one": Case(which_one, "emoji_pointing", "visual7w"),
    "named thing": Case(named_things, "emoji_vcr", "vcr_qa"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explanations", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables that write_arrow made")
    parser.add_argument("--split", default="test", help="of the scenes (default: test)")
    parser.add_argument("--examples", type=int, default=200, help="that are explained, of each case (default: 200)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for path in arguments.checkpoints:
        model = Model.from_checkpoint(path, num_gpus=0)
        for name, case in CASES.items():
            if case.head in model.module.objectives:
                rows = _measured(model, case, arguments)
                found += [{"case": name, "checkpoint": str(path), **row} for row in rows]
    report(_means(found), f"{arguments.examples} examples of {arguments.split}", arguments)


def _measured(model: Model, case: Case, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of each method and baseline for one head."""
    rng = np.random.default_rng(0)
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in (*arguments.methods, *BASELINES)}
    shares: list[float] = []
    answering: list[float] = []
    for example in _examples(case, arguments.data / f"{case.table}_{arguments.split}.arrow"):
        prepared = model.prepare(case.head, example.request)
        ((answer, *_),), seconds = _timed(partial(model.ask, case.head, [prepared]))
        answering.append(seconds)
        if answer.choices[0][0] != example.answer:
            continue
        with torch.enable_grad():
            asked = ask(model, case.head, partial(_batch, model, case.head, prepared), 0)
        inside = _inside(asked, prepared, example.box)
        shares.append(float(inside.mean()))
        maps = {"random": rng.random(inside.shape), "centre": _centre(inside.shape)}
        for name in arguments.methods:
            explained, seconds = _timed(partial(explain, model, case.head, example.request, name))
            maps[name] = explained.image
            figures[name]["time"].append(seconds)
        for name, values in maps.items():
            deletion, insertion = _curves(asked, values)
            figures[name]["pointing"].append(float(inside.flat[values.argmax()]))
            figures[name]["deletion"].append(deletion)
            figures[name]["insertion"].append(insertion)
        if len(shares) == arguments.examples:
            break
    print(f"{case.head} of {model.path}: {len(shares)} of {len(answering)} are answered rightly, which are explained")
    rows: list[dict[str, Any]] = []
    for name, own in figures.items():
        means = {key: statistics.mean(own[key]) for key in ("pointing", "deletion", "insertion")}
        time_of = statistics.median(own["time"]) / statistics.median(answering) if own["time"] else None
        rows.append({"method": name, **means, "time": time_of})
    return [
        *rows,
        {"method": "uniform", "pointing": statistics.mean(shares), "deletion": None, "insertion": None, "time": None},
    ]


def _batch(model: Model, head: str, prepared: Prepared, count: int) -> Batch:
    return model.forms[head].batch(model, model.module.objectives[head], [prepared] * count)


def _examples(case: Case, table: Path) -> Iterator[Example]:
    with pa.memory_map(str(table)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            for row in reader.get_batch(number).to_pylist():
                yield from case.examples(row)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def _inside(asked: Asked, prepared: Prepared, box: Box) -> np.ndarray:
    """Which patches of the grid have their centre in a box of the picture, (rows, columns) bool."""
    _, _, (rows, columns) = asked.patches(0, asked.passes[0].images[0])
    y, x = (np.mgrid[:rows, :columns] + 0.5) * asked.model.module.encoder.size.patch_size
    placement = prepared.images[0].placement
    assert placement is not None
    left, top = np.einsum("ij,jrc->irc", placement.inverse(), np.stack([x, y, np.ones_like(x)]))
    return (box[0] <= left) & (left < box[2]) & (box[1] <= top) & (top < box[3])


def _centre(shape: tuple[int, ...]) -> np.ndarray:
    """A map that is highest in the middle of the image."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return -np.hypot(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2)


def _curves(asked: Asked, values: np.ndarray) -> tuple[float, float]:
    """The mean probability of the answer during deletion and during insertion of the patches, the highest values first."""
    order = torch.from_numpy(values.ravel().copy()).argsort(descending=True, stable=True)
    counts = [round(len(order) * step / STEPS) for step in range(STEPS + 1)]
    hidden = torch.zeros(2 * len(counts), len(order))
    for number, count in enumerate(counts):
        hidden[number, order[:count]] = 1
        hidden[len(counts) + number] = 1 - hidden[number]
    batch = with_blank_patches(asked, asked.passes[0].images[0], hidden.view(-1, *values.shape))
    with torch.no_grad():
        logits = asked.logits(batch)
    chosen = asked.chosen.values(logits)
    alone = isinstance(asked.head, Answers) and asked.head.options.loss == "bce"
    curves = (chosen.sigmoid() if alone else (chosen - logits.logsumexp(dim=1)).exp()).view(2, -1)
    # The area by trapezoids, whose width is the same.
    deletion, insertion = ((curves[:, 1:] + curves[:, :-1]) / 2).mean(dim=1).tolist()
    return deletion, insertion


def _means(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The means over the checkpoints, a row for each case and method."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        groups[row["case"], row["method"]].append(row)
    rows = []
    for (case, method), same in groups.items():
        columns = {key: [row[key] for row in same] for key in ("pointing", "deletion", "insertion", "time")}
        means = {key: None if None in own else round(statistics.mean(own), 3) for key, own in columns.items()}
        rows.append({"case": case, "method": method, "seeds": len(same), **means})
    return rows


if __name__ == "__main__":
    main()
