"""What a reader hands on: series under the names of the file, and rows made into series."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trueup.health.findings import Finding

STEPS = (
    "step",
    "global_step",
    "train/global_step",
    "trainer/global_step",
    "current_steps",
    "_step",
    "Step",
    "iteration",
)
"""Columns that number the optimiser steps, the surest first. W&B's own ``_step`` counts calls of its logger."""

_CLOCKS = (
    "_runtime",
    "_timestamp",
    "timestamp",
    "wall_time",
    "time",
    "Relative Time (Process)",
    "Relative Time (Wall)",
)


@dataclass(frozen=True)
class Found:
    """A log as its file has it.

    Attributes:
        series: metric under the file's own name -> (step, value) in order of steps.
        label: what to call the run, where the file has several.
        tool: key of `names.TOOLS`; "trueup" for our own; None to guess it from the names.
        method: what was trained with, where the file says so.
        settings: settings, under the tool's own names, or our dotted keys.
        notes: what a reader of the diagnosis should know about how the file was read.
        recorded: findings that the run wrote itself.
    """

    series: Mapping[str, list[tuple[int, float]]]
    label: str = ""
    tool: str | None = None
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    recorded: tuple[Finding, ...] = ()


def from_rows(rows: Iterable[Mapping[str, Any]], null_is_nan: bool = False) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Make series of rows that each have a step, and say what was left out.

    Args:
        rows: in any order; values that are mappings are opened (``{"data": {"loss": 1}}`` is ``loss``).
        null_is_nan: null stands for a number that is not finite, not for "nothing was logged".

    Returns:
        Series, sorted by step; a step that was logged twice keeps its last value. Notes.
    """
    flat = [dict(_flat(row)) for row in rows]
    key = next((name for name in STEPS if any(_number(row.get(name)) is not None for row in flat)), None)
    found: dict[str, dict[int, float]] = {}
    texts: Counter[str] = Counter()
    repeats = 0
    for place, row in enumerate(flat, 1):
        step = _number(row.get(key)) if key else place
        if step is None:
            continue
        for name, value in row.items():
            number = math.nan if value is None and null_is_nan else _number(value)
            if name in STEPS or name in _CLOCKS or (number is None and value in (None, "")):
                continue
            if number is None:
                texts[name] += 1
                continue
            repeats += int(step) in found.setdefault(name, {})
            found[name][int(step)] = number
    return {name: sorted(points.items()) for name, points in found.items()}, _notes(key, texts, repeats)


def _notes(key: str | None, texts: Counter[str], repeats: int) -> tuple[str, ...]:
    notes = [] if key else ["no column numbers the steps: rows were counted"]
    if texts:
        notes.append(f"not numbers, left out: {', '.join(sorted(texts))}")
    if repeats:
        notes.append(f"{repeats} values were logged twice for the same step (a resumed run?): the later one was kept")
    return tuple(notes)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    inner = [value for value in row.values() if isinstance(value, Mapping)]
    for name, value in row.items():
        if isinstance(value, Mapping):
            wrapper = not prefix and len(inner) == 1 and name in ("data", "metrics", "logs", "history")
            yield from _flat(value, "" if wrapper else f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None
