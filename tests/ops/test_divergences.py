"""The estimators of one log-ratio: their values, their signs, their precision near zero."""

from __future__ import annotations

from decimal import Decimal, getcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trueup.ops.divergences import ESTIMATORS, k1, k2, k3

LOGP = st.floats(-30, 0, width=32)
getcontext().prec = 40


def both(logp: float, ref: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([logp], dtype=dtype), torch.tensor([ref], dtype=dtype)


@given(LOGP, LOGP)
def test_values_by_exact_arithmetic(logp: float, ref: float) -> None:
    log_ratio = Decimal(ref) - Decimal(logp)
    expected = {"k1": -log_ratio, "k2": log_ratio * log_ratio / 2, "k3": log_ratio.exp() - 1 - log_ratio}
    for name, value in expected.items():
        found = ESTIMATORS[name](*both(logp, ref))
        assert found.item() == pytest.approx(float(value), rel=1e-12, abs=1e-15)


@given(LOGP, st.floats(-3, 3, width=32), st.sampled_from([torch.float32, torch.float64]))
def test_k2_and_k3_are_never_negative(logp: float, log_ratio: float, dtype: torch.dtype) -> None:
    ours, theirs = both(logp, logp + log_ratio, dtype)
    assert k2(ours, theirs) >= 0
    assert k3(ours, theirs) >= 0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_equal_policies_are_at_distance_zero(name: str) -> None:
    logps = torch.linspace(-30, 0, 50)
    assert (ESTIMATORS[name](logps, logps) == 0).all()


def test_near_zero_k3_keeps_its_digits() -> None:
    # exp(r) - 1 - r written out would be rounding noise here.
    ours, theirs = both(0.0, 1e-3, torch.float32)
    assert k3(ours, theirs).item() == pytest.approx(0.5e-6, rel=1e-2)


def test_k1_counts_what_the_policy_has_more_of_as_distance() -> None:
    assert k1(*both(-1.0, -3.0)).item() == 2.0
    assert k1(*both(-3.0, -1.0)).item() == -2.0
    # A token that the policy has all but dropped costs k3 dearly, one that it has taken up costs its log-ratio.
    assert k3(*both(-9.0, -1.0)).item() > 2000
    assert k3(*both(-1.0, -9.0)).item() == pytest.approx(7.0, abs=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_gradients_are_the_derivatives_and_shape_is_kept(estimator) -> None:
    ours = torch.linspace(-4, -0.1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
    theirs = torch.linspace(-1, -3, 6, dtype=torch.float64).view(2, 3)
    assert estimator(ours, theirs).shape == (2, 3)
    assert torch.autograd.gradcheck(lambda logps: estimator(logps, theirs), (ours,))


@pytest.mark.parametrize("away", [89.0, 150.0, 800.0])
def test_k3_of_a_token_that_the_policy_has_dropped_is_large_and_not_infinite(away: float) -> None:
    ours, theirs = both(-away, 0.0, torch.float32)
    ours.requires_grad_()
    assert torch.expm1(-ours).isinf().all() == (away > 88.8), "written out it overflows"
    found = k3(ours, theirs)
    (slope,) = torch.autograd.grad(found.sum(), ours)
    assert found.isfinite().all() and found > 1e17
    # A larger log-probability is still asked for, and the square of the slope still has a float32.
    assert slope < -1e17 and slope.square().isfinite().all()


def test_below_forty_nats_k3_is_what_it_is_written_as() -> None:
    ours = torch.linspace(-40.0, 40.0, 161, dtype=torch.float64)
    written_out = torch.expm1(-ours) + ours
    assert torch.equal(k3(ours, torch.zeros_like(ours)), written_out)
