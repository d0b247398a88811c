"""The update: gradients, learning rate, a loss that jumps or climbs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from trueup.health.findings import Finding
from trueup.health.limit import Limit
from trueup.health.rule import DPO, OFFLINE, Rule, RunLog, all_of
from trueup.health.rules.numbers import zeros
from trueup.health.signals import Point, beta_of, first, last, middle, step_of, together, values
from trueup.health.thresholds import START, WINDOW, threshold

LONG = 50
"""Values over which gradient norms are compared (F46)."""

FLOOR = 0.2
"""A loss below it counts as this when changes are measured against it."""


def no_gradients(log: RunLog) -> Point | None:
    """How many of the last gradients are exactly 0; not of rollouts whose groups of equal rewards explain it."""
    recent, shares = last(log, "grad_norm", WINDOW), log.series.get("frac_reward_zero_std", ())
    none = [step for step, norm in recent if norm == 0 and not _is_dead(shares, step)]
    return (none[0] if none else recent[0][0], len(none)) if recent else None


def _is_dead(shares: Sequence[Point], step: int) -> bool:
    """Was the rollout that a step was made of one of hardly anything but groups paid alike?"""
    return next((share for at, share in reversed(shares) if at <= step), 0.0) > threshold("dead-groups/warning")


def zero_rates(log: RunLog) -> Point | None:
    """How many of the last learning rates are exactly 0, but at the end of a run, where schedules get there."""
    steps = log.settings.get("optim.steps")
    return None if steps and step_of(log) > 0.9 * steps else zeros(log, "learning_rate")


def off_schedule(log: RunLog) -> Point | None:
    """F44: largest deviation of the last rates from the schedule, as a share of the peak; a step's shift is free."""
    names = ("optim.learning_rate", "optim.schedule", "optim.warmup", "optim.steps")
    peak, shape, warmup, steps = (log.settings.get(name) for name in names)
    recent = last(log, "learning_rate", WINDOW)
    if peak is None or shape is None or warmup is None or steps is None or not recent:
        return None
    off = [(abs(_outside(rate, step, peak, shape, round(warmup * steps), steps)) / peak, step) for step, rate in recent]
    worst = max(off)
    return worst[1], worst[0]


def _outside(rate: float, step: int, peak: float, shape: str, warmup: int, steps: int) -> float:
    """How far a rate is from those that the schedule has within a step of this one."""
    near = [peak * _factor(done, shape, warmup, steps) for done in (max(step - 2, 0), step - 1, step)]
    return max(min(near) - rate, rate - max(near), 0.0)


def _factor(done: int, shape: str, warmup: int, steps: int) -> float:
    """The schedules of docs/quickstart.md after ``done`` updates, as a share of the peak."""
    if done < warmup:
        return (done + 1) / warmup
    share = min(1.0, max(0.0, (done - warmup) / max(1, steps - warmup)))
    return {"constant": 1.0, "linear": 1.0 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}[shape]


def spike(log: RunLog) -> Point | None:
    """Highest of the last losses above the median of the 50 before, in robust standard deviations of those."""
    recent = last(log, "loss", LONG + WINDOW)
    if not recent:
        return None
    before, now = values(recent[:LONG]), recent[LONG:]
    centre = median(before)
    spread = 1.4826 * median(abs(value - centre) for value in before)
    step, high = max(now, key=lambda point: point[1])
    return step, (high - centre) / (spread + 0.02 * abs(centre) + 1e-6)


def climb(log: RunLog) -> Point | None:
    """How far the median loss is above the best that it was, in units of where it began; seven windows are compared."""
    series = log.series.get("loss", ())
    began, now = first(log, "loss", WINDOW), last(log, "loss", WINDOW)
    if not began or not now or len(series) < 2 * WINDOW or log.settings.get("preference.sync_every"):
        return None  # a reference that moves sets the loss back
    ends = {len(series) * part // 8 for part in range(1, 8)}
    windows = [series[end - WINDOW : end] for end in ends if end >= WINDOW] + [began]
    best = min(median(values(window)) for window in windows if math.isfinite(sum(values(window))))
    return now[0][0], (median(values(now)) - best) / max(abs(median(values(began))), FLOOR)


def above_start(log: RunLog) -> Point | None:
    """How far the median of the last losses is above the first, in its units; 0 where that is within their noise.

    The noise of one loss is told by what neighbours differ by, which a trend hardly touches.
    """
    series, recent = log.series.get("loss", ()), last(log, "loss", WINDOW)
    if not recent or len(series) <= WINDOW or log.settings.get("preference.sync_every"):
        return None
    begun, now = series[0][1], values(recent)
    noise = 1.4826 * median(abs(b - a) for a, b in pairwise(now)) / math.sqrt(2)
    rise = median(now) - begun
    return recent[0][0], rise / max(abs(begun), FLOOR) if rise > threshold("loss-above-start/z") * noise else 0.0


def norm_growth(log: RunLog) -> Point | None:
    """F46: median of the last 50 gradient norms over that of the first 50."""
    now, began = middle(log, "grad_norm", LONG), first(log, "grad_norm", LONG)
    if now is None or not began or len(log.series["grad_norm"]) < 2 * LONG:
        return None
    return now[0], now[1] / max(median(values(began)), 1e-12)


def size_left(log: RunLog) -> Point | None:
    """The norm that gradients are clipped to, where nine in ten of the last 50 are."""
    clip, recent = log.settings.get("optim.max_grad_norm"), last(log, "grad_norm", LONG)
    if not clip or not recent or sorted(values(recent))[LONG // 10] <= clip:
        return None
    return recent[0][0], float(clip)


def early_drift(log: RunLog) -> Point | None:
    """F42: how far the chosen responses' log-probability moved in the first steps, against where it began."""
    beta = beta_of(log)
    pairs = [row for row in together(log, "rewards/chosen", "logps/chosen", 2 * WINDOW) if row[0] <= WINDOW]
    if beta is None or len(pairs) < WINDOW // 2 or pairs[-1][0] < WINDOW:
        return None
    moved = [(abs(reward / beta), abs(logps - reward / beta)) for _, reward, logps in pairs[-WINDOW // 2 :]]
    return pairs[-WINDOW // 2][0], median(drift / max(began, 5.0) for drift, began in moved)


NO_GRADIENTS = Limit("nothing-trains", no_gradients)
ZERO_RATES = Limit("learning-rate-zero", zero_rates)
OFF_SCHEDULE = Limit("learning-rate-schedule", off_schedule)
SPIKE = Limit("loss-spike", spike)
CLIMB = Limit("loss-divergence", climb)
ABOVE = Limit("loss-above-start", above_start)
GROWTH = Limit("gradient-growth", norm_growth)
CLIPPED = Limit("gradient-clipped", size_left, below=True)
HOT = Limit("hot-update", early_drift)


def nothing_trains(log: RunLog) -> Finding | None:
    """F49 to F51: no gradient reaches the weights."""
    hit = NO_GRADIENTS.exceeded(log)
    if hit is None:
        return None
    message = f"In {hit.value:.0f} of the last {WINDOW} steps the gradient is exactly 0: no weight moves."
    remedy = "Check which weights are trainable, and that the loss has a path to them (adapters, detached values)."
    return Finding("nothing-trains", hit.severity, hit.step, message, remedy, hit.evidence("zeros"), "F49, F50, F51")


def update_swallowed(log: RunLog) -> Finding | None:
    """F48: the first updates are smaller than Adam makes them; later ones may be small for good reasons."""
    shares = log.series.get("frac_reward_zero_std", ())
    points = [(step, size) for step, size in first(log, "update/size", START) if not _is_dead(shares, step)]
    most = max(values(points), default=math.inf)
    if most >= threshold("update-swallowed/share"):
        return None
    message = f"First updates move weights by at most {most:.1g} of the learning rate; Adam's first moves by all of it."
    remedy = (
        "Gradients are small beside Adam's epsilon (1e-8 here; lower it where a tool has more): raise "
        "optim.max_grad_norm if it cuts most of them, and see that the loss is not scaled down."
    )
    evidence = {"size": most, "bound": threshold("update-swallowed/share")}
    return Finding("update-swallowed", "warning", points[0][0], message, remedy, evidence, "F48, F47")


def learning_rate_zero(log: RunLog) -> Finding | None:
    """The rate is 0 for long."""
    hit = ZERO_RATES.exceeded(log)
    if hit is None:
        return None
    message = f"In {hit.value:.0f} of the last {WINDOW} steps the learning rate is 0: nothing is learned."
    remedy = "Check the schedule: its length, and how often it is advanced."
    return Finding("learning-rate-zero", hit.severity, hit.step, message, remedy, hit.evidence("zeros"), "F44")


def learning_rate_schedule(log: RunLog) -> Finding | None:
    """F44: the rate is not the one that the settings give."""
    hit = OFF_SCHEDULE.exceeded(log)
    if hit is None:
        return None
    message = f"The learning rate is off its schedule by {hit.value:.0%} of its peak."
    remedy = "See whether the schedule is advanced once an update, and whether a resumed run found its place in it."
    return Finding("learning-rate-schedule", hit.severity, hit.step, message, remedy, hit.evidence("off"), "F44, F126")


def loss_spike(log: RunLog) -> Finding | None:
    """A loss far outside what the steps before scatter by."""
    hit = SPIKE.exceeded(log)
    if hit is None:
        return None
    message = f"The loss jumped {hit.value:.0f} robust standard deviations above the {LONG} steps before."
    remedy = "Look at the batch of this step. If it comes again, lower the learning rate or optim.max_grad_norm."
    return Finding("loss-spike", hit.severity, hit.step, message, remedy, hit.evidence("deviations"), "F42, F46")


def loss_divergence(log: RunLog) -> Finding | None:
    """The training loss climbs for good."""
    hit = CLIMB.exceeded(log)
    if hit is None:
        return None
    message = f"The loss is {hit.value:.0%} of its starting value above the best it was: training undoes itself."
    remedy = "Train again with a lower optim.learning_rate or a larger optim.warmup."
    return Finding("loss-divergence", hit.severity, hit.step, message, remedy, hit.evidence("rise"), "F42")


def loss_above_start(log: RunLog) -> Finding | None:
    """F42: the run is worse than it began, on what it trains on."""
    hit = ABOVE.exceeded(log)
    if hit is None:
        return None
    message = f"The loss is {hit.value:.0%} of its first value above that: the run undoes what its start had learned."
    remedy = (
        "Train again with optim.learning_rate ten times lower; a warm-up (optim.warmup) and larger batches help less."
    )
    return Finding("loss-above-start", hit.severity, hit.step, message, remedy, hit.evidence("rise"), "F42")


def gradient_growth(log: RunLog) -> Finding | None:
    """F46: raw gradient norms grow behind the clipping."""
    hit = GROWTH.exceeded(log)
    if hit is None:
        return None
    message = f"Before clipping, gradients are {hit.value:.0f} times as large as at the start; clipping hides it."
    remedy = "Lower the learning rate, and look for single examples that set the direction of the update."
    return Finding("gradient-growth", hit.severity, hit.step, message, remedy, hit.evidence("growth"), "F46")


def gradient_clipped(log: RunLog) -> Finding | None:
    """F46, F47: clipping leaves gradients so small that Adam's epsilon decides the size of every update."""
    hit = CLIPPED.exceeded(log)
    if hit is None:
        return None
    message = f"Nine in ten gradients are cut to a norm of {hit.value:g}: shared among all weights, that is next to 0."
    remedy = "Raise optim.max_grad_norm: Adam divides by a gradient's own size, but not below its epsilon (1e-8)."
    evidence = hit.evidence("max_grad_norm")
    return Finding("gradient-clipped", hit.severity, hit.step, message, remedy, evidence, "F46, F47")


def hot_update(log: RunLog) -> Finding | None:
    """F42: within a few steps the policy has left the region of the start."""
    hit = HOT.exceeded(log)
    if hit is None:
        return None
    message = (
        f"After {WINDOW} steps the log-probability of chosen responses has moved by {hit.value:.1f} times its value."
    )
    remedy = "Lower the learning rate, by ten rather than by two, or use larger batches and a warm-up."
    return Finding("hot-update", hit.severity, hit.step, message, remedy, hit.evidence("drift"), "F42")


RULES = (
    Rule("nothing-trains", "optimisation", frozenset(), all_of("grad_norm"), nothing_trains),
    Rule("update-swallowed", "optimisation", frozenset(), all_of("update/size"), update_swallowed),
    Rule("learning-rate-zero", "optimisation", frozenset(), all_of("learning_rate"), learning_rate_zero),
    Rule("learning-rate-schedule", "optimisation", frozenset(), all_of("learning_rate"), learning_rate_schedule),
    Rule("loss-spike", "optimisation", OFFLINE, all_of("loss"), loss_spike),
    Rule("loss-divergence", "optimisation", OFFLINE, all_of("loss"), loss_divergence),
    Rule("loss-above-start", "optimisation", OFFLINE, all_of("loss"), loss_above_start),
    Rule("gradient-growth", "optimisation", frozenset(), all_of("grad_norm"), gradient_growth),
    Rule("gradient-clipped", "optimisation", frozenset(), all_of("grad_norm"), gradient_clipped),
    Rule("hot-update", "optimisation", DPO, all_of("rewards/chosen", "logps/chosen"), hot_update),
)
LIMITS = (NO_GRADIENTS, ZERO_RATES, OFF_SCHEDULE, SPIKE, CLIMB, ABOVE, GROWTH, CLIPPED, HOT)
