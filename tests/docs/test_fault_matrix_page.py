"""The page of the fault matrix says what the committed results say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from trueup.health.families import FAMILIES
from trueup.health.table import LIMITS
from trueup.health.thresholds import THRESHOLDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "fault-matrix.md"
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The module that writes the tables; it imports nothing of the package."""
    spec = importlib.util.spec_from_file_location("fault_matrix_page", ROOT / "benchmarks" / "faults" / "page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_results(tables: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert tables.written(page) == page, "run: python benchmarks/faults/page.py"


def test_the_comparison_would_see_a_changed_number(tables: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    block = page.split("<!-- begin false alarms -->", 1)[1].split("<!-- end", 1)[0]
    assert any(letter.isdigit() for letter in block)
    changed = page.replace(block, block.replace("| 0 of", "| 1 of").replace("%", " %"))
    assert changed != page and tables.written(changed) == page


def test_every_bound_of_a_statistic_is_in_the_fit_with_its_shipped_value() -> None:
    cases = json.loads((RESULTS / "thresholds.cpu.json").read_text(encoding="utf-8"))["cases"]
    fitted = {f"{case['rule']}/{case['severity']}": case["threshold"] for case in cases}
    rules = {limit.rule for limit in LIMITS}
    graded = ("note", "warning", "fatal")
    shipped = {
        name: bound.value
        for name, bound in THRESHOLDS.items()
        if name.split("/")[0] in rules and name.split("/")[1] in graded
    }
    assert fitted == shipped, "run: python benchmarks/fit_thresholds.py"
    for case in cases:
        told = THRESHOLDS[f"{case['rule']}/{case['severity']}"].healthy
        assert told == ((case["runs"], float(case["extreme"])) if case["runs"] else None), case["rule"]


def test_false_alarms_are_of_findings_that_exist_and_add_up() -> None:
    block = json.loads((RESULTS / "false_alarms.cpu.json").read_text(encoding="utf-8"))["cases"][0]
    assert {alarm["rule"] for alarm in block["alarms"]} <= FAMILIES.keys()
    accused = {(alarm["method"], alarm["seed"]) for alarm in block["alarms"]}
    fatal = {(a["method"], a["seed"]) for a in block["alarms"] if a["severity"] == "fatal"}
    assert block["false_alarms"] == len(accused) and block["fatal"]["alarms"] == len(fatal)
    assert block["runs"] == sum(block["by_method"].values()) >= 60
    if not fatal:
        assert block["fatal"]["upper_95"] == pytest.approx(1 - 0.05 ** (1 / block["runs"]))
