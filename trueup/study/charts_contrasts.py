"""Charts of what may be claimed: contrasts with their verdicts, and rank sets."""

from __future__ import annotations

import plotly.graph_objects as go

from trueup.study.charts_style import (
    GRID,
    VERDICTS,
    Chart,
    colour,
    hover,
    legend_above,
    rows_axis,
    safe,
    style,
    whiskers,
)
from trueup.study.format import interval, signed, whole
from trueup.study.schema import Contrast, Study, labels


def contrasts(study: Study) -> Chart | None:
    """Differences of the primary metric with their intervals, verdicts, and the band of effects too small to matter."""
    shown = [c for c in study["contrasts"] if c["metric"] == study["primary_metric"] and c["estimate"] is not None]
    if not shown:
        return None
    figure, named = go.Figure(), labels(study)
    for verdict in VERDICTS:
        rows = [(row, c) for row, c in enumerate(shown) if c["verdict"] == verdict]
        if rows:
            figure.add_trace(_verdict_trace(verdict, rows, named))
    style(figure, height=90 + 38 * len(shown), **legend_above())
    figure.update_yaxes(**rows_axis([f"{named[c['a']]} − {named[c['b']]}" for c in shown]))
    figure.update_xaxes(
        title_text=f"difference in {safe(study['primary_metric'])} score", zeroline=True, zerolinewidth=2
    )
    band = study["smallest_effect"]
    if band is not None:
        figure.add_vrect(-band, band, fillcolor=GRID, opacity=0.6, line_width=0, layer="below")
    caption = (
        "Each line is one arm minus another on the same prompts and seeds, with its 95% interval. Right of zero the "
        "first is better. The shaded band holds differences too small to matter: an interval inside it means "
        "equivalent, one that leaves it and still touches zero settles nothing."
    )
    return Chart("contrasts", "Which differences are real", caption, figure)


def _verdict_trace(verdict: str, rows: list[tuple[int, Contrast]], named: dict[str, str]) -> go.Scatter:
    paint, symbol = VERDICTS[verdict]
    return go.Scatter(
        x=[c["estimate"] for _, c in rows],
        y=[row for row, _ in rows],
        name=verdict,
        mode="markers",
        marker={"color": paint, "symbol": symbol, "size": 12, "line": {"width": 2, "color": paint}},
        error_x=whiskers([(c["estimate"], c["low"], c["high"]) for _, c in rows], color=paint),
        hovertext=[_contrast_hover(c, named) for _, c in rows],
        hoverinfo="text",
    )


def _contrast_hover(contrast: Contrast, named: dict[str, str]) -> str:
    title = f"{safe(named[contrast['a']])} − {safe(named[contrast['b']])}"
    needed = f"prompts needed to settle it: {whole(contrast['n_needed'])}" if contrast["n_needed"] is not None else ""
    size = f"{signed(contrast['estimate'])} {interval(contrast['low'], contrast['high'])}"
    return hover(title, size, contrast["verdict"], needed)


def rank_sets(study: Study) -> Chart | None:
    """For each arm all places that the data leave open, as a bar from best to worst."""
    ranks = study["rank_sets"].get(study["primary_metric"], {})
    arms = [arm for arm in study["arms"] if arm["name"] in ranks]
    if not arms:
        return None
    ends = [ranks[arm["name"]] for arm in arms]
    bars = go.Bar(
        y=list(range(len(arms))),
        base=[best - 0.38 for best, _ in ends],
        x=[worst - best + 0.76 for best, worst in ends],
        orientation="h",
        width=0.5,
        marker={"color": [colour(arm["method"]) for arm in arms], "line": {"width": 0}, "cornerradius": 6},
        text=[str(best) if best == worst else f"{best}–{worst}" for best, worst in ends],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": "white"},
        hoverinfo="skip",
    )
    figure = style(go.Figure(bars), height=70 + 34 * len(arms))
    figure.update_yaxes(**rows_axis([arm["label"] for arm in arms]))
    places = list(range(1, len(arms) + 1))
    figure.update_xaxes(title_text="place (1 = best)", tickvals=places, range=[0.5, len(arms) + 0.5], zeroline=False)
    caption = (
        "The bar covers every place that is compatible with the data. Arms whose bars overlap must not be ranked "
        "against each other; a single place is a ranking that the data carry."
    )
    return Chart("ranks", "Ranks, as far as they are known", caption, figure)
