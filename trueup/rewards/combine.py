"""Rewards of several parts: a weighted sum whose parts stay visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trueup.errors import RunError
from trueup.rewards.protocol import Completions, Reward, Scores, TextReward

PartScore = Callable[[Completions], Tensor]
"""Completions -> float ``[K]``; NaN where the part does not apply."""


@dataclass(frozen=True)
class Part:
    """One part of a combination.

    Attributes:
        name: in the metrics ``rewards/NAME/mean`` and ``rewards/NAME/std``.
        score: its raw scores.
        weight: what they are multiplied by; 0 watches the part without paying for it.
        standardise: before the weight, scores are brought to mean 0 and standard deviation 1 over the rollout.
    """

    name: str
    score: PartScore
    weight: float = 1.0
    standardise: bool = False


@dataclass(frozen=True)
class Combination:
    """The sum of weight times score over the parts that apply; weights are taken as they are, not normalised.

    A part that does not apply to a response adds nothing to its sum. A response to which no part applies has no
    reward, which is an error.
    """

    parts: tuple[Part, ...]

    def __call__(self, completions: Completions) -> Scores:
        """Score every part; the total is float32 on the CPU.

        Raises:
            RunError: no part applies to some response.
        """
        raw = {part.name: part.score(completions).detach().float().cpu() for part in self.parts}
        applies = torch.stack([~values.isnan() for values in raw.values()]).any(dim=0)
        if not bool(applies.all()):
            lost = completions.answers[int((~applies).nonzero()[0])]
            raise RunError(f"rollout.reward: no part of the reward applies to the {lost.quote()}")
        ready = [standardised(raw[part.name]) if part.standardise else raw[part.name] for part in self.parts]
        weighed = [part.weight * values.nan_to_num(nan=0.0) for part, values in zip(self.parts, ready, strict=True)]
        return Scores(torch.stack(weighed).sum(dim=0), raw)


def standardised(values: Tensor) -> Tensor:
    """(x - mean) / standard deviation (n - 1) over the entries that are not NaN; all 0 if they are equal.

    Args:
        values: float ``[K]``.
    """
    seen = values[~values.isnan()]
    spread = float(seen.std()) if len(seen) > 1 else 0.0
    # A spread below rounding is no signal: dividing by it would turn noise into scores of order one.
    if len(seen) == 0 or spread <= 1e-6 * max(float(seen.abs().max()), 1e-6):
        return values * 0.0
    return (values - seen.mean()) / spread


def by_text(reward: TextReward) -> PartScore:
    """A reward on text as a part."""

    def score(completions: Completions) -> Tensor:
        scores = reward.score(completions.answers)
        return torch.tensor([float("nan") if value is None else value for value in scores], dtype=torch.float32)

    return score


def by_tokens(name: str, reward: Reward) -> PartScore:
    """A reward on token ids as a part; it applies to every response.

    Raises:
        RunError: when a score is not finite, which would otherwise be taken for "does not apply".
    """

    def score(completions: Completions) -> Tensor:
        values = reward(completions).total
        if not bool(values.isfinite().all()):
            raise RunError(f"rollout.reward: '{name}' gave a score that is not finite; check the model's dtype")
        return values

    return score
