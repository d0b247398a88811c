"""Charts of scores: gold beside proxy, contrasts, ranks, and gold by task family."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trueup.study.charts_style import (
    AXIS, GRID, INK, VERDICTS, Chart, colour, hover, legend_above, marker, rows_axis, safe, style, whiskers,
)  # fmt: skip
from trueup.study.format import fixed, interval, signed, whole
from trueup.study.schema import Arm, Contrast, Metric, Study, baseline, labels, mean_of

PANELS = ("gold", "proxy")


def scores(study: Study) -> Chart:
    """Gold and proxy on the same rows: intervals over seeds, with the seeds themselves below each mean."""
    arms = study["arms"]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=("<b>Gold</b>", "<b>Proxy</b>"))
    for column, metric in enumerate(PANELS, start=1):
        for row, arm in enumerate(arms):
            if metric in arm["metrics"] and arm["metrics"][metric]["mean"] is not None:
                figure.add_traces(_score_traces(arm, metric, row), rows=1, cols=column)
        start = mean_of(baseline(study), metric)
        if start is not None:
            figure.add_vline(start, line={"color": AXIS, "width": 1, "dash": "dot"}, row=1, col=column)  # type: ignore[arg-type]
    style(figure, height=80 + 46 * len(arms), margin={"l": 8, "r": 12, "t": 30, "b": 8})
    figure.update_yaxes(**rows_axis([arm["label"] for arm in arms]))
    figure.update_xaxes(title_text="gold score", col=1)
    figure.update_xaxes(title_text="proxy score", col=2)
    caption = (
        "Gold is the true score; proxy is what the reward model believes. Large markers are means with 95% intervals, small "
        "ones the single seeds; open markers are settings as published, filled ones tuned. Look for rows that lie right of "
        f"the dotted {baseline(study)['label']} line under proxy, and left of it under gold."
    )
    return Chart("scores", "Gold beside proxy", caption, figure)


def _score_traces(arm: Arm, metric: str, row: int) -> list[go.Scatter]:
    measured: Metric = arm["metrics"][metric]
    mean = measured["mean"] or 0.0
    seeds = [(s, v) for s, v in zip(arm["seeds"], measured["per_seed"], strict=False) if v is not None]
    summary = hover(safe(arm["label"]), f"{metric} {fixed(mean)} {interval(measured['low'], measured['high'])}")
    dots = {"color": colour(arm["method"]), "size": 5, "opacity": 0.65}
    return [
        go.Scatter(
            x=[value for _, value in seeds],
            y=[row + 0.28] * len(seeds),
            mode="markers",
            marker=dots,
            hovertext=[hover(safe(arm["label"]), f"seed {seed}: {metric} {fixed(value)}") for seed, value in seeds],
            hoverinfo="text",
        ),
        go.Scatter(
            x=[mean],
            y=[row],
            mode="markers",
            marker=marker(arm, 12),
            error_x=whiskers(mean, measured["low"], measured["high"]),
            hovertext=[summary],
            hoverinfo="text",
        ),
    ]


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
    figure.update_xaxes(title_text=f"difference in {safe(study['primary_metric'])} score", zeroline=True, zerolinewidth=2)
    band = study["smallest_effect"]
    if band is not None:
        figure.add_vrect(-band, band, fillcolor=GRID, opacity=0.6, line_width=0, layer="below")  # type: ignore[arg-type]
    caption = (
        "Each line is one arm minus another on the same prompts and seeds, with its 95% interval. Right of zero the first is "
        "better. The shaded band holds differences too small to matter: an interval inside it means equivalent, one "
        "that leaves it and still touches zero settles nothing."
    )
    return Chart("contrasts", "Which differences are real", caption, figure)


def _verdict_trace(verdict: str, rows: list[tuple[int, Contrast]], named: dict[str, str]) -> go.Scatter:
    paint, symbol = VERDICTS[verdict]
    estimates = [c["estimate"] or 0.0 for _, c in rows]
    ends = [(c["low"] or 0.0, c["high"] or 0.0) for _, c in rows]
    bars = {"array": [h - e for (_, h), e in zip(ends, estimates)], "arrayminus": [e - l for (l, _), e in zip(ends, estimates)]}
    return go.Scatter(
        x=estimates,
        y=[row for row, _ in rows],
        name=verdict,
        mode="markers",
        marker={"color": paint, "symbol": symbol, "size": 12, "line": {"width": 2, "color": paint}},
        error_x={"type": "data", "symmetric": False, **bars, "width": 0, "thickness": 2.5, "color": paint},
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
        "The bar covers every place that is compatible with the data. Arms whose bars overlap must not be ranked against "
        "each other; a single place is a ranking that the data carry."
    )
    return Chart("ranks", "Ranks, as far as they are known", caption, figure)


def families(study: Study) -> Chart | None:
    """Mean gold by task family, the arms side by side within each family."""
    rows = [row for row in study["families"] if row["mean"] is not None]
    if not rows:
        return None
    names = list(dict.fromkeys(row["family"] for row in rows))
    figure, step = go.Figure(), 0.8 / len(study["arms"])
    for index, arm in enumerate(study["arms"]):
        own = [row for row in rows if row["arm"] == arm["name"]]
        if own:
            figure.add_trace(_family_trace(arm, own, names, -0.4 + step * (index + 0.5)))
    style(figure, height=90 + len(names) * (24 + 11 * len(study["arms"])), **legend_above())
    figure.update_yaxes(**rows_axis([name.replace("_", " ") for name in names]))
    for edge in range(1, len(names)):
        figure.add_hline(edge - 0.5, line={"color": GRID, "width": 1})  # type: ignore[arg-type]
    figure.update_xaxes(title_text="gold score")
    caption = (
        "Mean gold and 95% interval on each kind of task. An arm that gains on one family by giving up another shows here "
        "and not in its mean. Click a name in the legend to hide an arm."
    )
    return Chart("families", "Gold by task family", caption, figure)


def _family_trace(arm: Arm, own: list[Any], names: list[str], offset: float) -> go.Scatter:
    means = [row["mean"] for row in own]
    above = [0.0 if row["high"] is None else row["high"] - row["mean"] for row in own]
    below = [0.0 if row["low"] is None else row["mean"] - row["low"] for row in own]
    return go.Scatter(
        x=means,
        y=[names.index(row["family"]) + offset for row in own],
        name=safe(arm["label"]),
        mode="markers",
        marker=marker(arm, 8),
        error_x={"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 0, "thickness": 1.5},
        hovertext=[
            hover(
                f"{safe(arm['label'])} · {safe(row['family'])}",
                f"gold {fixed(row['mean'])} {interval(row['low'], row['high'])}",
                f"{whole(row['n'])} prompts" if row["n"] is not None else "",
            )
            for row in own
        ],
        hoverinfo="text",
    )
