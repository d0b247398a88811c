"""Losses on single responses and on reward scores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.losses.anchored import apo_zero, bco_pair
from trueup.losses.ranking import bradley_terry
from trueup.losses.unpaired import bco, kto
from trueup.types import PairLogps

SCORES = st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=5)


def sample(size: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    logps = -20 * torch.rand(size, generator=rng, dtype=torch.float64)
    return logps, logps + torch.randn(size, generator=rng, dtype=torch.float64), torch.arange(size) % 3 != 0


@pytest.mark.parametrize("loss", [kto, bco])
def test_no_gradient_reaches_the_reference_point(loss) -> None:
    logps, reference, desirable = sample(4)
    point = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    policy = logps.clone().requires_grad_()
    loss(policy, reference, desirable, point, beta=0.3).sum().backward()
    assert point.grad is None
    assert policy.grad is not None and (policy.grad != 0).all()


@pytest.mark.parametrize("loss", [kto, bco])
def test_gradient_is_the_derivative(loss) -> None:
    logps, reference, desirable = sample(5)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, reference, desirable, 0.4, beta=0.3), (logps.clone().requires_grad_(),)
    )


@pytest.mark.parametrize("loss", [kto, bco])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_finite_at_extremes(loss, dtype: torch.dtype) -> None:
    logps = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    value = loss(logps, torch.zeros(4, dtype=dtype), torch.tensor([True, True, False, False]), 0.0, beta=0.1)
    value.sum().backward()
    assert value.dtype == dtype
    assert value.isfinite().all() and logps.grad is not None and logps.grad.isfinite().all()


def test_reference_point_of_kto_is_in_nats_and_that_of_bco_is_a_reward() -> None:
    logps, reference, desirable = sample(6)
    shift = 0.8
    moved = kto(logps, reference + shift, desirable, 0.0, beta=0.3)
    torch.testing.assert_close(kto(logps, reference, desirable, shift, beta=0.3), moved)
    moved = bco(logps, reference + shift, desirable, 0.0, beta=0.3)
    torch.testing.assert_close(bco(logps, reference, desirable, 0.3 * shift, beta=0.3), moved)


def test_paired_forms_are_sums_of_the_unpaired_ones() -> None:
    logps, reference, _ = sample(6)
    count = torch.ones(3)
    pairs = PairLogps(logps[:3], logps[3:], count, count, reference[:3], reference[3:])
    desirable = torch.tensor([True] * 3 + [False] * 3)
    by_side = kto(logps, reference, desirable, 0.0, beta=0.3)
    torch.testing.assert_close(by_side[:3] + by_side[3:], apo_zero(pairs, beta=0.3))
    by_side = bco(logps, reference, desirable, 0.2, beta=0.3)
    torch.testing.assert_close(by_side[:3] + by_side[3:], bco_pair(pairs, beta=0.3, delta=0.2))


def test_kto_weights_scale_their_own_kind_only() -> None:
    logps, reference, desirable = sample(6)
    plain = kto(logps, reference, desirable, 0.1, beta=0.3)
    weighted = kto(logps, reference, desirable, 0.1, beta=0.3, desirable_weight=2.0, undesirable_weight=3.0)
    torch.testing.assert_close(weighted / plain, torch.where(desirable, 2.0, 3.0).double())


def test_paired_bco_reference_point_is_a_constant() -> None:
    delta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    logps, reference, _ = sample(2)
    ones = torch.ones(1)
    pairs = PairLogps(logps[:1].requires_grad_(), logps[1:], ones, ones, reference[:1], reference[1:])
    bco_pair(pairs, beta=0.1, delta=delta).sum().backward()
    assert delta.grad is None


@settings(max_examples=40, deadline=None)
@given(rows=SCORES, shift=st.floats(-5, 5))
def test_scores_are_known_up_to_a_constant_unless_centred(rows: list, shift: float) -> None:
    chosen, rejected = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    torch.testing.assert_close(bradley_terry(chosen + shift, rejected + shift), bradley_terry(chosen, rejected))
    centred = bradley_terry(chosen + shift, rejected + shift, centring=0.1) - bradley_terry(chosen, rejected)
    torch.testing.assert_close(centred, 0.1 * (chosen + rejected + 2 * shift).square(), rtol=1e-6, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=SCORES)
def test_swapping_the_scores_changes_the_loss_by_their_difference(rows: list) -> None:
    chosen, rejected = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    for centring in (0.0, 0.01):
        change = bradley_terry(chosen, rejected, centring=centring) - bradley_terry(rejected, chosen, centring=centring)
        torch.testing.assert_close(change, rejected - chosen, rtol=1e-7, atol=1e-9)


def test_centring_pulls_both_scores_towards_zero_mean() -> None:
    scores = torch.tensor([6.0, 5.0], dtype=torch.float64, requires_grad=True)
    bradley_terry(scores[:1], scores[1:], centring=0.05).sum().backward()
    assert scores.grad is not None and (scores.grad > 0).all()


def test_bradley_terry_gradient_dtype_and_extremes() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: bradley_terry(s[:2], s[2:], margin=0.5, centring=0.02), (scores,))
    for dtype in (torch.float32, torch.bfloat16):
        far = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
        value = bradley_terry(far, far.flip(0).detach(), margin=1.0, centring=0.01)
        value.sum().backward()
        assert value.dtype == dtype and value.isfinite().all()
        assert far.grad is not None and far.grad.isfinite().all()
