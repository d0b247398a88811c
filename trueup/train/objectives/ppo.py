"""Proximal policy optimisation of a policy with a value head (Schulman et al. 2017, arXiv:1707.06347)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trueup.data.batching import Batching, map_tokens
from trueup.losses.policy import clipped_surrogate, clipped_value
from trueup.models.actor_critic import ActorCritic
from trueup.ops.divergences import ESTIMATORS, k1, k3
from trueup.ops.returns import gae, whiten
from trueup.train.experience import Credit, Experience
from trueup.train.kl_control import KlControl
from trueup.train.lessons import RolloutBatch
from trueup.train.protocols import Tally, Term


@dataclass(frozen=True)
class PpoObjective:
    """Clipped surrogate plus value loss, and a KL penalty if it is here and not in the reward; means over tokens.

    Attributes:
        clip: the ratio counts only within 1 +- clip (equation 7).
        value_clip: a value moves at most this far from the rollout's; None for no such bound.
        vf_coef: weight of the value loss.
        temperature: the sampling temperature: the policy that is optimised is the one that samples.
        kl_coef: weight of the KL penalty; None where the loss has none.
        kl_estimator: k2 or k3 (``ops.divergences``).
    """

    clip: float
    value_clip: float | None
    vf_coef: float
    temperature: float
    kl_coef: KlControl | None = None
    kl_estimator: str = "k3"

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
        if self.kl_coef is not None:
            penalty = ESTIMATORS[self.kl_estimator](logps, batch.ref_logps)
            terms["kl"] = Term(penalty.sum(), "token", self.kl_coef.value)
        metrics = policy_metrics(logps, output.scores.entropy, low, high, batch)
        return Tally(terms, metrics, sampling_peak(logps, batch))


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


@torch.no_grad()
def sampling_peak(logps: Tensor, batch: RolloutBatch) -> dict[str, float]:
    """The largest difference of a token's log π as sampled and as trained, where both are of the same weights."""
    if not batch.fresh or not len(logps):
        return {}
    return {"sampling/sampling_logp_difference/max": float((logps - batch.old_logps).abs().max())}


@dataclass(frozen=True)
class PpoCredit:
    """PPO's credit assignment: KL-shaped rewards, GAE, whitening.

    Every token is paid ``-kl_coef * (log pi - log pi_ref)`` (the k1 estimate of the KL, Ziegler et al. 2019,
    arXiv:1909.08593, equation 2), unless the penalty is in the loss; the last token of a response is also paid its
    reward.

    Attributes:
        batching: how the critic's forward passes are cut.
        kl_coef: weight of the KL penalty.
        kl_in_reward: False where the loss has the penalty.
        gamma, lam: discount and lambda of GAE, per token.
        whiten_rewards: scale what all tokens of a rollout are paid to standard deviation 1; the mean stays.
        whiten_advantages: scale the advantages of a rollout to mean 0 and standard deviation 1.
    """

    batching: Batching
    kl_coef: KlControl
    kl_in_reward: bool = True
    gamma: float = 1.0
    lam: float = 0.95
    whiten_rewards: bool = False
    whiten_advantages: bool = True

    def __call__(self, model: nn.Module, experience: Experience) -> Credit:
        """Value the rollout's states and assign credit to its tokens."""
        values = _values(model, experience, self.batching)
        penalty = self.kl_coef.value * k1(experience.old_logps, experience.ref_logps)
        paid = self._paid(experience, penalty)
        advantages, returns = gae(paid, values, experience.branch, len(experience.rewards), self.gamma, self.lam)
        explained = 1 - (returns - values).var() / returns.var().clamp(min=1e-8)
        shaped = experience.rewards.mean() - penalty.sum() / len(experience.rewards)
        metrics = {
            "objective/rlhf_reward": float(shaped),
            "objective/kl_coef": self.kl_coef.value,
            "val/explained_variance": float(explained),
        }
        return Credit(whiten(advantages) if self.whiten_advantages else advantages, returns, values, metrics)

    def _paid(self, experience: Experience, penalty: Tensor) -> Tensor:
        """What each token is paid, ``[N]``."""
        last = torch.ones_like(experience.branch, dtype=torch.bool)
        last[:-1] = experience.branch[1:] != experience.branch[:-1]
        paid = -penalty if self.kl_in_reward else torch.zeros_like(penalty)
        paid[last] += experience.rewards
        return whiten(paid, keep_mean=True) if self.whiten_rewards else paid


@torch.no_grad()
def _values(model: nn.Module, experience: Experience, batching: Batching) -> Tensor:
    assert isinstance(model, ActorCritic)
    was_training = model.training
    values = map_tokens(experience.trees, model.eval().value, batching).cpu()
    model.train(was_training)
    return values
