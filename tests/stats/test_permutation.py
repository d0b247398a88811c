from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from trueup.errors import UserError
from trueup.stats.permutation import EXACT_LIMIT, mcnemar, sign_flip, sign_test


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_exact_answer_is_the_share_of_patterns_at_least_as_extreme(differences: list[int]) -> None:
    """Whole numbers make many sums equal: a strict comparison, or rounding, would change the count."""
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=len(differences))]
    expected = np.mean([s >= abs(sum(differences)) for s in sums])
    assert sign_flip(np.array(differences) * 0.1) == pytest.approx(expected)


def test_exact_answer_equals_scipys_permutation_test() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, size=13)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**13)
    assert sign_flip(differences) == pytest.approx(expected.pvalue)


def test_all_of_one_sign_is_the_smallest_p_there_is() -> None:
    assert sign_flip([0.3] * 20) == 2 / 2**20
    assert sign_flip(np.linspace(1, 2, EXACT_LIMIT)) == 2 / 2**EXACT_LIMIT


@settings(max_examples=20)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.integers(0, 5))
def test_ties_change_nothing_and_neither_do_unit_and_direction(differences: list[float], ties: int) -> None:
    p = sign_flip(differences)
    assert sign_flip(differences + [0.0] * ties) == p
    assert sign_flip([-1.0 * d for d in differences]) == pytest.approx(p)


def test_many_ties_do_not_make_the_answer_inexact() -> None:
    assert sign_flip([0.3] * 10 + [0.0] * 100) == 2 / 2**10


def test_many_values_are_sampled_and_agree_with_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.12, 1, size=300)
    assert sign_flip(differences) == pytest.approx(stats.ttest_1samp(differences, 0)[1], abs=0.005)
    assert sign_flip(differences) == sign_flip(differences, seed=0) != sign_flip(differences, seed=1)


def test_a_sampled_p_is_never_zero() -> None:
    assert sign_flip(np.ones(40), resamples=999) == pytest.approx(1 / 1000)


def test_sampling_does_not_hold_all_patterns_at_once() -> None:
    """4,000 values x 5,000 patterns would be 160 MB; the answer must not depend on where chunks end."""
    differences = np.random.default_rng(2).normal(0.02, 1, size=4000)
    assert sign_flip(differences, resamples=5000) == pytest.approx(stats.ttest_1samp(differences, 0)[1], abs=0.03)


def test_stated_answers_without_information() -> None:
    assert sign_flip([]) == sign_flip([0.0, 0.0]) == sign_flip([1.0, -1.0]) == 1
    assert math.isnan(sign_flip([1.0, math.nan]))
    with pytest.raises(UserError, match="shape"):
        sign_flip([[1.0, 2.0]])


@pytest.mark.parametrize(("b", "c"), [(2, 14), (5, 5), (0, 9), (40, 61)])
def test_mcnemar_is_the_exact_test_of_statsmodels(b: int, c: int) -> None:
    expected = vars(statsmodels_mcnemar([[7, b], [c, 3]], exact=True))
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected["pvalue"])


def test_sign_test_is_twice_the_binomial_tail() -> None:
    assert sign_test(2, 14) == pytest.approx(2 * (1 + 16 + 120) / 2**16)
    assert sign_test(8, 8) == sign_test(0, 0) == 1


def test_sign_flip_keeps_its_level_under_heavy_tails() -> None:
    """Symmetric heavy tails: the share of p < 0.05 must not exceed 5 % beyond chance (2.6 standard errors)."""
    rng = np.random.default_rng(3)
    found = [sign_flip(rng.standard_cauchy(14)) < 0.05 for _ in range(1500)]
    assert np.mean(found) < 0.065
