"""What rules read off a run's series: its start, its last values, changes. Each costs the same however long the run.

A window with a number that is not finite is not judged: ``not-finite`` speaks of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from trueup.health.rule import RunLog
from trueup.health.thresholds import START, WINDOW

Point = tuple[int, float]
"""A step and a value."""


def last(log: RunLog, name: str, count: int) -> Sequence[Point]:
    """The last ``count`` values of a metric; empty where there are fewer or one is not finite."""
    return _whole(log.series.get(name, ())[-count:], count)


def first(log: RunLog, name: str, count: int = START) -> Sequence[Point]:
    """The first ``count`` values of a metric; empty where there are fewer or one is not finite."""
    return _whole(log.series.get(name, ())[:count], count)


def _whole(points: Sequence[Point], count: int) -> Sequence[Point]:
    return points if len(points) == count and math.isfinite(sum(value for _, value in points)) else ()


def values(points: Iterable[Point]) -> list[float]:
    """The values without their steps."""
    return [value for _, value in points]


def measured(log: RunLog, name: str) -> int:
    """How often a metric was recorded."""
    return len(log.series.get(name, ()))


def step_of(log: RunLog) -> int:
    """The latest step that anything was recorded at."""
    return max((points[-1][0] for points in log.series.values() if points), default=0)


def middle(log: RunLog, name: str, count: int = WINDOW) -> Point | None:
    """First step and median of the last ``count`` values."""
    recent = last(log, name, count)
    return (recent[0][0], median(values(recent))) if recent else None


def latest(log: RunLog, name: str) -> Point | None:
    """The last value, if it is finite."""
    recent = last(log, name, 1)
    return recent[0] if recent else None


def start(log: RunLog, name: str, count: int = START) -> float | None:
    """Mean of the first ``count`` values."""
    found = first(log, name, count)
    return fmean(values(found)) if found else None


def standard_errors(sample: Sequence[float]) -> float:
    """Mean of a sample in units of its standard error; infinite, with its sign, where the sample does not vary."""
    mean, error = fmean(sample), math.sqrt(_variance_of_mean(sample))
    return _ratio(mean, error)


def _variance_of_mean(sample: Sequence[float]) -> float:
    """Unbiased variance over the number of values; plain sums, as exact ones cost more than all the rules."""
    mean = fmean(sample)
    return sum((value - mean) ** 2 for value in sample) / (len(sample) - 1) / len(sample)


def _ratio(size: float, error: float) -> float:
    return size / error if error else math.copysign(math.inf, size) if size else 0.0


def change(log: RunLog, name: str, count: int) -> tuple[float, float] | None:
    """Mean of the last ``count`` values less that of the first, and the same in its standard errors.

    None until the two do not overlap. Taken as if values were independent, which those of rollouts nearly are.
    """
    if measured(log, name) < 2 * count:
        return None
    early, late = values(first(log, name, count)), values(last(log, name, count))
    if not early or not late:
        return None
    difference = fmean(late) - fmean(early)
    return difference, _ratio(difference, math.sqrt(_variance_of_mean(early) + _variance_of_mean(late)))


def beta_of(log: RunLog) -> float | None:
    """Beta of an implicit reward: as set, else what turns the raw margin into the scaled one; None if it is 0."""
    for key in ("preference.beta", "kto.beta"):
        if log.settings.get(key) is not None:
            return float(log.settings[key]) or None
    ratios = [scaled / raw for _, scaled, raw in together(log, "rewards/margins", "margin/raw") if abs(raw) > 1e-3]
    return (median(ratios) or None) if ratios else None


def together(log: RunLog, one: str, other: str, count: int = WINDOW) -> list[tuple[int, float, float]]:
    """Of the last ``count`` values of each: step and both, at the steps that have both."""
    second = dict(log.series.get(other, ())[-count:])
    pairs = [(step, value, second[step]) for step, value in log.series.get(one, ())[-count:] if step in second]
    return pairs if math.isfinite(sum(a + b for _, a, b in pairs)) else []
