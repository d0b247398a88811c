"""The formulas that losses are held against: complete, independent of the losses, right where a value is known."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trueup.losses.catalog import CATALOG
from trueup.preflight.formulas import KL, PAIRS, SHAPED, SINGLES, Sides, clipped

ROOM = Path(__file__).parents[2] / "trueup/preflight"
FAR = st.floats(-20, 20)


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def sides(w: float, x: float, r_w: float, r_x: float, n_w: int = 4, n_x: int = 9) -> Sides:
    return Sides(*map(number, (w, x, n_w, n_x, r_w, r_x)))


def test_they_share_no_code_with_the_losses() -> None:
    for name in ("formulas.py", "expected.py", "recomputed.py"):
        tree = ast.parse((ROOM / name).read_text(encoding="utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [m for m in modules if m.startswith(("trueup.losses", "trueup.ops"))], name


def test_every_loss_that_is_a_sum_over_its_rows_is_there() -> None:
    of = {family: {e.name for e in CATALOG.values() if e.family == family} for family in ("preference", "unpaired")}
    ranked = {entry.name for entry in CATALOG.values() if entry.couples_batch}
    assert of["preference"] - ranked == PAIRS.keys() and of["unpaired"] == SINGLES.keys()


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_the_value_at_the_reference_is_that_of_the_page(name: str) -> None:
    entry = CATALOG[name]
    told = entry.value_at_reference(entry.default_beta)
    if told is None:
        pytest.skip("the page has no such value")
    same = sides(-9.0, -20.0, 0.0, 0.0)
    found = PAIRS[name](same, entry.default_beta or 0.0, {"delta": 0.0})
    assert found.item() == pytest.approx(told, rel=1e-12)


@given(st.floats(-8, 8), st.floats(0.05, 2))
def test_dpo_by_its_definition(margin: float, beta: float) -> None:
    """The probability of the observed order in a Bradley-Terry model of e^(β r)."""
    found = PAIRS["sigmoid"](sides(-9.0, -20.0, margin, 0.0), beta, {}).item()
    assert math.exp(-found) == pytest.approx(math.exp(beta * margin) / (1 + math.exp(beta * margin)), rel=1e-9)


def test_orpo_by_hand() -> None:
    """Token probabilities of 1/2 and 1/4: odds of 1 and 1/3, and a likelihood term of log 2."""
    found = PAIRS["orpo"](sides(4 * math.log(0.5), 9 * math.log(0.25), 0.0, 0.0), 0.1, {}).item()
    assert found == pytest.approx(math.log(2) + 0.1 * math.log(1 + 1 / 3))


@given(FAR)
def test_estimators_of_the_kl_are_positive_and_touch_zero_together(r: float) -> None:
    k1, k2, k3 = (KL[name](number(r)).item() for name in ("k1", "k2", "k3"))
    assert k1 == -r and k2 == r * r / 2 and k3 >= max(0.0, k1 - 1) - 1e-12


@pytest.mark.parametrize("name", sorted(SHAPED))
def test_divergences_agree_to_first_order_at_the_reference(name: str) -> None:
    """f' is shifted so that it is 0 where the policies agree; its slope there is f''(1), of which js has half."""
    small = 1e-6
    slope = SHAPED[name](number(small), 0.5).item() / small
    assert slope == pytest.approx(0.5 if name == "js" else 1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "credit", "loss"),
    [(1.5, 1.0, -1.2), (1.5, -1.0, 1.5), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (9.0, -1.0, 3.0)],
)
def test_the_clipped_loss_by_hand(ratio: float, credit: float, loss: float) -> None:
    """Schulman et al. 2017, figure 1: only a gain is capped; and a cut at 3 for what is bad."""
    assert clipped(number(ratio), number(credit), 0.2, 0.2, 3.0).item() == pytest.approx(loss)
