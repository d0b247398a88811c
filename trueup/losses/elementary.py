"""Functions that several losses are made of; their values and gradients stay finite far from the origin."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trueup.errors import UserError

PROBABILITY_GAP = 1e-6
"""The least distance from a probability of one at which odds are taken: they never exceed a million."""


def log_odds(logp: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of p = exp(logp), with 1 - p held at ``PROBABILITY_GAP`` or above.

    log(-expm1(x)) is inaccurate in relative terms for very negative x, where it is about -exp(x); it is only ever
    added to that x, so the absolute error, below one rounding step, is what counts.
    """
    return logp - (-logp.clamp(max=-PROBABILITY_GAP).expm1()).log()


def per_token(total: Tensor, count: Tensor) -> Tensor:
    """Return a response's mean over its tokens, ``[B]``; an empty response has mean zero."""
    return total / count.clamp(min=1)


def smoothed_logistic(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return -(1 - ε) log σ(margin) - ε log σ(-margin): the label is taken to be wrong with probability ε."""
    check_label_smoothing(label_smoothing)
    if label_smoothing == 0.0:
        return -F.logsigmoid(margin)
    return -(1.0 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def check_label_smoothing(value: float) -> None:
    """Refuse a share of wrong labels that is negative, or so large that the labels would be reversed."""
    if not 0.0 <= value < 0.5:
        raise UserError(f"label_smoothing is {value}: a share of wrong labels must be at least 0 and below 0.5")


def detached(value: Tensor | float) -> Tensor | float:
    """Return a constant: reference points are estimates that no gradient may flow through."""
    return value.detach() if isinstance(value, Tensor) else value
