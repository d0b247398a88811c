"""Run a verb of the command line as its user would, and read the summary it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def trueup(verb: str, *arguments: object, **settings: Any) -> dict[str, Any]:
    """``trueup VERB ARGUMENTS --key value ... --json``; a double underscore in a keyword is the dot of a setting."""
    flags = [text for key, value in settings.items() for text in (_flag(key), _text(value))]
    command = [sys.executable, "-m", "trueup", verb, *map(str, arguments), *flags, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _flag(key: str) -> str:
    section, dot, name = key.partition("__")
    return f"--{section}.{name}" if dot else f"--{section.replace('_', '-')}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if not isinstance(value, Path) else str(value)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a JSONL file and return where it is."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
