from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from trueup.errors import UserError
from trueup.stats.crossed import MeanSquares, crossed_effect, mean_squares, mean_variance

tables = arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(2, 9)), elements=st.floats(-100, 100))


Table = NDArray[np.float64]


def draw(rng: np.random.Generator, shape: tuple[int, int], seed: float, prompt: float, rest: float) -> Table:
    """Draw a table with effect 0 and the given standard deviations."""
    rows, columns = shape
    parts = rng.normal(0, seed, (rows, 1)) + rng.normal(0, prompt, (1, columns))
    return parts + rng.normal(0, rest, shape)


def t_test(values: ArrayLike) -> tuple[float, float, float]:
    """Return p and the 95 % bounds of scipy's one-sample t test."""
    found = stats.ttest_1samp(values, 0)
    bounds = found.confidence_interval()
    return float(np.asarray(found)[1]), float(bounds.low), float(bounds.high)


def test_mean_squares_are_those_of_an_analysis_of_variance() -> None:
    table = draw(np.random.default_rng(0), (4, 7), 1, 2, 1)
    cells = {
        "y": table.ravel(),
        "seed": np.repeat(np.arange(4), 7),
        "prompt": np.tile(np.arange(7), 4),
    }
    fitted = anova_lm(ols("y ~ C(seed) + C(prompt)", data=cells).fit())
    assert astuple(mean_squares(table)) == pytest.approx(fitted["mean_sq"].to_numpy())


def test_components_are_recovered_from_a_large_table() -> None:
    effect = crossed_effect(3 + draw(np.random.default_rng(1), (200, 600), 0.5, 2, 1))
    found = [effect.seed_variance, effect.prompt_variance, effect.residual_variance]
    assert found == pytest.approx([0.25, 4, 1], rel=0.3)
    assert effect.low < 3 < effect.high


def test_a_shift_between_seeds_alone_is_a_t_test_on_the_seed_means() -> None:
    seeds = [0.2, 0.5, 1.1]
    effect = crossed_effect(np.repeat(np.array(seeds)[:, None], 50, axis=1))
    assert (effect.p, effect.low, effect.high) == pytest.approx(t_test(seeds))
    assert effect.df == pytest.approx(2)


def test_seeds_that_agree_leave_a_t_test_on_the_prompts() -> None:
    prompts = np.random.default_rng(2).normal(0.3, 1, size=40)
    effect = crossed_effect(np.tile(prompts, (4, 1)))
    assert (effect.p, effect.low, effect.high) == pytest.approx(t_test(prompts))
    found = [effect.df, effect.seed_variance, effect.prompt_variance]
    assert found == pytest.approx([39, 0, prompts.var(ddof=1)])


def test_one_seed_is_a_t_test_on_prompts_and_the_seed_variance_is_unknown() -> None:
    prompts = np.random.default_rng(3).normal(0.3, 1, size=16)
    effect = crossed_effect(prompts[None])
    assert (effect.p, effect.low, effect.high) == pytest.approx(t_test(prompts))
    assert math.isnan(effect.seed_variance) and math.isnan(effect.residual_variance)
    assert effect.prompt_variance == pytest.approx(prompts.var(ddof=1))
    one_prompt = crossed_effect(prompts[:, None])
    assert one_prompt.p == effect.p
    assert math.isnan(one_prompt.prompt_variance) and one_prompt.seed_variance == effect.prompt_variance


def test_swapping_the_arms_mirrors_the_effect() -> None:
    table = 1 + draw(np.random.default_rng(4), (3, 20), 0.3, 1, 1)
    one, other = crossed_effect(table), crossed_effect(-table)
    assert (other.estimate, other.low, other.high) == pytest.approx((-one.estimate, -one.high, -one.low))
    assert (other.p, other.se, other.df) == pytest.approx((one.p, one.se, one.df))


@given(tables)
def test_error_is_never_below_either_one_way_error(table: Table) -> None:
    effect = crossed_effect(table)
    for axis in (0, 1):
        means = table.mean(axis=axis)
        assert effect.se >= means.std(ddof=1) / math.sqrt(means.size) - 1e-9
    low, high = sorted(side - 1 for side in table.shape)
    assert low - 1e-9 <= effect.df <= high + 1e-9
    assert effect.low <= effect.estimate <= effect.high


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0.1, 10), st.integers(2, 9), st.integers(2, 99))
def test_expected_mean_squares_give_the_variance_of_the_mean(
    seed: float, prompt: float, rest: float, num_seeds: int, num_prompts: int
) -> None:
    expected = MeanSquares(rest + num_prompts * seed, rest + num_seeds * prompt, rest)
    variance, _ = mean_variance(expected, num_seeds, num_prompts)
    assert variance == pytest.approx(seed / num_seeds + prompt / num_prompts + rest / (num_seeds * num_prompts))


def test_a_pure_interaction_is_not_mistaken_for_certainty() -> None:
    """Both one-way variances are 0 here, and MS_seed + MS_prompt - MS_residual is below 0."""
    effect = crossed_effect([[1.0, -1.0], [-1.0, 1.0]])
    assert effect.se == pytest.approx(1.0) and effect.p == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 5)])
def test_equal_cells_have_a_stated_answer(shape: tuple[int, int]) -> None:
    zero, tenth = crossed_effect(np.zeros(shape)), crossed_effect(np.full(shape, 0.1))
    assert (zero.estimate, zero.low, zero.high, zero.p) == (0, 0, 0, 1)
    assert (tenth.estimate, tenth.low, tenth.high, tenth.p) == (0.1, 0.1, 0.1, 0)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (1, 1)])
def test_nothing_repeated_gives_no_bounds(shape: tuple[int, int]) -> None:
    effect = crossed_effect(np.ones(shape))
    assert np.isnan([effect.low, effect.high, effect.p, effect.se]).all()
    assert effect.df == 0 and (effect.num_seeds, effect.num_prompts) == shape


def test_a_missing_cell_is_not_left_out_in_silence() -> None:
    effect = crossed_effect([[1.0, math.nan, 2.0], [1.0, 0.0, 2.0]])
    numbers = [effect.estimate, effect.low, effect.high, effect.p, effect.seed_variance, effect.prompt_variance]
    assert np.isnan(numbers).all()


def test_a_list_is_refused() -> None:
    with pytest.raises(UserError, match="seeds x prompts"):
        crossed_effect([1.0, 2.0])


@pytest.mark.parametrize("num_prompts", [64, 300])
@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.2, 1.0])
def test_coverage_for_new_seeds_and_new_prompts(num_seeds: int, num_prompts: int, seed_sd: float) -> None:
    """One-way intervals do not: at S 3, N 300 those over prompts cover 18 % with seed_sd 1, those over seeds 84 % with
    seed_sd 0."""
    rng = np.random.default_rng(5)
    effects = [crossed_effect(draw(rng, (num_seeds, num_prompts), seed_sd, 1, 1)) for _ in range(2500)]
    covered = np.mean([effect.low <= 0 <= effect.high for effect in effects])
    assert 0.932 <= covered <= 0.982
    # The p-value belongs to the same interval.
    assert np.mean([effect.p < 0.05 for effect in effects]) == pytest.approx(1 - covered)
