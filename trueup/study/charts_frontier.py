"""Reward against the distance from the reference: what each unit of KL buys, and where proxy and gold part."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from trueup.study.charts_style import AXIS, Chart, colour, hover, legend_above, marker, safe, style
from trueup.study.format import fixed
from trueup.study.frontier import Stop, paths, start_of, stops, trained
from trueup.study.schema import Arm, FrontierPoint, Study, baseline

_TICKS = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def frontier(study: Study) -> Chart | None:
    """Gold against KL for every arm, each path starting at the reference."""
    arms = trained(study)
    if not arms:
        return None
    figure = go.Figure()
    start = start_of(study, "gold")
    for arm, points in arms:
        for path in paths(points):
            figure.add_trace(_line(arm, path, start))
        figure.add_trace(_checkpoints(arm, points))
    if start is not None:
        figure.add_trace(_origin(study, start))
        figure.add_hline(start, line={"color": AXIS, "width": 1, "dash": "dot"})
    style(figure, height=480, **legend_above())
    _kl_axis(figure, [point for _, points in arms for point in points], "KL to the reference, nats per response")
    figure.update_yaxes(title_text="gold score", zeroline=False)
    caption = (
        "Any gain in reward can be bought with distance from the reference, so arms are to be compared at equal KL: "
        "the higher line at the same place wins. Small markers are single checkpoints, lines their means over seeds; "
        f"KL is on a square-root scale. Below the dotted line an arm is worse than {baseline(study)['label']}, where "
        "all paths start."
    )
    return Chart("frontier", "Gold against KL", caption, figure)


def partings(study: Study) -> list[Chart]:
    """For each method, the change of gold and of proxy since the start, on one scale for all methods."""
    arms, gold, proxy = trained(study), start_of(study, "gold"), start_of(study, "proxy")
    if gold is None or proxy is None or not arms:
        return []
    changes = [change for _, points in arms for s in stops(points) for change in (s.gold - gold, s.proxy - proxy)]
    span = max(0.0, *changes) - min(0.0, *changes) or 1.0
    limits = [min(0.0, *changes) - 0.06 * span, max(0.0, *changes) + 0.06 * span]
    charts = []
    for method in dict.fromkeys(arm["method"] for arm, _ in arms):
        own = [(arm, points) for arm, points in arms if arm["method"] == method]
        figure = go.Figure([line for arm, points in own for line in _parting_lines(arm, points, gold, proxy)])
        style(figure, height=300)
        _kl_axis(figure, [point for _, points in own for point in points], "KL, nats per response")
        figure.update_yaxes(range=limits, title_text=f"change since {safe(baseline(study)['label'])}", zerolinewidth=2)
        charts.append(Chart(f"parting-{method}", method.upper(), "", figure))
    return charts


def _place(kl: float) -> float:
    """Square root, which is how reward grows with KL at first; estimates a little below zero keep their sign."""
    return math.copysign(math.sqrt(abs(kl)), kl)


def _kl_axis(figure: go.Figure, points: list[FrontierPoint], title: str) -> None:
    places = [_place(point["kl"] or 0.0) for point in points]
    first, last = min(0.0, *places), max(0.0, *places)
    ticks = [tick for tick in _TICKS if tick == 0 or 0.06 * last <= _place(tick) <= last]
    figure.update_xaxes(
        title_text=title,
        tickvals=[_place(tick) for tick in ticks],
        ticktext=[f"{tick:g}" for tick in ticks],
        range=[first - 0.04 * last, last * 1.05 or 1.0],
        tickangle=0,
        zeroline=False,
    )


def _line(arm: Arm, path: list[Stop], start: float | None) -> go.Scatter:
    origin = [] if start is None else [(0.0, start)]
    xs, ys = zip(*origin, *((_place(stop.kl), stop.gold) for stop in path), strict=True)
    line = {"color": colour(arm["method"]), "width": 2}
    return go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False, legendgroup=arm["name"])


def _checkpoints(arm: Arm, points: list[FrontierPoint]) -> go.Scatter:
    return go.Scatter(
        x=[_place(point["kl"] or 0.0) for point in points],
        y=[point["gold"] for point in points],
        mode="markers",
        marker=marker(arm, 7),
        opacity=0.85,
        name=safe(arm["label"]),
        legendgroup=arm["name"],
        hovertext=[_point_hover(arm, point) for point in points],
        hoverinfo="text",
    )


def _origin(study: Study, start: float) -> go.Scatter:
    base = baseline(study)
    text = hover(safe(base["label"]), f"gold {fixed(start)}, KL 0: where all paths start")
    mark = marker(base, 13)
    name = safe(base["label"])
    return go.Scatter(x=[0], y=[start], mode="markers", marker=mark, name=name, hovertext=[text], hoverinfo="text")


def _point_hover(arm: Arm, point: FrontierPoint) -> str:
    where = [f"seed {point['seed']}"]
    where += [f"step {point['step']}"] if point["step"] is not None else []
    where += [f"coefficient {point['coefficient']:g}"] if point["coefficient"] is not None else []
    numbers = f"KL {fixed(point['kl'])} · gold {fixed(point['gold'])} · proxy {fixed(point['proxy'])}"
    return hover(safe(arm["label"]), " · ".join(where), numbers)


def _parting_lines(arm: Arm, points: list[FrontierPoint], gold: float, proxy: float) -> list[go.Scatter]:
    lines = []
    for path in paths(points):
        kls = [0.0, *(stop.kl for stop in path)]
        for metric, reached, dash in (
            ("gold", [gold, *(stop.gold for stop in path)], "solid"),
            ("proxy", [proxy, *(stop.proxy for stop in path)], "dash"),
        ):
            texts = [f"{metric} {fixed(value)} at KL {fixed(kl)}" for value, kl in zip(reached, kls, strict=True)]
            lines.append(
                go.Scatter(
                    x=[_place(kl) for kl in kls],
                    y=[value - reached[0] for value in reached],
                    mode="lines+markers",
                    name=metric,
                    line={"color": colour(arm["method"]), "width": 2, "dash": dash},
                    marker=marker(arm, 7),
                    hovertext=[hover(safe(arm["label"]), text) for text in texts],
                    hoverinfo="text",
                )
            )
    return lines
