"""Charts of single prompts and responses: the heat map, and scores against length."""

from __future__ import annotations

import plotly.graph_objects as go
import pyarrow as pa

from trueup.study.charts_style import AXIS, SURFACE, Chart, colour, hover, marker, rows_axis, safe, style
from trueup.study.format import fixed, signed
from trueup.study.responses import Prompt, PromptMeans, means, prompts
from trueup.study.schema import Study, baseline, mean_of


def heat_map(study: Study, items: pa.Table) -> Chart | None:
    """Gold minus the baseline's gold: a row for each arm, a column for each prompt, prompts sorted by family."""
    base, averages = baseline(study), means(items)
    columns = sorted(prompts(items), key=lambda prompt: prompt.family)
    arms = [arm for arm in study["arms"] if arm["name"] != base["name"]]
    if not arms or not columns:
        return None
    table = [[_difference(averages, arm["name"], base["name"], prompt) for prompt in columns] for arm in arms]
    largest = max((abs(value) for row in table for value in row if value is not None), default=1.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=table,
            y=list(range(len(arms))),
            x=list(range(len(columns))),
            zmin=-largest,
            zmax=largest,
            colorscale=[[0.0, "var(--worse)"], [0.5, SURFACE], [1.0, "var(--better)"]],
            colorbar={
                "thickness": 10,
                "outlinewidth": 0,
                "title": {"text": "gold", "font": {"size": 11}},
                "tickfont": {"size": 11},
            },
            customdata=[[prompt.id for prompt in columns]] * len(arms),
            hovertext=[
                [
                    hover(
                        safe(arm["label"]),
                        f"{safe(prompt.family)} · prompt {safe(prompt.id)}",
                        _gained(value, base["label"]),
                    )
                    for prompt, value in zip(columns, row, strict=True)
                ]
                for arm, row in zip(arms, table, strict=True)
            ],
            hoverinfo="text",
            xgap=0,
            ygap=3,
        )
    )
    style(figure, height=90 + 34 * len(arms))
    figure.update_yaxes(**rows_axis([arm["label"] for arm in arms]))
    _mark_families(figure, columns)
    caption = (
        f"Each column is a prompt, each row an arm; green where the arm's mean over seeds and draws beats "
        f"{base['label']}'s on the same prompt, magenta where it falls behind. Click a cell to read the responses."
    )
    return Chart("prompts", "Prompt by prompt", caption, figure)


def _difference(averages: dict[tuple[str, str], PromptMeans], arm: str, base: str, prompt: Prompt) -> float | None:
    here, there = averages.get((arm, prompt.id)), averages.get((base, prompt.id))
    if here is None or there is None or here.gold is None or there.gold is None:
        return None
    return round(here.gold - there.gold, 4)


def _gained(value: float | None, base: str) -> str:
    return "not measured" if value is None else f"gold {signed(value)} against {safe(base)}"


def _mark_families(figure: go.Figure, columns: list[Prompt]) -> None:
    names = [prompt.family for prompt in columns]
    spans = {name: (names.index(name), names.index(name) + names.count(name)) for name in dict.fromkeys(names)}
    centres = [(first + end - 1) / 2 for first, end in spans.values()]
    ticks = [safe(name.replace("_", " ")) for name in spans]
    figure.update_xaxes(tickvals=centres, ticktext=ticks, showgrid=False, zeroline=False)
    for first, _ in list(spans.values())[1:]:
        figure.add_vline(first - 0.5, line={"color": AXIS, "width": 1})


def lengths(study: Study, items: pa.Table) -> list[Chart]:
    """Gold and proxy against length: a small marker for each prompt, a large one for each arm."""
    averages, shown = means(items), []
    for metric, title in (("gold", "Gold against length"), ("proxy", "Proxy against length")):
        figure = go.Figure()
        for arm in study["arms"]:
            own = [(key[1], mean) for key, mean in averages.items() if key[0] == arm["name"]]
            points = [
                (n, m.length, y) for n, m in own if m.length is not None and (y := getattr(m, metric)) is not None
            ]
            figure.add_trace(_cloud(arm["label"], arm["method"], points, metric))
        for arm in study["arms"]:
            x, y = mean_of(arm, "length"), mean_of(arm, metric)
            text = hover(safe(arm["label"]), f"{metric} {fixed(y)}, {fixed(x)} tokens")
            mark = {**marker(arm, 14), "line": {"width": 2.5, "color": colour(arm["method"])}}
            figure.add_trace(
                go.Scatter(
                    x=[x],
                    y=[y],
                    mode="markers",
                    marker=mark,
                    name=safe(arm["label"]),
                    hovertext=[text],
                    hoverinfo="text",
                )
            )
        style(figure, height=360)
        figure.update_xaxes(title_text="tokens per response", zeroline=False)
        figure.update_yaxes(title_text=f"{metric} score", zeroline=False)
        shown.append(Chart(f"length-{metric}", title, "", figure))
    return shown


def _cloud(label: str, method: str, points: list[tuple[str, float, float]], metric: str) -> go.Scatter:
    return go.Scatter(
        x=[length for _, length, _ in points],
        y=[score for _, _, score in points],
        mode="markers",
        marker={"color": colour(method), "size": 4, "opacity": 0.35},
        showlegend=False,
        hovertext=[
            hover(safe(label), f"prompt {safe(n)}", f"{metric} {fixed(s)}, {fixed(x)} tokens") for n, x, s in points
        ],
        hoverinfo="text",
    )
