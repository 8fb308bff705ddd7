"""The linear probe: logistic regression on frozen features, with its L2 penalty chosen on a part of the training images.

The protocol is CLIP's (Radford et al. 2021, appendix A.3): L-BFGS for at most 1,000 iterations, and a search for the
penalty that starts at seven powers of 100 and halves the distance around the best one down to eight values a decade.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.common.errors import UserError

_FIRST = range(-6, 7, 2)  # exponents of ten
_FINEST = 1 / 8  # of a decade
_HELD_OUT = 5  # one image of so many, of each class, chooses the penalty


class Probe(NamedTuple):
    """A fitted classifier.

    weights: (D + 1, C), the last row the bias; of features that are normalised by mean and scale, (D,) each.
    penalty: of the squared weights, as 1 / C of scikit-learn.
    """

    weights: Tensor
    mean: Tensor
    scale: Tensor
    penalty: float

    def scores(self, features: Tensor) -> Tensor:
        """Features (N, D) -> logits (N, C)."""
        return _with_one((features - self.mean) / self.scale) @ self.weights


def fitted_probe(features: Tensor, labels: Tensor, num_classes: int, seed: int) -> Probe:
    """Choose the penalty on one image of five of each class, then fit on all.

    features: (N, D) float32; they are normalised to mean 0 and deviation 1.
    labels: (N,) int64.
    """
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    inputs, held_out = _with_one((features - mean) / scale), _held_out(labels, seed)
    known: dict[float, float] = {}

    def accuracy(exponent: float) -> float:
        if exponent not in known:
            weights = fit(inputs[~held_out], labels[~held_out], num_classes, 10**exponent)
            known[exponent] = float(((inputs[held_out] @ weights).argmax(1) == labels[held_out]).float().mean())
        return known[exponent]

    best, step = float(max(_FIRST, key=accuracy)), 1.0
    while step >= _FINEST:
        best = max((best, best - step, best + step), key=accuracy)
        step /= 2
    return Probe(fit(inputs, labels, num_classes, 10**best), mean, scale, 10**best)


def fit(inputs: Tensor, labels: Tensor, num_classes: int, penalty: float) -> Tensor:
    """Return weights (D, C) with the least sum of cross entropies + penalty / 2 * squared weights; the last row is free.

    inputs: (N, D) float32, the last column ones.
    """
    weights = torch.zeros(inputs.shape[1], num_classes, device=inputs.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=1000, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weights, labels) + penalty / 2 / len(inputs) * weights[:-1].square().sum()
        value.backward()
        return value

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(loss)
    return weights.detach()


def few(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """The numbers of so many images of each class, drawn at random, in order. Raises UserError where a class has fewer."""
    rng, chosen = np.random.default_rng(seed), []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < shots:
            raise UserError(f"probe.shots={shots} wants as many images of each class, and class {label} has {len(own)}")
        chosen.append(rng.choice(own, shots, replace=False))
    return np.sort(np.concatenate(chosen))


def _held_out(labels: Tensor, seed: int) -> Tensor:
    """Which images choose the penalty, (N,) bool: of each class one of five, and at least one where it has two."""
    rng, chosen = np.random.default_rng(seed), torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    values = labels.cpu().numpy()
    for label in np.unique(values):
        own = rng.permutation(np.flatnonzero(values == label))
        count = max(len(own) // _HELD_OUT, int(len(own) > 1))
        chosen[torch.from_numpy(own[:count])] = True
    return chosen


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
