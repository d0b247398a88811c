"""The intervals of an audit. Rows with one prompt are not independent, so all of them are clustered by prompt.

Where bounds are limited to what is possible, a single prompt gives the whole range.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueup.stats.intervals import Interval, clustered_mean_interval, t_bounds, wilson


def share(hits: ArrayLike, groups: NDArray[np.int64]) -> Interval:
    """Interval of a share: Wilson's where every row has its own prompt, else clustered by prompt (t, G - 1).

    Args:
        hits: ``[n]`` of 0, 1/2 (a tie) and 1.
        groups: ``[n]``, prompt numbers.
    """
    values = np.asarray(hits, dtype=np.float64)
    if np.unique(groups).size == values.size:
        return wilson(float(values.sum()), values.size)
    found = clustered_mean_interval(values, groups)
    return Interval(found.estimate, max(0.0, found.low), min(1.0, found.high), found.n)


def gap(
    first: ArrayLike,
    first_groups: NDArray[np.int64],
    second: ArrayLike,
    second_groups: NDArray[np.int64],
    level: float = 0.95,
) -> Interval:
    """Interval of ``mean(first) - mean(second)``, whose values may share prompts within and across the two.

    With influence u = (x - mean(first)) / n of a value of the first, -(y - mean(second)) / m of the second, and G
    prompts::

        se^2 = G / (G - 1) * sum_g (sum_{u in g} u)^2,   t with G - 1 degrees of freedom

    For pairs (both sides under the same prompts) it is the clustered interval of their differences; for values that are
    all independent it is Welch's up to the degrees of freedom. NaN where a side is empty; NaN bounds for one prompt.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not x.size or not y.size:
        return Interval(math.nan, math.nan, math.nan, n=0)
    influence = np.concatenate([(x - x.mean()) / x.size, -(y - y.mean()) / y.size])
    names, codes = np.unique(np.concatenate([first_groups, second_groups]), return_inverse=True)
    sums = np.bincount(codes, weights=influence)
    count, estimate = names.size, float(x.mean() - y.mean())
    se = math.sqrt(count / (count - 1) * float(sums @ sums)) if count > 1 else math.nan
    return Interval(estimate, *t_bounds(estimate, se, count - 1, level), n=count)


def cliffs_delta(
    first: ArrayLike, first_groups: NDArray[np.int64], second: ArrayLike, second_groups: NDArray[np.int64]
) -> Interval:
    """Cliff's (1993) delta, P(x > y) - P(x < y) for random x of the first and y of the second, with its interval.

    From placements (the share of the other side that a value exceeds, ties half), whose spread gives the error of the
    area under the ROC curve (DeLong 1988; by prompt as Obuchowski 1997): ``delta = 2 AUC - 1``.
    """
    from scipy.stats import rankdata

    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not x.size or not y.size:
        return Interval(math.nan, math.nan, math.nan, n=0)
    ranks = rankdata(np.concatenate([x, y]))
    above = (ranks[: x.size] - rankdata(x)) / y.size
    beaten = 1 - (ranks[x.size :] - rankdata(y)) / x.size
    # The error of the AUC is the sum of both sides' influences, which is the error of this gap; delta's is twice that.
    error = gap(above, first_groups, -beaten, second_groups)
    half, delta = 2 * (error.high - error.estimate), 2 * float(above.mean()) - 1
    return Interval(delta, max(-1.0, delta - half), min(1.0, delta + half), n=error.n)


def as_dict(interval: Interval) -> dict[str, Any]:
    """An interval for JSON, which knows no NaN."""
    values = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: None if math.isnan(value) else value for name, value in values.items()} | {"n": interval.n}
