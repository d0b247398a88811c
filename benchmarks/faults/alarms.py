"""False alarms: how many healthy runs raised a finding, of ours and of others, with bounds on the rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from scipy import stats

from faults.healthy import Scenario
from faults.lab import Outcome
from faults.peers import TOOLS, judge
from faults.sound import Run

LEVEL = 0.95

STOPPED = "stopped"
"""Stands for a rule where a run ended in an error."""


def upper_bound(alarms: int, runs: int, level: float = LEVEL) -> float:
    """The one-sided Clopper-Pearson bound: a higher rate than it gives so few alarms less often than 1 - ``level``.

    0 alarms in n runs give 1 - (1 - level)^(1/n), about 3/n.
    """
    return 1.0 if alarms >= runs else float(stats.beta.ppf(level, alarms + 1, runs - alarms))


def rate(alarms: int, runs: int) -> dict[str, float]:
    """Runs with an alarm, as a share of all, with the bound."""
    return {"alarms": alarms, "runs": runs, "rate": alarms / runs, "upper_95": upper_bound(alarms, runs)}


def alarms_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Warnings and fatal findings of a run, before its first step and after; an error is one too."""
    found = [f for f in outcome.findings if f["severity"] != "note"]
    kept = [{key: f[key] for key in ("rule", "severity", "first_step", "evidence")} for f in found]
    error = outcome.error or outcome.crash.strip()
    last = [{"rule": STOPPED, "severity": "fatal", "first_step": 0, "evidence": {"error": error}}] if error else []
    return [*kept, *last]


def healthy_block(runs: Sequence[Run]) -> dict[str, Any]:
    """The block ``healthy`` of results/fault_matrix.cpu.json.

    ``false_alarms`` counts runs with a warning or worse; ``rules`` counts runs by rule and severity; ``alarms`` lists
    every single one.
    """
    raised = [(scenario, alarm) for scenario, outcome in runs for alarm in alarms_of(outcome)]
    noisy = Counter((s.method, s.seed) for s, _ in raised)
    fatal = {(s.method, s.seed) for s, alarm in raised if alarm["severity"] == "fatal"}
    early = {(s.method, s.seed) for s, alarm in raised if alarm["first_step"] == 0}
    return {
        "runs": len(runs),
        "false_alarms": len(noisy),
        "by_method": dict(sorted(Counter(scenario.method for scenario, _ in runs).items())),
        "fatal": rate(len(fatal), len(runs)),
        "warning_or_fatal": rate(len(noisy), len(runs)),
        "before_the_first_step": rate(len(early), len(runs)),
        "alarms_per_run": len(raised) / len(runs),
        "rules": _by_rule(raised),
        "alarms": [{"method": s.method, "run": s.name, "seed": s.seed, **alarm} for s, alarm in raised],
        "peers": peer_alarms(runs),
    }


def _by_rule(raised: Sequence[tuple[Scenario, dict[str, Any]]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for _, alarm in raised:
        of_rule = counts.setdefault(alarm["rule"], {"warning": 0, "fatal": 0})
        of_rule[alarm["severity"]] += 1
    return dict(sorted(counts.items()))


def peer_alarms(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """The same of other tools, over the runs that they could judge; ``by`` counts what they named."""
    verdicts = [judge(outcome.metrics, scenario.method) for scenario, outcome in runs if outcome.metrics]
    found: dict[str, dict[str, Any]] = {}
    for tool in TOOLS:
        judged = [verdict[tool] for verdict in verdicts if verdict[tool]["alarm"] is not None]
        alarms = [verdict for verdict in judged if verdict["alarm"]]
        named = Counter(name for verdict in alarms for name in verdict["by"])
        share = rate(len(alarms), len(judged)) if judged else {"alarms": 0, "runs": 0, "rate": None, "upper_95": None}
        found[tool] = {**share, "not_judged": len(runs) - len(judged), "by": dict(named.most_common())}
    return found
