"""The card of a reward model as a page: is its confidence to be believed, and what does cutting do to its scores?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trueup.health.findings import Finding
from trueup.stats.intervals import wilson

_STYLE = """
:root { color-scheme: light dark; --line: #2a6fbb }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem 1.2rem .2rem 0; text-align: left }
li.fatal b { color: #b3261e } li.warning b { color: #9a6700 }
"""
_LINES = {"cut_off": ("cut off, no terminator", "#c2571a"), "ended": ("cut, with terminator", "#2a6fbb")}


def card_page(card: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """Return a page that opens offline: findings, numbers, a reliability plot and a plot of cut responses.

    Args:
        card: what `reward_card` measured.
        findings: what was found wrong with it.
    """
    held = card.get("heldout")
    charts = [] if held is None else [reliability_plot(held["reliability"])]
    if held is not None and held["truncation"] is not None:
        charts.append(truncation_plot(held["truncation"]))
    drawn = "".join(figure.to_html(full_html=False, include_plotlyjs=False) for figure in charts)
    script = f"<script>{get_plotlyjs()}</script>" if charts else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Reward model</title>'
        f"<style>{_STYLE}</style>{script}<h1>Reward model</h1>{_findings(findings)}{_numbers(card)}{drawn}</html>\n"
    )


def reliability_plot(bins: Sequence[Mapping[str, float]]) -> go.Figure:
    """How often the model is right, with 95 % intervals, against how sure it is; on the dotted line they are equal."""
    known = [wilson(b["accuracy"] * b["count"], int(b["count"])) for b in bins]
    reach = {"array": [i.high - i.estimate for i in known], "arrayminus": [i.estimate - i.low for i in known]}
    figure = go.Figure(
        [
            go.Scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", line={"color": "gray", "dash": "dot"}, hoverinfo="skip"),
            go.Scatter(
                x=[b["confidence"] for b in bins],
                y=[b["accuracy"] for b in bins],
                error_y={"type": "data", "symmetric": False, **reach},
                mode="lines+markers",
                line={"color": "#2a6fbb"},
                hovertext=[f"{b['count']} pairs, right in {b['accuracy']:.2f}" for b in bins],
                hoverinfo="text",
            ),
        ]
    )
    return _titled(figure, "Reliability on held-out pairs", "confidence in the preferred side", "share that is right")


def truncation_plot(found: Mapping[str, Any]) -> go.Figure:
    """Mean absolute change of the score against the share of the response that is kept."""
    figure = go.Figure()
    for ending, (name, colour) in _LINES.items():
        cuts = found[ending]["cuts"]
        figure.add_scatter(
            x=[cut["share"] for cut in cuts],
            y=[cut["mean_absolute_change"] for cut in cuts],
            name=name,
            mode="lines+markers",
            line={"color": colour},
            hovertext=[f"{cut['beats_whole']:.0%} score above the whole" for cut in cuts],
        )
    figure.add_hline(y=1.0, line={"color": "gray", "dash": "dot"})
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.1})
    figure.update_yaxes(rangemode="tozero")
    return _titled(figure, "What cutting a response does to its score", "share of tokens kept", "mean change, in sd")


def _titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    figure.update_layout(title=title, height=400, template="plotly_white")
    figure.update_layout(showlegend=bool(figure.layout.legend.orientation))  # type: ignore[attr-defined]
    return figure.update_xaxes(title_text=x).update_yaxes(title_text=y)


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>No finding.</p>"
    items = (
        f'<li class="{f.severity}"><b>{f.severity}: {escape(f.rule)}</b>. {escape(f.message)} {escape(f.remedy)}</li>'
        for f in findings
    )
    return f"<ul>{''.join(items)}</ul>"


def _numbers(card: Mapping[str, Any]) -> str:
    rows = [("accuracy on training pairs", _rate(card["train"]["accuracy"]))]
    if (held := card.get("heldout")) is not None:
        rows += [
            ("accuracy on held-out pairs", _rate(held["accuracy"])),
            ("of them where the shorter response is chosen", _rate(held["accuracy_chosen_shorter"])),
            ("accuracy that the labels allow", _number(held["label_ceiling"])),
            ("calibration error", _number(held["ece"])),
            ("rank correlation with length, within pairs", _number(held["length_correlation"])),
            ("mean score, standard deviation", f"{held['mean_score']:.3f}, {held['score_sd']:.3f}"),
        ]
    return f"<table>{''.join(f'<tr><td>{name}</td><td>{value}</td></tr>' for name, value in rows)}</table>"


def _rate(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "no pairs"
    return f"{value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}] of {value['n']}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
