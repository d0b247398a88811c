"""The look all charts share: colours named after CSS variables of the page, markers, axes, and safe text.

Colours are written ``var(--name)``; the page's script replaces them by the variable's value for the reader's light or
dark scheme. A method has one colour everywhere and a setting one marker, so that neither needs a legend twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from trueup.study.schema import Arm, Number

INK, MUTED, GRID, AXIS, SURFACE = (f"var(--{name})" for name in ("ink", "muted", "grid", "axis", "surface"))
METHODS = ("untrained", "sft", "dpo", "kto", "orpo", "ppo", "grpo", "rloo")
SETTING_SYMBOLS = {"published": "circle-open", "tuned": "circle", "start": "diamond"}
VERDICTS = {
    "better": ("var(--better)", "triangle-right"),
    "worse": ("var(--worse)", "triangle-left"),
    "equivalent": ("var(--equivalent)", "square"),
    "inconclusive": ("var(--inconclusive)", "circle-open"),
}


@dataclass(frozen=True)
class Chart:
    """A figure, the key under which the page finds it, its heading, and how to read it."""

    key: str
    title: str
    caption: str
    figure: go.Figure


def colour(method: str) -> str:
    """Return the method's colour, from a palette that colour-blind readers can tell apart."""
    return f"var(--{method})" if method in METHODS else "var(--other)"


def marker(arm: Arm, size: float = 10) -> dict[str, Any]:
    """Return the arm's marker: open as published, filled when tuned, a diamond for the start."""
    symbol = SETTING_SYMBOLS.get(arm["setting"], "circle")
    paint = colour(arm["method"])
    return {"color": paint, "symbol": symbol, "size": size, "line": {"width": 2, "color": paint}}


def safe(text: object) -> str:
    """Escape text for plotly, whose labels and hover boxes understand a few HTML tags."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hover(*lines: str) -> str:
    """Join lines that are already safe, the first one bold."""
    return "<br>".join([f"<b>{lines[0]}</b>", *(line for line in lines[1:] if line)])


def style(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Give a figure the shared look: quiet axes, no background, hover boxes in the page's colours."""
    axis = {"gridcolor": GRID, "linecolor": AXIS, "zerolinecolor": AXIS, "zerolinewidth": 1, "automargin": True}
    titled = {**axis, "title": {"font": {"size": 12, "color": MUTED}, "standoff": 8}, "tickfont": {"size": 12}}
    figure.update_xaxes(**titled)
    figure.update_yaxes(**titled)
    figure.update_layout(
        height=height,
        font={"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        hoverlabel={"bgcolor": SURFACE, "bordercolor": AXIS, "font": {"color": INK, "size": 12}, "align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": AXIS, "activecolor": INK},
        hovermode="closest",
        showlegend=False,
        dragmode=False,
        template={},
    )
    figure.update_layout(**layout)
    return figure


def legend_above() -> dict[str, Any]:
    """Return layout keys for a legend in one line over the plot."""
    return {
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
    }


def rows_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return a vertical axis with one named row each, the first on top."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": [safe(name) for name in names]}
    return {**ticks, "range": [len(names) - 0.5, -0.5], "showgrid": False, "zeroline": False}


def whiskers(rows: Sequence[tuple[Number, Number, Number]], thickness: float = 2.5, **more: Any) -> dict[str, Any]:
    """Return plotly's error bars for (mean, low, high), of no length where an end is not available."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_reach(mean, high) for mean, _, high in rows],
        "arrayminus": [_reach(low, mean) for mean, low, _ in rows],
        "width": 0,
        "thickness": thickness,
        **more,
    }


def _reach(start: Number, end: Number) -> float:
    return 0.0 if start is None or end is None else end - start
