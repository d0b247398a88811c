"""k1, k2, k3 and the per-state KL against the exact KL between two real models, by enumeration and from samples."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from laboratory import (
    BATCHING,
    DECODING,
    ENCODER,
    WORLD,
    cosine,
    dpo_policy,
    everything,
    flat,
    lay_out,
    per_response,
    reference,
)
from torch import Tensor

from trueup.data.batching import map_tokens
from trueup.data.trees import Tree
from trueup.evaluate.policy import sequence_kl
from trueup.models.forward import frozen_scorer, token_scores
from trueup.models.generate import sample
from trueup.ops.divergences import ESTIMATORS, k1, k2, k3
from trueup.ops.logprobs import sum_by_branch
from trueup.runtime.seeding import generator

DRAWS = 4000
EVERYTHING = lay_out(everything())


def policy_at(share: float, dtype: torch.dtype = torch.float64) -> Any:
    """A policy on the straight line from the reference (0) to a tuned policy (1), in weights."""
    model, tuned = reference(), dpo_policy(1.0)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), tuned.parameters(), strict=True):
            mine.lerp_(theirs, share)
    return model.to(dtype)


@functools.cache
def tokens_at(share: float) -> Tensor:
    """Token log-probabilities ``[N]`` of everything that can be sampled."""
    return frozen_scorer(policy_at(share))(EVERYTHING)


def exact_mean(share: float, values: Tensor) -> Tensor:
    """Expectation, under the policy, of a sum over response tokens of ``values [N]``; per prompt."""
    probability = per_response(tokens_at(share), EVERYTHING).exp()
    return (probability * per_response(values, EVERYTHING)).sum(dim=1)


def exact_kl(share: float) -> Tensor:
    """KL(policy || reference) of whole responses by its definition, per prompt."""
    return exact_mean(share, tokens_at(share) - tokens_at(0.0))


@dataclass(frozen=True)
class Draws:
    """Estimates of KL(policy || reference) from samples of the policy, one a response, ``[P, DRAWS]`` each.

    Attributes:
        by_token: each estimator on the token log-probabilities, summed over the response.
        by_sequence: each estimator on the log-probability of the whole response.
        by_state: the KL of whole next-token distributions, summed over the states of the response.
    """

    by_token: dict[str, Tensor]
    by_sequence: dict[str, Tensor]
    by_state: Tensor


@functools.cache
def draws_at(share: float) -> Draws:
    model, anchor = policy_at(share, torch.float32), reference(torch.float32)
    groups = sample(model, WORLD.prompts(), DRAWS, DECODING, ENCODER.stops, generator(0, "kl", share))
    trees = [Tree(p, tuple(s.tokens for s in group)) for p, group in zip(WORLD.prompts(), groups, strict=True)]
    trees = [Tree(t.prompt, t.responses[i : i + 50]) for t in trees for i in range(0, DRAWS, 50)]
    counts = torch.tensor([len(response) for tree in trees for response in tree.responses])
    branch = torch.arange(len(counts)).repeat_interleave(counts)
    ours = torch.cat([s.logps for group in groups for s in group])
    theirs = map_tokens(trees, frozen_scorer(anchor), BATCHING)

    def summed(values: Tensor) -> Tensor:
        return sum_by_branch(values, branch, len(counts)).total.view(WORLD.num_prompts, DRAWS).double()

    whole = (summed(ours), summed(theirs))
    return Draws(
        by_token={name: summed(estimator(ours, theirs)) for name, estimator in ESTIMATORS.items()},
        by_sequence={name: estimator(*whole) for name, estimator in ESTIMATORS.items()},
        by_state=sequence_kl(model, anchor, trees, BATCHING).view(WORLD.num_prompts, DRAWS).double(),
    )


def agrees(samples: Tensor, expected: Tensor) -> bool:
    """Whether the mean over prompts and draws is within 4 standard errors of its expectation."""
    error = samples.var(dim=1).div(DRAWS).mean().div(WORLD.num_prompts).sqrt()
    return bool((samples.mean() - expected.mean()).abs() < 4 * error)


def test_what_can_be_sampled_has_probability_one() -> None:
    for share in (0.0, 1.0):
        total = per_response(tokens_at(share), EVERYTHING).exp().sum(dim=1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", [k1, k3])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_sums_over_tokens_have_the_exact_kl_as_their_mean(estimator: Any, share: float) -> None:
    found = exact_mean(share, estimator(tokens_at(share), tokens_at(0.0)))
    torch.testing.assert_close(found, exact_kl(share), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["k1", "k3"])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_samples_of_k1_and_k3_agree_with_the_exact_kl(name: str, share: float) -> None:
    draws = draws_at(share)
    assert agrees(draws.by_token[name], exact_kl(share))
    assert agrees(draws.by_sequence[name], exact_kl(share))


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_the_kl_summed_over_sampled_states_is_unbiased_and_varies_least(share: float) -> None:
    draws = draws_at(share)
    assert agrees(draws.by_state, exact_kl(share))
    assert (draws.by_state.var(dim=1) < draws.by_token["k1"].var(dim=1)).all()
    assert (draws.by_state.var(dim=1) < draws.by_token["k3"].var(dim=1)).all()


def test_k3_is_never_negative_and_near_the_reference_varies_less_than_k1() -> None:
    near, far = draws_at(0.1), draws_at(1.0)
    for draws in (near, far):
        assert (draws.by_token["k3"] >= 0).all()
        assert (draws.by_sequence["k3"] >= 0).all()
    assert (near.by_sequence["k1"] < 0).any()
    assert (near.by_sequence["k3"].var(dim=1) < 0.1 * near.by_sequence["k1"].var(dim=1)).all()
    assert (near.by_token["k3"].var(dim=1) < 0.1 * near.by_token["k1"].var(dim=1)).all()


def test_k2_is_half_the_mean_square_log_ratio_and_not_the_kl() -> None:
    log_ratio = per_response(tokens_at(1.0) - tokens_at(0.0), EVERYTHING)
    probability = per_response(tokens_at(1.0), EVERYTHING).exp()
    half_square = (probability * log_ratio * log_ratio).sum(dim=1) / 2
    samples = draws_at(1.0).by_sequence["k2"]
    assert agrees(samples, half_square)
    assert not agrees(samples, exact_kl(1.0))


def test_the_bias_of_k2_vanishes_near_the_reference() -> None:
    bias = []
    for share in (0.1, 0.03, 0.01):
        found = exact_mean(share, k2(tokens_at(share), tokens_at(0.0)))
        bias.append(float((found / exact_kl(share) - 1).abs().max()))
    # Relative to a KL that is itself of second order, the bias is of first order in the distance.
    assert bias[0] > bias[1] > bias[2]
    assert bias[0] / bias[2] == pytest.approx(10, rel=0.2)


def expected_gradients(estimator: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the estimator at fixed samples, averaged over the samples; of KL(p || q); of KL(q || p)."""
    model = policy_at(0.5)
    parameters = list(model.parameters())
    theirs = tokens_at(0.0)
    ours = token_scores(model, EVERYTHING).logps
    whole, anchor = per_response(ours, EVERYTHING), per_response(theirs, EVERYTHING)
    estimate = estimator(whole, anchor)
    values = (
        (whole.detach().exp() * estimate).sum(),
        (whole.exp() * (whole - anchor)).sum(),
        (anchor.exp() * (anchor - whole)).sum(),
    )
    first, second, third = (flat(torch.autograd.grad(value, parameters, retain_graph=True)) for value in values)
    return first, second, third


def test_gradients_of_the_estimators_at_fixed_samples() -> None:
    """k1 has none, k2 has that of KL(policy || reference), k3 that of KL(reference || policy)."""
    of_k1, forward, backward = expected_gradients(k1)
    assert of_k1.norm() < 1e-6 * forward.norm()
    of_k2, of_k3 = expected_gradients(k2)[0], expected_gradients(k3)[0]
    torch.testing.assert_close(of_k2, forward, rtol=0, atol=1e-6 * float(forward.norm()))
    torch.testing.assert_close(of_k3, backward, rtol=0, atol=1e-6 * float(backward.norm()))
    assert cosine(forward, backward) < 0.999, "the two directions must be told apart"
