from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from trueup.errors import UserError
from trueup.stats.crossed import crossed_effect
from trueup.stats.power import crossed_prompts_needed, prompts_needed, smallest_detectable

# Published figures of the protocol, from the formula with normal quantiles: sd -> n for effects 1, 0.5 and 0.25.
NORMAL_FIGURES = {2.2: (38, 152, 608), 2.7: (58, 229, 916), 5.3: (221, 882, 3528)}


@pytest.mark.parametrize("sd", NORMAL_FIGURES)
def test_needs_two_or_three_prompts_more_than_the_normal_formula(sd: float) -> None:
    for effect, published in zip((1, 0.5, 0.25), NORMAL_FIGURES[sd], strict=True):
        assert 1 <= prompts_needed(sd, effect) - published <= 3


@pytest.mark.parametrize("sd", NORMAL_FIGURES)
def test_six_comparisons_cost_about_half_as_much_again(sd: float) -> None:
    for effect, published in zip((1, 0.5, 0.25), NORMAL_FIGURES[sd], strict=True):
        assert prompts_needed(sd, effect, comparisons=6) / published == pytest.approx(1.54, abs=0.13)
    assert prompts_needed(100, 1, comparisons=6) == pytest.approx(12.1e4, rel=0.001)


def test_a_win_rate_of_55_percent_needs_about_785_prompts_without_ties() -> None:
    """A win is +0.5 and a loss -0.5 about the even rate: sd 0.5, effect 0.05."""
    assert prompts_needed(0.5, 0.05) == pytest.approx(785, abs=3)


@pytest.mark.parametrize(("n", "alpha", "power"), [(5, 0.05, 0.8), (16, 0.05, 0.8), (300, 0.01, 0.9), (64, 0.05, 0.5)])
def test_smallest_detectable_has_the_power_it_promises(n: int, alpha: float, power: float) -> None:
    effect = smallest_detectable(2.0, n, alpha, power)
    assert TTestPower().power(effect / 2, n, alpha) == pytest.approx(power, abs=1e-4)


@pytest.mark.parametrize("effect", [0.07, 0.4, 3.0, 50.0])
def test_prompts_needed_is_the_smallest_number_that_is_enough(effect: float) -> None:
    n = prompts_needed(1.0, effect, comparisons=3)
    assert smallest_detectable(1.0, int(n), comparisons=3) <= effect
    assert n == 2 or smallest_detectable(1.0, int(n) - 1, comparisons=3) > effect
    assert prompts_needed(1.0, -effect, comparisons=3) == n


def test_stated_answers_at_the_edges() -> None:
    assert prompts_needed(1.0, 0.0) == math.inf
    assert prompts_needed(0.0, 1.0) == 2
    assert math.isnan(prompts_needed(math.nan, 1.0))
    assert smallest_detectable(1.0, 1) == math.inf


def test_more_prompts_cannot_replace_seeds() -> None:
    """With 5 seeds and seed variance 1 the error never falls below sqrt(1/5), and t has 4 degrees of freedom."""
    needed = partial(crossed_prompts_needed, seed_variance=1, prompt_variance=1, residual_variance=1)
    floor = smallest_detectable(1.0, 5)
    assert needed(0.99 * floor, 5) == math.inf
    assert needed(1.05 * floor, 5) < math.inf
    assert needed(0.99 * floor, 10) < math.inf


def test_without_seed_and_residual_variance_seeds_do_not_matter() -> None:
    for num_seeds in (2, 5):
        needed = crossed_prompts_needed(0.5, num_seeds, seed_variance=0, prompt_variance=4, residual_variance=0)
        assert needed == prompts_needed(2.0, 0.5)


def test_unknown_components_give_no_plan() -> None:
    assert math.isnan(crossed_prompts_needed(0.5, 3, seed_variance=math.nan, prompt_variance=1, residual_variance=1))
    with pytest.raises(UserError, match="one seed"):
        crossed_prompts_needed(0.5, 1, seed_variance=0.1, prompt_variance=1, residual_variance=1)


def test_a_planned_crossed_study_finds_its_effect_as_often_as_planned() -> None:
    rng = np.random.default_rng(0)
    n = int(crossed_prompts_needed(0.4, 5, seed_variance=0.02, prompt_variance=1, residual_variance=1))
    tables = (
        0.4 + rng.normal(0, math.sqrt(0.02), (5, 1)) + rng.normal(size=(1, n)) + rng.normal(size=(5, n))
        for _ in range(2000)
    )
    assert np.mean([crossed_effect(table).p < 0.05 for table in tables]) == pytest.approx(0.8, abs=0.05)
