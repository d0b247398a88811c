"""The intervals of an audit, against brute force, against the formulas they contain, and by how often they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trueup.data.audit_stats import as_dict, cliffs_delta, gap, share
from trueup.stats.intervals import clustered_mean_interval, wilson

NUMBERS = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def test_for_pairs_the_gap_is_the_clustered_interval_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    first, second, groups = rng.normal(size=60), rng.normal(size=60), rng.integers(0, 9, 60)
    found, expected = gap(first, groups, second, groups), clustered_mean_interval(first - second, groups)
    assert (found.estimate, found.low, found.high) == pytest.approx((expected.estimate, expected.low, expected.high))
    assert found.n == expected.n


def test_for_independent_values_the_gap_is_near_welch() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 400), rng.normal(0.5, 3, 250)
    found = gap(first, np.arange(400), second, np.arange(400, 650))
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), rel=0.01)


def test_values_that_agree_within_prompts_are_not_taken_for_independent() -> None:
    """200 prompts, five copies each: the interval must be that of 200 values, not of 1,000."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=200), rng.normal(size=200)
    once = gap(first, np.arange(200), second, np.arange(200))
    copies = [np.repeat(values, 5) for values in (first, np.arange(200), second, np.arange(200))]
    assert gap(*copies).low == pytest.approx(once.low, rel=1e-9)


@given(NUMBERS, NUMBERS)
def test_cliffs_delta_is_the_share_of_wins_less_that_of_losses(first: list[int], second: list[int]) -> None:
    wins = [np.sign(a - b) for a in first for b in second]
    groups = np.arange(len(first)), np.arange(len(first), len(first) + len(second))
    found = cliffs_delta(first, groups[0], second, groups[1])
    assert found.estimate == pytest.approx(np.mean(wins), abs=1e-12)
    other = cliffs_delta(second, groups[1], first, groups[0])
    assert other.estimate == pytest.approx(-found.estimate, abs=1e-12)
    assert other.high == pytest.approx(-found.low, nan_ok=True, abs=1e-9)


def test_the_interval_of_cliffs_delta_covers() -> None:
    """Normal values a standard deviation apart in mean: delta is 2 Phi(1 / sqrt 2) - 1 whatever the sample."""
    rng, truth, hits = np.random.default_rng(3), 2 * stats.norm.cdf(1 / math.sqrt(2)) - 1, 0
    for _ in range(300):
        first, second = rng.normal(1, 1, 60), rng.normal(0, 1, 40)
        found = cliffs_delta(first, np.arange(60), second, np.arange(60, 100))
        hits += found.low <= truth <= found.high
    assert 0.91 < hits / 300 < 0.985


def test_a_share_is_wilsons_for_prompts_of_their_own_and_clustered_for_shared_ones() -> None:
    hits = [1, 0, 0.5, 1, 1, 0]
    alone = share(hits, np.arange(6))
    assert (alone.low, alone.high) == (wilson(3.5, 6).low, wilson(3.5, 6).high)
    shared = share([1, 1, 1, 0, 0, 0], np.array([0, 0, 0, 1, 1, 1]))
    assert (shared.estimate, shared.low, shared.high, shared.n) == (0.5, 0.0, 1.0, 2)


def test_nothing_on_one_side_is_no_answer_and_json_has_no_nan() -> None:
    none = np.array([], dtype=np.int64)
    for found in (gap([], none, [1.0], np.array([0])), cliffs_delta([], none, [1.0], np.array([0]))):
        assert as_dict(found) == {"estimate": None, "low": None, "high": None, "n": 0}
