"""What each form of a KL penalty does to a policy, exactly: its expected gradient with nothing else in the loss.

Three gradients must be told apart: that of KL(policy || reference) of whole responses; the same at the states that were
visited, as if the policy did not decide where it goes next; and that of KL(reference || policy) at those states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from laboratory import cosine
from tabular import (
    BATCHING,
    CAP,
    LENGTH,
    MASK,
    REFERENCE,
    REWARDS,
    SAMPLER,
    STATES,
    Table,
    expected_update,
    population,
    probabilities,
    state_after,
    token_logps,
    with_gradient,
)
from torch import Tensor

from trueup.losses.overrides import resolve
from trueup.models.actor_critic import ActorCritic
from trueup.train.kl_control import KlControl
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit
from trueup.train.objectives.ppo import PpoCredit, PpoObjective

ALIKE = population(rewards=torch.zeros_like(REWARDS))
PAID = population()
DRAWN = probabilities(SAMPLER) / 2
TOKENS_PER_RESPONSE = float((DRAWN * LENGTH).sum())
ANCHOR = REFERENCE.log_softmax(dim=0)


def visits() -> Tensor:
    """How often the sampler chooses a token in each state, per response ``[STATES]``."""
    out = torch.zeros(STATES, dtype=torch.float64)
    first = SAMPLER.softmax(dim=0)
    for prompt in (0, 1):
        out[state_after(prompt, None)] += 0.5
        for token in (1, 2):
            out[state_after(prompt, token)] += 0.5 * first[token, prompt]
    return out


def whole(logits: Tensor) -> Tensor:
    """KL(policy || reference) of whole responses."""
    logps = token_logps(logits)
    return (logps.sum(dim=2).exp() * (logps - token_logps(REFERENCE)).sum(dim=2)).sum() / 2


def reverse(logits: Tensor) -> Tensor:
    """KL(policy || reference) at the states that the sampler visits."""
    logps = logits.log_softmax(dim=0)
    return (visits() * (logps.exp() * (logps - ANCHOR)).sum(dim=0)).sum()


def forward(logits: Tensor) -> Tensor:
    """KL(reference || policy) there."""
    return (visits() * (ANCHOR.exp() * (ANCHOR - logits.log_softmax(dim=0))).sum(dim=0)).sum()


def square(logits: Tensor) -> Tensor:
    """Half the mean square log-ratio there."""
    logps = logits.log_softmax(dim=0)
    return (visits() * (logps.exp() * (logps - ANCHOR) ** 2).sum(dim=0)).sum() / 2


def nothing(logits: Tensor) -> Tensor:
    return 0.0 * logits.sum()


FORMS: dict[tuple[str, bool], Callable[[Tensor], Tensor]] = {
    ("k1", False): nothing,
    ("k2", False): reverse,
    ("k3", False): forward,
    ("k1", True): reverse,
    ("k2", True): square,
    ("k3", True): reverse,
}
"""(estimator in the loss, multiplied by the ratio) -> what the expected gradient is that of."""


def test_the_gradients_are_three() -> None:
    """Otherwise the tests below could not tell one form from another."""
    grads = [with_gradient(f, SAMPLER) for f in (whole, reverse, forward, square)]
    for i, one in enumerate(grads):
        assert all(cosine(one, other) < 0.998 for other in grads[:i])


@pytest.mark.parametrize(("estimator", "corrected"), FORMS)
def test_a_penalty_in_the_loss(estimator: str, corrected: bool) -> None:
    # k1 without the ratio is refused in a configuration, for the reason that is shown here.
    base = resolve("bnpo", {"kl_coef": 0.7})
    variant = replace(base, kl_estimator=estimator, kl_corrected=corrected)
    objective = GrpoObjective(variant, temperature=1.0, max_length=CAP)
    update = expected_update(Table(SAMPLER), objective, grpo_credit(variant), ALIKE)
    exact = -0.7 * with_gradient(FORMS[estimator, corrected], SAMPLER) / TOKENS_PER_RESPONSE
    torch.testing.assert_close(update, exact, rtol=0, atol=1e-9)


def test_k1_in_the_reward_is_the_price_of_whole_responses() -> None:
    variant = resolve("rloo", {"kl_coef": 0.7})
    objective = GrpoObjective(variant, temperature=1.0, max_length=CAP)
    update = expected_update(Table(SAMPLER), objective, grpo_credit(variant), ALIKE)
    torch.testing.assert_close(update, -0.7 * with_gradient(whole, SAMPLER), rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_what_is_refused_in_the_reward_would_pull_elsewhere(estimator: str) -> None:
    """E[k ∇ log π] lacks the gradient of k itself, which is not zero for these two."""
    logps, anchor = token_logps(SAMPLER), token_logps(REFERENCE)
    r = (anchor - logps) * MASK
    value = (r.exp() - 1 - r if estimator == "k3" else r * r / 2).sum(dim=2)
    paid = with_gradient(lambda x: (DRAWN * value * token_logps(x).sum(dim=2)).sum(), SAMPLER)
    assert cosine(paid, with_gradient(whole, SAMPLER)) < 0.98


def worth(logits: Tensor, beta: float) -> Tensor:
    return (token_logps(logits).sum(dim=2).exp() * REWARDS).sum() / 2 - beta * whole(logits)


def critic_of(values: Tensor) -> ActorCritic:
    """The policy that sampled with a critic that says these values of the states."""
    model = ActorCritic(Table(SAMPLER))
    model.value_head.weight = torch.nn.Parameter(values[None].double())
    model.value_head.bias = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    return model


def true_values(beta: float) -> Tensor:
    """What the sampler can still expect in each state: rewards less beta times k1."""
    k1 = (token_logps(SAMPLER) - token_logps(REFERENCE)) * beta
    still = REWARDS[..., None] - k1.flip(2).cumsum(2).flip(2)
    total, weight = torch.zeros(2, STATES, dtype=torch.float64)
    for prompt in (0, 1):
        for k, response in enumerate([(0,), *[(a, b) for a in (1, 2) for b in (0, 1, 2)]]):
            states = [state_after(prompt, None), state_after(prompt, response[0])][: len(response)]
            for place, state in enumerate(states):
                total[state] += DRAWN[prompt, k] * still[prompt, k, place]
                weight[state] += DRAWN[prompt, k]
    return total / weight.clamp(min=1e-12)


ZERO, ARBITRARY = torch.zeros(STATES), torch.linspace(-2, 3, STATES)
PPO = PpoObjective(clip=0.2, value_clip=None, vf_coef=0.1, temperature=1.0)


def credit(beta: float, lam: float, in_reward: bool = True) -> PpoCredit:
    return PpoCredit(BATCHING, KlControl(beta), in_reward, lam=lam, whiten_advantages=False)


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("values", [ZERO, ARBITRARY], ids=["no critic", "any critic"])
def test_ppo_with_lambda_one_climbs_the_reward_less_the_kl_whatever_the_critic_says(
    values: Tensor, beta: float
) -> None:
    update = expected_update(critic_of(values), PPO, credit(beta, 1.0), PAID)
    exact = with_gradient(lambda logits: worth(logits, beta), SAMPLER) / TOKENS_PER_RESPONSE
    torch.testing.assert_close(update, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95])
def test_with_a_critic_that_is_right_every_lambda_climbs_it_and_with_a_wrong_one_none(lam: float) -> None:
    exact = with_gradient(lambda logits: worth(logits, 0.7), SAMPLER) / TOKENS_PER_RESPONSE
    update = expected_update(critic_of(true_values(0.7)), PPO, credit(0.7, lam), PAID)
    torch.testing.assert_close(update, exact, rtol=0, atol=1e-6)
    wrong = expected_update(critic_of(ARBITRARY), PPO, credit(0.7, lam), PAID)
    assert (wrong - exact).norm() > 0.01 * exact.norm()


@pytest.mark.parametrize(("estimator", "pull"), [("k2", reverse), ("k3", forward)])
def test_ppo_with_the_penalty_in_the_loss(estimator: str, pull: Callable[[Tensor], Tensor]) -> None:
    objective = replace(PPO, kl_coef=KlControl(0.7), kl_estimator=estimator)
    update = expected_update(critic_of(ARBITRARY), objective, credit(0.7, 1.0, in_reward=False), PAID)
    climb = with_gradient(lambda logits: worth(logits, 0.0), SAMPLER) - 0.7 * with_gradient(pull, SAMPLER)
    torch.testing.assert_close(update, climb / TOKENS_PER_RESPONSE, rtol=0, atol=1e-6)


def test_whitening_scales_the_step_and_does_not_turn_it() -> None:
    """Whitened over all tokens, as here; the mean that is taken off is a baseline that is the same everywhere."""
    whitened = expected_update(critic_of(ARBITRARY), PPO, replace(credit(0.7, 1.0), whiten_advantages=True), PAID)
    plain = expected_update(critic_of(ARBITRARY), PPO, credit(0.7, 1.0), PAID)
    assert cosine(whitened, plain) > 1 - 1e-9
