"""DPO on population preferences ends at the policy that theory names, through the real model and the real losses."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from laboratory import (
    BATCHING,
    DECODING,
    ENCODER,
    LISTED,
    REWARDS,
    WORLD,
    among_listed,
    cosine,
    dpo_policy,
    gradient,
    listed_logps,
    make_step,
    population_dpo,
    reference,
)

from trueup.data.trees import Tree
from trueup.losses.pairs import choose
from trueup.models.forward import frozen_scorer
from trueup.models.generate import sample
from trueup.runtime.seeding import generator
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.reference import live
from trueup.train.sources import DataSource
from trueup.worlds.enumerable import exact_kl

BETAS = (0.3, 1.0, 3.0)
RESPONSE_INDEX = {response: k for k, response in enumerate(LISTED)}


@pytest.mark.parametrize("beta", BETAS)
def test_the_policy_is_the_optimal_one(beta: float) -> None:
    start = among_listed(listed_logps(reference()))
    best = WORLD.optimal_policy(start, beta)
    found = among_listed(listed_logps(dpo_policy(beta)))
    assert exact_kl(best, start).mean() > 0.02, "the optimum must be somewhere else than the start"
    assert exact_kl(best, found).mean() < 1e-4
    assert exact_kl(found, best).mean() < 1e-4


@pytest.mark.parametrize("beta", BETAS)
def test_the_implicit_reward_is_the_reward_up_to_a_constant_of_the_prompt(beta: float) -> None:
    # Rewards of one prompt differ by more than 1.5: the tolerance is a thirtieth of that, or less.
    implicit = beta * (listed_logps(dpo_policy(beta)) - listed_logps(reference())).detach()
    constant = (implicit - REWARDS).mean(dim=1, keepdim=True)
    assert (implicit - REWARDS - constant).abs().max() < 0.05
    assert (REWARDS.amax(dim=1) - REWARDS.amin(dim=1)).min() > 1.5


def test_a_higher_beta_ends_nearer_the_reference() -> None:
    start = among_listed(listed_logps(reference()))
    reached = [exact_kl(among_listed(listed_logps(dpo_policy(beta))), start) for beta in BETAS]
    promised = [exact_kl(WORLD.optimal_policy(start, beta), start) for beta in BETAS]
    for further, nearer in itertools.pairwise(reached):
        assert (further > nearer).all()
    for found, expected in zip(reached, promised, strict=True):
        assert found == pytest.approx(expected, rel=0.02)


def test_population_loss_starts_at_log_2() -> None:
    model = reference()
    loss = population_dpo(model, listed_logps(model).detach(), 0.3)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)


def sampled_pairs(draws: int) -> list[Tree]:
    """Label pairs of the reference's own samples by a coin with the Bradley-Terry probability; unlisted ones go."""
    groups = sample(
        reference(torch.float32), WORLD.prompts(), 2 * draws, DECODING, ENCODER.stops, generator(0, "pairs")
    )
    coin = torch.Generator().manual_seed(1)
    trees = []
    for row, (prompt, group) in enumerate(zip(WORLD.prompts(), groups, strict=True)):
        for first, second in zip(group[0::2], group[1::2], strict=True):
            if first.tokens == second.tokens or not {first.tokens, second.tokens} <= RESPONSE_INDEX.keys():
                continue
            lead = REWARDS[row, RESPONSE_INDEX[first.tokens]] - REWARDS[row, RESPONSE_INDEX[second.tokens]]
            wins = bool(torch.rand((), generator=coin) < torch.sigmoid(lead))
            sides = (first.tokens, second.tokens) if wins else (second.tokens, first.tokens)
            trees.append(Tree(prompt, sides))
    return trees


def test_sampled_labelled_pairs_push_where_the_population_does() -> None:
    model = dpo_policy(3.0, torch.float32)  # away from the reference, where both sides of the loss matter
    anchor = reference(torch.float32)
    trees = sampled_pairs(800)
    objective = PreferenceObjective(choose("sigmoid", beta=0.3))
    batches = list(DataSource(trees, len(trees), 0, BATCHING, live(frozen_scorer(anchor))).sweep())
    metrics, update = make_step(model, objective, batches)
    downhill = -gradient(population_dpo(model, listed_logps(anchor).detach(), 0.3), model)
    assert cosine(update, downhill) > 0.9
    assert metrics["rewards/ties"] == 0.0
    swapped = [Tree(tree.prompt, tree.responses[::-1]) for tree in trees]
    batches = list(DataSource(swapped, len(trees), 0, BATCHING, live(frozen_scorer(anchor))).sweep())
    assert cosine(make_step(model, objective, batches)[1], downhill) < -0.5
