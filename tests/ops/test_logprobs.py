"""Token log-probabilities in chunks against the plain float64 computation, and the one-token shift."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.ops.logprobs import (
    Head,
    linear_exact_kl,
    linear_token_logps,
    predicting_positions,
    sum_by_branch,
)

N, D, V = 23, 6, 11
KINDS = list(itertools.product((False, True), (1.0, 0.3), (None, 2.5), (1.0, 0.7)))
"""Bias, scale, softcap, temperature."""
CHUNKS = (1, V, 7 * V + 3, N * V, 10**6)


def problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias, target."""
    rng = torch.Generator().manual_seed(seed)
    parts = [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((N, D), (V, D), (V,))]
    hidden, weight, bias = (part.to(dtype).requires_grad_() for part in parts)
    return hidden, weight, bias, torch.randint(0, V, (N,), generator=rng)


def head_of(weight: Tensor, bias: Tensor, kind: tuple[bool, float, float | None, float]) -> Head:
    has_bias, scale, softcap, temperature = kind
    return Head(weight, bias if has_bias else None, scale, softcap, temperature)


def plain_logits(hidden: Tensor, weight: Tensor, bias: Tensor, kind: tuple[bool, float, float | None, float]) -> Tensor:
    """The definition in one piece: scale, then the soft cap, then the temperature."""
    has_bias, scale, softcap, temperature = kind
    logits = scale * (hidden @ weight.T + (bias if has_bias else 0.0))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / temperature


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equals_plain_log_softmax_in_any_chunks(kind: tuple) -> None:
    hidden, weight, bias, target = problem()
    log_p = plain_logits(hidden, weight, bias, kind).log_softmax(dim=1)
    expected = log_p[torch.arange(N), target]
    weights = torch.linspace(-1.0, 2.0, N, dtype=torch.float64)
    leaves = [hidden, weight, bias] if kind[0] else [hidden, weight]
    slopes = torch.autograd.grad((expected * weights).sum(), leaves)
    for chunk, kept in itertools.product(CHUNKS, (0, N * V)):
        found = linear_token_logps(hidden, head_of(weight, bias, kind), target, chunk, kept)
        torch.testing.assert_close(found.logps, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(dim=1).detach(), rtol=0, atol=1e-12)
        assert torch.equal(found.top1, target == log_p.argmax(dim=1))
        for slope, other in zip(slopes, torch.autograd.grad((found.logps * weights).sum(), leaves), strict=True):
            torch.testing.assert_close(other, slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids=str)
def test_float32_is_within_rounding_of_float64(kind: tuple) -> None:
    hidden, weight, bias, target = problem(torch.float32)
    exact = plain_logits(hidden.double(), weight.double(), bias.double(), kind).log_softmax(dim=1)
    found = linear_token_logps(hidden, head_of(weight, bias, kind), target, 3 * V)
    assert found.logps.dtype == found.entropy.dtype == torch.float32
    torch.testing.assert_close(found.logps.double(), exact[torch.arange(N), target], rtol=1e-5, atol=1e-5)


def test_half_precision_weights_keep_float32_sums() -> None:
    hidden, weight, bias, target = problem(torch.bfloat16)
    logits = torch.nn.functional.linear(hidden, weight, bias).double()  # rounding before the softmax is the model's own
    found = linear_token_logps(hidden, Head(weight, bias), target, 4 * V)
    assert found.logps.dtype == torch.float32
    torch.testing.assert_close(
        found.logps.double(), logits.log_softmax(dim=1)[torch.arange(N), target], rtol=1e-5, atol=1e-5
    )
    slopes = torch.autograd.grad(found.logps.sum(), [hidden, weight, bias])
    assert all(slope.dtype == torch.bfloat16 for slope in slopes)


@pytest.mark.parametrize("kept", [0, N * V])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_are_the_derivatives(kind: tuple, kept: int) -> None:
    hidden, weight, bias, target = problem()
    hidden, target = hidden[:5].detach().requires_grad_(), target[:5]

    def logps(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_token_logps(hidden, head_of(weight, bias, kind), target, 2 * V, kept).logps

    inputs = (hidden, weight, bias if kind[0] else bias.detach())
    assert torch.autograd.gradcheck(logps, inputs)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    hidden, weight, _, target = problem()
    logps = linear_token_logps(hidden, Head(weight), target).logps
    (slope,) = torch.autograd.grad(logps.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        torch.autograd.grad(slope.square().sum(), hidden)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient_and_does_not_disturb_the_other(frozen: int) -> None:
    hidden, weight, _, target = problem()
    both = torch.autograd.grad(linear_token_logps(hidden, Head(weight), target).logps.sum(), [hidden, weight])
    inputs = [hidden, weight]
    inputs[frozen] = inputs[frozen].detach()
    logps = linear_token_logps(inputs[0], Head(inputs[1]), target).logps
    (alone,) = torch.autograd.grad(logps.sum(), inputs[1 - frozen])
    assert torch.equal(alone, both[1 - frozen])


def test_entropy_and_mode_carry_no_gradient() -> None:
    hidden, weight, _, target = problem()
    found = linear_token_logps(hidden, Head(weight), target)
    assert found.logps.requires_grad
    assert not found.entropy.requires_grad
    assert found.top1.dtype == torch.bool


def test_entropy_of_known_distributions() -> None:
    hidden, target = torch.ones(2, 1), torch.tensor([0, 3])
    uniform = linear_token_logps(hidden, Head(torch.zeros(V, 1)), target)
    assert uniform.entropy.tolist() == pytest.approx([math.log(V)] * 2)
    assert uniform.logps.tolist() == pytest.approx([-math.log(V)] * 2)
    assert uniform.top1.all(), "no other token was more probable"
    certain = linear_token_logps(hidden, Head(torch.tensor([[200.0]] + [[0.0]] * (V - 1))), target)
    assert certain.entropy.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert certain.logps.tolist() == pytest.approx([0.0, -200.0])
    assert certain.top1.tolist() == [True, False]


@settings(max_examples=50, deadline=None)
@given(size=st.floats(0.0, 1e4), seed=st.integers(0, 1000))
def test_extreme_logits_stay_finite(size: float, seed: int) -> None:
    hidden, weight, _, target = problem(torch.float32, seed)
    found = linear_token_logps(hidden * size, Head(weight), target)
    assert found.logps.isfinite().all() and (found.logps <= 0).all()
    assert (found.entropy > -1e-2).all() and (found.entropy < math.log(V) + 1e-5).all()
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(found.logps.sum(), [hidden, weight]))


def test_no_tokens_give_no_scores_and_no_gradient() -> None:
    hidden, weight, bias, target = problem()
    found = linear_token_logps(hidden[:0], Head(weight, bias), target[:0])
    assert found.logps.shape == found.entropy.shape == found.top1.shape == (0,)
    slopes = torch.autograd.grad(found.logps.sum(), [weight, bias])
    assert all(bool((slope == 0).all()) for slope in slopes)


@dataclass(frozen=True)
class Watched(Head):
    """A head that remembers how many logits it made at a time."""

    made: list[int] = field(default_factory=list)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        self.made.append(logits.numel())
        return logits


def test_never_more_logits_at_once_than_asked_for() -> None:
    hidden, weight, _, target = problem()
    head = Watched(weight)
    linear_token_logps(hidden, head, target, 4 * V + 5, kept_logits=0).logps.sum().backward()
    assert max(head.made) == 4 * V
    assert sum(head.made) == 2 * N * V, "once forward, once backward"
    head.made.clear()
    linear_token_logps(hidden, head, target, 4 * V + 5, kept_logits=N * V).logps.sum().backward()
    assert sum(head.made) == N * V, "few enough to be kept"


@pytest.mark.parametrize("chunk", CHUNKS)
def test_exact_kl_is_the_sum_over_the_vocabulary(chunk: int) -> None:
    hidden, weight, bias, _ = problem()
    other_hidden = torch.randn(N, 2 * D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = Head(torch.randn(V, 2 * D, generator=torch.Generator().manual_seed(2), dtype=torch.float64), scale=0.4)
    found = linear_exact_kl(hidden, Head(weight, bias, temperature=0.7), other_hidden, other, chunk)
    logits = ((hidden @ weight.T + bias) / 0.7).detach().numpy(), (0.4 * (other_hidden @ other.weight.T)).numpy()
    p, q = (scipy.special.softmax(z, axis=1) for z in logits)
    assert found.numpy() == pytest.approx(scipy.special.rel_entr(p, q).sum(axis=1), abs=1e-12)
    assert (found > 0).all()
    assert not found.requires_grad


def test_exact_kl_of_a_model_to_itself_is_zero_and_it_has_a_direction() -> None:
    hidden, weight, _, _ = problem()
    head, other = Head(weight), Head(torch.zeros(V, D, dtype=torch.float64))
    assert (linear_exact_kl(hidden, head, hidden, head) == 0).all()
    forward = linear_exact_kl(hidden, head, hidden, other)
    entropy = linear_token_logps(hidden, head, torch.zeros(N, dtype=torch.int64)).entropy
    torch.testing.assert_close(forward, math.log(V) - entropy)  # KL(p || uniform)
    assert (linear_exact_kl(hidden, other, hidden, head) - forward).abs().max() > 0.1
    assert linear_exact_kl(hidden[:0], head, hidden[:0], head).shape == (0,)


@given(prompt_last=st.integers(0, 50), gap=st.integers(0, 30), count=st.integers(0, 20))
def test_a_token_is_predicted_by_the_one_before_it_and_the_first_by_the_prompt(
    prompt_last: int, gap: int, count: int
) -> None:
    first = prompt_last + 1 + gap  # a gap holds sibling responses
    response = list(range(first, first + count))
    path = [prompt_last, *response]
    expected = [path[path.index(token) - 1] for token in response]
    found = predicting_positions(prompt_last, first, count)
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert gap or not count or (found + 1).tolist() == response


@given(st.lists(st.lists(st.floats(-20, 0), max_size=5), min_size=1, max_size=6))
def test_sums_and_counts_of_responses_travel_together(responses: list[list[float]]) -> None:
    branch = torch.tensor([k for k, response in enumerate(responses) for _ in response], dtype=torch.int64)
    values = torch.tensor([value for response in responses for value in response], dtype=torch.float64)
    found = sum_by_branch(values, branch, len(responses))
    assert found.total.tolist() == pytest.approx([math.fsum(response) for response in responses])
    assert found.count.tolist() == [len(response) for response in responses]


def test_heads_that_differ_in_one_setting_differ() -> None:
    hidden, weight, bias, target = problem()
    base = Head(weight, bias, scale=0.5, softcap=3.0, temperature=0.9)
    expected = linear_token_logps(hidden, base, target).logps
    for change in ({"bias": None}, {"scale": 1.0}, {"softcap": None}, {"temperature": 1.0}):
        assert not torch.allclose(linear_token_logps(hidden, replace(base, **change), target).logps, expected)
