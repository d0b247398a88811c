"""What values of a divergence estimate do not show: its gradient, its zero, and its size far from the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trueup.preflight.conformance.protocol import Fault, Inputs, Line, Probe, Subject
from trueup.preflight.conformance.untouched import gradients, left_alone

K1_AS_LOSS = Fault(
    "kl-k1-as-loss",
    "k1 is right as a number and as a penalty in the reward; added to a loss it has an expected gradient of 0.",
    "The curve of the divergence is right, and the coefficient changes nothing.",
    "In a loss use k2, or k3, or take k1 off the reward.",
)
DETACHED = Fault(
    "kl-detached",
    "No gradient reaches the policy.",
    "As a penalty in the reward that is meant; in a loss it adds a constant.",
    "If it is a term of the loss, take the detach or no_grad off.",
)
GRADIENT = Fault(
    "kl-gradient",
    "The gradient is not that of the estimate.",
    "The numbers are right, and the policy is pulled with another strength or another way.",
    "Detach the reference alone, and neither of the terms with the policy.",
)
NOT_ZERO = Fault(
    "kl-not-zero",
    "Where policy and reference are equal the estimate is not 0.",
    "",
    "Look for a term that is there at equality: a missing -1, an epsilon, noise.",
)
OVERFLOW = Fault(
    "kl-overflow",
    "A token that the reference finds e^100 times likelier gives infinity.",
    "It is rare; one such token ends the run or, clipped away, its update.",
    "Cut the exponent of k3 off, or continue it along a line.",
)


def _inputs(difference: np.ndarray) -> Inputs:
    """Log-probabilities of two responses [2, 3] whose log pi - log pi_ref is ``difference``."""
    logp = np.minimum(-1.5, -1.5 + difference)
    return {"logps": logp, "ref_logps": logp - difference, "mask": np.ones(logp.shape, bool)}


APART = _inputs(np.array([[0.5, -0.4, 1.0], [-0.8, 0.2, -1.2]]))
EQUAL = _inputs(np.zeros((2, 3)))
FAR = _inputs(np.array([[-100.0, 0.1, -0.1], [0.2, 0.3, -0.2]]))
SLOPES = {"k1": np.ones_like, "k2": lambda d: d, "k3": lambda d: 1 - np.exp(-d)}


def _look_at_gradient(subject: Subject) -> Line:
    check = "gradient with respect to logps"
    found = gradients(subject, APART, "logps")["logps"]
    if found is None:
        return Line(check, "note", (DETACHED,), "none")
    estimator, _, unit = subject.convention.partition(", ")
    slope = SLOPES[estimator](APART["logps"] - APART["ref_logps"])
    expected = slope / slope.size if unit == "mean" else slope
    if not np.allclose(found.double().numpy(), expected, rtol=1e-3, atol=1e-5):
        return Line(check, "fault", (GRADIENT,), f"first token: {float(found[0, 0]):.4g}, not {expected[0, 0]:.4g}")
    if estimator == "k1":
        return Line(check, "note", (K1_AS_LOSS,), "1 for every token, wherever the reference is")
    return Line(check, "ok")


def _asked(subject: Subject, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return subject.ask(subject.tensors(inputs))


def _look_at_zero(subject: Subject) -> Line:
    largest = float(_asked(subject, EQUAL).abs().max())
    if largest < 1e-6:
        return Line("0 at equality", "ok")
    return Line("0 at equality", "fault", (NOT_ZERO,), f"up to {largest:.3g}")


def _look_far(subject: Subject) -> Line:
    if bool(_asked(subject, FAR).isfinite().all()):
        return Line("finite 100 nats apart", "ok")
    return Line("finite 100 nats apart", "note", (OVERFLOW,), "infinite or not a number in float32")


PROBES = (
    Probe("gradient with respect to logps", _look_at_gradient),
    Probe("0 at equality", _look_at_zero),
    Probe("finite 100 nats apart", _look_far),
    left_alone(APART),
)
