"""Append-only JSON lines: the metrics and findings of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trueup.errors import UserError


class Journal:
    """A JSONL file that grows by whole lines. Numbers that are not finite are written as null with their name kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line and flush it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read the lines back; a torn last line, left by a crash, is skipped."""
        if not self.path.exists():
            return
        # Bytes: a crash can tear a line in the middle of a character.
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                if number < len(lines):
                    raise UserError(f"{self.path}:{number}: not a JSON line: {error}") from None

    def keep_through(self, step: int) -> None:
        """Drop lines of later steps: they are about to be made again by a resumed run."""
        rows = [row for row in self.rows() if row.get("step", 0) <= step]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        aside = self.path.with_suffix(".tmp")
        aside.write_text(text, encoding="utf-8")
        aside.replace(self.path)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
