"""False alarms on healthy runs: every method, most runs odd in some way, all checks and rules on.

    python benchmarks/false_alarms.py [FOLDER]

Makes the laboratory in the folder (a temporary one, if none is given), runs what ``faults/healthy.py`` lists under
REPORT (about ten minutes of a core), prints a table and writes results/false_alarms.cpu.json. Runs that lie in the
folder already are not made again; those that are not healthy by their own result (``faults/sound.py``) are withdrawn,
whatever was found in them, and listed. See ``faults/peers.py`` for what the other tools need.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from faults.alarms import healthy_block
from faults.healthy import REPORT
from faults.healthy_runs import run_all
from faults.lab import prepare
from faults.sound import measure_starts, sifted
from harness import write_result
from rich.console import Console
from rich.table import Table

CONSOLE = Console()


def main() -> None:
    """Run, judge, report."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        lab = prepare(root / "lab")
        outcomes = run_all(lab, REPORT, root / "report", CONSOLE.print)
        healthy, withdrawn = sifted(list(zip(REPORT, outcomes, strict=True)), measure_starts(lab))
    block = healthy_block(healthy)
    _show(block)
    for run in withdrawn:
        CONSOLE.print(f"withdrawn: {run['method']}, {run['run']}: {run['reason']}")
    CONSOLE.print(write_result("false_alarms", "cpu", [block], withdrawn=withdrawn))


def _show(block: dict[str, Any]) -> None:
    table = Table("who", "runs judged", "runs with an alarm", "rate", "at most (95 %)", "named")
    ours = {name: block[name] | {"by": _named(block, name)} for name in ("fatal", "warning_or_fatal")}
    for name, found in (ours | block["peers"]).items():
        share = ["-", "-"] if found["rate"] is None else [f"{found['rate']:.1%}", f"{found['upper_95']:.1%}"]
        named = ", ".join(f"{what} {count}" for what, count in found["by"].items())
        table.add_row(name, str(found["runs"]), str(found["alarms"]), *share, named)
    CONSOLE.print(table)


def _named(block: dict[str, Any], name: str) -> dict[str, int]:
    grades = ("fatal",) if name == "fatal" else ("warning", "fatal")
    sums = {rule: sum(counts[grade] for grade in grades) for rule, counts in block["rules"].items()}
    return {rule: count for rule, count in sums.items() if count}


if __name__ == "__main__":
    main()
