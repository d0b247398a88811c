from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.stats.calibration import expected_calibration_error, reliability

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def test_confidence_against_hits_by_hand() -> None:
    """Ten pairs at confidence 0.9, eight right; ten at 0.6, all right: gaps 0.1 and 0.4."""
    p = [0.9] * 8 + [0.1] * 2 + [0.6] * 10
    assert expected_calibration_error(p) == pytest.approx(0.25)
    assert [(b.confidence, b.accuracy, b.count) for b in reliability(p)] == [
        (pytest.approx(0.6), 1.0, 10),
        (pytest.approx(0.9), 0.8, 10),
    ]


def test_bins_divide_the_range_that_confidence_can_take() -> None:
    """Ten bins of 0.05 from 0.5 to 1, not ten of 0.1 of which half are empty: 0.81 and 0.88 are apart."""
    centres = np.arange(0.525, 1, 0.05)
    assert [b.count for b in reliability(centres)] == [1] * 10
    assert len(reliability([0.81, 0.88])) == 2 and len(reliability([0.81, 0.88], bins=5)) == 1


def test_always_certain_and_always_wrong_is_the_worst() -> None:
    assert expected_calibration_error([0.0] * 5) == 1
    assert expected_calibration_error([1.0] * 5) == 0


def test_a_tie_is_half_right() -> None:
    assert expected_calibration_error([0.5]) == 0


@given(probabilities)
def test_bins_hold_every_pair_once(p: list[float]) -> None:
    bins = reliability(p)
    assert sum(b.count for b in bins) == len(p)
    assert sum(b.accuracy * b.count for b in bins) == pytest.approx(sum((x > 0.5) + 0.5 * (x == 0.5) for x in p))
    assert sum(b.confidence * b.count for b in bins) == pytest.approx(sum(max(x, 1 - x) for x in p))
    # Within bins errors cancel, so the error is at least that of a single bin and never above 1.
    single = abs(sum(b.accuracy * b.count - b.confidence * b.count for b in bins)) / len(p)
    assert single - 1e-12 <= expected_calibration_error(p) <= 1


def test_a_judge_that_means_what_it_says_is_calibrated_and_a_bolder_one_is_not() -> None:
    rng = np.random.default_rng(0)
    gap = np.abs(rng.normal(0, 1.5, size=20_000))
    right = rng.random(gap.size) < 1 / (1 + np.exp(-gap))
    score = np.where(right, gap, -gap)
    assert expected_calibration_error(1 / (1 + np.exp(-score))) < 0.02
    assert expected_calibration_error(1 / (1 + np.exp(-3 * score))) > 0.1


def test_stated_answers_and_refusals() -> None:
    assert math.isnan(expected_calibration_error([])) and reliability([]) == []
    for wrong in (1.2, -0.1, math.nan):
        with pytest.raises(UserError, match="pair 1"):
            reliability([0.5, wrong])
