"""Losses in closed form, in float64, from what a model says of tokens: written from docs/losses.md for checks alone.

Nothing here comes from ``trueup.losses``, which it is to be held against: not the functions, not their defaults, not
the sums over a response. The plainest way of writing is preferred; far from the origin some of these overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Given = Mapping[str, float]
"""Beta and the options of a loss, as they were set."""


@dataclass(frozen=True)
class Sides:
    """Pairs, each tensor ``[B]`` in float64: what losses on pairs are functions of.

    Attributes:
        w, x: log π of the chosen and of the rejected response, summed over its tokens.
        n_w, n_x: their numbers of tokens.
        r_w, r_x: log π - log π_ref of each, or what a divergence makes of it; equal to ``w`` and ``x`` where there is
            no reference.
    """

    w: Tensor
    x: Tensor
    n_w: Tensor
    n_x: Tensor
    r_w: Tensor
    r_x: Tensor

    @property
    def h(self) -> Tensor:
        """r_w - r_x."""
        return self.r_w - self.r_x

    @property
    def mean_h(self) -> Tensor:
        """The same per token of each side."""
        return self.r_w / self.n_w - self.r_x / self.n_x


def log_sigmoid(x: Tensor) -> Tensor:
    """Log σ(x) = -log(1 + e^-x)."""
    return -torch.logaddexp(torch.zeros_like(x), -x)


def _smoothed(margin: Tensor, wrong: float) -> Tensor:
    return -(1 - wrong) * log_sigmoid(margin) - wrong * log_sigmoid(-margin)


def _robust(s: Sides, beta: float, wrong: float) -> Tensor:
    right = -(1 - wrong) * log_sigmoid(beta * s.h)
    return (right + wrong * log_sigmoid(-beta * s.h)) / (1 - 2 * wrong)


def _exo(s: Sides, beta: float, wrong: float) -> Tensor:
    """KL of (σ, 1 - σ) from (1 - ε, ε)."""
    wins, loses = log_sigmoid(beta * s.h), log_sigmoid(-beta * s.h)
    return wins.exp() * (wins - math.log(1 - wrong)) + loses.exp() * (loses - math.log(wrong))


def _discopop(s: Sides, beta: float, tau: float) -> Tensor:
    share = (beta * s.h / tau).sigmoid()
    return -(1 - share) * log_sigmoid(beta * s.h) + share * (-beta * s.h).exp()


def _log_odds(logp: Tensor) -> Tensor:
    """Where a mean probability is 1 but for a millionth the odds are held there, as docs/losses.md says."""
    return logp - (-logp.clamp(max=-1e-6).expm1()).log()


def _exp(x: Tensor) -> Tensor:
    """Beyond 40 the exponential goes on along its tangent, as docs/losses.md says."""
    held = x.clamp(max=40.0)
    return held.exp() * (1 + x - held)


def _orpo(s: Sides, beta: float) -> Tensor:
    chosen, rejected = s.w / s.n_w, s.x / s.n_x
    return -chosen - beta * log_sigmoid(_log_odds(chosen) - _log_odds(rejected))


# fmt: off
PAIRS: Mapping[str, Callable[[Sides, float, Given], Tensor]] = {
    "sigmoid": lambda s, b, o: _smoothed(b * s.h, o.get("label_smoothing", 0.0)),
    "robust": lambda s, b, o: _robust(s, b, o.get("label_smoothing", 0.1)),
    "ipo": lambda s, b, o: (s.mean_h - 1 / (2 * b)) ** 2,
    "hinge": lambda s, b, o: (1 - b * s.h).clamp(min=0),
    "exo_pair": lambda s, b, o: _exo(s, b, o.get("label_smoothing", 1e-3)),
    "discopop": lambda s, b, o: _discopop(s, b, o.get("tau", 0.05)),
    "sigmoid_norm": lambda s, b, o: -log_sigmoid(b * s.mean_h),
    "length_controlled": lambda s, b, o: -log_sigmoid(b * s.h + o.get("alpha", 0.01) * (s.n_w - s.n_x)),
    "dpop": lambda s, b, o: -log_sigmoid(b * (s.h - o.get("penalty", 50.0) * (-s.r_w).clamp(min=0))),
    "nca_pair": lambda s, b, o:
        -log_sigmoid(b * s.r_w) - 0.5 * log_sigmoid(-b * s.r_w) - 0.5 * log_sigmoid(-b * s.r_x),
    "bco_pair": lambda s, b, o: -log_sigmoid(b * s.r_w - o["delta"]) - log_sigmoid(o["delta"] - b * s.r_x),
    "sppo_hard": lambda s, b, o: (s.r_w - 1 / (2 * b)) ** 2 + (s.r_x + 1 / (2 * b)) ** 2,
    "apo_zero": lambda s, b, o: (-b * s.r_w).sigmoid() + (b * s.r_x).sigmoid(),
    "apo_down": lambda s, b, o: (b * s.r_w).sigmoid() + (-b * s.h).sigmoid(),
    "sft": lambda s, b, o: -s.w / s.n_w,
    "simpo": lambda s, b, o: -log_sigmoid(b * (s.w / s.n_w - s.x / s.n_x) - o.get("gamma", 1.0)),
    "orpo": lambda s, b, o: _orpo(s, b),
    "cpo": lambda s, b, o: -log_sigmoid(b * (s.w - s.x)) - o.get("sft_weight", 1.0) * s.w / s.n_w,
}
"""Name -> the loss of each pair ``[B]``. Not here: losses that rank the pairs of a batch."""

SINGLES: Mapping[str, Callable[[Tensor, Tensor, float, float, Given], Tensor]] = {
    "kto": lambda r, wanted, point, b, o: torch.where(
        wanted,
        o.get("desirable_weight", 1.0) * (-b * (r - point)).sigmoid(),
        o.get("undesirable_weight", 1.0) * (b * (r - point)).sigmoid(),
    ),
    "bco": lambda r, wanted, point, b, o: -log_sigmoid(torch.where(wanted, b * r - point, point - b * r)),
}
"""Name -> the loss of each response ``[K]`` from its log-ratio, its label and the reference point."""

SHAPED: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "reverse_kl": lambda r, alpha: r,
    "forward_kl": lambda r, alpha: 1 - _exp(-r),
    "js": lambda r, alpha: math.log(2) + log_sigmoid(r),
    "alpha": lambda r, alpha: (1 - _exp(-alpha * r)) / alpha,
}
"""Divergence -> what stands in the place of the log-ratio."""

KL: Mapping[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda r: -r,
    "k2": lambda r: r**2 / 2,
    "k3": lambda r: _exp(r) - 1 - r,
}
"""Estimator -> the penalty of a token, r = log π_ref - log π."""
# fmt: on


def shaped(sides: Sides, divergence: str, alpha: float | None) -> Sides:
    """The pairs with their log-ratios as a divergence has them; alpha is 1/2 unless it is given."""
    of = SHAPED[divergence]
    order = 0.5 if alpha is None else alpha
    return replace(sides, r_w=of(sides.r_w, order), r_x=of(sides.r_x, order))


def clipped(ratio: Tensor, advantages: Tensor, low: float, high: float, most: float | None) -> Tensor:
    """PPO's loss of a token, -min(ρ A, clip(ρ) A), with ρ cut at ``most`` in the first term."""
    free = ratio if most is None else ratio.clamp(max=most)
    return -torch.minimum(free * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
