"""What the loss of a micro-batch must be by the formula of its objective, from what the model says of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trueup.preflight.formulas import KL, PAIRS, SINGLES, Sides, clipped, log_sigmoid, shaped
from trueup.train.objectives.grpo import GrpoObjective
from trueup.train.objectives.ppo import PpoObjective
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.sft import SftObjective
from trueup.train.objectives.unpaired import UnpairedObjective


@dataclass(frozen=True)
class Said:
    """What the model says, float64 with a graph: log-probabilities ``[N]`` or scores ``[K]``; a critic's values."""

    logps: Tensor
    values: Tensor | None = None


def expected_loss(objective: Any, batch: Any, said: Said) -> Tensor | None:
    """Return the loss of a step that is this micro-batch, a scalar; None where no formula of it is written here."""
    formula = _FORMULAS.get(type(objective))
    return None if formula is None else formula(objective, batch, said)


def _sums(values: Tensor, batch: Any) -> Tensor:
    """Sums over the tokens of each response ``[K]``."""
    trees = batch.trees
    return torch.stack([values[trees.branch == number].sum() for number in range(trees.num_branches)])


def _lengths(batch: Any) -> Tensor:
    return _sums(torch.ones_like(batch.trees.branch, dtype=torch.float64), batch)


def _sft(objective: SftObjective, batch: Any, said: Said) -> Tensor:
    return -said.logps.mean()


def _reward(objective: RewardObjective, batch: Any, said: Said) -> Tensor:
    chosen, rejected = said.logps[0::2], said.logps[1::2]
    lead = chosen - rejected if batch.margin is None else chosen - rejected - batch.margin.double()
    return (-log_sigmoid(lead) + objective.centring * (chosen + rejected) ** 2).mean()


def _preference(objective: PreferenceObjective, batch: Any, said: Said) -> Tensor | None:
    loss = objective.loss
    if loss.weighted or any(part.loss.name not in PAIRS for part in loss.parts):
        return None
    counts, policy = _lengths(batch), _sums(said.logps, batch)
    ratios = policy - _sums(batch.ref_logps.double(), batch) if loss.needs_reference else policy
    sides = Sides(policy[0::2], policy[1::2], counts[0::2], counts[1::2], ratios[0::2], ratios[1::2])
    sides = shaped(sides, loss.divergence, loss.alpha) if loss.needs_reference else sides
    running = {"delta": 0.0 if objective.baseline is None else objective.baseline.value}
    each = [
        part.weight * PAIRS[part.loss.name](sides, part.settings.get("beta", 0.0), {**running, **part.settings})
        for part in loss.parts
    ]
    return torch.stack(each).sum(dim=0).mean()


def _unpaired(objective: UnpairedObjective, batch: Any, said: Said) -> Tensor | None:
    if objective.loss.name not in SINGLES:
        return None
    ratios = _sums(said.logps - batch.ref_logps.double(), batch)
    settings = objective.settings
    of = SINGLES[objective.loss.name]
    return of(ratios, batch.desirable, batch.reference_point, settings["beta"], settings).mean()


def _ppo(objective: PpoObjective, batch: Any, said: Said) -> Tensor:
    old, advantages = batch.old_logps.double(), batch.advantages.double()
    policy = clipped((said.logps - old).exp(), advantages, objective.clip, objective.clip, None).mean()
    total = policy + objective.vf_coef * _value(objective, batch, said)
    if objective.kl_coef is None:
        return total
    penalty = KL[objective.kl_estimator](batch.ref_logps.double() - said.logps)
    return total + objective.kl_coef.value * penalty.mean()


def _value(objective: PpoObjective, batch: Any, said: Said) -> Tensor:
    assert said.values is not None
    before, returns = batch.old_values.double(), batch.returns.double()
    errors = (said.values - returns) ** 2
    if objective.value_clip is not None:
        reach = objective.value_clip
        held = torch.minimum(torch.maximum(said.values, before - reach), before + reach)
        errors = torch.maximum(errors, (held - returns) ** 2)
    return errors.mean() / 2


def _grpo(objective: GrpoObjective, batch: Any, said: Said) -> Tensor:
    variant, advantages = objective.variant, batch.advantages.double()
    ratio = _ratio(variant.importance, said.logps - batch.old_logps.double(), batch)
    if variant.clip == "weight":
        weight = ratio.detach().clamp(1 - variant.clip_low, 1 + variant.clip_high)
        losses = -weight * advantages * said.logps
    elif variant.clip == "none":
        losses = -ratio * advantages
    else:
        losses = clipped(ratio, advantages, variant.clip_low, variant.clip_high, variant.delta)
    if variant.kl_in_loss:
        penalty = KL[variant.kl_estimator](batch.ref_logps.double() - said.logps)
        losses = losses + variant.kl_in_loss * (penalty * ratio if variant.kl_corrected else penalty)
    if variant.unit == "token":
        return losses.mean()
    lengths = _lengths(batch)
    divisors = lengths if variant.unit == "sequence" else torch.full_like(lengths, objective.max_length)
    return (_sums(losses, batch) / divisors).mean()


def _ratio(importance: str, log_ratio: Tensor, batch: Any) -> Tensor:
    """π/π_old of each token, or of its whole response, or the geometric mean over that, ``[N]``."""
    if importance == "token":
        return log_ratio.exp()
    summed = _sums(log_ratio, batch)
    return (summed / _lengths(batch) if importance == "sequence" else summed).exp()[batch.trees.branch]


_FORMULAS: Mapping[type, Callable[[Any, Any, Said], Tensor | None]] = {
    SftObjective: _sft,
    RewardObjective: _reward,
    PreferenceObjective: _preference,
    UnpairedObjective: _unpaired,
    PpoObjective: _ppo,
    GrpoObjective: _grpo,
}
"""Type of an objective -> its formula."""
