"""The catalog says only what is true: names, options, values at the reference, gradient signs."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace

import pytest
import torch

from trueup.errors import UserError
from trueup.losses.catalog import CATALOG, check_divergence, check_options, lookup
from trueup.losses.entry import Loss
from trueup.types import PairLogps

PREFERENCE = [loss for loss in CATALOG.values() if loss.family == "preference"]
WITH_REFERENCE = [loss for loss in PREFERENCE if loss.needs_reference]

NAMES_OF_TRL = {
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm", "simpo", "kto",
}  # fmt: skip


def by_name(loss: Loss) -> str:
    return loss.name


def at_reference(dtype: torch.dtype, equal_lengths: bool = False) -> PairLogps:
    """Pairs whose policy equals their reference; values with few bits, so that bfloat16 holds them exactly."""
    chosen = torch.tensor([-12.0, -3.5, -40.0, -0.25], dtype=dtype)
    rejected = torch.tensor([-9.0, -11.0, -38.0, -2.0], dtype=dtype)
    counts = torch.tensor([6, 2, 20, 1]), torch.tensor([6, 2, 20, 1] if equal_lengths else [3, 7, 25, 1])
    return PairLogps(chosen, rejected, *counts, chosen.clone(), rejected.clone())


def test_key_is_the_name_and_trl_names_are_kept() -> None:
    assert all(key == loss.name for key, loss in CATALOG.items())
    assert set(CATALOG) >= NAMES_OF_TRL


@pytest.mark.parametrize("loss", CATALOG.values(), ids=by_name)
def test_options_are_the_parameters_that_configure_the_function(loss: Loss) -> None:
    data = {
        "pairs", "beta", "chosen_scores", "rejected_scores", "logps", "ref_logps", "old_logps", "desirable",
        "reference_point", "advantages", "values", "old_values", "returns",
    }  # fmt: skip
    parameters = set(inspect.signature(loss.function).parameters)
    assert parameters - data == set(loss.options)
    takes_beta = "beta" in parameters and loss.name != "sft"
    assert takes_beta == (loss.default_beta is not None)


@pytest.mark.parametrize("loss", CATALOG.values(), ids=by_name)
def test_sources_are_complete(loss: Loss) -> None:
    assert re.fullmatch(r"\d{4}\.\d{5}|\d{4}\.\d{4}", loss.paper.arxiv)
    assert loss.paper.year == 2000 + int(loss.paper.arxiv[:2])
    assert loss.paper.authors and loss.equation
    assert (loss.at_reference is None) == bool(loss.no_value)
    units = {"preference": "pair", "ranking": "pair", "unpaired": "sequence", "policy": "token"}
    assert loss.unit == units[loss.family]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", WITH_REFERENCE, ids=by_name)
def test_value_at_the_reference(loss: Loss, dtype: torch.dtype) -> None:
    # log 2 is another number in every dtype; the statement holds to rounding in the dtype at hand.
    expected = loss.value_at_reference()
    if expected is None:
        assert loss.name == "length_controlled"
        expected = math.log(2.0)
    beta = loss.default_beta
    value = loss.function(at_reference(dtype, equal_lengths=loss.at_reference is None), beta=beta)
    own = torch.tensor(expected, dtype=dtype).expand(4)
    torch.testing.assert_close(value, own, rtol=2 * torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "dpop", "aot", "aot_unpaired"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_plain_logistic_losses_start_at_exactly_the_log_2_of_their_dtype(name: str, dtype: torch.dtype) -> None:
    value = CATALOG[name].function(at_reference(dtype), beta=0.3)
    assert value.tolist() == [torch.tensor(math.log(2.0), dtype=dtype).item()] * 4


@pytest.mark.parametrize(
    ("name", "beta", "options"),
    [
        ("ipo", 0.3, {}),
        ("sppo_hard", 0.3, {}),
        ("sigmoid", 0.3, {"label_smoothing": 0.3}),
        ("robust", 0.3, {"label_smoothing": 0.3}),
        ("exo_pair", 0.3, {"label_smoothing": 0.3}),
        ("discopop", 0.3, {"tau": 0.7}),
        ("dpop", 0.3, {"penalty": 3.0}),
        ("bco_pair", 0.3, {"delta": 0.8}),
        ("aot", 0.3, {"label_smoothing": 0.3}),
        ("aot_unpaired", 0.3, {"label_smoothing": 0.3}),
    ],
)
def test_value_at_the_reference_with_options(name: str, beta: float, options: dict[str, float]) -> None:
    expected = CATALOG[name].value_at_reference(beta, **options)
    value = CATALOG[name].function(at_reference(torch.float64), beta=beta, **options)
    assert value.tolist() == pytest.approx([expected] * 4, rel=1e-12)


@pytest.mark.parametrize(("name", "options"), [("kto", {}), ("kto", {"desirable_weight": 1.4}), ("bco", {})])
def test_unpaired_value_at_the_reference(name: str, options: dict[str, float]) -> None:
    loss, logps = CATALOG[name], torch.tensor([-12.0, -3.5])
    value = loss.function(logps, logps, torch.tensor([True, True]), 0.0, beta=0.1, **options)
    assert value.tolist() == pytest.approx([loss.value_at_reference(**options)] * 2)


@pytest.mark.parametrize("loss", PREFERENCE, ids=by_name)
def test_chosen_gradient_at_the_reference(loss: Loss) -> None:
    pairs = at_reference(torch.float64)
    chosen = pairs.chosen.clone().requires_grad_()
    loss.function(replace(pairs, chosen=chosen), beta=loss.default_beta).sum().backward()
    assert chosen.grad is not None
    if loss.chosen_gradient == 0:
        assert chosen.grad.abs().max() < 1e-12
    else:
        assert chosen.grad.sign().tolist() == [loss.chosen_gradient] * 4


@pytest.mark.parametrize("loss", [p for p in PREFERENCE if not p.sign_everywhere], ids=by_name)
def test_losses_said_to_change_sign_do(loss: Loss) -> None:
    """Away from the reference some pair must contradict the sign there; else the catalog is too timid."""
    pairs = at_reference(torch.float64)
    shifts = torch.linspace(-40.0, 40.0, 81, dtype=torch.float64) / (loss.default_beta or 1.0)
    signs = set()
    for shift in shifts:
        chosen = (pairs.chosen + shift).requires_grad_()
        loss.function(replace(pairs, chosen=chosen), beta=loss.default_beta).sum().backward()
        assert chosen.grad is not None
        signs |= set(chosen.grad.sign().tolist())
    assert signs - {float(loss.chosen_gradient or 0), 0.0}


@pytest.mark.parametrize("loss", [u for u in CATALOG.values() if u.family == "unpaired"], ids=by_name)
def test_desirable_gradient_sign_is_the_reverse_of_the_undesirable(loss: Loss) -> None:
    logps = torch.tensor([-12.0, -12.0, 0.0, -30.0], dtype=torch.float64, requires_grad=True)
    reference = torch.full((4,), -11.0, dtype=torch.float64)
    loss.function(logps, reference, torch.tensor([True, False, True, False]), 0.3, beta=0.1).sum().backward()
    assert logps.grad is not None
    assert logps.grad.sign().tolist() == [-1.0, 1.0, -1.0, 1.0]
    assert loss.chosen_gradient == -1


def test_reward_model_gradient_raises_the_chosen_score() -> None:
    chosen = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    CATALOG["bradley_terry"].function(chosen, torch.zeros(3)).sum().backward()
    assert chosen.grad is not None and (chosen.grad < 0).all()


def test_lookup_names_the_nearest() -> None:
    assert lookup("sigmoid") is CATALOG["sigmoid"]
    with pytest.raises(UserError, match="did you mean 'sigmoid'"):
        lookup("sigmod")


def test_lookup_within_a_family_does_not_know_the_others() -> None:
    assert lookup("kto", "unpaired").name == "kto"
    with pytest.raises(UserError, match="no preference loss is called 'kto'") as error:
        lookup("kto", "preference")
    assert "clipped_value" not in str(error.value)


@pytest.mark.parametrize(("name", "here"), [("dpo", "'sigmoid'"), ("cDPO", "label_smoothing"), ("kto", "trueup kto")])
def test_names_from_elsewhere_are_told_what_they_are_here(name: str, here: str) -> None:
    with pytest.raises(UserError, match=f"is called '{name}'; .*{here}.*; known:"):
        lookup(name, "preference")


@pytest.mark.parametrize(
    ("name", "option"),
    [("hinge", "label_smoothing"), ("ipo", "gamma"), ("simpo", "label_smoothing"), ("sft", "beta"), ("kto", "delta")],
)
def test_options_that_do_nothing_are_refused(name: str, option: str) -> None:
    with pytest.raises(UserError, match=f"'{option}' does nothing for loss '{name}'"):
        check_options(lookup(name), {option: 0.1})


def test_misspelt_option_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'label_smoothing'"):
        check_options(lookup("sigmoid"), ["label_smothing"])


@pytest.mark.parametrize("loss", CATALOG.values(), ids=by_name)
def test_own_options_are_accepted(loss: Loss) -> None:
    check_options(loss, loss.options | ({"beta"} if loss.default_beta is not None else set()))


def test_divergences_are_refused_where_the_prompt_term_stays() -> None:
    check_divergence(lookup("sigmoid"), "js")
    check_divergence(lookup("nca_pair"), "reverse_kl")
    with pytest.raises(UserError, match="not valid for loss 'nca_pair'"):
        check_divergence(lookup("nca_pair"), "js")
