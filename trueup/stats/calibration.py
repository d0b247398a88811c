"""Does a pairwise judge's stated confidence match how often it is right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trueup.errors import UserError


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs judged with about the same confidence.

    Attributes:
        confidence: mean stated confidence in the preferred side, 0.5..1.
        accuracy: share in which the preferred side was the chosen one; a tie at 0.5 is half right.
        count: pairs.
    """

    confidence: float
    accuracy: float
    count: int


def reliability(probability_chosen: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Group pairs by confidence ``max(p, 1 - p)`` in bins of equal width over [0.5, 1].

    A pairwise judge says p = P(chosen is better), ``sigmoid(score_chosen - score_rejected)`` for a Bradley-Terry reward
    model; it prefers the chosen side when p > 0.5.

    Args:
        probability_chosen: ``[n]``, each in [0, 1].
        bins: number of bins.

    Returns:
        The bins that hold a pair, by rising confidence; none for no pairs.
    """
    p = np.asarray(probability_chosen, dtype=np.float64).ravel()
    outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if outside.size:
        raise UserError(f"pair {outside[0]}: {p[outside[0]]} is not a probability: pass P(chosen is better) in 0..1")
    confidence = np.maximum(p, 1 - p)
    right = (p > 0.5) + 0.5 * (p == 0.5)
    place = np.digitize(confidence, np.linspace(0.5, 1, bins + 1)[1:-1])
    groups = [place == index for index in np.unique(place)]
    return [ReliabilityBin(float(confidence[g].mean()), float(right[g].mean()), int(g.sum())) for g in groups]


def expected_calibration_error(probability_chosen: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over the bins of :func:`reliability`, weighted by their pairs.

    ``ECE = sum_b n_b / n |accuracy_b - confidence_b|`` (Naeini et al. 2015; Guo et al. 2017, equation 3); 0 is
    perfect, 1 is always certain and always wrong. By chance alone a perfect judge shows up to about
    ``0.4 sqrt(bins / n)`` on average: 0.13 for 100 pairs, so small samples look miscalibrated. NaN for no pairs.
    """
    filled = reliability(probability_chosen, bins)
    if not filled:
        return float("nan")
    gaps = [abs(b.accuracy - b.confidence) * b.count for b in filled]
    return sum(gaps) / sum(b.count for b in filled)
