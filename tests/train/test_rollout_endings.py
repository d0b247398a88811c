"""Where a reward lands, and what a response that did not end pays (F81, F82, F83 and F93 of the catalogue).

A scripted sampler returns responses that end at once, late, exactly at the cap, or not at all; prompts hold stop tokens
too, and the padding token is the terminator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from step_cases import CAP, batching, causal, rollouts
from torch import nn

from trueup.models.actor_critic import ActorCritic
from trueup.models.generate import Sample
from trueup.rewards.protocol import Completions, Scores
from trueup.train.experience import Credit, Experience
from trueup.train.kl_control import KlControl
from trueup.train.objectives.ppo import PpoCredit
from trueup.train.rollout import RolloutSource

END = 2
RESPONSES = (
    ((END,), True),
    ((20, END), True),
    ((*range(11, 10 + CAP), END), True),
    ((*range(11, 10 + CAP), 30), False),
    ((20, END, END, 21), False),
)
"""(tokens, ended): the fourth met the cap; the fifth has terminators inside it, which say nothing."""


def scripted(model: Any, prompts: Any, draws: int, *rest: Any) -> list[list[Sample]]:
    """The responses in turn, whatever was asked."""
    out = []
    for place in range(len(prompts)):
        tokens, ended = RESPONSES[place % len(RESPONSES)]
        logps = -torch.linspace(0.5, 2.0, len(tokens))
        out.append([Sample(tokens, logps, logps, ended)] * draws)
    return out


def place_by_place(completions: Completions) -> Scores:
    return Scores(torch.arange(1.0, 1.0 + len(completions.trees)))


def source(assign: Any, **plan: Any) -> RolloutSource:
    made = rollouts(torch.float32, 10**6, 1, assign)
    made.reward, made.plan = place_by_place, replace(made.plan, **plan)
    return replace(made, sampler=scripted)


def lived(**plan: Any) -> Experience:
    kept: list[Experience] = []

    def keep(model: nn.Module, experience: Experience) -> Credit:
        kept.append(experience)
        return Credit(torch.zeros(len(experience.branch)))

    source(keep, **plan).draw(causal(torch.float32), 0)
    return kept[0]


def test_exactly_the_responses_that_did_not_end_pay() -> None:
    experience = lived(missing_eos_penalty=0.7)
    expected = [RESPONSES[k % len(RESPONSES)][1] for k in range(len(experience.rewards))]
    assert experience.ended.tolist() == expected and not all(expected)
    paid = experience.scores - experience.rewards
    assert paid.tolist() == pytest.approx([0.0 if ended else 0.7 for ended in expected])
    assert all(END in tree.responses[0] for tree in experience.trees[:3]), "a terminator as well as padding"


def test_every_token_of_a_response_counts_its_terminator_too_and_nothing_else() -> None:
    experience = lived()
    lengths = torch.bincount(experience.branch).tolist()
    assert lengths == [len(RESPONSES[k % len(RESPONSES)][0]) for k in range(len(lengths))]
    assert len(experience.old_logps) == len(experience.ref_logps) == sum(lengths)


def credit(**settings: Any) -> tuple[Experience, Credit]:
    made = PpoCredit(batching(10**6), KlControl(0.3), whiten_advantages=False, **settings)
    model = ActorCritic(causal(torch.float32))
    nn.init.normal_(model.value_head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    kept: list[tuple[Experience, Credit]] = []

    def keep(model: nn.Module, experience: Experience) -> Credit:
        kept.append((experience, made(model, experience)))
        return kept[0][1]

    source(keep).draw(model, 0)
    return kept[0]


def test_the_reward_lands_on_the_last_token_of_its_response_and_nowhere_else() -> None:
    """With a planted reward of 1 for one response, what all tokens are paid differs at its last token alone."""
    made = PpoCredit(batching(10**6), KlControl(0.3))
    experience = lived(missing_eos_penalty=0.0)
    penalty = 0.3 * (experience.old_logps - experience.ref_logps)
    base = made._paid(experience, penalty)
    assert float(base.sum()) == pytest.approx(float(experience.rewards.sum() - penalty.sum()), rel=1e-5)
    ends = torch.bincount(experience.branch).cumsum(0) - 1
    for k in range(len(experience.rewards)):
        planted = experience.rewards.clone()
        planted[k] += 1
        difference = made._paid(replace(experience, rewards=planted), penalty) - base
        expected = torch.zeros(len(base))
        expected[ends[k]] = 1.0
        torch.testing.assert_close(difference, expected)


def test_nothing_is_expected_after_the_last_token_of_a_response_that_was_cut_off() -> None:
    """The return of a last token is its reward, ended or not: no value of a state behind the cut is in it."""
    experience, found = credit(kl_in_reward=False, lam=0.6)
    assert found.returns is not None and found.values is not None
    ends = torch.bincount(experience.branch).cumsum(0) - 1
    torch.testing.assert_close(found.returns[ends], experience.rewards, rtol=1e-5, atol=1e-5)
    assert found.values[ends].abs().min() > 1e-4, "the critic had something to say"
