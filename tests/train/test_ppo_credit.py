"""PPO's credit and losses against float64 loops over single responses, and the coefficient that follows a target.

The definitions, in the order in which they are applied: pay -β (log π_old - log π_ref) at every token and the reward at
the last; scale what was paid to deviation 1, mean kept, if wanted; GAE with the critic, 0 after the end; returns are
advantages plus values; whiten the advantages over all response tokens of the rollout. The value loss is half the
larger of (v - R)² and (v held near v_old - R)².
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from step_cases import batching, causal, rollouts
from torch import nn

from trueup.losses.policy import clipped_surrogate, clipped_value
from trueup.models.actor_critic import ActorCritic
from trueup.train.experience import Credit, Experience
from trueup.train.kl_control import KlControl
from trueup.train.objectives.ppo import PpoCredit
from trueup.train.protocols import StepReport


def experienced(credit: PpoCredit) -> tuple[Experience, Credit]:
    """One rollout of a policy that has left its reference, with a critic that is not zero."""
    kept: list[tuple[Experience, Credit]] = []

    def keep(model: nn.Module, experience: Experience) -> Credit:
        kept.append((experience, credit(model, experience)))
        return kept[0][1]

    model = ActorCritic(causal(torch.float32))
    nn.init.normal_(model.value_head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    rollouts(torch.float32, 10**6, 2, keep).draw(model, 0)
    return kept[0]


def by_response(values: Any, experience: Experience) -> list[NDArray[np.float64]]:
    flat, branch = np.asarray(values, dtype=np.float64), experience.branch.numpy()
    return [flat[branch == k] for k in range(len(experience.rewards))]


def oracle(credit: PpoCredit, experience: Experience, values: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Advantages and returns by loops."""
    log_ratio = by_response(experience.old_logps.double() - experience.ref_logps.double(), experience)
    beta = credit.kl_coef.value if credit.kl_in_reward else 0.0
    paid = [-beta * r for r in log_ratio]
    for k, reward in enumerate(experience.rewards.tolist()):
        paid[k][-1] += reward
    if credit.whiten_rewards:
        every = np.concatenate(paid)
        paid = [(p - every.mean()) / every.std() + every.mean() for p in paid]
    advantages, returns = [], []
    for rewards, value in zip(paid, by_response(values, experience), strict=True):
        running, out = 0.0, np.zeros(len(rewards))
        for t in range(len(rewards) - 1, -1, -1):
            after = value[t + 1] if t + 1 < len(rewards) else 0.0
            running = rewards[t] + credit.gamma * after - value[t] + credit.gamma * credit.lam * running
            out[t] = running
        advantages.append(out)
        returns.append(out + value)
    flat = np.concatenate(advantages)
    whitened = (flat - flat.mean()) / flat.std() if credit.whiten_advantages else flat
    return whitened, np.concatenate(returns)


CREDITS = {
    "as it stands": {},
    "kl in the loss": {"kl_in_reward": False},
    "discounted": {"gamma": 0.9, "lam": 0.5},
    "rewards whitened": {"whiten_rewards": True},
    "nothing whitened": {"whiten_advantages": False, "lam": 1.0},
}


@pytest.mark.parametrize("name", CREDITS)
def test_credit_is_the_definition(name: str) -> None:
    credit = PpoCredit(batching(10**6), KlControl(0.3), **CREDITS[name])
    experience, found = experienced(credit)
    assert found.values is not None and found.returns is not None
    assert found.values.std() > 0.05 and (experience.old_logps - experience.ref_logps).abs().mean() > 0.1
    advantages, returns = oracle(credit, experience, found.values)
    assert found.advantages.numpy() == pytest.approx(advantages, rel=2e-4, abs=2e-4)
    assert found.returns.numpy() == pytest.approx(returns, rel=2e-4, abs=2e-4)
    other = PpoCredit(batching(10**6), KlControl(0.3), **CREDITS["discounted" if not CREDITS[name] else "as it stands"])
    wrong, _ = oracle(other, experience, found.values)
    assert np.abs(wrong - advantages).max() > 0.01, "the settings could not be told apart"


def test_what_is_reported_of_the_reward_has_the_penalty_in_it_wherever_that_is_paid() -> None:
    for in_reward in (True, False):
        experience, found = experienced(PpoCredit(batching(10**6), KlControl(0.3), in_reward))
        total = float((experience.old_logps - experience.ref_logps).double().sum()) / len(experience.rewards)
        expected = float(experience.rewards.mean()) - 0.3 * total
        assert found.metrics["objective/rlhf_reward"] == pytest.approx(expected, rel=1e-5)
        assert found.metrics["objective/kl_coef"] == 0.3


NUMBER = st.floats(-3, 3)


@settings(max_examples=60, deadline=None)
@given(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), st.floats(0.05, 1.0))
def test_losses_of_one_token_by_hand(numbers: tuple[float, float, float, float], clip: float) -> None:
    log_ratio, advantage, value, target = numbers
    one = lambda x: torch.tensor([x], dtype=torch.float64)  # noqa: E731
    ratio = float(np.exp(log_ratio))
    bounded = min(max(ratio, 1 - clip), 1 + clip)
    found = clipped_surrogate(one(log_ratio - 1.0), one(-1.0), one(advantage), clip, clip).loss
    assert found.item() == pytest.approx(max(-ratio * advantage, -bounded * advantage), abs=1e-9)
    held = min(max(value, 0.4 - clip), 0.4 + clip)
    expected = 0.5 * max((value - target) ** 2, (held - target) ** 2)
    assert clipped_value(one(value), one(0.4), one(target), clip).item() == pytest.approx(expected, abs=1e-9)
    assert clipped_value(one(value), one(0.4), one(target), None).item() == pytest.approx(0.5 * (value - target) ** 2)


def told(control: KlControl, *found: float | None) -> float:
    for step, kl in enumerate(found):
        control(StepReport(step, {} if kl is None else {"kl/sequence_k1": kl}))
    return control.value


def test_the_coefficient_rises_above_its_target_falls_below_it_and_rests_on_it() -> None:
    """Ziegler et al. 2019, section 2.2: a tenth of the relative error, which counts up to a fifth."""
    assert told(KlControl(0.2, 6.0), 6.6) == pytest.approx(0.2 * 1.01)
    assert told(KlControl(0.2, 6.0), 5.4) == pytest.approx(0.2 * 0.99)
    assert told(KlControl(0.2, 6.0), 600.0) == pytest.approx(0.2 * 1.02)
    assert told(KlControl(0.2, 6.0), -3.0) == pytest.approx(0.2 * 0.98)
    assert told(KlControl(0.2, 6.0), 6.0) == 0.2


def test_the_coefficient_moves_once_a_rollout_and_not_without_a_target() -> None:
    assert told(KlControl(0.2, 6.0), 9.0, None, None, None) == told(KlControl(0.2, 6.0), 9.0)
    assert told(KlControl(0.2), 9.0, 0.0) == 0.2
    follower, heir = KlControl(0.2, 6.0), KlControl(0.2, 6.0)
    told(follower, 9.0, 9.0)
    heir.restore(follower.state())
    assert heir.value == follower.value != 0.2


def test_with_the_coefficient_a_policy_settles_where_it_is_wanted() -> None:
    """A plant in which the KL divergence is inverse to the coefficient: it ends at the target from either side."""
    for start in (0.01, 3.0):
        control = KlControl(start, 6.0)
        for step in range(1500):
            control(StepReport(step, {"kl/sequence_k1": 0.9 / control.value}))
        assert 0.9 / control.value == pytest.approx(6.0, rel=0.01)
