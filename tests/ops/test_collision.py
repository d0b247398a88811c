"""The probability that two draws of a token agree, for WPO."""

from __future__ import annotations

import math

import pytest
import torch

from trueup.ops.logprobs import Head, linear_token_logps

N, D, V = 23, 5, 11


@pytest.mark.parametrize("chunk", [1, 4 * V + 5, 1 << 20])
def test_it_is_the_sum_of_squares_in_any_chunks_and_without_gradient(chunk: int) -> None:
    rng = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, D, generator=rng, dtype=torch.float64).requires_grad_() for n in (N, V))
    target = torch.randint(V, (N,), generator=rng)
    plain = linear_token_logps(hidden, Head(3 * weight, temperature=0.7), target, chunk)
    found = linear_token_logps(hidden, Head(3 * weight, temperature=0.7), target, chunk, collision=True)
    expected = ((hidden @ (3 * weight).T / 0.7).softmax(dim=1) ** 2).sum(dim=1).log()
    assert plain.collision is None and found.collision is not None
    torch.testing.assert_close(found.collision, expected.detach(), rtol=0, atol=1e-12)
    assert not found.collision.requires_grad
    for one, other in zip(*(torch.autograd.grad(s.logps.sum(), hidden) for s in (plain, found)), strict=True):
        assert torch.equal(one, other)


def test_a_uniform_and_a_certain_distribution() -> None:
    weight = torch.zeros(V, D)
    uniform = linear_token_logps(torch.ones(1, D), Head(weight), torch.zeros(1, dtype=torch.int64), collision=True)
    assert uniform.collision is not None and uniform.collision.item() == pytest.approx(-math.log(V), rel=1e-6)
    weight[3] = 1e4
    certain = linear_token_logps(torch.ones(1, D), Head(weight), torch.zeros(1, dtype=torch.int64), collision=True)
    assert certain.collision is not None and certain.collision.item() == 0.0
