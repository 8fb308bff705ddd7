"""The methods that explain an answer: each says how much every token matters for it, and tokens for each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vlc.objectives.wpa import cosine_costs, transport_plan
from vlc.use.explain.asked import Asked
from vlc.use.explain.integration import integrated_gradients
from vlc.use.explain.occlusion import occlusion


class Relevance(NamedTuple):
    """What a method finds of one encoder pass.

    answer: (S,), how much each token matters for the answer.
    between: (S, S), how much each token (column) matters for each other one (row); None: the method does not say, and
        attention rollout takes its place.
    """

    answer: Tensor
    between: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """relevances: an answer -> what is found of each of its passes.
    title: for a reader.
    source: where it comes from.
    """

    relevances: Callable[[Asked], list[Relevance]]
    title: str
    source: str


def attention(asked: Asked) -> list[Relevance]:
    """The attention of the last block, the mean over its heads."""
    return [_read(asked, number, asked.attention(number)[-1].mean(dim=0)) for number in range(len(asked.passes))]


def rollout(asked: Asked) -> list[Relevance]:
    """The product of the attention of all blocks, each with the identity for the residual connection."""
    found = []
    for number in range(len(asked.passes)):
        weights = [own.mean(dim=0) for own in asked.attention(number)]
        identity = torch.eye(len(weights[0]), device=weights[0].device)
        found.append(_read(asked, number, _product([(own + identity) / 2 for own in weights])))
    return found


def attention_gradient(asked: Asked) -> list[Relevance]:
    """The attention of the last block times its gradient, where this is positive, the mean over its heads."""
    last = asked.gradients([one.attention[-1] for one in asked.passes])
    found = []
    for number, gradient in enumerate(last):
        between = (asked.attention(number)[-1] * gradient[asked.rows[number]]).clamp(min=0).mean(dim=0)
        found.append(Relevance(between.sum(dim=0), between))
    return found


def relevance(asked: Asked) -> list[Relevance]:
    """Attention times its gradient, where this is positive, is added up over the blocks: the rule of one stream."""
    weights = [own for one in asked.passes for own in one.attention]
    gradients = iter(asked.gradients(weights))
    found = []
    for number, row in enumerate(asked.rows):
        identity = torch.eye(asked.passes[number].states.shape[1], device=asked.value.device)
        steps = [(own * next(gradients)[row]).clamp(min=0).mean(dim=0) for own in asked.attention(number)]
        found.append(_read(asked, number, _product([own + identity for own in steps])))
    return found


def grad_cam(asked: Asked) -> list[Relevance]:
    """The tokens that enter the last block, weighted by the mean gradient of each channel over an image, where positive."""
    entering = [one.entering[-1] for one in asked.passes]
    found = []
    for number, (tokens, gradient) in enumerate(zip(entering, asked.gradients(entering), strict=True)):
        one, row = asked.passes[number], asked.rows[number]
        answer = torch.zeros(tokens.shape[1], device=tokens.device)
        for name in one.segments:
            places = one.columns[name]
            first = places.start + (name in one.images)  # without the class token
            own = slice(first, places.stop)
            answer[own] = (tokens[row, own] @ gradient[row, own].mean(dim=0)).clamp(min=0)
        found.append(Relevance(answer))
    return found


def hires_cam(asked: Asked) -> list[Relevance]:
    """Each token that enters the last block times its gradient, where positive: Grad-CAM without its mean."""
    entering = [one.entering[-1] for one in asked.passes]
    products = (own * gradient for own, gradient in zip(entering, asked.gradients(entering), strict=True))
    return [Relevance(own[row].sum(dim=-1).clamp(min=0)) for own, row in zip(products, asked.rows, strict=True)]


def integration(asked: Asked) -> list[Relevance]:
    """Integrated gradients from a blank image and a text of [MASK] to the tokens that enter the encoder."""
    return [Relevance(own[row]) for own, row in zip(integrated_gradients(asked), asked.rows, strict=True)]


def without_parts(asked: Asked) -> list[Relevance]:
    """What the value of the answer loses without each word and each part of an image."""
    return [Relevance(own) for own in occlusion(asked)]


def alignment(asked: Asked) -> list[Relevance]:
    """The plan that moves words onto patches at least cost, as pre-training computes it; for the answer, its maximum."""
    found = []
    for number, one in enumerate(asked.passes):
        states = one.states[asked.rows[number]][None].detach()
        words, patches = (torch.zeros(1, states.shape[1], dtype=torch.bool, device=states.device) for _ in range(2))
        words[0, torch.cat([asked.shown_tokens(number, name) for name in one.texts])] = True
        for name in one.images:
            patches[0, one.columns[name].start + 1 : one.columns[name].stop] = True
        plan = transport_plan(cosine_costs(states, states), words, patches)[0]
        found.append(Relevance(plan.amax(dim=1) + plan.sum(dim=0), plan.T))
    return found


def _read(asked: Asked, number: int, between: Tensor) -> Relevance:
    """What the head reads, by what matters for the states that it reads."""
    return Relevance(asked.reading(number) @ between, between)


def _product(steps: list[Tensor]) -> Tensor:
    """What each token matters for each after all blocks, by what it does in each block, the first one first."""
    found = steps[0]
    for step in steps[1:]:
        found = step @ found
    return found


METHODS: Mapping[str, Method] = {
    "occlusion": Method(without_parts, "occlusion", "Zeiler and Fergus 2014"),
    "integrated_gradients": Method(integration, "integrated gradients", "Sundararajan et al. 2017"),
    "rollout": Method(rollout, "attention rollout", "Abnar and Zuidema 2020"),
    "relevance": Method(relevance, "gradient-weighted relevance", "Chefer et al. 2021"),
    "attention": Method(attention, "attention of the last block", "the encoder"),
    "attention_gradient": Method(attention_gradient, "attention times gradient", "Chefer et al. 2021"),
    "hires_cam": Method(hires_cam, "HiResCAM", "Draelos and Carin 2020"),
    "grad_cam": Method(grad_cam, "Grad-CAM", "Selvaraju et al. 2017"),
    "alignment": Method(alignment, "word-patch alignment", "Chen et al. 2020, UNITER"),
}
"""By name, the best one first by `benchmarks.explanations`: it is the default."""
DEFAULT = next(iter(METHODS))
