"""``trueup explain``: short counterfactual reruns that say which cause the data support."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from trueup.cli.console import open_console
from trueup.errors import UserError


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = (
        "examples:\n  trueup explain runs/dpo --sft runs/sft\n"
        "  trueup explain runs/dpo --reference path/to/broader/model --budget 10\n"
        "  trueup explain runs/dpo --only batch_size,beta --steps 40 --json\n\n"
        "Ctrl-C stops; the same command goes on from there."
    )
    parser.add_argument("run", metavar="RUN", help="run folder of dpo, sft, reward, ppo, grpo or rloo")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--reference", metavar="MODEL", help="less over-fitted model to start from and compare with")
    other.add_argument("--sft", metavar="RUN", help="SFT run behind the start: repeated with a fifth of its steps")
    other.add_argument("--base", metavar="MODEL", help="base model: the start goes half-way back to it")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of a rerun (default: the run's, at most 60)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="replicates of every arm (default: 3)")
    parser.add_argument(
        "--budget", type=float, default=20.0, metavar="MINUTES", help="fewer steps where it would take longer (20)"
    )
    parser.add_argument("--only", default="", metavar="A,B", help="only these factors (default: all that apply)")
    parser.add_argument("--outcome", metavar="NAME", help="what is explained (default: the method's first)")
    parser.add_argument("--out", metavar="DIR", help="folder of the reruns (default: RUN/explain)")
    parser.add_argument("--json", action="store_true", help="print explain.json on stdout instead of the tables")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Rerun, compare, print."""
    if args.seeds < 2 or args.budget <= 0 or (args.steps is not None and args.steps < 1):
        raise UserError("--seeds must be at least 2 (one replicate has no interval), --steps and --budget positive")
    from trueup.cli.display import RunDisplay
    from trueup.recipes.explain import explain
    from trueup.recipes.explain_plan import Wishes
    from trueup.recipes.explain_reference import Given

    only = tuple(name for name in args.only.split(",") if name)
    given = Given(args.reference, args.sft, args.base)
    wishes = Wishes(given, args.steps, args.seeds, args.budget, only, args.outcome, args.out)
    with RunDisplay(verb) as display:
        report = explain(args.run, wishes, display)
    if args.json:
        print(json.dumps(report))
    else:
        _show(report, args.out or f"{args.run}/explain")
    return 0


def _show(report: Mapping[str, Any], folder: str) -> None:
    console = open_console()
    console.print(_single(report))
    if report["factorial"]:
        console.print(_factorial(report))
    for line in report["evidence"]:
        console.print(Text(f"- {line}"), soft_wrap=True)
    console.print(Text(report["verdict"], style="bold"), soft_wrap=True)
    console.print(Text(f"{folder}/explain.json"), soft_wrap=True)


def _single(report: Mapping[str, Any]) -> Table:
    from trueup.recipes.explain_words import size

    name = report["outcome"]
    title = f"{name}: {report['base'][name]:.3g} in reruns of the run's own setting"
    table = Table("one thing changed", "effect [95 % interval]", "Holm p", title=title, caption=_floor(report))
    for row in report["factors"]:
        effect = row["effects"][name]
        control = "" if row["candidate"] else " (control)"
        table.add_row(row["label"] + control, size(effect, effect["scale"]), f"{effect['p_holm']:.2g}")
    return table


def _floor(report: Mapping[str, Any]) -> str | None:
    """What is to be known of ratios where values are near 0."""
    count, floor = report["floored"]["values"], report["floored"]["at"]
    return f"{count} values nearer to 0 than {floor:g} count as {floor:g}: ratios to them are larger" if count else None


def _factorial(report: Mapping[str, Any]) -> Table:
    from trueup.recipes.explain_words import size

    name, found = report["outcome"], report["factorial"]
    scale = report["factors"][0]["effects"][name]["scale"]
    table = Table("all combined", "effect [95 % interval]", "p", title="factorial of the strongest")
    for term, effect in found["effects"].items():
        table.add_row(term, size(effect, scale), f"{effect['p']:.2g}")
    return table
