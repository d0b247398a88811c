"""Confidence intervals for one mean or one rate.

Shared answers: no values give NaN everywhere; one value (or one cluster) gives its estimate with NaN bounds,
because nothing is known of its spread; values that are all equal give an interval of zero width. A NaN among the
values makes the whole interval NaN: nothing is left out in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from trueup.errors import UserError

_BOOTSTRAP_CELLS = 2**22  # resampled values held at once: 32 MiB of float64


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds.

    Attributes:
        estimate: the mean, rate or statistic.
        low, high: bounds; NaN where the data cannot give them.
        n: independent units behind it: values, or clusters where values share one.
    """

    estimate: float
    low: float
    high: float
    n: int


def t_bounds(estimate: float, se: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Return ``estimate -+ t(df) * se``; NaN bounds where ``df`` is 0 or NaN."""
    if not 0 < level < 1:
        raise UserError(f"confidence level is {level}, which is not between 0 and 1: write 0.95 for 95 %")
    if not df > 0:
        return math.nan, math.nan
    half = float(special.stdtrit(df, (1 + level) / 2)) * se
    return estimate - half, estimate + half


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of a mean of independent values.

    Args:
        values: ``[n]``, in any unit; the interval is in the same unit.
        level: confidence, 0.95 for 95 %.
    """
    data = as_vector(values)
    estimate, se, df = mean_and_error(data)
    return Interval(estimate, *t_bounds(estimate, se, df, level), n=data.size)


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float, int]:
    """Return the mean of ``[n]`` independent values, its standard error and its degrees of freedom.

    The error is NaN for n < 2 and exactly 0 for equal values.
    """
    n = values.size
    if n == 0:
        return math.nan, math.nan, 0
    # Measured from the first value, equal values have a spread of exactly 0 whatever the rounding of their mean.
    shifted = values - values[0]
    se = float(shifted.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(values[0] + shifted.mean()), se, n - 1


def clustered_mean_interval(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of a mean whose values share causes within clusters (a template, a topic, a conversation).

    Residuals are summed within each of the G clusters before they are squared, so values that agree within a cluster
    are not counted as independent::

        se^2 = G / (G - 1) * sum_g (sum_{i in g} (x_i - mean))^2 / n^2,   t with G - 1 degrees of freedom

    (Liang & Zeger 1986 with the usual small-sample factor). With every value its own cluster this is
    :func:`mean_interval`. Measured coverage at a correlation of 0.5 within clusters of five: 95 % from 5 clusters on
    (values taken as independent: 73 %). Too narrow when one cluster dominates: 85 % with half of all values in one of
    ten.

    Args:
        values: ``[n]``.
        clusters: ``[n]`` labels of any sortable kind.
        level: confidence.
    """
    data, labels = as_vector(values), np.asarray(clusters)
    if labels.shape != data.shape:
        raise UserError(f"there are {data.size} values but cluster labels of shape {labels.shape}: give one a value")
    names, codes = np.unique(labels, return_inverse=True)
    count = names.size
    estimate, _, _ = mean_and_error(data)
    if count < 2:
        return Interval(estimate, math.nan, math.nan, n=count)
    sums = np.bincount(codes, weights=data - estimate, minlength=count)
    se = math.sqrt(count / (count - 1) * float(sums @ sums)) / data.size
    return Interval(estimate, *t_bounds(estimate, se, count - 1, level), n=count)


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927): sensible at 0, at n and for small n.

    Args:
        successes: count in 0..n. Halves are allowed, so that a tie counts as half a win; a tie varies less than a
            coin, so the interval is then somewhat too wide, never too narrow.
        n: trials; 0 gives NaN.
        level: confidence.
    """
    if not 0 <= successes <= n:
        raise UserError(f"{successes} successes in {n} trials is not a rate: give a count between 0 and {n}")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, n=0)
    from statsmodels.stats.proportion import proportion_confint

    low, high = np.asarray(proportion_confint(successes, n, alpha=1 - level, method="wilson"), dtype=np.float64)
    return Interval(successes / n, float(low), float(high), n=n)


def bca(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987) of any statistic of independent values.

    For statistics without a formula. It follows the skewness of the data but cannot imagine a tail it has not seen:
    for means of lognormal values 95 % intervals cover 85 % at n = 16 and 90 % at n = 30, hardly more than the t
    interval.

    Args:
        values: ``[n]``.
        statistic: of one sample; faster if it takes ``axis`` like numpy's functions.
        level: confidence.
        resamples: bootstrap samples.
        seed: of the resampling; the same seed gives the same bounds.
    """
    data = as_vector(values)
    estimate = float(statistic(data)) if data.size else math.nan
    if data.size < 2 or math.isnan(estimate):
        return Interval(estimate, math.nan, math.nan, n=data.size)
    if np.ptp(data) == 0:
        return Interval(estimate, estimate, estimate, n=data.size)
    from scipy import stats

    batch = max(1, _BOOTSTRAP_CELLS // data.size)
    found = stats.bootstrap(
        (data,),
        statistic,
        confidence_level=level,
        n_resamples=resamples,
        batch=batch,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high), n=data.size)


def as_vector(values: ArrayLike) -> NDArray[np.float64]:
    """Return ``values`` as float64 ``[n]``; refuse a table, which would hide which of its axes is independent."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise UserError(f"a list of independent values is needed, but got shape {data.shape}: average one axis first")
    return data
