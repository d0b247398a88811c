from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from trueup.errors import UserError
from trueup.stats.intervals import Interval
from trueup.stats.multiple import benjamini_hochberg, holm, rank_sets
from trueup.stats.verdicts import Verdict

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(p_lists)
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    """Holm in words: go up the sorted p-values and stop at the first above alpha / (those left)."""
    for alpha in (0.01, 0.05, 0.3):
        rejected, left = set(), len(p_values)
        for index in np.argsort(p_values, kind="stable"):
            if p_values[index] * left > alpha:
                break
            rejected.add(int(index))
            left -= 1
        assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


@given(p_lists)
def test_benjamini_hochberg_equals_scipys(p_values: list[float]) -> None:
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))


def test_holm_equals_statsmodels_and_keeps_the_order_of_its_input() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    p_values = np.random.default_rng(0).random(50) ** 4
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_a_test_that_could_not_be_made_still_counts(adjust) -> None:
    adjusted = adjust([0.01, math.nan])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1])
    assert adjust([]) == []


def test_nothing_significant_means_no_ranking() -> None:
    pairs: dict[tuple[str, str], Verdict] = {
        ("a", "b"): "inconclusive",
        ("a", "c"): "equivalent",
        ("b", "c"): "inconclusive",
    }
    assert rank_sets(["a", "b", "c"], pairs) == {"a": (1, 3), "b": (1, 3), "c": (1, 3)}


def test_a_clear_winner_and_two_that_cannot_be_told_apart() -> None:
    pairs: dict[tuple[str, str], Verdict] = {("a", "b"): "worse", ("c", "b"): "worse", ("a", "c"): "inconclusive"}
    assert rank_sets(["a", "b", "c"], pairs) == {"a": (2, 3), "b": (1, 1), "c": (2, 3)}


def test_intervals_decide_when_they_leave_out_zero() -> None:
    pairs = {
        ("a", "b"): Interval(1, 0.5, 1.5, 10),
        ("c", "a"): Interval(0, -1, 1, 10),
        ("c", "b"): Interval(1, math.nan, math.nan, 1),
    }
    assert rank_sets(["a", "b", "c"], pairs) == {"a": (1, 2), "b": (2, 3), "c": (1, 3)}
    assert rank_sets(["a", "b"], {("a", "b"): Interval(-1, -1.5, -0.5, 10)}) == {"a": (2, 2), "b": (1, 1)}


@given(st.permutations(["a", "b", "c", "d"]), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_complete_order_gives_single_ranks_however_pairs_are_written(order: list[str], flips: list[bool]) -> None:
    pairs = {}
    written = [(x, y) for i, x in enumerate(order) for y in order[i + 1 :]]
    for (winner, loser), flip in zip(written, flips, strict=True):
        pairs[(loser, winner) if flip else (winner, loser)] = "worse" if flip else "better"
    assert rank_sets(sorted(order), pairs) == {name: (order.index(name) + 1,) * 2 for name in order}


def test_a_pair_that_was_not_compared_is_named() -> None:
    with pytest.raises(UserError, match="'a' and 'c'"):
        rank_sets(["a", "b", "c"], {("a", "b"): "better", ("b", "c"): "better"})


def test_what_follows_from_two_pairs_counts() -> None:
    pairs = {("a", "b"): "better", ("b", "c"): "better", ("a", "c"): "inconclusive"}
    assert rank_sets(["a", "b", "c"], pairs) == {"a": (1, 1), "b": (2, 2), "c": (3, 3)}
