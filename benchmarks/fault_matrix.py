"""Which faults are noticed? Faults are put into real runs and held against healthy twins.

    python benchmarks/fault_matrix.py [--only F26,dpo] [--workers 2] [--seeds 0] [--out FOLDER] [--report]

Every run is the recipe itself on a small laboratory, with ``run.preflight: full`` and ``run.on_fatal: continue``. What
a run showed is kept in FOLDER, so that a benchmark that was stopped goes on; ``--report`` only reads what is there. The
table and results/fault_matrix.cpu.json say of each run whether the fault was noticed, by which rule, since which step
(0: before the first), whether the finding accuses the right part of the system, and what the fault did to the result.
``python benchmarks/false_alarms.py FOLDER`` before it adds the healthy runs that are odd.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from faults.alarms import alarms_of, healthy_block
from faults.catalogue import FAULTS, Case, cases, twin_label
from faults.healthy import REPORT
from faults.healthy_runs import run_all
from faults.lab import Lab, Outcome, prepare, run_once
from faults.peers import judge
from faults.score import score, summary
from faults.sound import measure_starts, sifted
from harness import RESULTS, write_result
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

TWIN_SEEDS = (0, 1, 2)
"""Seeds of healthy runs with a method's usual settings: their scatter is what damage is measured in."""


@dataclass(frozen=True)
class Task:
    """One run: a fault, or a twin where there is no case."""

    file: Path
    method: str
    seed: int
    settings: Mapping[str, Any]
    case: Case | None = None


def main() -> None:
    """Run what is missing, then report what is there."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # what the workers inherit
    options = _options()
    folder = Path(options.out)
    if not options.report:
        lab = prepare(folder / "lab")
        _run_all([task for task in _tasks(folder, options) if _is_missing(task)], lab, folder, options.workers)
    chosen = cases(_only(options))
    rows = _rows(folder, chosen, options.seeds)
    healthy = _healthy(folder, Lab(folder / "lab"))
    facts = {"summary": summary(rows), "healthy": healthy, "peers": _peers(folder, chosen, options.seeds, rows)}
    _print(rows, facts)
    path = write_result("fault_matrix", "cpu", rows)
    written = json.loads(path.read_text(encoding="utf-8"))
    (RESULTS / path.name).write_text(json.dumps({**written, **facts}, indent=1) + "\n", encoding="utf-8")
    print(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="numbers of faults, or methods, with commas between")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0])
    parser.add_argument("--out", default="runs/fault-matrix", help="where runs are kept")
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser.parse_args()


def _only(options: argparse.Namespace) -> frozenset[str]:
    return frozenset(filter(None, options.only.split(",")))


def _tasks(folder: Path, options: argparse.Namespace) -> list[Task]:
    """Twins first, then faults, the strongest first."""
    chosen = cases(_only(options))
    tasks = {}
    for case in chosen:
        for seed in {*options.seeds, *TWIN_SEEDS}:
            usual = folder / "runs" / f"{twin_label(case.method, {})}-s{seed}.json"
            tasks[usual] = Task(usual, case.method, seed, {})
        for seed in {*options.seeds, *TWIN_SEEDS[:2]} if case.fault.settings else ():
            twin = folder / "runs" / f"{case.twin}-s{seed}.json"
            tasks[twin] = Task(twin, case.method, seed, case.fault.settings)
    for case in chosen:
        for seed in options.seeds:
            file = folder / "runs" / f"{case.label}-s{seed}.json"
            tasks[file] = Task(file, case.method, seed, case.fault.settings, case)
    return list(tasks.values())


def _is_missing(task: Task) -> bool:
    """A run that ended in a way nobody meant is made again."""
    if not task.file.exists():
        return True
    outcome = Outcome.load(task.file)
    return bool(outcome.crash) and not any(finding["severity"] == "fatal" for finding in outcome.findings)


def _run_all(tasks: Sequence[Task], lab: Lab, folder: Path, workers: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        bar = progress.add_task("runs", total=len(tasks))
        waiting = {pool.submit(_run, task, lab, folder): task for task in tasks}
        for done in as_completed(waiting):
            progress.console.print(f"{waiting[done].file.stem}: {done.result()}", highlight=False)
            progress.advance(bar)


def _run(task: Task, lab: Lab, folder: Path) -> str:
    """Make a run in a worker and keep what it showed; returns a line about it."""
    import torch

    torch.set_num_threads(1)
    injection = None
    if task.case is not None:
        case = task.case
        injection = lambda stage: case.fault.inject(stage, case.strength)  # noqa: E731
    scratch = folder / f"scratch-{os.getpid()}"
    outcome = run_once(lab, task.method, task.seed, scratch, task.settings, injection)
    task.file.parent.mkdir(parents=True, exist_ok=True)
    outcome.save(task.file)
    raised = ", ".join(f"{f['rule']} ({f['severity']}, {f['first_step']})" for f in outcome.findings)
    ended = outcome.error or (outcome.crash.strip().splitlines()[-1] if outcome.crash else "")
    return f"{raised or 'nothing'} {ended} {outcome.measures}"


def _rows(folder: Path, chosen: Sequence[Case], seeds: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for case in chosen:
        for seed in seeds:
            file = folder / "runs" / f"{case.label}-s{seed}.json"
            if file.exists():
                twins, usual = _found(folder, case.twin), _found(folder, twin_label(case.method, {}))
                rows.append(score(case, Outcome.load(file), twins, usual))
    order = {(fault.key, fault.name): number for number, fault in enumerate(FAULTS)}
    return sorted(
        rows, key=lambda r: (order[r["fault"], r["name"]], r["method"], r["severity_of_injection"], r["seed"])
    )


def _found(folder: Path, label: str) -> list[Outcome]:
    return [Outcome.load(file) for file in sorted((folder / "runs").glob(f"{label}-s*.json"))]


def _healthy(folder: Path, lab: Lab) -> dict[str, Any]:
    """False alarms on the odd healthy runs that ``false_alarms.py`` made in this folder, and on the twins."""
    odd = [s for s in REPORT if (folder / "report" / f"{s.method}-{s.seed}.json").exists()]
    runs = list(zip(odd, run_all(lab, odd, folder / "report"), strict=True))
    healthy, withdrawn = sifted(runs, measure_starts(lab)) if runs else ([], [])
    twins = {file.stem: Outcome.load(file) for file in sorted((folder / "runs").glob("twin-*-s[0-9].json"))}
    raised = {name: found for name, run in twins.items() if (found := [_told(alarm) for alarm in alarms_of(run)])}
    block = healthy_block(healthy) if healthy else {"runs": 0, "false_alarms": 0}
    return {**block, "withdrawn": withdrawn, "twins": {"runs": len(twins), "false_alarms": len(raised), "by": raised}}


def _told(alarm: Mapping[str, Any]) -> str:
    return f"{alarm['rule']} ({alarm['severity']})"


def _peers(
    folder: Path, chosen: Sequence[Case], seeds: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Tool -> how many of the damaging runs it raised an alarm on, where it had none on any twin."""
    harmful = {
        (r["fault"], r["name"], r["method"], r["severity_of_injection"], r["seed"]) for r in rows if r["damaging"]
    }
    quiet: dict[str, dict[str, bool]] = {}
    out: dict[str, dict[str, Any]] = {}
    for case in chosen:
        for seed in seeds:
            file = folder / "runs" / f"{case.label}-s{seed}.json"
            if (case.fault.key, case.fault.name, case.method, case.strength, seed) not in harmful or not file.exists():
                continue
            if case.twin not in quiet:
                quiet[case.twin] = _alarmed(_found(folder, case.twin))
            for tool, verdict in judge(Outcome.load(file).metrics, case.method).items():
                entry = out.setdefault(tool, {"asked": 0, "detected": 0, "alarm_on_twin_too": 0})
                entry["asked"] += verdict["alarm"] is not None
                alarm, before = bool(verdict["alarm"]), quiet[case.twin].get(tool, False)
                entry["detected"] += alarm and not before
                entry["alarm_on_twin_too"] += alarm and before
    return out


def _alarmed(twins: Sequence[Outcome]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for twin in twins:
        for tool, verdict in judge(twin.metrics, twin.method).items():
            found[tool] = found.get(tool, False) or bool(verdict["alarm"])
    return found


def _print(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    table = Table("fault", "method", "strength", "noticed", "by", "step", "family", "worse by, sd")
    for row in rows:
        worst = max((entry["deviations"] for entry in row["damage"].values()), default=float("nan"))
        noticed = "crash" if row["crash"] else "yes" if row["detected"] else "MISSED" if row["damaging"] else "no"
        right = {None: "", True: "right", False: f"wrong: {row['accused']}"}[row["family_right"]]
        strength = f"{row['severity_of_injection']:g} {row['unit']}" if row["unit"] else ""
        step = "" if row["at_step"] is None else str(row["at_step"])
        harm = f"{worst:.1f}{' *' if row['damaging'] else ''}"
        table.add_row(
            f"{row['fault']} {row['name']}", row["method"], strength, noticed, row["by_rule"] or "", step, right, harm
        )
    console = Console(width=160)
    console.print(table)
    console.print("* damaging: more than 2 deviations worse than the twins, or worthless by definition")
    console.print_json(json.dumps(facts))


if __name__ == "__main__":
    main()
