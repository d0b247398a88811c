"""The page of the checks names all of them, and every finding that they make."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from trueup.preflight.run import PROBES
from trueup.recipes.held import ALIKE, OVERLAP

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([^|`]+?)(?: \((?:full|the verb|in a run)\))? \| [^|]+ \| (`.+`) \|$", re.MULTILINE)

ELSEWHERE = {"reward-model-unsound", "reward-model-unknown", "evaluation-overlap", "held-out-opposite"}
"""Findings of the table that are made outside the room."""


def test_every_check_has_a_row_and_every_row_a_check() -> None:
    rows = ROW.findall((ROOT / "docs/preflight.md").read_text(encoding="utf-8"))
    assert [name for name, _ in rows] == ["reward model", *(name for name, *_ in PROBES), ALIKE, OVERLAP]
    told = {rule for _, rules in rows for rule in re.findall("`([^`]+)`", rules)}
    assert told == made() | ELSEWHERE


def made() -> set[str]:
    """First arguments of every ``Finding(...)`` of the checks."""
    calls = (
        node
        for path in (ROOT / "trueup/preflight").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"
    )
    return {ast.literal_eval(call.args[0]) for call in calls}
