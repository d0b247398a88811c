"""What each objective is meant to do with what the model says: raise this, lower that, and by which weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trueup.losses.ranking import bradley_terry
from trueup.train.objectives.grpo import GrpoObjective
from trueup.train.objectives.ppo import PpoObjective
from trueup.train.objectives.preference import PreferenceObjective, pair_logps
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.sft import SftObjective
from trueup.train.objectives.unpaired import UnpairedObjective


@dataclass(frozen=True)
class Pull:
    """The direction in which minimising a loss should move what the model says.

    Attributes:
        what: the quantity, for people.
        weights: ``[N]`` or ``[K]`` as ``Subject.observe`` gives it: positive = should rise. A small step along the
            negative gradient of Σ -w x raises Σ w x, whatever the model. None where the weights are not known.
        against: what the loss pulls the wrong way by its own formula; empty if nothing.
        falls: does the loss itself fall on the way? Not where it has weights without a gradient, which move too.
    """

    what: str
    weights: Tensor | None
    against: str = ""
    falls: bool = True


def pull_of(objective: Any, batch: Any, observed: Tensor) -> Pull:
    """Return what minimising the objective should raise; ``observed`` is ``Subject.observe`` of the batch."""
    return _PULLS[type(objective)](objective, batch, observed.detach())


def _sft(objective: SftObjective, batch: Any, logps: Tensor) -> Pull:
    return Pull("log-probability of the responses", torch.ones_like(logps))


def _reward(objective: RewardObjective, batch: Any, scores: Tensor) -> Pull:
    weights = _downhill(lambda s: bradley_terry(s[0::2], s[1::2], batch.margin, objective.centring), scores)
    wrong = "the chosen score is not raised against the rejected one" if _lead(weights) <= 0 else ""
    return Pull("score of the chosen less that of the rejected", weights, wrong)


def _pairs(objective: PreferenceObjective, batch: Any, logps: Tensor) -> Pull:
    loss, trees = objective.loss, batch.trees
    ref = batch.ref_logps if loss.needs_reference else None
    weights = _downhill(lambda x: objective.losses(pair_logps(x, ref, trees)), logps)
    chosen = float(weights[trees.branch % 2 == 0].sum())
    raises = all(part.loss.chosen_gradient == -1 and part.loss.sign_everywhere for part in loss.parts)
    wrong = "the loss lowers the chosen responses" if raises and chosen < 0 else ""
    # WPO's weights are outside ``losses``: which pairs pull harder is then not known here.
    return Pull("margin of the pairs", None if loss.weighted else weights, wrong, falls=not loss.weighted)


def _unpaired(objective: UnpairedObjective, batch: Any, logps: Tensor) -> Pull:
    weights = _downhill(lambda x: objective.losses(x, batch.ref_logps, batch), logps)
    wanted = batch.desirable[batch.trees.branch]
    good, bad = float(weights[wanted].sum()), float(weights[~wanted].sum())
    wrong = "the loss lowers wanted or raises unwanted responses" if good < 0 or bad > 0 else ""
    return Pull("wanted against unwanted responses", weights, wrong)


def _credit(objective: Any, batch: Any, logps: Tensor) -> Pull:
    return Pull("log-probability weighted by advantage", batch.advantages.to(logps))


def _grpo(objective: GrpoObjective, batch: Any, logps: Tensor) -> Pull:
    """At ratio 1: a ratio of the whole response counts once a token, a mean by response divides by its length."""
    variant, trees = objective.variant, batch.trees
    length = torch.bincount(trees.branch, minlength=trees.num_branches)[trees.branch].to(logps)
    weights = batch.advantages.to(logps)
    weights = weights * length if variant.importance == "product" else weights
    weights = weights / length if variant.unit == "sequence" else weights
    # CISPO's ratio is such a weight.
    return Pull("log-probability weighted by advantage", weights, falls=variant.clip != "weight")


_PULLS: Mapping[type, Callable[[Any, Any, Tensor], Pull]] = {
    SftObjective: _sft,
    RewardObjective: _reward,
    PreferenceObjective: _pairs,
    UnpairedObjective: _unpaired,
    PpoObjective: _credit,
    GrpoObjective: _grpo,
}
"""Type of an objective -> what it should raise."""


def _downhill(losses: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Minus the gradient of the summed losses with respect to what the model said."""
    leaf = at.clone().requires_grad_()
    return -torch.autograd.grad(losses(leaf).sum(), leaf)[0]


def _lead(weights: Tensor) -> float:
    return float((weights[0::2] - weights[1::2]).sum())
