"""What values of log-probabilities do not show: gradient, neighbours, empty rows, large logits, narrow floats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trueup.preflight.conformance.protocol import Fault, Inputs, Line, Probe, Subject
from trueup.preflight.conformance.untouched import gradients, left_alone

DETACHED = Fault(
    "logps-detached",
    "No gradient reaches the logits.",
    "The loss is right and never moves.",
    "Take no_grad, detach, numpy and item out of the policy's path.",
)
NEIGHBOURS = Fault(
    "depends-on-the-batch",
    "A row alone does not give what it gave among others, in value or in shape.",
    "With full batches of one size it cannot be seen; the last batch and the evaluation differ.",
    "Look for squeeze() without a dimension, and for means over the batch.",
)
EMPTY = Fault(
    "empty-mask-nan",
    "A row without response tokens gives NaN or infinity.",
    "It happens when a response is truncated away, once in many batches, and ends the run.",
    "0 for such a row: do not divide by a count that may be 0, do not multiply -inf by 0.",
)
UNSTABLE = Fault(
    "unstable-log-softmax",
    "Large logits give infinity, NaN or a value that an epsilon has cut.",
    "Random models have small logits; a trained one, sure of another token, does not.",
    "log_softmax, or x - logsumexp(x), in place of log(softmax(x)) and log(softmax(x) + eps).",
)
NARROW = Fault(
    "rounds-narrow-logits",
    "Given bfloat16 logits the log-probabilities are rounded to bfloat16.",
    "The error of a sum is as large as many a margin, and it looks like noise.",
    "logits.float() before log_softmax; sums in float32.",
)


def _inputs(rows: int = 3, length: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    ids = rng.integers(0, 9, (rows, length))
    mask = np.arange(length) >= np.array([[2], [3], [4]])[:rows]
    logits = 2 * rng.standard_normal((rows, length, 9))
    return {"logits": logits, "ids": ids, "mask": mask, "labels": np.where(mask, ids, -100)}


PLAIN = _inputs()


def _asked(subject: Subject, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return subject.ask(subject.tensors(inputs))


def _look_at_gradient(subject: Subject) -> Line:
    check = "gradient reaches the logits"
    found = gradients(subject, PLAIN, "logits")["logits"]
    if found is None or not bool((found != 0).any()):
        return Line(check, "fault", (DETACHED,), "none")
    return Line(check, "ok")


def _look_alone(subject: Subject) -> Line:
    check = "a row alone"
    among = _asked(subject, PLAIN)[:1]
    alone = _asked(subject, {name: value[:1] for name, value in PLAIN.items()})
    if alone.shape == among.shape and torch.allclose(alone, among, rtol=1e-4, atol=1e-5):
        return Line(check, "ok")
    return Line(check, "fault", (NEIGHBOURS,), f"{list(alone.shape)} alone, {list(among.shape)} among others")


def _look_at_empty(subject: Subject) -> Line:
    check = "a row without response"
    mask = PLAIN["mask"] & (np.arange(3) != 1)[:, None]
    found = _asked(subject, {**PLAIN, "mask": mask, "labels": np.where(mask, PLAIN["ids"], -100)})
    return Line(check, "ok") if bool(found.isfinite().all()) else Line(check, "fault", (EMPTY,), "it is not finite")


def _look_at_size(subject: Subject) -> Line:
    """Log-probabilities are nearly differences of logits here; of several tokens one is hundreds of nats below 0."""
    check = "large logits"
    found = _asked(subject, {**PLAIN, "logits": 300 * PLAIN["logits"]})
    lowest = float(found.min())
    if bool(found.isfinite().all()) and lowest < -300:
        return Line(check, "ok")
    return Line(check, "fault", (UNSTABLE,), f"lowest value {lowest:.4g}, where less than -300 is right")


def _look_at_bfloat16(subject: Subject) -> Line:
    check = "bfloat16 logits"
    given = subject.tensors(PLAIN)
    narrow = given["logits"].bfloat16()
    with torch.no_grad():
        found = subject.ask({**given, "logits": narrow}).double()
        expected = subject.ask({**given, "logits": narrow.float()}).double()
    error = float((found - expected).abs().max())
    if error < 1e-3 * float(expected.abs().max()):
        return Line(check, "ok")
    return Line(check, "note", (NARROW,), f"off by up to {error:.2g} nats")


PROBES = (
    Probe("gradient reaches the logits", _look_at_gradient),
    Probe("a row alone", _look_alone),
    Probe("a row without response", _look_at_empty),
    Probe("large logits", _look_at_size),
    Probe("bfloat16 logits", _look_at_bfloat16),
    left_alone(PLAIN),
)
