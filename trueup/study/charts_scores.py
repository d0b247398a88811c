"""Charts of scores: gold beside proxy, and gold by task family."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trueup.study.charts_style import (
    AXIS,
    GRID,
    Chart,
    colour,
    hover,
    legend_above,
    marker,
    rows_axis,
    safe,
    style,
    whiskers,
)
from trueup.study.format import fixed, interval, whole
from trueup.study.schema import Arm, FamilyScore, Metric, Study, baseline, mean_of

PANELS = ("gold", "proxy")


def scores(study: Study) -> Chart:
    """Gold and proxy on the same rows: intervals over seeds, with the seeds themselves below each mean."""
    arms = study["arms"]
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=("<b>Gold</b>", "<b>Proxy</b>")
    )
    for column, metric in enumerate(PANELS, start=1):
        for row, arm in enumerate(arms):
            if metric in arm["metrics"] and arm["metrics"][metric]["mean"] is not None:
                figure.add_traces(_score_traces(arm, metric, row), rows=1, cols=column)
        start = mean_of(baseline(study), metric)
        if start is not None:
            dotted = {"color": AXIS, "width": 1, "dash": "dot"}
            figure.add_shape(
                type="line", x0=start, x1=start, y0=0, y1=1, yref="y domain", line=dotted, row=1, col=column
            )
    style(figure, height=80 + 46 * len(arms), margin={"l": 8, "r": 12, "t": 30, "b": 8})
    figure.update_yaxes(**rows_axis([arm["label"] for arm in arms]))
    figure.update_xaxes(title_text="gold score", col=1)
    figure.update_xaxes(title_text="proxy score", col=2)
    caption = (
        "Gold is the true score; proxy is what the reward model believes. Large markers are means with 95% intervals, "
        "small ones the single seeds; open markers are settings as published, filled ones tuned. Look for rows that "
        f"lie right of the dotted {baseline(study)['label']} line under proxy, and left of it under gold."
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
            error_x=whiskers([(mean, measured["low"], measured["high"])]),
            hovertext=[summary],
            hoverinfo="text",
        ),
    ]


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
        figure.add_hline(edge - 0.5, line={"color": GRID, "width": 1})
    figure.update_xaxes(title_text="gold score")
    caption = (
        "Mean gold and 95% interval on each kind of task. An arm that gains on one family by giving up another shows "
        "here and not in its mean. Click a name in the legend to hide an arm."
    )
    return Chart("families", "Gold by task family", caption, figure)


def _family_trace(arm: Arm, own: list[FamilyScore], names: list[str], offset: float) -> go.Scatter:
    return go.Scatter(
        x=[row["mean"] for row in own],
        y=[names.index(row["family"]) + offset for row in own],
        name=safe(arm["label"]),
        mode="markers",
        marker=marker(arm, 8),
        error_x=whiskers([(row["mean"], row["low"], row["high"]) for row in own], 1.5),
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
