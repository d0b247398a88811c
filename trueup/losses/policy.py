"""Losses of policy-gradient methods on response tokens, unreduced: PPO, GRPO and its relatives choose among them.

N response tokens, in branch order. Minimising a policy loss raises the log-probability of tokens whose advantage is
positive and lowers that of tokens whose advantage is negative: at ratio 1 the gradient with respect to a token's
log-probability is minus its advantage. What a mean is taken over (tokens, sequences, groups) is the caller's affair.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trueup.ops.exponential import tangent_exp


class ClippedLoss(NamedTuple):
    """A policy loss and where its ratio was cut.

    Attributes:
        loss: float ``[N]``.
        clipped_low: bool ``[N]``.
        clipped_high: bool ``[N]``.
    """

    loss: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def clipped_ratio(
    ratio: Tensor, advantages: Tensor, low: float, high: float, *, delta: float | None = None
) -> ClippedLoss:
    """Return -min(ρ A, clip(ρ, 1 - low, 1 + high) A), with ρ cut at δ in the first term.

    Schulman et al. 2017, arXiv 1707.06347, Eq. 7; separate bounds: Yu et al. 2025 (DAPO), arXiv 2503.14476; δ, which
    bounds the loss of tokens that have a negative advantage: INTELLECT-2, arXiv 2505.07291.
    The flags mark tokens that the clip has taken out of the gradient: below with A < 0, above with A > 0. Tokens cut by
    δ are not flagged.

    Args:
        ratio: ρ, float ``[N]``, π / π_old with gradient, per token or from ``losses.ratios``.
        advantages: A, float ``[N]``.
        low: how far below 1 the ratio may fall.
        high: how far above 1 the ratio may rise.
        delta: the largest ratio that counts at all; above 1 + high.
    """
    clipped = ratio.clamp(1.0 - low, 1.0 + high)
    free = ratio if delta is None else ratio.clamp(max=delta)
    loss = -torch.minimum(free * advantages, clipped * advantages)
    below = (ratio < 1.0 - low) & (advantages < 0)
    above = (ratio > 1.0 + high) & (advantages > 0)
    return ClippedLoss(loss, below, above)


def clipped_surrogate(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, low: float, high: float, *, delta: float | None = None
) -> ClippedLoss:
    """Return ``clipped_ratio`` of token ratios exp(log π - log π_old): PPO's policy loss.

    Minimising raises the log-probability of tokens with a positive advantage. At π = π_old the loss is -A.

    Args:
        logps: log π, float ``[N]``, nats, with gradient.
        old_logps: log π_old of the policy that the ratio is taken against, float ``[N]``.
        advantages: A, float ``[N]``.
        low: how far below 1 the ratio may fall.
        high: how far above 1 the ratio may rise.
        delta: the largest ratio that counts at all; above 1 + high.
    """
    return clipped_ratio(tangent_exp(logps - old_logps), advantages, low, high, delta=delta)


def cispo(logps: Tensor, old_logps: Tensor, advantages: Tensor, low: float, high: float) -> ClippedLoss:
    """Return CISPO's -sg(clip(ρ, 1 - low, 1 + high)) A log π: the weight is cut, no token loses its gradient.

    sg stops the gradient; ρ = exp(log π - log π_old). Minimising raises the log-probability of tokens with a positive
    advantage. MiniMax-M1 2025, arXiv 2506.13585, Eq. 4 and 5; low = 1 means no lower bound. TRL's ``epsilon_high`` is
    the bound itself, here 1 + high. The flags mark tokens whose weight was cut, whatever the sign of the advantage.

    Args:
        logps: log π, float ``[N]``, nats, with gradient.
        old_logps: log π_old, float ``[N]``.
        advantages: A, float ``[N]``.
        low: how far below 1 the weight may fall.
        high: how far above 1 the weight may rise.
    """
    return clipped_weight((logps.detach() - old_logps).exp(), logps, advantages, low, high)


def clipped_weight(ratio: Tensor, logps: Tensor, advantages: Tensor, low: float, high: float) -> ClippedLoss:
    """Return ``cispo`` with a ratio of one's own, of which only the value is used.

    Args:
        ratio: ρ, float ``[N]``, per token or from ``losses.ratios``.
        logps: log π, float ``[N]``, nats, with gradient.
        advantages: A, float ``[N]``.
        low: how far below 1 the weight may fall.
        high: how far above 1 the weight may rise.
    """
    ratio = ratio.detach()
    weight = ratio.clamp(1.0 - low, 1.0 + high)
    return ClippedLoss(-weight * advantages * logps, ratio < 1.0 - low, ratio > 1.0 + high)


def unclipped(ratio: Tensor, advantages: Tensor) -> ClippedLoss:
    """Return -ρ A, the importance-weighted policy gradient, which nothing bounds. Both ``[N]``; at ρ = 1 it is -A."""
    never = torch.zeros_like(ratio, dtype=torch.bool)
    return ClippedLoss(-ratio * advantages, never, never)


def clipped_value(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Return PPO's value loss ½ max((v - R)², (v_clip - R)²), ``[N]``.

    v_clip is v held within ``clip`` of the old value. Minimising moves v towards the return R; the gradient is v - R,
    or zero where v has already gone further than ``clip`` from the old value in the direction of R. From PPO's code,
    not its paper: Engstrom et al. 2020, arXiv 2005.12729.

    Args:
        values: v, float ``[N]``, with gradient.
        old_values: values when the responses were sampled, float ``[N]``.
        returns: R, float ``[N]``.
        clip: in units of the return; above 0. None leaves ½ (v - R)².
    """
    if clip is None:
        return 0.5 * (values - returns).square()
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square())
