"""Policy losses: the direction they push, where they stop pushing, and their numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.losses.policy import cispo, clipped_ratio, clipped_surrogate, clipped_value
from trueup.losses.ratios import sequence_ratio

LOG_RATIO = st.floats(-3.0, 3.0)
ADVANTAGE = st.floats(-5.0, 5.0).filter(lambda a: abs(a) > 1e-3)
TOKENS = st.lists(st.tuples(LOG_RATIO, ADVANTAGE), min_size=1, max_size=6)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tokens(rows: list[tuple[float, float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return log π with gradient, log π_old and advantages."""
    log_ratio, advantages = (doubles(*column) for column in zip(*rows, strict=True))
    old = torch.linspace(-3.0, -0.1, len(rows), dtype=torch.float64)
    return (old + log_ratio).requires_grad_(), old, advantages


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), of)[0]


@pytest.mark.parametrize("loss", [clipped_surrogate, cispo])
def test_on_policy_gradient_is_minus_the_advantage(loss) -> None:
    logps, old, advantages = tokens([(0.0, 1.5), (0.0, -2.0), (0.0, 0.0)])
    result = loss(logps, old, advantages, 0.2, 0.2)
    assert gradient(result.loss, logps).tolist() == pytest.approx([-1.5, 2.0, 0.0])
    assert not result.clipped_low.any() and not result.clipped_high.any()


@pytest.mark.parametrize("loss", [clipped_surrogate, cispo])
def test_one_step_of_descent_raises_what_was_good(loss) -> None:
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    advantages = doubles(1.0, -1.0)  # of the first and of the second of two possible tokens
    for _ in range(3):
        logps = logits.log_softmax(0)
        step = gradient(loss(logps, logps.detach(), advantages, 0.2, 0.2).loss, logits)
        logits = (logits - 0.5 * step).detach().requires_grad_()
    first, second = logits.softmax(0).tolist()
    assert first > 0.7 > 0.3 > second


@settings(max_examples=60, deadline=None)
@given(rows=TOKENS, low=st.floats(0.05, 0.5), high=st.floats(0.05, 0.5))
def test_flags_mark_exactly_the_tokens_without_gradient(rows: list, low: float, high: float) -> None:
    logps, old, advantages = tokens(rows)
    result = clipped_surrogate(logps, old, advantages, low, high)
    slope = gradient(result.loss, logps)
    ratio = (logps.detach() - old).exp()
    assert ((result.clipped_low | result.clipped_high) == (slope == 0)).all()
    assert not (result.clipped_low & (ratio >= 1)).any()
    assert not (result.clipped_high & (ratio <= 1)).any()
    assert (slope * advantages <= 0).all()


@settings(max_examples=60, deadline=None)
@given(rows=TOKENS)
def test_clipping_only_ever_raises_the_loss(rows: list) -> None:
    logps, old, advantages = tokens(rows)
    clipped = clipped_surrogate(logps, old, advantages, 0.2, 0.2).loss
    free = -(logps - old).exp() * advantages
    assert (clipped >= free - 1e-12).all()


def test_bounds_are_separate() -> None:
    logps, old, advantages = tokens([(math.log(1.25), 1.0), (math.log(0.75), -1.0)])
    wide_above = clipped_surrogate(logps, old, advantages, 0.2, 0.28)
    assert wide_above.loss.tolist() == pytest.approx([-1.25, 0.8])
    assert wide_above.clipped_high.tolist() == [False, False]
    assert wide_above.clipped_low.tolist() == [False, True]


def test_delta_bounds_the_loss_of_bad_tokens_only() -> None:
    logps, old, advantages = tokens([(math.log(9.0), -2.0), (math.log(3.0), -2.0), (math.log(9.0), 2.0)])
    result = clipped_surrogate(logps, old, advantages, 0.2, 0.2, delta=4.0)
    assert result.loss.tolist() == pytest.approx([8.0, 6.0, -2.4])
    assert gradient(result.loss, logps).tolist() == pytest.approx([0.0, 6.0, 0.0])
    assert result.clipped_high.tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_surrogate_is_finite_and_keeps_its_direction_at_extremes(dtype: torch.dtype) -> None:
    logps = torch.tensor([1e4, 1e4, -1e4, -1e4], dtype=dtype, requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=dtype)
    result = clipped_surrogate(logps, torch.zeros(4, dtype=dtype), advantages, 0.2, 0.2)
    slope = gradient(result.loss, logps)
    assert result.loss.dtype == dtype
    assert result.loss.isfinite().all() and slope.isfinite().all()
    assert slope[1] > 0  # a bad token that became far likelier is still pushed down


def test_cispo_keeps_the_gradient_of_every_token() -> None:
    rows = [(math.log(4.0), 2.0), (math.log(0.1), -1.0), (math.log(1.1), 3.0)]
    logps, old, advantages = tokens(rows)
    result = cispo(logps, old, advantages, 0.5, 1.0)
    # minus the clipped weight times the advantage: were the weight differentiated too, log π would enter
    assert gradient(result.loss, logps).tolist() == pytest.approx([-2.0 * 2.0, 0.5 * 1.0, -1.1 * 3.0])
    assert result.clipped_high.tolist() == [True, False, False]
    assert result.clipped_low.tolist() == [False, True, False]


def test_cispo_with_low_one_has_no_lower_bound() -> None:
    logps, old, advantages = tokens([(-8.0, 1.0)])
    result = cispo(logps, old, advantages, 1.0, 4.0)
    assert gradient(result.loss, logps).item() == pytest.approx(-math.exp(-8.0))
    assert not result.clipped_low.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cispo_is_finite_at_extremes(dtype: torch.dtype) -> None:
    logps = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
    result = cispo(logps, torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype), 0.2, 0.2)
    assert result.loss.isfinite().all() and gradient(result.loss, logps).isfinite().all()


def test_sequence_ratio_is_the_geometric_mean_of_its_response() -> None:
    ratios = [2.0, 0.5, 4.0, 3.0]
    logps = doubles(*map(math.log, ratios)).requires_grad_()
    branch = torch.tensor([0, 0, 0, 2])  # response 1 is empty
    shared = sequence_ratio(logps, torch.zeros(4, dtype=torch.float64), branch, 3)
    first = (2.0 * 0.5 * 4.0) ** (1 / 3)
    assert shared.tolist() == pytest.approx([first, first, first, 3.0])
    # d/dlogp of the sum over tokens: |y| copies, each with slope ratio / |y|
    assert gradient(shared, logps).tolist() == pytest.approx([first, first, first, 3.0])
    assert gradient(sequence_ratio(logps, torch.zeros_like(logps), branch, 3)[:1], logps).tolist() == pytest.approx(
        [first / 3, first / 3, first / 3, 0.0]
    )


def test_an_empty_response_makes_no_nan_on_the_way_back() -> None:
    logps = doubles(-1.0, -2.0).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        gradient(sequence_ratio(logps, logps.detach(), torch.tensor([0, 2]), 3), logps)


def test_sequence_ratio_of_one_token_responses_is_the_token_ratio() -> None:
    logps, old, advantages = tokens([(0.4, 1.0), (-0.1, -1.0), (0.05, 2.0)])
    ratio = sequence_ratio(logps, old, torch.arange(3), 3)
    whole = clipped_ratio(ratio, advantages, 0.2, 0.2)
    apiece = clipped_surrogate(logps, old, advantages, 0.2, 0.2)
    torch.testing.assert_close(whole.loss, apiece.loss)
    torch.testing.assert_close(gradient(whole.loss, logps), gradient(apiece.loss, logps))


def test_a_response_is_clipped_whole() -> None:
    # One token moved far; on average the response stayed within the bounds, so every token keeps its gradient.
    logps = doubles(0.6, 0.0, 0.0, 0.0, 0.0).requires_grad_()
    ratio = sequence_ratio(logps, doubles(*[0.0] * 5), torch.tensor([0] * 5), 1)
    result = clipped_ratio(ratio, doubles(*[1.0] * 5), 0.2, 0.2)
    assert not result.clipped_high.any()
    assert gradient(result.loss, logps).tolist() == pytest.approx([-math.exp(0.12)] * 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_sequence_ratio_keeps_its_dtype_and_stays_finite(dtype: torch.dtype) -> None:
    logps = torch.tensor([1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    ratio = sequence_ratio(logps, torch.zeros(3, dtype=dtype), torch.tensor([0, 0, 1]), 2)
    assert ratio.dtype == dtype
    assert ratio.isfinite().all() and gradient(ratio, logps).isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=5),
    clip=st.floats(0.05, 2.0),
)
def test_value_loss_is_never_below_the_plain_one_and_points_to_the_return(rows: list, clip: float) -> None:
    values, old, returns = (doubles(*column) for column in zip(*rows, strict=True))
    values.requires_grad_()
    loss = clipped_value(values, old, returns, clip)
    error = (values - returns).detach()
    within = (values - old).abs().detach() < clip
    slope = gradient(loss, values)
    assert (loss >= 0.5 * error.square() - 1e-12).all()
    torch.testing.assert_close(loss[within], 0.5 * error[within].square(), rtol=1e-9, atol=1e-9)
    assert (slope * error >= 0).all()


def test_value_that_has_moved_far_enough_is_left_alone() -> None:
    values, old, returns = doubles(0.5, -0.5, 0.1).requires_grad_(), doubles(0.0, 0.0, 0.0), doubles(1.0, 1.0, 1.0)
    loss = clipped_value(values, old, returns, 0.2)
    assert loss.tolist() == pytest.approx([0.5 * 0.8**2, 0.5 * 1.5**2, 0.5 * 0.9**2])
    assert gradient(loss, values).tolist() == pytest.approx([0.0, -1.5, -0.9])


def test_gradients_are_the_derivatives() -> None:
    logps, old, advantages = tokens([(0.05, 1.0), (-0.7, 2.0), (0.9, -1.0), (0.5, 1.0), (-0.5, -1.0)])
    branch = torch.tensor([0, 0, 1, 1, 1])
    check = torch.autograd.gradcheck
    assert check(lambda x: clipped_surrogate(x, old, advantages, 0.2, 0.3).loss, (logps,))
    assert check(lambda x: clipped_surrogate(x, old, advantages, 0.2, 0.3, delta=2.0).loss, (logps,))
    assert check(lambda x: sequence_ratio(x, old, branch, 2), (logps,))
    assert check(lambda x: clipped_value(x, old, advantages, 0.3), (logps,))
