"""``trueup report``: build a study's report again from its files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = "example:\n  trueup report runs/demo"
    parser.add_argument("folder", metavar="DIR", help="study folder (has study.json and items.parquet)")
    parser.add_argument("--json", action="store_true", help="print the path as JSON on stdout")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Write ``report.html`` and ``report.md``; print the path of the former."""
    from trueup.study.report import write_report

    path = write_report(Path(args.folder))
    print(json.dumps({"report": str(path)}) if args.json else path)
    return 0
