"""Two properties of a function of any kind: its inputs are as they were, and what is constant has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from trueup.preflight.conformance.protocol import Fault, Inputs, Line, Probe, Subject

INPUTS_CHANGED = Fault(
    "inputs-changed",
    "The function writes into its arguments.",
    "The caller goes on with other numbers than it had, and the first result is right.",
    "Replace operations in place (`x -= y`, `x.sub_()`, `x[mask] = 0`) by ones that make a new tensor.",
)


def left_alone(inputs: Inputs) -> Probe:
    """Every argument is bit for bit what it was before the call."""

    def look(subject: Subject) -> Line:
        given = subject.tensors(inputs)
        before = {name: value.clone() for name, value in given.items() if isinstance(value, Tensor)}
        with torch.no_grad():
            subject.ask(given)
        changed = [name for name, value in before.items() if not torch.equal(value, given[name])]
        if changed:
            return Line("inputs are left alone", "fault", (INPUTS_CHANGED,), f"changed: {', '.join(changed)}")
        return Line("inputs are left alone", "ok")

    return Probe("inputs are left alone", look)


def gradients(subject: Subject, inputs: Inputs, *names: str, power: int = 1) -> dict[str, Tensor | None]:
    """Gradient of the sum of the result's powers with respect to ``names``; None where the result has no such path."""
    given = subject.tensors(inputs, *names)
    result = subject.ask(given)
    if not result.requires_grad:
        return dict.fromkeys(names)
    found = torch.autograd.grad(result.pow(power).sum(), [given[name] for name in names], allow_unused=True)
    return dict(zip(names, found, strict=True))


def constant(inputs: Inputs, names: tuple[str, ...], fault: Fault) -> Probe:
    """A note if the gradient reaches what ought to be a constant: harmless for callers who detach it themselves."""
    check = f"no gradient reaches {', '.join(names)}"

    def look(subject: Subject) -> Line:
        # Of the cubes: whitened advantages have a sum of 0, and squares of n - 1, whatever the values are.
        found = gradients(subject, inputs, *(name for name in names if name in subject.takes), power=3)
        reached = [name for name, gradient in found.items() if gradient is not None and bool((gradient != 0).any())]
        return Line(check, "note", (fault,), f"it reaches {', '.join(reached)}") if reached else Line(check, "ok")

    return Probe(check, look)
