"""Effects of designed experiments: closed forms, an independent fit, coverage, and designs that cannot answer."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trueup.errors import UserError
from trueup.stats.factorial import against_first, between, factorial_effects

FULL = np.array(list(product((0, 1), repeat=3)))
NAMES = ("a", "b", "c")


def test_main_effects_and_interactions_of_a_known_surface_come_back_exactly() -> None:
    a, b, c = FULL.T
    values = 1 + 2 * a - 3 * b + 4 * a * b
    found = {e.name: e.estimate for e in factorial_effects(FULL, values, NAMES)}
    # Averaged over b, turning a on adds 2 + 4/2; with b on it adds 6, off 2: half the difference is 2.
    assert found == pytest.approx({"a": 4, "b": -1, "c": 0, "a x b": 2, "a x c": 0, "b x c": 0}, abs=1e-12)
    assert np.ptp(c) == 1


def test_an_effect_is_the_difference_of_two_means_and_its_error_pooled_from_replicates() -> None:
    rng = np.random.default_rng(0)
    settings = np.repeat(FULL[:, :2][::2], 5, axis=0)  # 2 x 2 cells, 5 replicates each
    values = rng.normal(size=len(settings))
    effect = factorial_effects(settings, values, ("a", "b"))[0]
    on = settings[:, 0] == 1
    cells = [values[(settings == cell).all(axis=1)] for cell in np.unique(settings, axis=0)]
    pooled = sum(((cell - cell.mean()) ** 2).sum() for cell in cells) / (len(values) - 4)
    se = math.sqrt(pooled * 4 / len(values))
    half = stats.t.ppf(0.975, len(values) - 4) * se
    assert effect.estimate == pytest.approx(values[on].mean() - values[~on].mean())
    assert (effect.low, effect.high) == pytest.approx((effect.estimate - half, effect.estimate + half))
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(effect.estimate) / se, len(values) - 4))


def test_blocks_are_no_error() -> None:
    rng = np.random.default_rng(1)
    settings, blocks = np.tile(FULL, (3, 1)), np.repeat([7, 8, 9], 8)
    noise = rng.normal(size=24)
    plain, shifted = (
        factorial_effects(settings, noise + shift, NAMES, blocks) for shift in (0.0, np.repeat([0.0, 50.0, -900.0], 8))
    )
    for one, other in zip(plain, shifted, strict=True):
        assert (one.estimate, one.se) == pytest.approx((other.estimate, other.se))
    assert plain[0].df == 24 - 3 - 6


@pytest.mark.parametrize(("noise", "seeds"), [("normal", 3), ("normal", 2), ("laplace", 3)])
def test_coverage_of_a_replicated_factorial(noise: str, seeds: int) -> None:
    rng = np.random.default_rng(2)
    settings, blocks = np.tile(FULL[::2, :2], (seeds, 1)), np.repeat(np.arange(seeds), 4)
    draw = {"normal": rng.normal, "laplace": rng.laplace}[noise]
    hits = 0
    for _ in range(300):
        values = 0.7 * settings[:, 0] + 5 * rng.normal(size=seeds)[blocks] + draw(size=len(blocks))
        effects = factorial_effects(settings, values, ("a", "b"), blocks)
        hits += sum(e.low <= truth <= e.high for e, truth in zip(effects, (0.7, 0, 0), strict=True))
    assert 0.925 <= hits / 900 <= 0.985


def test_coverage_against_the_first_arm() -> None:
    rng = np.random.default_rng(3)
    truth, hits = np.array([0.0, 1.0, -0.5, 0.0]), 0
    for _ in range(600):
        table = truth + 4 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 4))
        effects = against_first(table, ("base", "x", "y", "z"))
        hits += sum(e.low <= t <= e.high for e, t in zip(effects, truth[1:], strict=True))
    assert 0.93 <= hits / 1800 <= 0.97


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 10_000))
def test_against_the_first_is_the_fit_of_blocks_and_arms(seeds: int, arms: int, seed: int) -> None:
    """An independent route: least squares on indicator columns."""
    table = np.random.default_rng(seed).normal(size=(seeds, arms))
    names = [f"arm{i}" for i in range(arms)]
    rows = [(s, a) for s in range(seeds) for a in range(arms)]
    design = np.array([[s == i for i in range(seeds)] + [a == j for j in range(1, arms)] for s, a in rows], float)
    values = np.array([table[s, a] for s, a in rows])
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ values
    df = (seeds - 1) * (arms - 1)
    variance = ((values - design @ fitted) ** 2).sum() / df
    for j, effect in enumerate(against_first(table, names)):
        error = math.sqrt(variance * inverse[seeds + j, seeds + j])
        assert effect.df == df
        assert (effect.estimate, effect.se) == pytest.approx((fitted[seeds + j], error), abs=1e-9)


def test_between_two_arms_is_the_difference_of_their_effects() -> None:
    table = np.random.default_rng(5).normal(size=(3, 4))
    names = ("base", "x", "y", "z")
    x, _, z = against_first(table, names)
    gap = between(table, names, "z", "x")
    assert gap.estimate == pytest.approx(z.estimate - x.estimate)
    assert (gap.se, gap.df) == (x.se, x.df)


def test_without_repetition_there_is_an_estimate_and_no_interval() -> None:
    (effect,) = against_first([[1.0, 3.0]], ("base", "x"))
    assert effect.estimate == 2 and math.isnan(effect.low) and math.isnan(effect.p)
    saturated = factorial_effects(FULL[::2, :2], [1.0, 2.0, 3.0, 5.0], ("a", "b"))
    assert all(math.isnan(e.high) for e in saturated)
    assert saturated[0].estimate == pytest.approx(2.5)


def test_a_half_fraction_names_what_it_cannot_tell_apart() -> None:
    half = FULL[(FULL.sum(axis=1) % 2) == 1]  # c = a x b: main effects are aliased with two-way interactions
    with pytest.raises(UserError, match="'a x b' from 'c'"):
        factorial_effects(half, np.arange(4.0), NAMES)
    with pytest.raises(UserError, match="'b' from"):
        factorial_effects([[0, 1], [1, 1], [0, 1]], [1.0, 2.0, 3.0], ("a", "b"))


def test_a_fraction_of_resolution_five_gives_the_effects_of_the_full_design() -> None:
    full = np.array(list(product((0, 1), repeat=5)))
    fraction = full[full.sum(axis=1) % 2 == 1]
    surface = lambda x: 3 * x[:, 0] - x[:, 4] + 2 * x[:, 1] * x[:, 3]  # noqa: E731
    names = tuple("abcde")
    some = factorial_effects(fraction, surface(fraction), names)
    every = factorial_effects(full, surface(full), names)
    assert [e.estimate for e in some] == pytest.approx([e.estimate for e in every], abs=1e-9)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="shape"):
        factorial_effects([[0, 2]], [1.0], ("a", "b"))
    with pytest.raises(UserError, match="table"):
        against_first([1.0, 2.0], ("a", "b"))
