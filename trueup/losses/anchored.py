"""Preference losses that judge each side on its own against the reference, instead of only their difference.

Notation as in ``preference``: r_w and r_l are the log-ratios of chosen and rejected to the reference, in nats.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trueup.losses.elementary import detached
from trueup.losses.implicit import log_ratios
from trueup.types import PairLogps


def nca_pair(pairs: PairLogps, *, beta: float) -> Tensor:
    """NCA for pairs: -log σ(β r_w) - ½ log σ(-β r_w) - ½ log σ(-β r_l).

    Chen et al. 2024, arXiv 2402.05369. At policy = reference: 2 log 2.
    Chosen gradient: negative until σ(β r_w) reaches 2/3, then positive: the chosen reward has an optimum, log 2.
    """
    chosen, rejected = (beta * ratio for ratio in log_ratios(pairs))
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)


def bco_pair(pairs: PairLogps, *, beta: float, delta: Tensor | float = 0.0) -> Tensor:
    """BCO on both sides of a pair: -log σ(β r_w - δ) - log σ(-(β r_l - δ)).

    δ is the running mean of all implicit rewards, chosen and rejected; it is state, so the caller keeps it. No gradient
    flows through it. Jung et al. 2024, arXiv 2404.04656.
    At policy = reference: 2 log 2 for δ = 0, else log(1 + e^δ) + log(1 + e^-δ). Chosen gradient: negative everywhere.
    """
    chosen, rejected = (beta * ratio - detached(delta) for ratio in log_ratios(pairs))
    return -F.logsigmoid(chosen) - F.logsigmoid(-rejected)


def sppo_hard(pairs: PairLogps, *, beta: float) -> Tensor:
    """SPPO with certain winners: (r_w - 1/(2β))² + (r_l + 1/(2β))².

    Wu et al. 2024, arXiv 2405.00675, Eq. 4.7, with η = 1/β and win probabilities 1 and 0 in place of estimates.
    At policy = reference: 1/(2β²). Chosen gradient: negative until r_w reaches 1/(2β), positive beyond.
    """
    chosen, rejected = log_ratios(pairs)
    return (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()


def apo_zero(pairs: PairLogps, *, beta: float) -> Tensor:
    """APO-zero: σ(-β r_w) + σ(β r_l). For chosen responses better than what the policy writes: they are to rise.

    D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 7, plus a constant 1 that keeps it positive (as in TRL).
    At policy = reference: 1. Chosen gradient: negative everywhere.
    """
    chosen, rejected = (beta * ratio for ratio in log_ratios(pairs))
    return (-chosen).sigmoid() + rejected.sigmoid()


def apo_down(pairs: PairLogps, *, beta: float) -> Tensor:
    """APO-down: σ(β r_w) + σ(-β (r_w - r_l)). For chosen responses worse than the policy's: both sides are to fall.

    D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 8, plus a constant 1 (as in TRL).
    At policy = reference: 1. Chosen gradient: zero there, as its two terms cancel; positive while |h| > |r_w|.
    """
    chosen, rejected = (beta * ratio for ratio in log_ratios(pairs))
    return chosen.sigmoid() + (rejected - chosen).sigmoid()
