"""What follows a run: a running mean, and a reference that moves towards the policy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trueup.errors import UserError
from trueup.train.companions import Accompanied, MovingReference, RunningMean
from trueup.train.protocols import StepReport, Work

REWARDS = st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 2), min_size=1, max_size=20)


@given(REWARDS, st.data())
def test_a_running_mean_is_the_mean_and_survives_a_checkpoint(rewards: list[tuple[float, float]], data: Any) -> None:
    """Saved as JSON anywhere and restored, it goes on bit for bit."""
    stop = data.draw(st.integers(0, len(rewards)))
    whole, part = RunningMean("w", "l"), RunningMean("w", "l")
    assert whole.value == 0.0
    for step, (wanted, other) in enumerate(rewards):
        if step == stop:
            saved = json.loads(json.dumps(part.state()))
            part = RunningMean("w", "l")
            part.restore(saved)
        for mean in (whole, part):
            mean(StepReport(step + 1, {"w": wanted, "l": other, "loss": 7.0}))
    assert part.value == whole.value
    assert whole.value == pytest.approx(sum(map(sum, rewards)) / 2 / len(rewards), abs=1e-9)


def linear(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(2, 1, dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(value)
    return layer


def test_the_reference_moves_after_every_third_step_and_in_no_other() -> None:
    policy, reference = linear(1.0), linear(0.0)
    moving = MovingReference(reference, policy, every=3, mixup=0.6)
    seen = []
    for step in range(1, 8):
        moving(StepReport(step, {}))
        seen.append(reference.weight[0, 0].item())
    assert seen == pytest.approx([0.0, 0.0, 0.6, 0.6, 0.6, 0.84, 0.84])
    assert reference.bias.item() == pytest.approx(0.84)
    assert policy.weight[0, 0].item() == 1.0


def test_a_mixup_of_one_copies_the_policy() -> None:
    policy, reference = linear(0.123, torch.bfloat16), linear(0.5, torch.bfloat16)
    MovingReference(reference, policy, every=1, mixup=1.0)(StepReport(1, {}))
    assert torch.equal(reference.weight, policy.weight)


def test_a_reference_of_another_shape_cannot_be_mixed() -> None:
    with pytest.raises(UserError, match="must have the policy's shape"):
        MovingReference(nn.Linear(3, 1), linear(0.0), every=1, mixup=0.5)


@dataclass
class Counter:
    """A source that counts its draws."""

    draws: list[int] = field(default_factory=list)

    def draw(self, model: nn.Module, step: int) -> Work:
        self.draws.append(step)
        return Work([step])

    def state(self) -> dict[str, Any]:
        return {"draws": list(self.draws)}

    def restore(self, state: dict[str, Any]) -> None:
        self.draws = state["draws"]


def test_companions_are_saved_beside_the_source() -> None:
    policy, reference = linear(1.0), linear(0.25)
    saved = Accompanied(Counter([0, 1]), {"reference": MovingReference(reference, policy, 1, 0.5)}).state()
    fresh_source, fresh = Counter(), linear(9.0)
    restored = Accompanied(fresh_source, {"reference": MovingReference(fresh, policy, 1, 0.5)})
    restored.restore(saved)
    assert torch.equal(fresh.weight, reference.weight)
    assert restored.draw(policy, 2).batches == [2] and fresh_source.draws == [0, 1, 2]
