"""What the value of a clipped objective does not show: gradients, empty responses, overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trueup.preflight.conformance import grpo_faults as faults
from trueup.preflight.conformance.protocol import Inputs, Line, Probe, Subject
from trueup.preflight.conformance.untouched import constant, gradients, left_alone

LOGPS = np.array([[-0.5, -1.5, -0.25], [-2.0, -0.75, -1.0], [-0.4, -0.6, -1.2]])
ADVANTAGES = np.array([1.5, -0.5, 2.0])
MASK = np.array([[True, True, True], [True, True, False], [True, False, False]])


def _inputs(**changed: Any) -> Inputs:
    """Policy, sampler and reference agree on three responses, and ``changed``."""
    made = {
        "logps": LOGPS,
        "old_logps": LOGPS,
        "advantages": ADVANTAGES,
        "mask": MASK,
        "clip": 0.2,
        "ref_logps": LOGPS,
        "beta": 0.1,
    }
    return {**made, **changed}


AGREED = _inputs()
KL_ALONE = _inputs(advantages=np.zeros(3), ref_logps=LOGPS + np.array([[0.5, -0.5, 1.0]]))
EMPTY = _inputs(mask=np.array([[True, True, True], [True, True, False], [False, False, False]]))
FAR = _inputs(old_logps=LOGPS - np.array([[100.0, 0.0, 0.0], [100.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def _weights(unit: str) -> np.ndarray:
    """What a token of ``MASK`` weighs in the mean that the unit stands for, [3, 3]."""
    count = {"tokens": MASK.sum(), "responses": len(MASK) * MASK.sum(1, keepdims=True), "length": MASK.size}
    return MASK / count.get(unit, len(MASK))


def _look_at_gradient(subject: Subject) -> Line:
    check = "gradient with respect to logps"
    found = gradients(subject, AGREED, "logps")["logps"]
    if found is None or not bool((found != 0).any()):
        return Line(check, "fault", (faults.NO_GRADIENT,), "none")
    expected = -ADVANTAGES[:, None] * _weights(subject.convention.partition(", ")[0])
    if np.allclose(found.double().numpy(), expected, rtol=1e-3, atol=1e-5):
        return Line(check, "ok")
    told = f"first token: {float(found[0, 0]):.4g}, not {expected[0, 0]:.4g}"
    return Line(check, "fault", (faults.GRADIENT_SIGN,), told)


def _look_at_kl(subject: Subject) -> Line:
    check = "gradient of the KL term"
    if "ref_logps" not in subject.takes:
        return Line(check, "skipped", text="the function takes no ref_logps")
    found = gradients(subject, KL_ALONE, "logps")["logps"]
    if found is not None and bool((found != 0).any()):
        return Line(check, "ok")
    return Line(check, "fault", (faults.KL_DETACHED,), "none")


def _finite(subject: Subject, inputs: Inputs) -> bool:
    """Are the loss and its gradient finite?"""
    loss = subject.ask(subject.tensors(inputs))
    gradient = gradients(subject, inputs, "logps")["logps"]
    return bool(torch.isfinite(loss).all()) and (gradient is None or bool(gradient.isfinite().all()))


def _look_at_empty(subject: Subject) -> Line:
    if _finite(subject, EMPTY):
        return Line("a response without tokens", "ok")
    return Line("a response without tokens", "fault", (faults.EMPTY,), "the loss or its gradient is not finite")


def _look_far(subject: Subject) -> Line:
    if _finite(subject, FAR):
        return Line("finite 100 nats apart", "ok")
    return Line("finite 100 nats apart", "note", (faults.OVERFLOW,), "the loss or its gradient is not finite")


PROBES = (
    Probe("gradient with respect to logps", _look_at_gradient),
    Probe("gradient of the KL term", _look_at_kl),
    constant(
        _inputs(old_logps=LOGPS + 0.05, ref_logps=LOGPS - 0.1),
        ("old_logps", "ref_logps", "advantages"),
        faults.CONSTANTS,
    ),
    Probe("a response without tokens", _look_at_empty),
    Probe("finite 100 nats apart", _look_far),
    left_alone(AGREED),
)
