"""``trueup preflight``: every check that can be made before the first update; trains nothing."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from trueup.cli.console import open_console
from trueup.cli.train import SHORT
from trueup.config.load import leaves, load_config, parse_value, read_yaml
from trueup.config.schema import RECIPES, RecipeConfig
from trueup.errors import GateError, UserError
from trueup.runtime.folder import check_writable

if TYPE_CHECKING:
    from trueup.preflight.outcome import Report

_COLOURS = {"passed": "green", "found": "bold yellow", "skipped": "dim"}
_SEVERITIES = {"fatal": "bold red", "warning": "yellow", "note": "cyan"}
_COMMAND = re.compile(r"#\s*trueup (\S+)")
"""The comment that a file of settings may open with: the command that it is for."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare ``--config``, ``--method``, the short flags, and every setting of every recipe."""
    parser.epilog = (
        "examples:\n  trueup preflight --config configs/dpo.yaml\n"
        "  trueup preflight --method dpo --model path/to/model --data pairs.jsonl\n\n"
        "exit code 3: a finding is fatal. All checks are in docs/preflight.md."
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of a training run; flags override it")
    parser.add_argument("--method", metavar="VERB", help=f"{', '.join(RECIPES)}; default: what the file is about")
    parser.add_argument("--out", metavar="FILE", help="write the report there as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    known = {key: field for schema in RECIPES.values() for key, field in leaves(schema).items()}
    for short, key in SHORT.items():
        if short != "out":
            parser.add_argument(f"--{short}", dest=key, metavar="VALUE", help=f"the same as --{key}")
    group = parser.add_argument_group("settings of the run")
    for key, field in known.items():
        about = (field.description or "").replace("%", "%%")
        group.add_argument(f"--{key}", dest=key, metavar="VALUE", default=None, help=about)


def execute(verb: str, args: argparse.Namespace) -> int:
    """Validate the settings, check the run, print the table."""
    out = None if args.out is None else check_writable(args.out)
    method = args.method or _method_of(args.config)
    if method not in RECIPES:
        raise UserError(f"--method: '{method}' is no training verb; give one of {', '.join(RECIPES)}")
    config = load_config(RECIPES[method], args.config, _overrides(method, args))
    from trueup.cli.display import RunDisplay
    from trueup.recipes.preflight import run_preflight

    with RunDisplay(verb) as display:
        report = run_preflight(method, config, display.prepare)
    card = {"method": method, **report.card()}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(card, indent=1), encoding="utf-8")
    if args.json:
        print(json.dumps(card))
    else:
        _show(report)
    if report.fatal:
        raise GateError(f"preflight: {', '.join(report.fatal)}: do not train before this is repaired")
    return 0


def _method_of(file: str | None) -> str:
    """The method that a file of settings is about, by its first line or by the sections that it has."""
    if file is None:
        raise UserError(f"give --config FILE, or --method with --model and --data; methods: {', '.join(RECIPES)}")
    given = set(read_yaml(file))
    first = Path(file).read_text(encoding="utf-8").partition("\n")[0]
    if (command := _COMMAND.match(first)) and command[1] in RECIPES:
        return command[1]
    fits = [name for name in RECIPES if _fits(name, given) and given & _own_sections(name)]
    if len(fits) != 1:
        raise UserError(f"{file}: does not say which method it is for; give --method ({', '.join(fits or RECIPES)})")
    return fits[0]


def _fits(method: str, given: set[str]) -> bool:
    """Does the method know all sections that are given, and are those there that it cannot do without?"""
    fields = RECIPES[method].model_fields
    needed = {name for name, field in fields.items() if field.is_required()} - set(RecipeConfig.model_fields)
    return needed <= given <= set(fields)


def _own_sections(method: str) -> set[str]:
    """Sections by which a method is known."""
    return set(RECIPES[method].model_fields) - set(RecipeConfig.model_fields) - {"lora", "rollout", "decoding"}


def _overrides(method: str, args: argparse.Namespace) -> dict[str, Any]:
    keys = leaves(RECIPES[method])
    given: Mapping[str, str] = {key: text for key, text in vars(args).items() if "." in key and text is not None}
    for key in given:
        if key not in keys:
            raise UserError(f"--{key}: {method} has no such setting")
    values = {key: parse_value(text, keys[key].annotation) for key, text in given.items()}
    # Nothing is written there: it is only that a run must have one.
    return {**values, "run.out": "runs/preflight"}


def _show(report: Report) -> None:
    console = open_console()
    table = Table("check", "outcome", "what was looked at", box=None, pad_edge=False)
    for outcome in report.outcomes:
        table.add_row(outcome.check, Text(outcome.status, style=_COLOURS[outcome.status]), Text(outcome.told))
    console.print(table)
    for finding in report.findings:
        console.print(Text(f"\n{finding.severity}: {finding.rule}", style=_SEVERITIES[finding.severity]))
        console.print(Text(finding.message), soft_wrap=True)
        console.print(Text(finding.remedy, style="italic"), soft_wrap=True)
    console.print(f"\n{report.describe()}")
