"""Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trueup.losses.policy import clipped_surrogate
from trueup.models.forward import token_scores
from trueup.ops.divergences import k3
from trueup.ops.returns import group_relative
from trueup.train.objectives.ppo import policy_metrics
from trueup.train.protocols import Tally, Term
from trueup.train.rollout import AssignCredit, Credit, Experience, RolloutBatch


@dataclass(frozen=True)
class GrpoObjective:
    """Clipped surrogate plus a k3 KL penalty, averaged over the tokens of a response, then over responses (equation 3).

    The penalty is a term of the loss with its own gradient, outside the advantage product: multiplied into the
    advantage it would only rescale the learning rate.

    Attributes:
        clip_low, clip_high: the ratio counts only within [1 - clip_low, 1 + clip_high].
        kl_coef: weight of the KL penalty.
        temperature: the sampling temperature: the policy that is optimised is the one that samples.
    """

    clip_low: float
    clip_high: float
    kl_coef: float
    temperature: float

    def units(self, batch: RolloutBatch) -> Mapping[str, float]:
        """Responses."""
        return {"sequence": float(batch.trees.num_branches)}

    def __call__(self, model: nn.Module, batch: RolloutBatch) -> Tally:
        """Score the sampled tokens again and compare with the rollout."""
        scores = token_scores(model, batch.trees, self.temperature)
        policy, low, high = clipped_surrogate(
            scores.logps, batch.old_logps, batch.advantages, self.clip_low, self.clip_high
        )
        share = 1.0 / torch.bincount(batch.trees.branch, minlength=batch.trees.num_branches)[batch.trees.branch]
        penalty = k3(scores.logps, batch.ref_logps)
        terms = {
            "policy": Term((policy * share).sum(), "sequence"),
            "kl": Term((penalty * share).sum(), "sequence", self.kl_coef),
        }
        return Tally(terms, policy_metrics(scores.logps, scores.entropy, low, high, batch))


def grpo_credit(scale: str) -> AssignCredit:
    """Return GRPO's credit assignment: every token of a response has its group-relative advantage."""

    def assign(model: nn.Module, experience: Experience) -> Credit:
        advantages, group_std = group_relative(experience.rewards, experience.group, scale)
        return Credit(advantages[experience.branch], metrics={"reward_group_std": float(group_std.mean())})

    return assign
