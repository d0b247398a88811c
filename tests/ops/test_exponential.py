"""The exponential that goes on as a line."""

from __future__ import annotations

import math

import pytest
import torch

from trueup.ops.exponential import EXPONENT_LIMIT, tangent_exp, tangent_expm1


@pytest.mark.parametrize(("ours", "exact"), [(tangent_exp, math.exp), (tangent_expm1, math.expm1)])
def test_exponential_is_exact_up_to_its_limit_and_a_line_beyond(ours, exact) -> None:
    inside = [-800.0, -30.0, -1e-12, 0.0, 1e-12, 3.0, EXPONENT_LIMIT]
    expected = [exact(x) for x in inside]
    assert ours(torch.tensor(inside, dtype=torch.float64)).tolist() == pytest.approx(expected, rel=1e-14)
    near = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(ours(near).sum(), near)[0].tolist() == pytest.approx([math.exp(x) for x in (-3, 0, 3)])
    beyond = torch.tensor([41.0, 140.0], dtype=torch.float64, requires_grad=True)
    value = ours(beyond)
    (slope,) = torch.autograd.grad(value.sum(), beyond)
    assert slope.tolist() == pytest.approx([math.exp(EXPONENT_LIMIT)] * 2)
    assert value.tolist() == pytest.approx([2 * math.exp(EXPONENT_LIMIT), 101 * math.exp(EXPONENT_LIMIT)])
