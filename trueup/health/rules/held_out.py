"""Training against held-out data: what is known by heart."""

from __future__ import annotations

import math
from bisect import bisect_right
from statistics import fmean, median

from trueup.health.findings import Finding, Severity
from trueup.health.limit import Limit
from trueup.health.rule import DPO, OFFLINE, Rule, RunLog, all_of, any_of
from trueup.health.signals import Point, last, latest, middle, values
from trueup.health.thresholds import WINDOW, threshold

ACCURACIES = ("rewards/accuracies", "accuracy")
"""Share of pairs ranked right: implicit rewards, scores of a reward model."""

MOST = 200
"""Evaluations that are looked back over."""


def accuracy_gap(log: RunLog) -> Point | None:
    """Training accuracy less held-out accuracy: the lesser of the gaps at the last two evaluations."""
    for name in ACCURACIES:
        held = last(log, f"eval/{name}", 2)
        gaps = [gap for step, value in held if (gap := _gap(log, name, step, value)) is not None]
        if len(gaps) == 2:
            return held[0][0], min(gaps)
    return None


def _gap(log: RunLog, name: str, step: int, held: float) -> float | None:
    """Mean of the training values of the steps before an evaluation, less what the evaluation found."""
    before = [v for s, v in log.series.get(name, ())[-MOST:] if s <= step][-WINDOW:]
    return fmean(before) - held if len(before) == WINDOW and math.isfinite(sum(before)) else None


GAP = Limit("held-out-gap", accuracy_gap)


def held_out_gap(log: RunLog) -> Finding | None:
    """D11, F69, F77: right on the pairs it trains on, not on others."""
    hit = GAP.exceeded(log)
    if hit is None:
        return None
    message = f"The accuracy on training pairs is {hit.value:.2f} above that on held-out ones, twice in a row."
    remedy = "Train again with fewer optim.steps, more pairs or a lower optim.learning_rate: more passes memorise."
    return Finding("held-out-gap", hit.severity, hit.step, message, remedy, hit.evidence("gap"), "D11; F69, F77")


def held_out_rise(log: RunLog) -> Point | None:
    """How far the last two held-out losses are above the best before, while the training loss kept falling."""
    series = log.series.get("eval/loss", ())[-MOST:]
    if len(series) < 3 or not math.isfinite(sum(values(series))):
        return None
    best, at = min((value, step) for step, value in series[:-2])
    train = log.series.get("loss", ())
    seen = bisect_right(train, (at, math.inf))
    then, now = values(train[max(seen - WINDOW, 0) : seen]), values(train[-WINDOW:])
    if best <= 0 or len(then) < WINDOW or len(train) < seen + WINDOW or median(now) >= median(then):
        return None
    return series[-2][0], min(values(series[-2:])) / best - 1


RISE = Limit("held-out-loss", held_out_rise)


def held_out_loss(log: RunLog) -> Finding | None:
    """The held-out loss rises as the training loss falls."""
    hit = RISE.exceeded(log)
    if hit is None:
        return None
    message = f"The held-out loss is {hit.value:.0%} above its best and stays there, while the training loss falls."
    series = log.series["eval/loss"]
    best = min((value, step) for step, value in series)[1]
    remedy = f"Train again with optim.steps {best}, where it was best: from there on the run learns its data by heart."
    return Finding("held-out-loss", hit.severity, hit.step, message, remedy, hit.evidence("rise"), "F69, F77")


def token_accuracy(log: RunLog) -> Point | None:
    """Median accuracy of the next token in training."""
    return middle(log, "mean_token_accuracy")


RECITED = Limit("memorised", token_accuracy)


def memorised(log: RunLog) -> Finding | None:
    """Nearly every token is predicted right; a warning where held-out tokens are not."""
    hit, held = RECITED.exceeded(log), latest(log, "eval/mean_token_accuracy")
    if hit is None:
        return None
    gap = None if held is None else hit.value - held[1]
    if gap is not None and gap <= threshold("memorised/gap"):
        return None
    severity: Severity = "note" if gap is None else "warning"
    message = f"{hit.value:.1%} of the training tokens are predicted right: the model can recite its data."
    remedy = "Fewer optim.steps, or more data; give data.validation, and take the number of steps from its loss."
    evidence = hit.evidence("mean_token_accuracy", gap=gap)
    return Finding("memorised", severity, hit.step, message, remedy, evidence, "house rule")


RULES = (
    Rule(
        "held-out-gap",
        "data",
        frozenset({"dpo", "reward"}),
        tuple(frozenset({name, f"eval/{name}"}) for name in ACCURACIES),
        held_out_gap,
    ),
    Rule("held-out-loss", "optimisation", OFFLINE - DPO, all_of("loss", "eval/loss"), held_out_loss),
    Rule("memorised", "data", frozenset({"sft"}), any_of("mean_token_accuracy"), memorised),
)
LIMITS = (GAP, RISE, RECITED)
