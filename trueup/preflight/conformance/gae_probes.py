"""What advantages do not show: the returns beside them, gradients to the critic, arguments that were written into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueup.preflight.conformance.protocol import Fault, Inputs, Line, Probe, Subject
from trueup.preflight.conformance.untouched import constant, left_alone

ATTACHED = Fault(
    "gae-values-not-detached",
    "The gradient reaches the values through the advantages.",
    "Without no_grad around the call the policy loss trains the critic to make advantages large, and it learns anyway.",
    "Call it under no_grad, or detach the values.",
)
WRONG_RETURNS = Fault(
    "gae-returns-not-advantages-plus-values",
    "The returns are not advantages + values.",
    "The critic regresses on another target; its loss falls as ever.",
    "returns = advantages + values, with the advantages before whitening.",
)

RESPONSES: Inputs = {
    "rewards": np.array([[0.0, 0.0, 1.0], [0.5, -0.5, 0.25]]),
    "values": np.array([[0.2, 0.4, 0.6], [-0.3, 0.1, 0.7]]),
    "gamma": 0.9,
    "lam": 0.5,
    "mask": np.ones((2, 3), bool),
}
RETURNS = np.array([[0.504, 0.72, 1.0], [0.512375, -0.0725, 0.25]])
"""Of ``RESPONSES``, by hand. Row 1: deltas 0.16, 0.14, 0.4; advantages 0.16 + 0.45 · 0.32, 0.14 + 0.45 · 0.4, 0.4."""


def _second(result: Any) -> Tensor | None:
    if isinstance(result, Mapping):
        found = result.get("returns")
    elif isinstance(result, tuple | list) and len(result) > 1:
        found = result[1]
    else:
        found = getattr(result, "returns", None)
    return found if isinstance(found, Tensor) and found.shape == (2, 3) else None


def _look_at_returns(subject: Subject) -> Line:
    check = "returns = advantages + values"
    with torch.no_grad():
        returns = _second(subject.everything(subject.tensors(RESPONSES)))
    if returns is None:
        return Line(check, "skipped", text="no returns beside the advantages")
    if np.allclose(returns.double().numpy(), RETURNS, atol=1e-4):
        return Line(check, "ok")
    return Line(check, "fault", (WRONG_RETURNS,), f"first token: {float(returns[0, 0]):.4g}, not {RETURNS[0, 0]:.4g}")


PROBES = (
    Probe("returns = advantages + values", _look_at_returns),
    constant(RESPONSES, ("values",), ATTACHED),
    left_alone(RESPONSES),
)
