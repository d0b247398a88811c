"""What ``trueup eval`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from trueup.cli.console import open_console

SHOWN = 5
"""Responses printed in full."""


def show(
    summary: Mapping[str, float], items: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, float]]
) -> None:
    """Print the first responses, the means, and what the best of n is worth if there is a choice."""
    console = open_console()
    for item in items[:SHOWN]:
        console.print(Text(f"> {item['prompt']}", style="bold"))
        console.print(Text(item["response"]), end="\n\n")
    table = Table("metric", "mean", title=f"{len(items)} responses")
    for name, value in summary.items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
    if points:
        console.print(_curve(points))


def _curve(points: Sequence[Mapping[str, float]]) -> Table:
    """What the best of n is worth at n = 1, 2, 4, ... and N."""
    shown = [point for point in points if (n := int(point["n"])) & (n - 1) == 0 or point is points[-1]]
    names = [name for name in shown[0] if not name.endswith(("/low", "/high"))]
    heads = ["KL at most" if name == "kl/best_of_n_bound" else name for name in names]
    table = Table(*heads, title="best of n, estimated from all draws")
    for point in shown:
        table.add_row(f"{int(point['n'])}", *(_cell(point, name) for name in names[1:]))
    return table


def _cell(point: Mapping[str, float], name: str) -> str:
    if f"{name}/low" not in point:
        return f"{point[name]:.3f}"
    half = (point[f"{name}/high"] - point[f"{name}/low"]) / 2
    return f"{point[name]:.3f} ± {half:.3f}"
