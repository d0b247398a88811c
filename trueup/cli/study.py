"""``trueup study``: run a study file to its report, with a live display."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from trueup.cli.console import open_console
from trueup.config.load import load_config, read_yaml, validate
from trueup.config.study import StudyConfig
from trueup.errors import RunError, UserError


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = (
        "examples:\n  trueup study configs/study-demo.yaml --out runs/demo\n"
        "  trueup study configs/study-demo.yaml --out runs/quick --quick\n\n"
        "Ctrl-C stops at a checkpoint; the same command goes on from there."
    )
    parser.add_argument("config", metavar="CONFIG", help="study file (YAML)")
    parser.add_argument("--out", metavar="DIR", default=None, help="study folder (default: runs/NAME)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a rehearsal: tiny budgets, two seeds, 24 prompts; its verdicts mean nothing",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="jobs at a time (default: 2)")
    parser.add_argument("--json", action="store_true", help="print study.json on stdout instead of the tables")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Check the study, run its jobs, analyse, report."""
    from trueup.study.plan import plan_jobs
    from trueup.worlds.registry import load_world

    if args.workers < 1:
        raise UserError(f"--workers: must be at least 1, got {args.workers}")
    study = load_config(StudyConfig, args.config, {})
    folder = Path(args.out or f"runs/{study.name}").absolute()
    load_world(study.world)
    jobs = plan_jobs(study, folder)
    if args.quick:
        study = validate(StudyConfig, rehearsal(read_yaml(args.config)), args.config)
        jobs = plan_jobs(study, folder)
    _claim(folder, study)
    began, failure = time.perf_counter(), None
    from trueup.cli.study_display import StudyDisplay
    from trueup.study.execute import run_jobs
    from trueup.study.results import finished_arms
    from trueup.study.timing import add_elapsed

    try:
        with StudyDisplay(jobs) as display:
            run_jobs(jobs, folder, args.workers, display)
    except RunError as error:
        failure = error
    finally:
        elapsed = add_elapsed(folder, time.perf_counter() - began)
    if failure is not None and len(finished_arms(study, folder)) < 2:
        raise failure
    _analyse(study, folder, elapsed)
    _show(folder, args.json)
    if failure is not None:
        raise failure
    return 0


def rehearsal(values: dict[str, Any]) -> dict[str, Any]:
    """The same study with budgets cut to a minute: for trying a study file out."""
    values["question"] = f"REHEARSAL, its verdicts mean nothing. {values.get('question', '')}"
    values["seeds"] = values.get("seeds", [0, 1])[:2]
    values["evaluation"] = {**values.get("evaluation", {}), "prompts": 24, "draws": 2}
    values["pairs"] = {**values.get("pairs", {}), "prompts": 64, "validation": 32}
    for section in (
        values.setdefault("sft", {}),
        values.setdefault("reward", {}),
        *(arm.setdefault("config", {}) for arm in values["arms"]),
    ):
        section["optim"] = {**section.get("optim", {}), "steps": 8}
    for arm in values["arms"]:
        if arm.get("tune"):
            arm["tune"] = {**arm["tune"], "values": arm["tune"]["values"][:2], "prompts": 16}
    return values


def _claim(folder: Path, study: StudyConfig) -> None:
    """Freeze the study in its folder; a folder of another study, or a changed one, is refused."""
    from trueup.study.plan import config_hash

    mark = folder / "study-config.json"
    frozen = {"hash": config_hash(study), "study": study.model_dump(mode="json")}
    if mark.exists():
        if json.loads(mark.read_text(encoding="utf-8"))["hash"] != frozen["hash"]:
            raise UserError(f"{folder}: holds a study with other settings; give another --out")
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists and is not a study folder; give another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(frozen, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None


def _analyse(study: StudyConfig, folder: Path, seconds: float) -> None:
    from trueup.runtime.folder import environment, now
    from trueup.study.analyse import analyse
    from trueup.study.timing import stage_seconds

    facts = {
        "date": now(),
        "command": "trueup " + " ".join(sys.argv[1:]) if len(sys.argv) > 1 else "trueup study",
        "environment": environment(),
        "seconds": stage_seconds(folder, seconds),
    }
    analyse(study, folder, facts)


def _show(folder: Path, as_json: bool) -> None:
    from trueup.study.folder import read_study
    from trueup.study.report import write_report
    from trueup.study.table import study_table, verdict_panel

    path, study = write_report(folder), read_study(folder)
    if as_json:
        print(json.dumps(study))
        return
    console = open_console()
    console.print(study_table(study))
    console.print(verdict_panel(study))
    console.print(f"report: {path}", soft_wrap=True)
