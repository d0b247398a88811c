"""PPO's and GRPO's first updates against the exact gradient of the expected reward, and what must hold there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from laboratory import (
    BATCHING,
    DECODING,
    ENCODER,
    LISTED,
    PROMPTS,
    REWARDS,
    cosine,
    dpo_policy,
    everything,
    expected_reward,
    gradient,
    lay_out,
    make_step,
    per_response,
    reference,
)
from torch import Tensor

from trueup.losses.overrides import resolve
from trueup.losses.variants import Variant
from trueup.models.actor_critic import ActorCritic
from trueup.models.forward import frozen_scorer, token_scores
from trueup.rewards.protocol import Completions, Scores
from trueup.train.experience import AssignCredit, Credit, Experience
from trueup.train.kl_control import KlControl
from trueup.train.lessons import by_credit
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit
from trueup.train.objectives.ppo import PpoCredit, PpoObjective
from trueup.train.rollout import RolloutPlan, RolloutSource

RESPONSE_INDEX = {response: k for k, response in enumerate(LISTED)}
PPO = PpoObjective(clip=0.2, value_clip=0.2, vf_coef=0.1, temperature=1.0)
GRPO = resolve("grpo", {"kl_coef": 0.05})
DISCOUNTED = PpoCredit(BATCHING, KlControl(0.0))
MONTE_CARLO = PpoCredit(BATCHING, KlControl(0.0), lam=1.0)

Judge = Callable[[Completions], Tensor]


def exact_reward(completions: Completions) -> Tensor:
    """The world's reward of each response; 0 for what the world does not list."""
    return torch.tensor(
        [
            float(REWARDS[row, RESPONSE_INDEX[response]]) if response in RESPONSE_INDEX else 0.0
            for tree, row in zip(completions.trees, completions.rows, strict=True)
            for response in tree.responses
        ]
    )


def nothing(completions: Completions) -> Tensor:
    """A reward that is 0 whatever is written."""
    return torch.zeros(sum(len(tree.responses) for tree in completions.trees))


def rollouts(
    assign: AssignCredit, group_size: int, responses: int = 4096, judge: Judge = exact_reward, seed: int = 0
) -> RolloutSource:
    """A source whose first rollout has that many responses, all in the first optimiser step."""
    plan = RolloutPlan(
        prompts=responses // group_size,
        group_size=group_size,
        decoding=DECODING,
        epochs=1,
        mini_batches=1,
        missing_eos_penalty=0.0,
        seed=seed,
    )
    return RolloutSource(
        prompts=PROMPTS,
        encoder=ENCODER,
        plan=plan,
        batching=BATCHING,
        policy_of=lambda model: getattr(model, "policy", model),
        reference=frozen_scorer(reference(torch.float32)),
        reward=lambda completions: Scores(judge(completions)),
        use=by_credit(assign),
    )


def ppo_update(policy: Any, assign: AssignCredit, judge: Judge = exact_reward) -> Tensor:
    model = ActorCritic(policy)
    return make_step(model, PPO, rollouts(assign, 1, judge=judge).draw(model, 0).batches)[1]


def updated_by(variant: Variant) -> Callable[..., Tensor]:
    objective = GrpoObjective(variant, temperature=1.0, max_length=DECODING.max_new_tokens)

    def update(policy: Any, assign: AssignCredit, judge: Judge = exact_reward) -> Tensor:
        return make_step(policy, objective, rollouts(assign, 8, judge=judge).draw(policy, 0).batches)[1]

    return update


def variant_of(name: str, **changes: Any) -> tuple[Callable[..., Tensor], AssignCredit]:
    """How a variant updates a policy, and its credit assignment."""
    variant = resolve(name, changes)
    return updated_by(variant), grpo_credit(variant)


def flipped(assign: AssignCredit) -> AssignCredit:
    """The classic mistake: the same credit with the sign of the advantages reversed."""

    def wrong(model: Any, experience: Experience) -> Credit:
        credit = assign(model, experience)
        return replace(credit, advantages=-credit.advantages)

    return wrong


def require_ascent(update: Tensor, exact: Tensor, bound: float) -> None:
    found = cosine(update, exact)
    assert found > bound, f"cosine {found:.3f} with the exact gradient"


POLICIES = {"reference": lambda: reference(torch.float32), "tuned": lambda: dpo_policy(1.0, torch.float32)}
# Least cosines, for 4096 responses. Dividing by each group's own spread weighs prompts by how little their responses
# differ, so plain GRPO climbs at an angle; the others are off by sampling noise alone.
METHODS = {
    "ppo-monte-carlo": (ppo_update, MONTE_CARLO, 0.95),
    "ppo-gae": (ppo_update, DISCOUNTED, 0.95),
    "grpo": (*variant_of("grpo", kl_coef=0.05), 0.6),
    "grpo-batch": (*variant_of("grpo", kl_coef=0.05, scale_rewards="batch"), 0.95),
    "dr_grpo": (*variant_of("dr_grpo"), 0.95),
    "rloo": (*variant_of("rloo", kl_coef=0.01), 0.95),
    "reinforce++": (*variant_of("reinforce++"), 0.95),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", POLICIES)
def test_the_first_update_climbs_the_exact_expected_reward(start: str, method: str) -> None:
    policy = POLICIES[start]()
    update, assign, bound = METHODS[method]
    exact = gradient(expected_reward(policy), policy)
    require_ascent(update(policy, assign), exact, bound)


@pytest.mark.parametrize("method", ["ppo-gae", "grpo"])
def test_with_the_sign_of_the_advantages_reversed_the_same_check_fails(method: str) -> None:
    policy = reference(torch.float32)
    update, assign, bound = METHODS[method]
    exact = gradient(expected_reward(policy), policy)
    with pytest.raises(AssertionError, match="cosine -"):
        require_ascent(update(policy, flipped(assign)), exact, bound)


def exact_kl(policy: Any) -> Tensor:
    """KL(policy || reference) of whole responses, mean over prompts, with gradient."""
    batch = lay_out(everything())
    anchor = per_response(frozen_scorer(reference(torch.float32))(batch), batch)
    logps = per_response(token_scores(policy, batch).logps, batch)
    return (logps.exp() * (logps - anchor)).sum(dim=1).mean()


@pytest.mark.parametrize("judge", [nothing, exact_reward])
def test_ppo_with_a_kl_penalty_climbs_reward_less_beta_kl(judge: Judge) -> None:
    policy, beta = dpo_policy(1.0, torch.float32), 2.0
    worth = expected_reward(policy) if judge is exact_reward else 0.0
    exact = gradient(worth - beta * exact_kl(policy), policy)
    update = ppo_update(policy, PpoCredit(BATCHING, KlControl(beta), lam=1.0), judge)
    require_ascent(update, exact, 0.9)


def test_grpo_without_reward_goes_back_to_the_reference() -> None:
    policy = dpo_policy(1.0, torch.float32)
    update, assign = variant_of("grpo")
    require_ascent(update(policy, assign, nothing), -gradient(exact_kl(policy), policy), 0.7)


@pytest.mark.parametrize("start", POLICIES)
def test_at_the_first_update_sampler_and_scorer_are_one_policy(start: str) -> None:
    policy = POLICIES[start]()
    model = ActorCritic(policy)
    grpo = GrpoObjective(GRPO, temperature=1.0, max_length=DECODING.max_new_tokens)
    runs = {
        "ppo": (model, PPO, rollouts(MONTE_CARLO, 1, 512)),
        "grpo": (policy, grpo, rollouts(grpo_credit(GRPO), 8, 512)),
    }
    for trained, objective, source in runs.values():
        work = source.draw(trained, 0)
        for batch in work.batches:
            logps = token_scores(policy, batch.trees).logps
            assert ((logps - batch.old_logps).exp() - 1).abs().max() < 1e-4
        metrics, _ = make_step(trained, objective, work.batches)
        assert metrics["policy/ratio"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["sampling/sampling_logp_difference/mean"] < 1e-5
        assert metrics["sampling/sampling_logp_difference/max"] < 1e-4
        assert metrics["clip_ratio/region_mean"] == 0.0
        assert metrics["policy/approxkl"] == pytest.approx(0.0, abs=1e-6)


def test_with_lambda_and_gamma_one_advantages_are_reward_to_go_less_value() -> None:
    model = ActorCritic(dpo_policy(1.0, torch.float32))
    torch.nn.init.normal_(model.value_head.weight, std=0.5)
    kept: list[tuple[Experience, Credit]] = []

    def keep(trained: Any, experience: Experience) -> Credit:
        credit = PpoCredit(BATCHING, KlControl(0.3), lam=1.0)(trained, experience)
        kept.append((experience, credit))
        return credit

    rollouts(keep, 1, 64).draw(model, 0)
    experience, credit = kept[0]
    assert credit.returns is not None and credit.values is not None
    log_ratio = (experience.old_logps - experience.ref_logps).double()
    to_go = torch.stack(
        [
            experience.rewards[k].double() - 0.3 * log_ratio[n:][experience.branch[n:] == k].sum()
            for n, k in enumerate(experience.branch.tolist())
        ]
    )
    torch.testing.assert_close(credit.returns.double(), to_go, rtol=1e-5, atol=1e-5)
    plain = to_go - credit.values.double()
    whitened = (plain - plain.mean()) / plain.std(correction=0)
    assert credit.values.std() > 0.05
    torch.testing.assert_close(credit.advantages.double(), whitened, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantages_sum_to_zero_and_equal_rewards_teach_nothing(scale: str) -> None:
    policy = reference(torch.float32)
    assign = grpo_credit(resolve("grpo", {"scale_rewards": scale}))
    work = rollouts(assign, 8, 512).draw(policy, 0)
    for batch in work.batches:
        first = torch.searchsorted(batch.trees.branch, torch.arange(batch.trees.num_branches))
        of_response = batch.advantages[first]
        assert torch.equal(of_response[batch.trees.branch], batch.advantages), "one advantage for a whole response"
        groups = of_response.view(-1, 8)
        assert groups.abs().max() > 0.1
        torch.testing.assert_close(groups.sum(dim=1), torch.zeros(len(groups)), rtol=0, atol=1e-5)

    def constant(completions: Completions) -> Tensor:
        return nothing(completions) + 0.7  # not a float32 whose mean over 8 is sure to be itself

    work = rollouts(assign, 8, 512, constant).draw(policy, 0)
    assert all(bool((batch.advantages == 0).all()) for batch in work.batches)
    assert work.metrics["frac_reward_zero_std"] == 1.0


def test_the_kl_that_a_rollout_reports_is_the_exact_one() -> None:
    policy = dpo_policy(1.0, torch.float32)
    metrics = rollouts(grpo_credit(GRPO), 8, 8192).draw(policy, 0).metrics
    expected = float(exact_kl(policy).detach())
    # The standard error of 8192 draws is 0.015, measured in test_divergence_estimators.
    assert metrics["kl/sequence_k1"] == pytest.approx(expected, abs=0.06)
    per_token = expected / metrics["completions/mean_length"]
    assert metrics["kl/policy_reference_k3"] == pytest.approx(per_token, abs=0.02)
    assert metrics["reward"] == pytest.approx(float(expected_reward(policy).detach()), abs=0.05)
