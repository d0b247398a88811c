"""Runs healthy scenarios, keeps what they showed, and reads off it what each statistic of a rule reached."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults.healthy import Scenario
from faults.lab import Lab, Outcome, run_once
from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.health.families import FAMILIES
from trueup.health.monitor import EVERY, diagnose
from trueup.health.rule import RunLog
from trueup.health.table import LIMITS, RULES
from trueup.recipes.watch import known_settings


def run_all(
    lab: Lab, scenarios: Iterable[Scenario], kept: Path, say: Callable[[str], None] = lambda text: None
) -> list[Outcome]:
    """The outcome of each scenario; one that lies in ``kept`` already is read from there."""
    kept.mkdir(parents=True, exist_ok=True)
    return [_outcome(lab, scenario, kept, say) for scenario in scenarios]


def _outcome(lab: Lab, scenario: Scenario, kept: Path, say: Callable[[str], None]) -> Outcome:
    path = kept / f"{scenario.method}-{scenario.seed}.json"
    if not path.exists():
        folder = kept / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        outcome = run_once(lab, scenario.method, scenario.seed, folder, scenario.settings, scenario.begin)
        shutil.rmtree(folder, ignore_errors=True)
        outcome.save(path)
    outcome = rejudged(Outcome.load(path))
    raised = ", ".join(f"{f['rule']} ({f['severity']})" for f in outcome.findings)
    say(f"{scenario.method}, {scenario.name}: {raised or 'nothing'} {outcome.error or outcome.crash}")
    return outcome


def rejudged(outcome: Outcome) -> Outcome:
    """The outcome of a kept run with the findings that the live rules make of its metrics as the rules are now."""
    live = {rule.name for rule in RULES}
    others = [finding for finding in outcome.findings if finding["rule"] not in live]
    found = [{**finding.row(), "family": FAMILIES[finding.rule]} for finding in diagnose(run_log(outcome))]
    return replace(outcome, findings=[*others, *found])


def run_log(outcome: Outcome) -> RunLog:
    """What the monitor saw of a run, up to its end."""
    run = {**outcome.settings.get("run", {}), "out": "run", "seed": outcome.seed}
    config = validate(RECIPES[outcome.method], {**outcome.settings, "run": run}, outcome.method)
    series: dict[str, list[tuple[int, float]]] = {}
    for row in outcome.metrics:
        for name, value in row.items():
            number: Any = float("nan") if value is None else value
            series.setdefault(name, []).append((row["step"], float(number)))
    return RunLog(series, outcome.method, known_settings(config, config.optim.steps or len(outcome.metrics)))


def looks(log: RunLog) -> Iterator[RunLog]:
    """The run as the monitor sees it: every 10 steps, and at the end."""
    end = max((points[-1][0] for points in log.series.values()), default=0)
    for until in [*range(EVERY, end, EVERY), end]:
        series = {name: [p for p in points if p[0] <= until] for name, points in log.series.items()}
        yield RunLog({name: points for name, points in series.items() if points}, log.method, log.settings)


def extremes(outcome: Outcome) -> dict[str, float]:
    """Rule -> how far its statistic went in a run, towards its bounds; rules of the method that could be judged."""
    found: dict[str, float] = {}
    rules = {rule.name: rule for rule in RULES if rule.applies(outcome.method)}
    for log in looks(run_log(outcome)):
        for limit in LIMITS:
            rule = rules.get(limit.rule)
            measured = limit.statistic(log) if rule is not None and rule.sees(log.series) else None
            if measured is not None:
                further = min if limit.below else max
                found[limit.rule] = further(found.get(limit.rule, measured[1]), measured[1])
    return found
