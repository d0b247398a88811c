"""Elementary functions, f-divergences and weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trueup.errors import UserError
from trueup.losses.elementary import PROBABILITY_GAP, log_odds, per_token
from trueup.losses.implicit import DIVERGENCES, with_divergence
from trueup.losses.preference import sigmoid
from trueup.losses.weighting import wpo_weights
from trueup.types import PairLogps

GRID = torch.linspace(-6.0, 6.0, 49, dtype=torch.float64)


def pairs_of(chosen: Tensor, rejected: Tensor, counts: tuple[int, int] = (4, 2)) -> PairLogps:
    """Pairs against a reference of log-probability -10 on both sides."""
    reference = torch.full_like(chosen, -10.0)
    w, l = (torch.full(chosen.shape, count) for count in counts)  # noqa: E741
    return PairLogps(chosen, rejected, w, l, reference, reference)


# The generators f(u) of the paper's Table 1, with alpha = 0.3; f' must follow from them.
GENERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda u: u * u.log(),
    "forward_kl": lambda u: -u.log(),
    "js": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
    "alpha": lambda u: (u ** (1 - 0.3) - (1 - 0.3) * u - 0.3) / (0.3 * (0.3 - 1)),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_rewards_are_the_derivative_of_the_divergence(name: str) -> None:
    f = GENERATORS[name]

    def slope(u: Tensor) -> Tensor:
        step = 1e-6 * u
        return (f(u + step) - f(u - step)) / (2 * step)

    options = {"alpha": 0.3} if name == "alpha" else {}
    reward = DIVERGENCES[name](GRID, **options)
    torch.testing.assert_close(reward, slope(GRID.exp()) - slope(torch.ones_like(GRID)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_of_the_rewards_are_their_derivatives(name: str) -> None:
    assert torch.autograd.gradcheck(DIVERGENCES[name], (GRID.clone().requires_grad_(),))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_rewards_rise_with_the_ratio_and_vanish_at_the_reference(name: str) -> None:
    ratio = torch.linspace(-1e4, 1e4, 2001, dtype=torch.float64, requires_grad=True)
    reward = DIVERGENCES[name](ratio)
    (slope,) = torch.autograd.grad(reward.sum(), ratio)
    assert reward.isfinite().all() and (reward.diff() >= 0).all()
    assert (slope >= 0).all() and (slope[ratio < 0] > 0).all()
    assert reward[1000].abs().item() < 1e-15


def test_alpha_lies_between_the_two_kl_divergences() -> None:
    close_to = {1e-7: "reverse_kl", 1 - 1e-7: "forward_kl"}
    for alpha, name in close_to.items():
        torch.testing.assert_close(
            DIVERGENCES["alpha"](GRID, alpha=alpha), DIVERGENCES[name](GRID), rtol=1e-5, atol=1e-5
        )


def test_reverse_kl_is_plain_dpo_and_all_start_at_log_2() -> None:
    pairs = pairs_of(GRID - 10, -GRID.flip(0) * 0.3 - 10)
    torch.testing.assert_close(sigmoid(with_divergence(pairs, "reverse_kl"), beta=0.3), sigmoid(pairs, beta=0.3))
    same = pairs_of(torch.full((2,), -10.0), torch.full((2,), -10.0))
    for name in DIVERGENCES:
        assert sigmoid(with_divergence(same, name), beta=0.3).tolist() == pytest.approx([math.log(2)] * 2)


def test_unknown_divergences_and_idle_options_are_refused() -> None:
    pairs = pairs_of(GRID, GRID)
    with pytest.raises(UserError, match="did you mean 'forward_kl'"):
        with_divergence(pairs, "foward_kl")
    with pytest.raises(UserError, match="no option alpha"):
        with_divergence(pairs, "js", alpha=0.3)
    with pytest.raises(UserError, match="alpha is 1"):
        with_divergence(pairs, "alpha", alpha=1.0)


def test_log_odds_in_probabilities() -> None:
    p = [1e-30, 0.01, 0.5, 0.9, 0.999]
    logp = torch.tensor([math.log(x) for x in p], dtype=torch.float64)
    assert log_odds(logp).tolist() == pytest.approx([math.log(x / (1 - x)) for x in p], abs=1e-12)
    assert log_odds(torch.zeros(1)).item() == pytest.approx(-math.log(PROBABILITY_GAP), rel=1e-4)


def test_an_empty_response_has_mean_zero() -> None:
    assert per_token(torch.tensor([0.0, -6.0]), torch.tensor([0, 3])).tolist() == [0.0, -2.0]


def test_wpo_weight_is_the_product_of_the_mean_token_probabilities() -> None:
    chosen = torch.tensor([2 * math.log(0.5) + 2 * math.log(0.125)], requires_grad=True)
    weights = wpo_weights(pairs_of(chosen, torch.tensor([2 * math.log(0.3)])))
    assert weights.item() == pytest.approx(0.25 * 0.3)
    assert not weights.requires_grad


def test_wpo_weight_of_an_aligned_uniform_policy_is_one() -> None:
    # Each of V tokens has probability 1/V, and the sum of squares is 1/V.
    entropy = math.log(50.0)
    pairs = pairs_of(torch.tensor([-4 * entropy]), torch.tensor([-2 * entropy]))
    weights = wpo_weights(pairs, torch.tensor([-4 * entropy]), torch.tensor([-2 * entropy]))
    assert weights.item() == pytest.approx(1.0, rel=1e-6)
