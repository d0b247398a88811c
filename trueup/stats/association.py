"""How two measurements go together, and how far two groups are apart.

All answers are NaN where the data cannot give one (too few values, a measurement that never varies), and where a value
is NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueup.errors import UserError


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two measurements of the same items, ties at their mean rank; -1..1.

    Args:
        first: ``[n]``.
        second: ``[n]``, of the same items in the same order.
    """
    return _rank_correlation(*_paired(first, second))


def within_group_spearman(scores: ArrayLike, feature: ArrayLike, groups: ArrayLike) -> float:
    """Mean of the Spearman correlations inside groups, weighted by group size - 1.

    For "does the judge pay for length?": over all prompts, long answers may score high only because some prompts call
    for both. Inside the answers to one prompt that explanation is gone. Groups in which either never varies say nothing
    and are left out; NaN if none is left.

    Args:
        scores: ``[n]``, for example rewards of responses.
        feature: ``[n]``, for example their lengths.
        groups: ``[n]`` labels, for example the prompt.
    """
    score, value = _paired(scores, feature)
    labels = np.asarray(groups)
    if labels.shape != score.shape:
        raise UserError(f"there are {score.size} scores but group labels of shape {labels.shape}: give one a score")
    _, codes = np.unique(labels, return_inverse=True)
    order = np.argsort(codes)
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    found = [(_rank_correlation(score[m], value[m]), m.size - 1) for m in members if m.size > 1]
    telling = [(rho, weight) for rho, weight in found if not math.isnan(rho)]
    if not telling or np.isnan(score).any() or np.isnan(value).any():
        return math.nan
    return sum(rho * weight for rho, weight in telling) / sum(weight for _, weight in telling)


def standardised_difference(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's d of paired values: mean difference in standard deviations *of the differences* (d_z).

    ``d = mean(first - second) / sd(first - second)``. Differences that are all equal give an infinite d with their
    sign, or 0 if they are 0.

    Args:
        first: ``[n]``, n >= 2.
        second: ``[n]``, of the same items in the same order.
    """
    a, b = _paired(first, second)
    if a.size < 2:
        return math.nan
    change = a - b
    if np.ptp(change) == 0:
        return math.copysign(math.inf, change[0]) if change[0] else 0.0
    return float(change.mean() / change.std(ddof=1))


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Chance that a random positive exceeds a random negative, ties counted half (area under the ROC curve).

    0.5: the score does not separate them; 0 or 1: perfectly. Equal to Mann & Whitney's U / (n m).

    Args:
        positive: ``[n]`` scores.
        negative: ``[m]`` scores.
    """
    from scipy import stats

    above, below = (np.asarray(side, dtype=np.float64).ravel() for side in (positive, negative))
    if not above.size or not below.size:
        return math.nan
    ranks = stats.rankdata(np.concatenate([above, below]), nan_policy="propagate")
    return float(ranks[: above.size].mean() - (above.size + 1) / 2) / below.size


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    from scipy import stats

    return float(np.asarray(stats.spearmanr(first, second))[0])


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise UserError(f"paired values have shapes {a.shape} and {b.shape}: give two lists of the same length")
    return a, b
