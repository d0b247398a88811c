"""One tiny step along the negative gradient: the loss must fall, and what the method is for must move its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trueup.health.findings import Finding
from trueup.preflight.modes import mode, moved
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.pull import Pull, pull_of
from trueup.preflight.slope import NOTHING, Slope, measure_loss, measure_slope
from trueup.preflight.stride import stride
from trueup.preflight.subject import Sample, Subject

CHECK = "direction of a tiny step"
TRIES = (1.0, 0.1)
"""Lengths that are tried: a step that is too long can raise the loss of a sound run."""
REFERENCE = "probe P8 of the catalogue of silent failures; F65, F94; rule G01"


@dataclass(frozen=True)
class _Step:
    """How far a tiny step lowered the loss and raised Σ w x of what should rise; None where that is not asked."""

    fall: float | None
    gain: float | None

    @property
    def right(self) -> bool:
        return all(moved is None or moved > 0 for moved in (self.fall, self.gain))


def check_direction(subject: Subject, sample: Sample) -> Outcome:
    """Take the step, see what it moved, and take it back."""
    if any(leaf.dtype in (torch.bfloat16, torch.float16) for leaf in subject.leaves):
        return skipped(CHECK, "weights in half precision round a tiny step away")
    batch = sample.some
    slope = measure_slope(subject, [batch], principal=True)
    if not slope.norm > NOTHING:
        return skipped(CHECK, "the first rows have no gradient to follow")
    with torch.no_grad(), mode(subject.trained, False):
        start = subject.observe(batch.trees)
    pull = pull_of(subject.objective, batch, start)
    if pull.against:
        return made(CHECK, pull.against, [_wrong(pull, _Step(None, None))])
    if pull.weights is None and not pull.falls:
        return skipped(CHECK, "the loss has weights that are constants, and what it raises is not known")
    for share in TRIES:
        step = _take(subject, batch, slope, pull, start, share)
        if step.right:
            break
    falls = [] if step.fall is None else [f"loss falls by {step.fall:.0e}"]
    told = "; ".join([*falls, *([] if step.gain is None else [f"{pull.what} rises"])])
    return made(CHECK, told if step.right else "the wrong way", [] if step.right else [_wrong(pull, step)])


def _take(subject: Subject, batch: Any, slope: Slope, pull: Pull, start: torch.Tensor, share: float) -> _Step:
    leaves = subject.leaves
    with moved(leaves, slope.gradients, share * stride(leaves, slope)):
        loss = measure_loss(subject, batch, principal=True)
        with torch.no_grad(), mode(subject.trained, False):
            change = subject.observe(batch.trees) - start
    gain = None if pull.weights is None else float((pull.weights.double() * change.double()).sum())
    return _Step(slope.loss - loss if pull.falls else None, gain)


def _wrong(pull: Pull, step: _Step) -> Finding:
    if pull.against:
        message = f"By its own formula {pull.against}."
    elif step.gain is not None and not step.gain > 0:
        message = f"A tiny step along the negative gradient lowers what it should raise: {pull.what} ({step.gain:.3g})."
    else:
        message = f"A tiny step along the negative gradient does not lower the loss: it falls by {step.fall:.3g}."
    remedy = "Training would move the model away from its goal: look at the sign of the loss and at its gradient."
    evidence = {"loss_fall": step.fall, "gain": step.gain}
    return Finding("wrong-direction", "fatal", 0, message, remedy, evidence, REFERENCE)
