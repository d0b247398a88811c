"""The tables of docs/fault-matrix.md, written from the results between its markers.

    python benchmarks/faults/page.py

Reads results/fault_matrix.cpu.json, false_alarms.cpu.json and thresholds.cpu.json; a test compares the page with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "fault-matrix.md"
RESULTS = ROOT / "benchmarks" / "results"

Result = Mapping[str, Any]


def faults(matrix: Result) -> str:
    """One row for each run with a fault."""
    rows = [
        (
            f"{row['fault']} {row['name']}",
            row["method"],
            f"{row['severity_of_injection']:g} {row['unit']}" if row["unit"] else "",
            "yes" if row["damaging"] else "no",
            _noticed(row),
            _code(row["by_rule"]),
            row["at_step"],
            {None: "", True: "right", False: f"wrong: {row['accused']}"}[row["family_right"]],
        )
        for row in matrix["cases"]
    ]
    return table(("fault", "method", "strength", "harmful", "noticed", "by", "at step", "part accused"), rows)


def _noticed(row: Result) -> str:
    if row["crash"]:
        return "run crashed"
    return "yes" if row["detected"] else "**no**" if row["damaging"] else "no"


def totals(matrix: Result) -> str:
    """What the rows come to."""
    found = matrix["summary"]
    rows = [
        ("runs with a fault", found["runs"]),
        ("different faults", found["faults"]),
        ("harmful runs", found["damaging"]),
        ("of these noticed", f"{found['damaging_detected']} ({percent(found['share_of_damaging_detected'])})"),
        ("noticed before the first step", percent(found["detected_before_first_step"])),
        ("right part of the system accused", percent(found["share_with_right_family"])),
        ("harmless runs noticed all the same", found["harmless_detected"]),
    ]
    return table(("", ""), rows)


def false_alarms(alarms: Result) -> str:
    """Rates on healthy runs, and every single alarm."""
    block = alarms["cases"][0]
    rates = [
        (told, f"{block[name]['alarms']} of {block[name]['runs']}", percent(block[name]["rate"]), bound(block[name]))
        for name, told in (
            ("fatal", "a fatal finding"),
            ("warning_or_fatal", "a warning or a fatal finding"),
            ("before_the_first_step", "either, before the first step"),
        )
    ]
    listed = [
        (alarm["method"], alarm["run"], _code(alarm["rule"]), alarm["severity"], alarm["first_step"])
        for alarm in block["alarms"]
    ]
    every = table(("method", "run", "finding", "severity", "at step"), listed) if listed else "There was none."
    counted = table(("healthy runs with", "runs", "rate", "at most, with 95 % confidence"), rates)
    return "\n\n".join([counted, every, *withdrawn(alarms)])


def withdrawn(result: Result) -> list[str]:
    """What was not healthy by its own result and is not counted; results of before it was asked have no such list."""
    if "withdrawn" not in result:
        return []
    rows = [
        (run["method"], run["run"], run["reason"], ", ".join(map(_code, run["found"]))) for run in result["withdrawn"]
    ]
    return [table(("withdrawn", "run", "because", "found in it"), rows) if rows else "No run was withdrawn."]


def peers(alarms: Result, matrix: Result) -> str:
    """Other tools on the same runs: harmful ones, and healthy ones."""
    healthy, harmful = alarms["cases"][0]["peers"], matrix.get("peers", {})
    rows = []
    for tool, found in healthy.items():
        seen = harmful.get(tool)
        rows.append(
            (
                tool,
                f"{seen['detected']} of {seen['asked']}" if seen and seen["asked"] else "not asked",
                f"{found['alarms']} of {found['runs']}",
                bound(found),
                ", ".join(f"{name} {count}" for name, count in found["by"].items()),
            )
        )
    heads = ("tool", "harmful runs noticed", "healthy runs with an alarm", "rate at most", "what it named there")
    return table(heads, rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def percent(share: float | None) -> str:
    """A share in whole per cent, one digit more below 10 %."""
    return "" if share is None else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def bound(found: Result) -> str:
    """The upper bound of a rate."""
    return percent(found["upper_95"])


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def thresholds(fitted: Result) -> str:
    """Every bound of a live rule against the furthest that healthy runs went."""
    rows = [
        (
            f"`{case['rule']}` {case['severity']}",
            case["runs"],
            "" if case["extreme"] is None else f"{case['extreme']}",
            case["in"],
            f"{'below' if case['wrong_is'] == 'below' else 'above'} {case['threshold']:g}",
            case["raised"] or "",
        )
        for case in fitted["cases"]
    ]
    return "\n\n".join(
        [table(("rule", "runs that have it", "furthest", "in", "fires", "fired"), rows), *withdrawn(fitted)]
    )


BLOCKS: Mapping[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "totals": (("fault_matrix",), totals),
    "faults": (("fault_matrix",), faults),
    "false alarms": (("false_alarms",), false_alarms),
    "peers": (("false_alarms", "fault_matrix"), peers),
    "thresholds": (("thresholds",), thresholds),
}
"""Name of a block in the page -> the results it needs, and what writes it."""


def written(page: str) -> str:
    """The page with every block written anew; one whose results are not there is empty."""
    for name, (needed, write) in BLOCKS.items():
        files = [RESULTS / f"{result}.cpu.json" for result in needed]
        there = all(file.exists() for file in files)
        text = write(*(json.loads(file.read_text(encoding="utf-8")) for file in files)) + "\n" if there else ""
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{PAGE.name} has no block '{name}'")
        page = before + begin + text + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
