"""Seconds and memory of the default study, stage by stage, as `make demo` runs it.

    python benchmarks/study_seconds.py [FOLDER]

Runs the study in a new folder (a temporary one, if none is given), samples the memory of all its processes together,
prints a table and writes results/study_seconds.cpu.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from harness import write_result
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run, measure, report."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch) / "demo"
        command = [sys.executable, "-m", "trueup", "study", str(ROOT / "configs/study-demo.yaml"), "--out", str(out)]
        began = time.perf_counter()
        with subprocess.Popen(command) as process:
            peak = _watch(process.pid)
            code = process.wait()
            seconds = time.perf_counter() - began
        if code != 0:
            raise SystemExit(f"the study ended with exit code {code}")
        study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    cases = [{"stage": "whole study", "wall_seconds": seconds, "peak_memory_gb": peak[0], "processes": "all together"}]
    cases += [
        {"stage": s["name"], "job_seconds": s["seconds"], "peak_memory_gb": s["peak_memory_gb"], "processes": "largest"}
        for s in study["seconds"]["stages"]
    ]
    table = Table("stage", "seconds", "peak memory, GB")
    for case in cases:
        value = case.get("wall_seconds", case.get("job_seconds"))
        table.add_row(case["stage"], f"{value:.1f}", f"{case['peak_memory_gb']:.2f}")
    Console().print(table)
    print(write_result("study_seconds", "cpu", cases))


def _watch(pid: int) -> list[float]:
    """Sample the memory of a process and all its descendants every half second; the list holds the peak, in GB.

    Proportional set size where the system tells it: pages that workers share count once.
    """
    peak = [0.0]

    def look() -> None:
        root = psutil.Process(pid)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            peak[0] = max(peak[0], _together(root) / 1e9)
            time.sleep(0.5)

    threading.Thread(target=look, daemon=True).start()
    return peak


def _together(root: psutil.Process) -> int:
    total = 0
    try:
        for process in [root, *root.children(recursive=True)]:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.Error:
        return 0
    return total


if __name__ == "__main__":
    main()
