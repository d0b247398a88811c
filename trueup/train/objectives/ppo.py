"""Proximal policy optimisation of a policy with a value head (Schulman et al. 2017, arXiv:1707.06347)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trueup.data.batching import Batching, map_tokens
from trueup.losses.policy import clipped_surrogate, clipped_value
from trueup.models.actor_critic import ActorCritic
from trueup.ops.divergences import k1, k3
from trueup.ops.returns import gae, whiten
from trueup.train.protocols import Tally, Term
from trueup.train.rollout import AssignCredit, Credit, Experience, RolloutBatch


@dataclass(frozen=True)
class PpoObjective:
    """Clipped surrogate plus clipped value loss, both means over response tokens.

    Attributes:
        clip: the ratio counts only within 1 +- clip (equation 7).
        value_clip: a value moves at most this far from the rollout's.
        vf_coef: weight of the value loss.
        temperature: the sampling temperature: the policy that is optimised is the one that samples.
    """

    clip: float
    value_clip: float
    vf_coef: float
    temperature: float

    def units(self, batch: RolloutBatch) -> Mapping[str, float]:
        """Response tokens."""
        return {"token": float(len(batch.old_logps))}

    def __call__(self, model: nn.Module, batch: RolloutBatch) -> Tally:
        """Score and value the sampled tokens again and compare with the rollout."""
        assert batch.returns is not None and batch.old_values is not None
        output = model(batch.trees, self.temperature)
        logps = output.scores.logps
        policy, low, high = clipped_surrogate(logps, batch.old_logps, batch.advantages, self.clip, self.clip)
        value = clipped_value(output.values, batch.old_values, batch.returns, self.value_clip)
        terms = {"policy": Term(policy.sum(), "token"), "value": Term(value.sum(), "token", self.vf_coef)}
        return Tally(terms, policy_metrics(logps, output.scores.entropy, low, high, batch))


@torch.no_grad()
def policy_metrics(
    logps: Tensor, entropy: Tensor, clipped_low: Tensor, clipped_high: Tensor, batch: RolloutBatch
) -> dict[str, tuple[float, float]]:
    """Metrics of an update from rollouts, the same for every online method; sums with the number of tokens."""
    tokens = float(len(logps))
    drift = (logps - batch.old_logps).abs()
    metrics = {
        "entropy": entropy,
        "clip_ratio/low_mean": clipped_low.float(),
        "clip_ratio/high_mean": clipped_high.float(),
        "clip_ratio/region_mean": (clipped_low | clipped_high).float(),
        "policy/approxkl": k3(batch.old_logps, logps),
        "policy/ratio": (logps - batch.old_logps).exp(),
    }
    if batch.fresh:
        metrics["sampling/sampling_logp_difference/mean"] = drift
    return {name: (float(value.sum()), tokens) for name, value in metrics.items()}


def ppo_credit(batching: Batching, kl_coef: float, gamma: float, lam: float) -> AssignCredit:
    """Return PPO's credit assignment: KL-shaped rewards, GAE, whitened advantages.

    Every token is paid ``-kl_coef * (log pi - log pi_ref)`` (the k1 estimate of the KL, Ziegler et al. 2019,
    arXiv:1909.08593, equation 2); the last token of a response is also paid its reward.
    """

    def assign(model: nn.Module, experience: Experience) -> Credit:
        values = _values(model, experience, batching)
        penalty = kl_coef * k1(experience.old_logps, experience.ref_logps)
        last = torch.ones_like(experience.branch, dtype=torch.bool)
        last[:-1] = experience.branch[1:] != experience.branch[:-1]
        paid = -penalty
        paid[last] += experience.rewards
        advantages, returns = gae(paid, values, experience.branch, len(experience.rewards), gamma, lam)
        explained = 1 - (returns - values).var() / returns.var().clamp(min=1e-8)
        shaped = experience.rewards.mean() - penalty.sum() / len(experience.rewards)
        metrics = {"objective/rlhf_reward": float(shaped), "val/explained_variance": float(explained)}
        return Credit(whiten(advantages), returns, values, metrics)

    return assign


@torch.no_grad()
def _values(model: nn.Module, experience: Experience, batching: Batching) -> Tensor:
    assert isinstance(model, ActorCritic)
    was_training = model.training
    values = map_tokens(experience.trees, model.eval().value, batching).cpu()
    model.train(was_training)
    return values
