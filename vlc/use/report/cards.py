"""Cards: an example with its pictures, its text, the answers, and what mattered for the answer."""

from collections.abc import Iterable, Sequence
from typing import Any

from vlc.common.errors import UserError
from vlc.data.parts.regions import GRID, WHOLE_IMAGE
from vlc.evaluation.examples import Example
from vlc.objectives.base import Objective
from vlc.use.explain import METHODS, Explanation, explain
from vlc.use.forms import Request, asked_boxes
from vlc.use.report.run import Run
from vlc.use.stored import OBJECTS, TAGS, grounding

_OTHER_ANSWER = "the heat maps ask the model again about image and text alone, and its answer is another one then"


def card(run: Run, example: Example, *, others: Sequence[str] = (), mapped: bool = False) -> dict[str, Any]:
    """What a template shows of an example.

    others: the answers of other runs.
    mapped: whether it shows what mattered for the answer. Where nothing explains it, `unmapped` says why.
    """
    pictures = run.pictures(example)
    shown = {
        "pictures": pictures,
        "kind": run.kind(example),
        "text": run.text(example),
        "answer": example.answer,
        "truth": example.truth,
        "right": (example.score or 0.0) >= 0.5,
        "choices": example.choices if example.sure else [],
        "others": list(others),
        "maps": [],
        "words": [],
        "unmapped": "",
    }
    if mapped:
        try:
            found = _explained(run, example)
        except UserError as error:
            return shown | {"unmapped": str(error)}
        if found.answer != example.answer:
            return shown | {"unmapped": _OTHER_ANSWER}
        overlays = [found.overlay(picture, number=number) for number, picture in enumerate(pictures[: len(found.maps)])]
        shown |= {"maps": overlays, "words": _weighted(found)}
    return shown


def _explained(run: Run, example: Example) -> Explanation:
    """What the best answer of an example depends on. Raises UserError where no method says that of its head."""
    samples = run.samples(example)
    source, where = samples.locate(example.number)
    head = run.model.module.objectives[example.place.head]
    field = source.spec.fields

    def value(name: str, default: Any) -> Any:
        return source.field(where, name) if name in field and source.provides(name) else default

    turns = value("history", [])
    boxes = [box for name in _box_fields(head) for box in value(name, [])] or None
    names = getattr(head.options, "candidate_tags", "")
    read = ("boxes", *OBJECTS, *TAGS) if names else ()
    given = {name: value(name, None) for name in read if name in field and source.provides(name)}
    request = Request(
        images=run.pictures(example),
        text=source.text(where) if samples.preparation.text_encoder is not None else None,
        **(grounding(given) if names else {"boxes": boxes}),
        options=value(getattr(head.options, "candidates", "") or "", []) if hasattr(head.options, "drawn") else (),
        history=list(zip(turns[::2], turns[1::2], strict=False)),
        caption=value("caption", ""),
        answer=value("given_answer", ""),
        word=value("words", ""),
        language=value("target_lang", ""),
        candidates=value("candidates", ()),
    )
    return explain(run.model, example.place.head, request, run.method)


def _box_fields(head: Objective) -> list[str]:
    """The fields of the data with the boxes that a head reads of a batch without supervision."""
    names = [name for part in asked_boxes(head) for name in part.tested or part.fields]
    return [name for name in dict.fromkeys(names) if name not in (GRID, WHOLE_IMAGE)]


def _weighted(found: Explanation) -> list[tuple[str, float]]:
    """The tokens of the text with weights from 0 to 1."""
    most = max(float(found.words.max(initial=0.0)), 1e-12)
    return [(token, max(0.0, float(value) / most)) for token, value in zip(found.tokens, found.words, strict=True)]


def maps_note(run: Run, cards: Iterable[dict[str, Any]]) -> str:
    """How the heat maps of cards were made, and why some have none."""
    cards = list(cards)
    with_map, reasons = (
        sum(bool(one["maps"]) for one in cards),
        dict.fromkeys(one["unmapped"] for one in cards if one["unmapped"]),
    )
    note = ""
    if with_map:
        method = METHODS[run.method]
        note = f"Heat maps and coloured words show what mattered for the answer: {method.title} ({method.source}). "
    if reasons:
        note += f"{len(cards) - with_map} of {len(cards)} examples have no heat map: {'; '.join(reasons)}."
    return note.strip()
