"""The best of n draws: estimated from N as every subset would have it, and within the bound of its KL."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.stats.best_of_n import best_of_n, kl_bound

REWARDS = st.lists(st.integers(-2, 2), min_size=1, max_size=6)
"""Few values, so that ties are common."""


def by_listing(rewards: list[int], values: list[int], n: int) -> float:
    """The mean over all subsets of n draws of the mean value of its best draws."""
    total, subsets = Fraction(0), list(itertools.combinations(range(len(rewards)), n))
    for subset in subsets:
        top = max(rewards[i] for i in subset)
        best = [values[i] for i in subset if rewards[i] == top]
        total += Fraction(sum(best), len(best))
    return float(total / len(subsets))


@given(REWARDS, st.randoms())
def test_it_is_the_mean_over_all_subsets_whatever_is_tied(rewards: list[int], rng: object) -> None:
    values = [rng.randint(0, 9) for _ in rewards]  # type: ignore[attr-defined]
    expected = [by_listing(rewards, values, n) for n in range(1, len(rewards) + 1)]
    assert best_of_n(rewards, values) == pytest.approx(expected, abs=1e-12)
    alone = [by_listing(rewards, rewards, n) for n in range(1, len(rewards) + 1)]
    assert best_of_n(rewards) == pytest.approx(alone, abs=1e-12)


def exact(outcomes: list[tuple[float, int, int]], n: int) -> float:
    """E[value of the best of n independent draws] for outcomes (probability, reward, value), by listing all draws."""
    total = 0.0
    for drawn in itertools.product(outcomes, repeat=n):
        top = max(reward for _, reward, _ in drawn)
        best = [value for _, reward, value in drawn if reward == top]
        total += math.prod(p for p, _, _ in drawn) * sum(best) / len(best)
    return total


OUTCOMES = [(0.6, 0, 0), (0.25, 1, 6), (0.1, 1, 2), (0.05, 2, -10)]
"""The reward and what is of value part ways at the top, and two outcomes tie."""


def test_it_is_unbiased() -> None:
    """The expectation over all samples of four draws is that of the best of n, for every n up to four."""
    mean = np.zeros(4)
    for drawn in itertools.product(OUTCOMES, repeat=4):
        chance = math.prod(p for p, _, _ in drawn)
        mean += chance * best_of_n([r for _, r, _ in drawn], [v for _, _, v in drawn])
    assert mean == pytest.approx([exact(OUTCOMES, n) for n in range(1, 5)], abs=1e-12)
    assert np.argmax(mean) not in (0, 3), "here the true value rises and then falls with n: what the curve is for"


@given(REWARDS, st.randoms())
def test_the_order_of_the_draws_means_nothing(rewards: list[int], rng: object) -> None:
    values = list(range(len(rewards)))
    mixed = list(zip(rewards, values, strict=True))
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    again = best_of_n([r for r, _ in mixed], [v for _, v in mixed])
    assert again == pytest.approx(best_of_n(rewards, values), abs=1e-12)


def test_rows_are_estimated_apart_and_many_draws_stay_finite() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(3, 2000)), rng.normal(size=(3, 2000))
    found = best_of_n(rewards, values)
    assert found.shape == (3, 2000) and np.isfinite(found).all()
    assert found[1] == pytest.approx(best_of_n(rewards[1], values[1]))
    assert found[:, -1] == pytest.approx(values[np.arange(3), rewards.argmax(axis=1)])
    assert (np.diff(best_of_n(rewards), axis=1) > -1e-12).all(), "more draws never lower the best reward"


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(UserError, match="NaN"):
        best_of_n([1.0, math.nan])
    with pytest.raises(UserError, match="shape"):
        best_of_n([1.0, 2.0], [1.0])
    with pytest.raises(UserError, match="at least 1"):
        kl_bound(0)


def kl_of_the_best(chances: list[float], rewards: list[int], n: int) -> float:
    """Exact KL(best of n, one draw), ties broken evenly among the n draws."""
    p, r = np.array(chances), np.array(rewards)
    below, up_to = (np.array([p[compare(r, x)].sum() for x in r]) for compare in (np.less, np.less_equal))
    level = np.array([p[r == x].sum() for x in r])
    best = (up_to**n - below**n) * p / level
    assert best.sum() == pytest.approx(1)
    return float((best * np.log(best / p)).sum())


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 4)), min_size=2, max_size=8), st.integers(1, 20))
def test_the_kl_is_at_most_the_bound(outcomes: list[tuple[float, int]], n: int) -> None:
    total = sum(weight for weight, _ in outcomes)
    found = kl_of_the_best([weight / total for weight, _ in outcomes], [reward for _, reward in outcomes], n)
    assert -1e-12 <= found <= kl_bound(n) + 1e-12


def test_the_bound_is_approached_where_nothing_repeats_and_far_where_much_does() -> None:
    assert kl_of_the_best([1 / 4000] * 4000, list(range(4000)), 4) == pytest.approx(kl_bound(4), rel=1e-2)
    assert kl_of_the_best([0.5, 0.5], [0, 1], 16) == pytest.approx(math.log(2), rel=1e-3)
    assert kl_bound(16) > 1.8
    assert kl_bound(1) == 0
