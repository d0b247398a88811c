from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from trueup.errors import UserError
from trueup.stats.equivalence import tost
from trueup.stats.intervals import mean_and_error, t_bounds


def test_equals_statsmodels_two_one_sided_tests() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, size=40)
    for margin in (0.2, 0.5, 1.0):
        expected, *_ = DescrStatsW(values).ttost_mean(-margin, margin)
        assert tost(*mean_and_error(values), margin) == pytest.approx(expected)


@given(st.floats(-2, 2), st.floats(0.01, 2), st.integers(1, 300), st.floats(0.05, 3))
def test_rejects_exactly_when_the_ninety_percent_interval_is_inside(
    estimate: float, se: float, df: int, margin: float
) -> None:
    low, high = t_bounds(estimate, se, df, level=0.9)
    assert (tost(estimate, se, df, margin) < 0.05) == (-margin < low and high < margin)


def test_stated_answers() -> None:
    assert tost(0.1, 0.0, 9, 0.5) == 0 and tost(0.5, 0.0, 9, 0.5) == 1
    assert math.isnan(tost(0.1, math.nan, 0, 0.5))
    for margin in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="margin"):
            tost(0.1, 0.1, 9, margin)
