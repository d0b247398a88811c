"""The rules over a finished run, ours or anybody's: what they found, what they looked at, what they could not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trueup.health.findings import Finding
from trueup.health.limit import Statistic
from trueup.health.monitor import GRAVITY
from trueup.health.monitor import diagnose as replay
from trueup.health.rule import Rule, RunLog
from trueup.health.rules.pairs import scaled_margin
from trueup.health.rules_foreign.logged_pairs import LOGGED_RULES, MEASURES
from trueup.health.rules_foreign.margin_unit import MARGIN, margin_unit
from trueup.health.rules_foreign.score_table import ScoreTable, shared
from trueup.health.rules_foreign.scores import SCORE_RULES
from trueup.health.rules_foreign.several_logs import SEVERAL_RULES, Named
from trueup.health.signals import step_of
from trueup.health.table import LIMITS, RULES

ALL: tuple[Rule, ...] = (*RULES, *LOGGED_RULES)
"""Every rule that judges one log."""

NAMES: frozenset[str] = frozenset(name for rule in ALL for needed in rule.needs for name in needed)
"""Metrics that a rule reads."""


_ALSO: Mapping[str, tuple[Statistic, ...]] = {"saturation": (scaled_margin,)}
"""What else a rule judges by, beside the statistic that its limit is for."""


@dataclass(frozen=True)
class Unjudged:
    """A rule that could not look: each of ``lacks`` would be enough beside what is there."""

    rule: str
    lacks: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Diagnosis:
    """What the rules say of one log.

    Attributes:
        findings: the worst first, then by step.
        quiet: rules that judged and found nothing.
        short: rules that see their metrics and yet could not judge: too few values, or a setting that is not known.
        unjudged: rules whose metrics are not there.
        method: whose rules were asked; None: those of all.
        steps: first and last step of the log, and how many steps have a value; zeros for an empty log.
        metrics: metric -> number of values, as read.
    """

    findings: tuple[Finding, ...]
    quiet: tuple[str, ...]
    short: tuple[str, ...]
    unjudged: tuple[Unjudged, ...]
    method: str | None = None
    steps: tuple[int, int, int] = (0, 0, 0)
    metrics: Mapping[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The diagnosis as JSON."""
        return {
            "method": self.method,
            "steps": dict(zip(("first", "last", "logged"), self.steps, strict=True)),
            "metrics": dict(self.metrics),
            "findings": [finding.row() for finding in self.findings],
            "quiet": list(self.quiet),
            "short": list(self.short),
            "unjudged": {rule.rule: [list(names) for names in rule.lacks] for rule in self.unjudged},
        }


def diagnose(log: RunLog, recorded: Iterable[Finding] = ()) -> Diagnosis:
    """Judge one log by every rule of its method.

    The monitor's rules see it as they would have on the way, step by step, with its margins scaled by beta; the rules
    of `rules_foreign` see it as it is written.

    Args:
        log: under our names.
        recorded: findings that the run wrote itself; those of rules that look before or after training are kept.
    """
    whole = complete(log)
    asked = [rule for rule in ALL if rule.applies(log.method)]
    judged = {rule.name for rule in asked if rule.sees(whole.series)}
    logged = (rule.judge(log) for rule in LOGGED_RULES if rule.name in judged)
    made = [*(finding for finding in logged if finding), *(f for f in replay(whole) if f.rule in judged), *recorded]
    findings = tuple(gravest(made))
    fired = {finding.rule for finding in findings}
    silent = [rule.name for rule in asked if rule.name in judged - fired]
    short = {name for name in silent if _short(name, log, whole)}
    steps = sorted({step for points in log.series.values() for step, _ in points})
    return Diagnosis(
        findings,
        tuple(name for name in silent if name not in short),
        tuple(name for name in silent if name in short),
        tuple(Unjudged(r.name, _lacks(r, log)) for r in asked if r.name not in judged),
        log.method,
        (steps[0], steps[-1], len(steps)) if steps else (0, 0, 0),
        {name: len(points) for name, points in log.series.items()},
    )


def complete(log: RunLog) -> RunLog:
    """The log with its margins scaled by beta: from both rewards, or corrected where the loss says they are raw."""
    series = dict(log.series)
    if not series.get(MARGIN):
        rejected = dict(series.get("rewards/rejected", ()))
        margins = [(s, value - rejected[s]) for s, value in series.get("rewards/chosen", ()) if s in rejected]
        return replace(log, series={**series, MARGIN: margins}) if margins else log
    unit = margin_unit(log)
    if unit is None:
        return log
    settings = {"preference.loss": "sigmoid", **log.settings}
    if not unit.raw:
        return replace(log, settings=settings)
    series[MARGIN] = [(step, unit.factor * value) for step, value in series[MARGIN]]
    return RunLog(series, log.method, {"preference.beta": unit.factor, **settings})


def compare(logs: Sequence[Named]) -> list[Finding]:
    """Judge several logs together; each is completed first."""
    whole = [(name, complete(log)) for name, log in logs]
    return gravest(finding for rule in SEVERAL_RULES if len(whole) > 1 and (finding := rule(whole)))


def judge_scores(tables: Sequence[ScoreTable]) -> list[Finding]:
    """Judge tables of scores, all together; nothing is said of tables that share no prompts."""
    if not tables or not shared(tables):
        return []
    return gravest(finding for rule in SCORE_RULES if (finding := rule(tables)))


def gravest(findings: Iterable[Finding]) -> list[Finding]:
    """One finding a rule: the gravest, with the step of its first; the worst first."""
    kept: dict[str, Finding] = {}
    for finding in findings:
        known = kept.get(finding.rule)
        if known is None or GRAVITY[finding.severity] > GRAVITY[known.severity]:
            first = finding.first_step if known is None else min(known.first_step, finding.first_step)
            kept[finding.rule] = replace(finding, first_step=first)
    return sorted(kept.values(), key=lambda finding: (-GRAVITY[finding.severity], finding.first_step))


def _short(rule: str, log: RunLog, whole: RunLog) -> bool:
    """Did a rule that found nothing have nothing to measure?"""
    if rule in MEASURES:
        return MEASURES[rule](log) is None
    statistics = [limit.statistic for limit in LIMITS if limit.rule == rule] + list(_ALSO.get(rule, ()))
    # Some look away at the end of a run (a learning rate that has come down to 0), so earlier is asked too.
    times = [whole, *(_until(whole, share) for share in (0.75, 0.5))]
    return bool(statistics) and all(statistic(log) is None for statistic in statistics for log in times)


def _until(log: RunLog, share: float) -> RunLog:
    """The log as it was when this share of its steps was made."""
    end = share * step_of(log)
    return replace(log, series={name: [p for p in points if p[0] <= end] for name, points in log.series.items()})


def _lacks(rule: Rule, log: RunLog) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(sorted(name for name in needed if not log.series.get(name))) for needed in rule.needs)
