"""A step whose numbers are not finite says so and changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from step_cases import CASES, Case, drawn, state_of
from torch import nn

from trueup.errors import RunError
from trueup.train.protocols import Tally, Term
from trueup.train.step import TrainState, train_step

CALM, NAN_LOSS, NAN_GRADIENT = "calm", "nan loss", "nan gradient"


class Line(nn.Module):
    """Two weights; the batch says what goes wrong with them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -2.0]))


class LineObjective:
    def units(self, batch: str) -> dict[str, float]:
        return {"token": 1.0}

    def __call__(self, model: Any, batch: str) -> Tally:
        total = {
            CALM: lambda w: (w - 1).square().sum(),
            NAN_LOSS: lambda w: w.sum() * float("nan"),
            # The value is 0; its slope is infinity times 0.
            NAN_GRADIENT: lambda w: (w - w.detach()).abs().sqrt().sum(),
        }[batch](model.weight)
        return Tally({"line": Term(total, "token")})


def snapshot(state: TrainState) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "weights": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scheduler": state.scheduler.state_dict()["last_epoch"],
            "step": state.step,
        }
    )


def same(a: Any, b: Any) -> bool:
    """Equality of nests of tensors and plain values; NaN equals NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return torch.equal(torch.nan_to_num(a, nan=12345.0), torch.nan_to_num(b, nan=12345.0))
    return a == b


@pytest.mark.parametrize("fault", [NAN_LOSS, NAN_GRADIENT])
def test_nothing_is_updated_and_the_next_step_is_as_if_nothing_had_happened(fault: str) -> None:
    state, twin = state_of(Line()), state_of(Line())
    for one in (state, twin):
        train_step(one, LineObjective(), [CALM, CALM], 1.0)
    before = snapshot(state)
    with pytest.raises(RunError, match=r"step 2: .*not finite"):
        train_step(state, LineObjective(), [CALM, fault, CALM], 1.0)
    assert same(snapshot(state), before)
    metrics = [train_step(one, LineObjective(), [CALM, CALM], 1.0) for one in (state, twin)]
    assert metrics[0] == metrics[1]
    assert same(snapshot(state), snapshot(twin))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_method_refuses_a_model_with_a_weight_that_is_not_a_number(case: Case) -> None:
    model, batches = drawn(case, torch.float32, 1_000_000)
    with torch.no_grad():
        next(model.parameters())[5, 0] = float("nan")
    state = state_of(model)
    before = snapshot(state)
    with pytest.raises(RunError, match=r"step 1: .*learning_rate"):
        train_step(state, case.objective(torch.float32), batches, 1.0)
    assert same(snapshot(state), before)
