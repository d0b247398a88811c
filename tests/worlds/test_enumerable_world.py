from __future__ import annotations

import itertools

import numpy as np
import pytest

from trueup.errors import UserError
from trueup.worlds.enumerable import EnumerableWorld, exact_kl

WORLD = EnumerableWorld()
BETAS = (0.05, 0.3, 1.0, 10.0)


def normalised(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def reference() -> np.ndarray:
    shape = WORLD.rewards().shape
    return normalised(np.random.default_rng(7).normal(size=shape))


def objective(logps: np.ndarray, ref: np.ndarray, beta: float) -> np.ndarray:
    """E[r] - beta KL by its definition, one outcome at a time."""
    rewards = WORLD.rewards()
    return np.array(
        [
            sum(np.exp(lp) * (r - beta * (lp - lq)) for lp, lq, r in zip(*rows, strict=True))
            for rows in zip(logps, ref, rewards, strict=True)
        ]
    )


def test_responses_are_all_words_of_each_length_and_end_in_one_eos():
    responses = WORLD.responses()
    assert len(responses) == len(set(responses)) == 6 + 6**2 + 6**3
    assert all(r[-1] == 2 and r.count(2) == 1 and 2 <= len(r) <= 4 for r in responses)


def test_token_ids_of_prompts_and_letters_do_not_overlap():
    assert WORLD.prompts() == [(1, 3 + p) for p in range(16)]
    letters = {token for response in WORLD.responses() for token in response[:-1]}
    assert letters == set(range(19, 25))
    assert WORLD.vocab_size == 25


def test_rewards_have_unit_spread_and_depend_on_the_seed_only():
    rewards = WORLD.rewards()
    assert rewards.shape == (16, 258)
    assert rewards.std() == pytest.approx(1.0)
    assert np.array_equal(rewards, EnumerableWorld().rewards())
    assert not np.allclose(rewards, EnumerableWorld(seed=1).rewards())


def test_rewards_have_structure_over_prompts_letters_and_their_order():
    rewards = WORLD.rewards()
    column = {response: k for k, response in enumerate(WORLD.responses())}
    best = {int(rewards[p].argmax()) for p in range(16)}
    assert len(best) > 3, "the best response must depend on the prompt"
    ab, ba = column[(19, 20, 2)], column[(20, 19, 2)]
    # Letter values and length cancel when two letters change places: what is left is one bigram bonus for all prompts.
    assert np.ptp(rewards[:, ab] - rewards[:, ba]) == pytest.approx(0.0, abs=1e-12)
    assert abs(rewards[0, ab] - rewards[0, ba]) > 1e-3


@pytest.mark.parametrize("beta", BETAS)
def test_optimal_policy_is_normalised_and_its_implicit_reward_is_the_reward(beta: float):
    ref = reference()
    optimal = WORLD.optimal_policy(ref, beta)
    assert np.exp(optimal).sum(axis=1) == pytest.approx(np.ones(16))
    difference = beta * (optimal - ref) - WORLD.rewards()
    assert np.ptp(difference, axis=1) == pytest.approx(np.zeros(16), abs=1e-9)


@pytest.mark.parametrize("beta", BETAS)
def test_optimal_policy_beats_every_perturbation(beta: float):
    ref = reference()
    optimal = WORLD.optimal_policy(ref, beta)
    best = objective(optimal, ref, beta)
    noise = np.random.default_rng(3)
    for scale in (1e-2, 0.3, 3.0):
        other = normalised(optimal + scale * noise.normal(size=optimal.shape))
        assert (objective(other, ref, beta) < best).all()
    assert (objective(ref, ref, beta) < best).all()


def test_an_unnormalised_reference_gives_the_same_policy():
    ref = reference()
    assert WORLD.optimal_policy(ref - 2.5, 0.3) == pytest.approx(WORLD.optimal_policy(ref, 0.3))


def test_a_higher_beta_ends_nearer_the_reference():
    ref = reference()
    kls = [exact_kl(WORLD.optimal_policy(ref, beta), ref) for beta in BETAS]
    assert all((lower > higher).all() for lower, higher in itertools.pairwise(kls))


def test_float32_input_is_computed_in_float64():
    assert WORLD.optimal_policy(reference().astype(np.float32), 0.3).dtype == np.float64


def test_exact_kl_of_known_distributions():
    with np.errstate(divide="ignore"):
        p, q = np.log([[0.5, 0.5, 0.0]]), np.log([[0.25, 0.5, 0.25]])
    assert exact_kl(p, q) == pytest.approx([0.5 * np.log(2)])
    assert exact_kl(q, q) == pytest.approx([0.0])
    assert np.isposinf(exact_kl(q, p)).all()


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_must_be_positive(beta: float):
    with pytest.raises(UserError, match="beta"):
        WORLD.optimal_policy(reference(), beta)


@pytest.mark.parametrize("field", ["alphabet", "max_length", "num_prompts"])
def test_sizes_must_be_positive(field: str):
    with pytest.raises(UserError, match=field):
        EnumerableWorld(**{field: 0})
