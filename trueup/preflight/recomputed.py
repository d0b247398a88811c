"""The loss of a few rows and its gradient, against the same computed here in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trueup.health.findings import Finding
from trueup.models.forward import backbone_of
from trueup.preflight.expected import Said, expected_loss
from trueup.preflight.modes import mode
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.ppo import PpoObjective
from trueup.train.step import count_units, step_loss

CHECK = "loss recomputed"
AWAY = 2.0
"""Nats by which the first token of a response is put away from reference and sampler: beyond every bound on a ratio."""
RIPPLE = 0.5
"""Nats for the other tokens, each another amount: a value that is given to the wrong token shows."""
TOLERANCE, IN_HALF = 1e-3, 2e-2
"""Relative difference that rounding explains, in float32 and in half precision; a loss below ``LEAST`` counts as it."""
LEAST = 0.01
REFERENCE = "F29, F39, F54, F65, F66, F88, F102 of the catalogue of silent failures"


@dataclass(frozen=True)
class _Slope:
    """A loss, and its gradient with respect to the last hidden states."""

    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class _Comparison:
    """What the objective gives, what the formula gives, and how far their gradients are apart as a share."""

    found: float
    expected: float
    distance: float

    @property
    def off(self) -> float:
        """Difference of the values as a share."""
        return abs(self.found - self.expected) / max(abs(self.expected), LEAST)

    def right(self, tolerance: float) -> bool:
        """Written so that NaN is wrong."""
        return self.off <= tolerance and self.distance <= tolerance


def check_recomputed(subject: Subject, sample: Sample) -> Outcome:
    """Compare at two policies that are away from reference and sampler, one up and one down.

    Both sides read the same log-probabilities, which other checks are about: what is judged is all that the objective
    makes of them, down to the division by its units.
    """
    compared = [_compare(subject, moved_away(sample.some, sign)) for sign in (1.0, -1.0)]
    found = [comparison for comparison in compared if comparison is not None]
    if len(found) < len(compared):
        return skipped(CHECK, f"the formula of {_name(subject)} is not written down a second time")
    tolerance = IN_HALF if subject.half else TOLERANCE
    wrong = [comparison for comparison in found if not comparison.right(tolerance)]
    values, slopes = (max(getattr(c, what) for c in found) for what in ("off", "distance"))
    told = (
        f"{_name(subject)} away from its start: value within {values:.0e} of its formula, gradient within {slopes:.0e}"
    )
    return made(CHECK, told, [_wrong(_name(subject), wrong[0])] if wrong else [])


def moved_away(batch: Any, sign: float) -> Any:
    """The batch as it would be with a policy that has moved: only what it says of reference and sampler is changed.

    Responses are put off by turns up and down; credits are 1 and -1 by turns, a reference point is half a nat.
    """
    trees = batch.trees
    turn = 1.0 - 2.0 * (trees.branch % 2)
    first = torch.ones_like(trees.branch, dtype=torch.bool)
    first[1:] = trees.branch[1:] != trees.branch[:-1]
    ripple = RIPPLE * torch.sin(1.0 + 2.4 * torch.arange(len(trees.branch), device=trees.branch.device))
    away = sign * (AWAY * turn * first + ripple)
    names = [name for name in ("ref_logps", "old_logps", "old_values") if getattr(batch, name, None) is not None]
    changes: dict[str, Any] = {name: getattr(batch, name) - away.to(getattr(batch, name)) for name in names}
    if getattr(batch, "advantages", None) is not None:
        changes["advantages"] = (turn + ripple).to(batch.advantages)
    if getattr(batch, "reference_point", None) is not None:
        changes["reference_point"] = 0.5
    return replace(batch, **changes)


def _compare(subject: Subject, batch: Any) -> _Comparison | None:
    objective = subject.objective

    def own() -> Tensor:
        return step_loss(objective(subject.trained, batch), count_units(objective, [batch]))

    with mode(subject.trained, False):
        formula = _slope(subject, lambda: expected_loss(objective, batch, _listen(subject, batch)))
        if formula is None:
            return None
        found = _slope(subject, own)
    assert found is not None
    gap = (
        float((found.gradient - formula.gradient).norm()) if len(found.gradient) == len(formula.gradient) else math.inf
    )
    # A gradient of nothing, of a hinge for instance, is compared with the size of what a loss usually has.
    return _Comparison(found.loss, formula.loss, gap / max(float(formula.gradient.norm()), 1e-4))


def _listen(subject: Subject, batch: Any) -> Said:
    if isinstance(subject.objective, PpoObjective):
        output = subject.trained(batch.trees, subject.temperature)
        return Said(output.scores.logps.double(), output.values.double())
    return Said(subject.observe(batch.trees).double())


def _slope(subject: Subject, loss_of: Callable[[], Tensor | None]) -> _Slope | None:
    """The loss and its gradient at the last hidden states: that far it is known what to expect, and it is cheap."""
    with _cut(backbone_of(subject.policy)) as hidden:
        loss = loss_of()
    if loss is None:
        return None
    reached = hidden and loss.requires_grad
    gradients = torch.autograd.grad(loss, hidden, allow_unused=True) if reached else [None] * len(hidden)
    return _Slope(float(loss.detach()), _joined(hidden, gradients))


def _joined(hidden: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """One vector; where no gradient arrives it is 0."""
    parts = [torch.zeros_like(h) if g is None else g for h, g in zip(hidden, gradients, strict=True)]
    return torch.cat([part.double().flatten() for part in parts]) if parts else torch.zeros(0)


@contextmanager
def _cut(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Make what the backbone gives a leaf of the graph, and collect it."""
    leaves: list[Tensor] = []

    def cut(module: nn.Module, given: Any, output: Any) -> Any:
        if getattr(output, "last_hidden_state", None) is None:
            return output
        leaves.append(output.last_hidden_state.detach().requires_grad_())
        output.last_hidden_state = leaves[-1]
        return output

    handle = backbone.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()


def _name(subject: Subject) -> str:
    objective: Any = subject.objective
    loss = getattr(objective, "loss", None) or getattr(objective, "variant", None)
    return subject.method if loss is None else loss.name


def _wrong(name: str, worst: _Comparison) -> Finding:
    message = (
        f"From the same log-probabilities, away from reference and sampler, the formula of {name} gives "
        f"{worst.expected:.6g} and this run's loss is {worst.found:.6g}; its gradient is off by {worst.distance:.0%}."
    )
    remedy = "The run would train on another loss than it names: hold what it computes against docs/losses.md."
    evidence = {"loss": worst.found, "expected_loss": worst.expected, "gradient_difference": worst.distance}
    return Finding("loss-recomputed", "fatal", 0, message, remedy, evidence, REFERENCE)
