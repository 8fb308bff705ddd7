"""explain: which patches and words an answer of a head depends on."""

import numpy as np
import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.data.geometry import Placement
from vlc.use.explain.asked import Asked, ask
from vlc.use.explain.explanation import Explanation, ImageMap, Sequence
from vlc.use.explain.methods import DEFAULT, METHODS, Relevance, rollout
from vlc.use.forms import Request, Writing, form_of
from vlc.use.opened import OpenedModel


def explain(model: OpenedModel, head: str, request: Request, method: str = DEFAULT, choice: int = 0) -> Explanation:
    """Explain an answer of a head to one request, in full precision.

    Raises UserError where the method or the head is unknown, where the head writes texts or reads no image, where it has no
    such answer, and for what is wrong in the request.

    method: a name of `METHODS`.
    choice: which of the head's answers, 0 = the best.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r} is unknown: pass one of {', '.join(METHODS)}")
    if head not in (known := explainable(model)):
        heads = ", ".join(known) or "none has an answer about images to explain"
        raise UserError(f"head={head!r} cannot be explained. Of {model.path} these can: {heads}")
    objective = model.module.objectives[head]
    form = form_of(objective)
    assert form is not None
    prepared = form.prepare(model, objective, request)
    with torch.inference_mode(False), torch.enable_grad():
        asked = ask(model, head, lambda count: form.batch(model, objective, [prepared] * count), choice)
        relevances = METHODS[method].relevances(asked)
        if any(one.between is None for one in relevances):  # a word is read from the attention
            relevances = [Relevance(own.answer, of.between) for own, of in zip(relevances, rollout(asked), strict=True)]
        return _explanation(asked, method, relevances, [one.placement for one in prepared.images if one.placement])


def explainable(model: OpenedModel) -> list[str]:
    """The names of the heads whose answers are explained: they look at images, and do not write texts."""
    forms = {name: form_of(head) for name, head in model.module.objectives.items()}
    return [
        name
        for name, form in forms.items()
        if form is not None
        and not isinstance(form, Writing)
        and "images" in form.fields(model, model.module.objectives[name])
    ]


def _explanation(asked: Asked, method: str, relevances: list[Relevance], placements: list[Placement]) -> Explanation:
    """The findings by tokens and patches. A text that several passes have in common is one text."""
    tokens: dict[str, Tensor] = {}
    words: dict[str, Tensor] = {}
    maps: list[ImageMap] = []
    for number, (one, found) in enumerate(zip(asked.passes, relevances, strict=True)):
        shown = {name: asked.shown_tokens(number, name) for name in one.texts}
        for name, places in shown.items():
            ids = asked.own_row(number, one.texts[name].ids)
            tokens[name] = ids[places - one.columns[name].start]
            words[name] = words.get(name, 0) + found.answer[places]
        rows = torch.cat(list(shown.values())) if shown else None
        for name in one.images:
            cells, _, grid = asked.patches(number, name)
            per_word = None
            if found.between is not None and rows is not None:
                per_word = _on_grid(_of_patches(asked, number, name, found.between[rows]), cells, grid)
            values = _on_grid(_of_patches(asked, number, name, found.answer), cells, grid)
            maps.append(ImageMap(values, per_word, placements[len(maps)]))
    names = [asked.model.tokens.token_name(int(number)) for ids in tokens.values() for number in ids]
    relevance = torch.cat(list(words.values())) if words else torch.empty(0)
    return Explanation(
        method,
        asked.name,
        asked.chosen.name,
        asked.value.item(),
        names,
        relevance.detach().float().cpu().numpy(),
        tuple(maps),
        asked.model.module.encoder.size.patch_size,
        tuple(_sequence(asked, number) for number in range(len(asked.passes))),
        asked.chosen.score,
        asked.chosen.unit,
        asked.chosen.box,
    )


def _of_patches(asked: Asked, number: int, name: str, values: Tensor) -> Tensor:
    """Values (..., S) of the tokens of a pass -> (..., P) of the patches of an image, with those of the boxes over them."""
    under, (_, places, _) = asked.under_boxes(number, name), asked.patches(number, name)
    return values[..., places] + (0 if under is None else values[..., asked.passes[number].columns["boxes"]] @ under)


def _on_grid(values: Tensor, cells: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Values (..., P) of patches -> (..., rows, columns) float32 by their cells, 0 where no patch is."""
    found = torch.zeros(*values.shape[:-1], grid[0] * grid[1])
    found[..., cells.cpu()] = values.detach().float().cpu()
    return found.unflatten(-1, grid).numpy()


def _sequence(asked: Asked, number: int) -> Sequence:
    """The attention of a pass without padding, with a name for each token."""
    one, row = asked.passes[number], asked.rows[number]
    names: list[str] = []
    segments: list[str] = []
    kept: list[int] = []
    for name, columns in one.columns.items():
        mask = one.segments[name].mask if name in one.segments else None
        real = range(columns.stop - columns.start) if mask is None else mask[row].nonzero()[:, 0].tolist()
        kept += [columns.start + place for place in real]
        segments += [name] * len(real)
        if name in one.texts:
            ids = asked.own_row(number, one.texts[name].ids).tolist()
            names += [asked.model.tokens.token_name(ids[place]) for place in real]
        else:
            first = int(name in one.images)  # the class token
            names += [f"{name} {place - first}" if first <= place and len(real) > 1 else name for place in real]
    weights = torch.stack([own[:, kept][:, :, kept] for own in asked.attention(number)])
    return Sequence(names, segments, list(one.texts), one.images, weights.detach().to(torch.float16).cpu().numpy())
