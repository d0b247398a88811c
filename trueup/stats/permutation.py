"""Paired tests that assume no distribution: sign flips of differences, and signs alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueup.stats.intervals import as_vector

EXACT_LIMIT = 30
"""Most non-zero differences for which all sign patterns are counted; 2^30 patterns are met in two halves of 2^15."""

_CELLS_AT_ONCE = 2**22  # signs held at once when sampling: 32 MiB of float64


def sign_flip(differences: ArrayLike, resamples: int = 100_000, seed: int = 0) -> float:
    """Two-sided p-value of "the differences are symmetric about 0", statistic: their sum (Fisher 1935).

    Under the null each difference could as well have had the other sign. Up to :data:`EXACT_LIMIT` non-zero differences
    every sign pattern is counted, so the answer has no Monte Carlo error. Above it random patterns are drawn, and the
    observed one is counted among them::

        p = (1 + patterns at least as extreme) / (1 + resamples)

    which is never 0 and keeps the test valid (Phipson & Smyth 2010). Differences of 0 (ties) cannot be flipped and
    change nothing; if there are no others, p = 1. NaN among the differences gives NaN.

    Args:
        differences: ``[N]`` paired differences, one an independent prompt. For prompts that share a template pass the
            sums within templates, so that a template flips as a whole.
        resamples: random sign patterns above the exact limit.
        seed: of these patterns.
    """
    values = as_vector(differences)
    if np.isnan(values).any():
        return math.nan
    values = values[values != 0]
    # Sums that are equal on paper differ by rounding; without the slack the observed pattern might not count itself.
    threshold = abs(float(values.sum())) - 1e-12 * float(np.abs(values).sum())
    if threshold <= 0:
        return 1.0
    if values.size <= EXACT_LIMIT:
        return _count_extreme(values, threshold) / 2**values.size
    return (1 + _sample_extreme(values, threshold, resamples, seed)) / (1 + resamples)


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided McNemar test of two arms judged right or wrong on the same prompts.

    Args:
        b: prompts on which only the first arm is right.
        c: prompts on which only the second arm is right. Prompts on which both agree carry no information.

    Returns:
        The binomial p-value of b out of b + c; 1 when both are 0.
    """
    return sign_test(b, c)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: the binomial p-value of ``wins`` out of ``wins + losses``, 1 when both are 0.

    Ties say nothing about the direction and are not part of the test; report their number beside it.
    """
    if wins + losses == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(wins, wins + losses).pvalue)


def _count_extreme(values: NDArray[np.float64], threshold: float) -> int:
    """Count the sign patterns of ``[n]`` whose sum is at least ``threshold`` (> 0) from 0.

    A pattern is a pair of half patterns. With the second half sorted, the partners that lift a first half to the
    threshold are a run at its end, so 2^n patterns cost 2^(n/2) searches and as little memory. Each pattern's opposite
    is a pattern too: as many fall to the threshold's negative.
    """
    middle = values.size // 2
    first, second = _signed_sums(values[:middle]), np.sort(_signed_sums(values[middle:]))
    above = second.size - np.searchsorted(second, threshold - first)
    return 2 * int(above.sum())


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of all 2^n sign patterns of ``[n]`` values."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _sample_extreme(values: NDArray[np.float64], threshold: float, resamples: int, seed: int) -> int:
    """Count how many of ``resamples`` random sign patterns have a sum at least ``threshold`` from 0."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // values.size)
    count = 0
    for start in range(0, resamples, rows):
        negative = rng.integers(0, 2, size=(min(rows, resamples - start), values.size), dtype=np.int8)
        sums = values.sum() - 2 * (negative.astype(np.float64) @ values)
        count += int((np.abs(sums) >= threshold).sum())
    return count
