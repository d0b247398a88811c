"""Policy gradients on sampled responses without a critic: GRPO and its relatives, by the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trueup.losses.policy import ClippedLoss, clipped_ratio, clipped_weight, unclipped
from trueup.losses.ratios import RATIOS
from trueup.losses.variants import Variant
from trueup.models.forward import token_scores
from trueup.ops.baselines import Paid, advantages, group_spread
from trueup.ops.divergences import ESTIMATORS, k1
from trueup.train.experience import AssignCredit, Credit, Experience
from trueup.train.lessons import RolloutBatch
from trueup.train.objectives.ppo import policy_metrics, sampling_peak
from trueup.train.protocols import Tally, Term
from trueup.types import TokenTrees

CLIPS: Mapping[str, Callable[[Variant, Tensor, Tensor, Tensor], ClippedLoss]] = {
    "surrogate": lambda v, ratio, logps, a: clipped_ratio(ratio, a, v.clip_low, v.clip_high, delta=v.delta),
    "weight": lambda v, ratio, logps, a: clipped_weight(ratio, logps, a, v.clip_low, v.clip_high),
    "none": lambda v, ratio, logps, a: unclipped(ratio, a),
}
"""(variant, ρ, log π, A), each ``[N]`` -> the policy loss of each token."""


@dataclass(frozen=True)
class Unit:
    """What a mean is over.

    Attributes:
        count: (trees, cap on a response) -> number of units.
        total: (values ``[N]``, trees) -> their sum in units.
    """

    count: Callable[[TokenTrees, int], float]
    total: Callable[[Tensor, TokenTrees], Tensor]


def _mean_of_each_response(values: Tensor, trees: TokenTrees) -> Tensor:
    lengths = torch.bincount(trees.branch, minlength=trees.num_branches)
    return (values / lengths[trees.branch]).sum()


UNITS: Mapping[str, Unit] = {
    "sequence": Unit(lambda trees, cap: float(trees.num_branches), _mean_of_each_response),
    "token": Unit(lambda trees, cap: float(len(trees.target)), lambda values, trees: values.sum()),
    "max_length": Unit(lambda trees, cap: float(trees.num_branches * cap), lambda values, trees: values.sum()),
}


@dataclass(frozen=True)
class GrpoObjective:
    """The policy loss of a variant and its KL penalty, both in the variant's unit.

    A penalty in the loss has a gradient of its own, outside the advantage: multiplied into the advantage it would only
    rescale the learning rate.

    Attributes:
        variant: the method.
        temperature: the sampling temperature: the policy that is optimised is the one that samples.
        max_length: the cap on a response, in tokens.
    """

    variant: Variant
    temperature: float
    max_length: int

    def units(self, batch: RolloutBatch) -> Mapping[str, float]:
        """Responses, response tokens, or responses times the cap."""
        return {self.variant.unit: UNITS[self.variant.unit].count(batch.trees, self.max_length)}

    def __call__(self, model: nn.Module, batch: RolloutBatch) -> Tally:
        """Score the sampled tokens again and compare with the rollout."""
        variant, trees = self.variant, batch.trees
        scores = token_scores(model, trees, self.temperature)
        ratio = RATIOS[variant.importance](scores.logps, batch.old_logps, trees.branch, trees.num_branches)
        policy, low, high = CLIPS[variant.clip](variant, ratio, scores.logps, batch.advantages)
        terms = {"policy": self._term(policy, trees)}
        if variant.kl_in_loss:
            penalty = ESTIMATORS[variant.kl_estimator](scores.logps, batch.ref_logps)
            terms["kl"] = self._term(penalty * ratio if variant.kl_corrected else penalty, trees, variant.kl_in_loss)
        metrics = policy_metrics(scores.logps, scores.entropy, low, high, batch)
        return Tally(terms, metrics, sampling_peak(scores.logps, batch))

    def _term(self, values: Tensor, trees: TokenTrees, weight: float = 1.0) -> Term:
        return Term(UNITS[self.variant.unit].total(values, trees), self.variant.unit, weight)


def grpo_credit(variant: Variant) -> AssignCredit:
    """Return a variant's credit assignment: rewards less the KL penalty, if it is there, compared and scaled."""

    def assign(model: nn.Module, experience: Experience) -> Credit:
        old, ref, rewards = experience.old_logps, experience.ref_logps, experience.rewards
        penalty = variant.kl_in_reward * k1(old, ref) if variant.kl_in_reward else torch.zeros_like(old)
        paid = Paid(rewards, penalty.to(rewards.dtype), experience.group, experience.branch)
        credit = advantages(paid, variant.baseline, variant.scale_rewards)
        return Credit(credit, metrics={"reward_group_std": float(group_spread(paid).mean())})

    return assign
