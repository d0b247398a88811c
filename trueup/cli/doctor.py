"""``trueup doctor``: the rules over finished runs, ours or another tool's, and over tables of scores."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import UserError, nearest

if TYPE_CHECKING:
    from trueup.health.doctor import Diagnosis
    from trueup.health.findings import Finding
    from trueup.health.readers.translate import Reading, Told
    from trueup.health.rules_foreign.score_table import ScoreTable

METHODS = ("sft", "reward", "dpo", "kto", "orpo", "online-dpo", "ppo", "grpo", "rloo")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = (
        "examples:\n"
        "  trueup doctor runs/dpo\n"
        "  trueup doctor trl-output/checkpoint-500 --set preference.beta=0.1\n"
        "  trueup doctor wandb-export.csv --method grpo --map my_reward=reward\n"
        "  trueup doctor beta-0.1.jsonl beta-0.3.jsonl --json\n\n"
        "reads: run folders of trueup, trainer_state.json (TRL, Axolotl, LLaMA-Factory), JSONL, JSON, CSV,\n"
        "W&B exports, TensorBoard, torchtune; docs/doctor.md. Exit code 3 if a finding is fatal."
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="log, run folder, table of scores; several are compared"
    )
    parser.add_argument("--method", choices=METHODS, help="what was trained with, where it is guessed wrong")
    parser.add_argument("--map", metavar="FOREIGN=OURS", action="append", default=[], help="a metric under our name")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="a setting: preference.beta=0.1"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 3 for warnings too")
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON on stdout")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Read, judge, tell; the exit code says how bad it is."""
    from trueup.health.doctor import NAMES, compare, diagnose, judge_scores
    from trueup.health.readers.sources import open_path

    told = _told(args)
    logs: list[tuple[Reading, Diagnosis]] = []
    tables: list[ScoreTable] = []
    for path in args.paths:
        readings, scores = open_path(Path(path), told, NAMES)
        logs += [(reading, diagnose(reading.log, reading.recorded)) for reading in readings]
        tables += scores
    _require_mapped(told, [reading for reading, _ in logs])
    together = compare([(_short(reading.label), reading.log) for reading, _ in logs])
    judged = judge_scores(tables)
    if args.json:
        print(json.dumps(_plain(_document(logs, together, tables, judged)), indent=1, ensure_ascii=False))
    else:
        from trueup.cli.doctor_note import tell

        tell(logs, together, tables, judged)
    found = [*together, *judged, *(finding for _, diagnosis in logs for finding in diagnosis.findings)]
    return 3 if any(_bad(finding, args.strict) for finding in found) else 0


def _bad(finding: Finding, strict: bool) -> bool:
    return finding.severity == "fatal" or (strict and finding.severity == "warning")


def _told(args: argparse.Namespace) -> Told:
    from trueup.health.readers.translate import Told

    settings = {key: _value(text) for key, text in _pairs(args.set, "--set KEY=VALUE").items()}
    undotted = next((key for key in settings if "." not in key), None)
    if undotted is not None:
        raise UserError(f"--set {undotted}: a setting is section.key, for example preference.beta=0.1")
    return Told(args.method, _pairs(args.map, "--map FOREIGN=OURS"), settings)


def _pairs(given: Iterable[str], form: str) -> dict[str, str]:
    """Split at the last "=": names of metrics may hold one."""
    pairs = {}
    for text in given:
        left, separator, right = text.rpartition("=")
        if not (separator and left and right):
            raise UserError(f"'{text}': expected {form}")
        pairs[left] = right
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _require_mapped(told: Told, readings: Sequence[Reading]) -> None:
    """A name that ``--map`` gives must be in a log: a typing error would otherwise change nothing, silently."""
    seen = {name for reading in readings for name in (*reading.renamed, *reading.unused, *reading.unknown)}
    for name in told.names:
        if name not in seen:
            raise UserError(f"--map {name}=...: no log has a metric '{name}'{nearest(name, seen)}")


def _short(label: str) -> str:
    """The last part of a path, enough to tell logs apart in a sentence."""
    path, _, run = label.partition(" (")
    return f"{Path(path).name}{f' ({run}' if run else ''}"


def _document(
    logs: Sequence[tuple[Reading, Diagnosis]],
    together: Sequence[Finding],
    tables: Sequence[ScoreTable],
    judged: Sequence[Finding],
) -> dict[str, Any]:
    return {
        "logs": [
            {
                "path": reading.label,
                "source": reading.source,
                "settings": dict(reading.log.settings),
                "renamed": {name: {"ours": ours, "note": note} for name, (ours, note) in reading.renamed.items()},
                "unused": dict(reading.unused),
                "unknown": list(reading.unknown),
                "notes": list(reading.notes),
                **diagnosis.row(),
            }
            for reading, diagnosis in logs
        ],
        "together": [finding.row() for finding in together],
        "scores": {
            "arms": [{"arm": t.arm, "mean": t.mean, "prompts": len(t.scores), "draws": t.draws} for t in tables],
            "findings": [finding.row() for finding in judged],
        },
    }


def _plain(value: Any) -> Any:
    """Numbers that are not finite as null, which JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
