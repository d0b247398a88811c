"""Credit: generalised advantage estimation, group-relative advantages, whitening."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.ops.returns import gae, group_relative, pad_by_branch, whiten

NUMBER = st.floats(-5, 5)
EPISODES = st.lists(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=7), min_size=1, max_size=5)
UNIT = st.floats(0, 1)
GROUPS = st.lists(st.lists(NUMBER, min_size=2, max_size=6), min_size=1, max_size=5)
SCALES = ("group", "batch", "none")

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


def shuffled(groups: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards in random order with their groups: neither sorted nor adjacent."""
    rewards = torch.tensor([r for group in groups for r in group], dtype=torch.float64)
    group = torch.tensor([g for g, rows in enumerate(groups) for _ in rows])
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(len(rewards)))
    return rewards[order], group[order], order


@settings(max_examples=80, deadline=None)
@given(GROUPS, st.sampled_from(SCALES))
def test_advantages_of_a_group_sum_to_zero(groups: list[list[float]], scale: str) -> None:
    rewards, group, _ = shuffled(groups)
    found, _ = group_relative(rewards, group, scale)
    sums = torch.zeros(len(groups), dtype=torch.float64).index_add(0, group, found)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-8)


@settings(max_examples=80, deadline=None)
@given(st.lists(NUMBER, min_size=1, max_size=5), st.integers(2, 9), st.sampled_from(SCALES))
def test_groups_of_equal_rewards_have_exactly_zero(values: list[float], size: int, scale: str) -> None:
    for dtype in (torch.float32, torch.float64):
        rewards = torch.tensor(values, dtype=dtype).repeat_interleave(size)
        group = torch.arange(len(values)).repeat_interleave(size)
        found, _ = group_relative(rewards, group, scale)
        assert (found == 0).all()


@settings(max_examples=60, deadline=None)
@given(GROUPS)
def test_the_three_scales_by_numpy(groups: list[list[float]]) -> None:
    rewards, group, order = shuffled(groups)
    centred = np.concatenate([np.array(g) - np.mean(g) for g in groups])[order]
    spread = np.concatenate([np.full(len(g), np.std(g, ddof=1)) for g in groups])[order]
    by_scale = {"group": spread + 1e-4, "batch": np.std(centred, ddof=1) + 1e-4, "none": np.ones(len(centred))}
    for scale, divisor in by_scale.items():
        found, group_std = group_relative(rewards, group, scale)
        assert found.numpy() == pytest.approx(centred / divisor, abs=2e-4)
        assert group_std.numpy() == pytest.approx(spread, abs=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_more_reward_is_more_advantage_and_the_origin_does_not_count(scale: str) -> None:
    rewards, group = torch.tensor([1.0, 2.0, 4.0, -3.0, -2.5, -9.0]), torch.tensor([0, 0, 0, 1, 1, 1])
    found, _ = group_relative(rewards, group, scale)
    for rows in (slice(0, 3), slice(3, 6)):
        assert torch.equal(found[rows].argsort(), rewards[rows].argsort())
    offset = torch.tensor([10.0, -10.0])[group]
    torch.testing.assert_close(group_relative(rewards + offset, group, scale)[0], found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_a_group_of_one_teaches_nothing(scale: str) -> None:
    found, _ = group_relative(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([1, 0, 1]), scale)
    assert found[1] == 0.0
    assert found[0] < 0.0 < found[2]


def test_an_outlier_in_one_group_does_not_silence_another() -> None:
    rewards, group = torch.tensor([0.0, 1.0, 0.0, -1e7]), torch.tensor([0, 0, 1, 1])
    found, _ = group_relative(rewards, group, "group")
    assert found[:2].tolist() == pytest.approx([-0.7071, 0.7071], abs=1e-3)


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
