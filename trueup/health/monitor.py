"""The streaming monitor: rules over the journal's lines as they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from trueup.health.findings import Finding, Severity
from trueup.health.rule import Rule, RunLog
from trueup.health.table import RULES

GRAVITY: Mapping[str, int] = {"note": 1, "warning": 2, "fatal": 3}
"""Severities in order."""

EVERY = 10
"""Steps between two looks."""


class _Report(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class _Sink(Protocol):
    def append(self, row: Mapping[str, Any]) -> None: ...


class Monitor:
    """An observer that applies the rules of a method to the run so far and records what they find.

    A rule is recorded once, and again if it becomes graver. Rules read a bounded number of values, so a look costs
    the same at any length of a run.

    Args:
        sink: where findings are appended (``findings.jsonl``).
        say: told one line for each finding.
        method: what is trained with (``RunLog.method``); None applies all rules.
        settings: what rules may know of the settings (``RunLog.settings``).
        every: steps between two looks.

    Attributes:
        found: what was recorded, in that order; not what was recorded before a resume.
        step: the last that was taken in; written with every finding, so that a resumed run knows which to make again.
        fatal: names of the rules that were found fatal, those of the steps before a resume included.
    """

    def __init__(
        self,
        sink: _Sink,
        say: Callable[[str], None],
        method: str | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
        every: int = EVERY,
    ) -> None:
        self.sink, self.say, self.every = sink, say, every
        self.series: dict[str, list[tuple[int, float]]] = {}
        self.log = RunLog(self.series, method, settings)
        self.rules: list[Rule] = [rule for rule in RULES if rule.applies(method)]
        self.recorded: dict[str, Severity] = {}
        self.found: list[Finding] = []
        self.step = 0
        self.fatal: list[str] = []

    def replay(self, rows: Iterable[Mapping[str, Any]], findings: Iterable[Mapping[str, Any]]) -> None:
        """Take in the lines of a resumed run, and the findings that it has recorded; none of them fires again."""
        for finding in findings:
            self._note(finding["rule"], finding["severity"])
        for row in rows:
            self._take(int(row["step"]), row)

    def tell(self, findings: Iterable[Finding]) -> None:
        """Record what was found elsewhere, before the first step for instance."""
        for finding in findings:
            self.record(finding)

    def __call__(self, report: _Report) -> None:
        """Take in one step; look every ``every`` steps."""
        self._take(report.step, report.metrics)
        if report.step % self.every == 0:
            self.look()

    def look(self) -> None:
        """Apply the rules to what there is now; do so once more at the end of a run."""
        for rule in self.rules:
            if self.recorded.get(rule.name) != "fatal" and rule.sees(self.series):
                finding = rule.judge(self.log)
                if finding is not None:
                    self.record(finding)

    def _take(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.step = step
        for name, value in metrics.items():
            if value is None or isinstance(value, int | float):  # the journal writes what is not finite as null
                number = math.nan if value is None else float(value)
                self.series.setdefault(name, []).append((step, number))

    def record(self, finding: Finding) -> None:
        """Record a finding, unless its rule has one as grave."""
        if GRAVITY[finding.severity] <= GRAVITY.get(self.recorded.get(finding.rule, ""), 0):
            return
        self._note(finding.rule, finding.severity)
        self.found.append(finding)
        self.sink.append({"step": max(self.step, finding.first_step), **finding.row()})
        self.say(
            f"{finding.severity} [{finding.rule}] since step {finding.first_step}: {finding.message} {finding.remedy}"
        )

    def _note(self, rule: str, severity: Severity) -> None:
        if GRAVITY[severity] > GRAVITY.get(self.recorded.get(rule, ""), 0):
            self.recorded[rule] = severity
        if severity == "fatal" and rule not in self.fatal:
            self.fatal.append(rule)


def diagnose(log: RunLog, every: int = EVERY) -> list[Finding]:
    """Findings of a finished run, as a monitor would have made them on the way, in that order.

    A rule looks at the last values of what it is given; applied once to a finished log it would see its end alone.

    Args:
        log: the whole run.
        every: steps between two looks; lines of a log that has fewer are looked at as they come.
    """
    rows: dict[int, dict[str, float]] = {}
    for name, points in log.series.items():
        for step, value in points:
            rows.setdefault(step, {})[name] = value
    monitor = Monitor(_Nowhere(), lambda text: None, log.method, log.settings)
    steps = sorted(rows)
    for number, step in enumerate(steps, 1):
        monitor._take(step, rows[step])
        if number % every == 0 or number == len(steps):
            monitor.look()
    return monitor.found


class _Nowhere:
    """A sink for those who only want the list."""

    def append(self, row: Mapping[str, Any]) -> None:
        pass
