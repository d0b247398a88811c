"""How far an update moved the weights: Adam's first step by its definition, and what makes it another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trueup.train.moves import ENTRIES, TENSORS, describe_move, sample_weights
from trueup.train.protocols import Tally, Term
from trueup.train.step import TrainState, train_step

RATE = 1e-3


def weights(dtype: torch.dtype = torch.float32, rows: int = 40) -> list[nn.Parameter]:
    """An embedding of which two rows have a gradient, a matrix, and a vector; gradients of about 1."""
    torch.manual_seed(0)
    out = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((rows, 8), (8, 8), (8,))]
    for weight in out:
        weight.grad = torch.randn_like(weight)
    assert out[0].grad is not None
    out[0].grad[2:] = 0
    return out


def moved_by(optimizer: torch.optim.Optimizer, given: list[nn.Parameter]) -> Any:
    moving = sample_weights(given)
    assert moving is not None
    optimizer.step()
    return describe_move(moving, RATE)


@pytest.mark.parametrize(("epsilon", "size"), [(1e-8, 1.0), (1e3, 1e-3)])
def test_adam_moves_by_the_rate_unless_epsilon_swallows_the_gradient(epsilon: float, size: float) -> None:
    """|g| / (|g| + epsilon); rows without a gradient, which do not move, do not count."""
    given = weights()
    found = moved_by(torch.optim.AdamW(given, lr=RATE, eps=epsilon, weight_decay=0.0), given)
    assert found["update/size"] == pytest.approx(size, rel=0.2 if epsilon > 1 else 1e-3)


def test_plain_descent_moves_by_its_gradient() -> None:
    given = weights(rows=2)
    pulled = torch.cat([w.grad.flatten() for w in given if w.grad is not None])
    found = moved_by(torch.optim.SGD(given, lr=RATE), given)
    assert found["update/size"] == pytest.approx(float(pulled.square().mean().sqrt()), rel=1e-3)


def test_weights_that_are_rounded_after_the_update() -> None:
    def after(rounds: bool, dtype: torch.dtype = torch.float32) -> Any:
        given = weights(dtype)
        optimizer = torch.optim.AdamW(given, lr=RATE)

        @torch.no_grad()
        def cast(*_: Any) -> None:
            for weight in given:
                weight.copy_(weight.bfloat16())

        if rounds:
            optimizer.register_step_post_hook(cast)
        return moved_by(optimizer, given)

    assert after(True)["update/coarse"] == 1.0
    assert after(False)["update/coarse"] == 0.0
    assert "update/coarse" not in after(True, torch.bfloat16)


def test_a_model_that_comes_from_bfloat16_leaves_it_with_its_first_update() -> None:
    given = [nn.Parameter(weight.detach().bfloat16().float()) for weight in weights()]
    for weight, like in zip(given, weights(), strict=True):
        weight.grad = like.grad
    assert moved_by(torch.optim.AdamW(given, lr=RATE), given)["update/coarse"] < 0.05


def test_nothing_is_told_without_a_gradient_or_a_rate() -> None:
    given = weights()
    moving = sample_weights(given)
    assert moving is not None and describe_move(moving, 0.0) == {}
    for weight in given:
        weight.grad = torch.zeros_like(weight)
    assert moved_by(torch.optim.SGD(given, lr=RATE), given) == {}
    for weight in given:
        weight.grad = None
    assert sample_weights(given) is None


def test_the_sample_is_small_and_sees_every_column_of_a_matrix() -> None:
    given = [nn.Parameter(torch.arange(64.0).repeat(64, 1)) for _ in range(5 * TENSORS + 1)]
    for weight in given:
        weight.grad = torch.ones_like(weight)
    moving = sample_weights(given)
    assert moving is not None
    assert len(moving.sources) <= TENSORS and len(moving.before) <= TENSORS * ENTRIES
    assert len(moving.before.unique()) == 64


class Squares:
    def units(self, batch: Any) -> dict[str, float]:
        return {"token": 1.0}

    def __call__(self, model: Any, batch: Any) -> Tally:
        return Tally({"squares": Term((model.weight - 3).square().sum(), "token")})


def test_a_step_reports_it() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    metrics = train_step(TrainState(model, optimizer, schedule), Squares(), [None], 1.0)
    assert metrics["update/size"] == pytest.approx(1.0, rel=0.05)  # of the rate of this step, which is half of RATE
    assert metrics["update/coarse"] < 0.1
