from __future__ import annotations

import math

import numpy as np
import pytest

from trueup.stats.crossed import Effect, crossed_effect
from trueup.stats.verdicts import verdict


def effect(estimate: float, se: float) -> Effect:
    unused = math.nan
    return Effect(estimate, unused, unused, unused, se, 50, unused, unused, unused, 3, 100)


@pytest.mark.parametrize(
    ("estimate", "se", "p_adjusted", "expected"),
    [
        (1.0, 0.2, 0.001, "better"),
        (-1.0, 0.2, 0.001, "worse"),
        (1.0, 0.2, 0.06, "inconclusive"),
        (0.0, 0.1, 1.0, "equivalent"),
        (-0.3, 0.1, 0.06, "equivalent"),
        (0.0, 0.4, 1.0, "inconclusive"),
        # Certain and small: the direction is known, its size is printed beside it.
        (0.1, 0.01, 0.0001, "better"),
        (0.0, 0.0, 1.0, "equivalent"),
        (math.nan, math.nan, math.nan, "inconclusive"),
    ],
)
def test_ladder(estimate: float, se: float, p_adjusted: float, expected: str) -> None:
    assert verdict(effect(estimate, se), p_adjusted, margin=0.5) == expected


def test_without_a_declared_margin_nothing_is_equivalent() -> None:
    assert verdict(effect(0.0, 0.001), 1.0, margin=None) == "inconclusive"


def test_swapping_the_arms_swaps_better_and_worse() -> None:
    table = np.random.default_rng(0).normal(0.8, 1, size=(3, 100))
    forward, backward = crossed_effect(table), crossed_effect(-table)
    assert (verdict(forward, forward.p, 0.1), verdict(backward, backward.p, 0.1)) == ("better", "worse")


def test_an_arm_against_itself_is_seldom_anything() -> None:
    """The same method trained twice: at most 5 % of 400 studies, beyond chance (2.8 standard errors), name a winner."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        same = crossed_effect(rng.normal(0, 0.2, (3, 1)) + rng.normal(0, 1, (1, 100)) + rng.normal(0, 1, (3, 100)))
        found.append(verdict(same, same.p, margin=0.5))
    assert sum(word in ("better", "worse") for word in found) / 400 < 0.08
