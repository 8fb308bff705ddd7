"""The quantity that is explained: the value that a head gives to one of its answers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.data.batch import Batch
from vlc.objectives.base import Answer, Objective, Outcome
from vlc.objectives.itm import ITM
from vlc.objectives.mlm import MLM
from vlc.objectives.pointing import Pointing
from vlc.objectives.regress import Regress
from vlc.objectives.words import WordTranslation


@dataclass(frozen=True)
class Chosen:
    """An answer of a head.

    name: of the answer, as in `Answer.choices`.
    values: logits of B equal examples -> how much the head is for this answer, (B,): its logit, the score of its box or
        text, the log odds of a match, or the cosine similarity. A head that gives a box and no score has the sum of the
        four logits of the box.
    score: of the answer, as `Answer.choices` has it.
    unit: of the score.
    box: that is chosen (left, top, right, bottom), in pixels of the picture; None: the answer is no box.
    """

    name: str
    values: Callable[[Tensor], Tensor]
    score: float
    unit: str
    box: tuple[float, ...] | None


def chosen(
    name: str, head: Objective, outcome: Outcome, batch: Batch, choice: int, token_name: Callable[[int], str]
) -> Chosen:
    """Return an answer to the only example of a batch, 0 = the best. Raises UserError where there is none.

    Of several hidden words the first one is explained.
    """
    answers = head.answers(outcome, batch, token_name)
    if not answers:
        raise UserError(f"{name} says nothing of this request, so that there is no answer to explain")
    choices = answers[0].choices
    if not 0 <= choice < len(choices):
        raise UserError(
            f"choice={choice} names none of the {len(choices)} answers of {name}: pass 0 to {len(choices) - 1}"
        )
    said, score = choices[choice]
    box = tuple(answers[0].boxes[choice]) if answers[0].boxes else None
    if isinstance(head, WordTranslation):
        said = said.partition(":")[2]  # without the language
    return Chosen(said, _values(head, outcome.logits, batch, choice, answers[0]), score, answers[0].unit, box)


def _values(head: Objective, logits: Tensor, batch: Batch, choice: int, answer: Answer) -> Callable[[Tensor], Tensor]:
    """The values of an answer, as in `Chosen`."""
    if isinstance(head, ITM):
        return lambda found: found[:, 1] - found[:, 0]
    if isinstance(head, Regress):
        return lambda found: found.sum(dim=1)
    if isinstance(head, Pointing):
        regions = batch.parts["regions"]
        same = (regions.stored[0] == torch.tensor(answer.boxes[choice], device=logits.device)).all(
            dim=1
        ) & regions.mask[0]
        place = int(same.nonzero()[0])
    else:
        place = int(logits[0].topk(choice + 1).indices[-1])
    if isinstance(head, MLM):
        hidden = len(logits)  # of each example
        return lambda found: found[::hidden, place]
    return lambda found: found[:, place]
