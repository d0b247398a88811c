"""The loss of a run on pairs: sums of parts, divergences, weights, and refusals of what would do nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trueup.errors import UserError
from trueup.losses.catalog import CATALOG
from trueup.losses.pairs import choose
from trueup.types import PairLogps

PREFERENCE = [loss for loss in CATALOG.values() if loss.family == "preference"]
LOG2 = math.log(2.0)


def pairs_of(chosen: Any, rejected: Any, ref_chosen: Any = -10.0, ref_rejected: Any = -10.0) -> PairLogps:
    """Pairs in float64 whose chosen responses have 4 tokens and rejected ones 2."""

    def column(values: Any) -> Tensor:
        return values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64).reshape(-1)

    w, l = column(chosen), column(rejected)  # noqa: E741
    counts = torch.full_like(w, 4).long(), torch.full_like(w, 2).long()
    return PairLogps(w, l, *counts, column(ref_chosen).expand_as(w), column(ref_rejected).expand_as(w))


def test_mixtures_are_the_papers_sums() -> None:
    # At the reference DPO is log 2 and BCO 2 log 2; the chosen response has 4 tokens and 10 nats.
    pairs = pairs_of([-10.0, -10.0], [-10.0, -10.0])
    nll = 10.0 / 4
    assert choose("mpo").total(pairs).tolist() == pytest.approx([0.8 * LOG2 + 0.2 * 2 * LOG2 + nll] * 2)
    assert choose("rpo").total(pairs).tolist() == pytest.approx([LOG2 + nll] * 2)
    assert choose("mpo").values(pairs)["bco_pair"].tolist() == pytest.approx([2 * LOG2] * 2)


def test_a_mixture_passes_beta_options_and_gradient_to_its_parts() -> None:
    chosen = torch.full((1,), -8.0, dtype=torch.float64, requires_grad=True)
    loss = choose({"hinge": 3.0, "simpo": 0.5}, beta=0.2, options={"simpo": {"gamma": 0.7}})
    value = loss.total(pairs_of(chosen, -10.0))
    gap = 0.2 * (-8.0 / 4 + 10.0 / 2) - 0.7
    assert value.item() == pytest.approx(3.0 * (1 - 0.2 * 2) + 0.5 * math.log(1 + math.exp(-gap)))
    (slope,) = torch.autograd.grad(value.sum(), chosen)
    assert slope.item() == pytest.approx(-3.0 * 0.2 - 0.5 * 0.2 / 4 / (1 + math.exp(gap)))


def test_without_a_beta_every_part_has_its_own() -> None:
    parts = {part.loss.name: part.settings for part in choose({"sigmoid": 1, "simpo": 1, "sft": 1}).parts}
    assert parts == {"sigmoid": {"beta": 0.1}, "simpo": {"beta": 2.0}, "sft": {}}
    own = choose({"sigmoid": 1, "simpo": 1}, beta=0.3, options={"simpo": {"beta": 2.5}})
    assert [part.settings["beta"] for part in own.parts] == [0.3, 2.5]


def test_rewards_are_reported_in_the_beta_of_the_part_with_a_reference() -> None:
    assert choose({"simpo": 1, "ipo": 1}).beta == 0.1
    assert choose("simpo").beta == 2.0
    assert choose("sft").beta == 0.0


def test_a_mixture_needs_a_reference_if_a_part_does() -> None:
    assert choose("mpo").needs_reference and choose({"sft": 1, "aot": 0.1}).couples_batch
    assert not choose({"simpo": 1.0, "sft": 0.1}).needs_reference


@pytest.mark.parametrize("loss", PREFERENCE, ids=lambda loss: loss.name)
def test_a_loss_alone_is_the_catalog_s_function(loss: Any) -> None:
    pairs = pairs_of([-8.0, -13.0, -10.5], [-12.0, -9.0, -10.0])
    beta: dict[str, Any] = {} if loss.default_beta is None else {"beta": 0.7}
    expected = loss.function(pairs, **beta)
    assert torch.equal(choose(loss.name, **beta).total(pairs), expected)


def test_label_smoothing_is_taken_as_given_and_left_to_the_loss_otherwise() -> None:
    pairs = pairs_of([-8.0], [-12.0])
    plain = choose("sigmoid").total(pairs)
    assert torch.allclose(choose("robust", label_smoothing=0.0).total(pairs), plain)
    assert not torch.allclose(choose("robust").total(pairs), plain)
    with pytest.raises(UserError, match="label_smoothing is 0"):
        choose("exo_pair", label_smoothing=0.0)


def test_a_running_mean_reaches_only_the_part_that_has_one() -> None:
    """δ shifts both sides of BCO; a constant that was asked for is not shifted, and DPO never is."""
    pairs = pairs_of([-8.0], [-12.0])
    values = choose("mpo").values(pairs, delta=0.3)
    expected = math.log(1 + math.exp(-(0.2 - 0.3))) + math.log(1 + math.exp(-0.2 - 0.3))
    assert values["bco_pair"].item() == pytest.approx(expected)
    assert torch.equal(values["sigmoid"], choose("sigmoid").total(pairs))
    constant = choose("bco_pair", options={"delta": 0.0})
    assert not constant.running_mean and choose("bco_pair").running_mean
    assert torch.equal(constant.total(pairs, delta=0.3), choose("bco_pair").total(pairs))


def test_a_divergence_changes_the_parts_with_a_reference_alone() -> None:
    """Forward KL: the implicit reward is 1 - π_ref/π; the likelihood of the chosen response stays what it is."""
    pairs = pairs_of([-9.0], [-11.0])
    values = choose("rpo", beta=0.5, divergence="forward_kl").values(pairs)
    margin = 0.5 * ((1 - math.exp(-1.0)) - (1 - math.exp(1.0)))
    assert values["sigmoid"].item() == pytest.approx(math.log(1 + math.exp(-margin)))
    assert values["sft"].item() == pytest.approx(9.0 / 4)
    (near, far) = (choose("sigmoid", beta=0.5, divergence="alpha", alpha=a).total(pairs) for a in (1 - 1e-7, 0.3))
    assert torch.allclose(near, values["sigmoid"])
    assert not torch.allclose(far, values["sigmoid"])


def test_wpo_multiplies_every_part_by_a_constant() -> None:
    """Weights are mean token probabilities over those of a second draw, and no gradient flows through them."""
    chosen = torch.full((1,), -8.0, dtype=torch.float64, requires_grad=True)
    pairs = pairs_of(chosen, -12.0)
    alignment = torch.tensor([-4.0]), torch.tensor([-6.0])
    weight = math.exp((-8.0 + 4.0) / 4 + (-12.0 + 6.0) / 2)
    plain, weighted = choose("rpo"), choose("rpo", weighting="wpo")
    for name, losses in plain.values(pairs).items():
        found = weighted.values(pairs, alignment=alignment)[name]
        assert found.item() == pytest.approx(weight * losses.item())
        slopes = [torch.autograd.grad(values.sum(), chosen)[0].item() for values in (found, losses)]
        assert slopes[0] == pytest.approx(weight * slopes[1])


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"loss": "sigmiod"}, "did you mean 'sigmoid'"),
    ({"loss": "mppo"}, "did you mean 'mpo'"),
    ({"loss": "kto"}, "no preference loss is called 'kto'"),
    ({"loss": {}}, "no parts"),
    ({"loss": {"sigmoid": 0.0}}, "weights must be above 0"),
    ({"loss": {"sigmoid": float("nan")}}, "weights must be above 0"),
    ({"loss": {"sigmiod": 1.0}}, "did you mean 'sigmoid'"),
    ({"loss": {"kto": 1.0}}, "no preference loss"),
    ({"loss": {"sigmoid": 1.0}, "options": {"sft": {}}}, "no part of the mixture"),
    ({"loss": {"hinge": 1.0}, "options": {"hinge": {"gamma": 1.0}}}, "'gamma' does nothing for loss 'hinge'"),
    ({"loss": "rpo", "options": {"label_smoothing": 0.1}}, "must say which part is meant"),
    ({"loss": "sft", "beta": 0.1}, "'beta' does nothing for loss 'sft'; the loss takes no options"),
    ({"loss": "hinge", "label_smoothing": 0.1}, "'label_smoothing' does nothing for loss 'hinge'; the loss takes beta"),
    ({"loss": "hinge", "label_smoothing": 0.0}, "'label_smoothing' does nothing"),
    ({"loss": {"hinge": 1, "sft": 1}, "label_smoothing": 0.1}, "hinge takes beta; sft takes no options"),
    ({"loss": "simpo", "beta": 1.0, "options": {"beta": 2.0}}, "given twice"),
    ({"loss": "simpo", "options": {"beta": -2.0}}, "must be above 0"),
    ({"loss": "simpo", "options": {"gama": 1.0}}, "did you mean 'gamma'"),
    ({"loss": "discopop", "options": {"tau": 2.0}}, "tau is 2.0"),
    ({"loss": "robust", "label_smoothing": 0.5}, "label_smoothing is 0.5"),
    ({"loss": "ipo", "divergence": "js"}, "not valid for loss 'ipo'"),
    ({"loss": "mpo", "divergence": "js"}, "not valid for loss 'bco_pair'"),
    ({"loss": "simpo", "divergence": "js"}, "does nothing for simpo"),
    ({"loss": "sigmoid", "alpha": 0.5}, "alpha does nothing for divergence 'reverse_kl'"),
    ({"loss": "aot", "weighting": "wpo"}, "ranks them against each other"),
]


@pytest.mark.parametrize(("settings", "says"), REFUSALS, ids=[says for _, says in REFUSALS])
def test_what_would_do_nothing_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        choose(**settings)
    assert says in str(caught.value)
