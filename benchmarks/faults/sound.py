"""Is a run healthy that was meant to be? By its own result, whatever was found; every run of both sets is asked.

A run that is not has no business among the healthy ones. It is withdrawn and counted as withdrawn, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.damage import PAIRED, measure
from faults.healthy import Scenario
from faults.lab import Lab, Outcome
from trueup.health.rule import ONLINE, RunLog
from trueup.health.signals import change
from trueup.health.thresholds import ROLLOUTS

FALL = 0.3
"""How far the true reward may lie below the start's: what 160 samples of two models scatter by."""

CHANCE = 2.0
"""Standard errors that count as chance."""


Run = tuple[Scenario, Outcome]
"""What was run, and what it showed."""


@dataclass(frozen=True)
class Begun:
    """What models that runs begin with are measured at: ``start`` (after SFT), and ``half``, where SFT runs begin."""

    gold: float
    log_likelihood: float


def measure_starts(lab: Lab) -> Begun:
    """Measure both models as the ends of runs are measured."""
    start, half = (measure(lab.root, "sft", Path(lab.path(name))) for name in ("start", "half"))
    return Begun(start["gold"], half["log-likelihood"])


def sifted(runs: Sequence[Run], begun: Begun) -> tuple[list[Run], list[dict[str, Any]]]:
    """The runs that are healthy, and a line for each that is withdrawn: the run, why, and what was found in it."""
    healthy, withdrawn = [], []
    for scenario, outcome in runs:
        reason = what_ails(scenario, outcome, begun)
        if not reason:
            healthy.append((scenario, outcome))
            continue
        found = sorted({f["rule"] for f in outcome.findings if f["severity"] != "note"})
        withdrawn.append(
            {"method": scenario.method, "run": scenario.name, "seed": scenario.seed, "reason": reason, "found": found}
        )
    return healthy, withdrawn


def what_ails(scenario: Scenario, outcome: Outcome, begun: Begun) -> str:
    """Why a run is not healthy; empty if it is.

    - What the method is about must be better than at the start: the likelihood of held-out responses (SFT), the share
      of held-out pairs moved the right way (DPO, KTO, ORPO), the accuracy of a reward model beyond a coin's, the
      reward that was paid or else the true one (online). Where a penalty or a tiny rate is to hold the policy
      (``Scenario.held``), the reward must not be worse beyond chance.
    - The true reward, where the run was paid for it or its model, or tuned on pairs made by it, is at most 0.3 lower.

    A run that ended in an error has no result to be judged by, and stays: the error counts as an alarm.
    """
    if outcome.error or outcome.crash:
        return ""
    if not outcome.measures:
        return "its model cannot be measured"
    fallen = begun.gold - outcome.measures.get("gold", begun.gold)
    if scenario.for_gold and fallen > FALL:
        return f"the true reward fell by {fallen:.2f}"
    return _not_better(scenario, outcome, begun)


def _not_better(scenario: Scenario, outcome: Outcome, begun: Begun) -> str:
    method, measures = scenario.method, outcome.measures
    if method == "sft" and measures["log-likelihood"] <= begun.log_likelihood:
        return "held-out responses are no likelier than at the start"
    if method in PAIRED and measures["pairs"] <= 0.5:
        return "no more than half of the held-out pairs moved the right way"
    if method == "reward" and not _beats_a_coin(outcome):
        return "the reward model ranks like a coin"
    if method in ONLINE and not _is_paid_better(scenario, outcome, begun):
        return "neither the reward that was paid nor the true one rose"
    return ""


def _beats_a_coin(outcome: Outcome) -> bool:
    """On the run's own held-out pairs, which may be of another kind than the laboratory's."""
    rows = [row for row in outcome.metrics if row.get("eval/accuracy") is not None]
    return bool(rows) and rows[-1]["eval/accuracy"] - 0.5 > CHANCE * 0.5 / rows[-1]["eval/num_examples"] ** 0.5


def _is_paid_better(scenario: Scenario, outcome: Outcome, begun: Begun) -> bool:
    rewards = [(row["step"], float(row["reward"])) for row in outcome.metrics if row.get("reward") is not None]
    rise, errors = change(RunLog({"reward": rewards}), "reward", ROLLOUTS) or (0.0, 0.0)
    truly = scenario.for_gold and outcome.measures["gold"] > begun.gold
    return truly or rise > 0 or (scenario.held and errors > -CHANCE)
