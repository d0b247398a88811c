"""CSV of metrics: one column a metric, or W&B's export of charts with columns "run - metric"."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from trueup.errors import UserError
from trueup.health.readers.files import text
from trueup.health.readers.found import STEPS, Found, from_rows

_BAND = ("__MIN", "__MAX")
"""Columns that W&B adds for the band around a chart's line."""


def recognises(path: Path) -> bool:
    """By its suffix."""
    return path.is_file() and path.suffix in (".csv", ".tsv")


def read(path: Path) -> tuple[Found, ...]:
    """Read one log, or one for each run that the columns name."""
    rows = list(csv.DictReader(io.StringIO(text(path)), delimiter="\t" if path.suffix == ".tsv" else ","))
    if not rows:
        raise UserError(f"{path}: no rows below the header")
    logs = []
    for label, columns in _runs(list(rows[0])).items():
        named = [{ours: row.get(theirs) for theirs, ours in columns.items()} for row in rows]
        series, notes = from_rows(named)
        if series:
            logs.append(Found(series, label, notes=notes))
    if not logs:
        raise UserError(f"{path}: no numbers by step were found in it; a step column is named {', '.join(STEPS)}")
    return tuple(logs)


def _runs(header: list[str]) -> Mapping[str, Mapping[str, str]]:
    """Run -> its columns -> metric; "" where columns do not name runs. Each has the step's too."""
    shared = {name: name for name in header if " - " not in name}
    runs: dict[str, dict[str, str]] = {}
    for name in header:
        run, separator, metric = name.rpartition(" - ")
        if separator and not metric.endswith(_BAND):
            runs.setdefault(run, dict(shared))[name] = metric
    return runs or {"": shared}
