"""The table of rules, its thresholds and the families of findings belong together, and name what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

from monitor_runs import LENGTH, healthy, watch

from trueup.config.schema import RECIPES
from trueup.health import families
from trueup.health.families import FAMILIES
from trueup.health.findings import Severity
from trueup.health.rule import Family, RunLog
from trueup.health.rules.rollouts import UNPENALISED
from trueup.health.table import LIMITS, RULES
from trueup.health.thresholds import THRESHOLDS
from trueup.losses.variants import VARIANTS

ROOT = Path(__file__).parents[2]
SEVERITIES = get_args(Severity)


def literals() -> dict[str, str]:
    """Name of every finding that the package makes -> where."""
    found = {}
    for path in sorted((ROOT / "trueup").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
                found |= {a.value: f"{path.name}:{node.lineno}" for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


def test_every_finding_has_a_family() -> None:
    made = literals()
    missing = {name: where for name, where in made.items() if name not in FAMILIES}
    assert not missing, f"give them a family in trueup/health/families.py: {missing}"
    assert not FAMILIES.keys() - made.keys(), "families of findings that nobody makes"
    assert set(FAMILIES.values()) <= set(get_args(Family))


def test_no_finding_has_two_families() -> None:
    assert not families._ELSEWHERE.keys() & {rule.name for rule in RULES}


def test_names_of_rules_are_unique_and_methods_exist() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.methods <= RECIPES.keys() | {"online-dpo"}, rule.name


def test_what_rules_need_is_a_metric_of_the_page() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    needed = {name.removeprefix("eval/") for rule in RULES for names in rule.needs for name in names}
    assert needed <= listed


def test_every_bound_has_a_statistic_and_every_statistic_a_bound() -> None:
    bounds = {name.split("/")[0] for name in THRESHOLDS if name.split("/")[1] in SEVERITIES}
    assert bounds - {limit.rule for limit in LIMITS} == {"reward-part-constant"}  # one number a part
    assert {limit.rule for limit in LIMITS} <= bounds
    assert {name.split("/")[0] for name in THRESHOLDS} <= {rule.name for rule in RULES}


def test_a_graver_bound_lies_further_out() -> None:
    for limit in LIMITS:
        values = [
            THRESHOLDS[f"{limit.rule}/{grade}"].value for grade in SEVERITIES if f"{limit.rule}/{grade}" in THRESHOLDS
        ]
        assert values == sorted(values, reverse=limit.below), limit.rule


def test_statistics_can_be_taken_of_healthy_runs_by_themselves() -> None:
    """What sets a limit on healthy logs: each gives a step of the run and a number inside the bounds, or None."""
    seen = set()
    for method in ("sft", "reward", "dpo", "kto", "ppo", "grpo"):
        series: dict[str, list[tuple[int, float]]] = {}
        for step, metrics in enumerate(healthy(method), 1):
            for name, value in metrics.items():
                series.setdefault(name, []).append((step, value))
        for limit in LIMITS:
            found = limit.statistic(RunLog(series, method, {"optim.max_grad_norm": 1.0}))
            if found is not None and next(rule for rule in RULES if rule.name == limit.rule).applies(method):
                assert 1 <= found[0] <= LENGTH and limit.judge(*found) is None, limit.rule
                seen.add(limit.rule)
    assert len(seen) > 25


def test_variants_without_a_penalty_are_those_of_the_losses() -> None:
    assert {name for name, variant in VARIANTS.items() if variant.kl_coef == 0} == UNPENALISED


def test_an_empty_run_has_no_findings() -> None:
    assert watch([]).rows == [] and watch([{}] * 40).rows == []
