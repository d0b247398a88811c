"""How far the statistics of the live rules go in healthy runs, against the thresholds that are shipped.

    python benchmarks/fit_thresholds.py [FOLDER]

Makes the laboratory in the folder (a temporary one, if none is given), runs what ``faults/healthy.py`` lists under
FIT (about ten minutes of a core), prints a table and writes results/thresholds.cpu.json. Runs that lie in the folder
already are not made again; those that are not healthy by their own result (``faults/sound.py``) are withdrawn,
whatever was found in them, and listed.

A threshold stays as specified where every healthy run stayed inside it by a margin, as seen at every look. Where one
did not, the table proposes the extreme of the healthy runs with the margin; whether the run, the rule or the threshold
is to blame is for a reader.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faults.healthy import FIT, Scenario
from faults.healthy_runs import extremes, run_all
from faults.lab import Outcome, prepare
from faults.sound import measure_starts, sifted
from harness import write_result
from rich.console import Console
from rich.table import Table

from trueup.health.limit import Limit
from trueup.health.table import LIMITS
from trueup.health.thresholds import THRESHOLDS

CONSOLE = Console()
MARGIN = 1.25
"""A proposed threshold lies this many times as far out as what healthy runs reached."""


def main() -> None:
    """Run, measure, compare."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        lab = prepare(root / "lab")
        outcomes = run_all(lab, FIT, root / "fit", CONSOLE.print)
        healthy, withdrawn = sifted(list(zip(FIT, outcomes, strict=True)), measure_starts(lab))
    cases = compare(healthy)
    _show(cases)
    for run in withdrawn:
        CONSOLE.print(f"withdrawn: {run['method']}, {run['run']}: {run['reason']}")
    CONSOLE.print(write_result("thresholds", "cpu", cases, withdrawn=withdrawn))


def compare(runs: Sequence[tuple[Scenario, Outcome]]) -> list[dict[str, Any]]:
    """One case for each bound of each statistic."""
    measured = [(scenario, outcome, extremes(outcome)) for scenario, outcome in runs]
    cases = []
    for limit in LIMITS:
        reached = [(values[limit.rule], s) for s, _, values in measured if limit.rule in values]
        raised = [f["severity"] for _, o, _ in measured for f in o.findings if f["rule"] == limit.rule]
        for grade in ("note", "warning", "fatal"):
            if f"{limit.rule}/{grade}" in THRESHOLDS:
                cases.append(_case(limit, grade, reached, raised))
    return cases


def _case(limit: Limit, grade: str, reached: list[tuple[float, Scenario]], raised: list[str]) -> dict[str, Any]:
    """The extreme is the largest value (smallest, where what is wrong lies below); None if no run has the statistic."""
    bound = THRESHOLDS[f"{limit.rule}/{grade}"]
    case: dict[str, Any] = {
        "rule": limit.rule,
        "severity": grade,
        "wrong_is": "below" if limit.below else "above",
        "threshold": bound.value,
        "origin": bound.origin,
        "runs": len(reached),
        "raised": raised.count(grade),
    }
    if not reached:
        return case | {"extreme": None, "percentile_99": None, "in": None, "margin": None, "proposed": bound.value}
    values = [value for value, _ in reached]
    extreme, where = (min if limit.below else max)(reached, key=lambda pair: pair[0])
    margin = (extreme - bound.value) if limit.below else (bound.value - extreme)
    return case | {
        "extreme": _plain(extreme),
        "percentile_99": _plain(float(np.quantile(values, 0.01 if limit.below else 0.99))),
        "in": f"{where.method}, {where.name}",
        "margin": _plain(margin),
        "proposed": _proposed(bound.value, extreme, limit.below),
    }


def _proposed(bound: float, extreme: float, below: bool) -> float | str:
    """The bound, if it lies further out than the extreme by the margin; else what does."""
    beyond = extreme * MARGIN if (extreme > 0) != below else extreme / MARGIN
    outside = bound <= beyond if below else bound >= beyond
    return bound if outside else _plain(beyond)


def _plain(value: float) -> float | str:
    """JSON has no infinity."""
    return float(f"{value:.4g}") if np.isfinite(value) else str(value)


def _show(cases: list[dict[str, Any]]) -> None:
    table = Table("rule", "severity", "runs", "healthy extreme", "in", "threshold", "margin", "raised", "proposed")
    for case in cases:
        keys = ("rule", "severity", "runs", "extreme", "in", "threshold", "margin", "raised")
        proposed = "" if case["proposed"] == case["threshold"] else str(case["proposed"])
        table.add_row(*(str(case[key]) for key in keys), proposed, style="bold" if proposed else None)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
