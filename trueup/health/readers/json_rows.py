"""Rows of metrics as JSON: JSONL of any tool, W&B histories, lists that scripts dump, and folders with such a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup.errors import UserError
from trueup.health.readers.files import json_lines, json_value
from trueup.health.readers.found import STEPS, Found, from_rows

IN_FOLDERS = ("trainer_log.jsonl", "wandb-history.jsonl", "metrics.jsonl")
"""Files that are looked for in a folder."""

_TOOLS = {"trainer_log.jsonl": "llama-factory"}


def recognises(path: Path) -> bool:
    """Is it JSONL, a JSON file of rows or columns of numbers, or a folder with one of the known names?"""
    if path.is_dir():
        return any((path / name).is_file() for name in IN_FOLDERS)
    if path.suffix in (".jsonl", ".ndjson"):
        return True
    return path.suffix == ".json" and bool(_rows(json_value(path)))


def read(path: Path) -> tuple[Found, ...]:
    """Read the rows; the step column is found by its name."""
    file = path if path.is_file() else next(path / name for name in IN_FOLDERS if (path / name).is_file())
    rows = _rows(json_value(file)) if file.suffix == ".json" else json_lines(file)
    series, notes = from_rows(rows)
    if not series:
        raise UserError(f"{file}: no numbers by step were found in it")
    return (Found(series, tool=_TOOLS.get(file.name), notes=notes),)


def _rows(value: Any) -> list[dict[str, Any]]:
    """Rows of a JSON value: a list of objects that are numbered, or columns as pandas writes them."""
    if isinstance(value, dict) and isinstance(value.get("history"), list):
        value = value["history"]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return value if any(name in value[0] for name in STEPS) else []
    if isinstance(value, dict) and value and all(isinstance(column, Mapping | list) for column in value.values()):
        columns = {name: dict(enumerate(c)) if isinstance(c, list) else c for name, c in value.items()}
        if any(name in columns for name in STEPS):
            places = {place: None for column in columns.values() for place in column}
            return [{name: column.get(place) for name, column in columns.items()} for place in places]
    return []
