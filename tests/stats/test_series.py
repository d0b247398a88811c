from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.stats.series import first_sustained, median_window, relative_change


@given(st.lists(st.one_of(st.floats(-100, 100), st.just(math.nan)), max_size=30), st.integers(1, 8))
def test_median_of_what_was_measured_in_the_last_steps(values: list[float], window: int) -> None:
    for step, found in enumerate(median_window(values, window)):
        measured = [v for v in values[max(0, step - window + 1) : step + 1] if not math.isnan(v)]
        expected = statistics.median(measured) if measured else math.nan
        assert found == pytest.approx(expected, nan_ok=True)


def test_median_window_ignores_a_spike_and_follows_a_step() -> None:
    assert median_window([1, 1, 99, 1, 1], 3).tolist() == [1, 1, 1, 1, 1]
    assert median_window([0, 0, 0, 4, 4, 4], 3).tolist() == [0, 0, 0, 0, 4, 4]
    assert median_window([], 3).size == 0


def test_relative_change_has_the_sign_of_the_change() -> None:
    assert relative_change([3.0, 1.0], 2.0).tolist() == [0.5, -0.5]
    assert relative_change([-3.0, -1.0], -2.0).tolist() == [-0.5, 0.5]
    assert float(relative_change(6.0, 4.0)) == 0.5


def test_relative_change_against_nothing() -> None:
    found = relative_change([1.0, 0.0, -2.0, math.nan], 0.0)
    assert found[:3].tolist() == [math.inf, 0.0, -math.inf] and math.isnan(found[3])
    assert np.isnan(relative_change([1.0], math.nan)).all()


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 6))
def test_first_sustained_is_where_a_run_begins(condition: list[bool], run: int) -> None:
    text = "".join("x" if held else "." for held in condition)
    found = text.find("x" * run)
    assert first_sustained(condition, run) == (None if found < 0 else found)


def test_a_window_of_no_steps_is_refused() -> None:
    with pytest.raises(UserError, match="window is 0"):
        median_window([1.0], 0)
    with pytest.raises(UserError, match="run is 0"):
        first_sustained([True], 0)
