"""``trueup data``: what is trained on, token by token (``show``), and what is wrong with it (``audit``)."""

from __future__ import annotations

import argparse
import json
from typing import Any

from trueup.errors import UserError

DEFAULT_ROWS = 3


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the two parts of the verb and their arguments."""
    parser.epilog = (
        "examples:\n  trueup data show pairs.jsonl --model path/to/model --rows 2\n"
        "  trueup data audit pairs.jsonl --model path/to/model --against eval.jsonl\n"
        "  trueup data audit pairs.jsonl --json\n\n"
        "Their own options: trueup data show --help, trueup data audit --help."
    )
    parts = parser.add_subparsers(dest="part", metavar="show|audit", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    told = "show what exactly is trained on, token by token"
    _show_arguments(parts.add_parser("show", help=told, formatter_class=raw, allow_abbrev=False))
    told = "say what is wrong with a data set"
    _audit_arguments(parts.add_parser("audit", help=told, formatter_class=raw, allow_abbrev=False))


def _shared_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="file of pairs, judged responses or examples")
    parser.add_argument(
        "--kind", choices=("pairs", "judged", "examples"), help="what the rows are (default: what the first row fits)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what exactly is trained on, token by token."
    parser.epilog = (
        "examples:\n  trueup data show pairs.jsonl --model path/to/model --rows 2\n"
        "  trueup data show pairs.jsonl --model path/to/model --row 17 --max-length 512"
    )
    _shared_arguments(parser)
    parser.add_argument("--model", required=True, metavar="PATH", help="model folder or .gguf file: its tokenizer")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--rows", type=int, metavar="N", help=f"the first N rows that are kept (default: {DEFAULT_ROWS})"
    )
    which.add_argument("--row", type=int, metavar="K", help="row K of the file, counted from 1")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="as data.max_length of a run (default: the model's context)"
    )


def _audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say what is wrong with a data set, on what evidence, and what to do."
    parser.epilog = (
        "examples:\n  trueup data audit pairs.jsonl\n"
        "  trueup data audit pairs.jsonl --model path/to/model --against eval.jsonl --json"
    )
    _shared_arguments(parser)
    parser.add_argument("--model", metavar="PATH", help="model folder or .gguf file: adds lengths and template checks")
    parser.add_argument("--against", metavar="FILE", help="evaluation prompts that should not be among these")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Print what was asked for; the result goes to stdout."""
    return {"show": _show, "audit": _audit}[args.part](args)


def _show(args: argparse.Namespace) -> int:
    for flag in ("rows", "row", "max_length"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag.replace('_', '-')}: must be at least 1, got {value}")
    from trueup.cli.data_drawing import draw
    from trueup.cli.data_show import as_dict, collect

    shown = collect(args.file, args.kind, args.model, args.rows or DEFAULT_ROWS, args.row, args.max_length)
    if args.json:
        print(json.dumps(as_dict(shown)))
    else:
        draw(shown)
    return 0


def _audit(args: argparse.Namespace) -> int:
    from trueup.data.audit import audit
    from trueup.data.audit_sheet import read_any
    from trueup.data.read import read_prompts
    from trueup.health.data_rules import judge_audit

    kind, loaded = read_any(args.file, args.kind)
    against = read_prompts(args.against) if args.against else None
    encoder, context = _tokens(args.model) if args.model else (None, None)
    card = audit(kind, loaded, encoder, context, against)
    findings = judge_audit(card)
    if args.json:
        print(json.dumps({"measured": card, "findings": [finding.row() for finding in findings]}, allow_nan=False))
        return 0
    from trueup.cli.data_audit import draw

    draw(card, findings)
    return 0


def _tokens(model: str) -> tuple[Any, int | None]:
    from trueup.data.template import make_encoder
    from trueup.models import hub

    return make_encoder(hub.load_tokenizer(model)), hub.stored_context(model)
