"""Is beta in the margin that a log calls a reward margin? The loss tells.

For one pair the logistic loss is ``loss = softplus(-beta m)``, m the raw log-ratio difference. So
``beta = -log(expm1(loss)) / m`` at every step, if what is logged is m; and 1 if what is logged is beta m. Over several
pairs a step the same holds as long as margins are small, where softplus is a straight line; where it bends, the values
of a step no longer agree, and nothing is concluded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from trueup.health.rule import RunLog

LOSS, MARGIN = "loss", "rewards/margins"
LEAST = 4
"""Steps that must agree."""
AGREE = 0.05
"""How far from their median they may be, beyond what the printed digits allow."""
SPAN = 4.0
"""How many times as large as the smallest the largest margin among them must be: the bend of a mean over pairs can look
like a factor as long as margins stay where they are."""
FLAT = 0.05
"""Size of a scaled margin below which rounding decides."""


@dataclass(frozen=True)
class Unit:
    """What a log's margin has to be multiplied by to be beta-scaled.

    Attributes:
        factor: median of what each step implies; beta if the margin is raw, 1 if it is scaled.
        low, high: the least and the greatest of a step.
        steps: number of steps that could tell.
    """

    factor: float
    low: float
    high: float
    steps: int

    @property
    def raw(self) -> bool:
        """Is beta missing from the margin?"""
        return abs(self.factor - 1) > 2 * AGREE


def margin_unit(log: RunLog) -> Unit | None:
    """What the steps of a log agree on; None if too few can tell, or they contradict each other."""
    told = [found for step, loss, margin in paired(log) if (found := _implied(loss, margin, rounding(log)))]
    if len(told) < LEAST:
        return None
    factor, sizes = median(value for value, _, _ in told), [size for _, _, size in told]
    if max(sizes) < SPAN * min(sizes):
        return None
    if factor <= 0 or any(abs(value / factor - 1) > AGREE + error for value, error, _ in told):
        return None
    return Unit(factor, min(told)[0], max(told)[0], len(told))


def paired(log: RunLog) -> list[tuple[int, float, float]]:
    """(step, loss, margin as logged) of the steps that have both, finite."""
    margins = dict(log.series.get(MARGIN, ()))
    rows = [(step, loss, margins[step]) for step, loss in log.series.get(LOSS, ()) if step in margins]
    return [row for row in rows if math.isfinite(row[1] + row[2])]


def rounding(log: RunLog) -> float:
    """Half a unit of the last decimal that losses were written with; that of float32 where they were not rounded."""
    losses = [loss for _, loss in log.series.get(LOSS, ()) if math.isfinite(loss)]
    decimals = max((len(f"{loss:.12f}".rstrip("0").partition(".")[2]) for loss in losses), default=12)
    return 0.5 * 10.0**-decimals if decimals <= 8 else 6e-8


def _implied(loss: float, margin: float, error: float) -> tuple[float, float, float] | None:
    """(implied factor, its relative error from rounding, size of the margin); None where the digits do not say."""
    if loss <= 10 * error or margin == 0:
        return None
    scaled = -math.log(math.expm1(loss)) if loss < 30 else -loss
    slope = 1 / -math.expm1(-loss)  # d scaled / d loss
    relative = error * slope / max(abs(scaled), 1e-12) + error / abs(margin)
    if abs(scaled) <= FLAT or relative >= AGREE:
        return None
    return scaled / margin, relative, abs(margin)
