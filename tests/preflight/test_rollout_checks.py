"""Faults of rollouts, of what is paid for them and of the credit made of it, each put into a sound run and named."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import trueup.train.objectives.ppo as ppo_module
from trueup.data.trees import Tree, shared_length
from trueup.errors import RunError
from trueup.models.generate import sample
from trueup.preflight import credit, draws, next_rollout, pay, rescoring
from trueup.preflight.run import SIZES, run_checks, take_sample
from trueup.preflight.subject import Subject
from trueup.rewards.learned import LearnedReward
from trueup.rewards.protocol import Completions, Scores
from trueup.train.kl_control import KlControl
from trueup.train.lessons import by_credit, by_pairs
from trueup.train.objectives.ppo import PpoCredit
from trueup.train.rollout import RolloutSource
from trueup.types import Decoding

Prepare = Callable[..., Subject]


def found(subject: Subject, check: Callable[..., Any]) -> dict[str, str]:
    """Rule -> severity of what one check finds."""
    outcome = check(subject, take_sample(subject, SIZES["full"]))
    assert outcome is not None and outcome.was_made
    return {finding.rule: finding.severity for finding in outcome.findings}


HOT = {"decoding": {"max_new_tokens": 16, "temperature": 2.0}}
"""The laboratory's model is sure of most tokens, and what is sure says nothing of luck."""


def with_source(subject: Subject, **changes: Any) -> Subject:
    return replace(subject, source=replace(subject.source, **changes))


# Sampling


def test_samples_among_the_two_best_that_say_otherwise(prepare: Prepare) -> None:
    def cut(model: Any, prompts: Any, number: int, decoding: Decoding, *rest: Any) -> Any:
        out = sample(model, prompts, number, replace(decoding, top_k=2), *rest)
        return [[replace(s, logps=s.full_logps) for s in group] for group in out]

    subject = prepare("grpo", rollout=HOT)
    assert found(subject, draws.check_draws) == {}
    cold = with_source(subject, sampler=cut)
    assert found(cold, draws.check_draws) == {"drawn-otherwise": "fatal"}
    assert "rehearsal-mismatch" not in {finding.rule for finding in run_checks(cold, "quick").findings}


@given(st.integers(0, 1000), st.floats(0.1, 8.0))
def test_every_likelihood_ratio_has_mean_1(seed: int, scale: float) -> None:
    """Over all tokens, each with its probability: what makes a large one improbable in sound runs."""
    logps = (scale * torch.randn(1, 60, generator=torch.Generator().manual_seed(seed)).double()).log_softmax(1)
    every, tokens = logps.expand(60, 60), torch.arange(60)
    ratios = torch.cat([draws.heat_ratios(every, tokens), draws.cut_ratios(every, tokens)], dim=1).exp()
    assert torch.allclose((logps.exp().T * ratios).sum(dim=0), torch.ones(len(draws.alternatives())).double())


def same_numbers(model: Any, prompts: Any, number: int, decoding: Decoding, stops: Any, _: Any) -> Any:
    return sample(model, prompts, number, decoding, stops, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variant", ["grpo", "ppo-separate", "dpo-online"])
def test_rollouts_with_the_same_luck(prepare: Prepare, variant: str) -> None:
    subject = prepare(variant, rollout=HOT)
    assert found(subject, next_rollout.check_next) == {}
    again = with_source(subject, sampler=same_numbers)
    assert found(again, next_rollout.check_next) == {"same-luck": "fatal"}


def test_a_group_with_the_same_luck(prepare: Prepare) -> None:
    def one_each(model: Any, prompts: Any, number: int, *rest: Any) -> Any:
        return [group * number for group in sample(model, prompts, 1, *rest)]

    subject = with_source(prepare("grpo", rollout=HOT), sampler=one_each)
    assert found(subject, next_rollout.check_next) == {"same-luck": "fatal"}


@pytest.mark.parametrize(("surprises", "chance"), [([], 1.0), ([3.0], math.exp(-3)), ([1.0, 2.0], 4 * math.exp(-3))])
def test_chance_of_common_beginnings(surprises: list[float], chance: float) -> None:
    assert next_rollout.chance_of(surprises) == pytest.approx(chance)


def test_common_beginnings_end_where_tokens_differ() -> None:
    assert shared_length((1, 2, 3, 4), (1, 2, 9, 4)) == 2
    assert shared_length((1, 2), (1, 2, 3)) == 2
    assert shared_length((5,), (6,)) == 0


@pytest.mark.parametrize("variant", ["grpo", "ppo-shared"])
def test_a_sampler_with_old_weights(prepare: Prepare, variant: str) -> None:
    subject = prepare(variant)
    old = copy.deepcopy(subject.policy)
    stale = with_source(subject, sampler=lambda model, *rest: sample(old, *rest))
    assert found(stale, next_rollout.check_next) == {"sampler-stale": "fatal"}


def test_weights_come_back_to_the_bit(prepare: Prepare) -> None:
    subject = prepare("ppo-shared")
    before = [leaf.detach().clone() for leaf in subject.leaves]
    take_sample(subject, SIZES["quick"])
    assert all(torch.equal(leaf, saved) for leaf, saved in zip(subject.leaves, before, strict=True))


# What is paid


def lived(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Change what every rollout is remembered as."""
    right = RolloutSource._draw
    monkeypatch.setattr(RolloutSource, "_draw", lambda self, model: change(right(self, model)))


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, scores=e.scores.roll(1), rewards=e.rewards.roll(1)),
        lambda e: replace(e, scores=e.scores.where(torch.arange(len(e.scores)) != 3, 0.0)),
        lambda e: replace(e, rewards=e.rewards.view(len(e.trees), -1).T.flatten()),
        lambda e: replace(e, rewards=e.scores),
    ],
    ids=["of another", "errors are 0", "groups mixed", "no penalty for no end"],
)
def test_rewards_that_are_others(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    subject = prepare("grpo")
    assert found(subject, pay.check_pay) == {}
    lived(monkeypatch, change)
    assert found(subject, pay.check_pay) == {"paid-otherwise": "fatal"}


def test_responses_that_are_said_to_have_ended(prepare: Prepare) -> None:
    def ended(*arguments: Any) -> Any:
        return [[replace(s, ended=True) for s in group] for group in sample(*arguments)]

    subject = with_source(prepare("rloo"), sampler=ended)
    assert found(subject, pay.check_pay) == {"ends-misjudged": "fatal"}


def test_rewards_with_a_price_of_length(prepare: Prepare) -> None:
    """DAPO's run here: a cap of 6, a buffer of 3, no penalty of 1 for 3 tokens, a whole one at the cap."""
    subject = prepare("grpo-dapo")
    rehearsal = take_sample(subject, SIZES["full"]).rehearsal
    assert rehearsal is not None
    trees = [Tree((1,), tuple((2,) * length for length in (1, 3, 4, 5, 6)))]
    some = replace(rehearsal.lived, trees=trees, scores=torch.zeros(5), ended=torch.tensor([True] * 4 + [False]))
    some = replace(some, rewards=torch.zeros(5))
    plan = replace(rehearsal.plan, missing_eos_penalty=2.0)
    assert pay.expected_rewards(plan, some).tolist() == pytest.approx([0, 0, -1 / 3, -2 / 3, -3])


# Credit


def test_gae_that_runs_over_the_ends(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    right, subject = ppo_module.gae, prepare("ppo-separate")
    assert found(subject, credit.check_credit) == {}
    monkeypatch.setattr(
        ppo_module, "gae", lambda r, v, branch, number, *rest: right(r, v, torch.zeros_like(branch), 1, *rest)
    )
    assert found(subject, credit.check_credit) == {"credit-value": "fatal"}


def test_a_reward_that_is_paid_first(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    right, subject = PpoCredit._paid, prepare("ppo-shared")
    monkeypatch.setattr(PpoCredit, "_paid", lambda self, lived, penalty: right(self, lived, penalty).flip(0))
    assert found(subject, credit.check_credit) == {"credit-value": "fatal"}


@pytest.mark.parametrize("variant", ["ppo-shared", "ppo-separate"])
def test_a_penalty_that_is_a_reward(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    """In the loss, and in the reward."""
    subject = prepare(variant)
    monkeypatch.setattr(KlControl, "value", property(lambda self: -0.1))
    assert found(subject, credit.check_credit) == {"credit-value": "fatal"}


def test_a_critic_that_sees_nothing(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = prepare("ppo-shared")
    right = type(subject.trained)._value  # type: ignore[attr-defined]
    monkeypatch.setattr(type(subject.trained), "_value", lambda self, hidden: right(self, 0 * hidden))
    assert found(subject, credit.check_credit) == {"critic-constant": "fatal"}


@pytest.mark.parametrize("wrong", [lambda a: -a, lambda a: a - 0.3, lambda a: a.roll(1), lambda a: 1.01 * a])
def test_other_advantages(prepare: Prepare, wrong: Callable[[Tensor], Tensor]) -> None:
    subject = prepare("rloo")
    right = subject.source.use.credit

    def assign(model: Any, lived: Any) -> Any:
        made = right(model, lived)
        return replace(made, advantages=wrong(made.advantages))

    assert found(with_source(subject, use=by_credit(right)), credit.check_credit) == {}
    assert found(with_source(subject, use=by_credit(assign)), credit.check_credit) == {"credit-value": "fatal"}


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "rloo", "reinforce++"])
def test_credit_of_every_variant_agrees(prepare: Prepare, name: str) -> None:
    assert found(prepare("grpo", grpo={"variant": name}), credit.check_credit) == {}


def test_pairs_with_their_sides_exchanged(prepare: Prepare) -> None:
    subject, use = prepare("dpo-online"), by_pairs()

    def prepare_wrong(model: Any, lived: Any) -> Any:
        lesson = use.prepare(model, lived)
        return replace(lesson, trees=[Tree(tree.prompt, tree.responses[::-1]) for tree in lesson.trees])

    assert found(subject, credit.check_credit) == {}
    wrong = with_source(subject, use=replace(use, prepare=prepare_wrong))
    assert found(wrong, credit.check_credit) == {"credit-value": "fatal"}


# The reward asked again


def test_a_reward_by_the_order_of_responses(prepare: Prepare) -> None:
    def by_place(completions: Completions) -> Scores:
        return Scores(torch.arange(float(sum(len(tree.responses) for tree in completions.trees))))

    subject = with_source(prepare("rloo"), reward=by_place)
    assert found(subject, rescoring.check_again) == {"reward-not-repeatable": "warning"}


def test_a_reward_with_a_little_noise(prepare: Prepare) -> None:
    rng = torch.Generator().manual_seed(0)

    def noisy(completions: Completions) -> Scores:
        lengths = torch.tensor([float(sum(r)) for tree in completions.trees for r in tree.responses])
        return Scores(lengths + lengths.std() * 0.1 * torch.randn(lengths.shape, generator=rng))

    subject = with_source(prepare("rloo"), reward=noisy)
    assert found(subject, rescoring.check_again) == {"reward-not-repeatable": "note"}


def test_a_reward_that_ranks_its_rollout_is_sound(prepare: Prepare) -> None:
    def ranks(completions: Completions) -> Scores:
        sums = torch.tensor([float(sum(r)) for tree in completions.trees for r in tree.responses])
        return Scores((sums[:, None] > sums).float().mean(dim=1))

    assert found(with_source(prepare("rloo"), reward=ranks), rescoring.check_again) == {}


@pytest.mark.parametrize("variant", ["grpo", "grpo-dapo", "ppo-shared"])
def test_a_reward_model_that_is_shown_no_end(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    right, subject = LearnedReward.__call__, prepare(variant)
    assert found(subject, rescoring.check_direct) == {}

    def cut(self: LearnedReward, asked: Completions) -> Scores:
        trees = [Tree(tree.prompt, tuple(r[:-1] or r for r in tree.responses)) for tree in asked.trees]
        return right(self, replace(asked, trees=trees))

    monkeypatch.setattr(LearnedReward, "__call__", cut)
    assert "reward-model-misread" in found(subject, rescoring.check_direct)
    assert found(subject, rescoring.check_again) == {}


def test_scores_that_drift_in_training(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    import trueup.preflight.subject as subject_module

    right, subject, calls = subject_module.response_scores, prepare("reward-causal"), iter(range(1000))
    assert found(subject, rescoring.check_again) == {}
    monkeypatch.setattr(subject_module, "response_scores", lambda *rest: right(*rest) + next(calls))
    assert found(subject, rescoring.check_again) == {"reward-not-repeatable": "fatal"}


def test_equally_probable_tokens_are_cut_as_one_distribution() -> None:
    """A head of zeros: samples that are spread over all tokens are no sign of a cut."""
    logps = torch.full((200, 1000), -math.log(1000.0))
    drawn = torch.randint(1000, (200,), generator=torch.Generator().manual_seed(0))
    assert draws.cut_ratios(logps, drawn).sum(dim=0).max() == -math.inf


def test_a_second_rollout_that_fails_is_left_out(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run itself would never have made it."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("trueup.preflight.rehearsal.play_on", fail)
    subject = prepare("grpo")
    report = run_checks(subject, "quick")
    told = {outcome.check: outcome for outcome in report.outcomes}
    assert not told[next_rollout.CHECK].was_made and told[pay.CHECK].was_made
    assert report.fatal == ()


def test_a_reward_that_does_not_answer_twice_stops_nothing(prepare: Prepare) -> None:
    subject, calls = prepare("grpo"), iter(range(100))
    reward = subject.source.reward

    def flaky(asked: Completions) -> Scores:
        if next(calls):
            raise RunError("the judge is busy")
        return reward(asked)

    outcome = {o.check: o for o in run_checks(with_source(subject, reward=flaky), "quick").outcomes}[rescoring.AGAIN]
    assert not outcome.was_made and "busy" in outcome.told
