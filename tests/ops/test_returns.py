"""Returns: generalised advantage estimation, rewards to go, the price of length, whitening."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.ops.returns import gae, overlong_penalty, pad_by_branch, to_go, whiten

NUMBER = st.floats(-5, 5)
EPISODES = st.lists(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=7), min_size=1, max_size=5)
UNIT = st.floats(0, 1)

Episodes = list[list[tuple[float, float]]]


def flat(episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and branch of all tokens."""
    rows = [(reward, value, k) for k, episode in enumerate(episodes) for reward, value in episode]
    rewards, values, branch = zip(*rows, strict=True)
    return torch.tensor(rewards).double(), torch.tensor(values).double(), torch.tensor(branch)


def advantages_by_definition(episode: list[tuple[float, float]], gamma: float, lam: float) -> list[float]:
    """Equation 16 as it is printed: the discounted sum of all later temporal differences."""
    rewards, values = zip(*episode, strict=True)
    following = (*values[1:], 0.0)
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [sum((gamma * lam) ** l * d for l, d in enumerate(deltas[t:])) for t in range(len(deltas))]  # noqa: E741


@settings(max_examples=60, deadline=None)
@given(EPISODES, UNIT, UNIT)
def test_gae_is_equation_16_of_each_response_alone(episodes: Episodes, gamma: float, lam: float) -> None:
    rewards, values, branch = flat(episodes)
    found, returns = gae(rewards, values, branch, len(episodes), gamma, lam)
    expected = [a for episode in episodes for a in advantages_by_definition(episode, gamma, lam)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(returns, found + values)


@settings(max_examples=60, deadline=None)
@given(EPISODES)
def test_monte_carlo_advantages_are_reward_to_go_less_value(episodes: Episodes) -> None:
    rewards, values, branch = flat(episodes)
    found, returns = gae(rewards, values, branch, len(episodes), gamma=1.0, lam=1.0)
    to_go = [sum(r for r, _ in episode[t:]) for episode in episodes for t in range(len(episode))]
    assert returns.tolist() == pytest.approx(to_go, abs=1e-5)
    assert found.tolist() == pytest.approx((torch.tensor(to_go) - values).tolist(), abs=1e-5)


def test_lambda_zero_looks_one_step_ahead() -> None:
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.25, 8.0])
    found, _ = gae(rewards, values, torch.tensor([0, 0, 1]), 2, gamma=0.5, lam=0.0)
    assert found.tolist() == [1.0 + 0.125 - 0.5, 2.0 - 0.25, 4.0 - 8.0]


def test_a_perfect_critic_leaves_nothing_to_learn() -> None:
    rewards = torch.tensor([0.0, 0.0, 3.0, 0.0, -1.0])
    branch, gamma = torch.tensor([0, 0, 0, 1, 1]), 0.9
    values = torch.tensor([3 * gamma**2, 3 * gamma, 3.0, -gamma, -1.0])
    for lam in (0.0, 0.5, 1.0):
        found, returns = gae(rewards, values, branch, 2, gamma, lam)
        torch.testing.assert_close(found, torch.zeros(5), rtol=0, atol=1e-6)
        torch.testing.assert_close(returns, values)


def test_a_response_without_tokens_takes_nothing_from_its_neighbours() -> None:
    rewards, values, branch = torch.tensor([1.0, 5.0]), torch.zeros(2), torch.tensor([0, 2])
    found, _ = gae(rewards, values, branch, 3, gamma=1.0, lam=1.0)
    assert found.tolist() == [1.0, 5.0]
    padded, mask = pad_by_branch(rewards, branch, 3)
    assert padded.tolist() == [[1.0], [0.0], [5.0]]
    assert mask.tolist() == [[True], [False], [True]]


@settings(max_examples=60, deadline=None)
@given(EPISODES, NUMBER)
def test_rewards_to_go_are_the_reward_less_what_is_still_to_pay(episodes: Episodes, reward: float) -> None:
    penalty, _, branch = flat(episodes)
    found = to_go(torch.full((len(episodes),), reward, dtype=torch.float64), penalty, branch)
    expected = [reward - sum(p for p, _ in episode[t:]) for episode in episodes for t in range(len(episode))]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_length_costs_nothing_up_to_the_buffer_and_one_at_the_cap() -> None:
    """Yu et al. 2025, Eq. 13, with a cap of 20 and a buffer of 4: the length as it is, an eighth at a time."""
    length = torch.tensor([1, 15, 16, 17, 18, 20])
    assert overlong_penalty(length, cap=20, buffer=4).tolist() == [0.0, 0.0, 0.0, -0.25, -0.5, -1.0]
    assert overlong_penalty(length, cap=20, buffer=20).tolist() == pytest.approx((-length / 20).tolist())


@given(st.lists(NUMBER, min_size=2, max_size=20))
def test_whitened_values_have_mean_zero_and_deviation_one(values: list[float]) -> None:
    before = torch.tensor(values, dtype=torch.float64)
    found = whiten(before)
    assert found.mean().item() == pytest.approx(0.0, abs=1e-6)
    if before.std(correction=0) > 1e-3:
        assert found.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    kept = whiten(before, keep_mean=True)
    assert kept.mean().item() == pytest.approx(before.mean().item(), abs=1e-6)
    torch.testing.assert_close(kept - kept.mean(), found, rtol=0, atol=1e-6)


def test_whitening_a_constant_makes_no_noise() -> None:
    assert whiten(torch.full((7,), 0.5)).tolist() == [0.0] * 7
