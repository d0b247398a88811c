"""Loss and gradient of a step, by the sums and the division that training uses, without an optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trueup.preflight.modes import mode
from trueup.preflight.subject import Subject
from trueup.train.objectives.grpo import GrpoObjective
from trueup.train.objectives.ppo import PpoObjective
from trueup.train.protocols import Tally
from trueup.train.step import count_units, step_loss

NOTHING = 1e-5
"""A norm of a gradient below which it is rounding and no direction."""


@dataclass(frozen=True)
class Slope:
    """A loss, and its gradient leaf by leaf in float32; None where a leaf is not in the graph."""

    loss: float
    gradients: Sequence[Tensor | None]

    @property
    def norm(self) -> float:
        """The norm over all leaves."""
        return math.sqrt(sum(float(g.double().square().sum()) for g in self.gradients if g is not None))

    def distance(self, other: Slope) -> float:
        """The norm of the difference of the gradients over the norm of this one, or over ``NOTHING`` if it is less."""
        squares = 0.0
        for one, two in zip(self.gradients, other.gradients, strict=True):
            if one is None and two is None:
                continue
            gap = (0.0 if one is None else one) - (0.0 if two is None else two)
            squares += float(torch.as_tensor(gap).double().square().sum())
        return math.sqrt(squares) / max(self.norm, NOTHING)


def measure_slope(subject: Subject, batches: Sequence[Any], training: bool = False, principal: bool = False) -> Slope:
    """Return the loss of a step of these micro-batches, and its gradient.

    Args:
        subject: the run.
        batches: the micro-batches of one step.
        training: in training mode, so with dropout and activation checkpoints; else in evaluation mode.
        principal: of the policy's term alone, where a critic's or a penalty's pull in other directions.
    """
    leaves, total = subject.leaves, 0.0
    sums: list[Tensor | None] = [None] * len(leaves)
    counts = count_units(subject.objective, batches)
    with mode(subject.trained, training):
        for batch in batches:
            loss = step_loss(_tally(subject, batch, principal), counts)
            total += float(loss.detach())
            if loss.requires_grad:
                found = torch.autograd.grad(loss, leaves, allow_unused=True)
                sums = [_sum(a, b) for a, b in zip(sums, found, strict=True)]
    return Slope(total, sums)


@torch.no_grad()
def measure_loss(subject: Subject, batch: Any, principal: bool = False) -> float:
    """Return the loss of a step of one micro-batch, in evaluation mode."""
    counts = count_units(subject.objective, [batch])
    with mode(subject.trained, False):
        return float(step_loss(_tally(subject, batch, principal), counts))


def _tally(subject: Subject, batch: Any, principal: bool) -> Tally:
    tally = subject.objective(subject.trained, batch)
    if principal and isinstance(subject.objective, PpoObjective | GrpoObjective):
        return replace(tally, terms={"policy": tally.terms["policy"]})
    return tally


def _sum(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    if two is None:
        return one
    return two.detach().float() if one is None else one + two.detach().float()
