"""Numbers that are none, and losses of exactly nothing."""

from __future__ import annotations

import math

from trueup.health.findings import Finding, Severity
from trueup.health.limit import Limit
from trueup.health.rule import OFFLINE, Rule, RunLog, all_of
from trueup.health.signals import Point, last, middle
from trueup.health.thresholds import WINDOW, threshold

GRAVE = ("loss", "grad_norm", "reward", "entropy", "eval/loss")
GRAVE_PREFIXES = ("loss/", "logps/", "kl/", "policy/")
"""Metrics that cannot be non-finite in a run whose weights are sound."""


def not_finite(log: RunLog) -> Finding | None:
    """F53: a metric is NaN or infinite; looked for in the last values of every metric."""
    bad = {
        name: step
        for name, points in log.series.items()
        if not math.isfinite(sum(value for _, value in points[-WINDOW:]))
        and (step := next((s for s, value in points[-WINDOW:] if not math.isfinite(value)), None)) is not None
    }
    if not bad:
        return None
    grave = [name for name in bad if name in GRAVE or name.startswith(GRAVE_PREFIXES)]
    severity: Severity = "fatal" if grave else "warning"
    named = ", ".join(sorted(grave or bad)[:5])
    message = f"Not a finite number: {named}{' and others' if len(grave or bad) > 5 else ''}."
    remedy = (
        "Look at the batch of this step, and lower the learning rate; do not filter such values out of a mean."
        if grave
        else "See what the metric divides by; the weights themselves may be sound."
    )
    return Finding("not-finite", severity, min(bad.values()), message, remedy, {"steps": bad}, "F53 of the catalogue")


def zeros(log: RunLog, name: str) -> Point | None:
    """How many of the last values are exactly 0, since the first of them."""
    recent = last(log, name, WINDOW)
    none = [step for step, value in recent if value == 0]
    return (none[0] if none else recent[0][0], len(none)) if recent else None


def zero_losses(log: RunLog) -> Point | None:
    """Losses of exactly 0 of steps that have no gradient to show for it, or do not say."""
    living = {step for step, norm in log.series.get("grad_norm", ())[-WINDOW:] if math.isfinite(norm) and norm > 0}
    recent = last(log, "loss", WINDOW)
    none = [step for step, value in recent if value == 0 and step not in living]
    return (none[0] if none else recent[0][0], len(none)) if recent else None


LOSS_ZERO = Limit("loss-zero", zero_losses)


def loss_zero(log: RunLog) -> Finding | None:
    """F17, F53: nothing is supervised, or NaN is filtered into 0."""
    hit = LOSS_ZERO.exceeded(log)
    if hit is None:
        return None
    message = f"In {hit.value:.0f} of the last {WINDOW} steps the loss is exactly 0, without a gradient."
    remedy = "Count the tokens that are trained on: there may be none. Or something turns NaN into 0 before a mean."
    return Finding("loss-zero", hit.severity, hit.step, message, remedy, hit.evidence("zeros"), "F17, F53")


def weights_rounded(log: RunLog) -> Finding | None:
    """F45: weights that are kept in float32 hold nothing that bfloat16 could not."""
    found = middle(log, "update/coarse")
    if found is None or found[1] <= threshold("weights-rounded/share"):
        return None
    step, share = found
    message = f"After an update {share:.0%} of the weights, which are float32, are bfloat16 numbers: they are rounded."
    remedy = (
        "Updates smaller than 1/512 of a weight are lost or made too large. Look for what writes to the weights after "
        "the optimiser, and keep what it updates in float32."
    )
    evidence = {"coarse": share, "bound": threshold("weights-rounded/share")}
    return Finding("weights-rounded", "warning", step, message, remedy, evidence, "F45")


RULES = (
    Rule("not-finite", "numbers", frozenset(), (frozenset(),), not_finite),
    Rule("loss-zero", "numbers", OFFLINE, all_of("loss"), loss_zero),
    Rule("weights-rounded", "numbers", frozenset(), all_of("update/coarse"), weights_rounded),
)
LIMITS = (LOSS_ZERO,)
