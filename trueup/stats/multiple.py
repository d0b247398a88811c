"""Many comparisons at once: adjusted p-values, and ranks as sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trueup.errors import UserError
from trueup.stats.verdicts import Verdict


class Bounded(Protocol):
    """Anything with confidence bounds: an ``Interval`` or an ``Effect``."""

    @property
    def low(self) -> float:
        """Lower bound."""
        ...

    @property
    def high(self) -> float:
        """Upper bound."""
        ...


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the given order: p < alpha keeps the chance of *any* false claim below alpha.

    For the declared family of contrasts. NaN (a test that could not be made) stays NaN but counts as a member of the
    family, so that a failed test cannot make the others look better. No p-values give an empty list.
    """
    return _adjusted(p_values, _holm)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's (1995) adjusted p-values: q < alpha keeps the expected *share* of false finds below alpha.

    For exploratory lists (prompts, slices) only, never for the verdicts of a study. NaN as in :func:`holm`.
    """
    return _adjusted(p_values, _benjamini_hochberg)


def rank_sets(
    names: Sequence[str], pairwise: Mapping[tuple[str, str], Verdict | Bounded]
) -> dict[str, tuple[int, int]]:
    """Best and worst rank that each arm may have, given what is known of the pairs; rank 1 is best.

    ``best = 1 + arms that are better``, ``worst = K - arms that are worse``, where better is what a pair says or what
    follows from several: a over b and b over c place a over c. If the pairwise statements hold together with 95 %
    confidence (Holm-adjusted verdicts, or intervals at level 1 - 0.05 / pairs), so do all rank sets. With nothing
    significant every arm has (1, K): there is no ranking.

    Args:
        names: the K arms.
        pairwise: for each pair, once, in either order: what holds of a against b as a verdict, or a simultaneous
            interval of a minus b, higher being better. Bounds of NaN and "equivalent" decide nothing.

    Returns:
        name -> (best, worst), in the order of ``names``.
    """
    below: dict[str, set[str]] = {name: set() for name in names}
    for first, second in itertools.combinations(names, 2):
        sign = _direction(first, second, pairwise)
        if sign:
            winner, loser = (first, second) if sign > 0 else (second, first)
            below[winner].add(loser)
    for middle in names:  # Warshall's transitive closure
        for name in names:
            if middle in below[name]:
                below[name] |= below[middle]
    above = {name: sum(name in losers for losers in below.values()) for name in names}
    return {name: (1 + above[name], len(names) - len(below[name])) for name in names}


def _direction(first: str, second: str, pairwise: Mapping[tuple[str, str], Verdict | Bounded]) -> int:
    """Return +1 if ``first`` is significantly better, -1 if worse, 0 if that is not known."""
    if (first, second) in pairwise:
        return _sign(pairwise[first, second])
    if (second, first) in pairwise:
        return -_sign(pairwise[second, first])
    raise UserError(f"arms '{first}' and '{second}' were not compared: rank sets need every pair")


def _sign(statement: Verdict | Bounded) -> int:
    if isinstance(statement, str):
        return {"better": 1, "worse": -1}.get(statement, 0)
    return int(statement.low > 0) - int(statement.high < 0)


def _adjusted(p_values: Sequence[float], adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> list[float]:
    """Apply ``adjust`` to the p-values with missing ones as 1, which no correction can make significant."""
    given = np.asarray(p_values, dtype=np.float64)
    if given.size == 0:
        return []
    missing = np.isnan(given)
    return np.where(missing, np.nan, adjust(np.where(missing, 1.0, given))).tolist()


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not statsmodels' multipletests: it runs a full garbage collection a call, 0.1 s and more beside a loaded model.
    order = np.argsort(p_values)
    stepwise = p_values[order] * np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepwise), 1.0)
    return adjusted


def _benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy import stats

    return np.asarray(stats.false_discovery_control(p_values))
