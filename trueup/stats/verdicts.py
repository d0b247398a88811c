"""From numbers to one of four words."""

from __future__ import annotations

from typing import Literal

from trueup.stats.crossed import Effect
from trueup.stats.equivalence import tost

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]


def verdict(effect: Effect, p_adjusted: float, margin: float | None, alpha: float = 0.05) -> Verdict:
    """Say what the data allow about arm a against arm b, higher being better.

    * better / worse: the adjusted p-value is below ``alpha``; the sign of the estimate gives the direction. This comes
      first: a difference that is certain but smaller than the margin is still "better", and its size stands beside it.
    * equivalent: the two one-sided tests place the true effect within the margins at ``alpha``.
    * inconclusive: everything else, also whenever an error or p-value is NaN. It is a statement about the study
      (how many prompts are needed?), not about the arms.

    Args:
        effect: a minus b.
        p_adjusted: its p-value after the correction for the whole family of contrasts.
        margin: smallest effect that matters, > 0; None if none was declared, and then nothing is "equivalent".
        alpha: chance of a false claim.
    """
    if p_adjusted < alpha and effect.estimate != 0:
        return "better" if effect.estimate > 0 else "worse"
    if margin is not None and tost(effect.estimate, effect.se, effect.df, margin) < alpha:
        return "equivalent"
    return "inconclusive"
