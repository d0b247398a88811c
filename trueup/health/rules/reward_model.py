"""Training a reward model."""

from __future__ import annotations

from statistics import fmean, median

from trueup.health.findings import Finding
from trueup.health.limit import Limit
from trueup.health.rule import Rule, RunLog, all_of
from trueup.health.signals import Point, last, measured, middle, start, values
from trueup.health.thresholds import WINDOW

REWARD = frozenset({"reward"})

LONG = 100
"""Steps over which accuracy is judged; about 1,600 pairs at the usual batch."""


def long_accuracy(log: RunLog) -> Point | None:
    """Mean accuracy of the last 100 steps, from twice as many on."""
    recent = last(log, "accuracy", LONG) if measured(log, "accuracy") >= 2 * LONG else ()
    return (recent[0][0], fmean(values(recent))) if recent else None


ACCURACY = Limit("rm-not-learning", long_accuracy, below=True)


def rm_not_learning(log: RunLog) -> Finding | None:
    """F71, F73, F77: the model ranks like a coin."""
    hit = ACCURACY.exceeded(log)
    if hit is None:
        return None
    message = f"Over {LONG} steps the accuracy is {hit.value:.3f}: a coin does as well."
    remedy = "Check which token is scored (padding, terminator), the learning rate, and what the labels mean."
    return Finding("rm-not-learning", hit.severity, hit.step, message, remedy, hit.evidence("accuracy"), "F71, F73")


def mean_shift(log: RunLog) -> Point | None:
    """How far the mean score moved since the start, in units of the scores' spread (at least 1)."""
    now, began = middle(log, "mean_reward"), start(log, "mean_reward", WINDOW)
    margins = [abs(value) for value in values(last(log, "margin", WINDOW))]
    if now is None or began is None or not margins:
        return None
    return now[0], abs(now[1] - began) / max(median(margins), 1.0)


SHIFT = Limit("score-drift", mean_shift)


def score_drift(log: RunLog) -> Finding | None:
    """F75: the loss leaves the mean free, and it wanders off."""
    hit = SHIFT.exceeded(log)
    if hit is None:
        return None
    message = f"The mean score has moved by {hit.value:.1f} times what the two sides of a pair differ by."
    remedy = "Raise reward.centring. Scores far from 0 lose digits in half precision and break later normalisation."
    return Finding("score-drift", hit.severity, hit.step, message, remedy, hit.evidence("shift"), "F75")


RULES = (
    Rule("rm-not-learning", "reward", REWARD, all_of("accuracy"), rm_not_learning),
    Rule("score-drift", "reward", REWARD, all_of("mean_reward", "margin"), score_drift),
)
LIMITS = (ACCURACY, SHIFT)
