"""Integrated gradients (Sundararajan et al. 2017) by captum."""

from torch import Tensor

from vlc.common.errors import UserError
from vlc.use.explain.asked import Asked

STEPS = 8  # of the integral; more of them are no better on scenes whose boxes are known


def integrated_gradients(asked: Asked, steps: int = STEPS) -> list[Tensor]:
    """How much each token that enters the encoder adds to the value, against a blank request: (R, S) for each pass.

    The blank request has the image's mean colour in all its pixels, and [MASK] in place of each word. The sum over all
    tokens of all passes is the difference between the values of the request and of the blank one, but for the error of the
    sum that takes the place of the integral.

    Raises UserError where captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise UserError('method=integrated_gradients needs captum: pip install -e ".[explain]"') from error
    given = tuple(one.entering[0].detach()[None] for one in asked.passes)
    blank = tuple(one.entering[0].detach()[None] for one in asked.blank_passes())

    def value(*tokens: Tensor) -> Tensor:
        return asked.values([own.flatten(0, 1) for own in tokens], len(tokens[0]))

    found = IntegratedGradients(value).attribute(given, blank, n_steps=steps)
    return [own[0].sum(dim=-1) for own in found]
