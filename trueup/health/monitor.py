"""The streaming monitor: rules over the journal's lines as they come."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from trueup.health.findings import Finding
from trueup.health.rules import RULES


class _Report(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class _Sink(Protocol):
    def append(self, row: Mapping[str, Any]) -> None: ...


class Monitor:
    """An observer that applies every rule to the run so far and records what it finds, once a rule.

    Args:
        sink: where findings are appended (``findings.jsonl``).
        say: told one line for each finding.
        early: findings made before the first step.
        every: steps between two looks.
    """

    def __init__(self, sink: _Sink, say: Callable[[str], None], early: Sequence[Finding] = (), every: int = 10) -> None:
        self.sink, self.say, self.every = sink, say, every
        self.series: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.fired: set[str] = set()
        self.step = 0
        for finding in early:
            self._record(finding)

    def replay(self, rows: Iterable[Mapping[str, Any]], recorded: Iterable[str]) -> None:
        """Take in the lines of a resumed run; ``recorded`` are the rules that its findings already name."""
        self.fired |= set(recorded)
        for row in rows:
            self._take(int(row["step"]), row)

    def __call__(self, report: _Report) -> None:
        """Take in one step; look every ``every`` steps."""
        self._take(report.step, report.metrics)
        if report.step % self.every == 0:
            self._look()

    def close(self) -> None:
        """Look once more at the end of the run."""
        self._look()

    def _take(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.step = step
        for name, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.series[name].append((step, float(value)))

    def _look(self) -> None:
        for rule in RULES:
            finding = rule(self.series)
            if finding is not None:
                self._record(finding)

    def _record(self, finding: Finding) -> None:
        if finding.rule in self.fired:
            return
        self.fired.add(finding.rule)
        self.sink.append(finding.row())
        self.say(
            f"{finding.severity} [{finding.rule}] since step {finding.first_step}: {finding.message} {finding.remedy}"
        )
