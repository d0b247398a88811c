"""Online DPO's first update, over every pair as often as it is sampled, against what it should climb; ties."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from laboratory import cosine, make_step
from tabular import (
    BATCHING,
    PROMPTS,
    RESPONSES,
    REWARDS,
    SAMPLER,
    Table,
    noisy,
    population,
    probabilities,
    token_logps,
    with_gradient,
)
from torch import Tensor

from trueup.data.trees import Tree
from trueup.losses.pairs import choose
from trueup.train.experience import Experience, of_groups, spread_groups
from trueup.train.lessons import Lesson, by_pairs
from trueup.train.objectives.preference import PreferenceObjective

BETA = 0.3
TIED = REWARDS.sign()
"""Rewards of three values: many pairs are tied."""


def lesson(lived: Experience) -> Lesson:
    """The pairs of a rollout without its ties, as the source makes them."""
    return by_pairs().prepare(Table(SAMPLER), of_groups(lived, spread_groups(lived)))


def update(lived: Experience, policy: Tensor = SAMPLER, loss: str = "sigmoid") -> Tensor:
    """The direction of the first step over all pairs of a population."""
    learnt = lesson(lived)
    # One reference for both: log-probabilities of the population are those of ``tabular.REFERENCE``.
    batch = by_pairs().batch(BATCHING.collate(learnt.trees), learnt.tensors, False)
    return make_step(Table(policy), PreferenceObjective(choose(loss, beta=BETA)), [batch])[1]


def from_itself(rewards: Tensor = REWARDS) -> Experience:
    """A population whose reference is the policy that sampled."""
    lived = population(rewards=rewards)
    return replace(lived, ref_logps=lived.old_logps)


def win_rate(rewards: Tensor) -> Tensor:
    """P(a response beats one of the sampler's), ties half: ``[PROMPTS, 7]``."""
    drawn = probabilities(SAMPLER)
    versus = (rewards[:, :, None] > rewards[:, None]).double() + 0.5 * (rewards[:, :, None] == rewards[:, None])
    return (versus * drawn[:, None]).sum(dim=2)


def untied(rewards: Tensor) -> Tensor:
    """Share of pairs with a preference, of both prompts."""
    drawn = probabilities(SAMPLER)
    same = (rewards[:, :, None] == rewards[:, None]).double()
    return 1 - (drawn[:, :, None] * drawn[:, None] * same).sum() / PROMPTS


@pytest.mark.parametrize("rewards", [REWARDS, TIED], ids=["no two alike", "many ties"])
def test_from_the_reference_it_climbs_the_chance_of_beating_itself(rewards: Tensor) -> None:
    """At h = 0 every pair weighs β/2; summed over pairs that is 2β times the gradient of the win rate.

    The mean is over pairs with a preference, hence the division; the level of a reward does not matter, only its order.
    """

    def wins(logits: Tensor) -> Tensor:
        return (probabilities(logits) * win_rate(rewards)).sum() / PROMPTS

    exact = 2 * BETA / untied(rewards) * with_gradient(wins, SAMPLER)
    torch.testing.assert_close(update(from_itself(rewards)), exact, rtol=1e-9, atol=1e-12)


def test_only_the_order_of_rewards_counts() -> None:
    plain = update(from_itself())
    torch.testing.assert_close(update(from_itself(REWARDS.exp() * 100 - 7)), plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(update(from_itself(-REWARDS)), -plain, rtol=1e-9, atol=1e-12)


def test_away_from_the_reference_it_is_dpo_on_every_pair() -> None:
    """Against the loss summed over the table of pairs, both orders, without the code of batches and branches."""
    policy, lived = noisy(0.5, 7), population()
    anchor = torch.zeros(PROMPTS, len(RESPONSES), dtype=torch.float64)
    for tree, logps in zip(lived.trees, by_tree(lived), strict=True):
        for response, total in zip(tree.responses, logps, strict=True):
            anchor[tree.prompt[0] - 3, RESPONSES.index(response)] = total
    drawn = probabilities(SAMPLER)
    weight = drawn[:, :, None] * drawn[:, None] * (REWARDS[:, :, None] > REWARDS[:, None])

    def loss(logits: Tensor) -> Tensor:
        r = token_logps(logits).sum(dim=2) - anchor
        h = r[:, :, None] - r[:, None]
        return -(weight * torch.nn.functional.logsigmoid(BETA * h)).sum() / weight.sum()

    torch.testing.assert_close(update(lived, policy), -with_gradient(loss, policy), rtol=1e-9, atol=1e-12)


def by_tree(lived: Experience) -> list[list[float]]:
    """The reference's log-probability of each response of each tree."""
    per_response = torch.zeros(len(lived.rewards), dtype=torch.float64).index_add(0, lived.branch, lived.ref_logps)
    return per_response.view(len(lived.trees), -1).tolist()


def in_pairs(lived: Experience) -> Experience:
    """Ties resolved by the order of samples, as where the first is chosen if its reward is at least the second's."""
    nudge = torch.tensor([1e-3, 0.0], dtype=torch.float64).repeat(len(lived.trees))
    return replace(lived, rewards=lived.rewards + nudge)


def test_ties_by_position_would_add_pairs_without_a_preference() -> None:
    """In expectation their gradients cancel, but they dilute the mean; in every single update they are noise."""
    lived = from_itself(TIED)
    right, wrong = update(lived), update(in_pairs(lived))
    share = float(untied(TIED))
    assert share < 0.7
    torch.testing.assert_close(wrong, right * share, rtol=1e-9, atol=1e-12)
    assert len(lesson(in_pairs(lived)).trees) == len(lived.trees) > len(lesson(lived).trees)
    assert len(lesson(lived).trees) == pytest.approx(share * len(lived.trees))


def test_reversed_pairs_point_the_other_way() -> None:
    lived = from_itself()
    assert cosine(update(replace(lived, rewards=-lived.rewards)), update(lived)) < -0.999


def test_of_larger_groups_the_best_and_the_worst_are_taken() -> None:
    """Every order of the group gives the same pair, with the reference's numbers of its own tokens."""
    words = [(1, 5, 0), (2, 0), (3, 7, 7, 0), (4, 0)]
    for order in itertools.permutations(range(4)):
        responses = [words[i] for i in order]
        count = torch.tensor([len(r) for r in responses])
        told = torch.cat([torch.full((len(words[i]),), float(i)) + torch.arange(len(words[i])) / 10 for i in order])
        rewards = torch.tensor([0.5, -1.0, 2.0, 0.5])[list(order)]
        lived = Experience(
            trees=[Tree((9,), tuple(responses))],
            group=torch.zeros(4, dtype=torch.int64),
            branch=torch.arange(4).repeat_interleave(count),
            old_logps=told,
            ref_logps=told,
            scores=rewards,
            parts={},
            rewards=rewards,
            ended=torch.ones(4, dtype=torch.bool),
        )
        found = by_pairs().prepare(torch.nn.Module(), lived)
        assert found.trees == [Tree((9,), (words[2], words[1]))]
        torch.testing.assert_close(found.tensors["ref_logps"], torch.tensor([2.0, 2.1, 2.2, 2.3, 1.0, 1.1]))
        assert found.metrics["pairs/reward_gap"] == pytest.approx(3.0)
