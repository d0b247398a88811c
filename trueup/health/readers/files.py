"""Text and JSON from disk, with errors that name the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trueup.errors import UserError


def text(path: Path) -> str:
    """The text of a file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file: give a log that trueup doctor reads (docs/doctor.md)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def json_value(path: Path) -> Any:
    """The value of a JSON file; NaN and Infinity are taken as numbers."""
    try:
        return json.loads(text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a torn last line, left by a run that was stopped, is skipped."""
    lines = text(path).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not a JSON line: {error.msg}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: a line is {type(row).__name__}, not an object of metrics")
        rows.append(row)
    return rows


def yaml_value(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file."""
    import yaml

    try:
        value = yaml.safe_load(text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    return value if isinstance(value, dict) else {}
