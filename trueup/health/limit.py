"""A rule of the form "statistic beyond a limit", with the statistic apart, so that healthy runs can set the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.health.findings import Severity
from trueup.health.rule import RunLog
from trueup.health.signals import Point
from trueup.health.thresholds import THRESHOLDS

Statistic = Callable[[RunLog], Point | None]
"""The log so far -> (step since which the value stands, value); None where there is not enough to say."""


@dataclass(frozen=True)
class Hit:
    """A statistic beyond a bound: since when, how far, how grave, and the bound."""

    step: int
    value: float
    severity: Severity
    bound: float

    def evidence(self, name: str, **more: Any) -> dict[str, Any]:
        """The value under the name of its metric, the bound, and more numbers."""
        return {name: self.value, "bound": self.bound, **more}


@dataclass(frozen=True)
class Limit:
    """A statistic of a run and its bounds, ``rule/note``, ``rule/warning`` and ``rule/fatal`` of the thresholds.

    Attributes:
        rule: name of the rule, and of the thresholds.
        statistic: measures the run so far.
        below: what is wrong lies below the bounds, not above.
    """

    rule: str
    statistic: Statistic
    below: bool = False

    def exceeded(self, log: RunLog) -> Hit | None:
        """The gravest bound that the statistic is beyond, if any. A value on a bound is not beyond it."""
        found = self.statistic(log)
        return None if found is None else self.judge(*found)

    def judge(self, step: int, value: float) -> Hit | None:
        """The same of a value that was measured already."""
        severities: tuple[Severity, ...] = ("fatal", "warning", "note")
        for severity in severities:
            bound = THRESHOLDS.get(f"{self.rule}/{severity}")
            if bound is not None and (value < bound.value if self.below else value > bound.value):
                return Hit(step, value, severity, bound.value)
        return None
