from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trueup.errors import UserError
from trueup.stats.association import auc, spearman, standardised_difference, within_group_spearman

numbers = st.lists(st.integers(-5, 5), min_size=1, max_size=15)


def test_spearman_without_ties_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.permutation(12), rng.permutation(12)
    distance = np.sum((first - second) ** 2)
    assert spearman(first, second) == pytest.approx(1 - 6 * distance / (12 * (12**2 - 1)))


def test_spearman_sees_order_only() -> None:
    x = np.array([1.0, 2.0, 5.0, 3.0, 9.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)


def test_stated_answers_of_correlations() -> None:
    for first, second in (([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, math.nan], [1.0, 2.0])):
        assert math.isnan(spearman(first, second))
        assert math.isnan(within_group_spearman(first, second, ["g"] * len(first)))
    with pytest.raises(UserError, match="same length"):
        spearman([1.0], [1.0, 2.0])
    with pytest.raises(UserError, match="group labels"):
        within_group_spearman([1.0, 2.0], [1.0, 2.0], ["g"])


def test_a_correlation_between_groups_is_not_one_within_them() -> None:
    """Prompts that call for length are scored high; within a prompt the shorter answer wins. Groups are interleaved."""
    length = np.array([1, 11, 2, 12, 3, 13])
    score = np.array([3, 13, 2, 12, 1, 11])
    assert spearman(score, length) > 0.4
    assert within_group_spearman(score, length, ["a", "b"] * 3) == pytest.approx(-1)


def test_groups_weigh_by_their_size_and_silent_groups_not_at_all() -> None:
    score = [1, 2, 3, 2, 1, 5, 5, 7]
    length = [1, 2, 3, 1, 2, 1, 9, 4]
    group = ["up", "up", "up", "down", "down", "equal scores", "equal scores", "alone"]
    assert within_group_spearman(score, length, group) == pytest.approx((2 * 1 + 1 * -1) / 3)


def test_standardised_difference_is_the_t_statistic_without_the_sample_size() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(1, 1, size=25), rng.normal(size=25)
    expected = stats.ttest_rel(first, second).statistic / 5
    assert standardised_difference(first, second) == pytest.approx(expected)
    assert standardised_difference(second, first) == pytest.approx(-expected)


def test_standardised_difference_of_equal_differences() -> None:
    assert standardised_difference([2.0, 3.0], [1.0, 2.0]) == math.inf
    assert standardised_difference([0.0, 1.0], [1.0, 2.0]) == -math.inf
    assert standardised_difference([1.0, 2.0], [1.0, 2.0]) == 0
    assert math.isnan(standardised_difference([1.0], [2.0]))


@given(numbers, numbers)
def test_auc_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(np.mean(pairs))


def test_auc_without_a_side_or_with_an_unknown_value() -> None:
    assert math.isnan(auc([], [1.0])) and math.isnan(auc([1.0], [])) and math.isnan(auc([1.0, math.nan], [0.0]))
