"""How long the reruns of an explanation are: told beforehand, kept for the next call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from trueup.config.load import read_yaml
from trueup.config.schema import RecipeConfig
from trueup.errors import UserError
from trueup.recipes.counterfactuals import LARGER, TOGETHER, Factor
from trueup.recipes.explain_material import Rows
from trueup.recipes.explain_reference import Given

STEPS, FEWEST = 60, 10
"""Steps of a rerun where nobody said, and those below which a budget is refused."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Attributes:
        given: about another reference.
        steps: of a rerun; None = the run's own, at most ``STEPS``, and what the budget allows.
        seeds: replicates; each has its own seed and its own held-out rows.
        budget: minutes that all reruns may take.
        only: names of factors; all if empty.
        outcome: name of what is explained; None = the method's first.
        out: folder of the reruns; None = ``explain`` in the run folder.
    """

    given: Given = field(default_factory=Given)
    steps: int | None = None
    seeds: int = 3
    budget: float = 20.0
    only: tuple[str, ...] = ()
    outcome: str | None = None
    out: str | None = None


def rows_wanted(config: RecipeConfig, wishes: Wishes) -> int:
    """Training rows that the rerun with the largest batch sees once."""
    batch = config.optim.batch_size
    return (wishes.steps or STEPS) * (batch * LARGER if batch <= LARGER else batch)


def arms_together(factors: Sequence[Factor]) -> int:
    """Arms that the factorial of the strongest adds to those with one factor, at most."""
    together = min(TOGETHER, sum(factor.candidate for factor in factors))
    return 2**together - 1 - together


def choose_steps(journal: Sequence[Mapping[str, Any]], factors: Sequence[Factor], wishes: Wishes) -> int:
    """Steps of a rerun: those wished for, else the run's own as far as ``STEPS`` and the budget go."""
    own = max((row["step"] for row in journal), default=STEPS)
    if wishes.steps is not None:
        return min(own, wishes.steps)
    fits = math.floor(60 * wishes.budget / max(1e-9, _seconds(1, factors, journal, wishes)))
    if fits < min(own, FEWEST):
        need = _seconds(FEWEST, factors, journal, wishes) / 60
        raise UserError(
            f"--budget {wishes.budget:g}: {FEWEST} steps of every rerun would take about {need:.0f} minutes: give "
            "more, or fewer factors (--only)"
        )
    return min(own, STEPS, fits)


def _seconds(steps: int, factors: Sequence[Factor], journal: Sequence[Mapping[str, Any]], wishes: Wishes) -> float:
    """Time that all reruns will take by the run's own seconds a step."""
    step = median([row["step_time"] for row in journal if "step_time" in row] or [0.0])
    costs = [1.0, *(factor.cost for factor in factors)]
    return steps * step * wishes.seeds * (sum(costs) + arms_together(factors) * fmean(costs))


def describe_plan(
    verb: str,
    steps: int,
    factors: Sequence[Factor],
    journal: Sequence[Mapping[str, Any]],
    wishes: Wishes,
    rows: Rows | None,
) -> str:
    """The line that is told before the first rerun."""
    minutes = _seconds(steps, factors, journal, wishes) / 60
    held = f", each measured on {len(rows.held[0])} held-out rows of its own" if rows else ""
    return (
        f"plan: {1 + len(factors)} arms of {verb}, one factor changed at a time, then the strongest together; "
        f"{wishes.seeds} replicates of {steps} steps each{held}; about {max(1, math.ceil(minutes))} minutes of updates "
        "by the run's own pace, and loading and measuring besides. Ctrl-C stops; the same command goes on from there."
    )


def freeze_plan(folder: Path, run: str, wishes: Wishes, steps: int) -> int:
    """Write down what the reruns are made with, or check that they are still made so; returns their steps."""
    file = folder / "plan.json"
    asked = {"settings": read_yaml(f"{run}/config.yaml"), "seeds": wishes.seeds, "given": vars(wishes.given)}
    if file.exists():
        plan = json.loads(file.read_text(encoding="utf-8"))
        same = all(plan[name] == json.loads(json.dumps(value)) for name, value in asked.items())
        if not same or (wishes.steps is not None and steps != plan["steps"]):
            raise UserError(f"{folder}: holds reruns of another plan; give the same settings or another --out")
        return plan["steps"]
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**asked, "steps": steps}, indent=1), encoding="utf-8")
    return steps
