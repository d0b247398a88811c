"""Small tools for watching a metric over steps. NaN means "not measured at this step"."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueup.errors import UserError


def median_window(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """Median of the last ``window`` steps at each step: steady against single spikes, and never looks ahead.

    Args:
        values: ``[steps]``; NaN is left out, a window of nothing else gives NaN.
        window: steps; the first ``window - 1`` answers are over the steps there are.

    Returns:
        ``[steps]``; the last entry is the current median.
    """
    _at_least_one("window", window)
    data = np.asarray(values, dtype=np.float64)
    padded = np.concatenate([np.full(window - 1, np.nan), data])
    if data.size == 0:
        return data
    # NaN sorts last, so the measured values of a window stand first and their middle can be picked by counting.
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)
    measured = (~np.isnan(ordered)).sum(axis=1)
    rows = np.arange(data.size)
    return (ordered[rows, np.maximum(measured - 1, 0) // 2] + ordered[rows, measured // 2]) / 2


def relative_change(values: ArrayLike, baseline: float) -> NDArray[np.float64]:
    """Change against a baseline in units of its size: ``(value - baseline) / abs(baseline)``.

    +0.5 is half as much again, whatever the sign of the baseline. Against a baseline of 0 a change is infinite, with
    its sign, and no change is 0.

    Args:
        values: any shape.
        baseline: the value at the start, or of a healthy run.
    """
    change = np.asarray(values, dtype=np.float64) - baseline
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = change / abs(baseline)
    return np.where(change == 0, 0.0, relative)


def first_sustained(condition: ArrayLike, run: int) -> int | None:
    """Index at which the first ``run`` consecutive True begin, or None.

    It is known only at index + run - 1, when the last of them has been seen.

    Args:
        condition: bool ``[steps]``.
        run: steps in a row that count as sustained; 1 finds the first True.
    """
    _at_least_one("run", run)
    held = np.asarray(condition, dtype=bool)
    if held.size < run:
        return None
    starts = np.lib.stride_tricks.sliding_window_view(held, run).all(axis=1)
    return int(starts.argmax()) if starts.any() else None


def _at_least_one(name: str, steps: int) -> None:
    if steps < 1:
        raise UserError(f"{name} is {steps}: give a number of steps, 1 or more")
