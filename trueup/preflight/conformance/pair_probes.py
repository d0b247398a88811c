"""What values of a loss of pairs do not show: its gradient, and what happens far from a margin of 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from trueup.preflight.conformance.protocol import Fault, Inputs, Line, Probe, Subject
from trueup.preflight.conformance.untouched import gradients

DETACHED = Fault(
    "loss-detached",
    "No gradient reaches what is trained, on one side or on both.",
    "The numbers are right; nothing is learnt, or half of it.",
    "Take detach, no_grad, item and numpy out of the loss.",
)
GRADIENT = Fault(
    "wrong-gradient",
    "The gradient is not that of the loss whose values are returned.",
    "The numbers are right, and the model goes elsewhere.",
    "Look for detach on a part, for clamps, and for a straight-through step.",
)
SATURATES = Fault(
    "gradient-saturates",
    "Where a pair is far wrong the loss is cut off and its gradient vanishes, as with log(sigmoid(x) + eps).",
    "Near a margin of 0 all is right; the pairs with the most to learn are left out in silence.",
    "logsigmoid(x) is exact for every x and needs no epsilon.",
)
OVERFLOWS = Fault(
    "overflows",
    "At a large margin the loss or its gradient is infinite or not a number, as with log(sigmoid(x)).",
    "It happens to one pair late in training and ends the run.",
    "logsigmoid(x), or softplus(-x).",
)


def gradient(inputs: Inputs, names: tuple[str, str], margins: np.ndarray, scale: float) -> Probe:
    """The gradient is -scale sigmoid(-margin) on the first of ``names`` and the opposite on the second."""
    check = "gradient"

    def look(subject: Subject) -> Line:
        found = gradients(subject, inputs, *names)
        slope = -scale / (1 + np.exp(margins)) / (len(margins) if subject.convention == "mean" else 1)
        none = [name for name in names if (g := found[name]) is None or not bool((g != 0).any())]
        if none:
            return Line(check, "fault", (DETACHED,), f"none reaches {', '.join(none)}")
        for name, expected in zip(names, (slope, -slope), strict=True):
            value = found[name]
            assert value is not None
            if not np.allclose(value.double().numpy(), expected, rtol=1e-3, atol=1e-6):
                return Line(check, "fault", (GRADIENT,), f"{name}: {float(value[0]):.4g}, expected {expected[0]:.4g}")
        return Line(check, "ok")

    return Probe(check, look)


def stable(at: Callable[[float], Inputs], name: str) -> Probe:
    """``at(margin)`` makes one pair of that scaled margin; far off, the loss is finite and has its gradient."""
    check = "margins of -1000 and 1000"

    def look(subject: Subject) -> Line:
        for margin in (-100.0, -1000.0, 1000.0):
            inputs = at(margin)
            with torch.no_grad():
                loss = float(subject.ask(subject.tensors(inputs)).sum())
            slope = gradients(subject, inputs, name)[name]
            if not np.isfinite(loss) or (slope is not None and not bool(slope.isfinite().all())):
                return Line(check, "fault", (OVERFLOWS,), f"not finite at {margin:g}")
            flat = slope is not None and not bool((slope != 0).any())
            if margin < 0 and (flat or abs(loss + margin) > 0.01 * abs(margin)):
                text = f"at {margin:g} the loss is {loss:.4g}" + (", without a gradient" if flat else "")
                return Line(check, "fault", (SATURATES,), text)
        return Line(check, "ok")

    return Probe(check, look)
