"""Advantages without a critic: baselines and scales by numpy, and what no baseline may let through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.ops.baselines import BASELINES, SCALES, Paid, advantages, group_spread

NUMBER = st.floats(-5, 5)
GROUPS = st.lists(st.lists(NUMBER, min_size=2, max_size=6), min_size=1, max_size=5)
COMPARED = ("group", "leave_one_out")
SUMMED = ("group", "batch", "none")
"""Scales that only divide."""


def paid(rewards: Tensor, group: Tensor, lengths: Tensor | None = None, penalty: Tensor | None = None) -> Paid:
    """Responses of one token each, unless lengths are given; nothing is taken off, unless a penalty is."""
    count = torch.ones(len(rewards), dtype=torch.int64) if lengths is None else lengths
    branch = torch.arange(len(rewards)).repeat_interleave(count)
    return Paid(rewards, rewards.new_zeros(len(branch)) if penalty is None else penalty, group, branch)


def shuffled(groups: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards in random order with their groups: neither sorted nor adjacent."""
    rewards = torch.tensor([r for group in groups for r in group], dtype=torch.float64)
    group = torch.tensor([g for g, rows in enumerate(groups) for _ in rows])
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(len(rewards)))
    return rewards[order], group[order], order


@settings(max_examples=80, deadline=None)
@given(GROUPS, st.sampled_from(COMPARED), st.sampled_from(SUMMED))
def test_advantages_of_a_group_sum_to_zero(groups: list[list[float]], baseline: str, scale: str) -> None:
    rewards, group, _ = shuffled(groups)
    found = advantages(paid(rewards, group), baseline, scale)
    sums = torch.zeros(len(groups), dtype=torch.float64).index_add(0, group, found)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-7)


@settings(max_examples=80, deadline=None)
@given(st.lists(NUMBER, min_size=1, max_size=5), st.integers(2, 9), st.sampled_from(COMPARED), st.sampled_from(SUMMED))
def test_groups_of_equal_rewards_have_exactly_zero(values: list[float], size: int, baseline: str, scale: str) -> None:
    for dtype in (torch.float32, torch.float64):
        rewards = torch.tensor(values, dtype=dtype).repeat_interleave(size)
        group = torch.arange(len(values)).repeat_interleave(size)
        assert (advantages(paid(rewards, group), baseline, scale) == 0).all()


@settings(max_examples=60, deadline=None)
@given(GROUPS)
def test_baselines_and_scales_by_numpy(groups: list[list[float]]) -> None:
    rewards, group, order = shuffled(groups)
    given_ = paid(rewards, group)
    credit = {
        "group": np.concatenate([np.array(g) - np.mean(g) for g in groups])[order],
        "leave_one_out": np.concatenate(
            [[g[i] - np.mean(g[:i] + g[i + 1 :]) for i in range(len(g))] for g in groups]  # what the name says
        )[order],
        "none": rewards.numpy(),
    }
    spread = np.concatenate([np.full(len(g), np.std(g, ddof=1)) for g in groups])[order]
    for baseline, centred in credit.items():
        scaled = {
            "group": centred / (spread + 1e-4),
            "batch": centred / (np.std(rewards.numpy(), ddof=1) + 1e-4),
            "whiten": (centred - centred.mean()) / (centred.std() + 1e-8),
            "none": centred,
        }
        assert scaled.keys() == SCALES.keys()
        for scale, expected in scaled.items():
            if scale != "whiten" or centred.std() > 1e-3:
                found = advantages(given_, baseline, scale)
                assert found.numpy() == pytest.approx(expected, rel=1e-6, abs=3e-4), (baseline, scale)
    assert credit.keys() == BASELINES.keys()
    assert group_spread(given_).numpy() == pytest.approx(spread, abs=1e-12)


@pytest.mark.parametrize("scale", SUMMED)
@pytest.mark.parametrize("baseline", COMPARED)
def test_more_reward_is_more_advantage_and_the_origin_does_not_count(baseline: str, scale: str) -> None:
    rewards, group = torch.tensor([1.0, 2.0, 4.0, -3.0, -2.5, -9.0]), torch.tensor([0, 0, 0, 1, 1, 1])
    found = advantages(paid(rewards, group), baseline, scale)
    for rows in (slice(0, 3), slice(3, 6)):
        assert torch.equal(found[rows].argsort(), rewards[rows].argsort())
    # Divided by the spread of the whole rollout, a prompt of its own level widens that spread for all.
    offset = torch.tensor([10.0, 10.0 if scale == "batch" else -10.0])[group]
    torch.testing.assert_close(advantages(paid(rewards + offset, group), baseline, scale), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", SUMMED)
@pytest.mark.parametrize("baseline", COMPARED)
def test_a_group_of_one_teaches_nothing(baseline: str, scale: str) -> None:
    found = advantages(paid(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([1, 0, 1])), baseline, scale)
    assert found[1] == 0.0
    assert found[0] < 0.0 < found[2]


def test_an_outlier_in_one_group_does_not_silence_another() -> None:
    rewards, group = torch.tensor([0.0, 1.0, 0.0, -1e7]), torch.tensor([0, 0, 1, 1])
    found = advantages(paid(rewards, group), "group", "group")
    assert found[:2].tolist() == pytest.approx([-0.7071, 0.7071], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBER, st.lists(NUMBER, min_size=1, max_size=4)), min_size=2, max_size=6))
def test_every_token_has_the_credit_of_its_response_less_its_whole_penalty(rows: list) -> None:
    rewards = torch.tensor([reward for reward, _ in rows], dtype=torch.float64)
    lengths = torch.tensor([len(p) for _, p in rows])
    penalty = torch.tensor([each for _, p in rows for each in p], dtype=torch.float64)
    one_group = torch.zeros(len(rows), dtype=torch.int64)
    found = advantages(paid(rewards, one_group, lengths, penalty), "leave_one_out", "none")
    worth = [reward - sum(p) for reward, p in rows]
    others = [np.mean(worth[:i] + worth[i + 1 :]) for i in range(len(worth))]
    expected = [w - o for w, o, (_, p) in zip(worth, others, rows, strict=True) for _ in p]
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_without_a_baseline_a_token_does_not_pay_for_those_before_it() -> None:
    rewards, lengths = torch.tensor([1.0, 5.0]), torch.tensor([3, 1])
    given_ = paid(rewards, torch.tensor([0, 1]), lengths, torch.tensor([0.5, 0.25, 0.125, 2.0]))
    assert advantages(given_, "none", "none").tolist() == [0.125, 0.625, 0.875, 3.0]
    whitened = advantages(given_, "none", "whiten")
    assert whitened.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert whitened.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
