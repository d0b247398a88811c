"""Reward against the distance from the reference: what each unit of KL buys, and where proxy and gold part."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from trueup.study.charts_style import AXIS, MUTED, Chart, colour, hover, legend_above, marker, safe, style
from trueup.study.format import fixed
from trueup.study.schema import Arm, FrontierPoint, Study, baseline, mean_of

_TICKS = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Stop:
    """A checkpoint averaged over seeds; ``kl`` in nats per response."""

    step: int | None
    coefficient: float | None
    kl: float
    gold: float
    proxy: float


def frontier(study: Study) -> Chart | None:
    """Gold against KL for every arm, each path starting at the reference."""
    trained = _trained(study)
    if not trained:
        return None
    figure = go.Figure()
    start = _start(study, "gold")
    for arm, points in trained:
        for path in _paths(points):
            figure.add_trace(_line(arm, path, start))
        figure.add_trace(_checkpoints(arm, points))
    if start is not None:
        figure.add_trace(_origin(study, start))
        figure.add_hline(start, line={"color": AXIS, "width": 1, "dash": "dot"})  # type: ignore[arg-type]
    style(figure, height=480, **legend_above())
    _kl_axis(figure, trained, "KL to the reference, nats per response (square-root scale)")
    figure.update_yaxes(title_text="gold score", zeroline=False)
    caption = (
        "Any gain in reward can be bought with distance from the reference, so arms are to be compared at equal KL: the "
        "higher line at the same place wins. Small markers are single checkpoints, lines their means over seeds. Below "
        f"the dotted line the arm is worse than {baseline(study)['label']}, where all paths start."
    )
    return Chart("frontier", "Gold against KL", caption, figure)


def partings(study: Study) -> list[Chart]:
    """For each method, the change of gold and of proxy since the start, on one scale for all methods."""
    trained = _trained(study)
    gold, proxy = _start(study, "gold"), _start(study, "proxy")
    if gold is None or proxy is None:
        return []
    changes = [change for _, ps in trained for s in _stops(ps) for change in (s.gold - gold, s.proxy - proxy)] or [0.0]
    span = max(changes) - min(changes) or 1.0
    limits = [min(0.0, *changes) - 0.08 * span, max(0.0, *changes) + 0.08 * span]
    charts = []
    for method in dict.fromkeys(arm["method"] for arm, _ in trained):
        own = [(arm, points) for arm, points in trained if arm["method"] == method]
        figure = go.Figure([line for arm, points in own for line in _parting_lines(arm, points, gold, proxy)])
        style(figure, height=300)
        _kl_axis(figure, own, "KL, nats per response")
        figure.update_yaxes(range=limits, title_text=f"change since {safe(baseline(study)['label'])}", zerolinewidth=2)
        charts.append(Chart(f"parting-{method}", method.upper(), "", figure))
    return charts


def _start(study: Study, metric: Literal["gold", "proxy"]) -> float | None:
    """Return where the paths begin: the baseline as measured with the checkpoints, or else its mean in the table."""
    base = baseline(study)
    measured = [v for p in study["frontier"] if p["arm"] == base["name"] and (v := p[metric]) is not None]
    return sum(measured) / len(measured) if measured else mean_of(base, metric)


def _trained(study: Study) -> list[tuple[Arm, list[FrontierPoint]]]:
    """Return the arms that moved, with those of their points that are complete."""
    by_arm: dict[str, list[FrontierPoint]] = defaultdict(list)
    for point in study["frontier"]:
        if None not in (point["kl"], point["gold"], point["proxy"]):
            by_arm[point["arm"]].append(point)
    start = baseline(study)["name"]
    return [(arm, by_arm[arm["name"]]) for arm in study["arms"] if arm["name"] in by_arm and arm["name"] != start]


def _stops(points: list[FrontierPoint]) -> list[Stop]:
    groups: dict[tuple[float | None, int | None], list[FrontierPoint]] = defaultdict(list)
    for point in points:
        groups[point["coefficient"], point["step"]].append(point)
    return [
        Stop(step, coefficient, *(sum(p[key] or 0.0 for p in group) / len(group) for key in ("kl", "gold", "proxy")))
        for (coefficient, step), group in groups.items()
    ]


def _paths(points: list[FrontierPoint]) -> list[list[Stop]]:
    """Join what belongs together: the steps of one coefficient, or, with one step each, the coefficients by KL."""
    runs: dict[float | None, list[Stop]] = defaultdict(list)
    for stop in _stops(points):
        runs[stop.coefficient].append(stop)
    if len(runs) > 1 and all(len(run) == 1 for run in runs.values()):
        return [sorted((run[0] for run in runs.values()), key=lambda stop: stop.kl)]
    return [sorted(run, key=lambda stop: stop.step or 0) for run in runs.values()]


def _place(kl: float) -> float:
    """Square root, which is how reward grows with KL at first; estimates a little below zero keep their sign."""
    return math.copysign(math.sqrt(abs(kl)), kl)


def _kl_axis(figure: go.Figure, trained: list[tuple[Arm, list[FrontierPoint]]], title: str) -> None:
    kls = [point["kl"] or 0.0 for _, points in trained for point in points]
    ticks = [tick for tick in _TICKS if tick <= max(kls)]
    spread = [tick for n, tick in enumerate(ticks) if n == 0 or _place(tick) >= 0.06 * _place(max(kls))]
    figure.update_xaxes(
        title_text=title,
        tickvals=[_place(tick) for tick in spread],
        ticktext=[f"{tick:g}" for tick in spread],
        range=[min(_place(min(kls)), 0.0) - 0.04 * _place(max(kls)), _place(max(kls)) * 1.05],
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
    return go.Scatter(
        x=[0], y=[start], mode="markers", marker=marker(base, 13), name=safe(base["label"]), hovertext=[text], hoverinfo="text"
    )


def _point_hover(arm: Arm, point: FrontierPoint) -> str:
    where = [f"seed {point['seed']}"]
    where += [f"step {point['step']}"] if point["step"] is not None else []
    where += [f"coefficient {point['coefficient']:g}"] if point["coefficient"] is not None else []
    numbers = f"KL {fixed(point['kl'])} · gold {fixed(point['gold'])} · proxy {fixed(point['proxy'])}"
    return hover(safe(arm["label"]), " · ".join(where), numbers)


def _parting_lines(arm: Arm, points: list[FrontierPoint], gold: float, proxy: float) -> list[go.Scatter]:
    lines = []
    for path in _paths(points):
        xs = [0.0, *(_place(stop.kl) for stop in path)]
        for metric, start, dash in (("gold", gold, "solid"), ("proxy", proxy, "dash")):
            reached = [getattr(stop, metric) for stop in path]
            texts = [hover(safe(arm["label"]), f"{metric} {fixed(v)} at KL {fixed(s.kl)}") for v, s in zip(reached, path)]
            lines.append(
                go.Scatter(
                    x=xs,
                    y=[0.0, *(value - start for value in reached)],
                    mode="lines+markers",
                    line={"color": colour(arm["method"]), "width": 2, "dash": dash},
                    marker=marker(arm, 7),
                    hovertext=[hover(safe("start"), f"{metric} {fixed(start)} at KL 0"), *texts],
                    hoverinfo="text",
                )
            )
    return lines
