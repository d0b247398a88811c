"""How many prompts a claim needs, and what a design could have seen.

All functions are for two-sided tests of a paired mean at ``alpha / comparisons`` (the first step of Holm, so a planned
n is enough whichever contrast comes first) and use the noncentral t distribution: the variance is estimated from the
same data. The textbook formula with normal quantiles, ``n = (z_{1-alpha/2} + z_power)^2 (sd / effect)^2``, is its limit
for large n (7.85 (sd / effect)^2 for the defaults, 12.1 for six comparisons) and asks for two or three prompts too few.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from trueup.errors import UserError
from trueup.stats.crossed import MeanSquares, mean_variance

MOST_PROMPTS = 2**30
"""Beyond a thousand million prompts a design is said to be impossible."""


def smallest_detectable(sd: float, n: int, alpha: float = 0.05, power: float = 0.8, comparisons: int = 1) -> float:
    """Return the true effect that n prompts find with the given power (at 0.8: the MDE80 of the design).

    Args:
        sd: standard deviation of the paired differences over prompts.
        n: prompts; fewer than 2 can detect nothing (infinity).
        alpha: chance of a false claim, over the whole family.
        power: chance to find the effect.
        comparisons: size of the family.
    """
    if n < 2:
        return math.inf
    return _detectable_in_se(n - 1, alpha / comparisons, power) * sd / math.sqrt(n)


def prompts_needed(sd: float, effect: float, alpha: float = 0.05, power: float = 0.8, comparisons: int = 1) -> float:
    """Return the smallest n at which :func:`smallest_detectable` is no larger than ``abs(effect)``.

    An int; ``math.inf`` beyond :data:`MOST_PROMPTS`, so also for an effect of 0; NaN if either is NaN. Fed with an
    *observed* effect this is a figure of plausibility ("this many prompts if it is as large as it looks"), not a
    design.
    """
    if math.isnan(sd) or math.isnan(effect):
        return math.nan
    return _smallest(lambda n: smallest_detectable(sd, n, alpha, power, comparisons) <= abs(effect))


def crossed_prompts_needed(
    effect: float,
    num_seeds: int,
    *,
    seed_variance: float,
    prompt_variance: float,
    residual_variance: float,
    alpha: float = 0.05,
    power: float = 0.8,
    comparisons: int = 1,
) -> float:
    """Return the prompts needed per seed, given the seeds, for an effect analysed by ``crossed_effect``.

    Prompts shrink two of the three parts of ``seed_variance / S + prompt_variance / N + residual_variance / (S N)``;
    the first stays. The degrees of freedom are those of the expected mean squares; designs planned for a power of 0.80
    had 0.77-0.81 in simulation, for 2 to 10 seeds.

    Args:
        effect: true mean difference.
        num_seeds: S >= 2, the same prompts under each.
        seed_variance: component between seeds, as in ``Effect``.
        prompt_variance: component between prompts.
        residual_variance: component of single cells.
        alpha: chance of a false claim, over the whole family.
        power: chance to find the effect.
        comparisons: size of the family.

    Returns:
        An int; ``math.inf`` when no number of prompts is enough: more seeds are needed; NaN if a component is unknown.
    """
    if num_seeds < 2:
        raise UserError("one seed says nothing of the variance between seeds: plan 2 or more, or use prompts_needed")
    components = (seed_variance, prompt_variance, residual_variance)
    if any(math.isnan(value) for value in (effect, *components)):
        return math.nan

    def enough(prompts: int) -> bool:
        squares = MeanSquares(
            seed=residual_variance + prompts * seed_variance,
            prompt=residual_variance + num_seeds * prompt_variance,
            residual=residual_variance,
        )
        variance, df = mean_variance(squares, num_seeds, prompts)
        return _detectable_in_se(df, alpha / comparisons, power) * math.sqrt(variance) <= abs(effect)

    return _smallest(enough)


def _smallest(enough: Callable[[int], bool]) -> float:
    """Return the smallest n in 2..MOST_PROMPTS with ``enough(n)``, by doubling and bisection, or infinity."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_PROMPTS:
            return math.inf
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _detectable_in_se(df: float, alpha: float, power: float) -> float:
    """Return the noncentrality at which a two-sided t test on ``df`` has the given power.

    The chance to reject in the wrong direction, below 1e-4 for any power above one half, is not counted as power.
    """
    critical = special.stdtrit(df, 1 - alpha / 2)
    return float(special.nctdtrinc(df, 1 - power, critical))
