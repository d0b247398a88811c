"""The page for users of TRL, taken apart: its sections, its tables, and the classes of TRL that they are about."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/trl.md").read_text(encoding="utf-8")

TRAINERS: Mapping[str, tuple[str, str]] = {
    "DPO": ("trl", "dpo"),
    "KTO": ("trl", "kto"),
    "ORPO": ("trl.experimental.orpo", "orpo"),
    "CPO": ("trl.experimental.cpo", "dpo"),
    "SFT": ("trl", "sft"),
    "Reward": ("trl", "reward"),
    "GRPO": ("trl", "grpo"),
    "RLOO": ("trl", "rloo"),
    "OnlineDPO": ("trl.experimental.online_dpo", "online-dpo"),
}
"""Trainer -> TRL's module, our verb. The heading of a trainer's table is the name of its configuration."""


def of_trl(trainer: str, suffix: str) -> Any:
    """``DPOConfig`` of ``DPO`` and ``Config``."""
    return getattr(importlib.import_module(TRAINERS[trainer][0]), trainer + suffix)


def under(heading: str, page: str = PAGE) -> str:
    """What stands under a heading, until the next one of its level or above."""
    level = len(heading.split(" ", maxsplit=1)[0])
    return re.split(rf"\n#{{1,{level}}} ", page.split(f"\n{heading}\n", 1)[1])[0]


def table(text: str, columns: int) -> list[list[str]]:
    """The rows of the tables of so many columns, without their heads; a pipe in a cell is escaped."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    rules = {i for i, row in enumerate(cells) if set("".join(row)) == {"-"}}
    return [row for i, row in enumerate(cells) if not {i, i + 1} & rules and len(row) == columns]


def quoted(cell: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", cell)
