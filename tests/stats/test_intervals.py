from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS

from trueup.errors import UserError
from trueup.stats.intervals import Interval, bca, clustered_mean_interval, mean_interval, wilson

# The spatial test of 26 children used throughout Efron & Tibshirani (1993), test A.
SPATIAL_TEST = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]

finite = st.floats(-1e3, 1e3)


def bounds(interval: Interval) -> list[float]:
    return [interval.estimate, interval.low, interval.high]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_mean_interval_is_the_inversion_of_the_one_sample_t_test(level: float) -> None:
    values = np.random.default_rng(0).normal(2, 3, size=16)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert bounds(mean_interval(values, level)) == pytest.approx([values.mean(), expected.low, expected.high])


@given(st.lists(finite, min_size=2, max_size=30), st.floats(0.1, 10), finite)
def test_mean_interval_follows_a_change_of_unit(values: list[float], scale: float, shift: float) -> None:
    moved = mean_interval([shift - scale * v for v in values])
    original = mean_interval(values)
    expected = [shift - scale * v for v in (original.estimate, original.high, original.low)]
    assert bounds(moved) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("function", [mean_interval, bca, lambda x: clustered_mean_interval(x, range(len(x)))])
def test_stated_answers_for_none_one_and_equal_values(function) -> None:
    assert np.isnan(bounds(function([]))).all() and function([]).n == 0
    one = function([3.0])
    assert one.estimate == 3 and math.isnan(one.low) and math.isnan(one.high) and one.n == 1
    # 0.1 has no exact binary form: the mean of three of them differs from it by rounding.
    same = function([0.1, 0.1, 0.1])
    assert same.low == same.estimate == same.high == pytest.approx(0.1)
    assert np.isnan(bounds(function([1.0, math.nan, 2.0]))).all()


def test_a_table_and_a_level_in_percent_are_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(2, 2\)"):
        mean_interval([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(UserError, match="95"):
        mean_interval([1.0, 2.0], level=95)


def test_clustered_interval_equals_the_sandwich_estimator_of_a_regression_on_a_constant() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, size=50)
    values = rng.normal(size=7)[labels] + rng.normal(size=50)
    fitted = OLS(values, np.ones(50)).fit(cov_type="cluster", cov_kwds={"groups": labels}, use_t=True)
    ours = clustered_mean_interval(values, labels, level=0.9)
    assert [ours.low, ours.high] == pytest.approx(fitted.conf_int(0.1)[0])
    assert ours.n == 7


def test_copies_within_a_cluster_add_no_information() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    copied = clustered_mean_interval(np.repeat(values, 5), np.repeat(["a", "b", "c", "d"], 5))
    assert bounds(copied) == pytest.approx(bounds(mean_interval(values)))


def test_one_cluster_says_nothing_of_the_spread_between_clusters() -> None:
    interval = clustered_mean_interval([1.0, 2.0, 3.0], ["t", "t", "t"])
    assert interval.estimate == 2 and math.isnan(interval.low) and interval.n == 1
    with pytest.raises(UserError, match="3 values"):
        clustered_mean_interval([1.0, 2.0, 3.0], ["t", "t"])


@given(st.integers(1, 400), st.data())
def test_wilson_bounds_are_where_the_score_test_just_rejects(n: int, data: st.DataObject) -> None:
    wins = data.draw(st.integers(0, 2 * n)) / 2
    interval = wilson(wins, n)
    assert -1e-12 < interval.low <= interval.estimate + 1e-12 and interval.estimate - 1e-12 <= interval.high < 1 + 1e-12
    for bound in (interval.low, interval.high):
        error = math.sqrt(bound * (1 - bound) / n)
        assert abs(wins / n - bound) == pytest.approx(1.959964 * error, rel=1e-5, abs=1e-7)


def test_wilson_without_trials_and_with_impossible_counts() -> None:
    assert np.isnan(bounds(wilson(0, 0))).all()
    for impossible in (-1, 6, math.nan):
        with pytest.raises(UserError, match="not a rate"):
            wilson(impossible, 5)


def test_bca_gives_the_published_interval_of_the_spatial_test_variance() -> None:
    """Efron & Tibshirani (1993), table 14.2: 90 % BCa (115.8, 259.6) from 2,000 samples; the percentile interval is
    (100.8, 233.9)."""
    interval = bca(SPATIAL_TEST, np.var, level=0.9, resamples=20_000)
    assert interval.estimate == pytest.approx(171.5, abs=0.05)
    assert [interval.low, interval.high] == pytest.approx([115.8, 259.6], abs=4)


def test_bca_depends_on_its_seed_alone() -> None:
    assert bca(SPATIAL_TEST, resamples=500) == bca(SPATIAL_TEST, resamples=500)
    assert bca(SPATIAL_TEST, resamples=500) != bca(SPATIAL_TEST, resamples=500, seed=1)


def test_bca_takes_a_statistic_that_knows_no_axis() -> None:
    by_hand = bca(SPATIAL_TEST, lambda sample: float(sum(sample) / len(sample)), resamples=500)
    assert bounds(by_hand) == pytest.approx(bounds(bca(SPATIAL_TEST, np.mean, resamples=500)))
