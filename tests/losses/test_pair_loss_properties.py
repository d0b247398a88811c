"""Properties of all losses on pairs: derivatives, symmetry, invariance, extremes, dtypes, independence of pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.errors import UserError
from trueup.losses.catalog import CATALOG
from trueup.losses.entry import Loss
from trueup.losses.implicit import DIVERGENCES, with_divergence
from trueup.types import PairLogps

PREFERENCE = [loss for loss in CATALOG.values() if loss.family == "preference"]
NATS = st.floats(-60.0, -0.01, allow_subnormal=False)
SHIFT = st.floats(-20.0, 20.0, allow_subnormal=False)
COUNT = st.integers(1, 40)


def by_name(loss: Loss) -> str:
    return loss.name


def parametrize_losses(losses: list[Loss]) -> Callable:
    return pytest.mark.parametrize("loss", losses, ids=by_name)


@st.composite
def pair_batches(draw: st.DrawFn, least: int = 1) -> PairLogps:
    size = draw(st.integers(least, 5))
    chosen, rejected, ref_chosen, ref_rejected = (
        torch.tensor(draw(st.lists(NATS, min_size=size, max_size=size)), dtype=torch.float64) for _ in range(4)
    )
    count_w, count_l = (torch.tensor(draw(st.lists(COUNT, min_size=size, max_size=size))) for _ in range(2))
    return PairLogps(chosen, rejected, count_w, count_l, ref_chosen, ref_rejected)


def random_pairs(size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> PairLogps:
    rng = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 30, (2, size), generator=rng)
    policy = -counts * (0.2 + 2 * torch.rand(2, size, generator=rng, dtype=torch.float64))
    reference = policy + 4 * torch.randn(2, size, generator=rng, dtype=torch.float64)
    return PairLogps(*policy.to(dtype), *counts, *reference.to(dtype))


def swapped(pairs: PairLogps) -> PairLogps:
    return PairLogps(
        pairs.rejected, pairs.chosen, pairs.rejected_count, pairs.chosen_count, pairs.ref_rejected, pairs.ref_chosen
    )


def call(loss: Loss, pairs: PairLogps, **options: float) -> Tensor:
    return loss.function(pairs, beta=loss.default_beta, **options)


@parametrize_losses(PREFERENCE)
def test_gradient_is_the_derivative(loss: Loss) -> None:
    pairs = random_pairs(5)
    inputs = (pairs.chosen.clone().requires_grad_(), pairs.rejected.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda w, r: call(loss, replace(pairs, chosen=w, rejected=r)), inputs)


@parametrize_losses(PREFERENCE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_dtype_and_shape_are_kept(loss: Loss, dtype: torch.dtype) -> None:
    for size in (0, 1, 3):
        result = call(loss, random_pairs(size, dtype))
        assert result.dtype == dtype and result.shape == (size,)


@parametrize_losses(PREFERENCE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_value_and_gradient_are_finite_at_extremes(loss: Loss, dtype: torch.dtype) -> None:
    divergences = list(DIVERGENCES) if loss.divergences else ["reverse_kl"]
    corners = torch.tensor(list(itertools.product([-1e4, -1e-30, 0.0, 1e4], repeat=4)), dtype=dtype).T
    for count, divergence in itertools.product((0, 1, 500), divergences):
        chosen, rejected = (side.clone().requires_grad_() for side in corners[:2])
        counts = torch.full((corners.shape[1],), count)
        pairs = PairLogps(chosen, rejected, counts, counts, *corners[2:])
        value = call(loss, with_divergence(pairs, divergence) if divergence != "reverse_kl" else pairs)
        value.sum().backward()
        assert chosen.grad is not None
        assert value.isfinite().all(), divergence
        assert chosen.grad.isfinite().all(), divergence
        assert rejected.grad is None or rejected.grad.isfinite().all(), divergence


@parametrize_losses([loss for loss in PREFERENCE if loss.sign_everywhere])
@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches())
def test_chosen_gradient_has_its_sign_everywhere(loss: Loss, pairs: PairLogps) -> None:
    chosen = pairs.chosen.clone().requires_grad_()
    call(loss, replace(pairs, chosen=chosen)).sum().backward()
    assert chosen.grad is not None and loss.chosen_gradient is not None
    # A hinge beyond its margin and a saturated sigmoid have gradient zero.
    assert (chosen.grad * loss.chosen_gradient >= 0).all()


@parametrize_losses([loss for loss in PREFERENCE if loss.needs_reference])
@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches(), shift_chosen=SHIFT, shift_rejected=SHIFT)
def test_only_the_ratio_to_the_reference_counts(
    loss: Loss, pairs: PairLogps, shift_chosen: float, shift_rejected: float
) -> None:
    assert pairs.ref_chosen is not None and pairs.ref_rejected is not None
    moved = replace(
        pairs,
        chosen=pairs.chosen + shift_chosen,
        ref_chosen=pairs.ref_chosen + shift_chosen,
        rejected=pairs.rejected + shift_rejected,
        ref_rejected=pairs.ref_rejected + shift_rejected,
    )
    # As a sum: rounding may exchange the ranks of two equal margins in the losses that sort.
    torch.testing.assert_close(call(loss, moved).sum(), call(loss, pairs).sum(), rtol=1e-8, atol=1e-8)


@parametrize_losses([loss for loss in PREFERENCE if not loss.needs_reference])
def test_reference_free_losses_do_not_look_at_a_reference(loss: Loss) -> None:
    pairs = random_pairs(4)
    without = replace(pairs, ref_chosen=None, ref_rejected=None)
    assert torch.equal(call(loss, pairs), call(loss, without))


@parametrize_losses([loss for loss in PREFERENCE if loss.needs_reference])
def test_a_missing_reference_is_named(loss: Loss) -> None:
    with pytest.raises(UserError, match="ref_chosen"):
        call(loss, replace(random_pairs(2), ref_chosen=None, ref_rejected=None))


@parametrize_losses([loss for loss in PREFERENCE if loss.divergences])
@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches(), shift=SHIFT)
def test_a_term_in_the_prompt_cancels(loss: Loss, pairs: PairLogps, shift: float) -> None:
    moved = replace(pairs, chosen=pairs.chosen + shift, rejected=pairs.rejected + shift)
    torch.testing.assert_close(call(loss, moved), call(loss, pairs), rtol=1e-8, atol=1e-8)


# aot sees only margins too, but sorts those of policy and reference apart, which no f-divergence form can follow.
@parametrize_losses([p for p in PREFERENCE if p.needs_reference and not p.divergences and p.name != "aot"])
def test_a_term_in_the_prompt_does_not_cancel_elsewhere(loss: Loss) -> None:
    pairs = random_pairs(6)
    shift = torch.linspace(1.0, 6.0, 6, dtype=torch.float64)
    moved = replace(pairs, chosen=pairs.chosen + shift, rejected=pairs.rejected + shift)
    assert not torch.allclose(call(loss, moved), call(loss, pairs))


def scaled_margin(loss: Loss, pairs: PairLogps) -> Tensor:
    assert pairs.ref_chosen is not None and pairs.ref_rejected is not None and loss.default_beta is not None
    return loss.default_beta * (pairs.chosen - pairs.ref_chosen - pairs.rejected + pairs.ref_rejected)


# loss(pair) - loss(swapped pair), from each formula and log sigmoid(x) - log sigmoid(-x) = x
DIFFERENCE: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda x: -x,
    "robust": lambda x: -x / (1 - 2 * 0.1),
    "bco_pair": lambda x: -x,
    "sppo_hard": lambda x: -2 * x / 0.001**2,
}


@pytest.mark.parametrize("name", DIFFERENCE)
@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches())
def test_swapping_the_sides_changes_the_loss_by_the_margin(name: str, pairs: PairLogps) -> None:
    loss = CATALOG[name]
    difference = call(loss, pairs) - call(loss, swapped(pairs))
    torch.testing.assert_close(difference, DIFFERENCE[name](scaled_margin(loss, pairs)), rtol=1e-7, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches())
def test_apo_zero_of_a_pair_and_its_swap_sum_to_two(pairs: PairLogps) -> None:
    both = call(CATALOG["apo_zero"], pairs) + call(CATALOG["apo_zero"], swapped(pairs))
    torch.testing.assert_close(both, torch.full_like(both, 2.0))


@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches(), share=st.floats(0.0, 0.49))
def test_label_smoothing_mixes_a_pair_with_its_swap(pairs: PairLogps, share: float) -> None:
    dpo = CATALOG["sigmoid"]
    mixed = (1 - share) * call(dpo, pairs) + share * call(dpo, swapped(pairs))
    torch.testing.assert_close(call(dpo, pairs, label_smoothing=share), mixed)


@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches(), share=st.floats(0.01, 0.45))
def test_robust_loss_is_unbiased_under_flipped_labels(pairs: PairLogps, share: float) -> None:
    robust = CATALOG["robust"]
    kept, flipped = (call(robust, p, label_smoothing=share) for p in (pairs, swapped(pairs)))
    averaged = (1 - share) * kept + share * flipped
    torch.testing.assert_close(averaged, call(CATALOG["sigmoid"], pairs), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
@settings(max_examples=30, deadline=None)
@given(pairs=pair_batches())
def test_transport_losses_change_by_the_summed_margin_when_swapped(name: str, pairs: PairLogps) -> None:
    loss = CATALOG[name]
    difference = call(loss, pairs).sum() - call(loss, swapped(pairs)).sum()
    torch.testing.assert_close(difference, -scaled_margin(loss, pairs).sum(), rtol=1e-7, atol=1e-7)


@parametrize_losses(PREFERENCE)
def test_losses_follow_their_pairs(loss: Loss) -> None:
    pairs, order = random_pairs(6), torch.tensor([3, 0, 5, 1, 4, 2])
    fields = ("chosen", "rejected", "chosen_count", "rejected_count", "ref_chosen", "ref_rejected")
    moved = PairLogps(**{field: getattr(pairs, field)[order] for field in fields})
    torch.testing.assert_close(call(loss, moved), call(loss, pairs)[order])


@parametrize_losses(PREFERENCE)
def test_pairs_act_alone_unless_the_catalog_says_otherwise(loss: Loss) -> None:
    pairs = random_pairs(6)
    fields = ("chosen", "rejected", "chosen_count", "rejected_count", "ref_chosen", "ref_rejected")
    alone = torch.cat(
        [call(loss, PairLogps(**{field: getattr(pairs, field)[i : i + 1] for field in fields})) for i in range(6)]
    )
    assert torch.allclose(alone, call(loss, pairs)) == (not loss.couples_batch)


@pytest.mark.parametrize("name", ["sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"])
@pytest.mark.parametrize("share", [-0.1, 0.5, 0.9])
def test_label_smoothing_that_would_reverse_labels_is_refused(name: str, share: float) -> None:
    with pytest.raises(UserError, match="label_smoothing"):
        call(CATALOG[name], random_pairs(2), label_smoothing=share)


def test_settings_without_a_meaning_are_refused() -> None:
    with pytest.raises(UserError, match="label_smoothing is 0"):
        call(CATALOG["exo_pair"], random_pairs(2), label_smoothing=0.0)
    with pytest.raises(UserError, match="tau is 1"):
        call(CATALOG["discopop"], random_pairs(2), tau=1.0)


def test_dpop_has_the_stated_slope_below_the_reference() -> None:
    chosen = torch.tensor([-5.0 - 1e-9, -5.0 + 1e-9], dtype=torch.float64, requires_grad=True)
    same = torch.full((2,), -5.0, dtype=torch.float64)
    pairs = PairLogps(chosen, same, torch.ones(2), torch.ones(2), same, same)
    CATALOG["dpop"].function(pairs, beta=0.1, penalty=4.0).sum().backward()
    assert chosen.grad is not None
    below, above = chosen.grad.tolist()
    assert below / above == pytest.approx(1 + 4.0, rel=1e-6)


def test_discopop_pulls_the_wrong_way_only_for_small_tau_and_between_its_stated_extremes() -> None:
    def slope(x: float, tau: float) -> float:
        chosen = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.float64)
        pairs = PairLogps(chosen, zero, zero, zero, zero, zero)
        CATALOG["discopop"].function(pairs, beta=1.0, tau=tau).sum().backward()
        assert chosen.grad is not None
        return chosen.grad.item()

    assert slope(0.0, 0.101) > 0 > slope(0.0, 0.103)
    assert [slope(x, 0.05) > 0 for x in (-0.12, -0.117, 0.071, 0.073)] == [False, True, True, False]
