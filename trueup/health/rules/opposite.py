"""Training rows against held-out ones: two samples of one thing, unless labels were turned round in one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from trueup.health.findings import Finding
from trueup.health.limit import Limit
from trueup.health.rule import Rule, RunLog
from trueup.health.rules.held_out import ACCURACIES
from trueup.health.signals import Point, beta_of, first, last, latest, values
from trueup.health.thresholds import WINDOW, threshold

MOST = 200
"""Steps that are looked back over."""
REFERENCE = "F12 of the catalogue"
SIDES = ("logps/chosen", "logps/rejected")


def turned_round(log: RunLog) -> Point | None:
    """Standard errors by which training rows have less than half of the difference between the sides of held-out ones.

    The difference is that of the reference's log-probabilities, sum of the chosen less that of the rejected response,
    which training does not move; without a reference it is the policy's, at the start and now, of which the lesser
    counts. If a share s of labels is turned round, training has 1 - 2s of the difference: half of it at a quarter.
    None where held-out rows have none to speak of.
    """
    held, rows, batch = _sides(log, "eval/", 1), latest(log, "eval/num_examples"), log.settings.get("optim.batch_size")
    if not held or rows is None or not batch:
        return None
    step, gap = held[0]
    scores = [_short(values(window), gap, batch / rows[1]) for window in _windows(log)]
    if not scores or None in scores:
        return None
    return step, min(score for score in scores if score is not None)


def _windows(log: RunLog) -> list[Sequence[Point]]:
    """Differences of training steps: all of them where they are the reference's, else the first and the last."""
    known = _sides(log, "", MOST)
    if _implicit(log, "", MOST) is not None:
        return [known] if len(known) >= WINDOW else []
    early = [first(log, name, WINDOW) for name in SIDES]
    start = [(s, a - b) for (s, a), (_, b) in zip(*early, strict=False)]
    return [start, known[-WINDOW:]] if len(start) == WINDOW and len(known) >= 2 * WINDOW else []


def _sides(log: RunLog, prefix: str, count: int) -> list[Point]:
    """Step and difference between the sides, of up to the last ``count`` values; none if one is not finite."""
    chosen, rejected = (dict(log.series.get(prefix + name, ())[-count:]) for name in SIDES)
    moved = _implicit(log, prefix, count)
    steps = [step for step in chosen if step in rejected and (moved is None or step in moved)]
    points = [(step, chosen[step] - rejected[step] - (moved[step] if moved else 0.0)) for step in steps]
    return points if math.isfinite(sum(values(points))) else []


def _implicit(log: RunLog, prefix: str, count: int) -> dict[int, float] | None:
    """Step -> what training has added to the difference, in nats; None where there is no reference to tell it."""
    raw = log.series.get(f"{prefix}margin/raw", ())[-count:]
    if raw:
        return dict(raw)
    chosen, rejected = (dict(log.series.get(f"{prefix}rewards/{s}", ())[-count:]) for s in ("chosen", "rejected"))
    beta = beta_of(log)
    if not chosen or not beta:
        return None
    return {step: (value - rejected[step]) / beta for step, value in chosen.items() if step in rejected}


def _short(training: Sequence[float], held: float, ratio: float) -> float | None:
    """How many standard errors the training one is below half the held-out difference; ``ratio``: batch over rows."""
    spread, way = stdev(training), math.copysign(1.0, held)
    error = spread * math.sqrt(ratio)
    if not spread or abs(held) < threshold("held-out-opposite/held") * error:
        return None
    return (0.5 * abs(held) - way * fmean(training)) / math.hypot(spread / math.sqrt(len(training)), 0.5 * error)


OPPOSITE = Limit("held-out-opposite", turned_round)


def held_out_opposite(log: RunLog) -> Finding | None:
    """F12: what is chosen in training is not what is chosen in held-out rows."""
    hit, held = OPPOSITE.exceeded(log), _sides(log, "eval/", 1)
    if hit is None:
        return None
    gap, training = held[0][1], fmean(values(_windows(log)[0]))
    whose = "The start" if _implicit(log, "", 1) is None else "The reference"
    message = (
        f"{whose} gives the wanted side {gap:+.1f} nats more than the other in held-out rows and {training:+.1f} in "
        "training rows: as if more than a quarter of the labels were turned round in one of the two."
    )
    remedy = "Read some rows of both files: are the columns, or the labels, the same way round, and of one source?"
    evidence = hit.evidence("standard_errors", held_out=gap, training=training)
    return Finding("held-out-opposite", hit.severity, hit.step, message, remedy, evidence, REFERENCE)


def below_chance(log: RunLog) -> Point | None:
    """Standard errors of a coin by which the mean of the last two held-out accuracies is below one half."""
    rows = latest(log, "eval/num_examples")
    for name in ACCURACIES:
        held = last(log, f"eval/{name}", 2)
        training, batch = last(log, name, WINDOW), log.settings.get("optim.batch_size")
        if held and training and rows and batch:
            learnt = (fmean(values(training)) - 0.5) * 2 * math.sqrt(WINDOW * batch)
            if learnt < threshold("held-out-below-chance/training"):
                return None
            return held[0][0], (0.5 - fmean(values(held))) * 2 * math.sqrt(rows[1])
    return None


BELOW = Limit("held-out-below-chance", below_chance)


def held_out_below_chance(log: RunLog) -> Finding | None:
    """F12: training pairs are ranked right and held-out ones wrong, each more often than a coin would."""
    hit = BELOW.exceeded(log)
    if hit is None:
        return None
    message = (
        f"Held-out pairs are ranked right less often than by a coin, by {hit.value:.1f} standard errors, and training "
        "pairs more often."
    )
    remedy = "Read some rows of both files: what is chosen in one may be rejected in the other."
    evidence = hit.evidence("standard_errors")
    return Finding("held-out-below-chance", hit.severity, hit.step, message, remedy, evidence, REFERENCE)


_NEEDED = frozenset({*SIDES, *(f"eval/{name}" for name in SIDES), "eval/num_examples"})
RULES = (
    Rule("held-out-opposite", "data", frozenset({"dpo", "kto", "orpo"}), (_NEEDED,), held_out_opposite),
    Rule(
        "held-out-below-chance",
        "data",
        frozenset({"dpo", "reward"}),
        tuple(frozenset({name, f"eval/{name}", "eval/num_examples"}) for name in ACCURACIES),
        held_out_below_chance,
    ),
)
LIMITS = (OPPOSITE, BELOW)
