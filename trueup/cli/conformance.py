"""``trueup conformance``: somebody's own function is called on made inputs, and its faults are named."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Any

from trueup.cli.console import open_console
from trueup.errors import UserError
from trueup.preflight.conformance.signatures import SIGNATURES

if TYPE_CHECKING:
    from trueup.preflight.conformance.protocol import Line, Verdict

_WIDTH = 100
_SIGNS = {"ok": ("ok", "green"), "fault": ("FAULT", "bold red"), "note": ("note", "yellow"), "skipped": ("-", "dim")}


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    kinds = "\n".join(
        textwrap.fill(f"{signature.words}: {signature.call} -> {signature.returns}", _WIDTH,
                      initial_indent=f"  {name:12} ", subsequent_indent=" " * 15)
        for name, signature in SIGNATURES.items()
    )  # fmt: skip
    parser.epilog = (
        f"kinds, and how a function is called (parameters are known by many names, else by their place):\n{kinds}\n\n"
        "a function that takes its inputs otherwise: state the call, with the names above and f for the function\n"
        '  --call "f(beta=beta)(policy_chosen, policy_rejected, ref_chosen, ref_rejected)"\n'
        "or write a small function in your file that takes the names above and calls yours.\n\n"
        "examples:\n"
        "  trueup conformance my_dpo.py:get_logps --kind token_logps\n"
        "  trueup conformance my_package.losses:dpo_loss --kind dpo_loss --json\n"
        "  trueup conformance my_logps.py:logps --kind token_logps --expect convention=sums\n\n"
        "exit codes: 0 it conforms, 3 it has faults, 2 it cannot be called. More: docs/is-your-dpo-right.md"
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION; the file is run")
    parser.add_argument("--kind", required=True, choices=list(SIGNATURES), help="what the function is meant to be")
    parser.add_argument("--call", metavar="EXPRESSION", help="how to call it, f being the function")
    parser.add_argument(
        "--expect",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="the convention that is meant, where several are right",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON on stdout")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Check the function and print the verdict; 3 if it has faults."""
    expect = _expected(args.expect)
    from trueup.preflight.conformance.call import load
    from trueup.preflight.conformance.kit import check

    verdict = check(load(args.function), args.kind, call=args.call, expect=expect)
    if args.json:
        print(json.dumps(_document(args.function, verdict), ensure_ascii=False))
    else:
        _draw(args.function, verdict)
    return 0 if verdict.conforms else 3


def _expected(given: list[str]) -> dict[str, str]:
    expect = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise UserError(f"--expect {text}: expected NAME=VALUE, for example convention=sums")
        expect[name] = value
    return expect


def _document(function: str, verdict: Verdict) -> dict[str, Any]:
    def row(line: Line) -> dict[str, Any]:
        faults = [{"name": f.name, "wrong": f.wrong, "silent": f.silent, "remedy": f.remedy} for f in line.faults]
        return {"check": line.check, "status": line.status, "faults": faults, "text": line.text}

    return {
        "function": function,
        "kind": verdict.kind,
        "call": verdict.call,
        "bound": verdict.bound,
        "conforms": verdict.conforms,
        "faults": list(verdict.faults),
        "notes": list(verdict.notes),
        "conventions": dict(verdict.conventions),
        "checks": [row(line) for line in verdict.lines],
    }


def _draw(function: str, verdict: Verdict) -> None:
    """The table of checks, then a paragraph for each fault and note."""
    from rich.text import Text

    console = open_console()

    def say(text: str = "", style: str = "", indent: str = "") -> None:
        for part in text.split("\n"):
            console.print(Text(part if part.startswith("  ") else _filled(part, indent), style=style), soft_wrap=True)

    say(f"{function} as {verdict.kind}", "bold")
    say(f"call: {verdict.call}; parameters known {verdict.bound}", indent="      ")
    for knob, words in verdict.conventions.items():
        say(f"{knob} = {words}", indent="      ")
    say()
    shown = [line for line in verdict.lines if line.status != "skipped"]
    width = max(len(line.check) for line in shown) + 2
    for line in shown:
        sign, colour = _SIGNS[line.status]
        names = ", ".join(fault.name for fault in line.faults) or line.text
        console.print(Text.assemble((f"{sign:6}", colour), f"{line.check:{width}}{names}"), soft_wrap=True)
    for reason, checks in _skipped(verdict).items():
        say(f"-     not looked at, as {reason}: {', '.join(checks)}", "dim", " " * 6)
    for line in verdict.lines:
        _explain(line, say)
    say(f"\n{_last(verdict)}", "bold")


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _skipped(verdict: Verdict) -> dict[str, list[str]]:
    """Reason → the checks that were left out for it."""
    out: dict[str, list[str]] = {}
    for line in verdict.lines:
        if line.status == "skipped":
            out.setdefault(line.text, []).append(line.check)
    return out


def _explain(line: Line, say: Any) -> None:
    for fault in line.faults:
        say(f"\n{fault.name}", _SIGNS[line.status][1])
        say(fault.wrong)
        if line.text:
            say(f"{line.check}: {line.text}")
        if fault.silent:
            say(f"Why nobody notices: {fault.silent}")
        say(f"What to change: {fault.remedy}")


def _last(verdict: Verdict) -> str:
    if verdict.conforms:
        return "It conforms." if not verdict.notes else f"It conforms, with a note: {', '.join(verdict.notes)}."
    return f"It does not conform: {', '.join(verdict.faults)}."
